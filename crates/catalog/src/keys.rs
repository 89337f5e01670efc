//! API keys by their hashes, what they have used today, and the log of who changed what.

use crate::{Catalog, Error};
use groundtone_types::{Scope, Tenant};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// How much a key may use. `None` leaves it to the installation's own limits, 0 is none at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests in a minute of the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Requests in a day, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<u64>,
    /// Tokens read and written in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Tokens read and written in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Money in a minute, in the currency of the prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money_per_minute: Option<f64>,
    /// Money in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money_per_day: Option<f64>,
}

impl KeyLimits {
    /// These limits, and where they say nothing the `other` ones.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            requests_per_day: self.requests_per_day.or(other.requests_per_day),
            tokens_per_minute: self.tokens_per_minute.or(other.tokens_per_minute),
            tokens_per_day: self.tokens_per_day.or(other.tokens_per_day),
            money_per_minute: self.money_per_minute.or(other.money_per_minute),
            money_per_day: self.money_per_day.or(other.money_per_day),
        }
    }
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Public name of the key, a part of it: 12 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whose data it reaches.
    pub tenant: Tenant,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// How much it may use.
    #[serde(default)]
    pub limits: KeyLimits,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds from which on it is refused.
    pub expires_at: Option<i64>,
    /// Unix seconds; it is refused since then.
    pub revoked_at: Option<i64>,
}

/// What was used, of one key or by one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Requests.
    pub requests: u64,
    /// Tokens read and written.
    pub tokens: u64,
    /// Money, in millionths of the currency of the prices.
    pub micros: u64,
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, more: Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.micros = self.micros.saturating_add(more.micros);
    }
}

/// Something that somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Ascends in time.
    pub id: String,
    /// Unix seconds.
    pub at: i64,
    /// In whose data.
    pub tenant: Tenant,
    /// The key's id; `None` where the server has no keys.
    pub key: Option<String>,
    /// Method and path, or the command line's own word.
    pub action: String,
    /// Address of the caller; `command line` for a command that opened the data directory.
    pub origin: String,
    /// The response's `x-request-id`.
    pub request_id: Option<String>,
    /// The answer's status; `None` where the process died before there was one.
    pub status: Option<u16>,
}

impl Catalog {
    /// Keeps a new key.
    pub async fn put_key(&self, record: &KeyRecord, hash: &[u8; 32]) -> Result<(), Error> {
        let scopes = serde_json::to_string(&record.scopes).map_err(|e| self.broken(&e))?;
        let limits = serde_json::to_string(&record.limits).map_err(|e| self.broken(&e))?;
        sqlx::query("INSERT INTO api_keys (id, tenant, name, hash, scopes, limits, created_at, expires_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(&record.id)
            .bind(record.tenant.as_str())
            .bind(&record.name)
            .bind(hash.as_slice())
            .bind(scopes)
            .bind(limits)
            .bind(record.created_at)
            .bind(record.expires_at)
            .bind(record.revoked_at)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Every key of every tenant with its hash, oldest first. Who calls is known only after a look at them, so there is no tenant to name.
    pub async fn every_key(&self) -> Result<Vec<(KeyRecord, [u8; 32])>, Error> {
        let rows = sqlx::query("SELECT * FROM api_keys ORDER BY created_at, id").fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let read = |row: &SqliteRow| -> Result<(KeyRecord, [u8; 32]), Error> {
            let hash: Vec<u8> = row.try_get("hash").map_err(|e| self.failed(e))?;
            let hash = hash.try_into().map_err(|_| self.broken(&"a key's hash has not 32 bytes"))?;
            Ok((self.key_of(row)?, hash))
        };
        rows.iter().map(read).collect()
    }

    /// The keys of a tenant, oldest first.
    pub async fn keys(&self, tenant: &Tenant) -> Result<Vec<KeyRecord>, Error> {
        let query = sqlx::query("SELECT * FROM api_keys WHERE tenant = ? ORDER BY created_at, id").bind(tenant.as_str());
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(|row| self.key_of(row)).collect()
    }

    /// Ends a key; `None` where the tenant has no such key. One that ended before keeps its time.
    pub async fn revoke_key(&self, tenant: &Tenant, id: &str, now: i64) -> Result<Option<KeyRecord>, Error> {
        let query = sqlx::query("UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?) WHERE tenant = ? AND id = ? RETURNING *");
        let row = query.bind(now).bind(tenant.as_str()).bind(id).fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?;
        row.as_ref().map(|row| self.key_of(row)).transpose()
    }

    fn key_of(&self, row: &SqliteRow) -> Result<KeyRecord, Error> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed(e));
        let time = |column: &str| row.try_get::<Option<i64>, _>(column).map_err(|e| self.failed(e));
        Ok(KeyRecord {
            id: text("id")?,
            name: text("name")?,
            tenant: Tenant::new(text("tenant")?).map_err(|e| self.broken(&e))?,
            scopes: serde_json::from_str(&text("scopes")?).map_err(|e| self.broken(&e))?,
            limits: serde_json::from_str(&text("limits")?).map_err(|e| self.broken(&e))?,
            created_at: time("created_at")?.unwrap_or_default(),
            expires_at: time("expires_at")?,
            revoked_at: time("revoked_at")?,
        })
    }

