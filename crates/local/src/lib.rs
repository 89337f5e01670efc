//! Models in this process: the embedder and the reranker (rten), the chat model (llama.cpp), and the files they are made of.
//!
//! They implement the traits of `provider`, so nothing else knows whether a model runs here or elsewhere. Threads are capped, queues are bounded,
//! and nothing blocks the async runtime. Files come from the Hugging Face hub or out of a Python package; their SHA-256 is pinned either way.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod bert;
mod embedder;
mod fetch;
mod files;
mod llama;
mod reranker;

pub use embedder::LocalEmbedder;
pub use fetch::{FetchPolicy, PullProgress};
pub use files::{Error, FileState, KNOWN_MODELS, ModelFile, ModelStore, PinnedModel};
pub use llama::{Answer, ChatTokenizer, ChatTokens, LlamaChat, LlamaSettings};
pub use reranker::{LocalReranker, RerankerSettings};

/// Cores that this process may use.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
