//! Pages of the web, fetched the way a stranger's server deserves and a private network survives.
//!
//! An address comes in and bytes come out, bounded in size and time. robots.txt is honoured; private addresses are refused on every hop;
//! no cookie, key or proxy is ever used (a proxy would resolve names where nobody checks them).

mod error;
mod guard;
mod robots;

pub use error::WebError;

use crate::http::{client_builder, describe};
use guard::{Guard, NotPublic};
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use robots::Robots;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// A site that says that it is busy is asked again so often.
const BUSY_WAITS: usize = 2;
/// Pause before that, where the site does not say; and the longest one, where it does.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// What is asked for; compression is not, so that the limit counts what is read.
const WANTED: &str = "text/html, application/xhtml+xml, text/markdown, text/plain;q=0.9, */*;q=0.5";

/// How the web is read.
#[derive(Debug, Clone)]
pub struct WebSettings {
    /// Who is asking; the part before `/` is the name that robots.txt may use.
    pub user_agent: String,
    /// Hosts that may be on a private network.
    pub allow_private_hosts: Vec<String>,
    /// Longest time for one page with its redirects; waiting for one's turn or for a busy site does not count.
    pub timeout: Duration,
    /// Longest silence.
    pub idle: Duration,
}

/// What to fetch, and how far to go for it.
#[derive(Debug, Clone, Copy)]
pub struct WebRequest<'a> {
    /// The page.
    pub url: &'a Url,
    /// More is an error.
    pub max_bytes: u64,
    /// A redirect to another site is an error.
    pub stay_on_site: bool,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebPage {
    /// Where it was in the end.
    pub url: Url,
    /// `text/html`: in lower case, without parameters.
    pub media_type: Option<String>,
    /// The character set that goes with it.
    pub charset: Option<String>,
    /// The body is still encoded like this: `gzip`. Nobody asked for it, but some servers do it to files that end in `.gz`.
    pub encoding: Option<String>,
    /// The body.
    pub bytes: Vec<u8>,
}

enum Hop {
    Page(Response),
    Redirect(Url),
    Busy { status: u16, pause: Duration },
}

/// Reads pages for one run: what robots.txt said is remembered as long as it lives.
pub struct WebClient {
    client: Client,
    guard: Guard,
    robots: Robots,
    timeout: Duration,
    idle: Duration,
}

impl WebClient {
    /// Makes a client; it connects to nothing yet.
    pub fn new(settings: &WebSettings) -> Result<Self, WebError> {
        let guard = Guard::new(&settings.allow_private_hosts);
        let client = client_builder()
            .user_agent(&settings.user_agent)
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            .dns_resolver(Arc::new(guard.clone()))
            .connect_timeout(CONNECT)
            .build()
            .map_err(|error| WebError::Unreachable(describe(&error)))?;
        let robots = Robots::new(&settings.user_agent);
        Ok(Self { client, guard, robots, timeout: settings.timeout, idle: settings.idle })
    }

    /// Fetches a page, where its site allows it.
    pub async fn get(&self, request: WebRequest<'_>) -> Result<WebPage, WebError> {
        let (mut url, mut left) = (request.url.clone(), self.timeout);
        let (mut redirects, mut waits) = (0, 0);
        loop {
            self.guard.check(&url)?;
            self.robots.admit(self, &url).await?;
            let started = Instant::now();
            let hop = self.in_time(left, self.hop(&url)).await?;
            left = left.saturating_sub(started.elapsed());
            match hop {
                Hop::Page(response) => return self.in_time(left, self.page(url, response, request.max_bytes)).await,
                Hop::Busy { status, .. } if waits == BUSY_WAITS => return Err(WebError::Status(status)),
                Hop::Busy { pause, .. } => {
                    waits += 1;
                    tokio::time::sleep(pause).await;
                }
                Hop::Redirect(_) if redirects == REDIRECTS => return Err(WebError::Redirects(REDIRECTS)),
                Hop::Redirect(next) if request.stay_on_site && !same_site(request.url, &next) => {
                    return Err(WebError::OtherSite(next.to_string()));
                }
                Hop::Redirect(next) => {
                    redirects += 1;
                    url = next;
                }
            }
        }
    }

