use crate::{ArmScore, Evidence, Explained, Fusion, Gate, Mode, Refinement, Settings, Verdict, fusion, refine};
use groundtone_index::{Filter, Query, Search, SparseEmbedder, SparseVector, VectorIndex};
use groundtone_provider::{EmbedFor, Embedder, Reranker};
use groundtone_types::{Collection, ErrorKind, Snippet, Tenant};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{Instrument, field, info_span};
use uuid::Uuid;

/// Why nothing could be retrieved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The question could not be embedded.
    #[error("the question could not be embedded: {0}")]
    Embed(#[from] groundtone_provider::Error),
    /// The index could not answer.
    #[error(transparent)]
    Index(#[from] groundtone_index::Error),
    /// The filter cannot be used.
    #[error(transparent)]
    Filter(#[from] groundtone_index::FilterError),
}

impl Error {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Embed(error) => error.kind(),
            Self::Index(error) => error.kind(),
            Self::Filter(_) => ErrorKind::InvalidRequest,
        }
    }
}

/// What a question is searched with.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<'a> {
    /// A question that stands for itself ([`crate::rewrite()`]).
    pub question: &'a str,
    /// Among what.
    pub filter: Filter,
    /// How many snippets to return; as the settings say where it is `None`.
    pub top_k: Option<usize>,
    /// Seconds since 1970, for the recency boost.
    pub now: i64,
}

impl<'a> Request<'a> {
    /// A question to everything, now.
    pub fn new(question: &'a str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX));
        Self { question, filter: Filter::default(), top_k: None, now }
    }
}

/// What was found, and whether it is worth an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retrieved {
    /// Best first.
    pub hits: Vec<Explained>,
    /// What speaks for an answer.
    pub evidence: Evidence,
    /// What the gate says; `None` where there is none for this embedder and these arms.
    pub verdict: Option<Verdict>,
}

impl Retrieved {
    /// The snippets alone.
    pub fn snippets(self) -> Vec<Snippet> {
        self.hits.into_iter().map(|hit| hit.snippet).collect()
    }
}

/// Which model reads question and snippet together, and how many it is given.
#[derive(Clone)]
struct Reranking {
    model: Arc<dyn Reranker>,
    candidates: usize,
}

/// Searches one index with one embedder.
#[derive(Clone)]
pub struct Retriever {
    index: Arc<dyn VectorIndex>,
    embedder: Arc<dyn Embedder>,
    sparse: Arc<dyn SparseEmbedder>,
    settings: Settings,
    fusion: Fusion,
    refinement: Refinement,
    reranking: Option<Reranking>,
    gate: Option<Gate>,
}

impl Retriever {
    /// Puts an index and its embedders together. They must be the ones the collection was built with; ingest's fingerprint checks that.
    pub fn new(index: Arc<dyn VectorIndex>, embedder: Arc<dyn Embedder>, sparse: Arc<dyn SparseEmbedder>, settings: Settings) -> Self {
        let (fusion, refinement) = (Fusion::default(), Refinement::default());
        Self { index, embedder, sparse, settings, fusion, refinement, reranking: None, gate: None }
    }

    /// The same with another fusion of the arms.
    #[must_use]
    pub fn fused(self, fusion: Fusion) -> Self {
        Self { fusion, ..self }
    }

    /// The same with a refined ranking.
    #[must_use]
    pub fn refined(self, refinement: Refinement) -> Self {
        Self { refinement, ..self }
    }

    /// The same with a cross-encoder that reads the first `candidates` of the ranking; what comes behind them is dropped.
    #[must_use]
    pub fn reranked(self, model: Arc<dyn Reranker>, candidates: usize) -> Self {
        Self { reranking: Some(Reranking { model, candidates: candidates.max(1) }), ..self }
    }

    /// The same with a gate. One that was calibrated with another embedder, or for fewer arms, is left out.
    #[must_use]
    pub fn gated(self, gate: Option<Gate>) -> Self {
        let (embedder, mode) = (self.embedder.id(), self.settings.mode);
        let gate = gate.filter(|gate| gate.threshold > 0.0 && gate.embedder == embedder && mode == Mode::Hybrid);
        Self { gate, ..self }
    }

