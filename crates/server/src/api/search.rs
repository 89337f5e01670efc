use crate::access::Caller;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use groundtone_index::Filter;
use groundtone_prompt::PromptMessage;
use groundtone_retrieval::{Basis, CondenseLimits, Error, Evidence, Explained, Request, Retriever, Verdict, resolve};
use groundtone_types::{Collection, Tenant};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest question, in bytes.
const QUESTION_BYTES: usize = 16 * 1024;
/// Most snippets of one search.
const MOST_SNIPPETS: usize = 50;

/// What to search for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchBody {
    /// The question.
    pub query: String,
    /// The conversation before it, oldest first: a follow-up is searched for with what it leans on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PromptMessage>,
    /// What the documents' metadata must be ([`Filter::of_metadata`]).
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub filter: serde_json::Map<String, serde_json::Value>,
    /// How many snippets; as the settings say where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
}

/// What retrieval found, best first.
#[derive(Debug, Serialize, Deserialize)]
pub struct SearchHits {
    /// What was searched for.
    pub query: String,
    /// Who made it of the question.
    pub basis: Basis,
    /// The snippets.
    pub hits: Vec<Explained>,
    /// What speaks for an answer.
    pub evidence: Evidence,
    /// What the gate says; nothing where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

impl SearchBody {
    /// Searches. Follow-ups are rewritten by rule.
    pub async fn find(&self, retriever: &Retriever, tenant: &Tenant, collection: &Collection) -> Result<SearchHits, Error> {
        let resolved = resolve(&self.query, &self.history, None, CondenseLimits::default()).await;
        let filter = Filter::of_metadata(&self.filter)?;
        let top_k = self.top_k.map(|top_k| top_k.clamp(1, MOST_SNIPPETS));
        let request = Request { filter, top_k, ..Request::new(&resolved.question) };
        let found = retriever.search(tenant, collection, &request).await?;
        Ok(SearchHits {
            query: resolved.question,
            basis: resolved.basis,
            hits: found.hits,
            evidence: found.evidence,
            verdict: found.verdict,
        })
    }
}

/// What an answer would be built from.
pub(crate) async fn search(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<SearchBody>,
) -> Result<Json<SearchHits>, ApiError> {
    if body.query.trim().is_empty() || body.query.len() > QUESTION_BYTES {
        return Err(ApiError::invalid("query", format!("send a question of 1 to {QUESTION_BYTES} bytes")));
    }
    let found = body.find(state.answerer.retriever(), &caller.tenant, &state.answerer.assistant().collection).await;
    found.map(Json).map_err(|error| match error {
        Error::Filter(error) => ApiError::invalid("filter", error.to_string()),
        error => ApiError::of(error.kind(), &error),
    })
}
