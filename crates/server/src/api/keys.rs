use crate::access::Caller;
use crate::api::files::catalog_failed;
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiJson, ApiQuery};
use crate::keyring::{CreatedKey, NewKey, make_key};
use crate::page_token::Claims;
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use groundtone_catalog::{AuditRecord, KeyRecord, Used};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use url::Url;

/// Longest name of a key, in characters.
const NAME_CHARS: usize = 200;
/// Entries of one page of the audit log, where the client does not say, and at most.
const DEFAULT_ENTRIES: u32 = 100;
const MOST_ENTRIES: u32 = 1_000;

/// A key as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListedKey {
    /// What is kept of it.
    #[serde(flatten)]
    pub record: KeyRecord,
    /// What it has used today (UTC).
    pub used_today: Used,
}

/// Keys, oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyList {
    /// Ended ones too.
    pub keys: Vec<ListedKey>,
}

impl NewKey {
    /// Whether a key can be made of it.
    pub fn check(&self, now: i64) -> Result<(), (&'static str, String)> {
        if self.name.trim().is_empty() || self.name.chars().count() > NAME_CHARS {
            return Err(("name", format!("give the key a name of 1 to {NAME_CHARS} characters")));
        }
        if self.scopes.is_empty() {
            return Err(("scopes", "give the key at least one scope: chat, ingest, tune, metrics or admin".to_owned()));
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(("expires_at", "the key would have expired already".to_owned()));
        }
        let money = [self.limits.money_per_minute, self.limits.money_per_day];
        if money.into_iter().flatten().any(|money| !money.is_finite() || money < 0.0) {
            return Err(("limits", "a limit of money must be 0 or more".to_owned()));
        }
        Ok(())
    }
}

/// `POST /v1/groundtone/keys`: the only time that the key is shown.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(new): ApiJson<NewKey>,
) -> Result<Json<CreatedKey>, ApiError> {
    let now = unix_now();
    new.check(now).map_err(|(field, reason)| ApiError::invalid(field, reason))?;
    if new.tenant.as_ref().is_some_and(|tenant| *tenant != caller.tenant) && !caller.is_operator() {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "only an admin key of the default tenant makes keys for others").param("tenant"));
    }
    let (created, hash) =
        make_key(new, &caller.tenant, now).map_err(|error| ApiError::of(groundtone_types::ErrorKind::Internal, &error))?;
    state.documents.catalog.put_key(&created.record, &hash.into()).await.map_err(|error| catalog_failed(&error))?;
    state.access.keys.put(created.record.clone(), hash);
    Ok(Json(created))
}

/// `GET /v1/groundtone/keys`: the tenant's keys; an operator sees all of them.
pub(crate) async fn list(State(state): State<Arc<AppState>>, caller: Caller) -> Result<Json<KeyList>, ApiError> {
    let (catalog, now) = (&state.documents.catalog, unix_now());
    let records = if caller.is_operator() {
        catalog.every_key().await.map(|keys| keys.into_iter().map(|(record, _)| record).collect())
    } else {
        catalog.keys(&caller.tenant).await
    };
    let listed = |record: KeyRecord| {
        let used_today = state.access.keys.get(&record.id).map(|key| key.today(now)).unwrap_or_default();
        ListedKey { record, used_today }
    };
    Ok(Json(KeyList { keys: records.map_err(|error| catalog_failed(&error))?.into_iter().map(listed).collect() }))
}

/// `DELETE /v1/groundtone/keys/{id}`: the next request with it is refused, and with it the tokens that were made with it.
pub(crate) async fn revoke(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<KeyRecord>, ApiError> {
    let unknown = || ApiError::not_found(format!("there is no key `{id}`")).param("id");
    // Only what is in the catalog can be revoked; a key of the configuration ends with its line there.
    let key = state.access.keys.get(&id).ok_or_else(unknown)?;
    let tenant = if caller.is_operator() { &key.record.tenant } else { &caller.tenant };
    let ended = state.documents.catalog.revoke_key(tenant, &id, unix_now()).await.map_err(|error| catalog_failed(&error))?;
    let ended = ended.ok_or_else(unknown)?;
    state.access.keys.revoke(&id);
    Ok(Json(ended))
}

/// What a web page's server asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageTokenBody {
    /// The one origin whose pages may use the token: `https://shop.example`.
    origin: String,
    /// How long it lives; as long as the settings allow where it is not given.
    #[serde(default)]
    ttl_seconds: Option<u32>,
}

/// A token for a web page.
#[derive(Debug, Serialize)]
pub(crate) struct PageToken {
    token: String,
    origin: String,
    expires_at: i64,
}

/// `POST /v1/groundtone/page_tokens`: a short-lived token that a page may hold in place of a key. It may chat, and counts for its key.
pub(crate) async fn page_token(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<PageTokenBody>,
) -> Result<Json<PageToken>, ApiError> {
    if caller.page {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "a token makes no tokens; use the key").code("missing_scope"));
    }
    let Some(key) = caller.key_id() else {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "this server has no keys, so it wants no tokens either; `groundtone keys create` makes one",
        ));
    };
    let origin = Url::parse(&body.origin).ok().map(|url| url.origin().ascii_serialization());
    if origin.as_deref() != Some(body.origin.as_str()) || origin.as_deref() == Some("null") {
        return Err(ApiError::invalid(
            "origin",
            "send an origin as browsers send it: `https://shop.example`, in lower case and without a path",
        ));
    }
    if !state.access.origins.contains(&body.origin) {
        return Err(ApiError::invalid(
            "origin",
            format!("pages of `{}` may not call this server; add it to `server.cors_origins`", body.origin),
        ));
    }
    let most = state.access.page_token_seconds;
    let seconds = body.ttl_seconds.unwrap_or(most);
    if !(1..=most).contains(&seconds) {
        return Err(ApiError::invalid("ttl_seconds", format!("`ttl_seconds` must be between 1 and {most} (`server.page_token_seconds`)")));
    }
    let claims = Claims { key, origin: body.origin, expires_at: unix_now() + i64::from(seconds) };
    let token = state.access.pages.sign(&claims).map_err(|error| ApiError::of(groundtone_types::ErrorKind::Internal, &error))?;
    Ok(Json(PageToken { token, origin: claims.origin, expires_at: claims.expires_at }))
}

/// Which entries of the audit log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    limit: Option<u32>,
}

/// Who did what, newest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct AuditList {
    /// Older ones follow with `before` set to the last id.
    pub entries: Vec<AuditRecord>,
}

/// `GET /v1/groundtone/audit`.
pub(crate) async fn audit(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiQuery(query): ApiQuery<AuditQuery>,
) -> Result<Json<AuditList>, ApiError> {
    let limit = query.limit.unwrap_or(DEFAULT_ENTRIES).clamp(1, MOST_ENTRIES);
    let entries = state.documents.catalog.audited(&caller.tenant, query.before.as_deref(), limit).await;
    Ok(Json(AuditList { entries: entries.map_err(|error| catalog_failed(&error))? }))
}
