//! Large texts in parts (docs/decisions/0010-large-files.md): read through once as they are listed, and then piece by piece, so that memory does not grow with the file.
//!
//! A part ends where a paragraph or a row ends whose own bytes say so: what is inserted near the start of a file moves the cuts near it and no others.

use super::plain;
use crate::parse::{Limits, Shape, csv_delimiter, ending_of, parser_for};
use crate::prepare::title_from_name;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No part but the last is smaller.
const LEAST: u64 = 256 << 10;
/// How many more bytes a part has on average.
const MORE: u64 = 256 << 10;
/// From here on the next paragraph ends the part, whatever its bytes.
const SOFT: u64 = 1 << 20;
/// From here on the next line ends it, even inside a block of code or a quoted field.
const HARD: u64 = 2 << 20;
/// Longest line that is taken whole; a longer one is cut between two characters.
const LINE: u64 = 256 << 10;
/// How much of a file is looked at for its title, its header line and its kind.
const HEAD: usize = 64 << 10;

/// How a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Markdown,
    Rows,
}

impl Kind {
    /// `None` for formats that are not read in parts.
    pub(super) fn of(path: &Path) -> Option<Self> {
        match parser_for(path)?.name {
            "text" => Some(Self::Text),
            "Markdown" => Some(Self::Markdown),
            "CSV" => Some(Self::Rows),
            _ => None,
        }
    }
}

/// One part of a file, as its listing found it.
#[derive(Debug, Clone)]
pub(super) struct Part {
    path: PathBuf,
    start: u64,
    /// Bytes, without the head.
    length: u64,
    /// Stands before the part's own bytes: a table's header, or the headings above it.
    head: Arc<[u8]>,
    /// The file's title.
    pub(super) title: Arc<str>,
    /// Hash of title, head and bytes.
    pub(super) version: String,
}

impl Part {
    /// Bytes of the document.
    pub(super) fn bytes(&self) -> u64 {
        self.length + self.head.len() as u64
    }

    /// Reads it, and refuses bytes that are not those that were listed.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::with_capacity(self.bytes() as usize);
            bytes.extend_from_slice(&self.head);
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.start))?;
            file.take(self.length).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| format!("cannot be read: {}", plain(&error)))?;
        let mut hash = hash_of(&self.title);
        hash.update(&bytes);
        if hex::encode(hash.finalize()) == self.version {
            Ok(bytes)
        } else {
            Err("changed while it was read; the next run reads it again".to_owned())
        }
    }
}

fn hash_of(title: &str) -> Sha256 {
    Sha256::new().chain_update((title.len() as u64).to_le_bytes()).chain_update(title)
}

/// Cuts a file and hands over each part; gives their number, or `None` when `take` wants no more. `Ok(Some(0))`: the file is no text that can be cut anywhere (UTF-16, or binary).
pub(super) fn cut(path: &Path, kind: Kind, mut take: impl FnMut(Part) -> bool) -> std::io::Result<Option<u32>> {
    let mut file = BufReader::with_capacity(1 << 17, File::open(path)?);
    let mut sample = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut sample)?;
    if sample.starts_with(b"\xff\xfe") || sample.starts_with(b"\xfe\xff") || sample.contains(&0) {
        return Ok(Some(0));
    }
    file.seek(SeekFrom::Start(0))?;
    let title: Arc<str> = title(path, &sample).into();
    let mut cutter = Cutter::new(kind, &sample);
    let (mut at, mut start, mut count, mut line) = (0u64, 0u64, 0u32, Vec::new());
    let mut head: Arc<[u8]> = Arc::from([]);
    let mut hash = hash_of(&title);
    loop {
        next_line(&mut file, &mut line)?;
        let ends = line.is_empty();
        if !ends {
            hash.update(&line);
            at += line.len() as u64;
        }
        let cut_here = if ends { at > start } else { cutter.ends_after(&line, at - start) };
        if cut_here {
            let part = Part {
                path: path.to_owned(),
                start,
                length: at - start,
                head: head.clone(),
                title: title.clone(),
                version: hex::encode(std::mem::replace(&mut hash, hash_of(&title)).finalize()),
            };
            count += 1;
            if !take(part) {
                return Ok(None);
            }
            start = at;
            head = cutter.head().into();
            hash.update(&head);
        }
        if ends {
            return Ok(Some(count));
        }
    }
}

