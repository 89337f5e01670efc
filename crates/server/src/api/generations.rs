use crate::access::Caller;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use groundtone_ingest::Generation;
use groundtone_types::Collection;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Every generation of the assistant's collection.
#[derive(Debug, Serialize, Deserialize)]
pub struct GenerationList {
    /// In the order of their numbers.
    pub generations: Vec<Generation>,
}

/// What `switch` takes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchBody {
    /// The generation that shall answer; the newest one that does not where `None`.
    #[serde(default)]
    pub to: Option<Collection>,
    /// Back to the one that answered before.
    #[serde(default)]
    pub rollback: bool,
}

fn failed(error: &groundtone_ingest::Error) -> ApiError {
    ApiError::of(error.kind(), error)
}

/// `GET /v1/groundtone/generations`.
pub(crate) async fn list(State(state): State<Arc<AppState>>, caller: Caller) -> Result<Json<GenerationList>, ApiError> {
    let documents = &state.documents;
    let generations =
        documents.ingester.generations(&caller.tenant, &documents.settings.collection).await.map_err(|error| failed(&error))?;
    Ok(Json(GenerationList { generations }))
}

/// `POST /v1/groundtone/generations/switch`: the next question is answered from another generation. Answers that have begun go on with what they found.
pub(crate) async fn switch(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<SwitchBody>,
) -> Result<Json<GenerationList>, ApiError> {
    let documents = &state.documents;
    let (ingester, collection) = (&documents.ingester, &documents.settings.collection);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX));
    let done = async {
        let _turn = documents.turn().await?;
        match (body.to, body.rollback) {
            (Some(_), true) => return Err(ApiError::invalid("to", "send `to` or `rollback`, not both")),
            (_, true) => ingester.rollback(collection, now).await.map(drop),
            (Some(to), false) => ingester.switch(collection, &to, now).await,
            (None, false) => match ingester.newest(collection).await {
                Ok(newest) => ingester.switch(collection, &newest, now).await,
                Err(error) => Err(error),
            },
        }
        .map_err(|error| failed(&error))
    };
    done.await?;
    if let Some(answers) = &state.answers {
        answers.clear();
    }
    list(State(state.clone()), caller).await
}
