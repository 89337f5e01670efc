//! Documents in, searchable chunks out: source -> extract (parse) -> chunk -> embed -> store.
//!
//! A document that cannot be read or parsed is rejected with a reason and costs only itself; documents in and documents in the report add up.
//! Unchanged documents cost no embedding call and no write; of a changed one only the chunks that changed are embedded. This crate never answers a question.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod chunk;
mod decode;
mod embed;
mod error;
pub mod extract;
mod flags;
mod fsck;
mod generations;
mod order;
pub mod parse;
mod plan;
mod prepare;
mod publish;
mod report;
mod run;
pub mod source;

pub use chunk::{ChunkSettings, Cut, Origin, chunk_document};
pub use error::Error;
pub use flags::Flag;
pub use fsck::Drift;
pub use generations::Generation;
pub use order::{Order, OrderEvent, source_name};
pub use plan::{Decision, Known, decide};
pub use publish::Receipt;
pub use report::{Flagged, Progress, Rejection, Report, Stage, StageSeconds};
pub use run::{Build, IngestSettings, Ingester};
pub use source::{Offer, Source, SourceContent, SourceItem, SourceSettings};
