use crate::access::Caller;
use crate::api::wire::unix_now;
use crate::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::multipart::MultipartError;
use axum::extract::{Multipart, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use groundtone_catalog::{FileRecord, NewFile, Page};
use groundtone_openai_api::{Deleted, FileObject, ListPage};
use serde::Deserialize;
use std::sync::Arc;

/// What files may be for. Training files need checks of their own.
const PURPOSES: &[&str] = &["assistants", "user_data"];
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

/// A page of what was found for [`ListQuery::page`].
pub(crate) fn list_page<R, T>(page: Page<'_>, mut found: Vec<R>, id: impl Fn(&R) -> String, wire: impl FnMut(R) -> T) -> ListPage<T> {
    let most = page.limit as usize - 1;
    let has_more = found.len() > most;
    found.truncate(most);
    let (first_id, last_id) = (found.first().map(&id), found.last().map(&id));
    ListPage { object: "list".to_owned(), data: found.into_iter().map(wire).collect(), first_id, last_id, has_more }
}

pub(crate) fn catalog_failed(error: &groundtone_catalog::Error) -> ApiError {
    ApiError::of(error.kind(), error)
}

pub(crate) fn no_file(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no file `{id}`")).param("id")
}

fn wire(file: FileRecord) -> FileObject {
    FileObject {
        id: file.id,
        object: "file".to_owned(),
        bytes: file.bytes,
        created_at: file.created_at,
        expires_at: None,
        filename: file.filename,
        purpose: file.purpose,
        status: "processed".to_owned(),
    }
}

/// `POST /v1/files`: multipart with `purpose` and `file`.
pub(crate) async fn create(State(state): State<Arc<AppState>>, caller: Caller, mut form: Multipart) -> Result<Json<FileObject>, ApiError> {
    let (mut purpose, mut file) = (None, None);
    while let Some(field) = form.next_field().await.map_err(|error| bad_form(&error))? {
        match field.name().unwrap_or_default() {
            "purpose" => purpose = Some(field.text().await.map_err(|error| bad_form(&error))?),
            "file" => {
                let filename = clean_name(field.file_name().unwrap_or_default());
                file = Some((filename, field.bytes().await.map_err(|error| bad_form(&error))?));
            }
            other if other.starts_with("expires_after") => {
                return Err(ApiError::invalid(
                    "expires_after",
                    "`expires_after` is not supported by this server: files stay until they are deleted",
                ));
            }
            _ => {}
        }
    }
    let purpose = purpose.ok_or_else(|| ApiError::invalid("purpose", "send `purpose`"))?;
    if !PURPOSES.contains(&purpose.as_str()) {
        return Err(ApiError::invalid("purpose", format!("`purpose` must be one of `{}`", PURPOSES.join("`, `"))));
    }
    let (filename, bytes) = file.ok_or_else(|| ApiError::invalid("file", "send `file`"))?;
    if bytes.is_empty() {
        return Err(ApiError::invalid("file", "the file is empty"));
    }
    let new = NewFile { filename, purpose, bytes: bytes.to_vec() };
    let record = state.files.add(&caller.tenant, new, unix_now()).await.map_err(|error| catalog_failed(&error).param("file"))?;
    Ok(Json(wire(record)))
}

fn bad_form(error: &MultipartError) -> ApiError {
    ApiError::new(error.status(), error.body_text()).param("file")
}

/// The last part of a client's file name, without what could mislead a terminal, a path or a page.
fn clean_name(name: &str) -> String {
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
    Query(query): Query<ListQuery>,
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

/// `GET /v1/files/{id}/content`: as a download, whatever it is, so that no browser runs it.
pub(crate) async fn content(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    let found = state.files.read(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))?;
    let (_, bytes) = found.ok_or_else(|| no_file(&id))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, bytes).into_response())
}

/// `DELETE /v1/files/{id}`: out of every vector store as well, and first, so that nothing is answered from a file that is gone.
pub(crate) async fn delete(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    for store in state.documents.catalog.stores_of_file(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))? {
        state.documents.detach(&caller.tenant, &store, &id).await?;
    }
    match state.files.remove(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))? {
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
