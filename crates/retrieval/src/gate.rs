//! Whether what was found is worth an answer, before any model is asked. Pure.
//!
//! A logistic function of four features of the hits says how likely the question can be answered from them; `groundtone eval calibrate` fits it on labelled questions.

use crate::Explained;
use crate::words::coverage;
use serde::{Deserialize, Serialize};

/// Names of the features, in the order of [`Evidence::features`].
pub const FEATURES: [&str; 4] = ["dense", "bm25", "margin", "coverage"];

/// What speaks for an answer. Of an arm that did not search the feature is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Cosine of the best dense hit, -1 to 1.
    pub dense: f32,
    /// BM25 score of the best hit for each different term of the question: how much its average term found.
    pub bm25: f32,
    /// How far the best fused score stands above the second one, as a share of it, 0 to 1.
    pub margin: f32,
    /// Share of the question's telling words, without their endings, that stand in the snippets, 0 to 1.
    pub coverage: f32,
}

impl Evidence {
    /// What the ranking says, as fusion left it. `terms` is the number of the question's different BM25 terms.
    pub fn ranked(terms: usize, fused: &[Explained]) -> Self {
        let best = |score: fn(&Explained) -> Option<f32>| fused.iter().filter_map(score).fold(0f32, f32::max);
        let margin = match fused {
            [first, second, ..] if first.snippet.score > 0.0 => (first.snippet.score - second.snippet.score) / first.snippet.score,
            [_] => 1.0,
            _ => 0.0,
        };
        Self {
            dense: best(|hit| hit.arms.dense.map(|arm| arm.score)),
            bm25: best(|hit| hit.arms.bm25.map(|arm| arm.score)) / terms.max(1) as f32,
            margin: margin.clamp(0.0, 1.0),
            coverage: 0.0,
        }
    }

    /// And what the snippets say that would be put before the model.
    #[must_use]
    pub fn shown(self, question: &str, shown: &[Explained]) -> Self {
        let texts = shown.iter().flat_map(|hit| [hit.snippet.chunk.shown_text(), &hit.snippet.chunk.title]);
        Self { coverage: if shown.is_empty() { 0.0 } else { coverage(question, texts) }, ..self }
    }

    /// The features as numbers, in the order of [`FEATURES`].
    pub fn features(&self) -> [f64; 4] {
        [self.dense, self.bm25, self.margin, self.coverage].map(f64::from)
    }
}

/// A calibrated gate: `probability = 1 / (1 + exp(-(intercept + weights . features)))`, answered from `threshold` on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The embedder that it was calibrated with. Cosines of another one have another scale: the gate stays open for it.
    pub embedder: String,
    /// The least probability that is answered; 0 answers everything.
    pub threshold: f64,
    /// The constant.
    pub intercept: f64,
    /// One weight for each of [`FEATURES`].
    pub weights: [f64; 4],
}

/// What the gate says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// How likely the question can be answered from what was found, 0 to 1.
    pub probability: f64,
    /// Whether to ask the model.
    pub answerable: bool,
}

impl Gate {
    /// How likely the question can be answered.
    pub fn probability(&self, evidence: &Evidence) -> f64 {
        let sum: f64 = self.weights.iter().zip(evidence.features()).map(|(weight, feature)| weight * feature).sum();
        1.0 / (1.0 + (-(self.intercept + sum)).exp())
    }

    /// Judges what was found. Without any hit there is nothing to answer from, whatever the weights say.
    pub fn judge(&self, evidence: &Evidence, hits: usize) -> Verdict {
        let probability = if hits == 0 { 0.0 } else { self.probability(evidence) };
        Verdict { probability, answerable: self.threshold <= 0.0 || probability >= self.threshold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArmScore;
    use crate::tests::hit;
    use proptest::prelude::*;

    fn scored(name: &str, score: f32, dense: Option<f32>, bm25: Option<f32>, text: &str) -> Explained {
        let mut hit = hit(name, 0, text);
        hit.snippet.score = score;
        hit.arms.dense = dense.map(|score| ArmScore { rank: 1, score });
        hit.arms.bm25 = bm25.map(|score| ArmScore { rank: 1, score });
        hit
    }

    #[test]
    fn features_are_read_off_the_hits() {
        let hits = [scored("a", 1.0, Some(0.6), None, "Returns within 45 days."), scored("b", 0.75, Some(0.7), Some(8.0), "Refunds.")];
        let evidence = Evidence::ranked(4, &hits).shown("How many days for returns of gifts?", &hits[..1]);
        assert_eq!(evidence, Evidence { dense: 0.7, bm25: 2.0, margin: 0.25, coverage: 2.0 / 3.0 });
        assert_eq!(Evidence::ranked(1, &[]).shown("Returns?", &[]), Evidence::default());
    }

    #[test]
    fn a_threshold_of_zero_answers_everything_and_nothing_found_answers_nothing() {
        let gate = Gate { embedder: "e".into(), threshold: 0.5, intercept: 0.0, weights: [1.0; 4] };
        assert!(gate.judge(&Evidence::default(), 1).answerable);
        assert_eq!(gate.judge(&Evidence::default(), 0), Verdict { probability: 0.0, answerable: false });
        assert!(Gate { threshold: 0.0, ..gate }.judge(&Evidence::default(), 0).answerable);
    }

    proptest! {
        #[test]
        fn more_evidence_is_never_less_likely(dense in -1f32..1.0, bm25 in 0f32..30.0, margin in 0f32..1.0, coverage in 0f32..1.0, more in 0f32..0.5) {
            let gate = Gate { embedder: "e".into(), threshold: 0.5, intercept: -2.0, weights: [3.0, 0.5, 0.2, 2.0] };
            let evidence = Evidence { dense, bm25, margin, coverage };
            let probability = gate.probability(&evidence);
            prop_assert!((0.0..=1.0).contains(&probability));
            let stronger = Evidence { dense: dense + more, ..evidence };
            prop_assert!(gate.probability(&stronger) >= probability);
        }
    }
}
