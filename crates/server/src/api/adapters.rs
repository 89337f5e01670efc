//! `/v1/groundtone/models`: trained models as files of other programs, adapters of other programs as models, and where a model comes from.

use crate::access::Caller;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use groundtone_catalog::ModelRecord;
use groundtone_tuning::jobs::{ExportFormat, Exported, Lineage, NewAdapter};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// What is written where.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportBody {
    /// A trained model, a checkpoint or an alias.
    pub model: String,
    /// As what.
    pub format: ExportFormat,
    /// A folder of this machine that is not there yet, or is empty.
    pub to: PathBuf,
}

/// `POST /v1/groundtone/models/export`. The owner's: it writes where the server may write.
pub(crate) async fn export(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<ExportBody>,
) -> Result<Json<Exported>, ApiError> {
    absolute("to", &body.to)?;
    Ok(Json(state.tuning.export(&caller.tenant, &body.model, body.format, &body.to).await?))
}

/// `POST /v1/groundtone/models/import`. The owner's: it reads what the server may read.
pub(crate) async fn import(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<NewAdapter>,
) -> Result<Json<ModelRecord>, ApiError> {
    absolute("folder", &body.folder)?;
    Ok(Json(state.tuning.import_adapter(&caller.tenant, body).await?))
}

/// `GET /v1/groundtone/models/{id}/lineage`.
pub(crate) async fn lineage(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Lineage>, ApiError> {
    Ok(Json(state.tuning.lineage(&caller.tenant, &id).await?))
}

/// A relative path means something else to the server than to who sends it.
fn absolute(param: &'static str, path: &std::path::Path) -> Result<(), ApiError> {
    if path.is_absolute() { Ok(()) } else { Err(ApiError::invalid(param, "send an absolute path")) }
}
