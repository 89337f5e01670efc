use crate::access::Caller;
use crate::api::files::{DEFAULT_ITEMS, ListQuery, MOST_STORE_ITEMS, catalog_failed, list_page, no_file};
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiJson, ApiQuery};
use crate::state::AppState;
use crate::stores::{document_of, file_of};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use groundtone_catalog::{StoreFileRecord, StoreFileStatus, StoreRecord};
use groundtone_openai_api::{
    Deleted, FileCounts, FileError, HitText, ListPage, VectorStore, VectorStoreFile, VectorStoreFileRequest, VectorStoreHit,
    VectorStoreRequest, VectorStoreSearchPage, VectorStoreSearchRequest,
};
use groundtone_types::{Collection, ErrorKind, Snippet, Tenant};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Most files that a store is made with; OpenAI's own limit.
const MOST_FILE_IDS: usize = 500;
/// Most questions of one search, and the longest one in bytes.
const MOST_QUERIES: usize = 16;
const QUERY_BYTES: usize = 16 * 1024;
/// Hits where the client does not say, and most of them.
const DEFAULT_HITS: usize = 10;
const MOST_HITS: usize = 50;

/// The first field that asks for something that is not done here.
fn refuse_rest(rest: &Map<String, Value>, harmless: &[&str]) -> Result<(), ApiError> {
    let asks =
        |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && value.as_object().is_none_or(|fields| !fields.is_empty());
    match rest.iter().find(|(name, value)| !harmless.contains(&name.as_str()) && asks(value)) {
        Some((name, _)) => Err(ApiError::invalid(name.clone(), format!("`{name}` is not supported by this server"))),
        None => Ok(()),
    }
}

fn no_store(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no vector store `{id}`")).param("vector_store_id")
}

impl AppState {
    /// The store with this id. The assistant's own collection is one as well, under its own name.
    pub(crate) async fn vector_store(&self, tenant: &Tenant, id: &str) -> Result<StoreRecord, ApiError> {
        let collection = Collection::new(id).map_err(|_| no_store(id))?;
        let own = &self.answerer.assistant().collection;
        if collection == *own {
            return Ok(self.own_store());
        }
        let found = self.documents.catalog.store(tenant, &collection).await.map_err(|error| catalog_failed(&error))?;
        found.ok_or_else(|| no_store(id))
    }

    fn own_store(&self) -> StoreRecord {
        let assistant = self.answerer.assistant();
        StoreRecord {
            collection: assistant.collection.clone(),
            name: assistant.name.clone(),
            metadata: Map::new(),
            created_at: self.started_at,
            last_active_at: self.started_at,
        }
    }

    async fn wire_store(&self, tenant: &Tenant, store: StoreRecord) -> Result<VectorStore, ApiError> {
        let (counts, usage_bytes) =
            self.documents.catalog.store_counts(tenant, &store.collection).await.map_err(|error| catalog_failed(&error))?;
        let of = |status| counts.iter().find(|(found, _)| *found == status).map_or(0, |(_, files)| *files);
        let mut files = FileCounts {
            in_progress: of(StoreFileStatus::InProgress),
            completed: of(StoreFileStatus::Completed),
            failed: of(StoreFileStatus::Failed),
            ..FileCounts::default()
        };
        if store.collection == self.answerer.assistant().collection {
            // Documents that came another way are in it too.
            let live = self.documents.ingester.live(&store.collection).await.map_err(|error| ApiError::of(error.kind(), &error))?;
            files.completed = self.documents.catalog.counts(tenant, &live).await.map_err(|error| catalog_failed(&error))?.0;
        }
        files.total = files.in_progress + files.completed + files.failed;
        Ok(VectorStore {
            id: store.collection.to_string(),
            object: "vector_store".to_owned(),
            created_at: store.created_at,
            name: store.name,
            usage_bytes,
            file_counts: files,
            status: if files.in_progress > 0 { "in_progress" } else { "completed" }.to_owned(),
            expires_after: None,
            expires_at: None,
            last_active_at: Some(store.last_active_at),
            metadata: Some(store.metadata),
        })
    }

