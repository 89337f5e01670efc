//! Rerankers against a scripted server over real sockets, in the shapes that TEI's and Cohere's documentation give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use groundtone_provider::{Endpoint, HttpReranker, RerankShape, Reranker};
use groundtone_testkit::{Reply, ScriptedServer};
use groundtone_types::ErrorKind;
use serde_json::{Value, json};
use std::time::Duration;

fn reranker(server: &ScriptedServer, shape: RerankShape, batch: usize) -> HttpReranker {
    let limit = Duration::from_millis(500);
    let endpoint = Endpoint::new(server.root(), Some("key".to_owned().into()), limit, limit, limit).unwrap();
    HttpReranker::new(endpoint, shape, "rerank-v3.5", batch)
}

fn answer(body: &Value) -> Reply {
    Reply::Raw(200, "application/json", body.to_string())
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("text {at}")).collect()
}

/// Path and body of each request.
fn sent(server: &ScriptedServer) -> Vec<(Value, Value)> {
    server
        .requests()
        .iter()
        .map(|request| (request["path"].clone(), serde_json::from_str(request["body"].as_str().unwrap()).unwrap()))
        .collect()
}

#[tokio::test]
async fn tei_scores_come_back_in_the_order_of_the_texts() {
    let replies = [answer(&json!([{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}])), answer(&json!([{"index": 0, "score": 0.4}]))];
    let server = ScriptedServer::start(replies).await;
    let scores = reranker(&server, RerankShape::Tei, 2).rerank("why?", &texts(3)).await.unwrap();
    assert_eq!(scores, [0.1, 0.9, 0.4]);
    assert_eq!(
        sent(&server),
        [
            (json!("/rerank"), json!({"query": "why?", "texts": ["text 0", "text 1"], "truncate": true, "raw_scores": false})),
            (json!("/rerank"), json!({"query": "why?", "texts": ["text 2"], "truncate": true, "raw_scores": false})),
        ]
    );
}

#[tokio::test]
async fn cohere_scores_come_back_in_the_order_of_the_texts() {
    let body = json!({"id": "x", "results": [{"index": 1, "relevance_score": 0.98}, {"index": 0, "relevance_score": 0.02}], "meta": {}});
    let server = ScriptedServer::start([answer(&body)]).await;
    assert_eq!(reranker(&server, RerankShape::Cohere, 100).rerank("why?", &texts(2)).await.unwrap(), [0.02, 0.98]);
    let expect = json!({"model": "rerank-v3.5", "query": "why?", "documents": ["text 0", "text 1"], "top_n": 2});
    assert_eq!(sent(&server), [(json!("/v2/rerank"), expect)]);
}

#[tokio::test]
async fn what_is_not_one_score_a_text_is_an_error() {
    for (reply, kind) in [
        (answer(&json!([{"index": 0, "score": 0.5}])), ErrorKind::Unavailable),
        (answer(&json!([{"index": 0, "score": 0.5}, {"index": 7, "score": 0.5}])), ErrorKind::Unavailable),
        (answer(&json!({"error": "x"})), ErrorKind::Unavailable),
        (
            Reply::Raw(429, "application/json", json!({"error": "overloaded", "error_type": "Overloaded"}).to_string()),
            ErrorKind::Overloaded,
        ),
        (Reply::Silence, ErrorKind::Timeout),
    ] {
        let server = ScriptedServer::start([reply.clone()]).await;
        let error = reranker(&server, RerankShape::Tei, 100).rerank("why?", &texts(2)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{reply:?}: {error}");
    }
}

#[tokio::test]
async fn nothing_is_asked_about_nothing() {
    let server = ScriptedServer::start([Reply::Silence]).await;
    assert!(reranker(&server, RerankShape::Tei, 4).rerank("why?", &[]).await.unwrap().is_empty());
    assert!(server.requests().is_empty());
}