    /// The gate that judges what is found; `None` where everything is answered.
    pub fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
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
        Ok(self.search(tenant, collection, &Request::new(question)).await?.snippets())
    }

    /// The same hits with what each arm made of them: for people who wonder why something was found.
    pub async fn explain(&self, tenant: &Tenant, collection: &Collection, question: &str) -> Result<Vec<Explained>, Error> {
        Ok(self.search(tenant, collection, &Request::new(question)).await?.hits)
    }

    /// The best snippets for a question, what each arm made of them, and what they are worth as evidence.
    ///
    /// Both arms search at the same time, are fused, reranked, weighed by age and trust, rid of repetition, varied and merged, in this order; each step but the second
    /// does nothing where it is not asked for.
    pub async fn search(&self, tenant: &Tenant, collection: &Collection, request: &Request<'_>) -> Result<Retrieved, Error> {
        let top_k = request.top_k.unwrap_or(self.settings.top_k);
        let span = info_span!("search", %collection, top_k, hits = field::Empty, error = field::Empty);
        let found = self.find(tenant, collection, request, top_k).instrument(span.clone()).await;
        match &found {
            Ok(found) => span.record("hits", found.hits.len()),
            Err(error) => span.record("error", error.kind().as_str()),
        };
        found
    }

    async fn find(&self, tenant: &Tenant, collection: &Collection, request: &Request<'_>, top_k: usize) -> Result<Retrieved, Error> {
        let terms = self.sparse.query(request.question);
        let count = terms.indices.len();
        let (dense, bm25) = self.arms(tenant, collection, request, terms).await?;
        let fused = fusion::fuse(self.fusion, dense, bm25);
        let evidence = Evidence::ranked(count, &fused);
        let mut ranked = self.rerank(request.question, fused).await;
        self.refinement.weigh(&mut ranked, request.now);
        let hits = self.choose(tenant, collection, ranked, top_k).await?;
        let evidence = evidence.shown(request.question, &hits);
        let verdict = self.gate.as_ref().map(|gate| gate.judge(&evidence, hits.len()));
        Ok(Retrieved { hits, evidence, verdict })
    }

    async fn arms(
        &self,
        tenant: &Tenant,
        collection: &Collection,
        request: &Request<'_>,
        terms: SparseVector,
    ) -> Result<(Vec<Snippet>, Vec<Snippet>), Error> {
        let arm = |search: Search| {
            let query = Query {
                search,
                filter: request.filter.clone(),
                limit: self.settings.candidates.max(request.top_k.unwrap_or(self.settings.top_k)),
            };
            self.index.query(tenant, collection, query)
        };
        let dense = async {
            match self.settings.mode {
                Mode::Bm25 => Ok(Vec::new()),
                Mode::Dense | Mode::Hybrid => Ok(arm(Search::Dense(self.embed(request.question).await?)).await?),
            }
        };
        let bm25 = async {
            match self.settings.mode {
                Mode::Dense => Ok(Vec::new()),
                Mode::Bm25 | Mode::Hybrid => Ok(arm(Search::Sparse(terms)).await?),
            }
        };
        futures::future::try_join(dense, bm25).await
    }

    /// Reads the first of the ranking together with the question. A model that does not answer costs the better order, not the answer.
    async fn rerank(&self, question: &str, mut hits: Vec<Explained>) -> Vec<Explained> {
        let Some(reranking) = &self.reranking else { return hits };
        hits.truncate(reranking.candidates);
        let texts: Vec<String> = hits.iter().map(shown).collect();
        match reranking.model.rerank(question, &texts).await {
            Ok(scores) => {
                for (hit, score) in hits.iter_mut().zip(scores) {
                    hit.arms.rerank = Some(ArmScore { rank: 0, score });
                    hit.snippet.score = score;
                }
                fusion::sort(&mut hits);
                hits.iter_mut().enumerate().for_each(|(at, hit)| hit.arms.rerank.iter_mut().for_each(|arm| arm.rank = at + 1));
            }
            Err(error) => tracing::warn!(%error, "the snippets were not reranked"),
        }
        hits
    }

    /// The `top_k` of a ranking, without repetition: its first, or the most different ones, with neighbours as one.
    async fn choose(&self, tenant: &Tenant, collection: &Collection, hits: Vec<Explained>, top_k: usize) -> Result<Vec<Explained>, Error> {
        let wanted = if self.refinement.merge_neighbours { top_k * refine::MOST_MERGED } else { top_k };
        let chosen = match self.refinement.mmr_lambda {
            None => refine::without_repetition(hits, wanted),
            Some(lambda) => {
                let hits = refine::without_repetition(hits, usize::MAX);
                let ids: Vec<Uuid> = hits.iter().map(|hit| hit.snippet.id).collect();
                let vectors = self.index.vectors(tenant, collection, &ids).await?;
                let vectors = ids.into_iter().zip(vectors).filter_map(|(id, vector)| Some((id, vector?))).collect();
                refine::diversify(hits, &vectors, lambda, wanted)
            }
        };
        if self.refinement.merge_neighbours {
            // What a merged snippet holds may be what another one shows.
            return Ok(refine::without_repetition(refine::merge_neighbours(chosen, top_k), top_k));
        }
        Ok(chosen)
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

/// What a reranker reads of a hit: title, headings and text.
fn shown(hit: &Explained) -> String {
    let chunk = &hit.snippet.chunk;
    let path = chunk.path();
    if path.is_empty() { chunk.shown_text().to_owned() } else { format!("{path}\n{}", chunk.shown_text()) }
}
