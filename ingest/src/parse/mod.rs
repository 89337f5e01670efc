//! Formats. A new one is one file here and one line in [`PARSERS`].

mod csv_table;
mod html;
mod markdown;
mod text;

use std::path::Path;

/// How the text of a document is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Markdown: by headings, then by blocks, then by sentences.
    Markdown,
    /// Running text: by paragraphs and sentences.
    Text,
    /// One record a line; a line is never cut while it fits.
    Rows,
}

/// A document as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Its title, if it says one.
    pub title: Option<String>,
    /// Its text.
    pub text: String,
    /// How to cut it.
    pub shape: Shape,
}

/// A format.
pub struct Parser {
    /// Its name, for people.
    pub name: &'static str,
    /// File endings in lower case.
    pub endings: &'static [&'static str],
    /// Text in, document out; the error is a reason for the report.
    pub parse: fn(&str) -> Result<Parsed, String>,
}

/// Every format that is read.
pub const PARSERS: &[Parser] = &[
    Parser { name: "Markdown", endings: &["md", "markdown", "mdx"], parse: markdown::parse },
    Parser { name: "text", endings: &["txt", "text"], parse: text::parse },
    Parser { name: "HTML", endings: &["html", "htm", "xhtml"], parse: html::parse },
    Parser { name: "CSV", endings: &["csv", "tsv"], parse: csv_table::parse },
];

/// The parser for a file's ending.
pub fn parser_for(path: &Path) -> Option<&'static Parser> {
    let ending = path.extension()?.to_str()?.to_lowercase();
    PARSERS.iter().find(|parser| parser.endings.contains(&ending.as_str()))
}

/// All endings, for messages: `.md, .txt`.
pub fn known_endings() -> String {
    let endings: Vec<String> = PARSERS.iter().flat_map(|parser| parser.endings).map(|ending| format!(".{ending}")).collect();
    endings.join(", ")
}
