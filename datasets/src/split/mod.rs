//! One dataset in, parts of it out: train, validation and test, with no document and no near duplicate in two of them.

mod assign;

use crate::manifest::{Counts, DatasetPaths, Entry, MANIFEST_FORMAT, Manifest, RowRecord, describe, read_entries};
use crate::{Error, Row, near_duplicate_groups};
use assign::{Group, assign};
use groundtone_prompt::Role;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What must not be parted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// Rows whose answers come from the same document (the example's, or else the oracle's), and rows of one group.
    #[default]
    Document,
    /// Rows of one group: a customer, a ticket, a conversation.
    Group,
    /// Nothing but near duplicates.
    Row,
}

/// One split.
#[derive(Debug, Clone)]
pub struct SplitSettings {
    /// The dataset.
    pub data: PathBuf,
    /// The folder of the parts; each is a dataset of its own there.
    pub out: PathBuf,
    /// Names and shares of the parts; the shares are made to add up to 1. A part with share 0 is not written.
    pub parts: Vec<(String, f64)>,
    /// What must not be parted.
    pub by: GroupBy,
    /// Seed of every choice.
    pub seed: u64,
    /// Replace parts that are there.
    pub overwrite: bool,
}

/// Which part of which dataset this is; in the part's manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// The whole dataset's file of rows.
    pub of: String,
    /// Its SHA-256.
    pub of_sha256: String,
    /// Which part.
    pub part: String,
    /// The share that was wanted.
    pub share: f64,
    /// What was not parted.
    pub by: GroupBy,
    /// Seed of every choice.
    pub seed: u64,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its file of rows.
    pub path: PathBuf,
    /// Its rows.
    pub rows: u64,
    /// The share that was wanted.
    pub wanted: f64,
    /// The share that it got.
    pub got: f64,
    /// SHA-256 of its rows.
    pub sha256: String,
}

/// What a split did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitReport {
    /// The parts; their rows add up to the dataset.
    pub parts: Vec<Part>,
    /// Rows of the dataset.
    pub rows: u64,
    /// Groups that were not parted.
    pub groups: u64,
    /// Rows of the largest one: no part can be smaller than what it must hold whole.
    pub largest_group: u64,
    /// Rows with no document and no group, of which only near duplicates are kept together.
    pub ungrouped: u64,
}

/// What a row is grouped and stratified by.
struct Key {
    groups: Vec<String>,
    stratum: String,
    question: String,
}

/// Disjoint sets with path halving (Tarjan and van Leeuwen, 1984); the smallest member stands for its set.
struct Sets(Vec<usize>);

