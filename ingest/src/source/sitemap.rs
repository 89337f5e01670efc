//! Sitemaps (sitemaps.org): a list of pages, or a list of sitemaps. Text in, addresses out; nothing is fetched here.

use flate2::read::MultiGzDecoder;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, Event};
use std::io::Read;

/// Largest sitemap, unpacked, as the protocol says.
pub(super) const SITEMAP_BYTES: u64 = 50 * 1024 * 1024;
/// Most entries of one sitemap, as the protocol says.
const SITEMAP_ENTRIES: usize = 50_000;
/// Longest address, as the protocol says; the text of other elements is not kept beyond it either.
const ADDRESS_BYTES: usize = 2_048;

/// One line of a sitemap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: String,
    /// `2026-11-24` or `2026-11-24T08:00:00Z`, as it is written.
    pub(super) modified: Option<String>,
}

/// A sitemap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sitemap {
    Pages(Vec<Entry>),
    Index(Vec<Entry>),
}

/// Unpacks a body that begins like gzip, to at most `max_bytes`; any other body is returned as it is.
pub(super) fn unpack(bytes: Vec<u8>, max_bytes: u64) -> Result<Vec<u8>, String> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut text = Vec::new();
    let read = MultiGzDecoder::new(&bytes[..]).take(max_bytes + 1).read_to_end(&mut text);
    match read {
        Err(error) => Err(format!("cannot be unpacked: {error}")),
        Ok(_) if text.len() as u64 > max_bytes => Err(format!("has more than {max_bytes} bytes when it is unpacked")),
        Ok(_) => Ok(text),
    }
}

/// Reads a sitemap. Entities are not expanded, except the five that XML itself has.
pub(super) fn parse(text: &[u8]) -> Result<Sitemap, String> {
    let mut reader = Reader::from_reader(text);
    let mut parser = Parser::default();
    let not_xml = |error: &dyn std::fmt::Display| format!("is not a sitemap: {error}");
    let mut buffer = Vec::new();
    loop {
        match reader.read_event_into(&mut buffer).map_err(|error| not_xml(&error))? {
            Event::Start(tag) => parser.open(tag.local_name().as_ref())?,
            Event::End(_) => parser.close()?,
            Event::Text(text) => parser.text(&text),
            Event::CData(text) => parser.text(&text),
            Event::GeneralRef(reference) => parser.text(&resolved(&reference)?),
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
        buffer.clear();
    }
    if !parser.path.is_empty() {
        return Err("is not a sitemap: it ends in the middle".to_owned());
    }
    match parser.root.as_deref() {
        Some("urlset") => Ok(Sitemap::Pages(parser.entries)),
        Some("sitemapindex") => Ok(Sitemap::Index(parser.entries)),
        _ => Err("is not a sitemap: it has neither <urlset> nor <sitemapindex>".to_owned()),
    }
}

/// `&amp;` and `&#38;`; an entity that a document type would have to define is refused.
fn resolved(reference: &BytesRef<'_>) -> Result<String, String> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Ok(character.to_string());
    }
    let name: &str = reference;
    resolve_xml_entity(name).map(str::to_owned).ok_or_else(|| format!("is not a sitemap: it uses the entity &{name};"))
}

#[derive(Default)]
struct Parser {
    root: Option<String>,
    path: Vec<Element>,
    entry: Entry,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Root,
    Entry,
    Address,
    Modified,
    Other,
}

impl Parser {
    fn open(&mut self, name: &str) -> Result<(), String> {
        let element = match (self.path.as_slice(), name) {
            ([], "urlset" | "sitemapindex") if self.root.is_none() => {
                self.root = Some(name.to_owned());
                Element::Root
            }
            ([], _) => return Err(format!("is not a sitemap: it begins with <{}>", name.chars().take(40).collect::<String>())),
            ([Element::Root], "url" | "sitemap") => Element::Entry,
            ([Element::Root, Element::Entry], "loc") => Element::Address,
            ([Element::Root, Element::Entry], "lastmod") => Element::Modified,
            _ => Element::Other,
        };
        self.path.push(element);
        Ok(())
    }

