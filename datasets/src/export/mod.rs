//! Rows written the way another trainer wants them. A row that cannot be said there is named and left out, never bent.

mod pairs;
mod shapes;

use crate::manifest::{DatasetPaths, Entry, Manifest, read_entries};
use crate::{Error, validate::Target};
use serde::Serialize;
use serde_json::Value;
use shapes::Style;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

/// Left out rows that are named; all are counted.
const NAMED: usize = 100;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// What this target reads.
    For(Target),
    /// `conversations` with `from` and `value`.
    ShareGpt,
    /// `instruction`, `input`, `output`, `history`, `system`.
    Alpaca,
}

/// What to write.
#[derive(Debug, Clone)]
pub struct ExportSettings {
    /// The rows.
    pub data: PathBuf,
    /// Where to.
    pub out: PathBuf,
    /// How.
    pub to: ExportFormat,
    /// Pairs of preferred and turned down answers instead of answers to learn.
    pub preferences: bool,
    /// Longest line, in bytes.
    pub max_line_bytes: usize,
    /// Replace a file that is there.
    pub overwrite: bool,
}

/// What was written. `written` and `left_out` add up to `rows`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// Lines of the source that are not blank.
    pub rows: u64,
    /// Rows of the new file.
    pub written: u64,
    /// Rows that could not be written.
    pub left_out: u64,
    /// The same by reason.
    pub reasons: BTreeMap<String, u64>,
    /// The first of them: line and reason.
    pub named: Vec<(u64, String)>,
    /// Its shape knows no weights, and of each row the last reply alone is to be learned: TRL reads that off prompt and completion, ShareGPT's and Alpaca's trainers must be told.
    pub last_reply_only: bool,
}

impl ExportReport {
    fn leave_out(&mut self, line: u64, reason: String) {
        self.left_out += 1;
        *self.reasons.entry(reason.clone()).or_default() += 1;
        if self.named.len() < NAMED {
            self.named.push((line, reason));
        }
    }
}

/// The lines of a dataset that are not blank, without a byte order mark.
fn lines(settings: &ExportSettings) -> Result<impl Iterator<Item = Result<(u64, Vec<u8>), Error>>, Error> {
    let path = settings.data.clone();
    let most = settings.max_line_bytes;
    let failed = move |reason: String| Error::File { path: path.clone(), reason };
    let file = File::open(&settings.data).map_err(|error| failed(error.to_string()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut line = 0;
    Ok(std::iter::from_fn(move || {
        loop {
            let mut text = Vec::new();
            match reader.by_ref().take(most as u64 + 1).read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(read) if read > most => return Some(Err(failed(format!("line {} has more than {most} bytes", line + 1)))),
                Ok(_) => {}
                Err(error) => return Some(Err(failed(error.to_string()))),
            }
            line += 1;
            if line == 1 && text.starts_with(b"\xef\xbb\xbf") {
                text.drain(..3);
            }
            if !text.iter().all(u8::is_ascii_whitespace) {
                return Some(Ok((line, text)));
            }
        }
    }))
}

/// Answers that people turned down, by the line of their row.
fn turned_down(settings: &ExportSettings) -> Result<BTreeMap<u64, String>, Error> {
    let Some(manifest) = Manifest::read(&settings.data)? else { return Ok(BTreeMap::new()) };
    manifest.verify(&settings.data)?;
    let mut found = BTreeMap::new();
    for entry in read_entries(&DatasetPaths::of(&settings.data).rows)? {
        if let Entry::Row(row) = entry?
            && let Some(rejected) = row.rejected
        {
            found.insert(row.row, rejected);
        }
    }
    Ok(found)
}

/// Whether some reply of the file is read and not learned.
fn has_unlearned(settings: &ExportSettings) -> Result<bool, Error> {
    for line in lines(settings)? {
        let (_, text) = line?;
        let row: Option<Value> = serde_json::from_slice(&text).ok();
        if row.is_some_and(|row| shapes::messages(&row).is_ok_and(|messages| messages.iter().any(shapes::is_unlearned))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes a dataset for a trainer, whole or not at all.
pub fn export(settings: &ExportSettings) -> Result<ExportReport, Error> {
    if settings.out.exists() && !settings.overwrite {
        return Err(Error::Exists { path: settings.out.clone() });
    }
    if settings.preferences && settings.to == ExportFormat::For(Target::Mistral) {
        return Err(Error::Controls("mistral does not train by preferences".to_owned()));
    }
    // These know no weights. One file has one shape, and one setting of its trainer.
    let weightless = matches!(settings.to, ExportFormat::For(Target::Trl) | ExportFormat::ShareGpt | ExportFormat::Alpaca);
    let last_only = weightless && !settings.preferences && has_unlearned(settings)?;
    let style = Style { to: settings.to, last_only };
    let rejected = if settings.preferences { turned_down(settings)? } else { BTreeMap::new() };
    let part = settings.out.with_added_extension("part");
    let failed = |error: std::io::Error| Error::File { path: settings.out.clone(), reason: error.to_string() };
    let mut out = BufWriter::new(File::create(&part).map_err(failed)?);
    if settings.to == ExportFormat::For(Target::Azure) {
        out.write_all(b"\xef\xbb\xbf").map_err(failed)?;
    }
    let mut report = ExportReport { last_reply_only: last_only, ..ExportReport::default() };
    for line in lines(settings)? {
        let (line, text) = line?;
        report.rows += 1;
        let row = serde_json::from_slice(&text).map_err(|_| "is no JSON".to_owned());
        let written = row.and_then(|row: Value| match settings.preferences {
            true => pairs::pair(&row, rejected.get(&line)).and_then(|pair| pairs::write(&pair, &style)),
            false => shapes::write(&row, &style),
        });
        match written {
            Ok(row) => {
                serde_json::to_writer(&mut out, &row).map_err(|error| failed(error.into()))?;
                out.write_all(b"\n").map_err(failed)?;
                report.written += 1;
            }
            Err(reason) => report.leave_out(line, reason),
        }
    }
    out.flush().map_err(failed)?;
    drop(out);
    std::fs::rename(&part, &settings.out).map_err(failed)?;
    Ok(report)
}

#[cfg(test)]
mod tests;
