//! Who may call what: one table of routes, and the check in front of every one of them.

use crate::error::ApiError;
use crate::state::AppState;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use groundtone_types::{Scope, Tenant};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What a route wants of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Any key.
    Key,
    /// A key with one of these scopes.
    Scope(&'static [Scope]),
    /// An admin key of the default tenant: it changes what every tenant gets.
    Operator,
    /// The key that stands in the data directory: the route reads the server's own files.
    Owner,
}

const CHAT: Need = Need::Scope(&[Scope::Chat]);
const INGEST: Need = Need::Scope(&[Scope::Ingest]);
const FILES: Need = Need::Scope(&[Scope::Ingest, Scope::Tune]);
const TUNE: Need = Need::Scope(&[Scope::Tune]);
const SEARCH: Need = Need::Scope(&[Scope::Chat, Scope::Ingest]);

/// Every guarded route: method, path as the router has it, and what it wants. A route that is not here is refused, whatever the key.
pub const ROUTES: &[(&str, &str, Need)] = &[
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/responses", CHAT),
    ("GET", "/v1/responses/{id}", CHAT),
    ("DELETE", "/v1/responses/{id}", CHAT),
    ("POST", "/v1/embeddings", CHAT),
    ("GET", "/v1/models", Need::Key),
    ("GET", "/v1/models/{id}", Need::Key),
    ("DELETE", "/v1/models/{id}", TUNE),
    ("POST", "/v1/files", FILES),
    ("GET", "/v1/files", FILES),
    ("GET", "/v1/files/{id}", FILES),
    ("DELETE", "/v1/files/{id}", FILES),
    ("GET", "/v1/files/{id}/content", FILES),
    ("POST", "/v1/uploads", FILES),
    ("POST", "/v1/uploads/{id}/parts", FILES),
    ("POST", "/v1/uploads/{id}/complete", FILES),
    ("POST", "/v1/uploads/{id}/cancel", FILES),
    ("GET", "/v1/fine_tuning/jobs", TUNE),
    ("POST", "/v1/fine_tuning/jobs", TUNE),
    ("GET", "/v1/fine_tuning/jobs/{id}", TUNE),
    ("POST", "/v1/fine_tuning/jobs/{id}/cancel", TUNE),
    ("POST", "/v1/fine_tuning/jobs/{id}/pause", TUNE),
    ("POST", "/v1/fine_tuning/jobs/{id}/resume", TUNE),
    ("GET", "/v1/fine_tuning/jobs/{id}/events", TUNE),
    ("GET", "/v1/fine_tuning/jobs/{id}/checkpoints", TUNE),
    ("GET", "/v1/fine_tuning/checkpoints/{model}/permissions", TUNE),
    ("POST", "/v1/fine_tuning/checkpoints/{model}/permissions", TUNE),
    ("DELETE", "/v1/fine_tuning/checkpoints/{model}/permissions/{id}", TUNE),
    ("GET", "/v1/groundtone/aliases", TUNE),
    ("PUT", "/v1/groundtone/aliases/{id}", TUNE),
    ("DELETE", "/v1/groundtone/aliases/{id}", TUNE),
    ("POST", "/v1/vector_stores", INGEST),
    ("GET", "/v1/vector_stores", INGEST),
    ("GET", "/v1/vector_stores/{id}", INGEST),
    ("POST", "/v1/vector_stores/{id}", INGEST),
    ("DELETE", "/v1/vector_stores/{id}", INGEST),
    ("POST", "/v1/vector_stores/{id}/files", INGEST),
    ("GET", "/v1/vector_stores/{id}/files", INGEST),
    ("GET", "/v1/vector_stores/{id}/files/{file_id}", INGEST),
    ("DELETE", "/v1/vector_stores/{id}/files/{file_id}", INGEST),
    ("POST", "/v1/vector_stores/{id}/search", SEARCH),
    ("PUT", "/v1/groundtone/documents/{*id}", INGEST),
    ("GET", "/v1/groundtone/documents/{*id}", INGEST),
    ("DELETE", "/v1/groundtone/documents/{*id}", INGEST),
    ("POST", "/v1/groundtone/search", SEARCH),
    ("GET", "/v1/groundtone/evaluations", TUNE),
    ("POST", "/v1/groundtone/evaluations", Need::Operator),
    ("GET", "/v1/groundtone/evaluations/{id}", TUNE),
    ("GET", "/v1/groundtone/generations", INGEST),
    ("POST", "/v1/groundtone/generations/switch", Need::Operator),
    ("POST", "/v1/groundtone/generations/gc", Need::Owner),
    ("POST", "/v1/groundtone/ingest", Need::Owner),
    ("GET", "/v1/groundtone/runs", Need::Owner),
    ("GET", "/v1/groundtone/runs/{prefix}", Need::Owner),
    ("GET", "/v1/groundtone/rejected", Need::Owner),
    ("POST", "/v1/groundtone/fsck", Need::Owner),
    ("GET", "/v1/groundtone/releases", Need::Operator),
    ("POST", "/v1/groundtone/releases/promote", Need::Operator),
    ("POST", "/v1/groundtone/releases/canary", Need::Operator),
    ("POST", "/v1/groundtone/releases/rollback", Need::Operator),
];

