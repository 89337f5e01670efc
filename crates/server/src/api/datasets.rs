//! `/v1/groundtone/datasets`: what uploaded training rows were made of. Lineage rests on it.

use crate::access::Caller;
use crate::api::files::catalog_failed;
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use groundtone_catalog::{DatasetDocument, DatasetRecord};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// Length of a SHA-256 in hexadecimal.
const HASH_DIGITS: usize = 64;

/// What rows were made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetBody {
    /// The dataset builder's manifest.
    pub manifest: Value,
    /// The documents whose snippets stand in the rows.
    pub documents: Vec<DatasetDocument>,
}

/// `GET /v1/groundtone/datasets/{sha256}`.
pub(crate) async fn retrieve(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(sha256): Path<String>,
) -> Result<Json<DatasetRecord>, ApiError> {
    let found = state.documents.catalog.dataset(&caller.tenant, &sha256).await.map_err(|error| catalog_failed(&error))?;
    found
        .map(Json)
        .ok_or_else(|| ApiError::not_found(format!("no manifest of rows with the hash `{sha256}` is here")).code("dataset_not_found"))
}

/// `PUT /v1/groundtone/datasets/{sha256}`: `sha256` is that of the rows, which the manifest must name too.
pub(crate) async fn put(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(sha256): Path<String>,
    ApiJson(body): ApiJson<DatasetBody>,
) -> Result<Json<DatasetRecord>, ApiError> {
    let is_hash = sha256.len() == HASH_DIGITS && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash || body.manifest["file"]["sha256"] != sha256.as_str() {
        return Err(ApiError::invalid("manifest", format!("the manifest is not that of rows with the hash `{sha256}`")));
    }
    let record = DatasetRecord { sha256, created_at: unix_now(), manifest: body.manifest, documents: body.documents };
    let kept = state.documents.catalog.put_dataset(&caller.tenant, &record, state.limits.upload_quota_bytes).await;
    kept.map_err(|error| catalog_failed(&error))?;
    Ok(Json(record))
}
