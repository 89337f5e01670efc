//! What is measured of an answer: one file for each metric, behind [`Metric`]. Every metric is better the larger it is, from 0 to 1; what is paid (time, tokens, money) is in [`usage`].

mod abstention;
mod citations;
mod exact;
mod facts;
mod grounded;
mod label;
pub mod ranking;
mod schema;
mod similarity;
mod token_f1;
pub mod usage;
mod voice;

pub use abstention::{Abstention, says_that_it_does_not_know};
pub use citations::Citations;
pub use exact::{ExactMatch, normalised};
pub use facts::Facts;
pub use grounded::Grounded;
pub use label::{LabelAccuracy, LabelF1, Labels};
pub use schema::JsonSchema;
pub use similarity::VoiceSimilarity;
pub use token_f1::TokenF1;
pub use voice::{Voice, VoiceRules};

use crate::case::{Case, Reply};
use crate::stats::Part;
use serde::{Deserialize, Serialize};

/// What a metric tells about: facts come from retrieval, form from fine-tuning, and a verdict weighs them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Whether the answer is right, and says so only where it can know.
    Facts,
    /// Whether it has the wanted shape and voice.
    Form,
}

/// One answer, with what is known about it.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The row.
    pub case: &'a Case,
    /// What the arm answered. One that failed has an empty text.
    pub reply: &'a Reply,
    /// Texts that the answer may rest on: the row's own, and what any arm was shown for this row. The same for every arm, so that one without retrieval is measured too.
    pub evidence: &'a [&'a str],
    /// Whether the answer says that it does not know.
    pub abstained: bool,
}

/// Something that is measured of each answer.
pub trait Metric: Send + Sync {
    /// Its name in the report.
    fn name(&self) -> String;
    /// One sentence: what 1 means.
    fn meaning(&self) -> String;
    /// What it tells about.
    fn aspect(&self) -> Aspect;
    /// What this answer adds; nothing where the metric does not apply to the row.
    fn score(&self, answered: &Answered<'_>) -> Vec<Part>;
    /// Whether it is one of many details (one class, one rule) that are shown but decide nothing.
    fn is_detail(&self) -> bool {
        false
    }
}

/// 1 or 0.
fn yes(holds: bool) -> Vec<Part> {
    vec![Part::of(f64::from(u8::from(holds)))]
}

#[cfg(test)]
mod testing {
    use super::*;

    /// The value of one answer; `None` where the metric does not apply.
    pub(super) fn value(metric: &dyn Metric, case: &Case, text: &str) -> Option<f64> {
        value_of(metric, case, &Reply { text: text.into(), ..Reply::default() }, &[])
    }

    pub(super) fn value_of(metric: &dyn Metric, case: &Case, reply: &Reply, evidence: &[&str]) -> Option<f64> {
        let abstained = says_that_it_does_not_know(reply, &["I don't have that".to_owned()]);
        crate::stats::Scores(vec![metric.score(&Answered { case, reply, evidence, abstained })]).value()
    }
}