/// What the table says of a route.
fn need_of(method: &Method, path: &str) -> Option<Need> {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    ROUTES.iter().find(|(known, route, _)| *known == method && *route == path).map(|(_, _, need)| *need)
}

/// Who calls. Handlers take it as an argument; there is none in front of a route that nobody guards.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Whose data.
    pub(crate) tenant: Tenant,
    /// What the caller may do.
    pub(crate) scopes: Vec<Scope>,
    /// Whether the caller has shown that it can read the data directory.
    pub(crate) owns_data: bool,
}

impl Caller {
    /// Somebody with every right in the default tenant: the one caller of a server without keys, and the holder of a configured key.
    fn owner() -> Self {
        Self { tenant: Tenant::default(), scopes: Scope::ALL.to_vec(), owns_data: false }
    }

    fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it may act for every tenant.
    pub(crate) fn is_operator(&self) -> bool {
        self.has(Scope::Admin) && self.tenant == Tenant::default()
    }

    fn may(&self, need: Need) -> Result<(), ApiError> {
        let refuse = |what: String| Err(ApiError::new(StatusCode::FORBIDDEN, what).code("missing_scope"));
        match need {
            Need::Key => Ok(()),
            Need::Scope(scopes) if scopes.iter().any(|scope| self.has(*scope)) => Ok(()),
            Need::Scope(scopes) => {
                let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
                refuse(format!("this key has not the scope `{}`", names.join("` or `")))
            }
            Need::Operator if self.is_operator() => Ok(()),
            Need::Operator => refuse("this needs a key of the default tenant with the scope `admin`".to_owned()),
            Need::Owner if self.owns_data => Ok(()),
            Need::Owner => refuse("this route is for the command line on the server's own data directory".to_owned()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| ApiError::new(StatusCode::FORBIDDEN, "this route has no guard"))
    }
}

/// SHA-256 of a key. The key itself is never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// From 64 hexadecimal digits, as the configuration has them.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text.trim(), &mut hash).ok().map(|()| Self(hash))
    }

    /// Of a key itself.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

/// Who may call.
#[derive(Debug, Clone, Default)]
pub struct AccessPolicy {
    /// Accepted keys. Empty: anybody on this machine, through a loopback address, and nobody else.
    pub keys: Vec<KeyHash>,
    /// The key that stands in the data directory, new with each start. Who can read it there could read everything: it opens every route.
    pub owner: Option<KeyHash>,
}

/// Carries the key that stands in the data directory.
pub const OWNER_HEADER: &str = "x-groundtone-owner";

