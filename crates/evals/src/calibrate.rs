//! Fitting the evidence gate on questions that are known to be answerable, or not.

use crate::Error;
use crate::beir::Dataset;
use crate::corpus::Corpus;
use crate::logistic::{auc, fit, wilson};
use futures::{StreamExt, TryStreamExt, stream};
use groundtone_retrieval::{Evidence, Gate, Request, Retriever};
use serde::{Deserialize, Serialize};

/// Questions that are asked at the same time.
const PARALLEL: usize = 4;
/// Parts of the cross-validation.
const FOLDS: usize = 5;
/// Least questions of each kind.
const LEAST: usize = 20;

/// What retrieval found for a question, and whether it can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The features.
    pub evidence: Evidence,
    /// The label.
    pub answerable: bool,
    /// Rows of the same question are in the same part of the cross-validation.
    pub group: usize,
}

/// A share with its 95 % interval (Wilson).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The share.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Of so many.
    pub of: usize,
}

/// What the gate does on questions that it was not fitted on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// How likely an answerable question has a higher probability than an unanswerable one.
    pub auc: f64,
    /// Mean squared error of the probability (Brier).
    pub brier: f64,
    /// Of the questions that it turned away, how many could not be answered.
    pub abstention_precision: Share,
    /// Of the questions that could not be answered, how many it turned away.
    pub abstention_recall: Share,
    /// Of the questions that could be answered, how many it let through.
    pub answerable_kept: Share,
}

/// A fitted gate and what it is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The gate, fitted on all rows.
    pub gate: Gate,
    /// By five-fold cross-validation.
    pub quality: Quality,
    /// The gate that the settings have now, on the same questions; `None` where there is none for this embedder.
    pub configured: Option<Quality>,
    /// Rows that could be answered.
    pub answerable: usize,
    /// Rows that could not.
    pub unanswerable: usize,
}

fn share(hits: usize, of: usize) -> Share {
    let (low, high) = wilson(hits, of);
    Share { value: if of == 0 { 0.0 } else { hits as f64 / of as f64 }, low, high, of }
}

fn gate(rows: &[Row], embedder: &str) -> Gate {
    let rows: Vec<([f64; 4], bool)> = rows.iter().map(|row| (row.evidence.features(), row.answerable)).collect();
    let (intercept, weights) = fit(&rows);
    Gate { embedder: embedder.to_owned(), threshold: 0.0, intercept, weights }
}

/// The largest probability that lets at least this share of the answerable rows through.
fn threshold(scored: &[(f64, bool)], keep: f64) -> f64 {
    let mut answerable: Vec<f64> = scored.iter().filter(|(_, label)| *label).map(|(score, _)| *score).collect();
    answerable.sort_by(f64::total_cmp);
    let lost = ((1.0 - keep) * answerable.len() as f64 + 1e-9).floor() as usize;
    answerable.get(lost).copied().unwrap_or(0.0)
}

fn quality(scored: &[(f64, bool)], threshold: f64) -> Quality {
    let count = |wanted: &dyn Fn(f64, bool) -> bool| scored.iter().filter(|(score, label)| wanted(*score, *label)).count();
    let (answerable, unanswerable) = (count(&|_, label| label), count(&|_, label| !label));
    let turned_away = count(&|score, _| score < threshold);
    let rightly = count(&|score, label| score < threshold && !label);
    let error = |(score, label): &(f64, bool)| (score - f64::from(u8::from(*label))).powi(2);
    Quality {
        auc: auc(scored),
        brier: scored.iter().map(error).sum::<f64>() / scored.len().max(1) as f64,
        abstention_precision: share(rightly, turned_away),
        abstention_recall: share(rightly, unanswerable),
        answerable_kept: share(count(&|score, label| score >= threshold && label), answerable),
    }
}

/// What a gate is worth on questions that it was not fitted on.
fn measured(gate: &Gate, rows: &[Row]) -> Quality {
    let scored: Vec<(f64, bool)> = rows.iter().map(|row| (gate.probability(&row.evidence), row.answerable)).collect();
    quality(&scored, gate.threshold)
}

/// Fits a gate for `embedder` that lets `keep` of the answerable questions through (0.98: at most two of a hundred are turned away).
///
/// Quality and threshold come from five-fold cross-validation: each row is judged by a gate that was fitted without its question.
/// `configured` is measured beside it, where it belongs to the embedder.
pub fn calibrate(rows: &[Row], embedder: &str, keep: f64, configured: &Gate) -> Result<Calibration, Error> {
    let answerable = rows.iter().filter(|row| row.answerable).count();
    let unanswerable = rows.len() - answerable;
    if answerable < LEAST || unanswerable < LEAST {
        return Err(Error::TooFew { least: LEAST, answerable, unanswerable });
    }
    let mut scored = Vec::with_capacity(rows.len());
    for fold in 0..FOLDS {
        let (inside, outside): (Vec<Row>, Vec<Row>) = rows.iter().partition(|row| row.group % FOLDS == fold);
        let fitted = gate(&outside, embedder);
        scored.extend(inside.iter().map(|row| (fitted.probability(&row.evidence), row.answerable)));
    }
    let threshold = threshold(&scored, keep);
    let gate = Gate { threshold, ..gate(rows, embedder) };
    let configured = (configured.embedder == embedder).then(|| measured(configured, rows));
    Ok(Calibration { gate, quality: quality(&scored, threshold), configured, answerable, unanswerable })
}

