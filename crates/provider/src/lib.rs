//! What Groundtone asks of models, and the clients of model servers over HTTP.
//!
//! Texts go in and vectors come out ([`Embedder`]); messages go in and a stream of text comes out ([`ChatModel`]);
//! a question and texts go in and scores come out ([`Reranker`]);
//! a document goes to an extractor's server and text comes back ([`DocumentExtractor`]).
//! This crate is the only one that speaks HTTP as a client; it never knows what is asked or why.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod batch;
mod breaker;
mod cached;
mod chat;
mod collector;
mod download;
mod embeddings;
mod error;
mod events;
mod extract;
mod extras;
mod fine_tuning;
mod http;
mod lora_server;
mod rerank;
mod resilient;
mod spans;
mod sse;
mod web;
mod webhook;

pub use batch::{Batch, Batcher, Pace};
pub use breaker::BreakerSettings;
pub use cached::{AnswerCache, CachedChat, CachedEmbedder, Observe};
pub use chat::OpenAiChat;
pub use collector::CollectorClient;
pub use download::{DownloadProgress, HubFile, download_from_hub};
pub use embeddings::OpenAiEmbeddings;
pub use error::Error;
pub use extract::{DocumentExtractor, ExtractedDocument, ExtractorKind, Media};
pub use extras::ChatExtras;
pub use fine_tuning::{FineTuningClient, JobAction};
pub use http::{Endpoint, delete_json, get_json, install_tls, post_json};
pub use lora_server::LoraServer;
pub use rerank::{HttpReranker, RerankShape, Reranker};
pub use resilient::{Resilience, Resilient};
pub use spans::embed_span;
pub use sse::{post_events, stream_chunks};
pub use web::{WebClient, WebError, WebPage, WebRequest, WebSettings, same_site};
pub use webhook::{SendWebhook, SignedWebhook, WebhookMessage, sign};

use async_trait::async_trait;
use futures::stream::BoxStream;
use groundtone_prompt::{CountTokens, PromptMessage};
use groundtone_types::TokenUsage;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What a text is embedded for. Some models treat questions and documents differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbedFor {
    /// A question, to be searched with.
    Query,
    /// A chunk, to be found.
    Document,
}

/// What an embedder takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Texts in one call.
    pub texts: usize,
    /// Tokens in one call, all texts together.
    pub tokens: usize,
    /// Calls at the same time.
    pub parallel: usize,
}

/// Texts in, vectors out.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Name of the model; part of a collection's fingerprint, because vectors of different models do not mix.
    fn id(&self) -> &str;
    /// Length of every vector.
    fn dimensions(&self) -> usize;
    /// Longest text, in tokens, of which nothing is cut off.
    fn max_tokens(&self) -> usize;
    /// The model's own tokenizer, for sizing chunks.
    fn tokens(&self) -> Arc<dyn CountTokens>;
    /// What it takes at a time. [`Batcher`] keeps to it.
    fn limits(&self) -> CallLimits;
    /// One vector of [`Self::dimensions`] numbers, of length 1, for each text, in the same order. An empty input makes no call.
    async fn embed(&self, texts: &[String], purpose: EmbedFor) -> Result<Vec<Vec<f32>>, Error>;
}

/// How the model should write. `None` leaves the choice to the model server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus sampling.
    pub top_p: Option<f32>,
    /// Most tokens to write.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer; they are not part of it. At most four.
    pub stop: Vec<String>,
    /// Seed of the sampler.
    pub seed: Option<u64>,
    /// -2 to 2: penalises tokens that were there before.
    pub presence_penalty: Option<f32>,
    /// -2 to 2: penalises tokens by how often they were there before.
    pub frequency_penalty: Option<f32>,
}

/// Messages and how to continue them.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// What the model reads, in order.
    pub messages: Vec<PromptMessage>,
    /// How it writes.
    pub sampling: Sampling,
    /// What the client sent beside text; [`ChatModel::check`] says whether the model can do it.
    pub extras: Arc<ChatExtras>,
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// It was done, or met a stop string.
    Stop,
    /// It reached the limit of tokens.
    Length,
    /// The model server withheld the rest.
    ContentFilter,
    /// It calls tools.
    ToolCalls,
    /// It calls a function, in the shape before tools.
    FunctionCall,
}

impl FinishReason {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::ToolCalls => "tool_calls",
            Self::FunctionCall => "function_call",
        }
    }
}

/// What a model server sends beside an answer's text, as it came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beside {
    /// Fields of a delta other than `role` and `content`: `tool_calls`, `refusal`, `reasoning_content`, ...
    pub delta: Map<String, Value>,
    /// The choice's `logprobs`.
    pub logprobs: Option<Value>,
    /// Fields of the whole answer: `system_fingerprint`, `service_tier`.
    pub answer: Map<String, Value>,
}

impl Beside {
    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.delta.is_empty() && self.logprobs.is_none() && self.answer.is_empty()
    }
}

/// One step of an answer. A stream is any number of `Delta` and `Beside` and then exactly one `Finished`, or it ends with an error.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatEvent {
    /// The next piece of text; never empty, always whole characters.
    Delta(String),
    /// Something that is no text; never empty.
    Beside(Beside),
    /// Nothing follows.
    Finished {
        /// Why.
        reason: FinishReason,
        /// What it took; `None` where the model server did not say.
        usage: Option<TokenUsage>,
    },
}

/// An answer being written. Dropping it stops the writing.
pub type ChatStream = BoxStream<'static, Result<ChatEvent, Error>>;

/// Messages in, text out.
#[async_trait]
pub trait ChatModel: Send + Sync {
    /// Name of the model.
    fn id(&self) -> &str;
    /// Prompt and completion together fit in this many tokens.
    fn context_tokens(&self) -> usize;
    /// The model's own tokenizer.
    fn tokens(&self) -> Arc<dyn CountTokens>;
    /// Whether the model can do what the client wants beside text; [`Error::Unsupported`] names what it cannot do. Models over HTTP take everything: their server decides.
    fn check(&self, _extras: &ChatExtras) -> Result<(), Error> {
        Ok(())
    }
    /// Whether it has failed so often that nothing is sent to it now.
    fn is_resting(&self) -> bool {
        false
    }
    /// Starts an answer. An error here means that nothing was written; [`Error::Overloaded`] means that the queue is full.
    async fn chat(&self, request: ChatRequest) -> Result<ChatStream, Error>;
}
