//! A web site on a loopback port that behaves as a test tells it to.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What a path of the site answers. `{site}` in texts and targets stands for the site's own address.
#[derive(Debug, Clone)]
pub enum Page {
    /// A text with its media type.
    Text(&'static str, String),
    /// Bytes with their media type and, if not empty, their content encoding.
    Bytes(&'static str, &'static str, Vec<u8>),
    /// A status and nothing else.
    Status(u16),
    /// 429 with `Retry-After: 0` so many times, then the text.
    Busy(usize, &'static str),
    /// A redirect.
    To(String),
    /// A body that never ends, as fast as it goes.
    Endless,
    /// One byte, a pause, one byte, for ever.
    Drip(Duration),
    /// No answer, ever.
    Silence,
}

impl Page {
    /// An HTML page.
    pub fn html(text: &str) -> Self {
        Self::Text("text/html; charset=utf-8", text.to_owned())
    }
}

/// One request that reached the site.
#[derive(Debug, Clone)]
pub struct Visit {
    /// Path and query.
    pub path: String,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Names of all headers.
    pub headers: Vec<String>,
    /// When.
    pub at: Instant,
}

struct Shared {
    url: String,
    pages: HashMap<String, Page>,
    visits: Mutex<Vec<Visit>>,
}

/// A site; stops when dropped. A path without a page is answered with 404.
pub struct Site {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// The port alone.
    pub port: u16,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Site {
    /// Starts with these pages.
    pub async fn start<'a>(pages: impl IntoIterator<Item = (&'a str, Page)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        let url = format!("http://127.0.0.1:{port}");
        let pages = pages.into_iter().map(|(path, page)| (path.to_owned(), page)).collect();
        let shared = Arc::new(Shared { url: url.clone(), pages, visits: Mutex::default() });
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = async { axum::serve(listener, app).await } => result.expect("the site runs"),
                () = stopped.cancelled() => {}
            }
        });
        Self { url, port, shared, stop }
    }

    /// Every request so far.
    pub fn visits(&self) -> Vec<Visit> {
        self.shared.visits.lock().expect("not poisoned").clone()
    }

    /// The paths of all requests so far.
    pub fn paths(&self) -> Vec<String> {
        self.visits().into_iter().map(|visit| visit.path).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn visits_to(&self, path: &str) -> usize {
        self.visits.lock().expect("not poisoned").iter().filter(|visit| visit.path == path).count()
    }
}

async fn answer(State(site): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path_and_query().map(|path| path.to_string()).unwrap_or_default();
    let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let headers = request.headers().keys().map(|name| name.to_string()).collect();
    let visit = Visit { path: path.clone(), user_agent: agent.to_owned(), headers, at: Instant::now() };
    site.visits.lock().expect("not poisoned").push(visit);
    let own = |text: &str| text.replace("{site}", &site.url);
    let respond = Response::builder;
    let built = match site.pages.get(&path).cloned().unwrap_or(Page::Status(404)) {
        Page::Text(media, text) => respond().header(header::CONTENT_TYPE, media).body(Body::from(own(&text))),
        Page::Bytes(media, "", bytes) => respond().header(header::CONTENT_TYPE, media).body(Body::from(bytes)),
        Page::Bytes(media, encoding, bytes) => {
            respond().header(header::CONTENT_TYPE, media).header(header::CONTENT_ENCODING, encoding).body(Body::from(bytes))
        }
        Page::Status(status) => respond().status(status).body(Body::empty()),
        Page::Busy(times, _) if site.visits_to(&path) <= times => {
            respond().status(429).header(header::RETRY_AFTER, "0").body(Body::empty())
        }
        Page::Busy(_, text) => respond().body(Body::from(text)),
        Page::To(target) => respond().status(StatusCode::FOUND).header(header::LOCATION, own(&target)).body(Body::empty()),
        Page::Endless => {
            let block = Bytes::from(vec![b'x'; 1 << 16]);
            respond().body(Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::io::Error>(block.clone()))))
        }
        Page::Drip(pause) => {
            let drops = futures::stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
            });
            respond().body(Body::from_stream(drops))
        }
        Page::Silence => std::future::pending().await,
    };
    built.expect("a response")
}
