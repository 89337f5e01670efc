//! Two rankings to one. Pure.

use crate::{ArmScore, Arms, Explained};
use groundtone_types::Snippet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// RRF's constant where nobody sets another. The paper's is 60: with 2 the first places of an arm count for more, which found the right document a little more often
/// on XQuAD and SciFact (docs/decisions/0008-fusion.md).
pub const RRF_K: u32 = 2;

/// How the two arms become one ranking.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// Reciprocal rank fusion: the sum over the arms of 1 / (k + rank), rank from 0 (Cormack et al., SIGIR 2009). Needs no scale.
    Rrf {
        /// The larger, the less the first places count.
        k: u32,
    },
    /// The weighted sum of the arms' scores, each scaled to 0 (its last candidate) to 1 (its first). A hit that an arm does not have counts 0 there.
    Weighted {
        /// Weight of the dense arm, 0 to 1; BM25 has the rest.
        dense: f32,
    },
}

impl Default for Fusion {
    fn default() -> Self {
        Self::Rrf { k: RRF_K }
    }
}

/// Puts hits in the promised order: best first, equal scores by id.
pub(crate) fn sort(hits: &mut [Explained]) {
    hits.sort_by(|a, b| b.snippet.score.total_cmp(&a.snippet.score).then(a.snippet.id.cmp(&b.snippet.id)));
}

/// What one place of an arm's ranking is worth.
fn worth(fusion: Fusion, is_dense: bool, arm: &[Snippet], rank: usize, score: f32) -> f32 {
    match fusion {
        Fusion::Rrf { k } => 1.0 / (rank as f32 + k as f32),
        Fusion::Weighted { dense } => {
            let weight = if is_dense { dense } else { 1.0 - dense };
            let (most, least) = (arm.first().map_or(0.0, |hit| hit.score), arm.last().map_or(0.0, |hit| hit.score));
            let spread = most - least;
            weight * if spread > 0.0 { (score - least) / spread } else { 1.0 }
        }
    }
}

/// Fuses the rankings of both arms, each best first; a hit has the sum of what it is worth in either. An arm that did not search is empty.
///
/// With one arm only, its own score stays: there is nothing to fuse.
pub fn fuse(fusion: Fusion, dense: Vec<Snippet>, bm25: Vec<Snippet>) -> Vec<Explained> {
    let alone = dense.is_empty() || bm25.is_empty();
    let mut fused: BTreeMap<Uuid, Explained> = BTreeMap::new();
    for (is_dense, arm) in [(true, dense), (false, bm25)] {
        let worths: Vec<f32> = arm.iter().enumerate().map(|(rank, hit)| worth(fusion, is_dense, &arm, rank, hit.score)).collect();
        for (rank, (hit, worth)) in arm.into_iter().zip(worths).enumerate() {
            let own = ArmScore { rank: rank + 1, score: hit.score };
            let entry = fused.entry(hit.id).or_insert_with(|| Explained { snippet: Snippet { score: 0.0, ..hit }, arms: Arms::default() });
            entry.snippet.score = if alone { own.score } else { entry.snippet.score + worth };
            let arm = if is_dense { &mut entry.arms.dense } else { &mut entry.arms.bm25 };
            *arm = Some(own);
        }
    }
    let mut hits: Vec<Explained> = fused.into_values().collect();
    sort(&mut hits);
    hits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hit;
    use proptest::prelude::*;

    fn ranking(names: &[(&str, f32)]) -> Vec<Snippet> {
        names.iter().map(|(name, score)| Snippet { score: *score, ..hit(name, 0, name).snippet }).collect()
    }

    fn order(hits: &[Explained]) -> Vec<&str> {
        hits.iter().map(|hit| hit.snippet.chunk.document.as_str()).collect()
    }

    #[test]
    fn reciprocal_ranks_add_up() {
        let hits = fuse(Fusion::default(), ranking(&[("a", 0.9), ("b", 0.8)]), ranking(&[("b", 7.0), ("c", 3.0)]));
        assert_eq!(order(&hits), ["b", "a", "c"]);
        let scores: Vec<f32> = hits.iter().map(|hit| hit.snippet.score).collect();
        assert_eq!(scores, [1.0 / 3.0 + 0.5, 0.5, 1.0 / 3.0]);
        assert_eq!(
            (hits[0].arms.dense, hits[0].arms.bm25),
            (Some(ArmScore { rank: 2, score: 0.8 }), Some(ArmScore { rank: 1, score: 7.0 }))
        );
        assert_eq!(hits[1].arms.bm25, None);
    }

    #[test]
    fn weighted_scores_are_scaled_first() {
        let (dense, bm25) = (ranking(&[("a", 0.9), ("b", 0.6), ("c", 0.5)]), ranking(&[("c", 9.0), ("b", 8.0), ("d", 1.0)]));
        let hits = fuse(Fusion::Weighted { dense: 0.5 }, dense.clone(), bm25.clone());
        assert_eq!(order(&hits), ["b", order(&hits)[1], order(&hits)[2], "d"]);
        assert!((hits[0].snippet.score - (0.125 + 0.4375)).abs() < 1e-6, "{}", hits[0].snippet.score);
        assert_eq!(order(&fuse(Fusion::Weighted { dense: 1.0 }, dense.clone(), bm25.clone()))[0], "a");
        assert_eq!(order(&fuse(Fusion::Weighted { dense: 0.0 }, dense, bm25))[0], "c");
    }

    #[test]
    fn one_arm_keeps_its_scores() {
        let hits = fuse(Fusion::default(), Vec::new(), ranking(&[("a", 9.0), ("b", 2.0)]));
        assert_eq!(hits.iter().map(|hit| hit.snippet.score).collect::<Vec<_>>(), [9.0, 2.0]);
    }

    proptest! {
        #[test]
        fn fusing_loses_nothing_and_has_one_order(dense in proptest::collection::btree_set(0u32..30, 0..12), bm25 in proptest::collection::btree_set(0u32..30, 0..12), weighted: bool) {
            let arm = |names: &std::collections::BTreeSet<u32>, scale: f32| -> Vec<Snippet> {
                names.iter().rev().enumerate().map(|(at, name)| Snippet { score: scale / (1.0 + at as f32), ..hit(&format!("d{name}"), 0, "t").snippet }).collect()
            };
            let fusion = if weighted { Fusion::Weighted { dense: 0.4 } } else { Fusion::default() };
            let hits = fuse(fusion, arm(&dense, 1.0), arm(&bm25, 20.0));
            prop_assert_eq!(hits.len(), dense.union(&bm25).count());
            prop_assert!(hits.windows(2).all(|pair| pair[0].snippet.score > pair[1].snippet.score || (pair[0].snippet.score == pair[1].snippet.score && pair[0].snippet.id < pair[1].snippet.id)));
            prop_assert_eq!(&hits, &fuse(fusion, arm(&dense, 1.0), arm(&bm25, 20.0)));
        }
    }
}
