//! Files of questions and answers in, [`Example`]s out, one record at a time.
//!
//! Records that become examples and records that are rejected add up to the file; a bad one costs only itself and is named by its line.
//! Memory is bounded by the longest record, and that by [`ReadOptions::max_record_bytes`].

mod array;
mod columns;
mod lines;
mod shapes;
mod tables;

use crate::{Error, Example};
use array::Elements;
pub use columns::Columns;
use lines::{Line, Lines};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use tables::Table;

/// How a file is read where its records do not say it themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// By the file's ending and each record's own keys.
    #[default]
    Auto,
    /// A table with a header line: comma, semicolon or tab.
    Csv,
    /// Objects with a question and an answer.
    Qa,
    /// `messages` with `role` and `content`: OpenAI's chat format, and an existing fine-tuning file.
    Messages,
    /// `conversations` with `from` and `value`.
    ShareGpt,
    /// `instruction`, `input`, `output`.
    Alpaca,
    /// `question`, `answer`, `correction`, `thumb`, `trace_id`: stored answers and what people said about them.
    Traces,
}

/// Which replies of a conversation become examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    /// The last reply, with the turns before it as history.
    #[default]
    Last,
    /// Every reply to a customer's message, each with the turns before it.
    Every,
}

/// How to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReadOptions {
    /// What the records look like.
    pub format: Format,
    /// Columns or keys by name, where detection does not find them.
    pub columns: Columns,
    /// Which replies of a conversation.
    pub turns: Turns,
    /// Keep a log's own system messages: they follow the brand's text, as a client's do in serving. Without it they are left out: the contract has the brand's text.
    pub keep_system: bool,
    /// Longest record, in bytes; a longer one is rejected.
    pub max_record_bytes: usize,
}

/// One record of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// The line that it begins on, from 1.
    pub line: u64,
    /// Its examples, at least one, or why there are none.
    pub outcome: Result<Vec<Example>, String>,
}

/// The records of a file, in its order. An error is one of reading; no record follows it.
pub struct Records {
    source: Source,
    options: ReadOptions,
    bytes: u64,
}

enum Source {
    Lines(Lines<Input>),
    Array(Elements<Input>),
    Table(Box<Table<Input>>),
}

type Input = BufReader<Box<dyn Read + Send>>;

impl Records {
    /// Opens a file.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, Error> {
        let failed = |error: &std::io::Error| Error::File { path: path.to_owned(), reason: error.to_string() };
        let file = File::open(path).map_err(|error| failed(&error))?;
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        Self::new(Box::new(file), ending.as_deref(), options).map_err(|error| match error {
            Error::Header { reason, .. } => Error::Header { path: path.to_owned(), reason },
            Error::File { reason, .. } => Error::File { path: path.to_owned(), reason },
            other => other,
        })
    }

    /// Reads a stream; `ending` is the file ending that it would have.
    pub fn new(stream: Box<dyn Read + Send>, ending: Option<&str>, options: &ReadOptions) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::File { path: "the stream".into(), reason: error.to_string() };
        let mut input: Input = BufReader::with_capacity(64 << 10, stream);
        if input.fill_buf().map_err(failed)?.starts_with(b"\xef\xbb\xbf") {
            input.consume(3);
        }
        let table = options.format == Format::Csv || options.format == Format::Auto && matches!(ending, Some("csv" | "tsv"));
        let array = input.fill_buf().map_err(failed)?.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        let source = if table {
            Source::Table(Box::new(Table::open(Lines::new(input, options.max_record_bytes), options)?))
        } else if array {
            Source::Array(Elements::new(input, options.max_record_bytes))
        } else {
            Source::Lines(Lines::new(input, options.max_record_bytes))
        };
        Ok(Self { source, options: options.clone(), bytes: 0 })
    }

    /// Bytes of the file that were read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self) -> std::io::Result<Option<Record>> {
        match &mut self.source {
            Source::Table(table) => {
                let record = table.next();
                self.bytes = table.bytes();
                record
            }
            Source::Array(elements) => {
                let element = elements.next()?;
                self.bytes = elements.bytes();
                Ok(element.map(|(line, bytes)| {
                    let outcome = bytes.and_then(|bytes| shapes::examples(&bytes, line, &self.options));
                    Record { line, outcome }
                }))
            }
            Source::Lines(lines) => loop {
                let next = lines.next()?;
                self.bytes = lines.bytes();
                let Some((line, text)) = next else { return Ok(None) };
                let outcome = match text {
                    Line::Text(text) if text.iter().all(u8::is_ascii_whitespace) => continue,
                    Line::Text(text) => shapes::examples(&text, line, &self.options),
                    Line::TooLong => Err(format!("has more than {} bytes", self.options.max_record_bytes)),
                };
                return Ok(Some(Record { line, outcome }));
            },
        }
    }
}

impl Iterator for Records {
    type Item = std::io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests;
