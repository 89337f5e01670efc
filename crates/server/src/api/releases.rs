use crate::access::Caller;
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiJson};
use crate::releases::{ReleaseBody, ReleaseError, ReleaseStatus, RollbackBody};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

fn answered(result: Result<ReleaseStatus, ReleaseError>) -> Result<Json<ReleaseStatus>, ApiError> {
    result.map(Json).map_err(|error| ApiError::of(error.kind(), &error))
}

/// Who does it, for the history: the key's id; `operator` where no key is needed.
fn actor(caller: &Caller) -> String {
    caller.key_id().unwrap_or_else(|| "operator".to_owned())
}

/// `GET /v1/groundtone/releases`: what answers, what was released, and what was done.
pub(crate) async fn status(State(state): State<Arc<AppState>>) -> Result<Json<ReleaseStatus>, ApiError> {
    answered(state.releases.status().await)
}

/// `POST /v1/groundtone/releases/promote`: the next question is answered by another variant. Answers that have begun go on as they began.
pub(crate) async fn promote(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<ReleaseBody>,
) -> Result<Json<ReleaseStatus>, ApiError> {
    answered(state.releases.promote(&body, &actor(&caller), unix_now()).await)
}

/// `POST /v1/groundtone/releases/canary`: a share of the conversations is.
pub(crate) async fn canary(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<ReleaseBody>,
) -> Result<Json<ReleaseStatus>, ApiError> {
    answered(state.releases.canary(&body, &actor(&caller), unix_now()).await)
}

/// `POST /v1/groundtone/releases/rollback`.
pub(crate) async fn rollback(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<RollbackBody>,
) -> Result<Json<ReleaseStatus>, ApiError> {
    answered(state.releases.rollback(&body, &actor(&caller), unix_now()).await)
}
