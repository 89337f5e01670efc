//! Who may call what: one table of routes, and the check in front of every one of them.

use crate::api::wire::unix_now;
use crate::error::ApiError;
use crate::keyring::{Key, KeyHash, KeyRing};
use crate::limits::{Gauge, Price, Standing};
use crate::page_token::PageTokens;
use crate::state::AppState;
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use groundtone_catalog::{AuditRecord, KeyLimits};
use groundtone_types::{Scope, Tenant};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tower_http::request_id::RequestId;

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
const METRICS: Need = Need::Scope(&[Scope::Metrics]);
const ADMIN: Need = Need::Scope(&[Scope::Admin]);

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
    ("POST", "/v1/groundtone/models/export", Need::Owner),
    ("POST", "/v1/groundtone/models/import", Need::Owner),
    ("GET", "/v1/groundtone/models/{id}/lineage", TUNE),
    ("GET", "/v1/groundtone/datasets/{sha256}", TUNE),
    ("PUT", "/v1/groundtone/datasets/{sha256}", TUNE),
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
    ("POST", "/v1/groundtone/datasets", Need::Owner),
    ("GET", "/v1/groundtone/runs", Need::Owner),
    ("GET", "/v1/groundtone/runs/{prefix}", Need::Owner),
    ("GET", "/v1/groundtone/rejected", Need::Owner),
    ("POST", "/v1/groundtone/fsck", Need::Owner),
    ("GET", "/v1/groundtone/releases", Need::Operator),
    ("POST", "/v1/groundtone/releases/promote", Need::Operator),
    ("POST", "/v1/groundtone/releases/canary", Need::Operator),
    ("POST", "/v1/groundtone/releases/rollback", Need::Operator),
    ("POST", "/v1/groundtone/page_tokens", CHAT),
    ("POST", "/v1/groundtone/feedback", CHAT),
    ("GET", "/v1/groundtone/traces", ADMIN),
    ("GET", "/v1/groundtone/traces/{id}", ADMIN),
    ("POST", "/v1/groundtone/traces/{id}/replay", ADMIN),
    ("POST", "/v1/groundtone/keys", ADMIN),
    ("GET", "/v1/groundtone/keys", ADMIN),
    ("DELETE", "/v1/groundtone/keys/{id}", ADMIN),
    ("GET", "/v1/groundtone/audit", ADMIN),
    ("GET", "/v1/groundtone/handoffs", ADMIN),
    ("DELETE", "/v1/groundtone/handoffs/{id}", ADMIN),
    ("POST", "/v1/groundtone/handoffs/{id}/retry", ADMIN),
    ("GET", "/metrics", METRICS),
];

/// What the table says of a route.
fn need_of(method: &Method, path: &str) -> Option<Need> {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    ROUTES.iter().find(|(known, route, _)| *known == method && *route == path).map(|(_, _, need)| *need)
}

/// Whether the audit log has it: everything that changes what is kept, and every look at what customers said. Questions have their traces.
fn is_audited(method: &Method, path: &str, need: Need) -> bool {
    match need {
        Need::Operator => true,
        Need::Owner => *method != Method::GET,
        Need::Scope(scopes) if scopes.contains(&Scope::Admin) => path != "/v1/groundtone/audit",
        Need::Scope(scopes) if scopes.contains(&Scope::Chat) => false,
        Need::Key | Need::Scope(_) => !matches!(*method, Method::GET | Method::HEAD),
    }
}

/// Who calls. Handlers take it as an argument; there is none in front of a route that nobody guards.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Whose data.
    pub(crate) tenant: Tenant,
    /// The key; `None` where the server has none.
    pub(crate) key: Option<Arc<Key>>,
    /// What the caller may do.
    pub(crate) scopes: Vec<Scope>,
    /// Whether the caller has shown that it can read the data directory.
    pub(crate) owns_data: bool,
    /// Whether a web page calls, with a token instead of a key.
    pub(crate) page: bool,
    /// The request's `x-request-id`.
    pub(crate) request_id: Option<String>,
}

