use crate::access::Caller;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use groundtone_answer::Question;
use groundtone_index::Filter;
use groundtone_prompt::{PromptMessage, Role};
use groundtone_retrieval::{Basis, CondenseLimits, Error, Evidence, Explained, Request, Resolved, Retriever, Verdict, resolve};
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
    /// What is searched for by the rules, without a model.
    pub async fn by_rule(&self) -> Resolved {
        resolve(&self.query, &self.history, None, CondenseLimits::default()).await
    }

    /// Searches for what the question means.
    pub async fn find(
        &self,
        resolved: Resolved,
        retriever: &Retriever,
        tenant: &Tenant,
        collection: &Collection,
    ) -> Result<SearchHits, Error> {
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
    // As an answer would: the model is asked where the rules are unsure and the settings say so.
    let asked = body.history.iter().cloned().chain([PromptMessage::new(Role::User, &body.query)]).collect();
    let resolved = state.answerer.resolved(&Question::new(caller.tenant.clone(), asked)).await?;
    let found = body.find(resolved, state.answerer.retriever(), &caller.tenant, &state.answerer.assistant().collection).await;
    found.map(Json).map_err(|error| match error {
        Error::Filter(error) => ApiError::invalid("filter", error.to_string()),
        error => ApiError::of(error.kind(), &error),
    })
}
