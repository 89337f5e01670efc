use crate::error::ApiError;
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// SHA-256 of a key. The key itself is never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// From 64 hexadecimal digits, as the configuration has them.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text.trim(), &mut hash).ok().map(|()| Self(hash))
    }

    fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

/// Who may call.
#[derive(Debug, Clone, Default)]
pub struct AccessPolicy {
    /// Accepted keys. Empty: anybody on this machine, through a loopback address, and nobody else.
    pub keys: Vec<KeyHash>,
}

/// Wants `Authorization: Bearer KEY` where keys are configured. Hashes are compared, so timing tells nothing about a key.
pub(crate) async fn require_access(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Result<Response, ApiError> {
    if !state.access.keys.is_empty() {
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let unauthorized = |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key");
        let given = given.ok_or_else(|| unauthorized("send a key as `Authorization: Bearer KEY`"))?;
        if !state.access.keys.contains(&KeyHash::of(given.trim())) {
            return Err(unauthorized("this key is not known here"));
        }
    }
    Ok(next.run(request).await)
}

/// Without keys, only requests addressed to a loopback name are served: a web page that points its own name at 127.0.0.1 (DNS rebinding) is refused.
pub(crate) async fn require_known_host(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Result<Response, ApiError> {
    if state.access.keys.is_empty() {
        let host =
            request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).or_else(|| request.uri().host()).unwrap_or_default();
        if !is_loopback_name(host) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "without API keys this server answers only on localhost, 127.0.0.1 and [::1]",
            ));
        }
    }
    Ok(next.run(request).await)
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass_without_a_key() {
        for good in ["localhost", "localhost:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "LOCALHOST:1"] {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in ["", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[fe80::1]:80"]
        {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }
}