impl Caller {
    /// The one caller of a server without keys.
    fn owner() -> Self {
        Self { tenant: Tenant::default(), key: None, scopes: Scope::ALL.to_vec(), page: false, owns_data: false, request_id: None }
    }

    fn of(key: Arc<Key>, page: bool) -> Self {
        let scopes = key.record.scopes.clone();
        let tenant = key.record.tenant.clone();
        Self { tenant, key: Some(key), scopes: if page { vec![Scope::Chat] } else { scopes }, page, owns_data: false, request_id: None }
    }

    /// Id of the key; `owner` for the one in the data directory.
    pub(crate) fn key_id(&self) -> Option<String> {
        let owner = self.owns_data.then(|| "owner".to_owned());
        self.key.as_ref().map(|key| key.record.id.clone()).or(owner)
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

/// Who may call, and how much.
#[derive(Debug)]
pub struct AccessPolicy {
    /// The keys. None at all: anybody on this machine, through a loopback address, and nobody else.
    pub keys: Arc<KeyRing>,
    /// Signs the tokens of web pages.
    pub pages: PageTokens,
    /// Longest life of such a token, in seconds.
    pub page_token_seconds: u32,
    /// Origins whose pages may call.
    pub origins: Vec<String>,
    /// Limits of keys that have none of their own.
    pub limits: KeyLimits,
    /// What models cost.
    pub prices: Vec<Price>,
    /// Whether the server listens on a loopback address only.
    pub loopback: bool,
    /// The key that stands in the data directory, new with each start. Who can read it there could read everything: it opens every route.
    pub owner: Option<KeyHash>,
}

/// Carries the key that stands in the data directory.
pub const OWNER_HEADER: &str = "x-groundtone-owner";

impl AccessPolicy {
    /// Whether no key is wanted.
    fn is_open(&self) -> bool {
        self.loopback && self.keys.is_empty()
    }

    /// Who sent these headers.
    fn identify(&self, headers: &HeaderMap, now: i64) -> Result<Caller, ApiError> {
        let shown = headers.get(OWNER_HEADER).and_then(|value| value.to_str().ok()).map(KeyHash::of);
        if shown.zip(self.owner).is_some_and(|(shown, owner)| shown.equals(owner)) {
            return Ok(Caller { owns_data: true, ..Caller::owner() });
        }
        if self.is_open() {
            return Ok(Caller::owner());
        }
        let unauthorized = |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key");
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let sent = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        let sent = sent.ok_or_else(|| unauthorized("send a key as `Authorization: Bearer KEY`"))?;
        if PageTokens::is_one(sent) {
            let claims = self.pages.read(sent, text(header::ORIGIN), now);
            let claims = claims.ok_or_else(|| unauthorized("this token has expired, or is not for this page; get a new one"))?;
            let key = self.keys.valid(&claims.key, now).ok_or_else(|| unauthorized("the key behind this token has ended"))?;
            return Ok(Caller::of(key, true));
        }
        let key = self.keys.find(sent, now).ok_or_else(|| unauthorized("this key is not known here, or has ended"))?;
        Ok(Caller::of(key, false))
    }
}

/// A request that may go on, and what is noted of it.
struct Admitted {
    caller: Caller,
    standing: Standing,
    audit: Option<AuditRecord>,
}

impl AppState {
    /// Who calls, whether the table lets them, and whether their limits do.
    async fn admit(&self, request: &Parts) -> Result<Admitted, Box<Response>> {
        let now = unix_now();
        let mut caller = self.access.identify(&request.headers, now).map_err(|error| {
            self.metrics.refused("key");
            Box::new(error.into_response())
        })?;
        let id = request.extensions.get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
        caller.request_id = id.map(str::to_owned);
        let path = request.extensions.get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
        let Some(need) = need_of(&request.method, path) else {
            tracing::error!(method = %request.method, path, "a route is missing in the table of access.rs");
            return Err(Box::new(ApiError::new(StatusCode::FORBIDDEN, "nobody may use this route").into_response()));
        };
        let allowed = caller.may(need);
        let audit = (is_audited(&request.method, path, need) || allowed.is_err()).then(|| audit_record(&caller, request, now));
        if let Err(error) = allowed {
            self.metrics.refused("scope");
            if let Some(record) = audit {
                self.audit(&AuditRecord { status: Some(StatusCode::FORBIDDEN.as_u16()), ..record }).await?;
            }
            return Err(Box::new(error.into_response()));
        }
        let mut standing = Standing::default();
        if let Some(key) = &caller.key {
            let outcome;
            (standing, outcome) = key.admit(now, if key.record.created_at == 0 { KeyLimits::default() } else { self.access.limits });
            if let Err(refusal) = outcome {
                self.metrics.refused(refusal.what);
                let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, refusal.sentence);
                let mut response = error.retry_after(Duration::from_secs(refusal.retry_after_seconds)).into_response();
                standing.write(response.headers_mut());
                return Err(Box::new(response));
            }
        }
        if let Some(record) = &audit {
            self.audit(record).await?;
        }
        Ok(Admitted { caller, standing, audit })
    }

    /// What cannot be noted is not done.
    async fn audit(&self, record: &AuditRecord) -> Result<(), Box<Response>> {
        self.documents.catalog.audit(record).await.map_err(|error| Box::new(ApiError::of(error.kind(), &error).into_response()))
    }
}

fn audit_record(caller: &Caller, request: &Parts, now: i64) -> AuditRecord {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_string());
    AuditRecord {
        id: uuid::Uuid::now_v7().to_string(),
        at: now,
        tenant: caller.tenant.clone(),
        key: caller.key_id(),
        action: format!("{} {}", request.method, request.uri.path()),
        origin: peer.unwrap_or_else(|| "unknown".to_owned()),
        request_id: caller.request_id.clone(),
        status: None,
    }
}

