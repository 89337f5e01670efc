use super::verdict::{Decision, Role, Verdict};
use crate::case::Reply;
use crate::metrics::Aspect;
use crate::metrics::usage::{Latency, Prices, Tokens};
use crate::stats::{Difference, Discordant, Estimate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One arm and its answers, in the order of the set.
#[derive(Debug, Clone)]
pub struct ArmRun {
    /// Its name.
    pub name: String,
    /// What the client named as the model.
    pub model: String,
    /// What it is.
    pub role: Role,
    /// One for each case.
    pub replies: Vec<Reply>,
}

/// How a decision is made.
#[derive(Debug, Clone)]
pub struct DecideSettings {
    /// Id of the evaluation.
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// What was typed.
    pub command: String,
    /// The metric that decides; chosen by what the set has where `None`.
    pub primary: Option<String>,
    /// How much worse still counts as the same.
    pub margin: f64,
    /// What is good enough.
    pub target: Option<f64>,
    /// Draws of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
    /// Answers at the same time.
    pub parallel: usize,
    /// What models cost.
    pub prices: Prices,
    /// Beginnings of an answer that says that it does not know.
    pub abstain: Vec<String>,
}

/// A metric of an arm and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// The value and its interval.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Rows that it is about.
    pub of: usize,
}

/// What a metric means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricInfo {
    /// What 1 means.
    pub meaning: String,
    /// What it tells about.
    pub aspect: Aspect,
    /// One class or one rule of many.
    pub detail: bool,
}

/// What 1,000 answers cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// In the money of the price table.
    pub per_1000: f64,
    /// Once: training and rows.
    pub fixed: f64,
}

/// One arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmReport {
    /// Its name.
    pub name: String,
    /// What the client named as the model.
    pub model: String,
    /// What it is.
    pub role: Role,
    /// The model that answered, where the server said so.
    pub answered_by: Option<String>,
    /// Fingerprint of its prompt, where the server said so and it was one.
    pub prompt_fingerprint: Option<String>,
    /// Rows without an answer.
    pub errors: usize,
    /// Answers that say that they do not know.
    pub abstained: usize,
    /// By name.
    pub metrics: BTreeMap<String, Value>,
    /// Time of an answer.
    pub latency: Latency,
    /// Tokens of an answer.
    pub tokens: Tokens,
    /// `None` without a price.
    pub cost: Option<Cost>,
}

/// The test of the metric that decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairTest {
    /// `mcnemar` for right and wrong on independent rows, else `wilcoxon` on the mean differences of clusters.
    pub name: String,
    /// Its p-value.
    pub p: f64,
    /// Corrected for the number of arms (Holm), where the second arm is the baseline.
    pub p_corrected: Option<f64>,
    /// Rows in which only one of the two is right.
    pub discordant: Discordant,
}

/// What a judge model preferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedPair {
    /// Rows in which the judge preferred the first arm in both orders.
    pub first: usize,
    /// The second arm, in both orders.
    pub second: usize,
    /// A tie, in both orders.
    pub tie: usize,
    /// It said one thing in one order and another in the other: counted for nobody.
    pub contradicted: usize,
    /// No readable verdict.
    pub failed: usize,
}

impl JudgedPair {
    /// Share of the readable rows in which both orders agree. A judge far below 1 judges the order.
    pub fn agreement(&self) -> Option<f64> {
        let same = self.first + self.second + self.tie;
        let all = same + self.contradicted;
        (all > 0).then(|| same as f64 / all as f64)
    }
}

/// One arm against another: the first minus the second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairReport {
    /// The first.
    pub a: String,
    /// The second.
    pub b: String,
    /// By name; p is the bootstrap's own.
    pub metrics: BTreeMap<String, Difference>,
    /// The metric that decides.
    pub test: PairTest,
    /// Metrics in which the first is clearly worse, corrected for their number.
    pub worse_in: Vec<String>,
    /// What a judge says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgedPair>,
}

/// From how many answers on a dearer start pays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreakEven {
    /// The tuned arm.
    pub arm: String,
    /// The arm that it would replace.
    pub baseline: String,
    /// Saved with each 1,000 answers.
    pub saving_per_1000: f64,
    /// Paid once.
    pub fixed: f64,
    /// Answers until both are equal; `None` where it never is.
    pub answers: Option<f64>,
}

/// A row on which the arms differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disagreement {
    /// Its id.
    pub id: String,
    /// The question.
    pub question: String,
    /// The reference: the answer, the label, or what must be in it.
    pub reference: String,
    /// By arm: its score in the deciding metric and its text.
    pub answers: BTreeMap<String, (Option<f64>, String)>,
}

/// The set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetInfo {
    /// What the evaluation is called; the file's name where it has none of its own.
    pub name: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Rows that were asked.
    pub rows: usize,
    /// Independent ones: rows about one document are one.
    pub clusters: usize,
}

/// Everything that was found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionReport {
    /// `eval-...`.
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// The version of Groundtone.
    pub groundtone: String,
    /// What was typed.
    pub command: String,
    /// The set.
    pub set: SetInfo,
    /// The metric that decides.
    pub primary: String,
    /// How much worse still counts as the same.
    pub margin: f64,
    /// What is good enough, if somebody said.
    pub target: Option<f64>,
    /// Draws of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
    /// Answers at the same time.
    pub parallel: usize,
    /// The smallest difference that so many independent rows show with 80 % power, where arms disagree on a fifth of them.
    pub minimum_detectable_effect: Option<f64>,
    /// What to do.
    pub verdict: Verdict,
    /// The arms, in the order of the command.
    pub arms: Vec<ArmReport>,
    /// Each against each later one.
    pub pairs: Vec<PairReport>,
    /// What metrics mean.
    pub metrics: BTreeMap<String, MetricInfo>,
    /// Of tuned arms with a price, against the baseline.
    pub break_even: Vec<BreakEven>,
    /// Rows on which the arms differ.
    pub disagreements: Vec<Disagreement>,
}

impl DecisionReport {
    /// What the catalog keeps of it.
    pub fn decision(&self) -> Decision {
        self.verdict.decision
    }

    /// One arm by its name.
    pub fn arm(&self, name: &str) -> Option<&ArmReport> {
        self.arms.iter().find(|arm| arm.name == name)
    }
}
