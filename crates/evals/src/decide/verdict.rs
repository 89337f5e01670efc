//! Measured arms in, one sentence out. A pure function: the same figures give the same verdict.

use crate::stats::{Estimate, non_inferior, rows_needed};
use serde::{Deserialize, Serialize};

/// Level that corrected p-values are held against.
const LEVEL: f64 = 0.05;
/// A tuned model that is as good must save at least this share of cost, or of time where there is no price.
const WORTHWHILE_SAVING: f64 = 0.2;
/// Clusters below which nothing is decided: a bootstrap over fewer says little.
const LEAST_CLUSTERS: usize = 10;
/// More than so many times the rows that there are is not asked for: what so many rows would show is too small to matter.
const MOST_TIMES: usize = 20;
/// An arm of which more answers than this failed was not measured but its outage.
const MOST_ERRORS: f64 = 0.05;
/// A best arm whose interval ends below this is said to be weak.
const WEAK: f64 = 0.5;

/// What an arm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A prompt and nothing else.
    Prompted,
    /// A prompt with examples in it.
    FewShot,
    /// Retrieved sources in the prompt.
    Rag,
    /// A tuned model with a short prompt.
    Tuned,
    /// A tuned model with retrieved sources.
    TunedRag,
}

impl Role {
    /// Whether the model was trained for this.
    pub fn is_tuned(self) -> bool {
        matches!(self, Self::Tuned | Self::TunedRag)
    }

    /// Whether it reads retrieved sources.
    pub fn retrieves(self) -> bool {
        matches!(self, Self::Rag | Self::TunedRag)
    }
}

/// An arm, as far as a verdict needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The metric that decides.
    pub primary: Estimate,
    /// Share of the rows that it failed on.
    pub errors: f64,
    /// Cost of 1,000 answers, where there is a price.
    pub cost: Option<f64>,
    /// Median time of an answer, in milliseconds.
    pub latency: f64,
}

/// How one arm stands against another.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Place of the first arm.
    pub a: usize,
    /// Place of the second.
    pub b: usize,
    /// The first minus the second in the metric that decides.
    pub difference: Estimate,
    /// Its p-value, corrected for the number of arms.
    pub p: f64,
    /// Other metrics in which the first is clearly worse: the whole interval of the difference is below zero.
    pub worse_in: Vec<String>,
}

/// Everything a verdict rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Name of the metric that decides.
    pub metric: String,
    /// Rows that were asked.
    pub rows: usize,
    /// Clusters that they fall into.
    pub clusters: usize,
    /// How much worse still counts as the same.
    pub margin: f64,
    /// What is good enough, if somebody said.
    pub target: Option<f64>,
    /// The arms.
    pub arms: Vec<Measured>,
    /// Each against each, in both directions; a missing one is one that could not be computed.
    pub standings: Vec<Standing>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Tuning did not show itself worth it: a prompt does as well.
    DoNotFineTune,
    /// Retrieval does as well or better without tuning.
    KeepRag,
    /// A prompt is enough; retrieval adds nothing either.
    KeepPrompt,
    /// The tuned model, without retrieval.
    UseTuned,
    /// The tuned model, with retrieval.
    Combine,
    /// The rows cannot tell.
    NeedMoreRows,
    /// There is nothing to compare: one arm, or no baseline, or only failures.
    NothingToCompare,
}

impl Decision {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DoNotFineTune => "do_not_fine_tune",
            Self::KeepRag => "keep_rag",
            Self::KeepPrompt => "keep_prompt",
            Self::UseTuned => "use_tuned",
            Self::Combine => "combine",
            Self::NeedMoreRows => "need_more_rows",
            Self::NothingToCompare => "nothing_to_compare",
        }
    }
}

/// Whether one arm may be released on this evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passing {
    /// The arm.
    pub arm: String,
    /// Whether.
    pub passed: bool,
    /// Why, or why not.
    pub reason: String,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What to do.
    pub decision: Decision,
    /// One sentence, with its figures.
    pub reason: String,
    /// Rows that would decide it; only where more are needed.
    pub rows_needed: Option<usize>,
    /// The arm that the decision is for.
    pub arm: Option<String>,
    /// The untuned arm that everything was held against.
    pub baseline: Option<String>,
    /// Each arm, for a release.
    pub passing: Vec<Passing>,
    /// Further things that a reader should know.
    pub notes: Vec<String>,
}

/// A share as a percentage, a difference in points.
fn percent(value: f64) -> String {
    format!("{:.1} %", value * 100.0)
}

