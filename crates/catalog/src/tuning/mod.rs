//! Fine-tuning as the catalog remembers it: jobs with what happened to them, the rows they learned from, and the models they left.

mod datasets;
mod events;
mod jobs;
mod models;

pub use datasets::{DatasetDocument, DatasetRecord, DatasetSnippet};
pub use events::{CheckpointRecord, EventRecord, NewEvent, StepRecord};
pub use jobs::{HyperparameterChoice, JobError, JobRecord, JobStatus, PendingWebhook};
pub use models::{ModelRecord, PermissionRecord};
