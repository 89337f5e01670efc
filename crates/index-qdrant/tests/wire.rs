//! The conformance suite over real gRPC: on a loopback server whose store is Qdrant Edge, and on a Qdrant server when `QDRANT_URL` names one.
#![allow(unreachable_pub, reason = "the modules of one test binary use each other")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking, and a skipped one says so"
)]

mod loopback;

use groundtone_index::{Error, VectorIndex, conformance};
use groundtone_index_edge::Bm25;
use groundtone_index_qdrant::{QdrantIndex, QdrantSettings};
use std::time::{Duration, Instant};

fn settings(milliseconds: u64) -> QdrantSettings {
    QdrantSettings { timeout: Duration::from_millis(milliseconds) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_keeps_every_promise_over_grpc() {
    let server = loopback::start(Duration::ZERO).await;
    let index = QdrantIndex::connect(&server.url, None, settings(10_000)).await.unwrap();
    assert_eq!(conformance::check(&index, &Bm25::new("english", 3.0).unwrap()).await, Ok(()));
    conformance::isolation(&index, &Bm25::new("english", 3.0).unwrap(), 500, 5).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_qdrant_keeps_every_promise() {
    let Ok(url) = std::env::var("QDRANT_URL") else {
        eprintln!("SKIPPED: set QDRANT_URL=http://host:6334 to run the suite on a real Qdrant");
        return;
    };
    let key = std::env::var("QDRANT_API_KEY").ok().map(Into::into);
    let index = QdrantIndex::connect(&url, key, settings(30_000)).await.unwrap();
    assert_eq!(conformance::check(&index, &Bm25::new("english", 3.0).unwrap()).await, Ok(()));
}

#[tokio::test]
async fn a_server_that_is_down_is_named_and_given_up_in_time() {
    let started = Instant::now();
    let error = QdrantIndex::connect("http://127.0.0.1:9", None, settings(300)).await.err().unwrap();
    assert!(matches!(&error, Error::Unavailable { place, .. } if place == "http://127.0.0.1:9"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_late_is_given_up_in_time() {
    let server = loopback::start(Duration::from_secs(60)).await;
    let started = Instant::now();
    let error = QdrantIndex::connect(&server.url, None, settings(300)).await.err().unwrap();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_and_comes_back_is_found_again() {
    let server = loopback::start(Duration::ZERO).await;
    let index = QdrantIndex::connect(&server.url, None, settings(1_000)).await.unwrap();
    let address = server.address;
    server.stop().await;
    assert!(matches!(index.ready().await, Err(Error::Unavailable { .. })));
    let _again = loopback::start_at(address, Duration::ZERO).await;
    index.ready().await.unwrap();
}
