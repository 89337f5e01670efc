use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use groundtone_retrieval::Explained;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest question, in bytes.
const QUESTION_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
pub(crate) struct SearchBody {
    query: String,
}

/// What retrieval found, best first.
#[derive(Debug, Serialize, Deserialize)]
pub struct SearchHits {
    /// The snippets.
    pub hits: Vec<Explained>,
}

/// What an answer would be built from.
pub(crate) async fn search(State(state): State<Arc<AppState>>, ApiJson(body): ApiJson<SearchBody>) -> Result<Json<SearchHits>, ApiError> {
    if body.query.trim().is_empty() || body.query.len() > QUESTION_BYTES {
        return Err(ApiError::invalid("query", format!("send a question of 1 to {QUESTION_BYTES} bytes")));
    }
    let assistant = state.answerer.assistant();
    let hits = state.answerer.retriever().explain(&state.tenant, &assistant.collection, &body.query).await;
    Ok(Json(SearchHits { hits: hits.map_err(|error| ApiError::of(error.kind(), &error))? }))
}
