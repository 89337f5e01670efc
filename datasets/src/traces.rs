//! Stored answers and what people said of them, as a file of examples.

use crate::Error;
use groundtone_catalog::{Thumb, TraceRecord};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Write};
use std::path::Path;

/// A line of the file, as [`crate::Format::Traces`] reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Judged {
    trace_id: String,
    question: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<Value>,
    answer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    correction: Option<String>,
    thumb: Thumb,
    /// Another answer to the same question, which was turned down.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<String>,
    /// Something was taken out of the answer to learn.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    redacted: bool,
}

impl Judged {
    /// What two answers to the same question share: its words, without case and spacing, and the conversation before it.
    fn subject(&self) -> String {
        let words: Vec<String> = self.question.split_whitespace().map(str::to_lowercase).collect();
        format!("{}\n{}", words.join(" "), Value::from(self.history.clone()))
    }
}

/// What a file of examples was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TracesReport {
    /// Answers that somebody judged: the lines of the file.
    pub judged: u64,
    /// Of them corrected.
    pub corrected: u64,
    /// Of them liked, and not corrected.
    pub liked: u64,
    /// Of them turned down, and not corrected.
    pub turned_down: u64,
    /// Liked answers beside which another answer to the same question was turned down.
    pub paired: u64,
    /// Judged answers of conversations that do not end with a question: what a model was sent for them cannot be made again.
    pub passed_over: u64,
}

/// Judged answers on their way to a file of examples.
#[derive(Debug, Default)]
pub struct TraceExamples {
    judged: BTreeMap<String, Judged>,
    report: TracesReport,
}

impl TraceExamples {
    /// Takes a trace; one without feedback is not an example. `marks` says whether something was taken out of a text.
    pub fn push(&mut self, trace: TraceRecord, marks: impl Fn(&str) -> bool) {
        let Some(feedback) = trace.feedback else { return };
        let mut history = match trace.messages {
            Value::Array(messages) => messages,
            _ => Vec::new(),
        };
        if history.pop().is_none_or(|last| last["role"] != "user") {
            self.report.passed_over += 1;
            return;
        }
        let correction = feedback.correction.filter(|text| !text.trim().is_empty());
        let redacted = marks(correction.as_deref().unwrap_or(&trace.answer));
        let judged = Judged {
            trace_id: trace.id.clone(),
            question: trace.question,
            history,
            answer: trace.answer,
            correction,
            thumb: feedback.thumb,
            rejected: None,
            redacted,
        };
        self.judged.insert(trace.id, judged);
    }

    /// Whether nobody has judged anything.
    pub fn is_empty(&self) -> bool {
        self.judged.is_empty()
    }

    /// Puts the newest answer that was turned down beside the newest that was liked, where both are to the same question. A correction has its other half already.
    fn pair(&mut self) {
        let (mut liked, mut turned_down): (HashMap<String, String>, HashMap<String, String>) = Default::default();
        for (id, line) in self.judged.iter().filter(|(_, line)| line.correction.is_none()) {
            let (into, what) = match line.thumb {
                Thumb::Up => (&mut liked, id),
                Thumb::Down => (&mut turned_down, &line.answer),
            };
            into.insert(line.subject(), what.clone());
        }
        for (subject, id) in liked {
            if let (Some(rejected), Some(line)) = (turned_down.remove(&subject), self.judged.get_mut(&id))
                && rejected.trim() != line.answer.trim()
            {
                line.rejected = Some(rejected);
                self.report.paired += 1;
            }
        }
    }

