use super::report::{
    ArmReport, ArmRun, BreakEven, Cost, DecideSettings, DecisionReport, Disagreement, MetricInfo, PairReport, PairTest, SetInfo, Value,
};
use super::verdict::{Evidence, Measured, Standing, verdict};
use crate::Error;
use crate::case::{Case, CaseSet, Reply};
use crate::metrics::usage::{Latency, Tokens};
use crate::metrics::{Answered, Metric, says_that_it_does_not_know};
use crate::stats::{Difference, Discordant, Estimate, Resamples, Scores, holm, mcnemar, minimum_detectable_effect, wilcoxon};
use std::collections::BTreeMap;

/// Rows with their texts that a report shows at most.
const MOST_DISAGREEMENTS: usize = 30;
/// Characters of a text that a report shows at most.
const MOST_CHARS: usize = 700;
/// Which metric decides where nobody says: the first of these that every arm has.
const PRIMARY: &[&str] = &["label_accuracy", "facts", "json_schema", "token_f1", "voice_rules", "groundedness", "exact_match"];
/// Share of the rows that arms are taken to disagree on before anything is known.
const ASSUMED_DISCORDANCE: f64 = 0.2;

/// Scores of all arms in all metrics.
struct Table {
    names: Vec<String>,
    details: Vec<bool>,
    /// By metric, then by arm.
    scores: Vec<Vec<Scores>>,
}

/// Measures, compares and decides.
pub fn decide(set: &CaseSet, arms: &[ArmRun], metrics: &[Box<dyn Metric>], settings: &DecideSettings) -> Result<DecisionReport, Error> {
    let clusters: Vec<String> = set.cases.iter().map(Case::cluster).collect();
    let resamples = Resamples::new(&clusters, settings.resamples, settings.seed);
    let table = Table::of(set, arms, metrics, &settings.abstain);
    let primary = table.primary(settings.primary.as_deref())?;
    let reports: Vec<ArmReport> = arms.iter().enumerate().map(|(at, arm)| arm_report(at, arm, &table, &resamples, settings)).collect();
    let pairs = table.pairs(arms, primary, &resamples);
    let evidence = Evidence {
        metric: table.names[primary].clone(),
        rows: set.cases.len(),
        clusters: resamples.clusters(),
        margin: settings.margin,
        target: settings.target,
        arms: arms.iter().zip(&reports).map(|(arm, report)| measured(arm, report, &table.names[primary])).collect(),
        standings: standings(arms, &pairs, &table.names[primary]),
    };
    let verdict = verdict(&evidence);
    Ok(DecisionReport {
        id: settings.id.clone(),
        created_at: settings.created_at,
        groundtone: env!("CARGO_PKG_VERSION").to_owned(),
        command: settings.command.clone(),
        set: SetInfo { name: set.name.clone(), sha256: set.sha256.clone(), rows: set.cases.len(), clusters: resamples.clusters() },
        primary: table.names[primary].clone(),
        margin: settings.margin,
        target: settings.target,
        resamples: settings.resamples,
        seed: settings.seed,
        parallel: settings.parallel,
        minimum_detectable_effect: minimum_detectable_effect(resamples.clusters() as f64, ASSUMED_DISCORDANCE),
        break_even: break_even(&reports, verdict.baseline.as_deref()),
        disagreements: table.disagreements(set, arms, primary),
        verdict,
        arms: reports,
        pairs,
        metrics: metrics
            .iter()
            .map(|metric| (metric.name(), MetricInfo { meaning: metric.meaning(), aspect: metric.aspect(), detail: metric.is_detail() }))
            .collect(),
    })
}

impl Table {
    fn of(set: &CaseSet, arms: &[ArmRun], metrics: &[Box<dyn Metric>], abstain: &[String]) -> Self {
        let mut scores: Vec<Vec<Scores>> = metrics.iter().map(|_| vec![Scores::default(); arms.len()]).collect();
        for (at, case) in set.cases.iter().enumerate() {
            let shown = arms.iter().flat_map(|arm| &arm.replies[at].sources).map(|source| source.text.as_str());
            let mut evidence: Vec<&str> = case.context.iter().map(String::as_str).chain(shown).collect();
            evidence.sort_unstable();
            evidence.dedup();
            for (place, arm) in arms.iter().enumerate() {
                let reply = &arm.replies[at];
                let abstained = says_that_it_does_not_know(reply, abstain);
                let answered = Answered { case, reply, evidence: &evidence, abstained };
                for (metric, scores) in metrics.iter().zip(&mut scores) {
                    scores[place].0.push(metric.score(&answered));
                }
            }
        }
        Self {
            names: metrics.iter().map(|metric| metric.name()).collect(),
            details: metrics.iter().map(|metric| metric.is_detail()).collect(),
            scores,
        }
    }

