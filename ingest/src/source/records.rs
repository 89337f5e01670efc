//! Records: one JSON object a line, with the document's text in it.

use super::{Locator, Offer, Source, SourceContent, SourceItem, SourceSettings, not_ours, plain, refused, shown, too_large};
use crate::Error;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use groundtone_types::{DocumentId, Metadata};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};

/// A document in a line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    id: String,
    /// Markdown.
    text: String,
    title: Option<String>,
    url: Option<String>,
    #[serde(default)]
    metadata: Metadata,
}

type Lines = Box<dyn AsyncBufRead + Send + Unpin>;

enum Input {
    File(PathBuf),
    /// Can be read once.
    Stream(Mutex<Option<Lines>>),
}

/// Records of a file or of a stream. Each carries its own text, so that no more than the one at hand is in memory.
pub(super) struct RecordSource {
    place: String,
    input: Input,
    max_bytes: usize,
}

impl RecordSource {
    pub(super) fn file(path: &Path, settings: &SourceSettings) -> Self {
        Self { place: shown(path), input: Input::File(path.to_owned()), max_bytes: settings.record_max_bytes }
    }

    pub(super) fn stdin(settings: &SourceSettings) -> Self {
        Self::stream("standard input", Box::new(BufReader::new(tokio::io::stdin())), settings.record_max_bytes)
    }

    fn stream(place: &str, lines: Lines, max_bytes: usize) -> Self {
        Self { place: place.to_owned(), input: Input::Stream(Mutex::new(Some(lines))), max_bytes }
    }

    async fn open(&self) -> Result<Lines, Error> {
        match &self.input {
            Input::File(path) => {
                let file = tokio::fs::File::open(path).await.map_err(|error| refused(&self.place, &plain(&error)))?;
                Ok(Box::new(BufReader::new(file)))
            }
            Input::Stream(lines) => {
                let lines = lines.lock().unwrap_or_else(PoisonError::into_inner).take();
                lines.ok_or_else(|| refused(&self.place, "it has been read already"))
            }
        }
    }

    fn offer(&self, number: usize, line: &Line) -> Offer {
        let bad = |reason: String| Offer::Unreadable { place: self.place.clone(), reason: format!("line {number}: {reason}") };
        let text = match line {
            Line::Whole(text) => text.as_slice(),
            Line::TooLong => return bad(format!("has more than {} bytes (`sources.record_max_bytes`)", self.max_bytes)),
        };
        let record: Record = match serde_json::from_slice(text) {
            Ok(record) => record,
            Err(error) => return bad(in_words(&error)),
        };
        let id = match DocumentId::new(record.id.clone()) {
            Ok(id) => id,
            Err(error) => return bad(error.to_string().chars().filter(|c| !c.is_control()).take(300).collect()),
        };
        let last = id.as_str().rsplit('/').next().unwrap_or_default();
        Offer::Item(SourceItem {
            name: if last.ends_with(".md") { last.to_owned() } else { format!("{last}.md") },
            place: format!("{}:{number}", self.place),
            url: record.url.clone().unwrap_or_default(),
            bytes: record.text.len() as u64,
            version: None,
            locator: Locator::Record(Arc::new(record)),
            id,
        })
    }
}

#[async_trait]
impl Source for RecordSource {
    /// In the order of the lines. A bad line costs only itself; a record with the id of an earlier one takes its place.
    fn offers(&self) -> BoxStream<'_, Result<Offer, Error>> {
        let start = async move {
            let failed = |error: Error| stream::iter([Err(error)]).boxed();
            match self.open().await {
                Ok(lines) => self.records(lines),
                Err(error) => failed(error),
            }
        };
        stream::once(start).flatten().boxed()
    }

    async fn read(&self, item: &SourceItem, max_bytes: u64) -> Result<SourceContent, String> {
        let Locator::Record(record) = &item.locator else { return Err(not_ours()) };
        if item.bytes > max_bytes {
            return Err(too_large(item.bytes, max_bytes));
        }
        Ok(SourceContent {
            bytes: record.text.clone().into_bytes(),
            media_type: Some("text/markdown".to_owned()),
            charset: Some("utf-8".to_owned()),
            title: record.title.clone().filter(|title| !title.trim().is_empty()),
            metadata: record.metadata.clone(),
        })
    }

    fn carries_content(&self) -> bool {
        true
    }

    fn is_complete(&self) -> bool {
        false
    }
}

struct Reading {
    lines: Lines,
    number: usize,
    found: bool,
}

impl RecordSource {
    fn records(&self, lines: Lines) -> BoxStream<'_, Result<Offer, Error>> {
        stream::unfold(Some(Reading { lines, number: 0, found: false }), move |reading| async move {
            let mut reading = reading?;
            loop {
                reading.number += 1;
                match next_line(&mut reading.lines, self.max_bytes).await {
                    Err(error) => return Some((Err(refused(&self.place, &format!("line {}: {}", reading.number, plain(&error)))), None)),
                    Ok(None) if reading.found => return None,
                    Ok(None) => return Some((Err(refused(&self.place, "it holds no record")), None)),
                    Ok(Some(Line::Whole(text))) if text.trim_ascii().is_empty() => {}
                    Ok(Some(line)) => {
                        reading.found = true;
                        return Some((Ok(self.offer(reading.number, &line)), Some(reading)));
                    }
                }
            }
        })
        .boxed()
    }
}

enum Line {
    Whole(Vec<u8>),
    /// Its bytes were passed over, not kept.
    TooLong,
}

/// The next line without its end; `None` after the last one.
async fn next_line(lines: &mut Lines, max_bytes: usize) -> std::io::Result<Option<Line>> {
    let (mut line, mut too_long, mut any) = (Vec::new(), false, false);
    loop {
        let buffer = lines.fill_buf().await?;
        if buffer.is_empty() {
            break;
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        too_long |= line.len() + part.len() > max_bytes;
        if !too_long {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        lines.consume(used);
        if end.is_some() {
            break;
        }
    }
    let start = if line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    Ok(match (any, too_long) {
        (false, _) => None,
        (true, true) => Some(Line::TooLong),
        (true, false) => Some(Line::Whole(line.split_off(start))),
    })
}

/// `missing field `text`` rather than a line and column of a single line.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    if error.is_data() { text.to_owned() } else { format!("is not JSON: {text} at column {}", error.column()) }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
