//! The loop: questions that were not answered, or answered badly, put together by what they are about, each with what would help.

use crate::Error;
use groundtone_prompt::PromptMessage;
use groundtone_types::cosine;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Cosine from which two questions are about the same thing. With the default embedder paraphrases lie above it, other questions of one shop mostly below.
pub const SAME_SUBJECT: f32 = 0.7;
/// Longest line of a log, in bytes.
const LONGEST_LINE: u64 = 4 << 20;
/// Most questions that are clustered at once.
pub const MOST_UNMET: usize = 20_000;

/// A question that a customer asked, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Unmet {
    /// The stored answer; `None` of a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// What was asked.
    pub question: String,
    /// The conversation before it, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PromptMessage>,
    /// What it is about, where its words alone do not say it: what a follow-up was searched for with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// What was answered.
    pub answer: String,
    /// The assistant said that it does not know.
    pub abstained: bool,
    /// A customer was not content.
    pub disliked: bool,
    /// How it should have been answered, where somebody said.
    pub correction: Option<String>,
}

/// A line of a log or of exported traces.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    trace_id: Option<String>,
    #[serde(default)]
    question: String,
    #[serde(default)]
    history: Vec<PromptMessage>,
    #[serde(default)]
    answer: Option<String>,
    #[serde(default)]
    abstained: Option<bool>,
    #[serde(default)]
    thumb: Option<serde_json::Value>,
    #[serde(default)]
    rating: Option<serde_json::Value>,
    #[serde(default)]
    correction: Option<String>,
}

/// `down`, `-1`, `false`, 0: what exports write for a bad rating.
fn is_bad(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => matches!(text.as_str(), "down" | "bad" | "negative" | "-1" | "0"),
        serde_json::Value::Bool(good) => !good,
        value => value.as_f64().is_some_and(|value| value <= 0.0),
    }
}

/// What would help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// The documents do not say it: write one.
    Document,
    /// Somebody said how it should be answered: train on that.
    TrainingRow,
    /// It was answered, and not well: hold it out, so that the next version is measured on it.
    EvaluationCase,
}

impl Unmet {
    /// Whether it was not answered, rated badly or corrected.
    pub fn counts(&self) -> bool {
        (self.abstained || self.disliked || self.correction.is_some()) && !self.question.trim().is_empty()
    }

    /// What tells its subject: the question, or what it was searched for with.
    pub fn subject(&self) -> &str {
        self.about.as_deref().unwrap_or(&self.question)
    }
}

/// Questions about one thing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subject {
    /// The question that the others are nearest to.
    pub question: String,
    /// How many there are.
    pub count: usize,
    /// Of them not answered.
    pub abstained: usize,
    /// Of them rated badly.
    pub disliked: usize,
    /// What would help most.
    pub remedy: Remedy,
    /// All of them.
    pub asked: Vec<Unmet>,
}

/// Reads JSONL of `{"question", "answer", "abstained", "thumb" or "rating", "correction"}` and keeps what was not answered, rated badly or corrected.
pub fn read_unmet(path: &Path) -> Result<Vec<Unmet>, Error> {
    let failed = |error: std::io::Error| Error::File { path: path.to_owned(), reason: error.to_string() };
    let mut reader = BufReader::new(std::fs::File::open(path).map_err(failed)?);
    let (mut found, mut line, mut number) = (Vec::new(), String::new(), 0);
    loop {
        line.clear();
        if std::io::Read::take(&mut reader, LONGEST_LINE).read_line(&mut line).map_err(failed)? == 0 {
            return Ok(found);
        }
        number += 1;
        if line.trim().is_empty() {
            continue;
        }
        let row: Line =
            serde_json::from_str(&line).map_err(|error| Error::Line { path: path.to_owned(), line: number, reason: error.to_string() })?;
        let unmet = Unmet {
            trace: row.trace_id,
            question: row.question,
            history: row.history,
            about: None,
            answer: row.answer.unwrap_or_default(),
            abstained: row.abstained.unwrap_or(false),
            disliked: row.thumb.as_ref().or(row.rating.as_ref()).is_some_and(is_bad),
            correction: row.correction.filter(|text| !text.trim().is_empty()),
        };
        if unmet.counts() && found.len() < MOST_UNMET {
            found.push(unmet);
        }
    }
}

