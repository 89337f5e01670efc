//! The nouns of Groundtone and their invariants.
//!
//! Names come in as strings and leave as types that cannot be wrong: a [`Tenant`], a [`Collection`], a [`DocumentId`].
//! This crate never does I/O, never awaits and never reads the clock.

mod metadata;
mod names;
mod personal;
mod scope;
mod text;
mod vectors;

pub use metadata::{Metadata, MetadataError, MetadataValue};
pub use names::{Collection, DocumentId, NameError, Tenant};
pub use personal::{PersonalData, PersonalKind, find_personal_data, redact_personal_data};
pub use scope::{Scope, UnknownScope};
pub use text::{Chunk, ContentHash, Parent, Snippet, Span};
pub use vectors::cosine;

use serde::{Deserialize, Serialize};

/// How a failure should be answered, whatever crate it came from. Only the server turns kinds into status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller sent something that cannot be served as it is.
    InvalidRequest,
    /// What was asked for is not there.
    NotFound,
    /// What was asked for contradicts what is stored.
    Conflict,
    /// The caller's key is missing, unknown or not allowed to do this.
    Unauthorized,
    /// A queue or a limit is full; the same call may pass later.
    Overloaded,
    /// A model server or a store did not answer.
    Unavailable,
    /// It took longer than its time limit.
    Timeout,
    /// A defect of ours.
    Internal,
}

impl ErrorKind {
    /// Its name in logs and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Unauthorized => "unauthorized",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

/// Tokens read and written for one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Tokens of the prompt, all messages and template included.
    pub prompt_tokens: u64,
    /// How many of them were still in the KV cache and were not computed again.
    pub cached_tokens: u64,
    /// Tokens that the model wrote.
    pub completion_tokens: u64,
    /// How many of them it thought with; they are not in the answer.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

impl TokenUsage {
    /// Prompt and completion together.
    pub fn total(&self) -> u64 {
        self.prompt_tokens + self.completion_tokens
    }
}
