//! The one renderer: snippets and conversation in, messages and citation map out.
//!
//! Serving, the dataset builder and evaluation all call [`PromptContract::render`], so the bytes a model is trained on are the bytes it is served.
//! Nothing outside this crate holds a citation marker or a context separator; [`AnswerReader`] is the way back from text to sources,
//! and [`write_citations`] puts markers into an answer that a model is to learn.
//! This crate never retrieves, never calls a model and never reads a file.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod citations;
mod cite;
mod condense;
mod contract;
mod links;
mod marker;
mod message;
mod overlap;
mod pieces;
mod reader;
mod render;
mod sentences;
mod support;
mod tokens;

pub use citations::{Basis, Citation, CitationReport, CitationStatus, RemovedCitation, read_citations};
pub use cite::{Quote, quote_then_answer, strip_citations, write_citations};
pub use condense::condense_prompt;
pub use contract::{Fingerprint, PromptContract, TemplateVersion};
pub use links::LinkRule;
pub use message::{PromptMessage, Role};
pub use overlap::Support;
pub use reader::{AnswerReader, CitationPolicy, ReadingRules, Step};
pub use render::{DropReason, Dropped, Error, PromptInput, RenderedPrompt};
pub use sentences::statements;
pub use support::{Doubt, Groundedness};
pub use tokens::{CountTokens, OpenAiTokens};
