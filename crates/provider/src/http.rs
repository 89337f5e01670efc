use crate::Error;
use groundtone_openai_api::{ErrorBody, ErrorObject};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Once;
use std::time::{Duration, SystemTime};

/// Longest error text of a model server that is repeated to the caller.
const ERROR_TEXT: usize = 500;
/// Largest body of an error that is read.
const ERROR_BYTES: usize = 64 << 10;
/// Longest wait for the body of an error.
const ERROR_WAIT: Duration = Duration::from_secs(5);
/// Largest body that is read in one piece (16 MiB: 2,048 vectors of 1,536 numbers as base64).
const BODY_BYTES: usize = 16 << 20;

/// A model server: where it is, with which key, and how long it may take.
#[derive(Debug, Clone)]
pub struct Endpoint {
    base_url: String,
    api_key: Option<SecretString>,
    headers: Vec<(&'static str, SecretString)>,
    client: reqwest::Client,
    api_version: Option<String>,
    /// Longest wait for the first byte of an answer.
    pub(crate) first_byte: Duration,
    /// Longest silence after it.
    pub(crate) idle: Duration,
}

impl Endpoint {
    /// `base_url` ends where the SDKs' `base_url` ends: `http://127.0.0.1:8000/v1`.
    pub fn new(
        base_url: &str,
        api_key: Option<SecretString>,
        connect: Duration,
        first_byte: Duration,
        idle: Duration,
    ) -> Result<Self, Error> {
        let base_url = base_url.trim_end_matches('/').to_owned();
        let client = client_builder()
            .connect_timeout(connect)
            // A redirect would turn a POST into a GET, or carry a prompt elsewhere: it is an answer like any other refusal.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Unreachable { endpoint: base_url.clone(), reason: describe(&error) })?;
        Ok(Self { base_url, api_key, headers: Vec::new(), client, api_version: None, first_byte, idle })
    }

    /// The same with `api-version` in every request, as Azure OpenAI wants it of addresses without `/v1`.
    #[must_use]
    pub fn with_api_version(mut self, version: String) -> Self {
        self.api_version = Some(version);
        self
    }

    /// The same with one more secret header in every request.
    pub fn with_header(mut self, name: &'static str, value: SecretString) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The address without the key.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Whether it is addressed as Azure OpenAI wants it.
    pub(crate) fn is_azure(&self) -> bool {
        self.api_version.is_some()
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let mut address = format!("{}{path}", self.base_url);
        if let Some(version) = &self.api_version {
            let version: String = url::form_urlencoded::byte_serialize(version.as_bytes()).collect();
            address.push_str(&format!("{}api-version={version}", if path.contains('?') { '&' } else { '?' }));
        }
        let mut request = self.client.request(method, address);
        for (name, value) in &self.headers {
            request = request.header(*name, value.expose_secret());
        }
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }

    /// Sends a body and waits for the answer's headers; anything but 2xx is an error with the server's own message.
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Result<reqwest::Response, Error> {
        self.send(self.request(reqwest::Method::POST, path).json(body)).await
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Error> {
        let response = tokio::time::timeout(self.first_byte, request.send()).await.map_err(|_| self.timeout(self.first_byte))?;
        let response = response.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), SystemTime::now());
        // The status says enough: a body that drips or does not end is not waited for.
        let bytes = tokio::time::timeout((self.idle / 2).min(ERROR_WAIT), self.read_within(response, ERROR_BYTES)).await;
        let (message, detail) = bytes.ok().and_then(Result::ok).map_or_else(Default::default, |bytes| error_text(&bytes));
        Err(Error::Refused { endpoint: self.base_url.clone(), status, message, detail, retry_after })
    }

    /// Reads a whole body, bounded in size and in silence.
    pub(crate) async fn read(&self, response: reqwest::Response) -> Result<Vec<u8>, Error> {
        self.read_within(response, BODY_BYTES).await
    }

