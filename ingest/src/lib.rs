//! Documents in, searchable chunks out: source -> extract (parse) -> chunk -> embed -> store.
//!
//! A document that cannot be read or parsed is rejected with a reason and costs only itself; documents in and documents in the report add up.
//! Unchanged documents cost no embedding call and no write. This crate never answers a question.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod chunk;
mod decode;
mod error;
pub mod extract;
pub mod parse;
mod plan;
mod report;
mod run;
mod source;

pub use chunk::{ChunkSettings, chunk_document};
pub use error::Error;
pub use plan::{Decision, decide};
pub use report::{Progress, Rejection, Report, Stage};
pub use run::{IngestSettings, Ingester};
pub use source::{SourceFile, list_files};
