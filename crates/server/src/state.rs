use crate::auth::AccessPolicy;
use groundtone_answer::Answerer;
use groundtone_provider::Embedder;
use groundtone_types::Tenant;
use std::sync::Arc;
use std::time::Duration;

/// What a request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest body of a request.
    pub max_body_bytes: usize,
    /// Longest time from a request to the end of its answer.
    pub request_timeout: Duration,
    /// Most texts in one call of `/v1/embeddings`.
    pub max_embedding_inputs: usize,
    /// How long running answers may finish after a stop signal.
    pub drain: Duration,
}

/// Everything the handlers share.
pub struct AppState {
    /// Answers questions.
    pub answerer: Answerer,
    /// Behind `/v1/embeddings`.
    pub embedder: Arc<dyn Embedder>,
    /// Who may call.
    pub access: AccessPolicy,
    /// Whose documents are searched.
    pub tenant: Tenant,
    /// What a request may cost.
    pub limits: Limits,
    /// Unix seconds; `created` in the list of models.
    pub started_at: i64,
}