    /// The best snippets of these stores for any of the questions, best first.
    async fn search_stores(&self, tenant: &Tenant, store: &Collection, queries: &[String], most: usize) -> Result<Vec<Snippet>, ApiError> {
        let mut found: Vec<Snippet> = Vec::new();
        for query in queries {
            let hits = match self.answerer.retriever().retrieve(tenant, store, query).await {
                Ok(hits) => hits,
                // A store without a file has no collection yet.
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(ApiError::of(error.kind(), &error)),
            };
            for hit in hits {
                match found.iter_mut().find(|known| known.id == hit.id) {
                    Some(known) => known.score = known.score.max(hit.score),
                    None => found.push(hit),
                }
            }
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        found.truncate(most);
        Ok(found)
    }
}

/// `POST /v1/vector_stores`.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(request): ApiJson<VectorStoreRequest>,
) -> Result<Json<VectorStore>, ApiError> {
    refuse_rest(&request.rest, &["description"])?;
    let file_ids = request.file_ids.unwrap_or_default();
    if file_ids.len() > MOST_FILE_IDS {
        return Err(ApiError::invalid("file_ids", format!("send at most {MOST_FILE_IDS} files")));
    }
    let catalog = &state.documents.catalog;
    let all = groundtone_catalog::Page { after: None, limit: state.limits.max_vector_stores, ascending: true };
    let known = catalog.stores(&caller.tenant, all).await.map_err(|error| catalog_failed(&error))?;
    if known.len() >= state.limits.max_vector_stores as usize {
        let message =
            format!("there are {} vector stores already, the most that this server keeps (`files.max_vector_stores`)", known.len());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message).code("vector_store_limit_exceeded"));
    }
    let collection =
        Collection::new(format!("vs_{}", uuid::Uuid::now_v7().simple())).map_err(|error| ApiError::invalid("name", error.to_string()))?;
    let now = unix_now();
    let store = StoreRecord {
        collection,
        name: request.name.unwrap_or_default(),
        metadata: request.metadata.unwrap_or_default(),
        created_at: now,
        last_active_at: now,
    };
    let mut files = Vec::new();
    for id in &file_ids {
        files.push(catalog.file(&caller.tenant, id).await.map_err(|error| catalog_failed(&error))?.ok_or_else(|| no_file(id))?);
    }
    catalog.put_store(&caller.tenant, &store).await.map_err(|error| catalog_failed(&error))?;
    for file in files {
        attach(&state, &caller.tenant, &store.collection, &file.id, None).await?;
    }
    Ok(Json(state.wire_store(&caller.tenant, store).await?))
}

