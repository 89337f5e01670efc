use crate::access::Caller;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use groundtone_catalog::EvaluationRecord;
use serde::Serialize;
use std::sync::Arc;

/// Evaluations that a list shows at most.
const MOST: u32 = 100;

/// The latest evaluations.
#[derive(Debug, Serialize)]
pub(crate) struct EvaluationList {
    /// Newest first.
    data: Vec<EvaluationRecord>,
}

fn failed(error: &groundtone_catalog::Error) -> ApiError {
    ApiError::of(groundtone_types::ErrorKind::Internal, error)
}

/// `POST /v1/groundtone/evaluations`: keeps what `groundtone eval run` found out about this server. An id that is there already is refused.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(record): ApiJson<EvaluationRecord>,
) -> Result<(StatusCode, Json<EvaluationRecord>), ApiError> {
    let catalog = &state.documents.catalog;
    if record.id.is_empty() || record.id.len() > 64 {
        return Err(ApiError::invalid("id", "`id` must have 1 to 64 characters"));
    }
    if catalog.evaluation(&caller.tenant, &record.id).await.map_err(|error| failed(&error))?.is_some() {
        return Err(ApiError::invalid("id", format!("there is an evaluation `{}` already; one is never replaced", record.id)));
    }
    catalog.put_evaluation(&caller.tenant, &record).await.map_err(|error| failed(&error))?;
    Ok((StatusCode::CREATED, Json(record)))
}

/// `GET /v1/groundtone/evaluations`: the latest, without their reports.
pub(crate) async fn list(State(state): State<Arc<AppState>>, caller: Caller) -> Result<Json<EvaluationList>, ApiError> {
    let mut data = state.documents.catalog.evaluations(&caller.tenant, MOST).await.map_err(|error| failed(&error))?;
    data.iter_mut().for_each(|record| record.report.clear());
    Ok(Json(EvaluationList { data }))
}

/// `GET /v1/groundtone/evaluations/{id}`: one, with its report.
pub(crate) async fn retrieve(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<EvaluationRecord>, ApiError> {
    let found = state.documents.catalog.evaluation(&caller.tenant, &id).await.map_err(|error| failed(&error))?;
    found.map(Json).ok_or_else(|| ApiError::not_found(format!("there is no evaluation `{id}`")))
}