    /// The metric that decides, by its place.
    fn primary(&self, wanted: Option<&str>) -> Result<usize, Error> {
        let measured = |at: &usize| self.scores[*at].iter().all(|scores| scores.count() > 0) && !self.scores[*at].is_empty();
        let place = |name: &str| self.names.iter().position(|known| known == name).filter(measured);
        match wanted {
            Some(name) => place(name).ok_or_else(|| Error::Metric {
                name: name.to_owned(),
                known: (0..self.names.len()).filter(measured).map(|at| self.names[at].clone()).collect(),
            }),
            None => PRIMARY
                .iter()
                .find_map(|name| place(name))
                .ok_or_else(|| Error::Metric { name: "any metric".to_owned(), known: Vec::new() }),
        }
    }

    fn pairs(&self, arms: &[ArmRun], primary: usize, resamples: &Resamples) -> Vec<PairReport> {
        let mut pairs = Vec::new();
        for a in 0..arms.len() {
            for b in a + 1..arms.len() {
                let mut metrics = BTreeMap::new();
                for at in (0..self.names.len()).filter(|at| !self.details[*at]) {
                    if let Some(difference) = resamples.difference(&self.scores[at][a], &self.scores[at][b]) {
                        metrics.insert(self.names[at].clone(), difference);
                    }
                }
                let test = self.test(primary, a, b, resamples);
                pairs.push(PairReport {
                    a: arms[a].name.clone(),
                    b: arms[b].name.clone(),
                    worse_in: worse(&metrics, &self.names[primary], 1.0),
                    metrics,
                    test,
                    judge: None,
                });
            }
        }
        self.correct(arms, &mut pairs, primary);
        pairs
    }

    fn test(&self, primary: usize, a: usize, b: usize, resamples: &Resamples) -> PairTest {
        let (first, second) = (&self.scores[primary][a], &self.scores[primary][b]);
        let both: Vec<(f64, f64)> = (0..resamples.questions()).filter_map(|at| Some((first.of(at)?, second.of(at)?))).collect();
        let (x, y): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
        let discordant = Discordant::of(&x, &y);
        let independent = resamples.clusters() == resamples.questions();
        let (name, p) = if independent && first.is_binary() && second.is_binary() {
            ("mcnemar", mcnemar(discordant))
        } else {
            ("wilcoxon", wilcoxon(&resamples.cluster_differences(first, second)))
        };
        PairTest { name: name.to_owned(), p, p_corrected: None, discordant }
    }

    /// Holm's correction over the comparisons with the best untuned arm: the family that the verdict looks at.
    fn correct(&self, arms: &[ArmRun], pairs: &mut [PairReport], primary: usize) {
        let value = |at: usize| self.scores[primary][at].value().unwrap_or(0.0);
        let untuned = (0..arms.len()).filter(|at| !arms[*at].role.is_tuned());
        let Some(baseline) = untuned.max_by(|a, b| value(*a).total_cmp(&value(*b))) else { return };
        let name = &arms[baseline].name;
        let family: Vec<usize> = (0..pairs.len()).filter(|at| pairs[*at].a == *name || pairs[*at].b == *name).collect();
        let corrected = holm(&family.iter().map(|at| pairs[*at].test.p).collect::<Vec<_>>());
        family.into_iter().zip(corrected).for_each(|(at, p)| pairs[at].test.p_corrected = Some(p));
    }

