use crate::access::Caller;
use crate::api::models::unknown;
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groundtone_catalog::Used;
use groundtone_openai_api::{Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage, EmbeddingValues, EncodingFormat};
use groundtone_provider::EmbedFor;
use std::sync::Arc;

/// Vectors of the embedder that the collections are built with.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(request): ApiJson<EmbeddingRequest>,
) -> Result<Json<EmbeddingList>, ApiError> {
    if request.model != state.embedder.id() {
        return Err(unknown(&state, &request.model));
    }
    if request.dimensions.is_some_and(|wanted| wanted != state.embedder.dimensions()) {
        return Err(ApiError::invalid(
            "dimensions",
            format!("`{}` makes vectors of {} numbers only", request.model, state.embedder.dimensions()),
        ));
    }
    let texts = request.input.into_vec();
    let most = state.limits.max_embedding_inputs;
    if texts.is_empty() || texts.len() > most || texts.iter().any(String::is_empty) {
        return Err(ApiError::invalid("input", format!("send 1 to {most} texts, none of them empty")));
    }
    let tokens = state.embedder.tokens();
    let read: usize = texts.iter().map(|text| tokens.count(text)).sum();
    let vectors = state.embedder.embed(&texts, EmbedFor::Document).await.map_err(|error| ApiError::of(error.kind(), &error))?;
    if let Some(key) = &caller.key {
        key.count(unix_now(), Used { tokens: read as u64, ..Used::default() });
    }
    let encode = |vector: Vec<f32>| match request.encoding_format {
        Some(EncodingFormat::Base64) => {
            EmbeddingValues::Base64(STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
        }
        _ => EmbeddingValues::Float(vector),
    };
    let data = vectors
        .into_iter()
        .enumerate()
        .map(|(index, vector)| Embedding { object: "embedding".to_owned(), index, embedding: encode(vector) })
        .collect();
    let usage = EmbeddingUsage { prompt_tokens: read as u64, total_tokens: read as u64 };
    Ok(Json(EmbeddingList { object: "list".to_owned(), data, model: request.model, usage: Some(usage) }))
}
