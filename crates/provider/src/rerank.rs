//! Cross-encoders behind HTTP: the question and each text are read together, which ranks better than vectors and costs a model's run for each text.

use crate::http::post_json;
use crate::{Endpoint, Error};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A question and texts in, how well each text answers it out.
#[async_trait]
pub trait Reranker: Send + Sync {
    /// Name of the model.
    fn id(&self) -> &str;
    /// One score for each text, in the same order: between 0 and 1, the higher the more relevant. An empty input makes no call.
    async fn rerank(&self, question: &str, texts: &[String]) -> Result<Vec<f32>, Error>;
}

/// What a server of rerankers speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RerankShape {
    /// Hugging Face's text-embeddings-inference: `POST /rerank` with `texts`; one server is one model.
    Tei,
    /// Cohere's `POST /v2/rerank` with `documents`, which others speak too.
    Cohere,
}

/// A server of rerankers.
pub struct HttpReranker {
    endpoint: Endpoint,
    shape: RerankShape,
    model: String,
    batch: usize,
}

#[derive(Serialize)]
struct TeiRequest<'a> {
    query: &'a str,
    texts: &'a [String],
    /// Longer texts are cut instead of refused.
    truncate: bool,
    raw_scores: bool,
}

#[derive(Serialize)]
struct CohereRequest<'a> {
    model: &'a str,
    query: &'a str,
    documents: &'a [String],
    top_n: usize,
}

#[derive(Deserialize)]
struct Scored {
    index: usize,
    #[serde(alias = "relevance_score")]
    score: f32,
}

#[derive(Deserialize)]
struct CohereAnswer {
    results: Vec<Scored>,
}

impl HttpReranker {
    /// Asks `endpoint` for scores of `model`, at most `batch` texts a call (text-embeddings-inference takes 32 where it was not told otherwise).
    pub fn new(endpoint: Endpoint, shape: RerankShape, model: impl Into<String>, batch: usize) -> Self {
        Self { endpoint, shape, model: model.into(), batch: batch.max(1) }
    }

    async fn score(&self, question: &str, texts: &[String]) -> Result<Vec<f32>, Error> {
        let scored: Vec<Scored> = match self.shape {
            RerankShape::Tei => {
                let body = TeiRequest { query: question, texts, truncate: true, raw_scores: false };
                post_json(&self.endpoint, "/rerank", &body).await?
            }
            RerankShape::Cohere => {
                let body = CohereRequest { model: &self.model, query: question, documents: texts, top_n: texts.len() };
                let answer: CohereAnswer = post_json(&self.endpoint, "/v2/rerank", &body).await?;
                answer.results
            }
        };
        let mut scores: Vec<Option<f32>> = vec![None; texts.len()];
        for Scored { index, score } in scored {
            let slot = scores.get_mut(index).filter(|_| score.is_finite());
            *slot.ok_or_else(|| self.endpoint.protocol(format!("score {score} for text {index} of {}", texts.len())))? = Some(score);
        }
        let found = scores.iter().flatten().count();
        let all: Option<Vec<f32>> = scores.into_iter().collect();
        all.ok_or_else(|| self.endpoint.protocol(format!("{found} scores for {} texts", texts.len())))
    }
}

#[async_trait]
impl Reranker for HttpReranker {
    fn id(&self) -> &str {
        &self.model
    }

    async fn rerank(&self, question: &str, texts: &[String]) -> Result<Vec<f32>, Error> {
        let mut scores = Vec::with_capacity(texts.len());
        for batch in texts.chunks(self.batch) {
            scores.extend(self.score(question, batch).await?);
        }
        Ok(scores)
    }
}
