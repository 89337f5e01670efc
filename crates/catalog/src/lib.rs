//! The ledger: which documents are indexed, from what, and the runs that indexed them.
//!
//! [`DataDirectory`] is the one folder of an installation, held by one process at a time; [`Catalog`] is the SQLite database in it, [`EmbeddingCache`] another that may be lost.
//! The clock is passed in. This crate never touches the vector store: it notes which points must go, and is told when they are gone.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod directory;
mod documents;
mod embeddings;
mod error;
mod evaluations;
mod file_store;
mod files;
mod handoffs;
mod keys;
mod ledger;
mod quarantine;
mod releases;
mod runs;
mod schema;
mod traces;
mod tuning;
mod uploads;
mod vector_stores;

pub use directory::{DataDirectory, Holder};
pub use documents::{DocumentRecord, Publication};
pub use embeddings::{EmbeddingCache, EmbeddingKey};
pub use error::Error;
pub use evaluations::{EvaluatedArm, EvaluationRecord};
pub use file_store::{FileLimits, FileStore, Incoming, NewFile};
pub use files::{FileRecord, Page};
pub use handoffs::{HandoffRecord, HandoffState};
pub use keys::{AuditRecord, KeyLimits, KeyRecord, Used};
pub use ledger::{Catalog, CollectionRecord};
pub use quarantine::Quarantined;
pub use releases::{ReleaseEvent, ReleaseRecord};
pub use runs::RunRecord;
pub use traces::{Feedback, Outcome, Retention, Thumb, TraceFilter, TraceRecord, TracedSnippet};
pub use tuning::{
    CheckpointRecord, DatasetDocument, DatasetRecord, DatasetSnippet, EventRecord, HyperparameterChoice, JobError, JobRecord, JobStatus,
    ModelRecord, NewEvent, PendingWebhook, PermissionRecord, StepRecord,
};
pub use uploads::{PartRecord, UploadError, UploadRecord, UploadStatus};
pub use vector_stores::{StoreFileRecord, StoreFileStatus, StoreRecord};