/// Finds out who calls and whether they may; what the audit log wants to know is noted before it is done, and how it ended after it.
pub(crate) async fn authorize(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Admitted { caller, standing, audit } = match state.admit(&parts).await {
        Ok(admitted) => admitted,
        Err(response) => return *response,
    };
    parts.extensions.insert(caller);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    standing.write(response.headers_mut());
    if let Some(record) = audit {
        let noted = state.documents.catalog.audit_status(&record.tenant, &record.id, response.status().as_u16()).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "the audit log does not know how a request ended");
        }
    }
    response
}

impl Standing {
    /// OpenAI's headers.
    fn write(&self, headers: &mut HeaderMap) {
        let mut put = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        let mut gauge = |gauge: Option<Gauge>, [limit, remaining, reset]: [&'static str; 3]| {
            if let Some(gauge) = gauge {
                put(limit, gauge.limit.to_string());
                put(remaining, gauge.remaining.to_string());
                put(reset, format!("{}s", gauge.reset_seconds));
            }
        };
        gauge(self.requests, ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]);
        gauge(self.tokens, ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]);
    }
}

/// Without keys, only requests addressed to a loopback name are served: a web page that points its own name at 127.0.0.1 (DNS rebinding) is refused.
pub(crate) async fn require_known_host(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Result<Response, ApiError> {
    if state.access.is_open() {
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
            |tenant: &str, scopes: &[Scope]| Caller { tenant: Tenant::new(tenant).unwrap(), scopes: scopes.to_vec(), ..Caller::owner() };
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
    fn what_changes_something_or_reads_what_people_said_is_audited() {
        let audited: Vec<String> = ROUTES
            .iter()
            .filter(|(method, path, need)| is_audited(&method.parse().unwrap(), path, *need))
            .map(|(method, path, _)| format!("{method} {path}"))
            .collect();
        for must in [
            "PUT /v1/groundtone/documents/{*id}",
            "DELETE /v1/files/{id}",
            "POST /v1/groundtone/keys",
            "GET /v1/groundtone/traces/{id}",
            "POST /v1/groundtone/generations/switch",
        ] {
            assert!(audited.iter().any(|row| row == must), "{must}");
        }
        for never in ["POST /v1/chat/completions", "GET /v1/files", "GET /v1/groundtone/audit", "POST /v1/groundtone/page_tokens"] {
            assert!(audited.iter().all(|row| row != never), "{never}");
        }
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
