//! Folders in the layout of BEIR (Thakur et al., NeurIPS 2021): `corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`; and files of labelled questions.

use crate::Error;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A document of the corpus.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Document {
    /// Its name in the judgements.
    #[serde(rename = "_id")]
    pub id: String,
    /// May be empty.
    #[serde(default)]
    pub title: String,
    /// The text.
    pub text: String,
}

impl Document {
    /// What is embedded and indexed of it: title and text, as ingest does it.
    pub fn embedded(&self) -> String {
        if self.title.is_empty() { self.text.clone() } else { format!("{}\n{}", self.title, self.text) }
    }
}

/// A question with at least one relevant document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its name in the judgements.
    pub id: String,
    /// The text.
    pub text: String,
    /// Documents and how relevant they are; 0 is judged and not relevant.
    pub judged: HashMap<String, u32>,
}

#[derive(Deserialize)]
struct Query {
    #[serde(rename = "_id")]
    id: String,
    text: String,
}

/// A corpus, questions, and which documents are relevant to them.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Where it was read from.
    pub folder: PathBuf,
    /// In the order of the file.
    pub documents: Vec<Document>,
    /// Those with a relevant document, in the order of the file.
    pub questions: Vec<Question>,
    /// SHA-256 of `corpus.jsonl`, in hexadecimal.
    pub corpus_digest: String,
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })
}

fn json_lines<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<T>, Error> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| Error::Line { path: path.to_owned(), line: at + 1, reason: error.to_string() })
    };
    lines.map(parse).collect()
}

/// `query-id  corpus-id  score` with a header line, or TREC's `query-id  0  document-id  relevance`.
fn judgements(path: &Path, found: &mut BTreeMap<String, HashMap<String, u32>>) -> Result<(), Error> {
    for (at, line) in read(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |reason: String| Error::Line { path: path.to_owned(), line: at + 1, reason };
        let columns: Vec<&str> = line.split('\t').map(str::trim).collect();
        let (query, document, score) = match columns.as_slice() {
            [query, document, score] | [query, _, document, score] => (query, document, score),
            _ => return Err(wrong(format!("has {} columns instead of 3", columns.len()))),
        };
        match score.parse::<i64>() {
            Ok(score) => {
                found
                    .entry((*query).to_owned())
                    .or_default()
                    .insert((*document).to_owned(), u32::try_from(score.max(0)).unwrap_or(u32::MAX));
            }
            Err(_) if at == 0 => {}
            Err(_) => return Err(wrong(format!("`{score}` is not a number"))),
        }
    }
    Ok(())
}

impl Dataset {
    /// Reads a folder; all files below `qrels` count together.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let corpus = folder.join("corpus.jsonl");
        let text = read(&corpus)?;
        let documents: Vec<Document> = json_lines(&corpus, &text)?;
        let queries = folder.join("queries.jsonl");
        let queries: Vec<Query> = json_lines(&queries, &read(&queries)?)?;
        let qrels = folder.join("qrels");
        let listing = std::fs::read_dir(&qrels).map_err(|error| Error::File { path: qrels.clone(), reason: error.to_string() })?;
        let mut files = Vec::new();
        for entry in listing {
            files.push(entry.map_err(|error| Error::File { path: qrels.clone(), reason: error.to_string() })?.path());
        }
        files.retain(|path| path.extension().is_some_and(|ending| ending == "tsv"));
        files.sort();
        let mut judged = BTreeMap::new();
        files.iter().try_for_each(|path| judgements(path, &mut judged))?;
        let question = |query: Query| {
            let judged = judged.remove(&query.id).filter(|judged| judged.values().any(|relevance| *relevance > 0))?;
            Some(Question { id: query.id, text: query.text, judged })
        };
        let questions: Vec<Question> = queries.into_iter().filter_map(question).collect();
        let empty = |reason: &str| Err(Error::Empty { path: folder.to_owned(), reason: reason.to_owned() });
        if documents.is_empty() {
            return empty("there is no document in corpus.jsonl");
        }
        if questions.is_empty() {
            return empty("no question of queries.jsonl has a relevant document in qrels/*.tsv");
        }
        Ok(Self { folder: folder.to_owned(), documents, questions, corpus_digest: hex::encode(Sha256::digest(text.as_bytes())) })
    }
}

/// A question, and whether the documents can answer it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Labelled {
    /// The text.
    pub question: String,
    /// The label.
    pub answerable: bool,
}

/// Reads a JSONL file of `{"question": "...", "answerable": true}`; other keys are left alone.
pub fn read_labelled(path: &Path) -> Result<Vec<Labelled>, Error> {
    json_lines(path, &read(path)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn write(folder: &Path, corpus: &str, queries: &str, qrels: &str) {
        std::fs::create_dir_all(folder.join("qrels")).unwrap();
        std::fs::write(folder.join("corpus.jsonl"), corpus).unwrap();
        std::fs::write(folder.join("queries.jsonl"), queries).unwrap();
        std::fs::write(folder.join("qrels/test.tsv"), qrels).unwrap();
    }

    const CORPUS: &str = "{\"_id\":\"d1\",\"title\":\"T\",\"text\":\"x\"}\n\n{\"_id\":\"d2\",\"text\":\"y\",\"metadata\":{}}\n";
    const QUERIES: &str = "{\"_id\":\"q1\",\"text\":\"a?\"}\n{\"_id\":\"q2\",\"text\":\"b?\"}\n{\"_id\":\"q3\",\"text\":\"c?\"}\n";

    #[test]
    fn a_folder_is_read_and_questions_without_an_answer_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), CORPUS, QUERIES, "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq3\td2\t0\nq9\td1\t1\n");
        let dataset = Dataset::read(folder.path()).unwrap();
        assert_eq!((dataset.documents.len(), dataset.documents[1].title.as_str()), (2, ""));
        assert_eq!(dataset.questions.len(), 1);
        assert_eq!(dataset.questions[0].judged, HashMap::from([("d1".to_owned(), 2), ("d2".to_owned(), 0)]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases = [
            ("{}", QUERIES, "q1\td1\t1\n", "corpus.jsonl:1: missing field `_id` at line 1 column 2"),
            (CORPUS, "x", "q1\td1\t1\n", "queries.jsonl:1: expected value at line 1 column 1"),
            (CORPUS, QUERIES, "h\nq1\td1\t1\n", "qrels/test.tsv:1: has 1 columns instead of 3"),
            (CORPUS, QUERIES, "q1\td1\t1\nq1\td2\tmany\n", "qrels/test.tsv:2: `many` is not a number"),
            (CORPUS, QUERIES, "q1\td1\t0\n", ": no question of queries.jsonl has a relevant document in qrels/*.tsv"),
            ("", QUERIES, "q1\td1\t1\n", ": there is no document in corpus.jsonl"),
        ];
        for (corpus, queries, qrels, reason) in cases {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), corpus, queries, qrels);
            let error = Dataset::read(folder.path()).unwrap_err().to_string();
            assert_eq!(error.replace(&folder.path().display().to_string(), "").trim_start_matches('/'), reason);
        }
    }
}