/// Rows from a data set without unanswerable questions: each question is asked of the half of the corpus that has its document, and of the half that has not.
///
/// What is left there is about the same things, so the unanswerable ones are hard. A question with relevant documents in both halves has no such row.
pub async fn held_out(dataset: &Dataset, corpus: &Corpus, retriever: &Retriever) -> Result<Vec<Row>, Error> {
    let mut asked = Vec::new();
    for (group, question) in dataset.questions.iter().enumerate() {
        let holds = |half: u8| question.judged.iter().any(|(id, relevance)| *relevance > 0 && Corpus::half_of(id) == half);
        if holds(0) != holds(1) {
            asked.extend([(group, 0u8, holds(0)), (group, 1u8, holds(1))]);
        }
    }
    let ask = |(group, half, answerable): (usize, u8, bool)| async move {
        let question = &dataset.questions[group];
        let request = Request { filter: Corpus::half(half)?, ..Request::new(&question.text) };
        let found = retriever.search(&corpus.tenant, &corpus.collection, &request).await?;
        Ok::<_, Error>(Row { evidence: found.evidence, answerable, group })
    };
    stream::iter(asked).map(ask).buffered(PARALLEL).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(at: usize, answerable: bool, dense: f32) -> Row {
        Row { evidence: Evidence { dense, bm25: 1.0, margin: 0.1, coverage: dense }, answerable, group: at }
    }

    /// Answerable at 0.5 to 0.9, unanswerable at 0.2 to 0.6.
    fn rows() -> Vec<Row> {
        (0..200).map(|at| row(at, at % 2 == 0, if at % 2 == 0 { 0.5 } else { 0.2 } + 0.4 * (at * 7 % 100) as f32 / 100.0)).collect()
    }

    /// Of another embedder.
    fn other() -> Gate {
        Gate { embedder: "other".to_owned(), threshold: 0.5, intercept: 0.0, weights: [0.0; 4] }
    }

    #[test]
    fn the_configured_gate_is_measured_where_it_belongs_to_the_embedder() {
        assert_eq!(calibrate(&rows(), "e", 0.98, &other()).unwrap().configured, None);
        // It says "answerable" with a half's probability to everything: nothing is turned away, or all of it.
        for (threshold, kept, turned_away) in [(0.5, 1.0, 0.0), (0.6, 0.0, 1.0)] {
            let gate = Gate { embedder: "e".to_owned(), threshold, ..other() };
            let quality = calibrate(&rows(), "e", 0.98, &gate).unwrap().configured.unwrap();
            assert_eq!((quality.answerable_kept.value, quality.abstention_recall.value), (kept, turned_away));
            assert!((quality.auc - 0.5).abs() < 1e-9 && (quality.brier - 0.25).abs() < 1e-9, "{quality:?}");
        }
    }

    #[test]
    fn a_gate_keeps_what_it_was_told_to_keep() {
        for keep in [0.9, 0.98, 1.0] {
            let calibration = calibrate(&rows(), "e", keep, &other()).unwrap();
            let quality = calibration.quality;
            assert!(quality.answerable_kept.value >= keep - 1e-9, "{keep}: {quality:?}");
            assert!(quality.auc > 0.9 && quality.abstention_recall.value > 0.6 && quality.abstention_precision.value > 0.85, "{quality:?}");
            assert!(
                quality.abstention_recall.low < quality.abstention_recall.value
                    && quality.abstention_recall.value < quality.abstention_recall.high
            );
            assert_eq!((calibration.answerable, calibration.unanswerable, quality.answerable_kept.of), (100, 100, 100));
        }
    }

    #[test]
    fn labels_that_nothing_explains_give_a_gate_that_turns_hardly_anything_away() {
        let rows: Vec<Row> = (0..400).map(|at| row(at, at % 2 == 0, (at * 37 % 100) as f32 / 100.0)).collect();
        let quality = calibrate(&rows, "e", 0.98, &other()).unwrap().quality;
        assert!((quality.auc - 0.5).abs() < 0.1 && quality.abstention_recall.value < 0.1, "{quality:?}");
    }

    #[test]
    fn too_few_rows_are_refused() {
        let error = calibrate(&rows()[..30], "e", 0.98, &other()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a gate needs at least 20 questions that can be answered and as many that cannot; there are 15 and 15"
        );
    }

    proptest! {
        #[test]
        fn a_threshold_never_loses_more_than_it_may(scores in proptest::collection::vec((0f64..1.0, any::<bool>()), 1..60), keep in 0.5f64..1.0) {
            let least = threshold(&scores, keep);
            let answerable = scores.iter().filter(|(_, label)| *label).count();
            let kept = scores.iter().filter(|(score, label)| *label && *score >= least).count();
            prop_assert!(kept as f64 >= keep * answerable as f64 - 1e-6);
        }
    }
}
