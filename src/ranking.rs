//! Settings to a ranking: fusion, refinements, reranker, gate.

use crate::assemble::threads;
use crate::output::hint;
use groundtone_config::{Config, FusionKind, RerankerKind};
use groundtone_local::{LocalReranker, RerankerSettings};
use groundtone_provider::{Endpoint, HttpReranker, RerankShape, Reranker};
use groundtone_retrieval::{Fusion, Gate, Recency, Refinement, Retriever, Trust};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How the arms are fused.
pub(crate) fn fusion(config: &Config) -> Fusion {
    match config.retrieval.fusion {
        FusionKind::Rrf => Fusion::Rrf { k: config.retrieval.rrf_k },
        FusionKind::Weighted => Fusion::Weighted { dense: config.retrieval.dense_weight },
    }
}

/// What happens to the fused ranking.
pub(crate) fn refinement(config: &Config) -> Refinement {
    let settings = &config.retrieval;
    let recency =
        Recency { field: settings.recency_field.clone(), half_life_days: settings.recency_half_life_days, weight: settings.recency_weight };
    Refinement {
        recency: (!recency.field.is_empty()).then_some(recency),
        trust: settings.trust_weights().flatten().map(|(prefix, weight)| Trust { prefix, weight }).collect(),
        mmr_lambda: (settings.mmr_lambda < 1.0).then_some(settings.mmr_lambda),
        merge_neighbours: settings.merge_neighbours,
    }
}

/// The cross-encoder, where one is configured.
pub(crate) fn reranker(config: &Config) -> anyhow::Result<Option<Arc<dyn Reranker>>> {
    let settings = &config.reranker;
    let shape = match settings.kind {
        RerankerKind::None => return Ok(None),
        RerankerKind::Local => return local_reranker(&settings.path, config).map(Some),
        RerankerKind::Tei => RerankShape::Tei,
        RerankerKind::Cohere => RerankShape::Cohere,
    };
    let key = groundtone_config::secret("reranker.api_key_env", &settings.api_key_env)?;
    let limit = Duration::from_secs(settings.timeout_seconds);
    let endpoint = Endpoint::new(&settings.url, key, limit, limit, limit)?;
    Ok(Some(Arc::new(HttpReranker::new(endpoint, shape, &settings.model, settings.batch))))
}

fn local_reranker(folder: &Path, config: &Config) -> anyhow::Result<Arc<dyn Reranker>> {
    let settings = &config.reranker;
    let named = if settings.model.is_empty() {
        folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    } else {
        settings.model.clone()
    };
    let settings = RerankerSettings {
        model_id: named,
        max_tokens: settings.max_tokens,
        threads: threads(settings.threads),
        timeout: Duration::from_secs(settings.timeout_seconds),
    };
    let loaded = LocalReranker::load(folder, settings);
    let loaded =
        loaded.map_err(|error| hint(error, "`reranker.path` is a folder with `model.onnx` and `tokenizer.json` of a cross-encoder"))?;
    Ok(Arc::new(loaded))
}

/// The gate.
pub(crate) fn gate(config: &Config) -> Gate {
    let gate = &config.gate;
    Gate {
        embedder: gate.embedder.clone(),
        threshold: gate.threshold,
        intercept: gate.intercept,
        weights: [gate.dense, gate.bm25, gate.margin, gate.coverage],
    }
}

/// A retriever with everything that the settings say of ranking.
pub(crate) fn ranked(retriever: Retriever, config: &Config) -> anyhow::Result<Retriever> {
    let retriever = retriever.fused(fusion(config)).refined(refinement(config)).gated(Some(gate(config)));
    Ok(match reranker(config)? {
        Some(model) => retriever.reranked(model, config.reranker.candidates),
        None => retriever,
    })
}
