use crate::http::post_json;
use crate::spans::{asks, embed_span, says};
use crate::{CallLimits, EmbedFor, Embedder, Endpoint, Error};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groundtone_openai_api::{EmbeddingInput, EmbeddingList, EmbeddingRequest, EmbeddingValues, EncodingFormat};
use groundtone_prompt::{CountTokens, OpenAiTokens};
use std::sync::Arc;
use tracing::{Instrument, Span};

/// Any server of OpenAI's `/v1/embeddings`.
pub struct OpenAiEmbeddings {
    endpoint: Endpoint,
    model: String,
    dimensions: usize,
    max_tokens: usize,
    limits: CallLimits,
    tokens: Arc<OpenAiTokens>,
}

impl OpenAiEmbeddings {
    /// Asks `endpoint` for vectors of `model` within `limits`; each text has at most `max_tokens` tokens.
    pub fn new(endpoint: Endpoint, model: impl Into<String>, dimensions: usize, max_tokens: usize, limits: CallLimits) -> Self {
        let model = model.into();
        let tokens = OpenAiTokens::for_model(&model);
        Self { endpoint, model, dimensions, max_tokens, limits, tokens }
    }

    /// One call.
    async fn embed_batch(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        let span = embed_span(self, texts.len());
        let vectors = self.ask(texts).instrument(span.clone()).await;
        vectors.inspect_err(|error| {
            span.record("error", error.kind().as_str());
        })
    }

    async fn ask(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        asks(&self.endpoint);
        let body = EmbeddingRequest {
            model: self.model.clone(),
            input: EmbeddingInput::Many(texts.to_vec()),
            encoding_format: Some(EncodingFormat::Float),
            dimensions: None,
        };
        let list: EmbeddingList = post_json(&self.endpoint, "/embeddings", &body).await?;
        says("response_model", &list.model);
        Span::current().record("prompt_tokens", list.usage.as_ref().map(|usage| usage.prompt_tokens));
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; texts.len()];
        for item in list.data {
            let slot = vectors
                .get_mut(item.index)
                .ok_or_else(|| self.endpoint.protocol(format!("a vector for text {} of {}", item.index, texts.len())))?;
            *slot = Some(self.checked(item.embedding)?);
        }
        let found = vectors.iter().flatten().count();
        let all: Option<Vec<Vec<f32>>> = vectors.into_iter().collect();
        all.ok_or_else(|| self.endpoint.protocol(format!("{found} vectors for {} texts", texts.len())))
    }

    /// Decodes, checks the length and scales to length 1.
    fn checked(&self, values: EmbeddingValues) -> Result<Vec<f32>, Error> {
        let mut vector = match values {
            EmbeddingValues::Float(vector) => vector,
            EmbeddingValues::Base64(text) => {
                let bytes = STANDARD.decode(text).map_err(|error| self.endpoint.protocol(error.to_string()))?;
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
        };
        if vector.len() != self.dimensions {
            return Err(Error::Dimensions { model: self.model.clone(), found: vector.len(), wanted: self.dimensions });
        }
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if !length.is_finite() || length == 0.0 {
            return Err(self.endpoint.protocol("a vector without a direction".to_owned()));
        }
        vector.iter_mut().for_each(|x| *x /= length);
        Ok(vector)
    }
}

#[async_trait]
impl Embedder for OpenAiEmbeddings {
    fn id(&self) -> &str {
        &self.model
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn tokens(&self) -> Arc<dyn CountTokens> {
        self.tokens.clone()
    }

    fn limits(&self) -> CallLimits {
        self.limits
    }

    async fn embed(&self, texts: &[String], _purpose: EmbedFor) -> Result<Vec<Vec<f32>>, Error> {
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(self.limits.texts.max(1)) {
            vectors.extend(self.embed_batch(batch).await?);
        }
        Ok(vectors)
    }
}
