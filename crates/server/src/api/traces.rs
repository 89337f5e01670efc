use crate::access::Caller;
use crate::api::files::catalog_failed;
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiJson, ApiQuery};
use crate::replay::{Replay, ReplayBody};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use groundtone_catalog::{Feedback, Outcome, Thumb, TraceFilter, TraceRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// Traces of one page, where the client does not say, and at most.
const DEFAULT_TRACES: u32 = 50;
const MOST_TRACES: u32 = 1_000;
/// Longest text and longest correction of a feedback, in bytes.
const FEEDBACK_BYTES: usize = 16 << 10;

/// Which traces.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TraceQuery {
    #[serde(default)]
    thumb: Option<Thumb>,
    #[serde(default)]
    outcome: Option<Outcome>,
    #[serde(default)]
    abstained: Option<bool>,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    limit: Option<u32>,
}

/// Traces, newest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct TraceList {
    /// Older ones follow with `before` set to the last id.
    pub traces: Vec<TraceRecord>,
}

/// `GET /v1/groundtone/traces`.
pub(crate) async fn list(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<TraceQuery>,
) -> Result<Json<TraceList>, ApiError> {
    let outcome = match (query.outcome, query.abstained) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("abstained", "send `outcome` or `abstained`, not both")),
        (outcome, None) => outcome,
        (None, Some(true)) => Some(Outcome::Abstained),
        (None, Some(false)) => Some(Outcome::Answered),
    };
    state.recorder.flush().await;
    let filter = TraceFilter { thumb: query.thumb, outcome, variant: query.variant, before: query.before };
    let limit = query.limit.unwrap_or(DEFAULT_TRACES).clamp(1, MOST_TRACES);
    let traces = state.documents.catalog.traces(&caller.tenant, &filter, limit).await.map_err(|error| catalog_failed(&error))?;
    Ok(Json(TraceList { traces }))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no trace `{id}`; old ones are forgotten (`traces.keep_days`, `traces.keep`)")).param("id")
}

async fn found(state: &AppState, caller: &Caller, id: &str) -> Result<TraceRecord, ApiError> {
    state.recorder.flush().await;
    let trace = state.documents.catalog.trace(&caller.tenant, id).await.map_err(|error| catalog_failed(&error))?;
    trace.ok_or_else(|| unknown(id))
}

/// `GET /v1/groundtone/traces/{id}`.
pub(crate) async fn show(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<TraceRecord>, ApiError> {
    found(&state, &caller, &id).await.map(Json)
}

/// `POST /v1/groundtone/traces/{id}/replay`: asks the same again, with other settings, and says what differs. No trace is kept of it.
pub(crate) async fn replay(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiJson(body): ApiJson<ReplayBody>,
) -> Result<Json<Replay>, ApiError> {
    let trace = found(&state, &caller, &id).await?;
    body.check().map_err(|(field, reason)| ApiError::invalid(field, reason))?;
    let replay = tokio::time::timeout(state.limits.request_timeout, Replay::run(&state.answerer, &caller.tenant, trace, &body)).await;
    Ok(Json(replay.map_err(|_| crate::api::chat::too_late(&state))??))
}

/// What somebody thinks of an answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedbackBody {
    trace_id: String,
    thumb: Thumb,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    correction: Option<String>,
}

/// `POST /v1/groundtone/feedback`: the last one on a trace counts.
pub(crate) async fn feedback(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<FeedbackBody>,
) -> Result<Json<Value>, ApiError> {
    for (field, text) in [("text", &body.text), ("correction", &body.correction)] {
        if text.as_ref().is_some_and(|text| text.len() > FEEDBACK_BYTES) {
            return Err(ApiError::invalid(field, format!("send at most {FEEDBACK_BYTES} bytes")));
        }
    }
    let kept = |text: Option<String>| text.filter(|text| !text.trim().is_empty()).map(|text| state.recorder.redact(&text));
    let feedback = Feedback { thumb: body.thumb, text: kept(body.text), correction: kept(body.correction), at: unix_now() };
    // The answer's trace may still be on its way.
    state.recorder.flush().await;
    let rated = state.documents.catalog.trace(&caller.tenant, &body.trace_id).await.map_err(|error| catalog_failed(&error))?;
    let kept = state.documents.catalog.put_feedback(&caller.tenant, &body.trace_id, &feedback).await;
    if !kept.map_err(|error| catalog_failed(&error))? {
        return Err(unknown(&body.trace_id).param("trace_id"));
    }
    state.metrics.feedback(feedback.thumb.as_str());
    // Who changes their mind is not counted twice.
    if let Some(trace) = rated.filter(|trace| trace.feedback.is_none()) {
        state.releases.rated(&trace, feedback.thumb == Thumb::Down);
    }
    Ok(Json(json!({"trace_id": body.trace_id, "thumb": feedback.thumb})))
}

/// `GET /metrics`, for Prometheus.
pub(crate) async fn metrics(State(state): State<Arc<AppState>>) -> Result<([(axum::http::HeaderName, &'static str); 1], String), ApiError> {
    let text = state.metrics.text().map_err(|error| ApiError::of(groundtone_types::ErrorKind::Internal, &error))?;
    Ok(([(axum::http::header::CONTENT_TYPE, groundtone_telemetry::CONTENT_TYPE)], text))
}