fn points(difference: &Estimate) -> String {
    let Estimate { value, low, high } = difference;
    format!("{:+.1} points (95 % interval {:+.1} to {:+.1})", value * 100.0, low * 100.0, high * 100.0)
}

/// What a candidate is against the baseline.
enum Case {
    /// Clearly better, and in nothing clearly worse.
    Better,
    /// As good within the margin, and clearly cheaper or faster; the sentence says which.
    Cheaper(String),
    /// It cannot be better by more than the margin, or it is worse.
    Ruled(String),
    /// The rows cannot tell; so many would.
    Open(usize),
}

impl Evidence {
    fn standing(&self, a: usize, b: usize) -> Option<&Standing> {
        self.standings.iter().find(|standing| standing.a == a && standing.b == b)
    }

    fn usable(&self, at: usize) -> bool {
        self.arms[at].errors <= MOST_ERRORS
    }

    /// The best usable arm of those: by the metric, then by cost, then by time.
    fn best(&self, of: impl Fn(&Measured) -> bool) -> Option<usize> {
        let places = (0..self.arms.len()).filter(|at| self.usable(*at) && of(&self.arms[*at]));
        places.max_by(|a, b| {
            let (a, b) = (&self.arms[*a], &self.arms[*b]);
            let cheaper = || b.cost.unwrap_or(0.0).total_cmp(&a.cost.unwrap_or(0.0));
            a.primary.value.total_cmp(&b.primary.value).then_with(cheaper).then_with(|| b.latency.total_cmp(&a.latency))
        })
    }

    /// What the first saves against the second, in words; `None` where it is too little.
    fn saving(&self, a: usize, b: usize) -> Option<String> {
        let (a, b) = (&self.arms[a], &self.arms[b]);
        let share =
            |mine: f64, other: f64| (other > 0.0 && mine <= (1.0 - WORTHWHILE_SAVING) * other).then(|| 100.0 * (1.0 - mine / other));
        match (a.cost, b.cost) {
            (Some(mine), Some(other)) => share(mine, other).map(|saved| format!("costs {saved:.0} % less")),
            _ => share(a.latency, b.latency).map(|saved| format!("answers in {saved:.0} % less time")),
        }
    }

    fn case(&self, candidate: usize, baseline: usize) -> Case {
        let Some(standing) = self.standing(candidate, baseline) else { return Case::Ruled("could not be compared".to_owned()) };
        let difference = &standing.difference;
        if !standing.worse_in.is_empty() {
            return Case::Ruled(format!("is clearly worse in {}", standing.worse_in.join(" and ")));
        }
        if difference.low > 0.0 && standing.p <= LEVEL {
            return Case::Better;
        }
        if non_inferior(difference, self.margin)
            && let Some(saving) = self.saving(candidate, baseline)
        {
            return Case::Cheaper(saving);
        }
        if difference.high < 0.0 {
            return Case::Ruled(format!("is worse, by {}", points(difference)));
        }
        if difference.high <= self.margin {
            return Case::Ruled(format!("is not better by more than {} points, and saves too little", self.margin * 100.0));
        }
        // What would settle it: showing that it is better, or that it is not better by the margin, or (where it saves) that it is as good.
        let mut distances = vec![difference.value, self.margin - difference.value];
        if self.saving(candidate, baseline).is_some() {
            distances.push(difference.value + self.margin);
        }
        let needed =
            distances.into_iter().filter(|distance| *distance > 0.0).filter_map(|distance| rows_needed(self.rows, difference, distance));
        match needed.min() {
            Some(rows) if rows <= MOST_TIMES * self.rows => Case::Open(rows.max(self.rows + 1)),
            _ => Case::Ruled("differs by too little to see".to_owned()),
        }
    }