    fn text(&mut self, text: &str) {
        let target = match self.path.last() {
            Some(Element::Address) => &mut self.entry.address,
            Some(Element::Modified) => self.entry.modified.get_or_insert_default(),
            _ => return,
        };
        if target.len() <= ADDRESS_BYTES {
            target.push_str(text);
        }
    }

    fn close(&mut self) -> Result<(), String> {
        if self.path.pop() != Some(Element::Entry) {
            return Ok(());
        }
        if self.entries.len() == SITEMAP_ENTRIES {
            return Err(format!("has more than {SITEMAP_ENTRIES} entries"));
        }
        let Entry { address, modified } = std::mem::take(&mut self.entry);
        let modified = modified.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        self.entries.push(Entry { address: address.trim().to_owned(), modified });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn entry(address: &str, modified: Option<&str>) -> Entry {
        Entry { address: address.to_owned(), modified: modified.map(str::to_owned) }
    }

    #[test]
    fn pages_and_indexes_are_read_with_their_dates() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?><!-- made by hand -->
            <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
              <url><loc> https://e.test/a?x=1&amp;y=&#50; </loc><lastmod>2026-11-24</lastmod><priority>0.5</priority></url>
              <url><image:image><image:loc>https://e.test/p.png</image:loc></image:image><loc><![CDATA[https://e.test/b]]></loc></url>
            </urlset>"#;
        let pages = vec![entry("https://e.test/a?x=1&y=2", Some("2026-11-24")), entry("https://e.test/b", None)];
        assert_eq!(parse(text.as_bytes()), Ok(Sitemap::Pages(pages)));
        let index = "<sitemapindex><sitemap><loc>https://e.test/1.xml</loc></sitemap></sitemapindex>";
        assert_eq!(parse(index.as_bytes()), Ok(Sitemap::Index(vec![entry("https://e.test/1.xml", None)])));
    }

    #[test]
    fn what_is_no_sitemap_is_said_to_be_none() {
        let laughs = r#"<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]><urlset><url><loc>&lol2;</loc></url></urlset>"#;
        let cases = [
            ("<html><body>404</body></html>", "begins with <html>"),
            ("", "neither <urlset> nor <sitemapindex>"),
            ("<urlset><url><loc>x</loc></url>", "ends in the middle"),
            ("<urlset><url></urlset>", "is not a sitemap"),
            (laughs, "it uses the entity &lol2;"),
            ("<urlset/>", "neither"),
        ];
        for (text, reason) in cases {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let many = format!("<urlset>{}</urlset>", "<url><loc>x</loc></url>".repeat(SITEMAP_ENTRIES + 1));
        assert_eq!(parse(many.as_bytes()), Err("has more than 50000 entries".to_owned()));
    }

    #[test]
    fn a_bomb_is_unpacked_to_its_limit_and_no_further() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let block = vec![b' '; 1 << 20];
        (0..200).for_each(|_| encoder.write_all(&block).unwrap());
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 4 << 20);
        assert_eq!(unpack(bomb, 1 << 20), Err("has more than 1048576 bytes when it is unpacked".to_owned()));
        assert!(unpack(vec![0x1f, 0x8b, 8, 0], 100).unwrap_err().starts_with("cannot be unpacked"));
        assert_eq!(unpack(b"<urlset>".to_vec(), 100), Ok(b"<urlset>".to_vec()));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_sitemap_or_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(<|>|/|url|urlset|loc|&|;|!|\\[|\\]|-| ){0,40}") {
            for input in [&bytes[..], text.as_bytes()] {
                if let Err(reason) = parse(input) {
                    prop_assert!(!reason.is_empty());
                }
            }
        }
    }
}