/// `GET /v1/vector_stores`: the assistant's own collection is on the first page.
pub(crate) async fn list(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<ListPage<VectorStore>>, ApiError> {
    let mut page = query.page(MOST_STORE_ITEMS, DEFAULT_ITEMS)?;
    let first = page.after.is_none();
    page.after = page.after.filter(|after| *after != state.answerer.assistant().collection.as_str());
    let mut found = state.documents.catalog.stores(&caller.tenant, page).await.map_err(|error| catalog_failed(&error))?;
    if first {
        found.insert(0, state.own_store());
    }
    let mut stores = Vec::new();
    for store in found {
        stores.push(state.wire_store(&caller.tenant, store).await?);
    }
    Ok(Json(list_page(page, stores, |store| store.id.clone(), |store| store)))
}

/// `GET /v1/vector_stores/{id}`.
pub(crate) async fn retrieve(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<VectorStore>, ApiError> {
    let store = state.vector_store(&caller.tenant, &id).await?;
    Ok(Json(state.wire_store(&caller.tenant, store).await?))
}

/// `POST /v1/vector_stores/{id}`: another name, other notes.
pub(crate) async fn modify(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiJson(request): ApiJson<VectorStoreRequest>,
) -> Result<Json<VectorStore>, ApiError> {
    refuse_rest(&request.rest, &[])?;
    let mut store = changeable(&state, &caller.tenant, &id).await?;
    store.name = request.name.unwrap_or(store.name);
    store.metadata = request.metadata.unwrap_or(store.metadata);
    store.last_active_at = unix_now();
    state.documents.catalog.put_store(&caller.tenant, &store).await.map_err(|error| catalog_failed(&error))?;
    Ok(Json(state.wire_store(&caller.tenant, store).await?))
}

/// A store that may be renamed and deleted: the assistant's own collection belongs to the configuration.
async fn changeable(state: &AppState, tenant: &Tenant, id: &str) -> Result<StoreRecord, ApiError> {
    let store = state.vector_store(tenant, id).await?;
    if store.collection == state.answerer.assistant().collection {
        let message = format!("`{id}` is the assistant's own collection: it is neither renamed nor deleted here");
        return Err(ApiError::new(StatusCode::CONFLICT, message).param("vector_store_id"));
    }
    Ok(store)
}

/// `DELETE /v1/vector_stores/{id}`: the uploaded files stay.
pub(crate) async fn delete(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    let store = changeable(&state, &caller.tenant, &id).await?;
    match state.documents.remove_store(&caller.tenant, &store.collection).await? {
        true => Ok(Json(Deleted { id, object: "vector_store.deleted".to_owned(), deleted: true })),
        false => Err(no_store(&id)),
    }
}

fn wire_file(store: &Collection, file: StoreFileRecord) -> VectorStoreFile {
    VectorStoreFile {
        id: file.file,
        object: "vector_store.file".to_owned(),
        created_at: file.created_at,
        usage_bytes: if file.status == StoreFileStatus::Completed { file.bytes } else { 0 },
        vector_store_id: store.to_string(),
        status: file.status.as_str().to_owned(),
        last_error: file.error.map(|(code, message)| FileError { code, message }),
        attributes: Some(file.attributes),
    }
}

/// Notes the file and reads it in a task of its own, so that a client that leaves does not cut it off half way.
async fn attach(
    state: &Arc<AppState>,
    tenant: &Tenant,
    store: &Collection,
    file_id: &str,
    attributes: Option<Map<String, Value>>,
) -> Result<StoreFileRecord, ApiError> {
    let found = state.files.read(tenant, file_id).await.map_err(|error| catalog_failed(&error))?;
    let (file, bytes) = found.ok_or_else(|| no_file(file_id).param("file_id"))?;
    let record = StoreFileRecord {
        file: file.id.clone(),
        document: document_of(&file),
        status: StoreFileStatus::InProgress,
        error: None,
        attributes: attributes.unwrap_or_default(),
        bytes: file.bytes,
        created_at: unix_now(),
    };
    state.documents.catalog.put_store_file(tenant, store, &record).await.map_err(|error| catalog_failed(&error))?;
    let (reading, tenant, noted, store) = (state.clone(), tenant.clone(), record.clone(), store.clone());
    tokio::spawn(async move {
        if let Err(error) = reading.documents.attach(&tenant, &store, &file, bytes, noted).await {
            tracing::warn!(?error, "a file's state could not be noted");
        }
    });
    Ok(record)
}

/// `POST /v1/vector_stores/{id}/files`: answers `in_progress`; ask again, as the SDKs' `_and_poll` helpers do.
pub(crate) async fn attach_file(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiJson(request): ApiJson<VectorStoreFileRequest>,
) -> Result<Json<VectorStoreFile>, ApiError> {
    refuse_rest(&request.rest, &[])?;
    let store = state.vector_store(&caller.tenant, &id).await?;
    let record = attach(&state, &caller.tenant, &store.collection, &request.file_id, request.attributes).await?;
    Ok(Json(wire_file(&store.collection, record)))
}

/// `GET /v1/vector_stores/{id}/files`.
pub(crate) async fn list_files(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<ListPage<VectorStoreFile>>, ApiError> {
    let (page, store) = (query.page(MOST_STORE_ITEMS, DEFAULT_ITEMS)?, state.vector_store(&caller.tenant, &id).await?);
    let found = state.documents.catalog.store_files(&caller.tenant, &store.collection, query.filter.as_deref(), page).await;
    let found = found.map_err(|error| catalog_failed(&error))?;
    Ok(Json(list_page(page, found, |file| file.file.clone(), |file| wire_file(&store.collection, file))))
}

fn not_in_store(store: &Collection, file: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no file `{file}` in vector store `{store}`")).param("file_id")
}

/// `GET /v1/vector_stores/{id}/files/{file_id}`.
pub(crate) async fn retrieve_file(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path((id, file)): Path<(String, String)>,
) -> Result<Json<VectorStoreFile>, ApiError> {
    let store = state.vector_store(&caller.tenant, &id).await?.collection;
    let found = state.documents.catalog.store_file(&caller.tenant, &store, &file).await.map_err(|error| catalog_failed(&error))?;
    found.map(|found| Json(wire_file(&store, found))).ok_or_else(|| not_in_store(&store, &file))
}

/// `DELETE /v1/vector_stores/{id}/files/{file_id}`: the uploaded file stays.
pub(crate) async fn detach_file(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path((id, file)): Path<(String, String)>,
) -> Result<Json<Deleted>, ApiError> {
    let store = state.vector_store(&caller.tenant, &id).await?.collection;
    match state.documents.detach(&caller.tenant, &store, &file).await? {
        true => Ok(Json(Deleted { id: file, object: "vector_store.file.deleted".to_owned(), deleted: true })),
        false => Err(not_in_store(&store, &file)),
    }
}

/// A snippet as a hit of a search, without its file's attributes.
pub(crate) fn hit(snippet: &Snippet) -> VectorStoreHit {
    let (file_id, filename) = file_of(snippet.chunk.document.as_str());
    VectorStoreHit {
        file_id: file_id.to_owned(),
        filename: filename.to_owned(),
        score: snippet.score,
        attributes: Some(Map::new()),
        content: vec![HitText { kind: "text".to_owned(), text: snippet.chunk.shown_text().to_owned() }],
    }
}

/// `POST /v1/vector_stores/{id}/search`.
pub(crate) async fn search(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiJson(request): ApiJson<VectorStoreSearchRequest>,
) -> Result<Json<VectorStoreSearchPage>, ApiError> {
    refuse_rest(&request.rest, &["ranking_options"])?;
    if request
        .rest
        .get("ranking_options")
        .is_some_and(|options| options["score_threshold"].as_f64().is_some_and(|threshold| threshold > 0.0))
    {
        return Err(ApiError::invalid(
            "ranking_options",
            "a `score_threshold` is not supported by this server: fused scores have no common scale",
        ));
    }
    let queries: Vec<String> = match request.query {
        Value::String(query) => vec![query],
        Value::Array(queries) => queries.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    if queries.is_empty()
        || queries.len() > MOST_QUERIES
        || queries.iter().any(|query| query.trim().is_empty() || query.len() > QUERY_BYTES)
    {
        return Err(ApiError::invalid("query", format!("send 1 to {MOST_QUERIES} questions of 1 to {QUERY_BYTES} bytes")));
    }
    let most = request.max_num_results.unwrap_or(DEFAULT_HITS);
    if !(1..=MOST_HITS).contains(&most) {
        return Err(ApiError::invalid("max_num_results", format!("`max_num_results` must be between 1 and {MOST_HITS}")));
    }
    let store = state.vector_store(&caller.tenant, &id).await?;
    let hits = state.search_stores(&caller.tenant, &store.collection, &queries, most).await?;
    let mut data: Vec<VectorStoreHit> = hits.iter().map(hit).collect();
    for hit in &mut data {
        let file = state.documents.catalog.store_file(&caller.tenant, &store.collection, &hit.file_id).await;
        hit.attributes = file.map_err(|error| catalog_failed(&error))?.map(|file| file.attributes).or(hit.attributes.take());
    }
    Ok(Json(VectorStoreSearchPage {
        object: "vector_store.search_results.page".to_owned(),
        search_query: queries,
        data,
        has_more: false,
        next_page: None,
    }))
}
