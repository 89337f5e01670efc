//! Fine-tuning as the catalog remembers it: jobs with what happened to them, and the models they left.

mod events;
mod jobs;
mod models;

pub use events::{CheckpointRecord, EventRecord, NewEvent, StepRecord};
pub use jobs::{HyperparameterChoice, JobError, JobRecord, JobStatus, PendingWebhook};
pub use models::{ModelRecord, PermissionRecord};
