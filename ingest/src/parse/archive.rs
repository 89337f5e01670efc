//! What a container of zipped XML must pass before its parser sees it: so many entries, so many bytes unpacked, so deeply nested.
//!
//! Sizes are counted while unpacking, never believed from the directory. Unpacking twice costs milliseconds; a zip bomb costs the machine.

use super::{Limits, OUT_OF_MEMORY, magic};
use magic::Kind;
use quick_xml::events::Event;
use std::io::{Cursor, Read};
use zip::ZipArchive;
use zip::result::ZipError;

/// Most entries; a deck of a thousand slides has some thousands.
const ENTRIES: usize = 20_000;
const XML_ENDINGS: &[&str] = &[".xml", ".rels", ".xhtml", ".html", ".htm", ".opf", ".ncx"];

/// The names of its entries; `Err` is the reason why the container must not be opened.
pub(super) fn check(bytes: &[u8], wanted: &str, limits: &Limits) -> Result<Vec<String>, String> {
    if magic::kind(bytes) != Kind::Zip {
        return Err(magic::mismatch(bytes, wanted));
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(wanted, &error))?;
    if archive.len() > ENTRIES {
        return Err(format!("packs {} files; at most {ENTRIES} are read", archive.len()));
    }
    let (mut left, mut names) = (limits.max_text_bytes, Vec::new());
    for at in 0..archive.len() {
        let mut entry = match archive.by_index(at) {
            Ok(entry) => entry,
            Err(ZipError::UnsupportedArchive(reason)) if reason == ZipError::PASSWORD_REQUIRED => return Err("is encrypted".to_owned()),
            Err(error) => return Err(damaged(wanted, &error)),
        };
        let name = entry.name().map_err(|error| damaged(wanted, &error))?.into_owned();
        let mut content = Vec::new();
        let read = (&mut entry).take(left + 1).read_to_end(&mut content);
        let is_xml = XML_ENDINGS.iter().any(|ending| name.to_lowercase().ends_with(ending));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => return Err(OUT_OF_MEMORY.to_owned()),
            Err(error) if is_xml => return Err(damaged(wanted, &error)),
            // A broken picture is not a broken document.
            Err(error) => tracing::debug!(%error, "an entry without text is damaged"),
        }
        left = left
            .checked_sub(content.len() as u64)
            .ok_or_else(|| format!("unpacks to more than {} MB; larger ones are not read", limits.megabytes()))?;
        if is_xml {
            check_nesting(&content, limits.max_nesting)?;
        }
        names.push(name);
    }
    Ok(names)
}

fn damaged(wanted: &str, error: &dyn std::fmt::Display) -> String {
    format!("is a damaged {wanted}: {}", super::one_line(&error.to_string()))
}

/// Walks the tags without building a tree. What is no XML at all is left to the parser.
fn check_nesting(content: &[u8], most: usize) -> Result<(), String> {
    let mut reader = quick_xml::Reader::from_reader(content);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    let (mut depth, mut buffer) = (0usize, Vec::new());
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer) {
            Ok(Event::Start(_)) => depth += 1,
            Ok(Event::End(_)) => depth = depth.saturating_sub(1),
            Ok(Event::Eof) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
        if depth > most {
            return Err(format!("nests its tags more than {most} deep; deeper ones are not read"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    fn zipped(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn bombs_and_towers_are_refused_with_their_reason() {
        let limits = Limits { max_text_bytes: 2 << 20, max_nesting: 100, ..Limits::default() };
        let fine = zipped(&[("a.xml", b"<a><b/></a>".to_vec()), ("b.bin", vec![7; 1000])]);
        assert_eq!(check(&fine, "Word document", &limits).unwrap(), ["a.xml", "b.bin"]);
        let cases = [
            (zipped(&[("a.xml", vec![b' '; 3 << 20])]), "unpacks to more than 2 MB; larger ones are not read"),
            (zipped(&[("a.bin", vec![0; 1 << 20]), ("b.bin", vec![0; 1 << 20]), ("c.bin", vec![0; 1])]), "unpacks to more than 2 MB"),
            (zipped(&[("a.xml", "<a>".repeat(200).into_bytes())]), "nests its tags more than 100 deep; deeper ones are not read"),
            (fine[..fine.len() / 2].to_vec(), "is a damaged Word document: "),
            (b"%PDF-1.4 ...".to_vec(), "is no Word document; it looks like a PDF"),
            (b"plain".to_vec(), "is no Word document"),
            (Vec::new(), "is empty"),
        ];
        for (bytes, reason) in cases {
            let found = check(&bytes, "Word document", &limits).unwrap_err();
            assert!(found.starts_with(reason), "{found}");
        }
    }
}
