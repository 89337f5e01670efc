//! Held-out questions, and what an arm answered.

use crate::Error;
use groundtone_prompt::{PromptMessage, Role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Longest line of a set, in bytes.
const LONGEST_LINE: usize = 4 << 20;
/// Most rows of a set.
const MOST_ROWS: usize = 200_000;

/// A held-out question and what is known about a good answer. Metrics that need what is not there leave the row out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Its name; the line's number where the file gives none.
    pub id: String,
    /// What the customer asks.
    pub question: String,
    /// The conversation before it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PromptMessage>,
    /// A good answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The right label, where the task is to name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether the documents hold the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answerable: Option<bool>,
    /// Documents that hold the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<String>,
    /// Strings that the answer must have in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must_contain: Vec<String>,
    /// Texts that hold the answer, for groundedness; beside them what arms retrieved counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// Rows of one group are drawn together: its documents where the file says nothing, else the row alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// When it was asked, Unix seconds; a log has it, a set need not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
}

/// A line of a set: a question with its answer under the usual names, or chat rows of OpenAI's supervised format. The first name that is there counts.
struct Line(Map<String, Value>);

const QUESTION: &[&str] = &["question", "text", "query", "prompt", "input"];
const ANSWER: &[&str] = &["answer", "output", "response", "completion", "ground_truth"];
const LABEL: &[&str] = &["label", "intent", "category"];
const TIME: &[&str] = &["created_at", "timestamp", "time"];

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Option<String>,
}

/// Unix seconds or milliseconds as a number, or a time as RFC 3339 has it.
fn unix_seconds(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => chrono::DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp()),
        value => value.as_f64().map(|at| if at > 1e11 { (at / 1e3) as i64 } else { at as i64 }),
    }
}

impl Line {
    fn text(&self, names: &[&str]) -> Option<String> {
        match names.iter().find_map(|name| self.0.get(*name).filter(|value| !value.is_null()))? {
            Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// One string, or a list of them.
    fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(list) => serde_json::from_value(list.clone()).map_err(|_| format!("`{name}` must be a string or a list of strings")),
        }
    }

    fn of<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|error| format!("`{name}`: {error}")),
        }
    }

    fn case(self, number: usize) -> Result<Case, String> {
        // OpenAI's evaluation rows wrap theirs.
        if let Some(Value::Object(item)) = self.0.get("item") {
            return Self(item.clone()).case(number);
        }
        let mut documents = self.texts("documents")?;
        documents.extend(self.texts("document")?);
        let mut case = Case {
            id: self.text(&["id"]).unwrap_or_else(|| number.to_string()),
            question: self.text(QUESTION).unwrap_or_default(),
            history: self.of("history")?.unwrap_or_default(),
            answer: self.text(ANSWER),
            label: self.text(LABEL),
            answerable: self.of("answerable")?,
            documents,
            must_contain: self.texts("must_contain")?,
            context: self.texts("context")?,
            group: self.text(&["group"]),
            at: TIME.iter().find_map(|name| self.0.get(*name)).and_then(unix_seconds),
        };
        if let Some(messages) = self.of("messages")? {
            case.take(messages)?;
        }
        if case.question.trim().is_empty() {
            return Err("there is no question: `question`, or `messages` with one of the user's".to_owned());
        }
        Ok(case)
    }
}

impl Case {
    /// The last reply is the answer, the user's message before it the question; system messages are left out, for the assistant has its own.
    fn take(&mut self, messages: Vec<Message>) -> Result<(), String> {
        let mut turns = Vec::new();
        for message in messages {
            let role = match message.role.as_str() {
                "system" | "developer" => continue,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => return Err(format!("messages of the role `{other}` cannot be evaluated")),
            };
            turns.push(PromptMessage::new(role, message.content.unwrap_or_default()));
        }
        if turns.last().is_some_and(|turn| turn.role == Role::Assistant) {
            self.answer = turns.pop().map(|turn| turn.content).filter(|answer| !answer.trim().is_empty());
        }
        match turns.pop() {
            Some(turn) if turn.role == Role::User => self.question = turn.content,
            _ => return Err("the last message before the answer must be the user's".to_owned()),
        }
        self.history = turns;
        Ok(())
    }

    /// What this row is drawn together with in the bootstrap.
    pub fn cluster(&self) -> String {
        match (&self.group, self.documents.as_slice()) {
            (Some(group), _) => format!("group {group}"),
            (None, []) => format!("row {}", self.id),
            (None, documents) => {
                let mut documents: Vec<&str> = documents.iter().map(String::as_str).collect();
                documents.sort_unstable();
                format!("documents {}", documents.join("\n"))
            }
        }
    }

    /// What a label metric compares: the label, trimmed.
    pub fn wanted_label(&self) -> Option<&str> {
        self.label.as_deref().map(str::trim).filter(|label| !label.is_empty())
    }
}

/// A set of held-out rows.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseSet {
    /// The file's name without folders.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

