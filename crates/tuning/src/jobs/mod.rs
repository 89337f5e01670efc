//! Fine-tuning jobs: a durable queue in the catalog, and the scheduler that trains one after the other.
//!
//! What may follow what is a table ([`transition`]). Every change of a job is one transaction of the catalog together with its events, made only if the job still has the status
//! that was seen. A job that was running when the process ended is queued again and goes on from its last checkpoint; the name of its model and the id of its result file were
//! chosen when it was made, so it ends with one of each.

mod adapters;
mod check;
mod error;
mod lineage;
mod progress;
mod resources;
mod result;
mod run;
mod service;
mod state;
mod watch;
mod webhook;

pub use adapters::{ExportFormat, Exported, NewAdapter};
pub use check::{CheckRows, FileProblem, PlainCheck};
pub use error::JobsError;
pub use lineage::{DocumentOrigin, DocumentState, JobOrigin, Lineage};
pub use resources::Resources;
pub use result::result_csv;
pub use service::{Jobs, JobsSettings, NewJob, Parts, open_tuned};
pub use state::{IllegalTransition, JobEvent, transition};

use crate::{TrainError, Trainer};
use async_trait::async_trait;
use groundtone_catalog::ModelRecord;
use groundtone_provider::ChatModel;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where trainers come from.
pub trait Workshop: Send + Sync {
    /// Names of base models that clients may send, in the configuration's order.
    fn names(&self) -> Vec<String>;

    /// The model that a client's name stands for; `None` for a name that the configuration does not map.
    fn trained_model(&self, name: &str) -> Option<String>;

    /// A trainer of this model. Blocks while it looks at the model's files.
    ///
    /// # Errors
    /// A model that cannot be trained, or whose files are missing.
    fn trainer(&self, model: &str) -> Result<Arc<dyn Trainer>, TrainError>;

    /// The GGUF file of a model; `None` where its weights are somewhere else.
    fn model_file(&self, model: &str) -> Option<PathBuf>;
}

/// What an adapter is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterKind {
    /// A file that llama.cpp applies to a base model.
    Gguf,
    /// A folder as PEFT saves one.
    Peft,
}

/// Where trained models answer.
#[async_trait]
pub trait Shelf: Send + Sync {
    /// What adapters are kept as, so that they can be loaded here.
    fn adapter_kind(&self) -> AdapterKind {
        AdapterKind::Gguf
    }

    /// The model with this adapter, loaded if it is not yet. `id` is unique among tenants.
    ///
    /// # Errors
    /// An adapter or a base model that cannot be loaded.
    async fn open(&self, id: &str, model: &ModelRecord, adapter: &Path) -> Result<Arc<dyn ChatModel>, groundtone_provider::Error>;

    /// A base model as it is, loaded if it is not yet.
    ///
    /// # Errors
    /// It cannot be loaded.
    async fn open_base(&self, model: &str) -> Result<Arc<dyn ChatModel>, groundtone_provider::Error>;

    /// Unloads it.
    async fn forget(&self, id: &str);
}

/// Files of gigabytes are read and written away from the runtime's threads.
async fn blocking_adapter<T: Send + 'static>(work: impl FnOnce() -> Result<T, JobsError> + Send + 'static) -> Result<T, JobsError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| TrainError::Compute(error.to_string()))?
}
