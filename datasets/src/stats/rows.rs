//! What the analysers keep of each row: its texts, its tokens, where it comes from.

use crate::manifest::{DatasetPaths, Entry, Manifest, read_entries};
use crate::tokens::{Frame, RowTokens, row_tokens};
use crate::{Error, RowKind};
use groundtone_prompt::CountTokens;
use rayon::prelude::*;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Lines that are parsed together.
const BATCH: usize = 2_048;

/// One row.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// Its line, from 1.
    pub(super) line: u64,
    /// What is asked: the question alone where a manifest says it, else everything before the last reply but the system's text.
    pub(super) input: String,
    /// The last reply; a preference row's preferred one.
    pub(super) output: String,
    /// Everything that a person may have written, for the search for personal data.
    pub(super) said: String,
    pub(super) turns: usize,
    pub(super) tokens: RowTokens,
    pub(super) label: Option<String>,
    pub(super) kind: Option<RowKind>,
    /// Documents that its answer comes from.
    pub(super) documents: Vec<String>,
}

/// A file's rows, and the lines that hold none.
pub(super) struct Loaded {
    pub(super) items: Vec<Item>,
    pub(super) unreadable: Vec<u64>,
    pub(super) manifest: Option<Manifest>,
}

/// The text of a message's content.
fn content(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
            texts.join("\n")
        }
        _ => match message.get("tool_calls").or_else(|| message.get("function_call")) {
            Some(calls) => calls.to_string(),
            None => message.get("refusal").and_then(Value::as_str).unwrap_or_default().to_owned(),
        },
    }
}

fn item(line: u64, text: &[u8], tokens: &dyn CountTokens, frame: &Frame) -> Option<Item> {
    let row: Value = serde_json::from_slice(text).ok()?;
    let counted = row_tokens(&row, tokens, frame);
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned();
    let mut messages =
        list(row.get("messages")).or_else(|| list(row.get("input").and_then(|input| input.get("messages")))).unwrap_or_default();
    messages.extend(list(row.get("preferred_output").or_else(|| row.get("preferred_completion"))).unwrap_or_default());
    for (key, role) in [("prompt", "user"), ("completion", "assistant")] {
        if let Some(text) = row.get(key).and_then(Value::as_str) {
            messages.push(serde_json::json!({"role": role, "content": text}));
        }
    }
    let role = |message: &Value| message.get("role").and_then(Value::as_str).unwrap_or_default().to_owned();
    let last = messages.iter().rposition(|message| role(message) == "assistant")?;
    let before: Vec<String> =
        messages[..last].iter().filter(|message| !matches!(role(message).as_str(), "system" | "developer")).map(content).collect();
    let output = content(&messages[last]);
    let input = before.join("\n");
    Some(Item { line, said: format!("{input}\n{output}"), input, output, turns: messages.len(), tokens: counted, ..Item::default() })
}

/// Reads a dataset. Rows that are none are named by their line and left out; `groundtone dataset validate` says why.
pub(super) fn load(path: &Path, tokens: &dyn CountTokens, frame: &Frame, max_line_bytes: usize) -> Result<Loaded, Error> {
    let failed = |error: std::io::Error| Error::File { path: path.to_owned(), reason: error.to_string() };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let (mut items, mut unreadable, mut line) = (Vec::new(), Vec::new(), 0u64);
    loop {
        let mut batch: Vec<(u64, Vec<u8>)> = Vec::with_capacity(BATCH);
        while batch.len() < BATCH {
            let mut text = Vec::new();
            let read = reader.by_ref().take(max_line_bytes as u64 + 1).read_until(b'\n', &mut text).map_err(failed)?;
            if read == 0 {
                break;
            }
            line += 1;
            if read > max_line_bytes {
                return Err(Error::File { path: path.to_owned(), reason: format!("line {line} has more than {max_line_bytes} bytes") });
            }
            if line == 1 && text.starts_with(b"\xef\xbb\xbf") {
                text.drain(..3);
            }
            if !text.iter().all(u8::is_ascii_whitespace) {
                batch.push((line, text));
            }
        }
        if batch.is_empty() {
            break;
        }
        let read: Vec<(u64, Option<Item>)> = batch.par_iter().map(|(line, text)| (*line, item(*line, text, tokens, frame))).collect();
        for (line, item) in read {
            match item {
                Some(item) => items.push(item),
                None => unreadable.push(line),
            }
        }
    }
    let manifest = Manifest::read(path)?;
    if let Some(manifest) = &manifest {
        manifest.verify(path)?;
        describe(path, &mut items)?;
    }
    Ok(Loaded { items, unreadable, manifest })
}

/// Adds what the rows file says.
fn describe(path: &Path, items: &mut [Item]) -> Result<(), Error> {
    let mut at = 0;
    for entry in read_entries(&DatasetPaths::of(path).rows)? {
        let Entry::Row(record) = entry? else { continue };
        while items.get(at).is_some_and(|item| item.line < record.row) {
            at += 1;
        }
        let Some(item) = items.get_mut(at).filter(|item| item.line == record.row) else { continue };
        item.documents = match record.documents.is_empty() {
            true => {
                let oracle = record.snippets.iter().filter(|snippet| record.oracle.contains(&snippet.number));
                oracle.map(|snippet| snippet.document.clone()).collect()
            }
            false => record.documents,
        };
        // Rows of one question with other snippets are no duplicates of each other by their prompts alone; the question says what is asked.
        item.input = record.question;
        item.said = format!("{}\n{}", item.input, item.output);
        item.label = record.label;
        item.kind = Some(record.kind);
    }
    Ok(())
}
