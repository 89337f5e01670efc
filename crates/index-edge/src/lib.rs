//! Qdrant Edge in this process: the index that needs no server.
//!
//! One folder below the root for each collection. Qdrant Edge blocks and has no background work, so queries run on blocking threads behind a semaphore,
//! writes go one at a time and are flushed before they are acknowledged, and [`settle`](groundtone_index::VectorIndex::settle) optimizes.
//! This is the only crate that knows `qdrant-edge`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod aliases;
mod bm25;
mod edge;
mod payload;

pub use bm25::Bm25;
pub use edge::{EdgeIndex, EdgeSettings};