    /// The same with its own bound.
    pub(crate) async fn read_within(&self, mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        loop {
            let chunk = tokio::time::timeout(self.idle, response.chunk()).await.map_err(|_| self.timeout(self.idle))?;
            match chunk.map_err(|error| self.unreachable(&error))? {
                None => return Ok(bytes),
                Some(chunk) if bytes.len() + chunk.len() > most => {
                    return Err(self.protocol(format!("its answer is larger than {most} bytes")));
                }
                Some(chunk) => bytes.extend_from_slice(&chunk),
            }
        }
    }

    pub(crate) async fn read_json<T: DeserializeOwned>(&self, response: reqwest::Response) -> Result<T, Error> {
        serde_json::from_slice(&self.read(response).await?).map_err(|error| self.protocol(error.to_string()))
    }

    pub(crate) fn timeout(&self, limit: Duration) -> Error {
        Error::Timeout { endpoint: self.base_url.clone(), seconds: limit.as_secs() }
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Error {
        Error::Unreachable { endpoint: self.base_url.clone(), reason: describe(error) }
    }

    pub(crate) fn protocol(&self, reason: String) -> Error {
        Error::Protocol { endpoint: self.base_url.clone(), reason }
    }
}

/// Gets JSON from `path` of an endpoint.
pub async fn get_json<T: DeserializeOwned>(endpoint: &Endpoint, path: &str) -> Result<T, Error> {
    let response = endpoint.send(endpoint.request(reqwest::Method::GET, path)).await?;
    endpoint.read_json(response).await
}

/// Deletes `path` of an endpoint and reads the JSON that comes back.
pub async fn delete_json<T: DeserializeOwned>(endpoint: &Endpoint, path: &str) -> Result<T, Error> {
    let response = endpoint.send(endpoint.request(reqwest::Method::DELETE, path)).await?;
    endpoint.read_json(response).await
}

/// Sends JSON to `path` of an endpoint and reads the JSON that comes back.
pub async fn post_json<T: DeserializeOwned>(endpoint: &Endpoint, path: &str, body: &impl Serialize) -> Result<T, Error> {
    let response = endpoint.post(path, body).await?;
    endpoint.read_json(response).await
}

/// Names the TLS provider of this process, once. Libraries that make HTTP clients of their own need it before they do.
pub fn install_tls() {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider was installed before; it is used");
        }
    });
}

/// A client builder with our TLS provider. Proxies come from the system, except that loopback is never sent through one.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    install_tls();
    reqwest::Client::builder().user_agent(concat!("groundtone/", env!("CARGO_PKG_VERSION"))).tcp_nodelay(true)
}

/// The error and its causes in one line, without the address: the caller names it already.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

fn error_text(bytes: &[u8]) -> (String, Option<Box<ErrorObject>>) {
    let shorten = |text: &str| text.chars().take(ERROR_TEXT).collect();
    match serde_json::from_slice::<ErrorBody>(bytes) {
        Ok(body) => (shorten(&body.error.message), Some(Box::new(body.error))),
        Err(_) => (shorten(String::from_utf8_lossy(bytes).trim()), None),
    }
}

/// `Retry-After` as seconds or as a date (RFC 9110, 10.2.3), and OpenAI's `retry-after-ms`.
fn retry_after(headers: &reqwest::header::HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = |text: &str, unit: f64| text.parse::<f64>().ok().and_then(|value| Duration::try_from_secs_f64(value / unit).ok());
    if let Some(wait) = text("retry-after-ms").and_then(|value| seconds(value, 1e3)) {
        return Some(wait);
    }
    let value = text("retry-after")?;
    seconds(value, 1.0).or_else(|| Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

    #[test]
    fn servers_say_in_three_ways_when_to_come_back() {
        let now = httpdate::parse_http_date("Wed, 25 Nov 2026 10:00:00 GMT").unwrap();
        for (name, value, wait) in [
            ("retry-after", "7", Some(7.0)),
            ("retry-after", "0.5", Some(0.5)),
            ("retry-after", "Wed, 25 Nov 2026 10:00:30 GMT", Some(30.0)),
            ("retry-after", "Wed, 25 Nov 2026 09:00:00 GMT", Some(0.0)),
            ("retry-after-ms", "250", Some(0.25)),
            ("retry-after", "-1", None),
            ("retry-after", "soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(retry_after(&headers, now), wait.map(Duration::from_secs_f64), "{name}: {value}");
        }
    }
}
