use super::{Answered, Aspect, Metric, yes};
use crate::case::Case;
use crate::stats::Part;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Keys under which a JSON answer carries its label.
const KEYS: &[&str] = &["label", "intent", "category", "class"];

/// What two spellings of a label have in common: letters and digits in lower case, one space between words.
fn key(text: &str) -> String {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// The labels of a set, by their place in the alphabet.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    names: Vec<String>,
    known: HashMap<String, u32>,
}

impl Labels {
    /// The labels that rows of a set have.
    pub fn of(cases: &[Case]) -> Arc<Self> {
        let names: BTreeSet<&str> = cases.iter().filter_map(Case::wanted_label).collect();
        let known = (0..).zip(&names).map(|(at, name)| (key(name), at)).collect();
        Arc::new(Self { names: names.into_iter().map(str::to_owned).collect(), known })
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The label that an answer names: the whole answer (but for case, punctuation and a leading `Label:`), its first line, or a JSON object's `label`. Words around it are not
    /// forgiven: an answer that a program reads must be the label.
    pub fn read(&self, answer: &str) -> Option<u32> {
        let answer = answer.trim();
        if answer.starts_with('{') {
            let value: serde_json::Value = serde_json::from_str(answer).ok()?;
            return KEYS.iter().find_map(|name| self.known.get(&key(value.get(name)?.as_str()?)).copied());
        }
        let line = answer.lines().next().unwrap_or_default();
        let bare =
            line.split_once(':').filter(|(name, _)| KEYS.contains(&name.trim().to_lowercase().as_str())).map_or(line, |(_, label)| label);
        [answer, line, bare].iter().find_map(|text| self.known.get(&key(text)).copied())
    }

    fn wanted(&self, case: &Case) -> Option<u32> {
        self.known.get(&key(case.wanted_label()?)).copied()
    }
}

/// The answer names the row's label.
#[derive(Debug, Clone)]
pub struct LabelAccuracy(pub Arc<Labels>);

impl Metric for LabelAccuracy {
    fn name(&self) -> String {
        "label_accuracy".to_owned()
    }
    fn meaning(&self) -> String {
        "the answer is the row's label".to_owned()
    }
    fn aspect(&self) -> Aspect {
        Aspect::Facts
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        match self.0.wanted(answered.case) {
            Some(wanted) => yes(self.0.read(&answered.reply.text) == Some(wanted)),
            None => Vec::new(),
        }
    }
}

/// F1 of the labels: of one, or the mean of all (macro).
#[derive(Debug, Clone)]
pub struct LabelF1 {
    /// The labels.
    pub labels: Arc<Labels>,
    /// One of them, by its place; all where `None`.
    pub only: Option<u32>,
}

impl Metric for LabelF1 {
    fn name(&self) -> String {
        match self.only.and_then(|at| self.labels.names.get(at as usize)) {
            Some(name) => format!("label_f1:{name}"),
            None => "label_macro_f1".to_owned(),
        }
    }
    fn meaning(&self) -> String {
        "harmonic mean of precision and recall of the label; the mean over labels where none is named".to_owned()
    }
    fn aspect(&self) -> Aspect {
        Aspect::Facts
    }
    fn is_detail(&self) -> bool {
        self.only.is_some()
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        let Some(wanted) = self.labels.wanted(answered.case) else { return Vec::new() };
        let part = |class, gained, possible| Part { class, gained, possible };
        // F1 = 2 TP / (2 TP + FP + FN).
        let parts = match self.labels.read(&answered.reply.text) {
            Some(read) if read == wanted => vec![part(wanted, 2.0, 2.0)],
            Some(read) => vec![part(wanted, 0.0, 1.0), part(read, 0.0, 1.0)],
            None => vec![part(wanted, 0.0, 1.0)],
        };
        match self.only {
            None => parts,
            Some(only) => parts.into_iter().filter(|part| part.class == only).map(|part| Part { class: 0, ..part }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Reply;
    use crate::stats::Scores;

    fn case(label: &str) -> Case {
        Case { label: Some(label.into()), ..Case::default() }
    }

    #[test]
    fn a_label_is_read_where_it_is_the_answer() {
        let labels = Labels::of(&[case("card_arrival"), case("Refund")]);
        for (answer, expected) in [
            ("card_arrival", Some("card_arrival")),
            ("Card arrival.", Some("card_arrival")),
            ("Intent: refund", Some("Refund")),
            ("refund\nbecause they ask for money", Some("Refund")),
            ("{\"label\": \"Refund\"}", Some("Refund")),
            ("{\"label\": \"nothing\"}", None),
            ("It is refund", None),
            ("", None),
        ] {
            assert_eq!(labels.read(answer).map(|at| labels.names()[at as usize].as_str()), expected, "{answer}");
        }
    }

    #[test]
    fn f1_is_scikit_learns() {
        // sklearn.metrics.f1_score(y_true, y_pred, average="macro") with a, a, a, b, b, c against a, a, b, b, c, nothing: (0.8 + 0.5 + 0.0) / 3.
        let (truth, read) = (["a", "a", "a", "b", "b", "c"], ["a", "a", "b", "b", "c", "?"]);
        let cases: Vec<Case> = truth.iter().map(|label| case(label)).collect();
        let labels = Labels::of(&cases);
        let score = |metric: &dyn Metric| {
            let reply = |text: &str| Reply { text: text.into(), ..Reply::default() };
            let parts = cases
                .iter()
                .zip(read)
                .map(|(case, text)| metric.score(&Answered { case, reply: &reply(text), evidence: &[], abstained: false }));
            Scores(parts.collect()).value().unwrap()
        };
        assert!((score(&LabelF1 { labels: labels.clone(), only: None }) - 1.3 / 3.0).abs() < 1e-12);
        assert!((score(&LabelF1 { labels: labels.clone(), only: Some(1) }) - 0.5).abs() < 1e-12);
        assert!((score(&LabelAccuracy(labels)) - 0.5).abs() < 1e-12);
    }
}
