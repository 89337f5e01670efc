//! The one renderer: snippets and conversation in, messages and citation map out.
//!
//! Serving, the dataset builder and evaluation all call [`PromptContract::render`], so the bytes a model is trained on are the bytes it is served.
//! Nothing outside this crate holds a citation marker or a context separator; [`read_citations`] is the way back from text to sources,
//! and [`write_citations`] puts markers into an answer that a model is to learn.
//! This crate never retrieves, never calls a model and never reads a file.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod citations;
mod cite;
mod contract;
mod message;
mod overlap;
mod render;
mod tokens;

pub use citations::{Basis, Citation, CitationReport, read_citations};
pub use cite::{Quote, quote_then_answer, strip_citations, write_citations};
pub use contract::{Fingerprint, PromptContract, TemplateVersion};
pub use message::{PromptMessage, Role};
pub use overlap::Support;
pub use render::{DropReason, Dropped, Error, PromptInput, RenderedPrompt};
pub use tokens::{CountTokens, OpenAiTokens};
