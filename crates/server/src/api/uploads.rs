//! `/v1/uploads`: large files in parts.

use crate::access::Caller;
use crate::api::files::{self, bad_form, catalog_failed, check_file, check_purpose, clean_name, expiry};
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Multipart, Path, State};
use axum::http::StatusCode;
use groundtone_catalog::{UploadError, UploadRecord, UploadStatus};
use groundtone_openai_api::{CompleteUploadRequest, Upload, UploadPart, UploadRequest};
use groundtone_types::Tenant;
use std::sync::Arc;
use uuid::Uuid;

/// Largest file that comes in parts, and largest part; OpenAI's own limits.
const MOST_BYTES: u64 = 8 << 30;
pub(crate) const MOST_PART_BYTES: usize = 64 << 20;
/// How long an upload may take, in seconds.
const EXPIRES: i64 = 3600;
/// Most uploads of a tenant that take parts, and most parts of one.
const MOST_OPEN: u64 = 100;
const MOST_PARTS: usize = 10_000;

async fn wire(state: &AppState, tenant: &Tenant, upload: UploadRecord) -> Result<Upload, ApiError> {
    let file = match &upload.file {
        Some(id) => state.documents.catalog.file(tenant, id).await.map_err(|error| catalog_failed(&error))?,
        None => None,
    };
    Ok(Upload {
        id: upload.id,
        object: "upload".to_owned(),
        bytes: upload.bytes,
        created_at: upload.created_at,
        filename: upload.filename,
        purpose: upload.purpose,
        status: upload.status.as_str().to_owned(),
        expires_at: upload.expires_at,
        file: file.map(files::wire),
    })
}

async fn found(state: &AppState, tenant: &Tenant, id: &str) -> Result<UploadRecord, ApiError> {
    state.files.expire_uploads(unix_now()).await.map_err(|error| catalog_failed(&error))?;
    let upload = state.documents.catalog.upload(tenant, id).await.map_err(|error| catalog_failed(&error))?;
    upload.ok_or_else(|| ApiError::not_found(format!("there is no upload `{id}`")).param("upload_id"))
}

/// An upload that still takes parts. One that is over is an invalid request and no conflict, which the SDKs would send again.
async fn pending(state: &AppState, tenant: &Tenant, id: &str) -> Result<UploadRecord, ApiError> {
    let upload = found(state, tenant, id).await?;
    match upload.status {
        UploadStatus::Pending => Ok(upload),
        status => Err(ApiError::invalid("upload_id", format!("upload `{id}` is {} and cannot be changed", status.as_str()))),
    }
}

/// `POST /v1/uploads`.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(request): ApiJson<UploadRequest>,
) -> Result<Json<Upload>, ApiError> {
    check_purpose(&request.purpose)?;
    let filename = clean_name(&request.filename);
    let most = MOST_BYTES.min(state.limits.upload_quota_bytes);
    if !(1..=most).contains(&request.bytes) {
        return Err(ApiError::invalid("bytes", format!("`bytes` must be between 1 and {most}")));
    }
    check_file(&state, &request.purpose, &filename, request.bytes)?;
    if request.mime_type.trim().is_empty() {
        return Err(ApiError::invalid("mime_type", "send the file's MIME type: `text/jsonl` for training rows"));
    }
    let now = unix_now();
    let expires_after = request.expires_after.map(|after| expiry(&after.anchor, after.seconds)).transpose()?;
    state.files.expire_uploads(now).await.map_err(|error| catalog_failed(&error))?;
    let open = state.documents.catalog.open_uploads(&caller.tenant).await.map_err(|error| catalog_failed(&error))?;
    if open >= MOST_OPEN {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("{open} uploads are open, and this server takes {MOST_OPEN}; complete or cancel some"),
        ));
    }
    let upload = UploadRecord {
        id: format!("upload_{}", Uuid::now_v7().simple()),
        filename,
        purpose: request.purpose,
        mime_type: request.mime_type.chars().take(255).collect(),
        bytes: request.bytes,
        created_at: now,
        expires_at: now + EXPIRES,
        expires_after,
        status: UploadStatus::Pending,
        file: None,
    };
    state.documents.catalog.put_upload(&caller.tenant, &upload).await.map_err(|error| catalog_failed(&error))?;
    Ok(Json(wire(&state, &caller.tenant, upload).await?))
}

