//! The files of a job, before anything is trained.

use groundtone_catalog::JobError;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Least rows of a training file, as OpenAI has it.
const LEAST_ROWS: u64 = 10;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// A word for a program: `invalid_n_examples`.
    pub code: String,
    /// A sentence.
    pub message: String,
}

/// Reads a whole file of rows and says what is wrong with it. Blocks.
pub trait CheckRows: Send + Sync {
    /// `method` is `supervised` or `dpo`; a validation file may be short.
    ///
    /// # Errors
    /// The first problem that makes the file useless.
    fn check(&self, file: &Path, method: &str, is_validation: bool) -> Result<(), FileProblem>;
}

/// What every trainer needs: UTF-8, one JSON object a line, enough lines. The rows themselves are the trainer's to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainCheck;

impl CheckRows for PlainCheck {
    fn check(&self, file: &Path, _method: &str, is_validation: bool) -> Result<(), FileProblem> {
        let invalid = |message: String| FileProblem { code: "invalid_training_file".to_owned(), message };
        let mut reader = BufReader::new(File::open(file).map_err(|error| invalid(format!("The file cannot be read: {error}")))?);
        let (mut line, mut bytes, mut rows) = (0u64, Vec::new(), 0u64);
        loop {
            bytes.clear();
            line += 1;
            match reader.read_until(b'\n', &mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(invalid(format!("The file cannot be read: {error}"))),
            }
            let text = std::str::from_utf8(&bytes).map_err(|_| invalid(format!("Invalid file format. Line {line} is not UTF-8.")))?;
            let text = text.trim().trim_start_matches('\u{feff}');
            if text.is_empty() {
                continue;
            }
            match serde_json::from_str::<serde_json::Value>(text) {
                Ok(serde_json::Value::Object(_)) => rows += 1,
                Ok(_) => return Err(invalid(format!("Invalid file format. Line {line} is not a JSON object."))),
                Err(error) => return Err(invalid(format!("Invalid file format. Line {line} is not JSON: {error}."))),
            }
        }
        if !is_validation && rows < LEAST_ROWS {
            return Err(FileProblem {
                code: "invalid_n_examples".to_owned(),
                message: format!("Training file has {rows} example(s), but must have at least {LEAST_ROWS} examples"),
            });
        }
        if rows == 0 {
            return Err(FileProblem { code: "invalid_n_examples".to_owned(), message: "Validation file has no examples".to_owned() });
        }
        Ok(())
    }
}

impl FileProblem {
    pub(crate) fn of(self, param: &'static str) -> JobError {
        JobError { code: self.code, message: self.message, param: Some(param.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_trained_on_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let row = "{\"messages\": []}\n";
        let cases: [(Vec<u8>, bool, Option<&str>); 8] = [
            (row.repeat(10).into_bytes(), false, None),
            (row.repeat(3).into_bytes(), false, Some("Training file has 3 example(s), but must have at least 10 examples")),
            (row.as_bytes().to_vec(), true, None),
            (Vec::new(), false, Some("Training file has 0 example(s), but must have at least 10 examples")),
            (Vec::new(), true, Some("Validation file has no examples")),
            ([row.repeat(10).as_bytes(), b"\xff\xfe\n"].concat(), false, Some("Invalid file format. Line 11 is not UTF-8.")),
            ([row.repeat(10).as_bytes(), b"[]\n"].concat(), false, Some("Invalid file format. Line 11 is not a JSON object.")),
            ([b"\xef\xbb\xbf", row.repeat(10).as_bytes()].concat(), false, None),
        ];
        for (bytes, is_validation, expected) in cases {
            std::fs::write(&path, &bytes).unwrap();
            let found = PlainCheck.check(&path, "supervised", is_validation).err().map(|problem| problem.message);
            assert_eq!(found.as_deref(), expected);
        }
    }
}
