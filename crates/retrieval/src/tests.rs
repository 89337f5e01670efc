//! The retriever over the exact index, with an embedder of letters.

use crate::*;
use async_trait::async_trait;
use groundtone_index::{CollectionSpec, Filter, MemoryIndex, Point, SparseEmbedder, VectorIndex, WordHashSparse};
use groundtone_prompt::{CountTokens, OpenAiTokens};
use groundtone_provider::{CallLimits, EmbedFor, Embedder, Error as ProviderError, Reranker};
use groundtone_types::{Chunk, Collection, DocumentId, Span, Tenant};
use std::sync::Arc;

/// A chunk of a document as retrieval hands it on.
pub(crate) fn hit(document: &str, ordinal: u32, text: &str) -> Explained {
    let chunk = Chunk {
        document: DocumentId::new(document).unwrap(),
        ordinal,
        span: Span { start: 0, end: text.len() },
        heading_path: vec!["Section".into()],
        title: "Title".into(),
        url: format!("https://example.test/{document}"),
        text: text.into(),
        page: None,
        parent: None,
        metadata: Default::default(),
    };
    Explained { snippet: Snippet { id: chunk.point_id(), chunk, score: 1.0 }, arms: Arms::default() }
}

/// How often each letter is there.
struct Letters;

#[async_trait]
impl Embedder for Letters {
    fn id(&self) -> &str {
        "letters"
    }
    fn dimensions(&self) -> usize {
        26
    }
    fn max_tokens(&self) -> usize {
        1_000
    }
    fn tokens(&self) -> Arc<dyn CountTokens> {
        OpenAiTokens::for_model("gpt-4o")
    }
    fn limits(&self) -> CallLimits {
        CallLimits { texts: 8, tokens: 1_000, parallel: 1 }
    }
    async fn embed(&self, texts: &[String], _: EmbedFor) -> Result<Vec<Vec<f32>>, ProviderError> {
        let letters = |text: &String| {
            let mut vector = vec![0.01f32; 26];
            text.bytes().filter(u8::is_ascii_alphabetic).for_each(|b| vector[usize::from(b.to_ascii_lowercase() - b'a')] += 1.0);
            vector
        };
        Ok(texts.iter().map(letters).collect())
    }
}