/// The next line with its end, or as much of it as is taken at once; empty at the end of the file.
fn next_line(file: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<()> {
    line.clear();
    file.by_ref().take(LINE).read_until(b'\n', line)?;
    if line.len() as u64 == LINE && line.last() != Some(&b'\n') {
        // Not in the middle of a character.
        while file.fill_buf()?.first().is_some_and(|byte| byte & 0xc0 == 0x80) {
            line.extend(file.fill_buf()?.first());
            file.consume(1);
        }
    }
    Ok(())
}

/// The title that the file's beginning says, or its name; all parts have the same.
fn title(path: &Path, sample: &[u8]) -> String {
    let end = sample.iter().rposition(|byte| *byte == b'\n').map_or(sample.len(), |at| at + 1);
    let parsed = parser_for(path).and_then(|parser| parser.parse(&sample[..end], None, &Limits::default()).ok());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    parsed.and_then(|parsed| parsed.title).unwrap_or_else(|| title_from_name(&name, Shape::Text))
}

/// Where a CSV reader is in a row.
#[derive(Clone, Copy, PartialEq)]
enum Field {
    Start,
    Plain,
    Quoted,
    /// A quote that may have ended the field or be the first half of a doubled one.
    Quote,
}

/// Looks at each line once.
struct Cutter {
    kind: Kind,
    /// Hash of the paragraph or row so far, and its length.
    hash: u64,
    length: u64,
    delimiter: u8,
    field: Field,
    header: Vec<u8>,
    in_header: bool,
    fence: Option<u8>,
    headings: Vec<(usize, Vec<u8>)>,
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Cutter {
    fn new(kind: Kind, sample: &[u8]) -> Self {
        let delimiter = csv_delimiter(&String::from_utf8_lossy(sample));
        Self {
            kind,
            hash: FNV_OFFSET,
            length: 0,
            delimiter,
            field: Field::Start,
            header: Vec::new(),
            in_header: kind == Kind::Rows,
            fence: None,
            headings: Vec::new(),
        }
    }

    /// Whether the part, which is `bytes` long with this line, ends after it.
    fn ends_after(&mut self, line: &[u8], bytes: u64) -> bool {
        let blank = line.trim_ascii().is_empty();
        if !blank {
            for byte in line {
                self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
            }
            self.length += line.len() as u64;
        }
        let may_end = match self.kind {
            Kind::Text => blank,
            Kind::Markdown => self.markdown(line) && blank,
            Kind::Rows => self.row(line),
        };
        if may_end && self.length > 0 {
            // The chance grows with the paragraph's length, so that parts are equally long whatever the paragraphs are.
            let chance = (u64::MAX / MORE).saturating_mul(self.length.min(MORE));
            let chosen = mixed(self.hash) < chance;
            (self.hash, self.length) = (FNV_OFFSET, 0);
            return bytes >= LEAST && (chosen || bytes >= SOFT);
        }
        bytes >= HARD
    }

    /// What stands before the next part.
    fn head(&self) -> Vec<u8> {
        let mut head = self.header.clone();
        for (_, heading) in &self.headings {
            head.extend_from_slice(heading.trim_ascii_end());
            head.extend_from_slice(b"\n\n");
        }
        head
    }

    /// Notes fences and headings (`# ...`); `false` inside a block of code.
    fn markdown(&mut self, line: &[u8]) -> bool {
        let text = line.trim_ascii();
        let fence = [b'`', b'~'].into_iter().find(|mark| text.starts_with(&[*mark; 3]));
        match (self.fence, fence) {
            (None, Some(mark)) => self.fence = Some(mark),
            (Some(open), Some(mark)) if open == mark && text.iter().all(|byte| *byte == mark) => self.fence = None,
            _ => {}
        }
        let level = line.iter().take_while(|byte| **byte == b'#').count();
        if self.fence.is_none() && (1..=6).contains(&level) && line.get(level) == Some(&b' ') && line.len() < 1000 {
            self.headings.retain(|(above, _)| *above < level);
            self.headings.push((level, line.to_vec()));
        }
        self.fence.is_none()
    }

    /// Follows quotes; whether a row ends with this line.
    fn row(&mut self, line: &[u8]) -> bool {
        for &byte in line {
            self.field = match (self.field, byte) {
                (Field::Start | Field::Quote, b'"') => Field::Quoted,
                (Field::Quoted, b'"') => Field::Quote,
                (Field::Quoted, _) => Field::Quoted,
                (_, b'\n') => Field::Start,
                (_, byte) if byte == self.delimiter => Field::Start,
                _ => Field::Plain,
            };
        }
        let ends = self.field == Field::Start && line.ends_with(b"\n");
        if self.in_header && self.header.len() + line.len() <= HEAD {
            self.header.extend_from_slice(line);
        }
        self.in_header &= !ends;
        ends
    }
}

/// The last step of MurmurHash3: FNV's high bits hardly depend on its last bytes.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Whether a file of this ending goes to an extractor's server or to one of our parsers is decided elsewhere; this only knows ours.
pub(super) fn is_cut(path: &Path, others: &[String]) -> bool {
    Kind::of(path).is_some() && !ending_of(path).is_some_and(|ending| others.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(name: &str, text: &str) -> Vec<(String, Part)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut found = Vec::new();
        let count = cut(&path, Kind::of(&path).unwrap(), |part| {
            found.push((String::from_utf8(part.read().unwrap()).unwrap(), part));
            true
        });
        assert_eq!(count.unwrap(), Some(found.len() as u32));
        found
    }

    fn paragraphs(from: usize, to: usize) -> String {
        (from..to).map(|n| format!("Paragraph {n} speaks of {} and {}, at some length.\n\n", n * 7919 % 1013, n * 104_729 % 997)).collect()
    }

    #[test]
    fn parts_are_the_file_and_an_insertion_moves_few_of_them() {
        let text = paragraphs(0, 120_000);
        let before = parts("big.txt", &text);
        assert_eq!(before.iter().map(|(text, _)| text.as_str()).collect::<String>(), text);
        assert!(before.len() >= 4 && before.iter().all(|(text, _)| (text.len() as u64) <= SOFT + 100 && text.ends_with("\n\n")));
        let after = parts(
            "big.txt",
            &format!(
                "{}A word from somebody else.\n\n{}",
                &text[..text.find("\n\n").unwrap() + 2],
                &text[text.find("\n\n").unwrap() + 2..]
            ),
        );
        let versions: Vec<&str> = before.iter().map(|(_, part)| part.version.as_str()).collect();
        let same = after.iter().filter(|(_, part)| versions.contains(&part.version.as_str())).count();
        assert!(same + 2 >= before.len(), "{same} of {} parts are the same", before.len());
    }

    #[test]
    fn a_part_knows_the_headings_and_the_columns_above_it() {
        let text = format!("# Manual\n\n## Old\n\nx\n\n## Care\n\n{}```\n# no heading\n\n{}```\n", paragraphs(0, 30_000), paragraphs(0, 3));
        let found = parts("big.md", &text);
        assert!(found.len() > 1 && found.iter().all(|(_, part)| &*part.title == "Manual"));
        for (text, _) in &found[1..] {
            assert!(text.starts_with("# Manual\n\n## Care\n\nParagraph"), "{}", &text[..60]);
        }
        let rows: String = (0..60_000).map(|n| format!("K{n},\"a \"\"b\"\",\nof {n}\",{n}\n")).collect();
        let found = parts("big.csv", &format!("sku,name,price\n{rows}"));
        assert!(found.len() > 1);
        for (text, part) in &found {
            assert!(text.starts_with("sku,name,price\nK"), "{}", &text[..60]);
            assert_eq!(part.title.as_ref(), "Big");
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            assert!(reader.records().all(|record| record.unwrap().len() == 3));
        }
    }

    #[test]
    fn a_text_without_lines_is_cut_between_characters() {
        let text = "検索🚲ß".repeat(800_000);
        let found = parts("big.txt", &text);
        assert!(found.len() > 1 && found.iter().all(|(text, _)| text.len() as u64 <= HARD + LINE + 4));
        assert_eq!(found.into_iter().map(|(text, _)| text).collect::<String>(), text);
    }

    #[test]
    fn what_changes_after_it_was_listed_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "one\n\ntwo\n").unwrap();
        let mut part = None;
        cut(&path, Kind::Text, |found| part.replace(found).is_none()).unwrap();
        std::fs::write(&path, "one\n\nsix\n").unwrap();
        assert_eq!(part.unwrap().read().unwrap_err(), "changed while it was read; the next run reads it again");
        std::fs::write(&path, b"\xff\xfea\0").unwrap();
        assert_eq!(cut(&path, Kind::Text, |_| true).unwrap(), Some(0), "UTF-16 is read whole or not at all");
    }
}
