//! The files of a build in the making, and how it goes on after it was cut off.
//!
//! A row is appended to `train.jsonl.part`, then its line to `train.rows.jsonl.part`, which is the journal: what it does not name did not happen.
//! Going on, the journal's last whole lines say where the rows end; what stands behind them is cut off. `train.build.json` says what is being built.

use crate::manifest::{BuildRecord, Counts, DatasetPaths, Entry, FileRecord, SourceRecord, describe};
use crate::{Error, Row};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Where rows go.
pub(super) struct Output {
    files: Option<Files>,
    counts: Counts,
    done: u64,
    end: u64,
}

struct Files {
    paths: DatasetPaths,
    data: File,
    rows: File,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::File { path: path.to_owned(), reason: error.to_string() }
}

fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

pub(super) fn state_file(paths: &DatasetPaths) -> PathBuf {
    paths.data.with_extension("build.json")
}

impl Output {
    /// Counts and keeps nothing.
    pub(super) fn nowhere() -> Self {
        Self { files: None, counts: Counts::default(), done: 0, end: 0 }
    }

    /// Begins, or goes on where the same build was cut off.
    pub(super) fn open(
        paths: &DatasetPaths,
        source: &SourceRecord,
        build: &BuildRecord,
        limit: Option<u64>,
        overwrite: bool,
    ) -> Result<Self, Error> {
        let state = json!({"examples": source, "build": build, "limit": limit});
        let state_path = state_file(paths);
        let (data, rows) = (part(&paths.data), part(&paths.rows));
        let known = match std::fs::read(&state_path) {
            Ok(text) => Some(serde_json::from_slice::<Value>(&text).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&state_path)(error)),
        };
        let goes_on = match known {
            Some(known) if known == state => true,
            Some(known) if !overwrite => return Err(Error::OtherBuild { path: paths.data.clone(), what: difference(&known, &state) }),
            Some(_) => false,
            None if paths.data.exists() && !overwrite => return Err(Error::Exists { path: paths.data.clone() }),
            None => false,
        };
        if goes_on {
            // Cut off while its files were given their names: they are parts again.
            for (name, part) in [(&paths.data, &data), (&paths.rows, &rows)] {
                if !part.exists() && name.exists() {
                    std::fs::rename(name, part).map_err(failed(name))?;
                }
            }
        } else {
            for path in [&data, &rows] {
                File::create(path).map_err(failed(path))?;
            }
            std::fs::write(&state_path, state.to_string()).map_err(failed(&state_path))?;
        }
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path).map_err(failed(path));
        let files = Files { paths: paths.clone(), data: open(&data)?, rows: open(&rows)? };
        let mut output = Self { files: Some(files), counts: Counts::default(), done: 0, end: 0 };
        output.replay(&data, &rows)?;
        Ok(output)
    }

    /// Reads the journal up to its last whole line whose row is whole too, and cuts both files there.
    fn replay(&mut self, data: &Path, rows: &Path) -> Result<(), Error> {
        let Some(files) = &self.files else { return Ok(()) };
        let length = files.data.metadata().map_err(failed(data))?.len();
        let mut journal = BufReader::new(File::open(rows).map_err(failed(rows))?);
        let (mut line, mut kept) = (Vec::new(), 0u64);
        loop {
            line.clear();
            let read = journal.read_until(b'\n', &mut line).map_err(failed(rows))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            let Ok(entry) = serde_json::from_slice::<Entry>(&line) else { break };
            if let Entry::Row(row) = &entry {
                if row.end > length {
                    break;
                }
                self.end = row.end;
            }
            self.counts.add(&entry);
            self.done += 1;
            kept += read as u64;
        }
        files.rows.set_len(kept).map_err(failed(rows))?;
        files.data.set_len(self.end).map_err(failed(data))
    }

    /// Lines of the rows file that are there already.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Appends a row and its line.
    pub(super) fn append(&mut self, mut entry: Entry, row: Option<&Row>) -> Result<(), Error> {
        let mut text = Vec::new();
        if let (Entry::Row(record), Some(row)) = (&mut entry, row) {
            serde_json::to_writer(&mut text, row).map_err(|error| Error::Controls(error.to_string()))?;
            text.push(b'\n');
            record.row = self.counts.rows + 1;
            record.start = self.end;
            record.end = self.end + text.len() as u64;
            self.end = record.end;
        }
        self.counts.add(&entry);
        let Some(files) = &mut self.files else { return Ok(()) };
        files.data.write_all(&text).map_err(failed(&files.paths.data))?;
        let mut line = serde_json::to_vec(&entry).map_err(|error| Error::Controls(error.to_string()))?;
        line.push(b'\n');
        files.rows.write_all(&line).map_err(failed(&files.paths.rows))
    }

    /// Makes both files durable and gives them their names.
    pub(super) fn finish(self) -> Result<(FileRecord, FileRecord), Error> {
        let Some(files) = self.files else { return Err(Error::Controls("a dry run has no files".to_owned())) };
        let close = |file: File, path: &Path| {
            file.sync_all().and_then(|()| std::fs::rename(part(path), path)).map_err(failed(path))?;
            describe(path)
        };
        Ok((close(files.data, &files.paths.data)?, close(files.rows, &files.paths.rows)?))
    }

    /// The build is complete: nothing is left to go on with.
    pub(super) fn forget(paths: &DatasetPaths) -> Result<(), Error> {
        let path = state_file(paths);
        std::fs::remove_file(&path).map_err(failed(&path))
    }
}

/// The first thing that differs, by name: `examples.sha256`, `build.seed`.
fn difference(known: &Value, wanted: &Value) -> String {
    match (known, wanted) {
        (Value::Object(known), Value::Object(wanted)) => {
            let differs = wanted.iter().find(|(key, value)| known.get(*key) != Some(value));
            match differs {
                Some((key, value)) => {
                    let below = difference(known.get(key).unwrap_or(&Value::Null), value);
                    if below.is_empty() { key.clone() } else { format!("{key}.{below}") }
                }
                None => "state".to_owned(),
            }
        }
        _ => String::new(),
    }
}
