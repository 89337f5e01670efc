//! Exact wire types of the OpenAI API, used by our server and by our client; never stored.
//!
//! Requests keep fields that we do not know in `rest`, so that nothing a client sends is dropped without a trace.
//! Reference: OpenAI API reference, `chat/completions`, `responses`, `embeddings`, `models`, `files`, `uploads`, `fine_tuning`, `vector_stores`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod chat;
mod embeddings;
mod files;
mod fine_tuning;
mod responses;
mod uploads;
mod vector_stores;

pub use chat::*;
pub use embeddings::*;
pub use files::*;
pub use fine_tuning::*;
pub use responses::*;
pub use uploads::*;
pub use vector_stores::*;

use serde::{Deserialize, Serialize};

/// The body of every error: `{"error": {"message", "type", "param", "code"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorObject,
}

/// What is inside [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// A sentence for a person.
    pub message: String,
    /// `invalid_request_error`, `rate_limit_error`, `server_error`, ...
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The request's field that is wrong.
    #[serde(default)]
    pub param: Option<String>,
    /// A word for a program.
    #[serde(default)]
    pub code: Option<serde_json::Value>,
}

/// `GET /v1/models`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models.
    pub data: Vec<Model>,
}

/// One model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Model {
    /// What a request names.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// Unix seconds.
    pub created: i64,
    /// Whose it is.
    pub owned_by: String,
    /// When it stops answering, as a date; `None` for a model that stays.
    #[serde(default)]
    pub shutdown_date: Option<String>,
}
