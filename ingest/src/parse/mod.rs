//! Formats. A new one is one file here and one line in [`PARSERS`].
//!
//! Bytes go in; text, its shape and the starts of its pages come out, or a reason that follows the file's path in a sentence.
//! A parser never reads another file, never asks the network, and never gives more text than its limits allow.

mod archive;
mod code;
mod csv_table;
mod epub;
mod html;
mod magic;
mod markdown;
mod office;
mod pdf;
mod sheet;
mod text;

pub use code::CodeLanguage;
pub(crate) use csv_table::delimiter as csv_delimiter;
pub(crate) use html::parse as parse_html;
pub(crate) use markdown::parse as parse_markdown;
pub(crate) use text::parse as parse_text;

use crate::decode::decode;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How the text of a document is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Markdown: by headings, then by blocks, then by sentences.
    Markdown,
    /// Running text: by paragraphs and sentences.
    Text,
    /// One record a line; a line is never cut while it fits.
    Rows,
    /// Source code: by its own syntax.
    Code(CodeLanguage),
}

/// Where a page or a slide begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageStart {
    /// Its number, from 1.
    pub number: u32,
    /// The byte of the text at which it begins.
    pub start: usize,
}

/// A document as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parsed {
    /// Its title, if it says one.
    pub title: Option<String>,
    /// Its text.
    pub text: String,
    /// How to cut it.
    pub shape: Shape,
    /// Where its pages begin, in order; empty where the format has none.
    pub pages: Vec<PageStart>,
}

/// How much a document may unfold to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most bytes that a container unpacks to, and most bytes of text that a document gives.
    pub max_text_bytes: u64,
    /// Deepest nesting of tags.
    pub max_nesting: usize,
    /// Most pages, slides or sheets.
    pub max_pages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_text_bytes: 64 << 20, max_nesting: 256, max_pages: 5_000 }
    }
}

impl Limits {
    fn megabytes(&self) -> u64 {
        self.max_text_bytes >> 20
    }

    /// Refuses a document with too many pages, slides, sheets or chapters.
    fn check_pages(&self, count: usize, what: &str) -> Result<(), String> {
        if count > self.max_pages { Err(format!("has {count} {what}; at most {} are read", self.max_pages)) } else { Ok(()) }
    }

    /// Refuses more text than is allowed; asked while the text grows.
    fn check_text(&self, text: &str) -> Result<(), String> {
        if text.len() as u64 > self.max_text_bytes { Err(format!("holds more than {} MB of text", self.megabytes())) } else { Ok(()) }
    }
}

/// The reason of a parser that was refused memory and lived; a worker adds how much it had.
pub(crate) const OUT_OF_MEMORY: &str = "needs more memory than there is to extract";

/// What a parser reads.
#[derive(Clone, Copy)]
pub enum Read {
    /// Text, decoded already.
    Text(fn(&str) -> Result<Parsed, String>),
    /// The file's bytes.
    Bytes(fn(&[u8], &Limits) -> Result<Parsed, String>),
}

/// A format.
pub struct Parser {
    /// Its name, for people.
    pub name: &'static str,
    /// File endings in lower case.
    pub endings: &'static [&'static str],
    /// File in, document out; the error is a reason for the report.
    pub read: Read,
    /// Whether it runs in a worker process: formats whose parsers have been seen to crash, to hang or to eat memory.
    pub isolated: bool,
}

