//! `/v1/fine_tuning/`: jobs, what happened to them, and their checkpoints.

mod permissions;
mod request;
mod wire;

pub(crate) use permissions::{create as grant, delete as revoke, list as permissions};

use crate::access::Caller;
use crate::api::files::{catalog_failed, keep_page};
use crate::error::{ApiError, ApiJson, ApiQuery};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use groundtone_catalog::Page;
use groundtone_openai_api::{FineTuningCheckpoint, FineTuningEvent, FineTuningJob, FineTuningJobRequest, ListPage, PlainPage};
use groundtone_tuning::jobs::JobsError;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Most jobs, events or checkpoints of one page.
const MOST_ITEMS: u32 = 1_000;
/// Jobs and events of a page where the client does not say.
const DEFAULT_ITEMS: u32 = 20;
/// Checkpoints and permissions of a page where the client does not say.
const DEFAULT_CHECKPOINTS: u32 = 10;
/// Longest idempotency key.
const KEY_CHARS: usize = 255;

impl From<JobsError> for ApiError {
    fn from(error: JobsError) -> Self {
        let api = Self::of(error.kind(), &error);
        match error {
            JobsError::NotFound { .. } => api.param("fine_tuning_job_id").code("fine_tuning_job_not_found"),
            JobsError::Model { .. } => api.param("model").code("model_not_available"),
            JobsError::NoModel { .. } => api.code("model_not_found"),
            JobsError::File { param, .. } => api.param(param).code("invalid_file"),
            JobsError::Status { .. } => api.code("invalid_job_status"),
            _ => api,
        }
    }
}

/// Cursor and size of a page.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PageQuery {
    after: Option<String>,
    limit: Option<u32>,
}

impl PageQuery {
    /// Newest first, with one item more than the limit: it says whether there is a next page.
    fn page(&self, default: u32) -> Result<Page<'_>, ApiError> {
        let limit = self.limit.unwrap_or(default);
        if !(1..=MOST_ITEMS).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("`limit` must be between 1 and {MOST_ITEMS}")));
        }
        Ok(Page { after: self.after.as_deref(), limit: limit + 1, ascending: false })
    }
}

/// `POST /v1/fine_tuning/jobs`. With `Idempotency-Key` the same request makes one job however often it is sent.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    headers: HeaderMap,
    ApiJson(body): ApiJson<FineTuningJobRequest>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let key = match headers.get("idempotency-key").map(|value| value.to_str()) {
        None => None,
        Some(Ok(key)) if (1..=KEY_CHARS).contains(&key.len()) => Some(key),
        Some(_) => return Err(ApiError::invalid("Idempotency-Key", format!("send 1 to {KEY_CHARS} ASCII characters"))),
    };
    let fingerprint = serde_json::to_vec(&body).map(|bytes| hex::encode(Sha256::digest(bytes))).unwrap_or_default();
    let new = request::new_job(body)?;
    let job = state.tuning.create(&caller.tenant, new, key.map(|key| (key, fingerprint.as_str()))).await?;
    Ok(Json(wire::job(job, &caller.tenant)))
}

/// `GET /v1/fine_tuning/jobs`, with `metadata[k]=v` as often as wanted, or `metadata=null`.
pub(crate) async fn list(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<PageQuery>,
    ApiQuery(pairs): ApiQuery<Vec<(String, String)>>,
) -> Result<Json<PlainPage<FineTuningJob>>, ApiError> {
    let metadata = metadata_filter(&pairs)?;
    let page = query.page(DEFAULT_ITEMS)?;
    let jobs = state.documents.catalog.jobs(&caller.tenant, metadata.as_deref(), page).await;
    let (jobs, has_more) = keep_page(page, jobs.map_err(|error| catalog_failed(&error))?);
    let data = jobs.into_iter().map(|job| wire::job(job, &caller.tenant)).collect();
    Ok(Json(PlainPage { object: "list".to_owned(), data, has_more }))
}

