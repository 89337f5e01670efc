//! What carries spans to a collector. The exporter calls from a thread of its own; the work is done on the runtime.

use crate::http::{client_builder, describe};
use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// Sends OTLP over HTTP.
#[derive(Debug, Clone)]
pub struct CollectorClient {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl CollectorClient {
    /// Works on the runtime that it is made in; `wait` bounds a request with its answer. `key` is a header's name and its value, as it is.
    ///
    /// # Errors
    /// The header or the HTTP client cannot be made.
    pub fn new(wait: Duration, key: Option<(&str, &SecretString)>) -> Result<Self, crate::Error> {
        let failed = |reason: String| crate::Error::Unreachable { endpoint: "the collector of spans".to_owned(), reason };
        let mut headers = HeaderMap::new();
        if let Some((name, key)) = key {
            let name = HeaderName::try_from(name).map_err(|error| failed(error.to_string()))?;
            let mut value = HeaderValue::from_str(key.expose_secret()).map_err(|error| failed(error.to_string()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        // A redirect could carry the key elsewhere.
        let client = client_builder().timeout(wait).default_headers(headers).redirect(reqwest::redirect::Policy::none()).build();
        Ok(Self { client: client.map_err(|error| failed(describe(&error)))?, runtime: tokio::runtime::Handle::current() })
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let call = async move {
            let answer = client.execute(reqwest::Request::try_from(request)?).await?;
            let mut response = Response::builder().status(answer.status());
            if let Some(wait) = answer.headers().get(RETRY_AFTER) {
                response = response.header(RETRY_AFTER, wait);
            }
            // What it says beside that is for people; none of them is here.
            Ok::<_, HttpError>(response.body(Bytes::new())?)
        };
        self.runtime.spawn(call).await?
    }
}
