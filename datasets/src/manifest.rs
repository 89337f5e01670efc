//! What a dataset was made of: one JSON file for the whole, one JSONL line for each example.
//!
//! Beside `train.jsonl` stand `train.manifest.json` and `train.rows.jsonl`. Nothing in them depends on the clock or the machine: the same build writes the same bytes.

use crate::build::{Controls, RowKind};
use crate::split::SplitRecord;
use crate::{Error, ReadOptions};
use groundtone_prompt::PromptContract;
use groundtone_types::{Collection, Span};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The version of manifest and rows file that this version writes and reads.
pub const MANIFEST_FORMAT: u32 = 1;

/// Everything about a dataset but its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The version of Groundtone that wrote it.
    pub groundtone: String,
    /// The file of rows, beside this one.
    pub file: FileRecord,
    /// What each row was made of, beside this one.
    pub rows_file: FileRecord,
    /// The examples.
    pub source: SourceRecord,
    /// Everything that decides the rows but the examples.
    pub build: BuildRecord,
    /// What came of it.
    pub counts: Counts,
    /// Set where this is a part of another dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitRecord>,
}

/// A file by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name without folders.
    pub name: String,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// Its lines.
    pub lines: u64,
}

/// The examples that a dataset was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The file.
    #[serde(flatten)]
    pub file: FileRecord,
    /// How it was read, as JSON.
    pub options: serde_json::Value,
}

/// Everything that decides the rows but the examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// SHA-256 of the prompt contract.
    pub prompt_fingerprint: String,
    /// The contract itself.
    pub prompt: PromptContract,
    /// The chat model whose tokenizer and context the prompt was packed for.
    pub chat_model: String,
    /// The collection as serving names it.
    pub collection: Collection,
    /// The generation that was searched.
    pub generation: Collection,
    /// Embedder and BM25 settings of that generation.
    pub vectors: String,
    /// How it was searched, as JSON.
    pub retrieval: serde_json::Value,
    /// Seed of every choice.
    pub seed: u64,
    /// What rows were asked for.
    pub controls: Controls,
}

/// What came of every record and every example. `rows + dropped + rejected` is the number of lines of the rows file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows in the file.
    pub rows: u64,
    /// Examples that became no row.
    pub dropped: u64,
    /// Records of the input that held no example.
    pub rejected: u64,
    /// Dropped and rejected, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Rows by their kind.
    pub kinds: BTreeMap<String, u64>,
    /// Rows that were to be of another kind, by that kind and why they are not.
    pub changed: BTreeMap<String, u64>,
    /// Rows whose snippets hold the answer, as far as is known.
    pub with_oracle: u64,
    /// Served rows whose snippets do not hold the answer, as far as is known.
    pub missed: u64,
    /// The oracle's number in the prompt (1 stands next to the question), by how many rows.
    pub oracle_positions: BTreeMap<usize, u64>,
    /// Rows by how many snippets they show.
    pub snippets: BTreeMap<usize, u64>,
    /// Rows whose answer cites a source.
    pub cited: u64,
    /// Rows for whose question serving asks no model, because the evidence gate finds too little.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gated: u64,
    /// Rows by label, where examples have one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, u64>,
}

/// One line of the rows file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Entry {
    /// A row of the dataset.
    Row(Box<RowRecord>),
    /// An example that became no row.
    Dropped {
        /// Where in the examples.
        line: u64,
        /// Which.
        example: String,
        /// Why.
        reason: String,
    },
    /// A record that holds no example.
    Rejected {
        /// Where in the examples.
        line: u64,
        /// Why.
        reason: String,
    },
}

/// What one row was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowRecord {
    /// Its line in the dataset, from 1.
    pub row: u64,
    /// Where it begins in the dataset, in bytes.
    pub start: u64,
    /// One past its line end.
    pub end: u64,
    /// Its line in the examples.
    pub line: u64,
    /// The example.
    pub example: String,
    /// The question alone, without its prompt.
    pub question: String,
    /// What kind it is.
    pub kind: RowKind,
    /// Why it is not the kind that was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
    /// The example's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The example's group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Documents that the example says hold its answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<String>,
    /// The snippets of its prompt, by number.
    pub snippets: Vec<SnippetRecord>,
    /// Numbers of the snippets that hold the answer, as far as is known.
    pub oracle: Vec<usize>,
    /// Numbers that the answer cites.
    pub cited: Vec<usize>,
    /// Serving asks no model this: the evidence gate finds too little, and the answer is the abstain text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gated: bool,
    /// An answer that a person turned down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
}

/// A snippet of a row's prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnippetRecord {
    /// Its number, from 1.
    pub number: usize,
    /// The stored point.
    pub id: Uuid,
    /// Its document.
    pub document: String,
    /// SHA-256 of the document's bytes as they were ingested; `None` where the ledger does not know it.
    pub document_sha256: Option<String>,
    /// Place of the chunk in the document.
    pub ordinal: u32,
    /// Where the chunk stands in the document's text.
    pub span: Span,
    /// SHA-256 of what is shown of the chunk ([`groundtone_types::Chunk::content_hash`]).
    pub chunk_sha256: String,
}

