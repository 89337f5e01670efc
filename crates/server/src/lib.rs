//! The HTTP surface: OpenAI's routes, our own under `/v1/groundtone/`, health, and the chat page.
//!
//! [`app`] makes the router, [`run`] serves it until it is told to stop. Handlers extract, call a use-case and wrap; nothing here retrieves, renders or generates.
//! This is the only crate that knows axum and status codes.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod access;
mod api;
mod canary;
mod connections;
mod error;
mod handoff;
mod keyring;
mod limits;
mod page_token;
mod recorder;
mod recording;
mod releases;
mod replay;
mod run;
mod state;
mod stores;

pub use access::{AccessPolicy, Need, OWNER_HEADER, ROUTES};
pub use api::adapters::ExportBody;
pub use api::aliases::{Alias, AliasBody};
pub use api::datasets::DatasetBody;
pub use api::generations::{GenerationList, SwitchBody};
pub use api::handoffs::HandoffList;
pub use api::keys::{AuditList, KeyList, ListedKey};
pub use api::owner::{BuildBody, FsckBody, GcBody, RejectedList, Removed, RunList};
pub use api::responses::ResponseStore;
pub use api::search::{SearchBody, SearchHits};
pub use api::traces::TraceList;
pub use canary::{CanaryRules, CanaryWatch, TrialStatus};
pub use handoff::{HandoffRules, Handoffs};
pub use keyring::{CreatedKey, KeyHash, KeyRing, NewKey, NoRandomness, make_key};
pub use limits::Price;
pub use page_token::PageTokens;
pub use recorder::{Keeping, Recorder};
pub use releases::{ReleaseBody, ReleaseError, ReleaseStatus, Releases, RollbackBody};
pub use replay::{Difference, Replay, ReplayBody, Replayed};
pub use run::run;
pub use state::{AppState, Documents, Limits};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use groundtone_telemetry::continue_trace;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tracing::{Instrument, Span, field, info, info_span};