/// Prefers the texts that hold a word; refuses to work where there is none.
struct Prefers(&'static str);

#[async_trait]
impl Reranker for Prefers {
    fn id(&self) -> &str {
        "prefers"
    }
    async fn rerank(&self, _: &str, texts: &[String]) -> Result<Vec<f32>, ProviderError> {
        if self.0.is_empty() {
            return Err(ProviderError::Model { model: "prefers".into(), reason: "off".into() });
        }
        Ok(texts.iter().map(|text| if text.contains(self.0) { 0.9 } else { 0.1 }).collect())
    }
}

const TEXTS: [(&str, u32, &str, &str); 6] = [
    ("returns", 0, "Kettles can be returned within 45 days.", r#"{"lang":"en","date":"2026-01-01"}"#),
    ("returns", 1, "The label costs six euro.", r#"{"lang":"en","date":"2026-01-01"}"#),
    ("warranty", 0, "Kettles have a warranty of ten years.", r#"{"lang":"en","date":"2019-01-01"}"#),
    ("garantie", 0, "Wasserkocher haben zehn Jahre Garantie.", r#"{"lang":"de"}"#),
    ("copy", 0, "Kettles  can be returned within 45 days.", "{}"),
    ("shops", 0, "The shop in Cork opens at nine.", "{}"),
];

async fn retriever(top_k: usize) -> (Retriever, Tenant, Collection) {
    let (index, tenant, collection) = (MemoryIndex::default(), Tenant::default(), Collection::new("docs").unwrap());
    index.ensure(&CollectionSpec { name: collection.clone(), dimensions: 26 }).await.unwrap();
    for (document, ordinal, text, metadata) in TEXTS {
        let mut chunk = hit(document, ordinal, text).snippet.chunk;
        chunk.metadata = serde_json::from_str(metadata).unwrap();
        let dense = Letters.embed(&[text.to_owned()], EmbedFor::Document).await.unwrap().remove(0);
        let point = Point { id: chunk.point_id(), dense, sparse: WordHashSparse.document(text), chunk };
        index.upsert(&tenant, &collection, vec![point]).await.unwrap();
    }
    let settings = Settings { mode: Mode::Hybrid, top_k, candidates: 10 };
    (Retriever::new(Arc::new(index), Arc::new(Letters), Arc::new(WordHashSparse), settings), tenant, collection)
}

fn documents(found: &Retrieved) -> Vec<&str> {
    found.hits.iter().map(|hit| hit.snippet.chunk.document.as_str()).collect()
}

#[tokio::test]
async fn hits_come_with_both_arms_and_no_text_twice() {
    let (retriever, tenant, collection) = retriever(4).await;
    let found = retriever.search(&tenant, &collection, &Request::new("When can kettles be returned?")).await.unwrap();
    assert!(matches!(found.hits[0].arms, Arms { dense: Some(_), bm25: Some(_), rerank: None }));
    let copies = documents(&found).into_iter().filter(|document| matches!(*document, "returns" | "copy")).count();
    assert!(found.hits[0].snippet.chunk.text.contains("returned within 45 days") && copies <= 2, "{found:?}");
    let shown: Vec<String> = found.hits.iter().map(|hit| hit.snippet.chunk.text.split_whitespace().collect()).collect();
    assert_eq!(shown.iter().collect::<std::collections::BTreeSet<_>>().len(), shown.len());
    assert!(found.evidence.coverage > 0.9 && found.evidence.dense > 0.5 && found.evidence.bm25 > 0.0, "{:?}", found.evidence);
    assert_eq!(found.verdict, None);
    let snippets = retriever.retrieve(&tenant, &collection, "When can kettles be returned?").await.unwrap();
    assert_eq!(snippets, found.snippets());
}

#[tokio::test]
async fn a_filter_holds_in_both_arms() {
    let (retriever, tenant, collection) = retriever(6).await;
    let filter = Filter::of_metadata(serde_json::json!({"lang": "de"}).as_object().unwrap()).unwrap();
    let request = Request { filter, ..Request::new("kettles returned 45 days") };
    assert_eq!(documents(&retriever.search(&tenant, &collection, &request).await.unwrap()), ["garantie"]);
}

#[tokio::test]
async fn a_reranker_decides_and_its_failure_costs_nothing() {
    let (retriever, tenant, collection) = retriever(2).await;
    let request = Request::new("kettles warranty returned");
    let plain = retriever.search(&tenant, &collection, &request).await.unwrap();
    let found = retriever.clone().reranked(Arc::new(Prefers("Cork")), 10).search(&tenant, &collection, &request).await.unwrap();
    assert_eq!(documents(&found)[0], "shops");
    assert_eq!(found.hits[0].arms.rerank, Some(ArmScore { rank: 1, score: 0.9 }));
    let failed = retriever.clone().reranked(Arc::new(Prefers("")), 10).search(&tenant, &collection, &request).await.unwrap();
    assert_eq!(failed.hits, plain.hits);
    let few = retriever.reranked(Arc::new(Prefers("Cork")), 1).search(&tenant, &collection, &request).await.unwrap();
    assert_eq!(few.hits.len(), 1, "what the reranker did not read is dropped");
}

#[tokio::test]
async fn refinements_reach_the_result() {
    let (retriever, tenant, collection) = retriever(3).await;
    let request = Request { now: 1_767_225_600, ..Request::new("kettles warranty returned label") };
    let recency = Recency { field: "date".into(), half_life_days: 30.0, weight: 1.0 };
    let recent = retriever.clone().refined(Refinement { recency: Some(recency), ..Refinement::default() });
    assert!(!documents(&recent.search(&tenant, &collection, &request).await.unwrap()).contains(&"warranty"));
    let trust = vec![Trust { prefix: "shops".into(), weight: 10.0 }];
    let trusting = retriever.clone().refined(Refinement { trust, ..Refinement::default() });
    assert_eq!(documents(&trusting.search(&tenant, &collection, &request).await.unwrap())[0], "shops");
    let merging = retriever.clone().refined(Refinement { merge_neighbours: true, ..Refinement::default() });
    let only = Filter::document(DocumentId::new("returns").unwrap());
    let found = merging.search(&tenant, &collection, &Request { filter: only, ..request.clone() }).await.unwrap();
    let merged = found.hits.iter().find(|hit| hit.snippet.chunk.document.as_str() == "returns").unwrap();
    assert_eq!(merged.snippet.chunk.shown_text(), "Kettles can be returned within 45 days.\nThe label costs six euro.");
    let varied = retriever.refined(Refinement { mmr_lambda: Some(0.3), ..Refinement::default() });
    assert_eq!(varied.search(&tenant, &collection, &request).await.unwrap().hits.len(), 3);
}

#[tokio::test]
async fn a_gate_speaks_for_its_own_embedder_only() {
    let (retriever, tenant, collection) = retriever(2).await;
    let gate = |embedder: &str| Some(Gate { embedder: embedder.into(), threshold: 0.5, intercept: -4.0, weights: [0.0, 0.0, 0.0, 8.0] });
    let own = retriever.clone().gated(gate("letters"));
    let verdict = |found: Retrieved| found.verdict.map(|verdict| verdict.answerable);
    let ask = |question: &'static str| Request::new(question);
    assert_eq!(verdict(own.search(&tenant, &collection, &ask("Can kettles be returned?")).await.unwrap()), Some(true));
    assert_eq!(verdict(own.search(&tenant, &collection, &ask("Which submarines dive deepest?")).await.unwrap()), Some(false));
    let foreign = retriever.gated(gate("another"));
    assert_eq!(verdict(foreign.search(&tenant, &collection, &ask("Which submarines dive deepest?")).await.unwrap()), None);
}
