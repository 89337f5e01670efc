use crate::access::Caller;
use crate::api::files::catalog_failed;
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiQuery};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use groundtone_catalog::{HandoffRecord, HandoffState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// Messages of one page, where the client does not say, and at most.
const DEFAULT_HANDOFFS: u32 = 50;
const MOST_HANDOFFS: u32 = 500;

/// Which messages.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HandoffQuery {
    #[serde(default)]
    state: Option<HandoffState>,
    #[serde(default)]
    limit: Option<u32>,
}

/// Messages, newest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandoffList {
    /// What waits, and what was given up.
    pub handoffs: Vec<HandoffRecord>,
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no handoff `{id}` that was given up")).param("id")
}

/// `GET /v1/groundtone/handoffs`: questions whose webhook is on its way, or was given up.
pub(crate) async fn list(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<HandoffQuery>,
) -> Result<Json<HandoffList>, ApiError> {
    if let Some(handoffs) = &state.handoffs {
        handoffs.flush().await;
    }
    let limit = query.limit.unwrap_or(DEFAULT_HANDOFFS).clamp(1, MOST_HANDOFFS);
    let handoffs = state.documents.catalog.handoffs(&caller.tenant, query.state, limit).await.map_err(|error| catalog_failed(&error))?;
    Ok(Json(HandoffList { handoffs }))
}

/// `POST /v1/groundtone/handoffs/{id}/retry`: one that was given up is sent again, with all of its attempts.
pub(crate) async fn retry(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let found = state.documents.catalog.retry_handoff(&caller.tenant, &id, unix_now()).await.map_err(|error| catalog_failed(&error))?;
    if !found {
        return Err(unknown(&id));
    }
    if let Some(handoffs) = &state.handoffs {
        handoffs.wake();
    }
    Ok(Json(json!({"id": id, "state": HandoffState::Waiting})))
}

/// `DELETE /v1/groundtone/handoffs/{id}`: somebody has looked after it.
pub(crate) async fn delete(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let removed = state.documents.catalog.remove_handoff(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))?;
    if removed { Ok(Json(json!({"id": id, "deleted": true}))) } else { Err(unknown(&id)) }
}
