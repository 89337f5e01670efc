//! How much of a difference is chance: the bootstrap over questions (Efron and Tibshirani, 1993), with the percentile interval.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

/// Share of the resamples between `low` and `high`.
const CONFIDENCE: f64 = 0.95;

/// A mean over questions and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How much one list of values is above another, question by question.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean of the differences and its 95 % interval.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Two-sided: twice the share of resamples on the other side of zero, counting one more than there were, so that it is never 0.
    pub p: f64,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The value below which this share of the sorted values lies, by linear interpolation.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len().max(1) - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    match (sorted.get(below), sorted.get(below + 1)) {
        (Some(low), Some(high)) => low + part * (high - low),
        (Some(last), None) => *last,
        _ => 0.0,
    }
}

/// The means of `resamples` draws with replacement, of several lists of values at once: the same questions are drawn for all of them. All lists have the same length.
pub fn resampled_means(lists: &[&[f64]], resamples: usize, seed: u64) -> Vec<Vec<f64>> {
    let count = lists.first().map_or(0, |list| list.len());
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut means = vec![Vec::with_capacity(resamples); lists.len()];
    let mut drawn = vec![0usize; count];
    for _ in 0..resamples {
        drawn.iter_mut().for_each(|place| *place = random.random_range(0..count));
        for (list, means) in lists.iter().zip(&mut means) {
            means.push(drawn.iter().map(|place| list[*place]).sum::<f64>() / count.max(1) as f64);
        }
    }
    means
}

fn interval(value: f64, mut resampled: Vec<f64>) -> Estimate {
    resampled.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Estimate { value, low: quantile(&resampled, tail), high: quantile(&resampled, 1.0 - tail) }
}

impl Estimate {
    /// Means of several lists of values, with intervals from the same draws.
    pub fn of(lists: &[&[f64]], resamples: usize, seed: u64) -> Vec<Self> {
        lists.iter().zip(resampled_means(lists, resamples, seed)).map(|(list, resampled)| interval(mean(list), resampled)).collect()
    }
}

/// How much the first list of each pair is above the second, question by question.
pub fn paired_differences(pairs: &[(&[f64], &[f64])], resamples: usize, seed: u64) -> Vec<Difference> {
    let differences: Vec<Vec<f64>> = pairs.iter().map(|(a, b)| a.iter().zip(*b).map(|(a, b)| a - b).collect()).collect();
    let lists: Vec<&[f64]> = differences.iter().map(Vec::as_slice).collect();
    let difference = |(list, resampled): (&&[f64], Vec<f64>)| {
        let below = resampled.iter().filter(|mean| **mean <= 0.0).count();
        let above = resampled.iter().filter(|mean| **mean >= 0.0).count();
        let p = (2.0 * (below.min(above) + 1) as f64 / (resampled.len() + 1) as f64).min(1.0);
        Difference { estimate: interval(mean(list), resampled), p }
    };
    lists.iter().zip(resampled_means(&lists, resamples, seed)).map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_as_wide_as_theory_says() {
        // 400 coin flips, 300 heads: standard error sqrt(.75 * .25 / 400) = .02165, 1.96 of them to each side.
        let flips: Vec<f64> = (0..400).map(|at| f64::from(u8::from(at % 4 != 0))).collect();
        let estimate = Estimate::of(&[&flips], 10_000, 7)[0];
        assert_eq!(estimate.value, 0.75);
        assert!((estimate.low - (0.75 - 0.0424)).abs() < 0.004 && (estimate.high - (0.75 + 0.0424)).abs() < 0.004, "{estimate:?}");
        assert_eq!(estimate, Estimate::of(&[&flips], 10_000, 7)[0], "the seed decides");
        assert_ne!(estimate, Estimate::of(&[&flips], 10_000, 8)[0]);
    }

    #[test]
    fn a_difference_is_seen_where_there_is_one() {
        let base: Vec<f64> = (0..300).map(|at| f64::from(at * 37 % 100) / 100.0).collect();
        let better: Vec<f64> = base.iter().enumerate().map(|(at, value)| value + if at % 3 == 0 { 0.1 } else { -0.02 }).collect();
        let noise: Vec<f64> = base.iter().enumerate().map(|(at, value)| value + if at % 2 == 0 { 0.05 } else { -0.05 }).collect();
        let [seen, unseen, none] = paired_differences(&[(&better, &base), (&noise, &base), (&base, &base)], 10_000, 1).try_into().unwrap();
        assert!((seen.estimate.value - 0.02).abs() < 1e-9 && seen.estimate.low > 0.0 && seen.p < 0.001, "{seen:?}");
        assert!(unseen.estimate.low < 0.0 && unseen.estimate.high > 0.0 && unseen.p > 0.5, "{unseen:?}");
        assert_eq!((none.estimate.value, none.p), (0.0, 1.0));
        assert!(seen.p >= 1.0 / 10_001.0, "never 0");
    }
}
