use crate::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use groundtone_answer::Question;
use groundtone_openai_api::{Model, ModelList};
use std::sync::Arc;

/// Pins a variant where the model's name does not.
const VARIANT_HEADER: &str = "x-groundtone-variant";
/// Says what stays the same in all turns of a conversation.
const CONVERSATION_HEADER: &str = "x-groundtone-conversation";
/// Longest value of either, in bytes.
const HEADER_BYTES: usize = 256;

fn models(state: &AppState) -> Vec<Model> {
    let name = &state.answerer.assistant().name;
    let variants = state.answerer.variants().iter().map(|variant| format!("{name}:{}", variant.name));
    let ids = [name.clone(), state.embedder.id().to_owned()].into_iter().chain(variants);
    ids.map(|id| Model { id, object: "model".to_owned(), created: state.started_at, owned_by: "groundtone".to_owned() }).collect()
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
    pub(crate) fn to(self, question: Question) -> Question {
        Question { variant: self.variant, conversation: self.conversation, ..question }
    }
}

/// The assistant, the embedder, and the assistant's variants.
pub(crate) async fn list(State(state): State<Arc<AppState>>) -> Json<ModelList> {
    Json(ModelList { object: "list".to_owned(), data: models(&state) })
}

/// One of them.
pub(crate) async fn retrieve(State(state): State<Arc<AppState>>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    models(&state).into_iter().find(|model| model.id == id).map(Json).ok_or_else(|| unknown(&state, &id))
}

/// What a client is told that names a model which is not here.
pub(crate) fn unknown(state: &AppState, id: &str) -> ApiError {
    let names: Vec<String> = models(state).into_iter().map(|model| format!("`{}`", model.id)).collect();
    let mut error = ApiError::not_found(format!("there is no model `{id}`; this server has {}", names.join(" and ")));
    error = error.code("model_not_found");
    error
}