impl CaseSet {
    /// Reads JSONL: `{"question", "answer", ...}`, the same below `item`, or `{"messages": [...]}`. A line that is no row is an error: a test set is not guessed at.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::File { path: path.to_owned(), reason: error.to_string() };
        let mut reader = BufReader::new(std::fs::File::open(path).map_err(failed)?);
        let (mut digest, mut cases, mut line, mut number) = (Sha256::new(), Vec::new(), Vec::new(), 0usize);
        loop {
            line.clear();
            let read = std::io::Read::take(&mut reader, LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                break;
            }
            number += 1;
            digest.update(&line);
            let wrong = |reason: String| Error::Line { path: path.to_owned(), line: number, reason };
            if line.len() > LONGEST_LINE {
                return Err(wrong(format!("the line is longer than {LONGEST_LINE} bytes")));
            }
            let text = std::str::from_utf8(&line).map_err(|_| wrong("it is not UTF-8".to_owned()))?.trim_start_matches('\u{feff}').trim();
            if text.is_empty() {
                continue;
            }
            let row: Map<String, Value> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
            cases.push(Line(row).case(number).map_err(wrong)?);
            if cases.len() > MOST_ROWS {
                return Err(wrong(format!("there are more than {MOST_ROWS} rows")));
            }
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let set = Self { name, sha256: hex::encode(digest.finalize()), cases };
        set.check(path)?;
        Ok(set)
    }

    fn check(&self, path: &Path) -> Result<(), Error> {
        if self.cases.is_empty() {
            return Err(Error::Empty { path: path.to_owned(), reason: "there is no row in it".to_owned() });
        }
        let mut seen = std::collections::HashMap::new();
        for (at, case) in self.cases.iter().enumerate() {
            if let Some(first) = seen.insert(case.id.as_str(), at) {
                let reason = format!("row {} has the id `{}` of row {}", at + 1, case.id, first + 1);
                return Err(Error::Line { path: path.to_owned(), line: at + 1, reason });
            }
        }
        Ok(())
    }
}

/// A source that the server named for an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The document.
    pub document: String,
    /// What was shown of it.
    pub text: String,
}

/// A citation of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cited {
    /// The document.
    pub document: String,
    /// Whether the server found it supported; `None` where it did not check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported: Option<bool>,
}

/// What one arm answered to one case, and what it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The text; empty where there is none.
    pub text: String,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the server says that it abstained; `None` where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abstained: Option<bool>,
    /// What it cites.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cited: Vec<Cited>,
    /// Source numbers that it wrote and that are no source.
    #[serde(default)]
    pub unresolved: usize,
    /// What was shown to the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// The model that wrote it, where the server says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Fingerprint of its prompt, where the server says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_fingerprint: Option<String>,
    /// Tokens of the prompt; `None` where the server does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Of them those that were not computed again.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Tokens that were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
    /// From the request to the first text, in milliseconds.
    #[serde(default)]
    pub first_token_ms: f64,
    /// From the request to the end, in milliseconds.
    #[serde(default)]
    pub total_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CaseSet, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        std::fs::write(&path, text).unwrap();
        CaseSet::read(&path).map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "FOLDER"))
    }

    #[test]
    fn rows_of_every_shape_are_read() {
        let text = concat!(
            "\u{feff}{\"id\": \"a\", \"question\": \"q1\", \"answer\": \"x\", \"documents\": [\"d2\", \"d1\"], \"must_contain\": \"45\"}\n\n",
            "{\"item\": {\"question\": \"q2\", \"answer\": \"y\"}}\n",
            "{\"text\": \"q3\", \"category\": \"card_arrival\"}\n",
            "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"h\"}, {\"role\": \"assistant\", \"content\": \"r\"}, {\"role\": \"user\", \"content\": \"q4\"}, {\"role\": \"assistant\", \"content\": \"z\"}]}\n",
        );
        let set = read(text).unwrap();
        let shown: Vec<String> = set
            .cases
            .iter()
            .map(|c| format!("{} {} {:?} {:?} {} {}", c.id, c.question, c.answer, c.label, c.history.len(), c.cluster()))
            .collect();
        insta::assert_debug_snapshot!(shown, @r#"
        [
            "a q1 Some(\"x\") None 0 documents d1\nd2",
            "3 q2 Some(\"y\") None 0 row 3",
            "4 q3 None Some(\"card_arrival\") 0 row 4",
            "5 q4 Some(\"z\") None 2 row 5",
        ]
        "#);
        assert_eq!(set.cases[0].must_contain, ["45"]);
    }

    #[test]
    fn a_line_that_is_no_row_is_named() {
        let wrong = |text: &str| read(text).unwrap_err();
        insta::assert_snapshot!(wrong("{\"question\": \"a\"}\n{\"answer\": \"b\"}\n"), @"FOLDER/set.jsonl:2: there is no question: `question`, or `messages` with one of the user's");
        insta::assert_snapshot!(wrong("{\"messages\": [{\"role\": \"assistant\", \"content\": \"b\"}]}"), @"FOLDER/set.jsonl:1: the last message before the answer must be the user's");
        insta::assert_snapshot!(wrong("{\"id\": 7, \"question\": \"a\"}\n{\"id\": \"7\", \"question\": \"b\"}"), @"FOLDER/set.jsonl:2: row 2 has the id `7` of row 1");
        insta::assert_snapshot!(wrong("\n"), @"FOLDER/set.jsonl: there is no row in it");
        assert!(wrong("{").starts_with("FOLDER/set.jsonl:1: EOF"));
    }
}
