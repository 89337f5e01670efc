//! A scripted model server over real sockets; for tests only.
//!
//! [`ScriptedServer`] answers `/v1/chat/completions`, `/v1/embeddings` and the routes of document extractors and rerankers with what a test put in its script,
//! is a webhook's receiver at `/hook` and a collector of OpenTelemetry spans at `/v1/traces`, records every request, and knows when a client left.
//! It stands in for a *remote* model where faults and bytes on the wire are tested; answers, training and retrieval are tested with real models.
//! [`RawServer`] is one below HTTP, for what no HTTP library would send. [`Site`] is a web site and [`Bucket`] an S3 bucket, on loopback ports as well.
//! [`small_shop`] and what stands beside it are the shop that clients are tested on, in the stories and by `./gt bench conformance`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a fixture that cannot work must fail its test")]

mod bucket;
mod raw;
mod shop;
mod site;
mod traces;

pub use bucket::{Bucket, Object};
pub use raw::{RawServer, Step};
pub use shop::{SHOP_BASE, SHOP_QUICK, SHOP_TRAINED, answering_shop, shop_model, shop_webhook, small_shop, tuning_shop};
pub use site::{Page, Site, Visit};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{post, put};
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One scripted answer to a chat request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A streamed answer, piece by piece, then a finish reason, usage and `[DONE]`.
    Stream(Vec<String>),
    /// Pieces with a pause before each.
    Slow(Vec<String>, Duration),
    /// A status and a body as they are.
    Raw(u16, &'static str, String),
    /// Some pieces, and then the connection breaks.
    Cut(Vec<String>),
    /// Nothing, ever.
    Silence,
}

/// How the scripted embedder misbehaves.
#[derive(Debug, Clone, Default)]
pub struct EmbedRules {
    /// More texts in one call are refused with 413.
    pub most_texts: Option<usize>,
    /// A call with a text that holds this is refused with 400.
    pub poison: Option<&'static str>,
    /// So many calls are answered with 429 and `Retry-After: 0`, one after the other, from this call on.
    pub storm: Option<(usize, usize)>,
    /// This call is never answered.
    pub stall: Option<usize>,
    /// This call's connection breaks in the middle of the answer.
    pub reset: Option<usize>,
    /// Comes before every answer.
    pub delay: Duration,
}

#[derive(Default)]
struct Shared {
    rules: EmbedRules,
    embed_calls: AtomicUsize,
    embedding_now: AtomicUsize,
    embedding_most: AtomicUsize,
    script: Mutex<VecDeque<Reply>>,
    requests: Mutex<Vec<Value>>,
    gone: AtomicUsize,
}

/// A model server on a loopback port; stops when dropped.
pub struct ScriptedServer {
    /// `http://127.0.0.1:PORT/v1`.
    pub base_url: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl ScriptedServer {
    /// Starts with these replies, in order; the last one is repeated.
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::start_shared(Shared { script: Mutex::new(replies.into_iter().collect()), ..Shared::default() }).await
    }

    /// Starts an embedder with these rules.
    pub async fn start_embedder(rules: EmbedRules) -> Self {
        Self::start_shared(Shared { rules, ..Shared::default() }).await
    }