    fn passing(&self, baseline: Option<usize>) -> Vec<Passing> {
        let judge = |at: usize| -> (bool, String) {
            let arm = &self.arms[at];
            if !self.usable(at) {
                return (false, format!("{} of its answers failed", percent(arm.errors)));
            }
            if self.clusters < LEAST_CLUSTERS {
                return (false, format!("{} independent rows are too few to judge it", self.clusters));
            }
            if let Some(target) = self.target.filter(|target| arm.primary.value < *target) {
                return (false, format!("{} is {}, below the target of {}", self.metric, percent(arm.primary.value), percent(target)));
            }
            match baseline {
                Some(baseline) if baseline == at => (true, "it is the baseline".to_owned()),
                Some(baseline) => match self.standing(at, baseline) {
                    None => (false, "it could not be compared with the baseline".to_owned()),
                    Some(standing) if !standing.worse_in.is_empty() => {
                        (false, format!("it is clearly worse in {}", standing.worse_in.join(" and ")))
                    }
                    Some(standing) if !non_inferior(&standing.difference, self.margin) => (
                        false,
                        format!(
                            "it is not shown to be within {} points of {}: {}",
                            self.margin * 100.0,
                            self.arms[baseline].name,
                            points(&standing.difference)
                        ),
                    ),
                    Some(standing) => (
                        true,
                        format!(
                            "it is within {} points of {} or better: {}",
                            self.margin * 100.0,
                            self.arms[baseline].name,
                            points(&standing.difference)
                        ),
                    ),
                },
                None => (false, "there is no baseline to hold it against".to_owned()),
            }
        };
        (0..self.arms.len())
            .map(|at| {
                let (passed, reason) = judge(at);
                Passing { arm: self.arms[at].name.clone(), passed, reason }
            })
            .collect()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for arm in self.arms.iter().filter(|arm| arm.errors > MOST_ERRORS) {
            notes.push(format!("`{}` is left out: {} of its answers failed.", arm.name, percent(arm.errors)));
        }
        let best = self.best(|_| true).map(|at| &self.arms[at]);
        if let Some(arm) = best.filter(|arm| arm.primary.high < WEAK) {
            let (metric, name, value) = (&self.metric, &arm.name, percent(arm.primary.value));
            notes.push(format!(
                "No arm is good: the best, `{name}`, reaches {value} in {metric}. Better than the others is not good enough to serve."
            ));
        }
        notes
    }
}

/// Decides. Tuned arms are held against the best untuned one: clearly better wins, as good and clearly cheaper wins, everything else does not.
pub fn verdict(evidence: &Evidence) -> Verdict {
    let baseline = evidence.best(|arm| !arm.role.is_tuned());
    let (decision, reason, rows_needed, arm) = match baseline {
        _ if (0..evidence.arms.len()).filter(|at| evidence.usable(*at)).count() < 2 => {
            (Decision::NothingToCompare, "Fewer than two arms gave answers, so there is nothing to compare.".to_owned(), None, None)
        }
        None => (
            Decision::NothingToCompare,
            "There is no untuned arm: without a prompted or a RAG baseline nothing says whether tuning helps.".to_owned(),
            None,
            None,
        ),
        Some(_) if evidence.clusters < LEAST_CLUSTERS => {
            let reason = format!(
                "{} independent rows decide nothing; at least {LEAST_CLUSTERS} are needed, and 100 show differences of about 12 points.",
                evidence.clusters
            );
            (Decision::NeedMoreRows, reason, Some(evidence.rows.max(1) * LEAST_CLUSTERS.div_ceil(evidence.clusters.max(1))), None)
        }
        Some(baseline) if evidence.arms.iter().any(|arm| arm.role.is_tuned()) => of_tuned(evidence, baseline),
        Some(baseline) => of_untuned(evidence, baseline),
    };
    let name = |at: usize| evidence.arms[at].name.clone();
    Verdict {
        decision,
        reason,
        rows_needed,
        arm: arm.map(name),
        baseline: baseline.map(name),
        passing: evidence.passing(baseline),
        notes: evidence.notes(),
    }
}

type Outcome = (Decision, String, Option<usize>, Option<usize>);

/// Keeping what there is, in the baseline's own word.
fn keep(evidence: &Evidence, baseline: usize) -> Decision {
    if evidence.arms[baseline].role.retrieves() { Decision::KeepRag } else { Decision::DoNotFineTune }
}

