use crate::access::Caller;
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiQuery};
use crate::state::AppState;
use axum::Json;
use axum::body::Body;
use axum::extract::multipart::MultipartError;
use axum::extract::{Multipart, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groundtone_catalog::{FileRecord, Incoming, NewFile, Page};
use groundtone_openai_api::{Deleted, FileObject, ListPage};
use groundtone_types::Tenant;
use serde::Deserialize;
use std::sync::Arc;
use tokio_util::io::ReaderStream;

/// What files may be for.
const PURPOSES: &[&str] = &["assistants", "user_data", FINE_TUNE];
const FINE_TUNE: &str = "fine-tune";
/// What a job's measurements are for; made by this server only.
const RESULTS: &str = "fine-tune-results";
/// How long a file may stay that goes away by itself, in seconds.
const EXPIRY_SECONDS: std::ops::RangeInclusive<i64> = 3_600..=2_592_000;
/// Longest name of a file, in characters.
const NAME_CHARS: usize = 255;
/// Most items of one page.
const MOST_ITEMS: u32 = 100;

/// Query of a list.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<u32>,
    pub(crate) order: Option<String>,
    /// Of files.
    purpose: Option<String>,
    /// Of a store's files.
    pub(crate) filter: Option<String>,
    before: Option<String>,
}

impl ListQuery {
    /// The page that is asked for, with one item more than the limit: it says whether there is a next page.
    pub(crate) fn page(&self, most: u32, default: u32) -> Result<Page<'_>, ApiError> {
        let limit = self.limit.unwrap_or(default);
        if !(1..=most).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("`limit` must be between 1 and {most}")));
        }
        if self.before.is_some() {
            return Err(ApiError::invalid("before", "`before` is not supported by this server; go on with `after`"));
        }
        let ascending = match self.order.as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(ApiError::invalid("order", "`order` must be `asc` or `desc`")),
        };
        Ok(Page { after: self.after.as_deref(), limit: limit + 1, ascending })
    }
}

/// What belongs on a page, and whether there is a next one.
pub(crate) fn keep_page<R>(page: Page<'_>, mut found: Vec<R>) -> (Vec<R>, bool) {
    let most = page.limit as usize - 1;
    let has_more = found.len() > most;
    found.truncate(most);
    (found, has_more)
}

/// A page of what was found for [`ListQuery::page`].
pub(crate) fn list_page<R, T>(page: Page<'_>, found: Vec<R>, id: impl Fn(&R) -> String, wire: impl FnMut(R) -> T) -> ListPage<T> {
    let (found, has_more) = keep_page(page, found);
    let (first_id, last_id) = (found.first().map(&id), found.last().map(&id));
    ListPage { object: "list".to_owned(), data: found.into_iter().map(wire).collect(), first_id, last_id, has_more }
}

pub(crate) fn catalog_failed(error: &groundtone_catalog::Error) -> ApiError {
    ApiError::of(error.kind(), error)
}

pub(crate) fn no_file(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no file `{id}`")).param("id")
}

pub(crate) fn wire(file: FileRecord) -> FileObject {
    FileObject {
        id: file.id,
        object: "file".to_owned(),
        bytes: file.bytes,
        created_at: file.created_at,
        expires_at: file.expires_at,
        filename: file.filename,
        purpose: file.purpose,
        status: "processed".to_owned(),
    }
}

/// What a form for a file says beside its bytes.
#[derive(Debug, Default)]
struct Form {
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
    file: Option<(String, Incoming)>,
}

