use crate::Error;
use crate::case::Reply;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Answers that were given, one line each: what makes a run go on where it was cut off, and what keeps the same question from being paid twice.
///
/// An answer is found by its key, the hash of everything that it depends on. A line that was cut off in the middle is dropped when the journal is opened.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    known: HashMap<String, Reply>,
    file: Mutex<File>,
}

#[derive(Serialize, Deserialize)]
struct Entry<R> {
    key: String,
    arm: String,
    case: String,
    reply: R,
}

impl Journal {
    /// Opens or makes it. Only lines that `wanted` says yes to are kept in memory.
    pub fn open(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::File { path: path.to_owned(), reason: error.to_string() };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(failed)?;
            file.seek(SeekFrom::End(0)).map_err(failed)?;
        }
        let mut known = HashMap::new();
        for line in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // A line that another version wrote is an answer that must be asked for again.
            if let Ok(entry) = serde_json::from_slice::<Entry<Reply>>(line)
                && wanted(&entry.key)
            {
                known.insert(entry.key, entry.reply);
            }
        }
        Ok(Self { path: path.to_owned(), known, file: Mutex::new(file) })
    }

    /// The answer under this key.
    pub fn get(&self, key: &str) -> Option<&Reply> {
        self.known.get(key)
    }

    /// How many answers it knew when it was opened.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// Adds an answer. The line is with the operating system when this returns: a killed process loses nothing that it said was done.
    pub fn add(&self, key: &str, arm: &str, case: &str, reply: &Reply) -> Result<(), Error> {
        let failed = |reason: String| Error::File { path: self.path.clone(), reason };
        let entry = Entry { key: key.to_owned(), arm: arm.to_owned(), case: case.to_owned(), reply };
        let mut line = serde_json::to_vec(&entry).map_err(|error| failed(error.to_string()))?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).map_err(|error| failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_is_dropped_and_the_rest_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/answers.jsonl");
        let reply = |text: &str| Reply { text: text.into(), total_ms: 1.5, ..Reply::default() };
        let journal = Journal::open(&path, |_| true).unwrap();
        journal.add("k1", "rag", "1", &reply("one")).unwrap();
        journal.add("k2", "rag", "2", &reply("two\nlines")).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let journal = Journal::open(&path, |_| true).unwrap();
        assert_eq!((journal.known(), journal.get("k1"), journal.get("k2")), (1, Some(&reply("one")), None));
        journal.add("k2", "rag", "2", &reply("two")).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path, |_| true).unwrap().get("k2"), Some(&reply("two")));
        assert_eq!(Journal::open(&path, |key| key == "k1").unwrap().known(), 1);
    }
}
