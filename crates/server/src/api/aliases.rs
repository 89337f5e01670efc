//! `/v1/groundtone/aliases`: names that stand for fine-tuned models, so that an old `ft:...` keeps answering from its replacement.

use crate::access::Caller;
use crate::api::files::catalog_failed;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use groundtone_openai_api::Deleted;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest name.
const NAME_CHARS: usize = 200;

/// A name and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// What clients send.
    pub id: String,
    /// The model that answers.
    pub target: String,
}

/// Body of `PUT`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasBody {
    /// The model that answers.
    pub target: String,
}

/// `GET /v1/groundtone/aliases`.
pub(crate) async fn list(State(state): State<Arc<AppState>>, caller: Caller) -> Result<Json<Vec<Alias>>, ApiError> {
    let aliases = state.documents.catalog.aliases(&caller.tenant).await.map_err(|error| catalog_failed(&error))?;
    Ok(Json(aliases.into_iter().map(|(id, target)| Alias { id, target }).collect()))
}

/// `PUT /v1/groundtone/aliases/{id}`: the next question to `id` is answered by `target`.
pub(crate) async fn put(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
    ApiJson(body): ApiJson<AliasBody>,
) -> Result<Json<Alias>, ApiError> {
    let (catalog, tenant) = (&state.documents.catalog, &caller.tenant);
    let is_taken = id == state.answerer.assistant().name || state.tuning.base_models().contains(&id);
    if !(1..=NAME_CHARS).contains(&id.chars().count()) || id.chars().any(char::is_control) || is_taken {
        return Err(ApiError::invalid("id", format!("`{id}` cannot be an alias: the name is taken, or it is too long")));
    }
    match catalog.model(tenant, &body.target).await.map_err(|error| catalog_failed(&error))? {
        Some(model) if model.id == body.target && model.id != id => {}
        _ => return Err(ApiError::invalid("target", format!("there is no fine-tuned model `{}`", body.target))),
    }
    if catalog.models(tenant).await.map_err(|error| catalog_failed(&error))?.iter().any(|model| model.id == id) {
        return Err(ApiError::invalid("id", format!("`{id}` is a model itself")));
    }
    catalog.put_alias(tenant, &id, &body.target).await.map_err(|error| catalog_failed(&error))?;
    Ok(Json(Alias { id, target: body.target }))
}

/// `DELETE /v1/groundtone/aliases/{id}`.
pub(crate) async fn delete(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    match state.documents.catalog.delete_alias(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))? {
        true => Ok(Json(Deleted { id, object: "alias".to_owned(), deleted: true })),
        false => Err(ApiError::not_found(format!("there is no alias `{id}`"))),
    }
}