impl Parser {
    const fn text(name: &'static str, endings: &'static [&'static str], read: fn(&str) -> Result<Parsed, String>) -> Self {
        Self { name, endings, read: Read::Text(read), isolated: false }
    }

    const fn isolated(name: &'static str, endings: &'static [&'static str], read: fn(&[u8], &Limits) -> Result<Parsed, String>) -> Self {
        Self { name, endings, read: Read::Bytes(read), isolated: true }
    }

    /// Reads a file in this process. `charset` is what its source says of its characters; only texts have some.
    pub fn parse(&self, bytes: &[u8], charset: Option<&str>, limits: &Limits) -> Result<Parsed, String> {
        let parsed = match self.read {
            Read::Text(read) => read(&decode(bytes, charset)?)?,
            Read::Bytes(read) => read(bytes, limits)?,
        };
        limits.check_text(&parsed.text)?;
        Ok(parsed)
    }
}

/// Every format that is read.
pub const PARSERS: &[Parser] = &[
    Parser::text("Markdown", &["md", "markdown", "mdx"], markdown::parse),
    Parser::text("text", &["txt", "text"], text::parse),
    Parser::text("HTML", &["html", "htm", "xhtml"], html::parse),
    Parser::text("CSV", &["csv", "tsv"], csv_table::parse),
    Parser::isolated("PDF", &["pdf"], pdf::parse),
    Parser::isolated("Word", &["docx", "docm"], office::parse_word),
    Parser::isolated("PowerPoint", &["pptx", "pptm"], office::parse_powerpoint),
    Parser::isolated("spreadsheet", &["xlsx", "xlsm", "xlsb", "xls", "ods"], sheet::parse),
    Parser::isolated("EPUB", &["epub"], epub::parse),
    Parser::text("Rust", &["rs"], |source| Ok(code::parse(source, CodeLanguage::Rust))),
    Parser::text("Python", &["py", "pyi"], |source| Ok(code::parse(source, CodeLanguage::Python))),
    Parser::text("JavaScript", &["js", "mjs", "cjs", "jsx"], |source| Ok(code::parse(source, CodeLanguage::JavaScript))),
    Parser::text("TypeScript", &["ts", "mts", "cts"], |source| Ok(code::parse(source, CodeLanguage::TypeScript))),
    Parser::text("TSX", &["tsx"], |source| Ok(code::parse(source, CodeLanguage::Tsx))),
    Parser::text("Go", &["go"], |source| Ok(code::parse(source, CodeLanguage::Go))),
    Parser::text("Java", &["java"], |source| Ok(code::parse(source, CodeLanguage::Java))),
    Parser::text("C and C++", &["c", "h", "cc", "cpp", "cxx", "hh", "hpp"], |source| Ok(code::parse(source, CodeLanguage::Cpp))),
    Parser::text("scripts", &["sh", "bash", "rb"], |source| Ok(code::parse_without_grammar(source))),
];

/// The parser for a file's ending.
pub fn parser_for(path: &Path) -> Option<&'static Parser> {
    let ending = ending_of(path)?;
    PARSERS.iter().find(|parser| parser.endings.contains(&ending.as_str()))
}

/// A file's ending in lower case, without the dot.
pub(crate) fn ending_of(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_lowercase())
}

/// Text of a file or of a library in one line, for titles and reasons.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All endings, for messages: `.md, .txt`.
pub fn known_endings() -> String {
    let endings: Vec<String> = PARSERS.iter().flat_map(|parser| parser.endings).map(|ending| format!(".{ending}")).collect();
    endings.join(", ")
}

#[cfg(test)]
fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_ending_belongs_to_one_format() {
        let mut endings: Vec<&str> = PARSERS.iter().flat_map(|parser| parser.endings).copied().collect();
        let count = endings.len();
        endings.sort_unstable();
        endings.dedup();
        assert_eq!(endings.len(), count);
    }

    /// Text or a reason. A parser that runs in a worker may panic too: it costs its file, and nothing else (ingest/tests/isolation.rs).
    fn check(parser: &Parser, bytes: &[u8]) -> Result<(), TestCaseError> {
        let result = std::panic::catch_unwind(|| parser.parse(bytes, None, &Limits::default()));
        match result {
            Ok(Err(reason)) => prop_assert!(!reason.is_empty() && !reason.contains('\n'), "{}: {reason:?}", parser.name),
            Ok(Ok(_)) => {}
            Err(_) => prop_assert!(parser.isolated, "{} panicked", parser.name),
        }
        Ok(())
    }

    /// Beginnings that let a parser go deeper than its first check.
    const BEGINNINGS: &[&[u8]] = &[b"", b"%PDF-1.7\n", b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"<html>", b"# "];
    const FIXTURES: &[&str] =
        &["manual.pdf", "encrypted.pdf", "returns.docx", "deck.pptx", "prices.xlsx", "prices.xls", "prices.ods", "care.epub"];

    proptest! {
        #[test]
        fn any_bytes_give_text_or_a_reason(start in 0..BEGINNINGS.len(), rest in proptest::collection::vec(any::<u8>(), 0..400)) {
            let bytes = [BEGINNINGS[start], &rest].concat();
            for parser in PARSERS {
                check(parser, &bytes)?;
            }
        }

        #[test]
        fn a_damaged_file_gives_text_or_a_reason(
            which in 0..FIXTURES.len(),
            kept in 0.0..2.0f64,
            wrong in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 0..8),
        ) {
            let mut bytes = fixture(FIXTURES[which]);
            for (at, byte) in wrong {
                let at = (at * bytes.len() as f64) as usize;
                bytes[at] = byte;
            }
            bytes.truncate((kept.min(1.0) * bytes.len() as f64) as usize);
            check(parser_for(Path::new(FIXTURES[which])).unwrap(), &bytes)?;
        }
    }
}