fn of_tuned(evidence: &Evidence, baseline: usize) -> Outcome {
    let base = &evidence.arms[baseline];
    let metric = &evidence.metric;
    if let Some(target) = evidence.target.filter(|target| base.primary.low >= *target) {
        let cheaper = (0..evidence.arms.len()).any(|at| {
            evidence.arms[at].role.is_tuned()
                && evidence.usable(at)
                && matches!(evidence.case(at, baseline), Case::Cheaper(_) | Case::Better)
        });
        if !cheaper {
            let reason = format!(
                "`{}` already meets the target of {} in {metric} without tuning, and no tuned arm is better or saves enough.",
                base.name,
                percent(target)
            );
            return (keep(evidence, baseline), reason, None, Some(baseline));
        }
    }
    let mut candidates: Vec<usize> =
        (0..evidence.arms.len()).filter(|at| evidence.arms[*at].role.is_tuned() && evidence.usable(*at)).collect();
    candidates.sort_by(|a, b| evidence.arms[*b].primary.value.total_cmp(&evidence.arms[*a].primary.value));
    let cases: Vec<(usize, Case)> = candidates.into_iter().map(|at| (at, evidence.case(at, baseline))).collect();
    let winner = cases
        .iter()
        .find(|(_, case)| matches!(case, Case::Better))
        .or_else(|| cases.iter().find(|(_, case)| matches!(case, Case::Cheaper(_))));
    if let Some((at, case)) = winner {
        let arm = &evidence.arms[*at];
        let decision = if arm.role.retrieves() { Decision::Combine } else { Decision::UseTuned };
        let difference = evidence.standing(*at, baseline).map(|standing| points(&standing.difference)).unwrap_or_default();
        let reason = match case {
            Case::Cheaper(saving) => format!(
                "`{}` is as good as `{}` in {metric} within {} points, {difference}, and {saving}.",
                arm.name,
                base.name,
                evidence.margin * 100.0
            ),
            _ => format!(
                "`{}` is better than `{}` in {metric}, {} against {}: {difference}.",
                arm.name,
                base.name,
                percent(arm.primary.value),
                percent(base.primary.value)
            ),
        };
        return (decision, reason, None, Some(*at));
    }
    let open = cases
        .iter()
        .filter_map(|(at, case)| if let Case::Open(rows) = case { Some((*at, *rows)) } else { None })
        .min_by_key(|(_, rows)| *rows);
    if let Some((at, rows)) = open {
        let difference = evidence.standing(at, baseline).map(|standing| points(&standing.difference)).unwrap_or_default();
        let reason = format!(
            "{} rows cannot tell whether `{}` is better than `{}` in {metric}, {difference}; about {rows} would.",
            evidence.rows, evidence.arms[at].name, base.name
        );
        return (Decision::NeedMoreRows, reason, Some(rows), Some(at));
    }
    let why: Vec<String> = cases
        .iter()
        .filter_map(|(at, case)| if let Case::Ruled(why) = case { Some(format!("`{}` {why}", evidence.arms[*at].name)) } else { None })
        .collect();
    let why = if why.is_empty() { "every tuned arm failed".to_owned() } else { why.join("; ") };
    let reason = format!("No tuned arm is worth it against `{}` ({} in {metric}): {why}.", base.name, percent(base.primary.value));
    (keep(evidence, baseline), reason, None, Some(baseline))
}

fn of_untuned(evidence: &Evidence, baseline: usize) -> Outcome {
    let metric = &evidence.metric;
    let rag = evidence.best(|arm| arm.role.retrieves());
    let prompt = evidence.best(|arm| !arm.role.retrieves());
    let (Some(rag), Some(prompt)) = (rag, prompt) else {
        let decision = if evidence.arms[baseline].role.retrieves() { Decision::KeepRag } else { Decision::KeepPrompt };
        let reason = format!(
            "`{}` is the best of the arms in {metric} ({}); none of another kind, and none tuned, was measured.",
            evidence.arms[baseline].name,
            percent(evidence.arms[baseline].primary.value)
        );
        return (decision, reason, None, Some(baseline));
    };
    let (rag_name, prompt_name) = (&evidence.arms[rag].name, &evidence.arms[prompt].name);
    match evidence.case(rag, prompt) {
        Case::Better => {
            let difference = evidence.standing(rag, prompt).map(|standing| points(&standing.difference)).unwrap_or_default();
            (
                Decision::KeepRag,
                format!(
                    "Retrieval is needed: `{rag_name}` is better than `{prompt_name}` in {metric}, {difference}; no tuned arm was measured."
                ),
                None,
                Some(rag),
            )
        }
        Case::Cheaper(saving) => (
            Decision::KeepRag,
            format!("`{rag_name}` is as good as `{prompt_name}` in {metric} and {saving}; no tuned arm was measured."),
            None,
            Some(rag),
        ),
        Case::Open(rows) => {
            let reason = format!(
                "{} rows cannot tell whether `{rag_name}` is better than `{prompt_name}` in {metric}; about {rows} would.",
                evidence.rows
            );
            (Decision::NeedMoreRows, reason, Some(rows), Some(rag))
        }
        Case::Ruled(why) => (
            Decision::KeepPrompt,
            format!("A prompt is enough: `{rag_name}` {why} against `{prompt_name}` in {metric}; no tuned arm was measured."),
            None,
            Some(prompt),
        ),
    }
}

#[cfg(test)]
mod tests;