/// How long a browser may remember that it may call.
const PREFLIGHT: Duration = Duration::from_secs(600);
/// The status of a request whose client has left, as nginx counts it.
const CLIENT_CLOSED: u16 = 499;
/// Room for the parts of an upload around its file.
const FORM_BYTES: usize = 64 << 10;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Every route, with its limits. A body that is too large is answered with 413 before it is read.
pub fn app(state: Arc<AppState>) -> Router {
    let documents = put(api::documents::put).delete(api::documents::delete).get(api::documents::status);
    let guarded = tuning_routes(&state)
        .route("/v1/groundtone/documents/{*id}", documents.layer(DefaultBodyLimit::max(state.limits.max_document_bytes)))
        .route("/v1/vector_stores", get(api::vector_stores::list).post(api::vector_stores::create))
        .route(
            "/v1/vector_stores/{id}",
            get(api::vector_stores::retrieve).post(api::vector_stores::modify).delete(api::vector_stores::delete),
        )
        .route("/v1/vector_stores/{id}/files", get(api::vector_stores::list_files).post(api::vector_stores::attach_file))
        .route("/v1/vector_stores/{id}/files/{file_id}", get(api::vector_stores::retrieve_file).delete(api::vector_stores::detach_file))
        .route("/v1/vector_stores/{id}/search", post(api::vector_stores::search))
        .route("/v1/responses", post(api::responses::create))
        .route("/v1/responses/{id}", get(api::responses::retrieve).delete(api::responses::delete))
        .route("/v1/chat/completions", post(api::chat::create))
        .route("/v1/embeddings", post(api::embeddings::create))
        .route("/v1/groundtone/generations", get(api::generations::list))
        .route("/v1/groundtone/generations/switch", post(api::generations::switch))
        .route("/v1/groundtone/evaluations", get(api::evaluations::list).post(api::evaluations::create))
        .route("/v1/groundtone/evaluations/{id}", get(api::evaluations::retrieve))
        .route("/v1/groundtone/releases", get(api::releases::status))
        .route("/v1/groundtone/releases/promote", post(api::releases::promote))
        .route("/v1/groundtone/releases/canary", post(api::releases::canary))
        .route("/v1/groundtone/releases/rollback", post(api::releases::rollback))
        .route("/v1/groundtone/search", post(api::search::search))
        .route("/v1/groundtone/ingest", post(api::owner::ingest))
        .route("/v1/groundtone/datasets", post(api::owner::build))
        .route("/v1/groundtone/runs", get(api::owner::runs))
        .route("/v1/groundtone/runs/{prefix}", get(api::owner::runs_with))
        .route("/v1/groundtone/rejected", get(api::owner::rejected))
        .route("/v1/groundtone/fsck", post(api::owner::fsck))
        .route("/v1/groundtone/generations/gc", post(api::owner::gc))
        .route("/v1/groundtone/handoffs", get(api::handoffs::list))
        .route("/v1/groundtone/handoffs/{id}", delete(api::handoffs::delete))
        .route("/v1/groundtone/handoffs/{id}/retry", post(api::handoffs::retry))
        .route("/v1/groundtone/page_tokens", post(api::keys::page_token))
        .route("/v1/groundtone/keys", get(api::keys::list).post(api::keys::create))
        .route("/v1/groundtone/keys/{id}", delete(api::keys::revoke))
        .route("/v1/groundtone/audit", get(api::keys::audit))
        .route("/v1/groundtone/traces", get(api::traces::list))
        .route("/v1/groundtone/traces/{id}", get(api::traces::show))
        .route("/v1/groundtone/traces/{id}/replay", post(api::traces::replay))
        .route("/v1/groundtone/feedback", post(api::traces::feedback))
        .route("/metrics", get(api::traces::metrics))
        .route_layer(middleware::from_fn_with_state(state.clone(), access::authorize));
    let bare = guarded.clone().fallback(|| async { no_route() }).method_not_allowed_fallback(|| async { wrong_method() });
    let bare = bare.with_state(state.clone());
    let router = Router::new()
        .merge(guarded)
        .route("/healthz", get(api::health::alive))
        .route("/readyz", get(api::health::ready))
        .route("/", get(api::page::html))
        .route("/chat.js", get(api::page::script))
        .fallback(move |request: Request| without_v1(bare, request))
        .method_not_allowed_fallback(|| async { wrong_method() })
        .layer(middleware::from_fn_with_state(state.clone(), access::require_known_host))
        .layer(DefaultBodyLimit::max(state.limits.max_body_bytes))
        .layer(CatchPanicLayer::custom(error::panicked));
    let router = match cors(&state.access.origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        .layer(middleware::from_fn_with_state(state.clone(), trace_request))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID.clone()))
        .layer(SetRequestIdLayer::new(REQUEST_ID.clone(), MakeRequestUuid))
        .with_state(state)
}

