//! How good a ranking is, by trec_eval's definitions. A ranking is a list of document ids without repetition, best first.

use std::collections::HashMap;

/// Gain of a document: its judged relevance, 0 where nobody judged it.
fn gain(judged: &HashMap<String, u32>, id: &str) -> f64 {
    judged.get(id).copied().map_or(0.0, f64::from)
}

/// What a gain counts at a place, from 0: divided by log2(place + 2).
fn discounted(at: usize, gain: f64) -> f64 {
    gain / (at as f64 + 2.0).log2()
}

/// trec_eval's `ndcg_cut`: the discounted gain of the first `k`, as a share of the best possible one (Järvelin and Kekäläinen, TOIS 2002, with linear gains). 0 to 1.
pub fn ndcg_at(ranking: &[&str], judged: &HashMap<String, u32>, k: usize) -> f64 {
    let mut ideal: Vec<f64> = judged.values().copied().map(f64::from).collect();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let best: f64 = ideal.into_iter().take(k).enumerate().map(|(at, gain)| discounted(at, gain)).sum();
    let found: f64 = ranking.iter().take(k).enumerate().map(|(at, id)| discounted(at, gain(judged, id))).sum();
    if best > 0.0 { found / best } else { 0.0 }
}

/// trec_eval's `recall`: share of the relevant documents that are among the first `k`. 0 to 1.
pub fn recall_at(ranking: &[&str], judged: &HashMap<String, u32>, k: usize) -> f64 {
    let relevant = judged.values().filter(|relevance| **relevance > 0).count();
    let found = ranking.iter().take(k).filter(|id| gain(judged, id) > 0.0).count();
    if relevant > 0 { found as f64 / relevant as f64 } else { 0.0 }
}

/// trec_eval's `recip_rank`, cut at `k`: 1 / place of the first relevant document, 0 where it is not among the first `k`.
pub fn mrr_at(ranking: &[&str], judged: &HashMap<String, u32>, k: usize) -> f64 {
    ranking.iter().take(k).position(|id| gain(judged, id) > 0.0).map_or(0.0, |at| 1.0 / (at + 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(pairs: &[(&str, u32)]) -> HashMap<String, u32> {
        pairs.iter().map(|(id, relevance)| ((*id).to_owned(), *relevance)).collect()
    }

    #[test]
    fn hand_computed() {
        let judged = judged(&[("a", 3), ("b", 2), ("c", 1), ("n", 0)]);
        let log = |n: f64| n.log2();
        // Found: b at 1, nothing at 2, a at 3. Ideal: 3, 2, 1.
        let ideal = 3.0 + 2.0 / log(3.0) + 1.0 / log(4.0);
        assert!((ndcg_at(&["b", "x", "a", "n"], &judged, 10) - (2.0 + 3.0 / log(4.0)) / ideal).abs() < 1e-12);
        assert!((ndcg_at(&["b", "x", "a"], &judged, 2) - 2.0 / (3.0 + 2.0 / log(3.0))).abs() < 1e-12);
        assert_eq!(ndcg_at(&["a", "b", "c"], &judged, 10), 1.0);
        assert_eq!(ndcg_at(&["n", "x"], &judged, 10), 0.0);
        assert_eq!(recall_at(&["b", "x", "a"], &judged, 20), 2.0 / 3.0);
        assert_eq!(recall_at(&["b", "x", "a"], &judged, 2), 1.0 / 3.0);
        assert_eq!(mrr_at(&["n", "x", "c"], &judged, 10), 1.0 / 3.0);
        assert_eq!(mrr_at(&["n", "x", "c"], &judged, 2), 0.0);
    }

    proptest! {
        #[test]
        fn every_metric_is_a_share_and_the_best_ranking_has_all(relevances in proptest::collection::vec(0u32..4, 1..15), shift in 0usize..15, k in 1usize..12) {
            let ids: Vec<String> = (0..relevances.len()).map(|at| format!("d{at}")).collect();
            let judged: HashMap<String, u32> = ids.iter().cloned().zip(relevances.iter().copied()).collect();
            let mut ranking: Vec<&str> = ids.iter().map(String::as_str).collect();
            ranking.rotate_left(shift % ids.len());
            for value in [ndcg_at(&ranking, &judged, k), recall_at(&ranking, &judged, k), mrr_at(&ranking, &judged, k)] {
                prop_assert!((0.0..=1.0).contains(&value));
            }
            ranking.sort_by_key(|id| std::cmp::Reverse(judged[*id]));
            if relevances.iter().any(|relevance| *relevance > 0) {
                prop_assert!((ndcg_at(&ranking, &judged, k) - 1.0).abs() < 1e-12);
                prop_assert_eq!(mrr_at(&ranking, &judged, k), 1.0);
            }
        }
    }
}