    /// Writes the file, oldest answer first, whole or not at all.
    pub fn write(mut self, out: &Path) -> Result<TracesReport, Error> {
        self.pair();
        let failed = |error: std::io::Error| Error::File { path: out.to_owned(), reason: error.to_string() };
        let part = out.with_added_extension("part");
        let mut file = BufWriter::new(std::fs::File::create(&part).map_err(failed)?);
        for line in self.judged.values() {
            serde_json::to_writer(&mut file, line).map_err(|error| failed(error.into()))?;
            file.write_all(b"\n").map_err(failed)?;
            self.report.judged += 1;
            match (&line.correction, line.thumb) {
                (Some(_), _) => self.report.corrected += 1,
                (None, Thumb::Up) => self.report.liked += 1,
                (None, Thumb::Down) => self.report.turned_down += 1,
            }
        }
        file.flush().map_err(failed)?;
        drop(file);
        std::fs::rename(&part, out).map_err(failed)?;
        Ok(self.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReadOptions, Records};
    use groundtone_catalog::{Catalog, DataDirectory, Feedback, Outcome, TraceFilter};
    use groundtone_types::Tenant;
    use serde_json::json;

    fn trace(id: &str, messages: &Value, answer: &str) -> TraceRecord {
        let question = messages.as_array().unwrap().last().unwrap()["content"].clone();
        let (none, empty) = (Value::Null, json!([]));
        let record = json!({
            "id": id, "at": 1, "key": none, "request_id": none, "variant": "rag", "model": "m", "outcome": Outcome::Answered, "error": none,
            "question": question, "query": question, "answer": answer, "messages": messages, "sampling": {}, "snippets": empty,
            "citations": empty, "prompt_fingerprint": "", "usage": none, "money": 0.0, "timings": {}
        });
        serde_json::from_value(record).unwrap()
    }

    fn asked(question: &str) -> Value {
        json!([{"role": "user", "content": question}])
    }

    #[tokio::test]
    async fn judged_answers_of_a_catalog_become_examples_with_the_answers_that_were_turned_down() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (mine, theirs) = (Tenant::default(), Tenant::new("theirs").unwrap());
        let talk = json!([{"role": "user", "content": "Is the burr set covered?"}, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And the motor?"}]);
        let tool = json!([{"role": "user", "content": "Price?"}, {"role": "tool", "content": "5"}]);
        let kept = [
            ("1", asked("Price?"), "90 euro [1].", Some((Thumb::Down, Some("89 euro.")))),
            ("2", asked("How long?"), "30 days.", Some((Thumb::Down, None))),
            ("3", asked("how  LONG?"), "45 days [2].", Some((Thumb::Up, None))),
            ("4", asked("Nobody judged this"), "x", None),
            ("5", talk, "4 years.", Some((Thumb::Up, None))),
            ("6", tool, "5 euro.", Some((Thumb::Up, None))),
            ("7", asked("Where do I write?"), "To [email].", Some((Thumb::Up, None))),
            ("8", asked("And the motor?"), "Nothing is covered.", Some((Thumb::Down, None))),
        ];
        for (id, messages, answer, said) in kept {
            catalog.put_traces(&[(mine.clone(), trace(id, &messages, answer))]).await.unwrap();
            if let Some((thumb, correction)) = said {
                let feedback = Feedback { thumb, text: None, correction: correction.map(str::to_owned), at: 2 };
                catalog.put_feedback(&mine, id, &feedback).await.unwrap();
            }
        }
        catalog.put_traces(&[(theirs.clone(), trace("9", &asked("Price?"), "secret"))]).await.unwrap();
        catalog.put_feedback(&theirs, "9", &Feedback { thumb: Thumb::Up, text: None, correction: None, at: 2 }).await.unwrap();

        let mut examples = TraceExamples::default();
        for found in catalog.traces(&mine, &TraceFilter::default(), 100).await.unwrap() {
            examples.push(found, |text| text.contains("[email]"));
        }
        let out = folder.path().join("examples.jsonl");
        let report = examples.write(&out).unwrap();
        assert_eq!(report, TracesReport { judged: 6, corrected: 1, liked: 3, turned_down: 2, paired: 1, passed_over: 1 });
        let options = ReadOptions { max_record_bytes: 1 << 20, ..ReadOptions::default() };
        let read: Vec<String> = Records::open(&out, &options)
            .unwrap()
            .map(|record| match record.unwrap().outcome {
                Ok(examples) => {
                    let example = &examples[0];
                    format!(
                        "{}: {} -> {} | {:?} | {}",
                        example.id,
                        example.question,
                        example.answer,
                        example.rejected,
                        example.history.len()
                    )
                }
                Err(reason) => reason,
            })
            .collect();
        assert_eq!(
            read,
            [
                "1: Price? -> 89 euro. | Some(\"90 euro [1].\") | 0",
                "was turned down and has no correction: there is nothing to learn from it",
                "3: how  LONG? -> 45 days [2]. | Some(\"30 days.\") | 0",
                "5: And the motor? -> 4 years. | None | 2",
                "personal data was taken out of its answer: a model would learn to write what stands there now",
                "was turned down and has no correction: there is nothing to learn from it",
            ],
            "another tenant's, one that nobody judged and one that a tool ended are not among them; the same words in another conversation are another question"
        );
    }
}
