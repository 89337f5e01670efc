//! Question in, ranked snippets out.
//!
//! `retrieval` embeds the question, asks the index and cuts the list. It never builds a prompt and never calls a chat model.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

use groundtone_index::{Filter, Query, Search, SparseEmbedder, VectorIndex};
use groundtone_provider::{EmbedFor, Embedder};
use groundtone_types::{Collection, ErrorKind, Snippet, Tenant};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Which arms search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Dense and BM25, fused by reciprocal rank.
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

/// Why nothing could be retrieved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The question could not be embedded.
    #[error("the question could not be embedded: {0}")]
    Embed(#[from] groundtone_provider::Error),
    /// The index could not answer.
    #[error(transparent)]
    Index(#[from] groundtone_index::Error),
}

impl Error {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Embed(error) => error.kind(),
            Self::Index(error) => error.kind(),
        }
    }
}

/// What one arm made of a hit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ArmScore {
    /// Its place in this arm's list, from 1.
    pub rank: usize,
    /// This arm's own score: cosine for dense, BM25 for sparse.
    pub score: f32,
}

/// What each arm made of a hit; `None` where it is not among the arm's candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Arms {
    /// By cosine.
    pub dense: Option<ArmScore>,
    /// By BM25.
    pub bm25: Option<ArmScore>,
}

/// A hit and why it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The hit; its score is the fused one.
    #[serde(flatten)]
    pub snippet: Snippet,
    /// What each arm made of it.
    pub arms: Arms,
}

/// Searches one index with one embedder.
#[derive(Clone)]
pub struct Retriever {
    index: Arc<dyn VectorIndex>,
    embedder: Arc<dyn Embedder>,
    sparse: Arc<dyn SparseEmbedder>,
    settings: Settings,
}

impl Retriever {
    /// Puts an index and its embedders together. They must be the ones the collection was built with; ingest's fingerprint checks that.
    pub fn new(index: Arc<dyn VectorIndex>, embedder: Arc<dyn Embedder>, sparse: Arc<dyn SparseEmbedder>, settings: Settings) -> Self {
        Self { index, embedder, sparse, settings }
    }

    /// The index that is searched.
    pub fn index(&self) -> &Arc<dyn VectorIndex> {
        &self.index
    }

    /// How it searches.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The same index and embedders, searched in another way.
    pub fn with_settings(&self, settings: Settings) -> Self {
        Self { settings, ..self.clone() }
    }

    /// The best snippets for a question, best first, at most `top_k`.
    pub async fn retrieve(&self, tenant: &Tenant, collection: &Collection, question: &str) -> Result<Vec<Snippet>, Error> {
        let search = match self.settings.mode {
            Mode::Bm25 => Search::Sparse(self.sparse.query(question)),
            Mode::Dense => Search::Dense(self.embed(question).await?),
            Mode::Hybrid => Search::Hybrid {
                dense: self.embed(question).await?,
                sparse: self.sparse.query(question),
                candidates: self.settings.candidates,
            },
        };
        let query = Query { search, filter: Filter::default(), limit: self.settings.top_k };
        Ok(self.index.query(tenant, collection, query).await?)
    }

    /// The same hits with what each arm made of them: for people who wonder why something was found. Asks the index once more for each arm.
    pub async fn explain(&self, tenant: &Tenant, collection: &Collection, question: &str) -> Result<Vec<Explained>, Error> {
        let hits = self.retrieve(tenant, collection, question).await?;
        let arm = |search: Search| async {
            let query = Query { search, filter: Filter::default(), limit: self.settings.candidates };
            let ranked = self.index.query(tenant, collection, query).await?;
            let scores = ranked.iter().enumerate().map(|(at, hit)| (hit.id, ArmScore { rank: at + 1, score: hit.score }));
            Ok::<HashMap<Uuid, ArmScore>, Error>(scores.collect())
        };
        let dense = match self.settings.mode {
            Mode::Bm25 => HashMap::new(),
            Mode::Dense | Mode::Hybrid => arm(Search::Dense(self.embed(question).await?)).await?,
        };
        let bm25 = match self.settings.mode {
            Mode::Dense => HashMap::new(),
            Mode::Bm25 | Mode::Hybrid => arm(Search::Sparse(self.sparse.query(question))).await?,
        };
        let explain = |snippet: Snippet| {
            let arms = Arms { dense: dense.get(&snippet.id).copied(), bm25: bm25.get(&snippet.id).copied() };
            Explained { snippet, arms }
        };
        Ok(hits.into_iter().map(explain).collect())
    }

    async fn embed(&self, question: &str) -> Result<Vec<f32>, Error> {
        let mut vectors = self.embedder.embed(std::slice::from_ref(&question.to_owned()), EmbedFor::Query).await?;
        let found = vectors.len();
        vectors.pop().filter(|_| found == 1).ok_or_else(|| {
            let reason = format!("{found} vectors for one text");
            Error::Embed(groundtone_provider::Error::Model { model: self.embedder.id().to_owned(), reason })
        })
    }
}
