use super::ask::ask;
use crate::case::CaseSet;
use crate::decide::{ArmRun, JudgedPair};
use futures::{StreamExt, stream};
use groundtone_openai_api::{ChatCompletionRequest, Content, RequestMessage};
use groundtone_provider::Endpoint;
use serde_json::Map;

/// What a judge is told. It sees both answers in both orders: a preference counts only where it is the same in both (Zheng et al., NeurIPS 2023, section 3.4).
const SYSTEM: &str = "You compare two answers of a help desk to the same question. Prefer the one that is right by the reference; between two that are right, the one that answers more \
directly and plainly. Length alone is no merit. End with one line that holds only A, B or TIE.";

/// A model that judges.
#[derive(Debug, Clone)]
pub struct Judge {
    /// Its server.
    pub endpoint: Endpoint,
    /// Its name there.
    pub model: String,
    /// Rows at the same time.
    pub parallel: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preference {
    A,
    B,
    Tie,
}

/// The last line that is a verdict.
fn read(text: &str) -> Option<Preference> {
    let word = |line: &str| line.trim_matches(|c: char| !c.is_ascii_alphabetic()).to_ascii_uppercase();
    text.lines().rev().find_map(|line| match word(line).as_str() {
        "A" => Some(Preference::A),
        "B" => Some(Preference::B),
        "TIE" => Some(Preference::Tie),
        _ => None,
    })
}

impl Judge {
    async fn prefer(&self, question: &str, reference: Option<&str>, a: &str, b: &str) -> Option<Preference> {
        let message =
            |role: &str, content: String| RequestMessage { role: role.to_owned(), content: Some(Content::Text(content)), rest: Map::new() };
        let reference = reference.map(|reference| format!("Reference:\n{reference}\n\n")).unwrap_or_default();
        let body = ChatCompletionRequest {
            model: self.model.clone(),
            messages: vec![
                message("system", SYSTEM.to_owned()),
                message("user", format!("Question:\n{question}\n\n{reference}Answer A:\n{a}\n\nAnswer B:\n{b}")),
            ],
            stream: Some(true),
            temperature: Some(0.0),
            max_completion_tokens: Some(300),
            ..ChatCompletionRequest::default()
        };
        read(&ask(&self.endpoint, &body).await.text)
    }
}

/// Compares two arms row by row, each row in both orders. Rows that either arm failed on are left out.
pub async fn judge_pair(judge: &Judge, set: &CaseSet, first: &ArmRun, second: &ArmRun) -> JudgedPair {
    let rows = (0..set.cases.len()).filter(|at| first.replies[*at].error.is_none() && second.replies[*at].error.is_none());
    let one = |at: usize| async move {
        let (case, a, b) = (&set.cases[at], &first.replies[at].text, &second.replies[at].text);
        let reference = case.answer.as_deref().or(case.label.as_deref());
        let forward = judge.prefer(&case.question, reference, a, b).await;
        let backward = judge.prefer(&case.question, reference, b, a).await;
        forward.zip(backward)
    };
    let verdicts: Vec<Option<(Preference, Preference)>> =
        stream::iter(rows).map(one).buffer_unordered(judge.parallel.max(1)).collect().await;
    let mut found = JudgedPair::default();
    for verdict in verdicts {
        match verdict {
            None => found.failed += 1,
            Some((Preference::A, Preference::B)) => found.first += 1,
            Some((Preference::B, Preference::A)) => found.second += 1,
            Some((Preference::Tie, Preference::Tie)) => found.tie += 1,
            Some(_) => found.contradicted += 1,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_decides_and_agreement_is_what_both_orders_say() {
        for (text, expected) in [
            ("A", Some(Preference::A)),
            ("The first is right.\n**B**\n", Some(Preference::B)),
            ("A is good\nB is better\n\nTIE", Some(Preference::Tie)),
            ("I cannot say", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        let judged = JudgedPair { first: 5, second: 2, tie: 1, contradicted: 8, failed: 3 };
        assert_eq!(judged.agreement(), Some(0.5));
        assert_eq!(JudgedPair::default().agreement(), None);
    }
}
