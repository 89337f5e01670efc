use crate::access::Caller;
use crate::api::files::catalog_failed;
use crate::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use groundtone_answer::Question;
use groundtone_openai_api::{Deleted, Model, ModelList};
use std::sync::Arc;

/// Pins a variant where the model's name does not.
const VARIANT_HEADER: &str = "x-groundtone-variant";
/// Says what stays the same in all turns of a conversation.
const CONVERSATION_HEADER: &str = "x-groundtone-conversation";
/// Longest value of either, in bytes.
const HEADER_BYTES: usize = 256;

fn model(id: &str, created: i64, owned_by: &str) -> Model {
    Model { id: id.to_owned(), object: "model".to_owned(), created, owned_by: owned_by.to_owned(), shutdown_date: None }
}

/// The assistant, the embedder, and the assistant's variants.
fn fixed(state: &AppState) -> Vec<Model> {
    let name = &state.answerer.assistant().name;
    let variants = state.answerer.variants().iter().map(|variant| format!("{name}:{}", variant.name));
    let ids = [name.clone(), state.embedder.id().to_owned()].into_iter().chain(variants);
    ids.map(|id| model(&id, state.started_at, "groundtone")).collect()
}

/// Who a request asks: the assistant follows its release, `ASSISTANT:VARIANT` and a header pin a variant. The name wins.
#[derive(Debug)]
pub(crate) struct Addressed {
    variant: Option<String>,
    conversation: Option<String>,
}

impl Addressed {
    pub(crate) fn read(state: &AppState, model: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let header = |name: &str| match headers.get(name).map(|value| value.to_str()) {
            None => Ok(None),
            Some(Ok(value)) if (1..=HEADER_BYTES).contains(&value.trim().len()) => Ok(Some(value.trim().to_owned())),
            Some(_) => Err(ApiError::invalid(name, format!("`{name}` must be 1 to {HEADER_BYTES} bytes of text"))),
        };
        let own = state.answerer.assistant().name.as_str();
        let variant = match model.strip_prefix(own).map(|rest| rest.strip_prefix(':').ok_or(rest)) {
            Some(Ok(variant)) if state.answerer.variant(variant).is_ok() => Some(variant.to_owned()),
            Some(Err("")) => header(VARIANT_HEADER)?,
            _ => return Err(unknown(state, model)),
        };
        if let Some(variant) = &variant {
            state.answerer.variant(variant).map_err(|error| ApiError::invalid(VARIANT_HEADER, error.to_string()))?;
        }
        Ok(Self { variant, conversation: header(CONVERSATION_HEADER)? })
    }

    /// The same question, addressed.
    pub(crate) fn to(&self, question: Question) -> Question {
        Question { variant: self.variant.clone(), conversation: self.conversation.clone(), ..question }
    }
}

/// The assistant, the embedder, the assistant's variants, what can be trained, and what was trained.
pub(crate) async fn list(State(state): State<Arc<AppState>>, caller: Caller) -> Result<Json<ModelList>, ApiError> {
    let mut data = fixed(&state);
    for name in state.tuning.base_models() {
        if data.iter().all(|known| known.id != name) {
            data.push(model(&name, state.started_at, "groundtone"));
        }
    }
    let (catalog, tenant) = (&state.documents.catalog, &caller.tenant);
    let trained = catalog.models(tenant).await.map_err(|error| catalog_failed(&error))?;
    let aliases = catalog.aliases(tenant).await.map_err(|error| catalog_failed(&error))?;
    for (alias, target) in aliases {
        data.extend(trained.iter().find(|model| model.id == target).map(|target| model(&alias, target.created_at, tenant.as_str())));
    }
    data.extend(trained.iter().map(|trained| model(&trained.id, trained.created_at, tenant.as_str())));
    Ok(Json(ModelList { object: "list".to_owned(), data }))
}

/// One of them, or a checkpoint.
pub(crate) async fn retrieve(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    if let Some(found) = fixed(&state).into_iter().find(|model| model.id == id) {
        return Ok(Json(found));
    }
    if state.tuning.base_models().contains(&id) {
        return Ok(Json(model(&id, state.started_at, "groundtone")));
    }
    let trained = state.documents.catalog.model(&caller.tenant, &id).await.map_err(|error| catalog_failed(&error))?;
    trained.map(|trained| Json(model(&id, trained.created_at, caller.tenant.as_str()))).ok_or_else(|| unknown(&state, &id))
}

/// `DELETE /v1/models/{id}`: a model that was trained, or an alias of one.
pub(crate) async fn delete(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    if fixed(&state).iter().any(|model| model.id == id) || state.tuning.base_models().contains(&id) {
        return Err(ApiError::invalid("model", format!("`{id}` belongs to the configuration; only fine-tuned models can be deleted")));
    }
    // A variant's model is the one that was opened at the start; what an alias of it stands for then is noted in releases.
    if let Some(variant) = state.answerer.variants().iter().find(|variant| variant.model.id() == id && id.starts_with("ft:")) {
        let message = format!("the variant `{}` answers with `{id}`; configure another model for it first", variant.name);
        return Err(ApiError::new(StatusCode::CONFLICT, message).code("model_in_use"));
    }
    match state.tuning.delete_model(&caller.tenant, &id).await? {
        true => Ok(Json(Deleted { id, object: "model".to_owned(), deleted: true })),
        false => Err(unknown(&state, &id)),
    }
}

/// What a client is told that names a model which is not here.
pub(crate) fn unknown(state: &AppState, id: &str) -> ApiError {
    let names: Vec<String> = fixed(state).into_iter().map(|model| format!("`{}`", model.id)).collect();
    let message = format!("there is no model `{id}`; this server has {} and what `/v1/models` lists", names.join(" and "));
    ApiError::not_found(message).code("model_not_found")
}