/// Most pairs of a filter, as many as a job can have.
const MOST_PAIRS: usize = 16;

fn metadata_filter(pairs: &[(String, String)]) -> Result<Option<Vec<(String, String)>>, ApiError> {
    if pairs.iter().any(|(name, value)| name == "metadata" && value == "null") {
        return Ok(Some(Vec::new()));
    }
    let key = |name: &str| Some(name.strip_prefix("metadata[")?.strip_suffix(']')?.to_owned());
    let wanted: Vec<(String, String)> = pairs.iter().filter_map(|(name, value)| Some((key(name)?, value.clone()))).collect();
    if wanted.len() > MOST_PAIRS {
        return Err(ApiError::invalid("metadata", format!("filter by at most {MOST_PAIRS} pairs")));
    }
    Ok(Some(wanted).filter(|wanted| !wanted.is_empty()))
}

/// `GET /v1/fine_tuning/jobs/{id}`.
pub(crate) async fn retrieve(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let job = state.tuning.job(&caller.tenant, &id).await?;
    Ok(Json(wire::job(job, &caller.tenant)))
}

/// `POST /v1/fine_tuning/jobs/{id}/cancel`.
pub(crate) async fn cancel(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let job = state.tuning.cancel(&caller.tenant, &id).await?;
    Ok(Json(wire::job(job, &caller.tenant)))
}

/// `POST /v1/fine_tuning/jobs/{id}/pause`.
pub(crate) async fn pause(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let job = state.tuning.pause(&caller.tenant, &id).await?;
    Ok(Json(wire::job(job, &caller.tenant)))
}

/// `POST /v1/fine_tuning/jobs/{id}/resume`.
pub(crate) async fn resume(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let job = state.tuning.resume(&caller.tenant, &id).await?;
    Ok(Json(wire::job(job, &caller.tenant)))
}

/// `GET /v1/fine_tuning/jobs/{id}/events`, newest first.
pub(crate) async fn events(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<PlainPage<FineTuningEvent>>, ApiError> {
    let page = query.page(DEFAULT_ITEMS)?;
    state.tuning.job(&caller.tenant, &id).await?;
    let events = state.documents.catalog.events(&caller.tenant, &id, page).await;
    let (events, has_more) = keep_page(page, events.map_err(|error| catalog_failed(&error))?);
    Ok(Json(PlainPage { object: "list".to_owned(), data: events.into_iter().map(wire::event).collect(), has_more }))
}

/// `GET /v1/fine_tuning/jobs/{id}/checkpoints`, newest first.
pub(crate) async fn checkpoints(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<ListPage<FineTuningCheckpoint>>, ApiError> {
    let page = query.page(DEFAULT_CHECKPOINTS)?;
    state.tuning.job(&caller.tenant, &id).await?;
    let found = state.documents.catalog.checkpoints(&caller.tenant, &id, page).await;
    let (found, has_more) = keep_page(page, found.map_err(|error| catalog_failed(&error))?);
    let data: Vec<FineTuningCheckpoint> = found.into_iter().map(|checkpoint| wire::checkpoint(checkpoint, &id)).collect();
    let (first_id, last_id) = (data.first().map(|c| c.id.clone()), data.last().map(|c| c.id.clone()));
    Ok(Json(ListPage { object: "list".to_owned(), data, first_id, last_id, has_more }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_filtered_by_pairs_or_by_their_absence() {
        let of = |query: &[(&str, &str)]| {
            metadata_filter(&query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(of(&[("limit", "3")]), None);
        assert_eq!(of(&[("metadata", "null")]), Some(Vec::new()));
        assert_eq!(of(&[("metadata[a]", "1"), ("metadata[b c]", "2")]), Some(vec![("a".into(), "1".into()), ("b c".into(), "2".into())]));
        let many: Vec<(String, String)> = (0..17).map(|n| (format!("metadata[{n}]"), String::new())).collect();
        assert!(metadata_filter(&many).is_err());
    }
}
