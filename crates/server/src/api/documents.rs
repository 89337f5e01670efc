use crate::access::Caller;
use crate::error::{ApiError, ApiJson};
use crate::state::{AppState, Documents};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use groundtone_catalog::DocumentRecord;
use groundtone_ingest::source::{PUSH, PushedDocument};
use groundtone_ingest::{IngestSettings, Receipt, Report};
use groundtone_types::{DocumentId, Metadata, Tenant};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::OwnedMutexGuard;

/// How long a write waits for the one before it.
const TURN_WAIT: Duration = Duration::from_secs(30);

/// What `PUT` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutBody {
    text: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    url: String,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    metadata: Metadata,
}

/// How the text is read.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Markdown,
    Text,
    Html,
    Csv,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Self::Markdown => "md",
            Self::Text => "txt",
            Self::Html => "html",
            Self::Csv => "csv",
        }
    }
}

/// What is stored of a document.
#[derive(Serialize)]
pub(crate) struct Status {
    #[serde(flatten)]
    record: DocumentRecord,
    points: usize,
}

fn document_id(id: String) -> Result<DocumentId, ApiError> {
    DocumentId::new(id).map_err(|error| ApiError::invalid("id", error.to_string()))
}

fn failed(error: &groundtone_ingest::Error) -> ApiError {
    ApiError::of(error.kind(), error)
}

impl Documents {
    /// The settings of a run that begins now.
    pub(crate) fn run_settings(&self, tenant: &Tenant) -> IngestSettings {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX));
        IngestSettings { run: uuid::Uuid::now_v7(), tenant: tenant.clone(), source: PUSH.to_owned(), now, ..self.settings.clone() }
    }

    /// Waits for its turn to write. A run over a large source may take hours: whoever waits too long is told to come back.
    pub(crate) async fn turn(&self) -> Result<OwnedMutexGuard<()>, ApiError> {
        tokio::time::timeout(TURN_WAIT, self.turn.clone().lock_owned()).await.map_err(|_| {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "another run is writing to the collection; try again when it is done")
        })
    }
}

/// `PUT /v1/groundtone/documents/{id}`: stores a document, or replaces the one that was pushed under this id before. The answer comes when it can be found.
pub(crate) async fn put(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiJson(body): ApiJson<PutBody>,
) -> Result<Json<Report>, ApiError> {
    let document = PushedDocument {
        id: document_id(id)?,
        bytes: body.text.into_bytes(),
        ending: body.format.ending().to_owned(),
        title: body.title.filter(|title| !title.trim().is_empty()),
        url: body.url,
        metadata: body.metadata,
    };
    let documents = &state.documents;
    let _turn = documents.turn().await?;
    let settings = documents.run_settings(&caller.tenant);
    let report = documents.ingester.run(Arc::new(document), &settings, &|_| {}).await.map_err(|error| failed(&error))?;
    match report.rejected.first() {
        Some(rejection) => Err(ApiError::invalid("text", format!("`{}` {}", rejection.path, rejection.reason))),
        None => Ok(Json(report)),
    }
}

/// `DELETE /v1/groundtone/documents/{id}`: takes a document out, and answers when the index says that it is gone.
pub(crate) async fn delete(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Receipt>, ApiError> {
    let id = document_id(id)?;
    let documents = &state.documents;
    let _turn = documents.turn().await?;
    if stored(documents, &caller.tenant, &id).await?.is_none() {
        return Err(unknown(&id));
    }
    documents.ingester.delete(&caller.tenant, &documents.settings.collection, &id).await.map(Json).map_err(|error| failed(&error))
}

/// `GET /v1/groundtone/documents/{id}`: what is stored of a document.
pub(crate) async fn status(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Status>, ApiError> {
    let id = document_id(id)?;
    let documents = &state.documents;
    let record = stored(documents, &caller.tenant, &id).await?.ok_or_else(|| unknown(&id))?;
    let live = documents.ingester.live(&documents.settings.collection).await.map_err(|error| failed(&error))?;
    let points = documents.catalog.points(&caller.tenant, &live, &id).await;
    let points = points.map_err(|error| ApiError::of(error.kind(), &error))?.len();
    Ok(Json(Status { record, points }))
}

async fn stored(documents: &Documents, tenant: &Tenant, id: &DocumentId) -> Result<Option<DocumentRecord>, ApiError> {
    let live = documents.ingester.live(&documents.settings.collection).await.map_err(|error| failed(&error))?;
    documents.catalog.document(tenant, &live, id).await.map_err(|error| ApiError::of(error.kind(), &error))
}

fn unknown(id: &DocumentId) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no document `{id}`"))
}
