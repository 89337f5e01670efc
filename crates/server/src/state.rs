use crate::access::AccessPolicy;
use crate::api::responses::ResponseStore;
use crate::handoff::Handoffs;
use crate::recorder::Recorder;
use crate::releases::Releases;
use groundtone_answer::Answerer;
use groundtone_catalog::{Catalog, FileStore};
use groundtone_ingest::{IngestSettings, Ingester, SourceSettings};
use groundtone_provider::{AnswerCache, Embedder};
use groundtone_telemetry::Metrics;
use groundtone_tuning::jobs::Jobs;
use std::sync::Arc;
use std::time::Duration;

/// What a request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest body of a request.
    pub max_body_bytes: usize,
    /// Largest document that is pushed.
    pub max_document_bytes: usize,
    /// Largest file of training rows.
    pub max_training_bytes: usize,
    /// Bytes of all files of a tenant: an upload that is larger is refused before its first part.
    pub upload_quota_bytes: u64,
    /// Longest time from a request to the end of its answer.
    pub request_timeout: Duration,
    /// Most vector stores of a tenant, beside the assistant's own collection.
    pub max_vector_stores: u32,
    /// Most texts in one call of `/v1/embeddings`.
    pub max_embedding_inputs: usize,
    /// How long running answers may finish after a stop signal.
    pub drain: Duration,
}

/// Stores documents that clients push; one at a time.
pub struct Documents {
    /// Stores them.
    pub ingester: Ingester,
    /// What is stored.
    pub catalog: Arc<Catalog>,
    /// Where they go and how they are cut; run, source and time are each request's own.
    pub settings: IngestSettings,
    /// How sources are read.
    pub sources: SourceSettings,
    /// Whose turn it is.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

/// Everything the handlers share.
pub struct AppState {
    /// Answers questions.
    pub answerer: Answerer,
    /// Behind `/v1/groundtone/releases`.
    pub releases: Releases,
    /// Behind `/v1/groundtone/documents`.
    pub documents: Documents,
    /// Behind `/v1/files`.
    pub files: Arc<FileStore>,
    /// One upload at a time is put together or called off.
    pub uploads: tokio::sync::Mutex<()>,
    /// One dataset is built at a time.
    pub building: Arc<tokio::sync::Mutex<()>>,
    /// Behind `/v1/fine_tuning/`; also who answers as `ft:...`.
    pub tuning: Arc<Jobs>,
    /// Behind `/v1/responses`.
    pub responses: ResponseStore,
    /// Behind `/v1/embeddings`.
    pub embedder: Arc<dyn Embedder>,
    /// Who may call, and how much.
    pub access: AccessPolicy,
    /// Keeps traces.
    pub recorder: Arc<Recorder>,
    /// Hands questions over to people that are not answered; `None` where nobody takes them.
    pub handoffs: Option<Arc<Handoffs>>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Whole answers that are remembered; `None` where none are.
    pub answers: Option<Arc<AnswerCache>>,
    /// What a request may cost.
    pub limits: Limits,
    /// Unix seconds; `created` in the list of models.
    pub started_at: i64,
}
