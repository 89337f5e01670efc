//! Which group goes into which part: a pure decision.

use crate::random::mix;
use std::collections::BTreeMap;

/// Rows that stay together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// How many.
    pub(super) rows: usize,
    /// How many of each stratum.
    pub(super) strata: BTreeMap<usize, usize>,
}

/// The part of each group. The largest groups choose first, while every part has room; a group goes where its strata are missed most (iterative stratification,
/// Sechidis, Tsoumakas and Vlahavas, ECML 2011, for groups). The seed decides between equals.
pub(super) fn assign(groups: &[Group], shares: &[f64], seed: u64) -> Vec<usize> {
    let rows: usize = groups.iter().map(|group| group.rows).sum();
    let mut totals: BTreeMap<usize, usize> = BTreeMap::new();
    for group in groups {
        group.strata.iter().for_each(|(stratum, count)| *totals.entry(*stratum).or_default() += count);
    }
    let room: Vec<f64> = shares.iter().map(|share| share * rows as f64).collect();
    let mut taken = vec![0f64; shares.len()];
    let mut held: Vec<BTreeMap<usize, usize>> = vec![BTreeMap::new(); shares.len()];
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(groups[at].rows), mix(mix(seed) ^ at as u64)));
    let mut part_of = vec![0; groups.len()];
    for at in order {
        let group = &groups[at];
        let left = |part: usize| room[part] - taken[part];
        let need = |part: usize| {
            let missed = group.strata.iter().map(|(stratum, count)| {
                let wanted = shares[part] * totals[stratum] as f64;
                let has = held[part].get(stratum).copied().unwrap_or_default() as f64;
                *count as f64 * (wanted - has) / wanted.max(f64::MIN_POSITIVE)
            });
            missed.sum::<f64>() / group.rows as f64
        };
        let fits: Vec<usize> = (0..shares.len()).filter(|&part| left(part) + 0.5 >= group.rows as f64).collect();
        let better = |a: &usize, b: &usize, by: &dyn Fn(usize) -> f64| by(*a).total_cmp(&by(*b)).then(left(*a).total_cmp(&left(*b)));
        let best = match fits.is_empty() {
            true => (0..shares.len()).max_by(|a, b| better(a, b, &left)),
            false => fits.into_iter().max_by(|a, b| better(a, b, &need)),
        };
        let part = best.unwrap_or_default();
        taken[part] += group.rows as f64;
        group.strata.iter().for_each(|(stratum, count)| *held[part].entry(*stratum).or_default() += count);
        part_of[at] = part;
    }
    part_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn groups(sizes: &[(usize, usize)]) -> Vec<Group> {
        sizes.iter().map(|&(rows, stratum)| Group { rows, strata: BTreeMap::from([(stratum, rows)]) }).collect()
    }

    #[test]
    fn every_stratum_is_in_every_part() {
        let parts = assign(&groups(&[(1, 0), (1, 1)].repeat(50)), &[0.8, 0.1, 0.1], 7);
        for stratum in 0..2 {
            let count = |part| (0..100).filter(|&at| at % 2 == stratum && parts[at] == part).count();
            assert_eq!((count(0), count(1), count(2)), (40, 5, 5));
        }
    }

    #[test]
    fn a_group_that_is_too_large_for_a_small_part_goes_into_the_large_one() {
        let parts = assign(&groups(&[(60, 0), (10, 0), (10, 0), (10, 0), (10, 0)]), &[0.8, 0.1, 0.1], 1);
        assert_eq!(parts[0], 0);
        let rows = |part| parts.iter().zip([60, 10, 10, 10, 10]).filter(|(at, _)| **at == part).map(|(_, rows)| rows).sum::<usize>();
        assert_eq!((rows(0), rows(1), rows(2)), (80, 10, 10));
    }

    proptest! {
        #[test]
        fn shares_are_kept_within_the_largest_group(sizes in proptest::collection::vec((1usize..12, 0usize..4), 20..120), seed in any::<u64>()) {
            let groups = groups(&sizes);
            let shares = [0.7, 0.2, 0.1];
            let parts = assign(&groups, &shares, seed);
            prop_assert_eq!(&parts, &assign(&groups, &shares, seed));
            let rows: usize = sizes.iter().map(|(rows, _)| rows).sum();
            let largest = sizes.iter().map(|(rows, _)| *rows).max().unwrap();
            for (part, share) in shares.iter().enumerate() {
                let got: usize = parts.iter().zip(&sizes).filter(|(at, _)| **at == part).map(|(_, (rows, _))| rows).sum();
                prop_assert!((got as f64 - share * rows as f64).abs() <= largest as f64 + 0.5, "{} of {}", got, rows);
            }
        }
    }
}