    /// Adds to what a key has used on a day (days since 1970, UTC).
    pub async fn add_usage(&self, used: &[(String, i64, Used)]) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await.map_err(|e| self.failed(e))?;
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (key, day, used) in used {
            sqlx::query(
                "INSERT INTO key_usage (key, day, requests, tokens, micros) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (key, day) DO UPDATE SET requests = requests + excluded.requests, tokens = tokens + excluded.tokens, micros = micros + excluded.micros",
            )
            .bind(key)
            .bind(day)
            .bind(number(used.requests))
            .bind(number(used.tokens))
            .bind(number(used.micros))
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// What each key has used on a day.
    pub async fn usage_of_day(&self, day: i64) -> Result<Vec<(String, Used)>, Error> {
        let query = sqlx::query("SELECT key, requests, tokens, micros FROM key_usage WHERE day = ?").bind(day);
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let read = |row: &SqliteRow| -> Result<(String, Used), sqlx::Error> {
            let number = |column: &str| row.try_get::<i64, _>(column).map(|count| u64::try_from(count).unwrap_or_default());
            Ok((row.try_get("key")?, Used { requests: number("requests")?, tokens: number("tokens")?, micros: number("micros")? }))
        };
        rows.iter().map(|row| read(row).map_err(|e| self.failed(e))).collect()
    }

    /// Notes what somebody is about to do, or has done where there is a status already.
    pub async fn audit(&self, record: &AuditRecord) -> Result<(), Error> {
        sqlx::query("INSERT INTO audit (id, at, tenant, key, action, origin, request_id, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(&record.id)
            .bind(record.at)
            .bind(record.tenant.as_str())
            .bind(&record.key)
            .bind(&record.action)
            .bind(&record.origin)
            .bind(&record.request_id)
            .bind(record.status)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Notes how it was answered.
    pub async fn audit_status(&self, tenant: &Tenant, id: &str, status: u16) -> Result<(), Error> {
        let query = sqlx::query("UPDATE audit SET status = ? WHERE tenant = ? AND id = ?").bind(status).bind(tenant.as_str()).bind(id);
        query.execute(&self.pool).await.map(|_| ()).map_err(|e| self.failed(e))
    }

    /// What was done in a tenant's data, newest first, before the entry `before` where it is given.
    pub async fn audited(&self, tenant: &Tenant, before: Option<&str>, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        let query = sqlx::query("SELECT * FROM audit WHERE tenant = ? AND (? IS NULL OR id < ?) ORDER BY id DESC LIMIT ?");
        let rows = query.bind(tenant.as_str()).bind(before).bind(before).bind(limit).fetch_all(&self.pool).await;
        let read = |row: &SqliteRow| -> Result<AuditRecord, Error> {
            let text = |column: &str| row.try_get::<Option<String>, _>(column).map_err(|e| self.failed(e));
            let status: Option<i64> = row.try_get("status").map_err(|e| self.failed(e))?;
            Ok(AuditRecord {
                id: text("id")?.unwrap_or_default(),
                at: row.try_get("at").map_err(|e| self.failed(e))?,
                tenant: tenant.clone(),
                key: text("key")?,
                action: text("action")?.unwrap_or_default(),
                origin: text("origin")?.unwrap_or_default(),
                request_id: text("request_id")?,
                status: status.and_then(|status| u16::try_from(status).ok()),
            })
        };
        rows.map_err(|e| self.failed(e))?.iter().map(read).collect()
    }

    /// Forgets audit entries and daily sums from before a time (Unix seconds).
    pub async fn forget_audit(&self, before: i64) -> Result<(), Error> {
        sqlx::query("DELETE FROM audit WHERE at < ?").bind(before).execute(&self.pool).await.map_err(|e| self.failed(e))?;
        let query = sqlx::query("DELETE FROM key_usage WHERE day < ?").bind(before.div_euclid(86_400));
        query.execute(&self.pool).await.map(|_| ()).map_err(|e| self.failed(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    async fn catalog() -> (tempfile::TempDir, Catalog) {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        (folder, catalog)
    }

    fn key(id: &str, tenant: &str) -> KeyRecord {
        KeyRecord {
            id: id.to_owned(),
            name: "shop".to_owned(),
            tenant: Tenant::new(tenant).unwrap(),
            scopes: vec![Scope::Chat, Scope::Ingest],
            limits: KeyLimits { requests_per_minute: Some(5), money_per_day: Some(0.5), ..KeyLimits::default() },
            created_at: 1,
            expires_at: Some(9),
            revoked_at: None,
        }
    }

    #[tokio::test]
    async fn keys_end_for_their_tenant_only() {
        let (_folder, catalog) = catalog().await;
        let (mine, theirs) = (key("a", "mine"), key("b", "theirs"));
        catalog.put_key(&mine, &[1; 32]).await.unwrap();
        catalog.put_key(&theirs, &[2; 32]).await.unwrap();
        assert_eq!(catalog.every_key().await.unwrap(), [(mine.clone(), [1; 32]), (theirs.clone(), [2; 32])]);
        assert_eq!(catalog.keys(&mine.tenant).await.unwrap(), std::slice::from_ref(&mine));
        assert_eq!(catalog.revoke_key(&mine.tenant, "b", 5).await.unwrap(), None);
        let ended = catalog.revoke_key(&mine.tenant, "a", 5).await.unwrap().unwrap();
        assert_eq!(ended.revoked_at, Some(5));
        assert_eq!(catalog.revoke_key(&mine.tenant, "a", 7).await.unwrap().unwrap().revoked_at, Some(5), "it ended once");
    }

    #[tokio::test]
    async fn what_is_used_adds_up_by_day() {
        let (_folder, catalog) = catalog().await;
        let used = |requests, tokens, micros| Used { requests, tokens, micros };
        catalog.add_usage(&[("a".into(), 3, used(1, 10, 5)), ("a".into(), 4, used(1, 1, 1))]).await.unwrap();
        catalog.add_usage(&[("a".into(), 3, used(2, 0, 7))]).await.unwrap();
        assert_eq!(catalog.usage_of_day(3).await.unwrap(), [("a".to_owned(), used(3, 10, 12))]);
        catalog.forget_audit(4 * 86_400).await.unwrap();
        assert!(catalog.usage_of_day(3).await.unwrap().is_empty() && !catalog.usage_of_day(4).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_audit_log_is_each_tenants_own_newest_first() {
        let (_folder, catalog) = catalog().await;
        let tenant = Tenant::default();
        let mut entry = AuditRecord {
            id: "1".into(),
            at: 10,
            tenant: tenant.clone(),
            key: Some("a".into()),
            action: "POST /v1/files".into(),
            origin: "127.0.0.1".into(),
            request_id: Some("r".into()),
            status: None,
        };
        catalog.audit(&entry).await.unwrap();
        catalog.audit(&AuditRecord { id: "2".into(), at: 20, status: Some(200), ..entry.clone() }).await.unwrap();
        catalog.audit_status(&Tenant::new("other").unwrap(), "1", 500).await.unwrap();
        catalog.audit_status(&tenant, "1", 201).await.unwrap();
        entry.status = Some(201);
        let found = catalog.audited(&tenant, None, 10).await.unwrap();
        assert_eq!((found[0].id.as_str(), &found[1]), ("2", &entry));
        assert_eq!(catalog.audited(&tenant, Some("2"), 10).await.unwrap(), [entry]);
        assert!(catalog.audited(&Tenant::new("other").unwrap(), None, 10).await.unwrap().is_empty());
        catalog.forget_audit(15).await.unwrap();
        assert_eq!(catalog.audited(&tenant, None, 10).await.unwrap().len(), 1);
    }
}
