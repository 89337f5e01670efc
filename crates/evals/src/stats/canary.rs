//! A test that may be looked at after every observation: stop a canary that is worse, let one pass that is not.
//!
//! For each signal two bets are held against fair prices: one that the canary does more harm than allowed, one that it does not. Each is a product of `1 + stake * payoff`, where
//! the stake is chosen before the payoff is seen and the payoff's mean is at most 0 under the hypothesis that is bet against; so the wealth is a non-negative supermartingale, and
//! the chance that it *ever* reaches `1 / alpha` is at most `alpha` (Ville 1939). Testing by betting: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
//! betting", JRSS B 86 (2024), whose approximate GRAPA stakes are used. Peeking costs nothing: the sample size is not fixed and need not be known.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A stake never risks more than this share of what could be lost at once.
const CAUTION: f64 = 0.5;

/// What is watched. Every observation is a harm between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// A customer's thumb down is 1, up is 0.
    Feedback,
    /// An abstention is 1.
    Abstention,
    /// An answer with an unsupported or unresolved citation is 1.
    CitationFailure,
    /// A request that failed is 1.
    Error,
    /// Slowness: [`Signal::slowness`] of the answer's time.
    Latency,
}

impl Signal {
    /// Harm of an answer that took `milliseconds` where `limit` is as bad as it gets: their ratio, at most 1.
    pub fn slowness(milliseconds: f64, limit: f64) -> f64 {
        if limit > 0.0 { (milliseconds / limit).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The release that is being replaced.
    Baseline,
    /// The new one.
    Canary,
}

/// What is tolerated of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SignalRule {
    /// Which.
    pub signal: Signal,
    /// The canary's mean harm may be so much above the baseline's: 0.02 is two answers of a hundred. Above 0, or a canary that is just as good could never pass.
    pub margin: f64,
    /// Whether the canary must be shown to be no worse in this before it passes. Rare signals (feedback) only stop it.
    pub required: bool,
}

/// What a test is held to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanarySettings {
    /// The chance that a canary that is within all margins is ever stopped, and the chance that one beyond a required margin ever passes: each at most this.
    pub alpha: f64,
    /// What is watched.
    pub rules: Vec<SignalRule>,
}

impl Default for CanarySettings {
    /// 5 %; two answers of a hundred more for errors, five for citations, abstention and slowness, ten for bad ratings, which are too rare to wait for.
    fn default() -> Self {
        let rule = |signal, margin, required| SignalRule { signal, margin, required };
        Self {
            alpha: 0.05,
            rules: vec![
                rule(Signal::Error, 0.02, true),
                rule(Signal::CitationFailure, 0.05, true),
                rule(Signal::Abstention, 0.05, true),
                rule(Signal::Latency, 0.05, true),
                rule(Signal::Feedback, 0.1, false),
            ],
        }
    }
}

/// What to do now. `Stop` and `Pass` stay: nothing that comes later takes them back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Nothing is shown yet.
    Continue,
    /// The canary is worse than allowed: roll back.
    Stop {
        /// In what.
        signal: Signal,
        /// Always-valid p-value: 1 over the largest wealth so far, times the number of signals.
        p: f64,
    },
    /// It is shown to be within the margin of every required signal.
    Pass,
}

/// Wealth of one bet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Bet {
    /// Natural logarithm of the wealth.
    log_wealth: f64,
    /// Its largest so far.
    most: f64,
    count: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl Default for Bet {
    /// One pseudo-payoff of mean 0 and variance 1/4, so that the first stake is nothing and later ones are defined.
    fn default() -> Self {
        Self { log_wealth: 0.0, most: 0.0, count: 1.0, sum: 0.0, sum_of_squares: 0.25 }
    }
}

impl Bet {
    /// Bets on `payoff` with a stake that was decided by what came before; no payoff is below `-worst`.
    fn take(&mut self, payoff: f64, worst: f64) {
        let mean = self.sum / self.count;
        let variance = (self.sum_of_squares / self.count - mean * mean).max(1e-6);
        let stake = (mean / (variance + mean * mean)).clamp(0.0, CAUTION / worst);
        self.log_wealth += (stake * payoff).ln_1p();
        self.most = self.most.max(self.log_wealth);
        self.count += 1.0;
        self.sum += payoff;
        self.sum_of_squares += payoff * payoff;
    }
}

/// One signal: observations that wait for their counterpart, and two bets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Watched {
    /// Sum and number of observations since the last pair.
    waiting: [(f64, u64); 2],
    pairs: u64,
    worse: Bet,
    fine: Bet,
    /// Sum and number of all observations.
    seen: [(f64, u64); 2],
}