/// Puts questions together by their vectors (one for each): a question joins the nearest subject whose first question is at least [`SAME_SUBJECT`] near, else it begins
/// one. Subjects with most questions come first.
pub fn subjects(asked: &[Unmet], vectors: &[Vec<f32>]) -> Vec<Subject> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, vector) in vectors.iter().enumerate().take(asked.len()) {
        let near = groups.iter_mut().map(|group| (cosine(&vectors[group[0]], vector), group));
        match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((similarity, group)) if similarity >= SAME_SUBJECT => group.push(at),
            _ => groups.push(vec![at]),
        }
    }
    let mut found: Vec<Subject> = groups.iter().map(|group| subject(group, asked, vectors)).collect();
    found.sort_by_key(|subject| std::cmp::Reverse(subject.count));
    found
}

fn subject(group: &[usize], asked: &[Unmet], vectors: &[Vec<f32>]) -> Subject {
    let nearness = |at: usize| group.iter().map(|other| cosine(&vectors[at], &vectors[*other])).sum::<f32>();
    let middle = group.iter().copied().max_by(|a, b| nearness(*a).total_cmp(&nearness(*b)).then(b.cmp(a))).unwrap_or(group[0]);
    let count = |holds: fn(&Unmet) -> bool| group.iter().filter(|at| holds(&asked[**at])).count();
    let (abstained, disliked) = (count(|unmet| unmet.abstained), count(|unmet| unmet.disliked));
    let remedy = if count(|unmet| unmet.correction.is_some()) > 0 {
        Remedy::TrainingRow
    } else if 2 * abstained >= group.len() {
        Remedy::Document
    } else {
        Remedy::EvaluationCase
    };
    let all = group.iter().map(|at| asked[*at].clone()).collect();
    Subject { question: asked[middle].question.clone(), count: group.len(), abstained, disliked, remedy, asked: all }
}

impl Subject {
    /// A row of a held-out set. Without a correction it says only whether it can be answered.
    pub fn case(&self, id: &str) -> serde_json::Value {
        // A correction belongs to its own question.
        let asked = self.asked.iter().find(|unmet| unmet.correction.is_some());
        let asked = asked.or_else(|| self.asked.iter().find(|unmet| unmet.question == self.question));
        let mut row = serde_json::json!({"id": id, "question": asked.map_or(&self.question, |unmet| &unmet.question)});
        if let Some(history) = asked.map(|unmet| &unmet.history).filter(|history| !history.is_empty()) {
            row["history"] = serde_json::json!(history);
        }
        match asked.and_then(|unmet| unmet.correction.clone()) {
            Some(correction) => row["answer"] = correction.into(),
            None if self.remedy == Remedy::Document => row["answerable"] = false.into(),
            None => {}
        }
        row
    }

    /// Training examples: every question that somebody said the answer to.
    pub fn rows(&self) -> Vec<serde_json::Value> {
        let row = |unmet: &Unmet| {
            let mut row = serde_json::json!({"question": unmet.question, "answer": unmet.correction.clone()?});
            if let Some(trace) = &unmet.trace {
                row["id"] = trace.clone().into();
            }
            if !unmet.history.is_empty() {
                row["history"] = serde_json::json!(unmet.history);
            }
            // The other half of a preference pair.
            if !unmet.answer.trim().is_empty() {
                row["rejected"] = unmet.answer.clone().into();
            }
            Some(row)
        };
        self.asked.iter().filter_map(row).collect()
    }

