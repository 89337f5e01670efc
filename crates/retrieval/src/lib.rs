//! Question in, ranked snippets out.
//!
//! A follow-up is made a question of its own ([`rewrite()`]); [`Retriever::search`] asks both arms of the index, fuses, reranks and refines, and says whether what was
//! found is worth an answer ([`Gate`]). It never builds a prompt and never calls a chat model: where one is wanted, the caller brings it ([`Condense`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod fusion;
mod gate;
mod refine;
mod retriever;
mod rewrite;
#[cfg(test)]
mod tests;
mod words;

pub use fusion::{Fusion, RRF_K, fuse};
pub use gate::{Evidence, FEATURES, Gate, Verdict};
pub use refine::{Recency, Refinement, Trust, diversify, merge_neighbours, without_repetition};
pub use retriever::{Error, Request, Retrieved, Retriever};
pub use rewrite::{Basis, Condense, CondenseLimits, Resolved, Rewrite, is_pleasantry, resolve, rewrite};
pub use words::{Language, content_words, coverage, stems};

use groundtone_types::Snippet;
use serde::{Deserialize, Serialize};

/// Which arms search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Dense and BM25, fused.
    #[default]
    Hybrid,
    /// Dense only.
    Dense,
    /// BM25 only; the question is not embedded.
    Bm25,
}

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Which arms.
    pub mode: Mode,
    /// How many snippets to return.
    pub top_k: usize,
    /// How many candidates each arm brings to the fusion.
    pub candidates: usize,
}

/// What one arm made of a hit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ArmScore {
    /// Its place in this arm's list, from 1.
    pub rank: usize,
    /// This arm's own score: cosine for dense, BM25 for sparse, 0 to 1 for the reranker.
    pub score: f32,
}

/// What each arm made of a hit; `None` where it is not among the arm's candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Arms {
    /// By cosine.
    pub dense: Option<ArmScore>,
    /// By BM25.
    pub bm25: Option<ArmScore>,
    /// By the cross-encoder; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank: Option<ArmScore>,
}

/// A hit and why it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The hit; its score is the fused one, the reranker's where there is one, weighed by age and trust.
    #[serde(flatten)]
    pub snippet: Snippet,
    /// What each arm made of it.
    pub arms: Arms,
}
