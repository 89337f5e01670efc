use crate::error::ApiError;
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use groundtone_openai_api::{Model, ModelList};
use std::sync::Arc;

fn models(state: &AppState) -> Vec<Model> {
    let ids = [state.answerer.assistant().name.as_str(), state.embedder.id()];
    ids.map(|id| Model { id: id.to_owned(), object: "model".to_owned(), created: state.started_at, owned_by: "groundtone".to_owned() })
        .to_vec()
}

/// The assistant and the embedder.
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