    fn disagreements(&self, set: &CaseSet, arms: &[ArmRun], primary: usize) -> Vec<Disagreement> {
        let mut spread: Vec<(f64, usize)> = Vec::new();
        for at in 0..set.cases.len() {
            let values: Vec<f64> = self.scores[primary].iter().filter_map(|scores| scores.of(at)).collect();
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
            if high > low {
                spread.push((high - low, at));
            }
        }
        spread.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let row = |at: usize| {
            let case = &set.cases[at];
            let reference = case.label.clone().or_else(|| case.answer.clone()).unwrap_or_else(|| case.must_contain.join(", "));
            let answer = |(place, arm): (usize, &ArmRun)| {
                let reply = &arm.replies[at];
                let text = reply.error.as_ref().map_or_else(|| short(&reply.text), |error| format!("(failed: {})", short(error)));
                (arm.name.clone(), (self.scores[primary][place].of(at), text))
            };
            Disagreement {
                id: case.id.clone(),
                question: short(&case.question),
                reference: short(&reference),
                answers: arms.iter().enumerate().map(answer).collect(),
            }
        };
        spread.into_iter().take(MOST_DISAGREEMENTS).map(|(_, at)| row(at)).collect()
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Metrics but the deciding one in which the first (`sign` 1) or the second (-1) is clearly worse: below zero with its interval, and by Holm's correction over the metrics.
fn worse(metrics: &BTreeMap<String, Difference>, primary: &str, sign: f64) -> Vec<String> {
    let guards: Vec<(&String, &Difference)> = metrics.iter().filter(|(name, _)| *name != primary).collect();
    let corrected = holm(&guards.iter().map(|(_, difference)| difference.p).collect::<Vec<_>>());
    let below = |difference: &Difference| if sign > 0.0 { difference.estimate.high < 0.0 } else { difference.estimate.low > 0.0 };
    guards
        .into_iter()
        .zip(corrected)
        .filter(|((_, difference), p)| below(difference) && *p <= 0.05)
        .map(|((name, _), _)| name.clone())
        .collect()
}

fn arm_report(at: usize, arm: &ArmRun, table: &Table, resamples: &Resamples, settings: &DecideSettings) -> ArmReport {
    let all: Vec<&Reply> = arm.replies.iter().collect();
    let one = |of: &dyn Fn(&Reply) -> Option<String>| {
        let mut found: Vec<String> = arm.replies.iter().filter_map(of).collect();
        found.sort_unstable();
        found.dedup();
        if found.len() == 1 { found.pop() } else { None }
    };
    let mut metrics = BTreeMap::new();
    for (name, scores) in table.names.iter().zip(&table.scores) {
        if let Some(estimate) = resamples.estimate(&scores[at]) {
            metrics.insert(name.clone(), Value { estimate, of: scores[at].count() });
        }
    }
    let cost = settings.prices.of(&arm.name, &arm.model).map(|price| {
        let answered: Vec<&&Reply> = all.iter().filter(|reply| reply.error.is_none()).collect();
        let total: f64 = answered.iter().map(|reply| price.of(reply, settings.parallel)).sum();
        Cost { per_1000: 1000.0 * total / answered.len().max(1) as f64, fixed: price.fixed }
    });
    ArmReport {
        name: arm.name.clone(),
        model: arm.model.clone(),
        role: arm.role,
        answered_by: one(&|reply| reply.model.clone()),
        prompt_fingerprint: one(&|reply| reply.prompt_fingerprint.clone()),
        errors: all.iter().filter(|reply| reply.error.is_some()).count(),
        abstained: all.iter().filter(|reply| says_that_it_does_not_know(reply, &settings.abstain)).count(),
        metrics,
        latency: Latency::of(&all),
        tokens: Tokens::of(&all),
        cost,
    }
}

fn measured(arm: &ArmRun, report: &ArmReport, primary: &str) -> Measured {
    let nothing = Estimate { value: 0.0, low: 0.0, high: 1.0 };
    Measured {
        name: arm.name.clone(),
        role: arm.role,
        primary: report.metrics.get(primary).map_or(nothing, |value| value.estimate),
        errors: report.errors as f64 / arm.replies.len().max(1) as f64,
        cost: report.cost.map(|cost| cost.per_1000),
        latency: report.latency.p50_ms,
    }
}

/// Each pair in both directions.
fn standings(arms: &[ArmRun], pairs: &[PairReport], primary: &str) -> Vec<Standing> {
    let place = |name: &str| arms.iter().position(|arm| arm.name == name);
    let mut found = Vec::new();
    for pair in pairs {
        let (Some(a), Some(b), Some(difference)) = (place(&pair.a), place(&pair.b), pair.metrics.get(primary)) else { continue };
        let p = pair.test.p_corrected.unwrap_or(pair.test.p);
        let Estimate { value, low, high } = difference.estimate;
        found.push(Standing { a, b, difference: difference.estimate, p, worse_in: pair.worse_in.clone() });
        found.push(Standing {
            a: b,
            b: a,
            difference: Estimate { value: -value, low: -high, high: -low },
            p,
            worse_in: worse(&pair.metrics, primary, -1.0),
        });
    }
    found
}

fn break_even(arms: &[ArmReport], baseline: Option<&str>) -> Vec<BreakEven> {
    let Some(base) = arms.iter().find(|arm| Some(arm.name.as_str()) == baseline) else { return Vec::new() };
    let Some(base_cost) = base.cost else { return Vec::new() };
    let tuned = arms.iter().filter(|arm| arm.role.is_tuned()).filter_map(|arm| Some((arm, arm.cost?)));
    let one = |(arm, cost): (&ArmReport, Cost)| {
        let (saving, fixed) = (base_cost.per_1000 - cost.per_1000, (cost.fixed - base_cost.fixed).max(0.0));
        BreakEven {
            arm: arm.name.clone(),
            baseline: base.name.clone(),
            saving_per_1000: saving,
            fixed,
            answers: (saving > 0.0).then(|| 1000.0 * fixed / saving),
        }
    };
    tuned.map(one).collect()
}