/// `POST /v1/files`: multipart with `purpose` and `file`. The bytes go to the disk as they come.
pub(crate) async fn create(State(state): State<Arc<AppState>>, caller: Caller, form: Multipart) -> Result<Json<FileObject>, ApiError> {
    let form = read_form(&state, &caller.tenant, form).await?;
    let purpose = form.purpose.ok_or_else(|| ApiError::invalid("purpose", "send `purpose`"))?;
    check_purpose(&purpose)?;
    let (filename, incoming) = form.file.ok_or_else(|| ApiError::invalid("file", "send `file`"))?;
    if incoming.is_empty() {
        return Err(ApiError::invalid("file", "the file is empty"));
    }
    check_file(&state, &purpose, &filename, incoming.len())?;
    let now = unix_now();
    let expires_at = match (form.anchor, form.seconds) {
        (None, None) => None,
        (anchor, seconds) => {
            let seconds = seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
            Some(now + expiry(&anchor.unwrap_or_default(), seconds)?)
        }
    };
    let new = NewFile { filename, purpose, expires_at };
    let record = state.files.keep(incoming, new, now).await.map_err(|error| catalog_failed(&error).param("file"))?;
    Ok(Json(wire(record)))
}

async fn read_form(state: &AppState, tenant: &Tenant, mut form: Multipart) -> Result<Form, ApiError> {
    let mut read = Form::default();
    while let Some(mut field) = form.next_field().await.map_err(|error| bad_form(&error))? {
        match field.name().unwrap_or_default() {
            "purpose" => read.purpose = Some(field.text().await.map_err(|error| bad_form(&error))?),
            "expires_after[anchor]" => read.anchor = Some(field.text().await.map_err(|error| bad_form(&error))?),
            "expires_after[seconds]" => read.seconds = Some(field.text().await.map_err(|error| bad_form(&error))?),
            "file" => {
                let filename = clean_name(field.file_name().unwrap_or_default());
                let mut incoming = state.files.receive(tenant).await.map_err(|error| catalog_failed(&error))?;
                while let Some(bytes) = field.chunk().await.map_err(|error| bad_form(&error))? {
                    incoming.write(&bytes).await.map_err(|error| catalog_failed(&error).param("file"))?;
                }
                read.file = Some((filename, incoming));
            }
            _ => {}
        }
    }
    Ok(read)
}

pub(crate) fn check_purpose(purpose: &str) -> Result<(), ApiError> {
    match PURPOSES.contains(&purpose) {
        true => Ok(()),
        false => Err(ApiError::invalid("purpose", format!("`purpose` must be one of `{}`", PURPOSES.join("`, `")))),
    }
}

/// What a file of this purpose must be called, and how large it may be.
pub(crate) fn check_file(state: &AppState, purpose: &str, filename: &str, bytes: u64) -> Result<(), ApiError> {
    let is_rows = purpose == FINE_TUNE;
    if is_rows && !filename.ends_with(".jsonl") {
        return Err(ApiError::invalid("file", "Invalid file format for Fine-Tuning API. Must be .jsonl"));
    }
    let most = if is_rows { state.limits.max_training_bytes } else { state.limits.max_document_bytes };
    if bytes > most as u64 {
        let message = format!("a file with the purpose `{purpose}` may have {most} bytes, and this one has {bytes}");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message).param("file"));
    }
    Ok(())
}

/// Seconds after which a file goes away by itself.
pub(crate) fn expiry(anchor: &str, seconds: i64) -> Result<i64, ApiError> {
    if anchor != "created_at" {
        return Err(ApiError::invalid("expires_after.anchor", "`expires_after.anchor` must be `created_at`"));
    }
    if !EXPIRY_SECONDS.contains(&seconds) {
        let (least, most) = (EXPIRY_SECONDS.start(), EXPIRY_SECONDS.end());
        return Err(ApiError::invalid("expires_after.seconds", format!("`expires_after.seconds` must be between {least} and {most}")));
    }
    Ok(seconds)
}

pub(crate) fn bad_form(error: &MultipartError) -> ApiError {
    ApiError::new(error.status(), error.body_text()).param("file")
}

/// The last part of a client's file name, without what could mislead a terminal, a path or a page.
pub(crate) fn clean_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|c| !c.is_control()).take(NAME_CHARS).collect();
    match clean.trim() {
        "" | "." | ".." => "file".to_owned(),
        name => name.to_owned(),
    }
}