impl Sets {
    fn find(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// Splits a dataset. Without a manifest beside it rows are grouped by nearly equal questions only.
pub fn split(settings: &SplitSettings) -> Result<SplitReport, Error> {
    let total: f64 = settings.parts.iter().map(|(_, share)| share).sum();
    if settings.parts.is_empty() || settings.parts.iter().any(|(_, share)| !(0.0..=1e9).contains(share)) || total <= 0.0 {
        return Err(Error::Controls("the shares of the parts must be positive".to_owned()));
    }
    let parts: Vec<(String, f64)> =
        settings.parts.iter().filter(|(_, share)| *share > 0.0).map(|(name, share)| (name.clone(), share / total)).collect();
    let manifest = Manifest::read(&settings.data)?;
    if let Some(manifest) = &manifest {
        manifest.verify(&settings.data)?;
    }
    let keys = keys(settings, manifest.is_some())?;
    let (group_of, groups) = group(&keys);
    let shares: Vec<f64> = parts.iter().map(|(_, share)| *share).collect();
    let part_of_group = assign(&groups, &shares, settings.seed);
    let part_of: Vec<usize> = group_of.iter().map(|group| part_of_group[*group]).collect();
    let written = write(settings, manifest.as_ref(), &parts, &part_of)?;
    Ok(SplitReport {
        parts: written,
        rows: keys.len() as u64,
        groups: groups.len() as u64,
        largest_group: groups.iter().map(|group| group.rows as u64).max().unwrap_or_default(),
        ungrouped: keys.iter().filter(|key| key.groups.is_empty()).count() as u64,
    })
}

fn keys(settings: &SplitSettings, has_rows: bool) -> Result<Vec<Key>, Error> {
    let paths = DatasetPaths::of(&settings.data);
    if has_rows {
        let mut keys = Vec::new();
        for entry in read_entries(&paths.rows)? {
            if let Entry::Row(row) = entry? {
                keys.push(key(&row, settings.by));
            }
        }
        return Ok(keys);
    }
    let mut keys = Vec::new();
    for (at, line) in lines(&settings.data)?.enumerate() {
        let wrong = |reason: String| Error::Manifest { path: settings.data.clone(), reason: format!("line {}: {reason}", at + 1) };
        let row: Row = serde_json::from_str(&line.map_err(|error| wrong(error.to_string()))?).map_err(|error| wrong(error.to_string()))?;
        let question = row
            .messages
            .into_iter()
            .rev()
            .map(|each| each.message)
            .find(|message| message.role == Role::User)
            .map(|message| message.content);
        keys.push(Key { groups: Vec::new(), stratum: String::new(), question: question.unwrap_or_default() });
    }
    Ok(keys)
}

fn key(row: &RowRecord, by: GroupBy) -> Key {
    let mut groups = Vec::new();
    if by != GroupBy::Row {
        groups.extend(row.group.iter().map(|group| format!("group {group}")));
    }
    if by == GroupBy::Document {
        let oracle = row.snippets.iter().filter(|snippet| row.oracle.contains(&snippet.number)).map(|snippet| &snippet.document);
        let named = row.documents.iter();
        groups.extend(
            if row.documents.is_empty() { oracle.collect::<Vec<_>>() } else { named.collect() }
                .into_iter()
                .map(|id| format!("document {id}")),
        );
    }
    let stratum = format!("{}\n{}", row.kind.as_str(), row.label.as_deref().unwrap_or_default());
    Key { groups, stratum, question: row.question.clone() }
}

/// The group of each row, and the groups in the order of their first rows.
fn group(keys: &[Key]) -> (Vec<usize>, Vec<Group>) {
    let mut sets = Sets((0..keys.len()).collect());
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut join = |name: String, at: usize, sets: &mut Sets| match first.get(&name) {
        Some(&known) => sets.join(known, at),
        None => {
            first.insert(name, at);
        }
    };
    let questions: Vec<&str> = keys.iter().map(|key| key.question.as_str()).collect();
    for (at, first) in near_duplicate_groups(&questions).into_iter().enumerate() {
        sets.join(at, first);
    }
    for (at, key) in keys.iter().enumerate() {
        key.groups.iter().for_each(|name| join(name.clone(), at, &mut sets));
    }
    let mut strata: HashMap<&str, usize> = HashMap::new();
    let mut number: HashMap<usize, usize> = HashMap::new();
    let (mut group_of, mut groups) = (Vec::with_capacity(keys.len()), Vec::<Group>::new());
    for (at, key) in keys.iter().enumerate() {
        let root = sets.find(at);
        let group = *number.entry(root).or_insert_with(|| {
            groups.push(Group::default());
            groups.len() - 1
        });
        let next = strata.len();
        let stratum = *strata.entry(&key.stratum).or_insert(next);
        groups[group].rows += 1;
        *groups[group].strata.entry(stratum).or_default() += 1;
        group_of.push(group);
    }
    (group_of, groups)
}

fn lines(path: &Path) -> Result<std::io::Lines<BufReader<File>>, Error> {
    let file = File::open(path).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?;
    Ok(BufReader::new(file).lines())
}

/// A part that is being written.
struct Writing {
    paths: DatasetPaths,
    data: BufWriter<File>,
    rows: Option<BufWriter<File>>,
    counts: Counts,
    end: u64,
}

impl Writing {
    fn open(folder: &Path, name: &str, has_rows: bool, overwrite: bool) -> Result<Self, Error> {
        let paths = DatasetPaths::of(&folder.join(format!("{name}.jsonl")));
        let create = |path: &Path| {
            if path.exists() && !overwrite {
                return Err(Error::Exists { path: path.to_owned() });
            }
            File::create(path).map(BufWriter::new).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })
        };
        let data = create(&paths.data)?;
        let rows = has_rows.then(|| create(&paths.rows)).transpose()?;
        Ok(Self { paths, data, rows, counts: Counts::default(), end: 0 })
    }