/// `POST /v1/uploads/{id}/parts`: multipart with `data`. Parts may come at the same time; their order is said at the end.
pub(crate) async fn add_part(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    mut form: Multipart,
) -> Result<Json<UploadPart>, ApiError> {
    let upload = pending(&state, &caller.tenant, &id).await?;
    let parts = state.documents.catalog.parts(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))?;
    if parts.len() >= MOST_PARTS {
        return Err(ApiError::invalid("data", format!("an upload has at most {MOST_PARTS} parts")));
    }
    let taken: u64 = parts.iter().map(|part| part.bytes).sum();
    while let Some(mut field) = form.next_field().await.map_err(|error| bad_form(&error))? {
        if field.name() != Some("data") {
            continue;
        }
        let mut incoming = state.files.receive(&caller.tenant).await.map_err(|error| catalog_failed(&error))?;
        while let Some(bytes) = field.chunk().await.map_err(|error| bad_form(&error))? {
            if incoming.len() + bytes.len() as u64 > MOST_PART_BYTES as u64 {
                return Err(ApiError::invalid("data", format!("a part has at most {MOST_PART_BYTES} bytes")));
            }
            if taken + incoming.len() + bytes.len() as u64 > upload.bytes {
                return Err(ApiError::invalid("data", format!("the upload was created for {} bytes, and this is more", upload.bytes)));
            }
            incoming.write(&bytes).await.map_err(|error| catalog_failed(&error).param("data"))?;
        }
        if incoming.is_empty() {
            return Err(ApiError::invalid("data", "the part is empty"));
        }
        // Called off while the bytes came in.
        pending(&state, &caller.tenant, &id).await?;
        let part = state.files.keep_part(&caller.tenant, &upload, incoming, unix_now()).await.map_err(|error| catalog_failed(&error))?;
        let object = "upload.part".to_owned();
        return Ok(Json(UploadPart { id: part.id, object, created_at: part.created_at, upload_id: id }));
    }
    Err(ApiError::invalid("data", "send `data`"))
}

/// `POST /v1/uploads/{id}/complete`.
pub(crate) async fn complete(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiJson(request): ApiJson<CompleteUploadRequest>,
) -> Result<Json<Upload>, ApiError> {
    let _turn = state.uploads.lock().await;
    let upload = pending(&state, &caller.tenant, &id).await?;
    let done = state.files.complete_upload(&caller.tenant, &upload, &request.part_ids, request.md5.as_deref(), unix_now()).await;
    match done {
        Ok(_) => {}
        Err(UploadError::Store(error)) => return Err(catalog_failed(&error)),
        Err(error @ UploadError::Checksum(_)) => return Err(ApiError::invalid("md5", error.to_string())),
        Err(error) => return Err(ApiError::invalid("part_ids", error.to_string())),
    }
    let upload = found(&state, &caller.tenant, &id).await?;
    Ok(Json(wire(&state, &caller.tenant, upload).await?))
}

/// `POST /v1/uploads/{id}/cancel`.
pub(crate) async fn cancel(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Upload>, ApiError> {
    let _turn = state.uploads.lock().await;
    let upload = pending(&state, &caller.tenant, &id).await?;
    state.files.end_upload(&caller.tenant, &upload, UploadStatus::Cancelled, None).await.map_err(|error| catalog_failed(&error))?;
    let upload = UploadRecord { status: UploadStatus::Cancelled, ..upload };
    Ok(Json(wire(&state, &caller.tenant, upload).await?))
}