impl Counts {
    /// Counts one line of the rows file.
    pub(crate) fn add(&mut self, entry: &Entry) {
        let row = match entry {
            Entry::Row(row) => row,
            Entry::Dropped { reason, .. } => {
                self.dropped += 1;
                *self.reasons.entry(reason.clone()).or_default() += 1;
                return;
            }
            Entry::Rejected { reason, .. } => {
                self.rejected += 1;
                *self.reasons.entry(short(reason)).or_default() += 1;
                return;
            }
        };
        self.rows += 1;
        *self.kinds.entry(row.kind.as_str().to_owned()).or_default() += 1;
        if let Some(changed) = &row.changed {
            *self.changed.entry(changed.clone()).or_default() += 1;
        }
        *self.snippets.entry(row.snippets.len()).or_default() += 1;
        self.with_oracle += u64::from(!row.oracle.is_empty());
        self.missed += u64::from(row.kind == RowKind::Served && row.oracle.is_empty());
        row.oracle.iter().for_each(|number| *self.oracle_positions.entry(*number).or_default() += 1);
        self.cited += u64::from(!row.cited.is_empty());
        self.gated += u64::from(row.gated);
        if let Some(label) = &row.label {
            *self.labels.entry(label.clone()).or_default() += 1;
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Reasons that quote the record are counted by what they begin with.
fn short(reason: &str) -> String {
    reason.split([':', ';']).next().unwrap_or_default().to_owned()
}

/// Hash, length and lines of a file.
pub fn describe(path: &Path) -> Result<FileRecord, Error> {
    let failed = |error: std::io::Error| Error::File { path: path.to_owned(), reason: error.to_string() };
    let mut file = File::open(path).map_err(failed)?;
    let (mut digest, mut buffer, mut bytes, mut lines, mut last) = (Sha256::new(), vec![0u8; 1 << 16], 0u64, 0u64, b'\n');
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        let Some(&end) = buffer[..read].last() else { break };
        digest.update(&buffer[..read]);
        bytes += read as u64;
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        last = end;
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(FileRecord { name, sha256: hex::encode(digest.finalize()), bytes, lines: lines + u64::from(last != b'\n') })
}

/// Where a dataset's files are: `train.jsonl`, `train.rows.jsonl`, `train.manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetPaths {
    /// The rows.
    pub data: PathBuf,
    /// What each row was made of.
    pub rows: PathBuf,
    /// Everything else.
    pub manifest: PathBuf,
}

impl DatasetPaths {
    /// The files of a dataset that is called by its rows.
    pub fn of(data: &Path) -> Self {
        Self { data: data.to_owned(), rows: data.with_extension("rows.jsonl"), manifest: data.with_extension("manifest.json") }
    }
}

impl Manifest {
    /// The manifest of a dataset; `None` where there is none.
    pub fn read(data: &Path) -> Result<Option<Self>, Error> {
        let path = DatasetPaths::of(data).manifest;
        let wrong = |reason: String| Error::Manifest { path: path.clone(), reason };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::File { path, reason: error.to_string() }),
        };
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| wrong(format!("is no JSON: {error}")))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(MANIFEST_FORMAT) => {}
            Some(format) => return Err(wrong(format!("has format {format}; this version reads {MANIFEST_FORMAT}"))),
            None => return Err(wrong("is no manifest of a dataset".to_owned())),
        }
        serde_json::from_value(value).map(Some).map_err(|error| wrong(error.to_string()))
    }

    /// Whether the files are the ones that the manifest describes.
    pub fn verify(&self, data: &Path) -> Result<(), Error> {
        let paths = DatasetPaths::of(data);
        for (path, record) in [(&paths.data, &self.file), (&paths.rows, &self.rows_file)] {
            let found = describe(path)?;
            if found.sha256 != record.sha256 {
                let reason = format!("is not the file that its manifest describes: SHA-256 {} instead of {}", found.sha256, record.sha256);
                return Err(Error::Manifest { path: path.clone(), reason });
            }
        }
        Ok(())
    }

    /// Writes it beside its dataset, whole or not at all.
    pub(crate) fn write(&self, data: &Path) -> Result<(), Error> {
        let path = DatasetPaths::of(data).manifest;
        let failed = |reason: String| Error::File { path: path.clone(), reason };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.to_string()))?;
        let part = path.with_extension("json.part");
        std::fs::write(&part, text + "\n").and_then(|()| std::fs::rename(&part, &path)).map_err(|error| failed(error.to_string()))
    }
}

/// The lines of a rows file, one after the other.
pub fn read_entries(rows: &Path) -> Result<impl Iterator<Item = Result<Entry, Error>> + use<>, Error> {
    let path = rows.to_owned();
    let file = File::open(rows).map_err(|error| Error::File { path: path.clone(), reason: error.to_string() })?;
    Ok(BufReader::new(file).lines().enumerate().map(move |(at, line)| {
        let wrong = |reason: String| Error::Manifest { path: path.clone(), reason: format!("line {}: {reason}", at + 1) };
        let line = line.map_err(|error| wrong(error.to_string()))?;
        serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))
    }))
}

impl SourceRecord {
    /// Describes a file of examples.
    pub fn of(path: &Path, options: &ReadOptions) -> Result<Self, Error> {
        let options = serde_json::to_value(options).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self { file: describe(path)?, options })
    }
}