    /// Fetches the beginning of a file without asking robots.txt, because it is robots.txt.
    async fn follow(&self, url: &Url, first_bytes: usize) -> Result<Vec<u8>, WebError> {
        let follow = async {
            let mut url = url.clone();
            for _ in 0..=REDIRECTS {
                self.guard.check(&url)?;
                match self.hop(&url).await? {
                    Hop::Redirect(next) => url = next,
                    Hop::Busy { status, .. } => return Err(WebError::Status(status)),
                    Hop::Page(mut response) => {
                        let mut bytes = Vec::new();
                        while bytes.len() < first_bytes && self.more(&mut response, &mut bytes).await? {}
                        bytes.truncate(first_bytes);
                        return Ok(bytes);
                    }
                }
            }
            Err(WebError::Redirects(REDIRECTS))
        };
        self.in_time(self.timeout, follow).await
    }

    /// One request: the headers of a page, or where it has moved to.
    async fn hop(&self, url: &Url) -> Result<Hop, WebError> {
        let request = self.client.get(url.clone()).header(ACCEPT, WANTED).send();
        let response = tokio::time::timeout(self.idle, request).await.map_err(|_| WebError::Timeout(self.idle.as_secs()))?;
        let response = response.map_err(|error| refusal(&error))?;
        match (response.status().as_u16(), header(&response, LOCATION)) {
            (200..=299, _) => Ok(Hop::Page(response)),
            (301 | 302 | 303 | 307 | 308, Some(location)) => {
                url.join(&location).map(Hop::Redirect).map_err(|_| WebError::Address("it redirects to what is no address"))
            }
            (status @ (429 | 503), _) => {
                let asked = header(&response, RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
                Ok(Hop::Busy { status, pause: asked.unwrap_or(BUSY_PAUSE).min(LONGEST_PAUSE) })
            }
            (status, _) => Err(WebError::Status(status)),
        }
    }

    async fn page(&self, url: Url, mut response: Response, max_bytes: u64) -> Result<WebPage, WebError> {
        let announced = response.content_length();
        if announced.is_some_and(|length| length > max_bytes) {
            return Err(WebError::TooLarge { bytes: announced, limit: max_bytes });
        }
        let (media_type, charset) = media_type(header(&response, CONTENT_TYPE).as_deref());
        let encoding = header(&response, CONTENT_ENCODING).map(|name| name.trim().to_lowercase()).filter(|name| name != "identity");
        let mut bytes = Vec::new();
        while self.more(&mut response, &mut bytes).await? {
            if bytes.len() as u64 > max_bytes {
                return Err(WebError::TooLarge { bytes: None, limit: max_bytes });
            }
        }
        Ok(WebPage { url, media_type, charset, encoding, bytes })
    }

    /// Appends the next piece of a body; false at its end.
    async fn more(&self, response: &mut Response, bytes: &mut Vec<u8>) -> Result<bool, WebError> {
        let chunk = tokio::time::timeout(self.idle, response.chunk()).await.map_err(|_| WebError::Timeout(self.idle.as_secs()))?;
        let chunk = chunk.map_err(|error| refusal(&error))?;
        bytes.extend_from_slice(chunk.as_deref().unwrap_or_default());
        Ok(chunk.is_some())
    }

    async fn in_time<T>(&self, left: Duration, work: impl Future<Output = Result<T, WebError>>) -> Result<T, WebError> {
        tokio::time::timeout(left, work).await.unwrap_or(Err(WebError::Timeout(self.timeout.as_secs())))
    }
}

/// Whether two addresses belong to one site: the same host and port, whatever the scheme, with or without `www.`.
pub fn same_site(one: &Url, other: &Url) -> bool {
    let host = |url: &Url| url.host_str().map(|host| host.strip_prefix("www.").unwrap_or(host).to_owned());
    host(one) == host(other) && one.port() == other.port()
}

/// The guard's own refusal, dug out of the layers that carried it.
fn refusal(error: &reqwest::Error) -> WebError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(NotPublic { host, address }) = cause.downcast_ref() {
            return WebError::Private { host: host.clone(), address: *address };
        }
        source = cause.source();
    }
    WebError::Unreachable(describe(error))
}

fn header(response: &Response, name: HeaderName) -> Option<String> {
    response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// `Text/HTML; Charset="UTF-8"` -> `text/html` and `utf-8`.
fn media_type(header: Option<&str>) -> (Option<String>, Option<String>) {
    let header = header.unwrap_or_default().to_lowercase();
    let mut parts = header.split(';').map(str::trim);
    let essence = parts.next().filter(|essence| essence.contains('/')).map(str::to_owned);
    let charset = parts.find_map(|part| part.strip_prefix("charset=")).map(|name| name.trim_matches(['"', '\'', ' ']).to_owned());
    (essence, charset.filter(|name| !name.is_empty()))
}
