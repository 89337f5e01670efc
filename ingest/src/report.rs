use groundtone_types::DocumentId;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A document that was not ingested, and why. What was stored of it before stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Where it is.
    pub path: PathBuf,
    /// Why, to follow the path in a sentence: `is a binary file`.
    pub reason: String,
}

/// What a run did. `new + changed + unchanged + rejected` is the number of files found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Files found with an ending that is read.
    pub found: usize,
    /// Documents stored for the first time.
    pub new: usize,
    /// Documents stored again.
    pub changed: usize,
    /// Documents left alone.
    pub unchanged: usize,
    /// Documents removed because they left the source.
    pub removed: usize,
    /// Documents in the catalog that the source no longer has, and that stay because pruning was not asked for.
    pub missing: Vec<DocumentId>,
    /// Files that were not ingested.
    pub rejected: Vec<Rejection>,
    /// Files passed over because of their ending.
    pub ignored: usize,
    /// Chunks stored.
    pub chunks: usize,
    /// Their tokens, by the embedder's tokenizer.
    pub tokens: usize,
    /// Calls of the embedder.
    pub embed_calls: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Seconds from start to end.
    pub seconds: f64,
}

/// Which step a run is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading, cutting, embedding, storing.
    Documents,
    /// Making the index durable and fast.
    Settling,
}

/// How far a run is. Bytes tell the share that is done, because the number of chunks is known only at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which step.
    pub stage: Stage,
    /// Bytes of the documents that are through.
    pub bytes_done: u64,
    /// Bytes of all documents found.
    pub bytes_total: u64,
    /// Documents that are through.
    pub documents: usize,
    /// Chunks stored.
    pub chunks: usize,
}