/// What is known of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Mean harm of the baseline.
    pub baseline: f64,
    /// Mean harm of the canary.
    pub canary: f64,
    /// Observations of the baseline.
    pub baseline_count: u64,
    /// Observations of the canary.
    pub canary_count: u64,
    /// Always-valid p-value against "within the margin", for this signal alone.
    pub p_worse: f64,
    /// Always-valid p-value against "beyond the margin".
    pub p_beyond: f64,
}

/// An always-valid comparison of a canary with its baseline. Its state can be stored (serde) and gone on with.
///
/// Who answers a question must not depend on the question's outcome: the router draws, the test watches. Traffic may be split unevenly: whenever both sides have something
/// new, the means of what is new are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryTest {
    settings: CanarySettings,
    watched: BTreeMap<Signal, Watched>,
    decision: Decision,
}

impl CanaryTest {
    /// Begins with nothing seen.
    pub fn new(settings: CanarySettings) -> Self {
        let watched = settings.rules.iter().map(|rule| (rule.signal, Watched::default())).collect();
        Self { settings, watched, decision: Decision::Continue }
    }

    /// What it is held to.
    pub fn settings(&self) -> &CanarySettings {
        &self.settings
    }

    /// One observation: `harm` between 0 and 1 (beyond it is cut, NaN counts as 1). Signals without a rule are left alone.
    pub fn observe(&mut self, side: Side, signal: Signal, harm: f64) -> Decision {
        let rule = self.settings.rules.iter().find(|rule| rule.signal == signal).copied();
        let (Some(rule), Some(watched)) = (rule, self.watched.get_mut(&signal)) else { return self.decision };
        let harm = if harm.is_nan() { 1.0 } else { harm.clamp(0.0, 1.0) };
        let at = usize::from(side == Side::Canary);
        for place in [&mut watched.waiting[at], &mut watched.seen[at]] {
            *place = (place.0 + harm, place.1 + 1);
        }
        let [(old, olds), (new, news)] = watched.waiting;
        if olds > 0 && news > 0 {
            watched.waiting = Default::default();
            watched.pairs += 1;
            let margin = rule.margin.clamp(0.0, 1.0);
            let beyond = new / news as f64 - old / olds as f64 - margin;
            watched.worse.take(beyond, 1.0 + margin);
            watched.fine.take(-beyond, 1.0 - margin);
            if self.decision == Decision::Continue {
                self.decision = self.decide();
            }
        }
        self.decision
    }

    /// What is to be done after everything that was seen.
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// What is known of each signal.
    pub fn standings(&self) -> BTreeMap<Signal, Standing> {
        let mean = |(sum, count): (f64, u64)| sum / count.max(1) as f64;
        let standing = |watched: &Watched| Standing {
            baseline: mean(watched.seen[0]),
            canary: mean(watched.seen[1]),
            baseline_count: watched.seen[0].1,
            canary_count: watched.seen[1].1,
            p_worse: (-watched.worse.most).exp().min(1.0),
            p_beyond: (-watched.fine.most).exp().min(1.0),
        };
        self.watched.iter().map(|(signal, watched)| (*signal, standing(watched))).collect()
    }

