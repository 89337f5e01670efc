//! Arms side by side on the same questions.

use crate::Error;
use crate::beir::Dataset;
use crate::corpus::{Corpus, CorpusProgress};
use crate::metrics::ranking;
use crate::stats::{Difference, Estimate, paired_differences};
use futures::{StreamExt, TryStreamExt, stream};
use groundtone_retrieval::{Request, Retriever};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// Questions that are asked at the same time.
const PARALLEL: usize = 4;
/// Snippets that an arm must be able to give: the deepest cut of a metric.
pub(crate) const DEPTH: usize = 20;

/// One way to search.
pub struct Arm {
    /// Its name in the report: `bm25`, `dense`, `hybrid`, `hybrid-rerank`.
    pub name: String,
    /// How.
    pub retriever: Retriever,
}

/// How well an arm did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ArmReport {
    /// nDCG of the first 10.
    pub ndcg_at_10: Estimate,
    /// Recall of the first 20.
    pub recall_at_20: Estimate,
    /// Reciprocal rank within the first 10.
    pub mrr_at_10: Estimate,
}

/// How much one arm is above another, question by question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The arm that is compared.
    pub a: String,
    /// What it is compared with.
    pub b: String,
    /// In nDCG of the first 10.
    pub ndcg_at_10: Difference,
    /// In recall of the first 20.
    pub recall_at_20: Difference,
    /// In reciprocal rank within the first 10.
    pub mrr_at_10: Difference,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrievalReport {
    /// Documents of the corpus.
    pub documents: usize,
    /// Questions with a relevant document.
    pub questions: usize,
    /// Who embedded.
    pub embedder: String,
    /// BM25 and its settings.
    pub sparse: String,
    /// Draws of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
    /// By name.
    pub arms: BTreeMap<String, ArmReport>,
    /// The hybrid arm against each other one, and the reranked one against it.
    pub pairs: Vec<Pair>,
    /// Arms that are not there, and why.
    pub left_out: BTreeMap<String, String>,
}

/// An arm's values, question by question: nDCG, recall, reciprocal rank.
type Values = [Vec<f64>; 3];

async fn measure(arm: &Arm, dataset: &Dataset, corpus: &Corpus, done: &(dyn Fn() + Send + Sync)) -> Result<Values, Error> {
    let ask = |at: usize| async move {
        let question = &dataset.questions[at];
        let request = Request::new(&question.text);
        let found = arm.retriever.search(&corpus.tenant, &corpus.collection, &request).await?;
        let mut seen = HashSet::new();
        let ranking: Vec<&str> = found.hits.iter().map(|hit| hit.snippet.chunk.document.as_str()).filter(|id| seen.insert(*id)).collect();
        done();
        let judged = &question.judged;
        Ok::<_, Error>([
            ranking::ndcg_at(&ranking, judged, 10),
            ranking::recall_at(&ranking, judged, DEPTH),
            ranking::mrr_at(&ranking, judged, 10),
        ])
    };
    let values: Vec<[f64; 3]> = stream::iter(0..dataset.questions.len()).map(ask).buffered(PARALLEL).try_collect().await?;
    Ok([0, 1, 2].map(|metric| values.iter().map(|value| value[metric]).collect()))
}

/// Asks every question of every arm. The same draws serve all intervals.
pub async fn evaluate(
    dataset: &Dataset,
    corpus: &Corpus,
    arms: &[Arm],
    resamples: usize,
    seed: u64,
    progress: &(dyn Fn(CorpusProgress) + Send + Sync),
) -> Result<(BTreeMap<String, ArmReport>, Vec<Pair>), Error> {
    let total = arms.len() * dataset.questions.len();
    let count = std::sync::atomic::AtomicUsize::new(0);
    let done = || progress(CorpusProgress { done: count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, total });
    let mut values: Vec<(&str, Values)> = Vec::new();
    for arm in arms {
        values.push((&arm.name, measure(arm, dataset, corpus, &done).await?));
    }
    let lists: Vec<&[f64]> = values.iter().flat_map(|(_, metrics)| metrics.iter().map(Vec::as_slice)).collect();
    let estimates = Estimate::of(&lists, resamples, seed);
    let report = |chunk: &[Estimate]| ArmReport { ndcg_at_10: chunk[0], recall_at_20: chunk[1], mrr_at_10: chunk[2] };
    let reports = values.iter().zip(estimates.chunks_exact(3)).map(|((name, _), chunk)| ((*name).to_owned(), report(chunk))).collect();
    let of = |name: &str| values.iter().find(|(known, _)| *known == name);
    let mut pairs = Vec::new();
    for (a, b) in [("hybrid", "bm25"), ("hybrid", "dense"), ("hybrid-rerank", "hybrid")] {
        if let (Some((_, first)), Some((_, second))) = (of(a), of(b)) {
            let lists: Vec<(&[f64], &[f64])> =
                first.iter().zip(second).map(|(first, second)| (first.as_slice(), second.as_slice())).collect();
            if let [ndcg_at_10, recall_at_20, mrr_at_10] = paired_differences(&lists, resamples, seed)[..] {
                pairs.push(Pair { a: a.to_owned(), b: b.to_owned(), ndcg_at_10, recall_at_20, mrr_at_10 });
            }
        }
    }
    Ok((reports, pairs))
}