    async fn start_shared(shared: Shared) -> Self {
        let shared = Arc::new(shared);
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/embeddings", post(embeddings))
            .route("/tika", put(extract))
            .route("/v1/convert/file", post(extract))
            .route("/rerank", post(extract))
            .route("/v2/rerank", post(extract))
            .route("/hook", post(hook))
            .route("/v1/traces", post(traces::collect))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let base_url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = async { axum::serve(listener, app).await } => result.expect("the scripted server runs"),
                () = stopped.cancelled() => {}
            }
        });
        Self { base_url, shared, stop }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn root(&self) -> &str {
        self.base_url.trim_end_matches("/v1")
    }

    /// Bodies of all chat and embedding requests so far.
    pub fn requests(&self) -> Vec<Value> {
        self.shared.requests.lock().expect("not poisoned").clone()
    }

    /// Most embedding calls that were in progress at the same time.
    pub fn most_parallel(&self) -> usize {
        self.shared.embedding_most.load(Ordering::SeqCst)
    }

    /// How many clients left in the middle of an answer.
    pub fn clients_gone(&self) -> usize {
        self.shared.gone.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// The next line of the script; the last one is repeated.
    fn next_reply(&self) -> Reply {
        let mut script = self.script.lock().expect("not poisoned");
        if script.len() > 1 { script.pop_front() } else { script.front().cloned() }.expect("a script")
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Counts a client that left before the end.
struct Watch {
    shared: Arc<Shared>,
    finished: bool,
}

impl Watch {
    fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.gone.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

fn chunk(delta: &Value, finish: &Value) -> Value {
    json!({"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

async fn chat(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    shared.requests.lock().expect("not poisoned").push(serde_json::from_slice(&body).expect("a JSON request"));
    let (pieces, pause, whole) = match shared.next_reply() {
        Reply::Raw(status, media, text) => return respond(StatusCode::from_u16(status).expect("a status"), media, Body::from(text)),
        Reply::Silence => {
            let _watch = Watch { shared, finished: false };
            return std::future::pending().await;
        }
        Reply::Stream(pieces) => (pieces, Duration::ZERO, true),
        Reply::Slow(pieces, pause) => (pieces, pause, true),
        Reply::Cut(pieces) => (pieces, Duration::ZERO, false),
    };
    let words = pieces.len();
    let mut events: Vec<Option<Bytes>> = pieces.iter().map(|piece| Some(event(&chunk(&json!({"content": piece}), &Value::Null)))).collect();
    if whole {
        events.push(Some(event(&chunk(&json!({}), &json!("stop")))));
        let usage = json!({"id": "chatcmpl-scripted", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": words, "total_tokens": 10 + words}});
        events.push(Some(event(&usage)));
        events.push(Some(Bytes::from_static(b"data: [DONE]\n\n")));
    } else {
        events.push(None);
    }
    let watch = Watch { shared, finished: false };
    let stream = futures::stream::unfold((events.into_iter(), watch), move |(mut events, mut watch)| async move {
        let Some(next) = events.next() else {
            watch.finish();
            return None;
        };
        tokio::time::sleep(pause).await;
        Some((next.ok_or_else(|| std::io::Error::other("cut by the script")), (events, watch)))
    });
    respond(StatusCode::OK, "text/event-stream", Body::from_stream(stream.boxed()))
}

/// Vectors of length 4 that depend on the text's length and bytes only.
async fn embeddings(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("a JSON request");
    let texts: Vec<String> = serde_json::from_value(request["input"].clone()).expect("a list of texts");
    shared.requests.lock().expect("not poisoned").push(request);
    let rules = &shared.rules;
    let call = shared.embed_calls.fetch_add(1, Ordering::SeqCst);
    let now = shared.embedding_now.fetch_add(1, Ordering::SeqCst) + 1;
    shared.embedding_most.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(rules.delay).await;
    shared.embedding_now.fetch_sub(1, Ordering::SeqCst);
    let refuse = |status: u16, message: &str| {
        let body = Body::from(json!({"error": {"message": message}}).to_string());
        let mut response = respond(StatusCode::from_u16(status).expect("a status"), "application/json", body);
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("0"));
        response
    };
    if rules.stall == Some(call) {
        return std::future::pending().await;
    }
    if rules.reset == Some(call) {
        let pieces = [Ok(Bytes::from_static(b"{\"object\": \"list\", \"data\": [")), Err(std::io::Error::other("cut by the script"))];
        return respond(StatusCode::OK, "application/json", Body::from_stream(futures::stream::iter(pieces)));
    }
    if rules.storm.is_some_and(|(first, count)| (first..first + count).contains(&call)) {
        return refuse(429, "slow down");
    }
    if rules.most_texts.is_some_and(|most| texts.len() > most) {
        return refuse(413, "too many texts");
    }
    if rules.poison.is_some_and(|poison| texts.iter().any(|text| text.contains(poison))) {
        return refuse(400, "this text is not accepted");
    }
    let vector = |text: &str| {
        let mut vector = [1f32, 0.0, 0.0, 0.0];
        for (at, byte) in text.bytes().enumerate() {
            vector[at % 4] += f32::from(byte);
        }
        vector
    };
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .rev()
        .map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": vector(text)}))
        .collect();
    let answer = json!({"object": "list", "data": data, "model": "scripted", "usage": {"prompt_tokens": 1, "total_tokens": 1}});
    respond(StatusCode::OK, "application/json", Body::from(answer.to_string()))
}

/// A document extractor or a reranker: records the request as text and gives the next [`Reply::Raw`].
async fn extract(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("a text header").to_owned());
    shared.requests.lock().expect("not poisoned").push(json!({
        "path": uri.path(),
        "accept": header("accept"),
        "content-type": header("content-type"),
        "content-disposition": header("content-disposition"),
        "body": String::from_utf8_lossy(&body),
    }));
    match shared.next_reply() {
        Reply::Raw(status, media, text) => respond(StatusCode::from_u16(status).expect("a status"), media, Body::from(text)),
        _ => std::future::pending().await,
    }
}

/// A webhook's receiver: records the message with its headers and gives the next [`Reply::Raw`].
async fn hook(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("a text header").to_owned());
    shared.requests.lock().expect("not poisoned").push(json!({
        "id": header("webhook-id"),
        "timestamp": header("webhook-timestamp"),
        "signature": header("webhook-signature"),
        "content-type": header("content-type"),
        "body": String::from_utf8_lossy(&body),
    }));
    match shared.next_reply() {
        Reply::Raw(status, media, text) => respond(StatusCode::from_u16(status).expect("a status"), media, Body::from(text)),
        _ => std::future::pending().await,
    }
}

fn respond(status: StatusCode, media: &str, body: Body) -> Response {
    Response::builder().status(status).header(header::CONTENT_TYPE, media).body(body).expect("a response")
}