/// Files, uploads, fine-tuning and models: what a fine-tuning client calls.
fn tuning_routes(state: &AppState) -> Router<Arc<AppState>> {
    use api::fine_tuning as tuning;
    // A form around the file takes some room of its own.
    let form = |most: usize| DefaultBodyLimit::max(most.saturating_add(FORM_BYTES));
    let upload = post(api::files::create).layer(form(state.limits.max_document_bytes.max(state.limits.max_training_bytes)));
    let dataset = put(api::datasets::put).layer(DefaultBodyLimit::max(state.limits.max_training_bytes));
    Router::new()
        .route("/v1/files", get(api::files::list).merge(upload))
        .route("/v1/files/{id}", get(api::files::retrieve).delete(api::files::delete))
        .route("/v1/files/{id}/content", get(api::files::content))
        .route("/v1/uploads", post(api::uploads::create))
        .route("/v1/uploads/{id}/parts", post(api::uploads::add_part).layer(form(api::uploads::MOST_PART_BYTES)))
        .route("/v1/uploads/{id}/complete", post(api::uploads::complete))
        .route("/v1/uploads/{id}/cancel", post(api::uploads::cancel))
        .route("/v1/fine_tuning/jobs", get(tuning::list).post(tuning::create))
        .route("/v1/fine_tuning/jobs/{id}", get(tuning::retrieve))
        .route("/v1/fine_tuning/jobs/{id}/cancel", post(tuning::cancel))
        .route("/v1/fine_tuning/jobs/{id}/pause", post(tuning::pause))
        .route("/v1/fine_tuning/jobs/{id}/resume", post(tuning::resume))
        .route("/v1/fine_tuning/jobs/{id}/events", get(tuning::events))
        .route("/v1/fine_tuning/jobs/{id}/checkpoints", get(tuning::checkpoints))
        .route("/v1/fine_tuning/checkpoints/{model}/permissions", get(tuning::permissions).post(tuning::grant))
        .route("/v1/fine_tuning/checkpoints/{model}/permissions/{id}", delete(tuning::revoke))
        .route("/v1/groundtone/models/export", post(api::adapters::export))
        .route("/v1/groundtone/models/import", post(api::adapters::import))
        .route("/v1/groundtone/models/{id}/lineage", get(api::adapters::lineage))
        .route("/v1/groundtone/datasets/{sha256}", get(api::datasets::retrieve).merge(dataset))
        .route("/v1/groundtone/aliases", get(api::aliases::list))
        .route("/v1/groundtone/aliases/{id}", put(api::aliases::put).delete(api::aliases::delete))
        .route("/v1/models", get(api::models::list))
        .route("/v1/models/{id}", get(api::models::retrieve).delete(api::models::delete))
}

/// What some clients send without `/v1`, sent again with it.
async fn without_v1(api: Router, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let is_known = ["/files", "/uploads", "/fine_tuning/", "/models"].iter().any(|start| path.starts_with(start));
    match format!("/v1{path}").parse() {
        Ok(uri) if is_known => *request.uri_mut() = uri,
        _ => return no_route().into_response(),
    }
    api.oneshot(request).await.unwrap_or_else(|never| match never {})
}

fn no_route() -> error::ApiError {
    error::ApiError::not_found("there is no such route")
}

fn wrong_method() -> error::ApiError {
    error::ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this route does not take this method")
}

/// What browsers are told: pages of these origins may call, with a token or a key in their own hands, and read what a client reads. Nothing without a list.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    let shown =
        ["x-request-id", "retry-after", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(shown.map(HeaderName::from_static))
            .max_age(PREFLIGHT)
    })
}

/// Counts a request even when its client leaves before there is a response: then with the status that proxies use for it.
struct Counted {
    state: Arc<AppState>,
    method: String,
    route: String,
    began: Instant,
    status: u16,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.state.metrics.request(&self.method, &self.route, self.status, self.began.elapsed().as_secs_f64());
    }
}

/// Puts the request's span into its caller's trace, where it names one.
fn follow_caller(span: &Span, headers: &HeaderMap) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(parent) = header("traceparent") {
        continue_trace(span, parent, header("tracestate"));
    }
}

/// One span for each request, with the id that is also in the response's `x-request-id`.
async fn trace_request(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok()).unwrap_or_default().to_owned();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "unmatched".to_owned());
    state.metrics.request_begins();
    // A method that nobody has heard of is a label that nobody wants.
    let method = if request.method().as_str().len() <= 7 { request.method().to_string() } else { "other".to_owned() };
    let span = info_span!("request", request_id = %id, method, route, status = field::Empty);
    follow_caller(&span, request.headers());
    let counted = Counted { state, method, route, began: Instant::now(), status: CLIENT_CLOSED };
    async move {
        // All of it, not its status alone: it counts when it is dropped.
        let mut counted = counted;
        let response = next.run(request).await;
        counted.status = response.status().as_u16();
        Span::current().record("status", response.status().as_u16());
        info!(status = response.status().as_u16(), "answered");
        response
    }
    .instrument(span)
    .await
}
