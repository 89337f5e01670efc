//! A bucket of an S3-compatible store on a loopback port: as much of the protocol as reading takes.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// Objects of one page of a listing.
const PAGE: usize = 2;

/// What a bucket holds under a key.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub media_type: &'static str,
    /// Its version.
    pub etag: String,
}

impl Object {
    /// A text whose etag follows from it.
    pub fn new(media_type: &'static str, text: &str) -> Self {
        Self {
            bytes: text.as_bytes().to_vec(),
            media_type,
            etag: format!("\"{}-{}\"", text.len(), text.bytes().map(u32::from).sum::<u32>()),
        }
    }
}

#[derive(Default)]
struct Shared {
    objects: BTreeMap<String, Object>,
    busy: Mutex<usize>,
    requests: Mutex<Vec<(String, bool)>>,
}

/// A bucket called `help`; stops when dropped. Listings come in pages of two.
pub struct Bucket {
    /// The endpoint, without the bucket.
    pub url: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Bucket {
    /// Starts with these objects; the first `busy` requests are answered with 503 SlowDown.
    pub async fn start<'a>(objects: impl IntoIterator<Item = (&'a str, Object)>, busy: usize) -> Self {
        let objects = objects.into_iter().map(|(key, object)| (key.to_owned(), object)).collect();
        let shared = Arc::new(Shared { objects, busy: Mutex::new(busy), requests: Mutex::default() });
        let app = Router::new()
            .route("/help", get(list))
            .route("/help/{*key}", get(object))
            .fallback(|| async { error(StatusCode::NOT_FOUND, "NoSuchBucket") })
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = async { axum::serve(listener, app).await } => result.expect("the bucket runs"),
                () = stopped.cancelled() => {}
            }
        });
        Self { url, shared, stop }
    }

    /// What was asked for, and whether it was signed.
    pub fn requests(&self) -> Vec<(String, bool)> {
        self.shared.requests.lock().expect("not poisoned").clone()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    /// Notes a request; true while the store is busy.
    fn note(&self, what: &str, headers: &HeaderMap) -> bool {
        let signed = headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"AWS4-HMAC-SHA256 "));
        self.requests.lock().expect("not poisoned").push((what.to_owned(), signed));
        let mut busy = self.busy.lock().expect("not poisoned");
        let was_busy = *busy > 0;
        *busy = busy.saturating_sub(1);
        was_busy
    }
}

async fn list(State(bucket): State<Arc<Shared>>, Query(query): Query<HashMap<String, String>>, headers: HeaderMap) -> Response {
    let prefix = query.get("prefix").cloned().unwrap_or_default();
    if bucket.note(&format!("list {prefix}"), &headers) {
        return error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    }
    let after = query.get("continuation-token").cloned().unwrap_or_default();
    let found: Vec<(&String, &Object)> =
        bucket.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).take(PAGE + 1).collect();
    let more = found.len() > PAGE;
    let mut text = format!(r#"<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>help</Name><IsTruncated>{more}</IsTruncated>"#);
    for (key, object) in found.iter().take(PAGE) {
        let (etag, size) = (object.etag.replace('"', "&quot;"), object.bytes.len());
        text.push_str(&format!(
            "<Contents><Key>{}</Key><LastModified>2026-11-24T08:00:00.000Z</LastModified><ETag>{etag}</ETag><Size>{size}</Size></Contents>",
            key.replace('&', "&amp;")
        ));
    }
    if more {
        text.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", found[PAGE - 1].0));
    }
    text.push_str("</ListBucketResult>");
    Response::builder().header(header::CONTENT_TYPE, "application/xml").body(Body::from(text)).expect("a response")
}

async fn object(State(bucket): State<Arc<Shared>>, Path(key): Path<String>, headers: HeaderMap) -> Response {
    if bucket.note(&format!("get {key}"), &headers) {
        return error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    }
    let Some(object) = bucket.objects.get(&key) else { return error(StatusCode::NOT_FOUND, "NoSuchKey") };
    Response::builder()
        .header(header::CONTENT_TYPE, object.media_type)
        .header(header::ETAG, &object.etag)
        .header(header::LAST_MODIFIED, "Tue, 24 Nov 2026 08:00:00 GMT")
        .body(Body::from(object.bytes.clone()))
        .expect("a response")
}

fn error(status: StatusCode, code: &str) -> Response {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>");
    Response::builder().status(status).header(header::CONTENT_TYPE, "application/xml").body(Body::from(text)).expect("a response")
}