impl AccessPolicy {
    /// Who sent these headers. Hashes are compared, so timing tells nothing about a key.
    fn identify(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let shown = headers.get(OWNER_HEADER).and_then(|value| value.to_str().ok()).map(KeyHash::of);
        if shown.is_some() && shown == self.owner {
            return Ok(Caller { owns_data: true, ..Caller::owner() });
        }
        if self.keys.is_empty() {
            return Ok(Caller::owner());
        }
        let given =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
        let unauthorized = |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key");
        let given = KeyHash::of(given.ok_or_else(|| unauthorized("send a key as `Authorization: Bearer KEY`"))?.trim());
        if self.keys.contains(&given) { Ok(Caller::owner()) } else { Err(unauthorized("this key is not known here")) }
    }
}

/// Finds out who calls and whether the table lets them.
pub(crate) async fn authorize(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let caller = state.access.identify(request.headers())?;
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let Some(need) = need_of(request.method(), &path) else {
        tracing::error!(method = %request.method(), path, "a route is missing in the table of access.rs");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "nobody may use this route"));
    };
    caller.may(need)?;
    request.extensions_mut().insert(caller);
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
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The paths of every `.route("...")` in this crate's sources.
    fn routes_in(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                routes_in(&path, found);
            } else if !path.ends_with("access.rs") {
                let text: String = std::fs::read_to_string(&path).unwrap().split_whitespace().collect();
                found.extend(text.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned));
            }
        }
    }

    #[test]
    fn the_table_and_the_router_have_the_same_routes() {
        let mut routed = BTreeSet::new();
        routes_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut routed);
        for open in ["/healthz", "/readyz", "/", "/chat.js"] {
            assert!(routed.remove(open), "{open} is not routed");
        }
        let table: BTreeSet<String> = ROUTES.iter().map(|(_, path, _)| (*path).to_owned()).collect();
        assert_eq!(routed, table);
        let rows: BTreeSet<(&str, &str)> = ROUTES.iter().map(|(method, path, _)| (*method, *path)).collect();
        assert_eq!(rows.len(), ROUTES.len(), "a row is there twice");
    }

    #[test]
    fn a_key_reaches_what_its_scopes_allow_and_nothing_else() {
        let caller =
            |tenant: &str, scopes: &[Scope]| Caller { tenant: Tenant::new(tenant).unwrap(), scopes: scopes.to_vec(), owns_data: false };
        let reached = |caller: &Caller| ROUTES.iter().filter(|(_, _, need)| caller.may(*need).is_ok()).count();
        let count = |wanted: Need| ROUTES.iter().filter(|(_, _, need)| *need == wanted).count();
        let remote = ROUTES.len() - count(Need::Owner);
        assert_eq!(reached(&caller("default", &[Scope::Admin])), remote, "no key says who may read the server's files");
        assert_eq!(reached(&Caller { owns_data: true, ..Caller::owner() }), ROUTES.len());
        assert_eq!(reached(&caller("shop", &[Scope::Admin])), remote - count(Need::Operator), "another tenant's admin is no operator");
        for scope in [Scope::Chat, Scope::Ingest, Scope::Tune, Scope::Metrics] {
            let allowed = ROUTES.iter().filter(|(_, _, need)| match need {
                Need::Key => true,
                Need::Scope(scopes) => scopes.contains(&scope),
                Need::Operator | Need::Owner => false,
            });
            assert_eq!(reached(&caller("default", &[scope])), allowed.count(), "{scope}");
        }
        let nothing = caller("default", &[]);
        assert_eq!(nothing.may(CHAT).unwrap_err().body().error.message, "this key has not the scope `chat`");
    }

    #[test]
    fn what_is_not_in_the_table_is_nobodys() {
        assert_eq!(need_of(&Method::HEAD, "/v1/models"), Some(Need::Key));
        assert_eq!(need_of(&Method::PUT, "/v1/models"), None);
        assert_eq!(need_of(&Method::GET, "/v1/models/"), None);
    }

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