    fn append(&mut self, line: &str, record: Option<RowRecord>) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::File { path: self.paths.data.clone(), reason: error.to_string() };
        self.data.write_all(line.as_bytes()).and_then(|()| self.data.write_all(b"\n")).map_err(failed)?;
        let start = self.end;
        self.end += line.len() as u64 + 1;
        let (Some(rows), Some(record)) = (&mut self.rows, record) else { return Ok(()) };
        let entry = Entry::Row(Box::new(RowRecord { row: self.counts.rows + 1, start, end: self.end, ..record }));
        self.counts.add(&entry);
        let text = serde_json::to_string(&entry).map_err(|error| Error::Controls(error.to_string()))?;
        rows.write_all(text.as_bytes()).and_then(|()| rows.write_all(b"\n")).map_err(failed)
    }

    fn finish(mut self) -> Result<(DatasetPaths, Counts), Error> {
        let failed = |error: std::io::Error| Error::File { path: self.paths.data.clone(), reason: error.to_string() };
        self.data.flush().map_err(failed)?;
        if let Some(rows) = &mut self.rows {
            rows.flush().map_err(failed)?;
        }
        Ok((self.paths, self.counts))
    }
}

fn write(settings: &SplitSettings, manifest: Option<&Manifest>, parts: &[(String, f64)], part_of: &[usize]) -> Result<Vec<Part>, Error> {
    std::fs::create_dir_all(&settings.out).map_err(|error| Error::File { path: settings.out.clone(), reason: error.to_string() })?;
    let mut writing = parts
        .iter()
        .map(|(name, _)| Writing::open(&settings.out, name, manifest.is_some(), settings.overwrite))
        .collect::<Result<Vec<_>, _>>()?;
    let mut entries = match manifest {
        Some(_) => Some(read_entries(&DatasetPaths::of(&settings.data).rows)?),
        None => None,
    };
    for (line, part) in lines(&settings.data)?.zip(part_of) {
        let line = line.map_err(|error| Error::File { path: settings.data.clone(), reason: error.to_string() })?;
        let mut record = None;
        for entry in entries.iter_mut().flatten() {
            if let Entry::Row(row) = entry? {
                record = Some(*row);
                break;
            }
        }
        writing[*part].append(&line, record)?;
    }
    let whole = describe(&settings.data)?;
    let mut done = Vec::new();
    for (writing, (name, share)) in writing.into_iter().zip(parts) {
        let (paths, counts) = writing.finish()?;
        let file = describe(&paths.data)?;
        done.push(Part {
            name: name.clone(),
            path: paths.data.clone(),
            rows: file.lines,
            wanted: *share,
            got: file.lines as f64 / part_of.len().max(1) as f64,
            sha256: file.sha256.clone(),
        });
        let Some(manifest) = manifest else { continue };
        let record = SplitRecord {
            of: whole.name.clone(),
            of_sha256: whole.sha256.clone(),
            part: name.clone(),
            share: *share,
            by: settings.by,
            seed: settings.seed,
        };
        let rows_file = describe(&paths.rows)?;
        Manifest { format: MANIFEST_FORMAT, file, rows_file, counts, split: Some(record), ..manifest.clone() }.write(&paths.data)?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