    fn decide(&self) -> Decision {
        let alpha = self.settings.alpha;
        let signals = self.settings.rules.len() as f64;
        let worst = self.watched.iter().max_by(|a, b| a.1.worse.most.total_cmp(&b.1.worse.most));
        if let Some((signal, watched)) = worst {
            // Any of them may stop it, so each has its share of alpha.
            let p = ((-watched.worse.most).exp() * signals).min(1.0);
            if p <= alpha {
                return Decision::Stop { signal: *signal, p };
            }
        }
        let mut required = self.settings.rules.iter().filter(|rule| rule.required).peekable();
        // All of them must pass, so none needs a share.
        let passed = |rule: &SignalRule| self.watched.get(&rule.signal).is_some_and(|watched| (-watched.fine.most).exp() <= alpha);
        if required.peek().is_some() && required.all(passed) { Decision::Pass } else { Decision::Continue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    /// Asks `most` questions, `share` of them answered by the canary, and looks after each; harms of both sides by signal. Gives the decision and when it fell.
    fn run(seed: u64, most: usize, share: f64, harms: &[(Signal, f64, f64)]) -> (Decision, usize) {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut test = CanaryTest::new(CanarySettings::default());
        for at in 0..most {
            let side = if random.random::<f64>() < share { Side::Canary } else { Side::Baseline };
            for (signal, baseline, canary) in harms {
                let chance = if side == Side::Canary { *canary } else { *baseline };
                let harm = match signal {
                    // A mean of `chance` out of a spread of times.
                    Signal::Latency => chance * 2.0 * random.random::<f64>(),
                    _ => f64::from(u8::from(random.random::<f64>() < chance)),
                };
                let decision = test.observe(side, *signal, harm);
                if decision != Decision::Continue {
                    return (decision, at + 1);
                }
            }
        }
        (Decision::Continue, most)
    }

    const NORMAL: [(Signal, f64, f64); 5] = [
        (Signal::Error, 0.01, 0.01),
        (Signal::CitationFailure, 0.1, 0.1),
        (Signal::Abstention, 0.15, 0.15),
        (Signal::Latency, 0.3, 0.3),
        (Signal::Feedback, 0.2, 0.2),
    ];

    fn with(signal: Signal, canary: f64) -> [(Signal, f64, f64); 5] {
        NORMAL.map(|(name, baseline, same)| (name, baseline, if name == signal { canary } else { same }))
    }

    #[test]
    fn a_canary_that_is_the_same_is_not_stopped_however_often_one_looks() {
        for share in [0.5, 0.1] {
            let stopped = (0..1_000).filter(|seed| matches!(run(*seed, 1_500, share, &NORMAL).0, Decision::Stop { .. })).count();
            assert!(stopped <= 50, "{stopped} of 1000 at a share of {share}");
        }
    }

    #[test]
    fn a_canary_at_the_edge_of_what_is_allowed_is_stopped_or_passed_rarely() {
        // Exactly on the margin of every signal: both hypotheses at their hardest.
        let edge = NORMAL.map(|(signal, baseline, _)| {
            let margin = CanarySettings::default().rules.iter().find(|rule| rule.signal == signal).unwrap().margin;
            (signal, baseline, baseline + margin)
        });
        let outcomes: Vec<Decision> = (0..400).map(|seed| run(seed, 2_000, 0.5, &edge).0).collect();
        let stopped = outcomes.iter().filter(|decision| matches!(decision, Decision::Stop { .. })).count();
        let passed = outcomes.iter().filter(|decision| **decision == Decision::Pass).count();
        assert!(stopped <= 20 && passed <= 20, "{stopped} stopped, {passed} passed of 400");
    }

    #[test]
    fn a_planted_regression_is_stopped_by_its_signal() {
        for (signal, canary, most) in [
            (Signal::Error, 0.15, 1_000),
            (Signal::CitationFailure, 0.35, 1_000),
            (Signal::Abstention, 0.4, 1_000),
            (Signal::Latency, 0.6, 1_000),
            (Signal::Feedback, 0.6, 1_000),
        ] {
            let mut when = Vec::new();
            for seed in 0..100 {
                if let (Decision::Stop { signal: found, p }, at) = run(seed, most, 0.5, &with(signal, canary)) {
                    assert!(p <= 0.05);
                    when.extend((found == signal).then_some(at));
                }
            }
            assert!(when.len() >= 95, "{signal:?}: {} of 100", when.len());
        }
    }

    #[test]
    fn a_canary_beyond_a_margin_passes_rarely_and_a_good_one_often() {
        let regressed = with(Signal::CitationFailure, 0.16);
        let passed = (0..400).filter(|seed| run(*seed, 3_000, 0.5, &regressed).0 == Decision::Pass).count();
        assert!(passed <= 20, "{passed} of 400 passed although they are worse than allowed");
        let better = NORMAL.map(|(signal, baseline, _)| (signal, baseline, baseline * 0.6));
        let passed = (0..100).filter(|seed| run(*seed, 6_000, 0.5, &better).0 == Decision::Pass).count();
        assert!(passed >= 80, "{passed} of 100");
    }

    #[test]
    fn a_test_goes_on_where_it_was_stored_and_a_decision_stays() {
        let mut test = CanaryTest::new(CanarySettings::default());
        for at in 0..40 {
            test.observe(if at % 2 == 0 { Side::Baseline } else { Side::Canary }, Signal::Error, f64::from(at % 2));
        }
        let stopped = test.decision();
        assert!(matches!(stopped, Decision::Stop { signal: Signal::Error, .. }), "{stopped:?}");
        let mut again: CanaryTest = serde_json::from_str(&serde_json::to_string(&test).unwrap()).unwrap();
        assert_eq!(again, test);
        (0..500).for_each(|at| {
            again.observe(if at % 2 == 0 { Side::Baseline } else { Side::Canary }, Signal::Error, 0.0);
        });
        assert_eq!(again.decision(), stopped);
        let standing = again.standings()[&Signal::Error];
        assert!(standing.canary > standing.baseline && standing.p_worse < 0.01 && standing.canary_count == 270, "{standing:?}");
        assert_eq!(again.observe(Side::Canary, Signal::Error, f64::NAN), stopped);
    }
}