/// `GET /v1/files`.
pub(crate) async fn list(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<ListPage<FileObject>>, ApiError> {
    let page = query.page(10_000, 10_000)?;
    let found = state.documents.catalog.files(&caller.tenant, query.purpose.as_deref(), page).await;
    Ok(Json(list_page(page, found.map_err(|error| catalog_failed(&error))?, |file| file.id.clone(), wire)))
}

/// `GET /v1/files/{id}`.
pub(crate) async fn retrieve(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<FileObject>, ApiError> {
    let found = state.documents.catalog.file(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))?;
    found.map(|file| Json(wire(file))).ok_or_else(|| no_file(&id))
}

/// `GET /v1/files/{id}/content`: as a download, whatever it is, so that no browser runs it. The measurements of a job come as base64, as OpenAI sends them;
/// with `Accept: text/csv` they come as they are.
pub(crate) async fn content(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = state.files.locate(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))?;
    let (record, path) = found.ok_or_else(|| no_file(&id))?;
    let download = |kind: &'static str| {
        [(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, "attachment"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")]
    };
    if record.purpose == RESULTS {
        let found = state.files.read(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))?;
        let (_, csv) = found.ok_or_else(|| no_file(&id))?;
        let wants_csv =
            headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/csv"));
        return Ok(match wants_csv {
            true => (download("text/csv; charset=utf-8"), csv).into_response(),
            false => (download("application/octet-stream"), STANDARD.encode(csv)).into_response(),
        });
    }
    let file = tokio::fs::File::open(&path).await.map_err(|_| no_file(&id))?;
    let body = Body::from_stream(ReaderStream::new(file));
    Ok((download("application/octet-stream"), [(header::CONTENT_LENGTH, record.bytes)], body).into_response())
}

/// Removes files whose time has come, and gives up uploads that took too long.
pub(crate) async fn expire(state: &AppState) -> Result<(), ApiError> {
    let now = unix_now();
    state.files.expire_uploads(now).await.map_err(|error| catalog_failed(&error))?;
    for (tenant, id) in state.documents.catalog.expired_files(now).await.map_err(|error| catalog_failed(&error))? {
        remove(state, &tenant, &id).await?;
    }
    Ok(())
}

/// Out of every vector store first, so that nothing is answered from a file that is gone; false if there was none.
async fn remove(state: &AppState, tenant: &Tenant, id: &str) -> Result<bool, ApiError> {
    for store in state.documents.catalog.stores_of_file(tenant, id).await.map_err(|error| catalog_failed(&error))? {
        state.documents.detach(tenant, &store, id).await?;
    }
    state.files.remove(tenant, id).await.map_err(|error| catalog_failed(&error))
}

/// `DELETE /v1/files/{id}`: out of every vector store as well.
pub(crate) async fn delete(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    match remove(&state, &caller.tenant, &id).await? {
        true => Ok(Json(Deleted { id, object: "file".to_owned(), deleted: true })),
        false => Err(no_file(&id)),
    }
}

/// Items of one page where the client does not say.
pub(crate) const DEFAULT_ITEMS: u32 = 20;
/// Most items of a page of stores or of their files.
pub(crate) const MOST_STORE_ITEMS: u32 = MOST_ITEMS;

#[cfg(test)]
mod tests {
    use super::clean_name;

    #[test]
    fn names_are_never_paths() {
        for (given, clean) in [
            ("returns.md", "returns.md"),
            ("../../etc/passwd", "passwd"),
            ("C:\\temp\\a.pdf", "a.pdf"),
            ("..", "file"),
            ("", "file"),
            ("a/", "file"),
            ("bell\u{7}\n.md", "bell.md"),
            ("Rückgabe 🚲.md", "Rückgabe 🚲.md"),
        ] {
            assert_eq!(clean_name(given), clean, "{given:?}");
        }
        assert_eq!(clean_name(&"x".repeat(1000)).len(), 255);
    }
}
