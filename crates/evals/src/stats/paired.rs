//! Tests of paired outcomes, and their correction where several arms are compared.

use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

/// The largest number of differences for which Wilcoxon's exact distribution is computed.
const MOST_EXACT: usize = 50;

/// Questions on which two arms differ: only these tell them apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Discordant {
    /// The first arm is right, the second wrong.
    pub first_only: u64,
    /// The other way around.
    pub second_only: u64,
}

impl Discordant {
    /// Counts pairs of right (1) and wrong (0).
    pub fn of(first: &[f64], second: &[f64]) -> Self {
        let mut found = Self::default();
        for (a, b) in first.iter().zip(second) {
            found.first_only += u64::from(a > b);
            found.second_only += u64::from(a < b);
        }
        found
    }
}

/// McNemar's exact test, two-sided: the probability of so uneven a split, or a more uneven one, of the discordant pairs if each were a fair coin (McNemar 1947; the exact
/// binomial form). 1 where no pair is discordant.
pub fn mcnemar(pairs: Discordant) -> f64 {
    let (least, all) = (pairs.first_only.min(pairs.second_only), pairs.first_only + pairs.second_only);
    match Binomial::new(0.5, all) {
        Ok(coin) if all > 0 => (2.0 * coin.cdf(least)).min(1.0),
        _ => 1.0,
    }
}

/// Wilcoxon's signed rank test of differences around 0, two-sided (Wilcoxon 1945). Zero differences are left out. Exact for up to 50 differences without ties, else
/// the normal approximation with its variance corrected for ties and no continuity correction, as SciPy has it. 1 where every difference is zero.
pub fn wilcoxon(differences: &[f64]) -> f64 {
    let mut values: Vec<f64> = differences.iter().copied().filter(|value| *value != 0.0 && value.is_finite()).collect();
    values.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let count = values.len();
    if count == 0 {
        return 1.0;
    }
    let (mut positive, mut ties, mut at) = (0.0, 0.0, 0);
    while at < count {
        let end = at + values[at..].iter().take_while(|value| value.abs() == values[at].abs()).count();
        let rank = (at + 1 + end) as f64 / 2.0;
        positive += rank * values[at..end].iter().filter(|value| **value > 0.0).count() as f64;
        let tied = (end - at) as f64;
        ties += tied * tied * tied - tied;
        at = end;
    }
    let n = count as f64;
    let total = n * (n + 1.0) / 2.0;
    let least = positive.min(total - positive);
    if ties == 0.0 && count <= MOST_EXACT {
        return exact(count, least);
    }
    let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
    let z = (least - total / 2.0) / variance.sqrt();
    (2.0 * Normal::standard().cdf(z)).min(1.0)
}

/// Twice the share of the sign patterns whose positive ranks add up to at most `least`.
fn exact(count: usize, least: f64) -> f64 {
    let most = count * (count + 1) / 2;
    let mut ways = vec![0.0f64; most + 1];
    ways[0] = 1.0;
    for rank in 1..=count {
        for sum in (rank..=most).rev() {
            ways[sum] = (ways[sum] + ways[sum - rank]) / 2.0;
        }
        ways[..rank].iter_mut().for_each(|way| *way /= 2.0);
    }
    (2.0 * ways[..=(least as usize).min(most)].iter().sum::<f64>()).min(1.0)
}

/// Holm's step-down correction (Holm 1979): p-values adjusted so that the chance of even one false rejection among them is at most the level that they are held against.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut adjusted, mut least) = (vec![1.0; p.len()], 0.0f64);
    for (place, at) in order.into_iter().enumerate() {
        least = least.max(p[at] * (p.len() - place) as f64).min(1.0);
        adjusted[at] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn mcnemar_is_scipys_binomtest() {
        // scipy.stats.binomtest(min(b, c), b + c, 0.5).pvalue, SciPy 1.17.1.
        for (b, c, p) in [
            (10, 2, 0.038_574_218_75),
            (5, 5, 1.0),
            (0, 6, 0.031_25),
            (1, 0, 1.0),
            (30, 12, 0.007_915_897_334_896_727),
            (120, 88, 0.031_349_945_674_034_1),
            (0, 0, 1.0),
        ] {
            let found = mcnemar(Discordant { first_only: b, second_only: c });
            assert!(close(found, p), "{b} {c}: {found}");
        }
        assert_eq!(Discordant::of(&[1.0, 0.0, 1.0, 0.0], &[0.0, 1.0, 1.0, 0.0]), Discordant { first_only: 1, second_only: 1 });
    }

    #[test]
    fn wilcoxon_is_scipys() {
        // scipy.stats.wilcoxon, SciPy 1.17.1: method="exact"; then method="approx", correction=False with ties and zeros; then 60 values.
        let exact = [1.1, -0.5, 2.3, 0.7, -1.9, 3.1, 0.2, -0.3, 1.6, 2.8];
        assert!(close(wilcoxon(&exact), 0.130_859_375), "{}", wilcoxon(&exact));
        let tied = [1.0, -1.0, 2.0, 2.0, 0.0, 3.0, -1.0, 1.0, 1.0, -2.0, 0.0, 2.0, 3.0, 1.0, 1.0];
        assert!(close(wilcoxon(&tied), 0.045_706_960_518_466_22), "{}", wilcoxon(&tied));
        let many: Vec<f64> = (0..60).map(|at| (((f64::from(at) * 1.7).sin() + 0.15) * 1000.0).round() / 1000.0).collect();
        assert!((wilcoxon(&many) - 0.084_958_152_084_530_63).abs() < 1e-9, "{}", wilcoxon(&many));
        assert_eq!(wilcoxon(&[0.0; 5]), 1.0);
    }

    #[test]
    fn holm_by_hand() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!(close(*found, expected), "{adjusted:?}");
        }
        assert!(holm(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn corrected_values_keep_the_order_and_are_never_smaller(p in proptest::collection::vec(0.0f64..=1.0, 1..12)) {
            let adjusted = holm(&p);
            for (a, b) in adjusted.iter().zip(&p) {
                prop_assert!(a >= b && *a <= 1.0);
            }
            for (i, a) in p.iter().enumerate() {
                for (j, b) in p.iter().enumerate() {
                    prop_assert!(a > b || adjusted[i] <= adjusted[j] || a == b);
                }
            }
        }

        #[test]
        fn turning_the_sides_around_changes_no_p(differences in proptest::collection::vec(-3i32..4, 1..70)) {
            let forward: Vec<f64> = differences.iter().map(|value| f64::from(*value)).collect();
            let backward: Vec<f64> = forward.iter().map(|value| -value).collect();
            let p = wilcoxon(&forward);
            prop_assert!((p - wilcoxon(&backward)).abs() < 1e-12 && (0.0..=1.0).contains(&p));
        }
    }
}