    /// The beginning of a document: what customers asked, for a person to answer. It says nothing yet.
    pub fn document(&self) -> String {
        let mut out = format!("# {}\n\nTo be written. Customers asked {} times:\n\n", self.question.trim(), self.count);
        let mut questions: Vec<&str> = self.asked.iter().map(|unmet| unmet.question.trim()).collect();
        questions.sort_unstable();
        questions.dedup();
        questions.iter().for_each(|question| out.push_str(&format!("- {question}\n")));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_becomes_subjects_with_what_would_help() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let text = concat!(
            "{\"question\": \"Do you sell lamps?\", \"answer\": \"I don't know.\", \"abstained\": true}\n",
            "{\"question\": \"How long is the warranty?\", \"answer\": \"12 years\", \"thumb\": \"up\"}\n",
            "{\"question\": \"Are there lamps?\", \"abstained\": true}\n\n",
            "{\"question\": \"What is the charge to Norway?\", \"answer\": \"6\", \"thumb\": \"down\", \"correction\": \"16 euro.\"}\n",
            "{\"question\": \"Where are you?\", \"answer\": \"Here\", \"rating\": -1}\n",
        );
        std::fs::write(&path, text).unwrap();
        let asked = read_unmet(&path).unwrap();
        let vectors = [[1.0, 0.0, 0.0], [0.9, 0.43, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].map(Vec::from);
        let found = subjects(&asked, &vectors);
        let shown: Vec<(&str, usize, Remedy)> =
            found.iter().map(|subject| (subject.question.as_str(), subject.count, subject.remedy)).collect();
        assert_eq!(
            shown,
            [
                ("Do you sell lamps?", 2, Remedy::Document),
                ("What is the charge to Norway?", 1, Remedy::TrainingRow),
                ("Where are you?", 1, Remedy::EvaluationCase)
            ]
        );
        assert_eq!(
            found[0].document(),
            "# Do you sell lamps?\n\nTo be written. Customers asked 2 times:\n\n- Are there lamps?\n- Do you sell lamps?\n"
        );
        assert_eq!(found[0].case("g1"), serde_json::json!({"id": "g1", "question": "Do you sell lamps?", "answerable": false}));
        let row = serde_json::json!({"question": "What is the charge to Norway?", "answer": "16 euro.", "rejected": "6"});
        assert_eq!(found[1].rows(), [row]);
        assert_eq!(found.iter().map(|subject| subject.count).sum::<usize>(), asked.len());
        assert!(subjects(&[], &[]).is_empty());
    }

    #[test]
    fn a_follow_up_keeps_its_conversation_and_a_correction_its_question() {
        let history = vec![PromptMessage::new(groundtone_prompt::Role::User, "Is the burr set covered?")];
        let follow_up = Unmet {
            trace: Some("tr_1".into()),
            question: "And the motor?".into(),
            history,
            about: Some("Is the motor covered?".into()),
            ..Unmet::default()
        };
        let asked = [
            Unmet { question: "Is the motor covered?".into(), disliked: true, ..Unmet::default() },
            Unmet { correction: Some("For 4 years.".into()), answer: "No.".into(), ..follow_up },
        ];
        assert_eq!((asked[0].subject(), asked[1].subject()), ("Is the motor covered?", "Is the motor covered?"));
        let found = subjects(&asked, &[vec![1.0], vec![1.0]]);
        assert_eq!((found.len(), found[0].remedy), (1, Remedy::TrainingRow));
        let history = serde_json::json!([{"role": "user", "content": "Is the burr set covered?"}]);
        assert_eq!(
            found[0].case("c"),
            serde_json::json!({"id": "c", "question": "And the motor?", "history": history, "answer": "For 4 years."})
        );
        assert_eq!(
            found[0].rows(),
            [
                serde_json::json!({"question": "And the motor?", "answer": "For 4 years.", "id": "tr_1", "history": history, "rejected": "No."})
            ]
        );
    }
}
