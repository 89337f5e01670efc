//! Questions that are handed over to people: messages on their way to a webhook, and those that it did not take.

use crate::{Catalog, Error};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// Where a message is. One that was taken is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandoffState {
    /// It is sent, or sent again, when its time has come.
    Waiting,
    /// It was given up; somebody has to look after it.
    Dead,
}

impl HandoffState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Dead => "dead",
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoffRecord {
    /// `evt_` and a UUIDv7, so ids ascend in time; also the message's `webhook-id`.
    pub id: String,
    /// Whose question.
    pub tenant: Tenant,
    /// Unix seconds.
    pub created_at: i64,
    /// Why the assistant does not answer.
    pub reason: String,
    /// The answer's trace, where one is kept.
    pub trace: Option<String>,
    /// What is sent: JSON.
    pub body: String,
    /// Where it is.
    pub state: HandoffState,
    /// How often it was not taken.
    pub attempts: u32,
    /// Unix seconds of the next attempt.
    pub next_at: i64,
    /// Why it was not taken the last time.
    pub error: Option<String>,
}

impl Catalog {
    /// Keeps messages until they are taken. Beyond `most` that wait, the rest is refused: gives how many were kept, the first ones.
    pub async fn put_handoffs(&self, records: &[HandoffRecord], most: u64) -> Result<usize, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM handoffs WHERE state = 'waiting'");
        let waiting = count.fetch_one(&mut *transaction).await.map_err(|e| self.failed(e))?;
        let room = usize::try_from(most.saturating_sub(u64::try_from(waiting).unwrap_or(0))).unwrap_or(usize::MAX);
        let kept = records.len().min(room);
        for record in &records[..kept] {
            let query = "INSERT INTO handoffs (tenant, id, created_at, reason, trace, body, state, attempts, next_at, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
            sqlx::query(query)
                .bind(record.tenant.as_str())
                .bind(&record.id)
                .bind(record.created_at)
                .bind(&record.reason)
                .bind(&record.trace)
                .bind(&record.body)
                .bind(record.state.as_str())
                .bind(record.attempts)
                .bind(record.next_at)
                .bind(&record.error)
                .execute(&mut *transaction)
                .await
                .map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(kept)
    }

    /// Messages of all tenants whose time has come, the oldest first.
    pub async fn due_handoffs(&self, now: i64, limit: u32) -> Result<Vec<HandoffRecord>, Error> {
        let query = sqlx::query("SELECT * FROM handoffs WHERE state = 'waiting' AND next_at <= ? ORDER BY next_at, id LIMIT ?");
        let rows = query.bind(now).bind(limit).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.handoff_of(row)).collect()
    }

    /// A message was taken, or is not wanted any longer; false if there is none.
    pub async fn remove_handoff(&self, tenant: &Tenant, id: &str) -> Result<bool, Error> {
        let query = sqlx::query("DELETE FROM handoffs WHERE tenant = ? AND id = ?").bind(tenant.as_str()).bind(id);
        query.execute(&self.pool).await.map(|done| done.rows_affected() > 0).map_err(|e| self.failed(e))
    }

    /// A message was not taken: it is sent again at `next_at`, or given up where that is `None`.
    pub async fn handoff_failed(&self, tenant: &Tenant, id: &str, error: &str, next_at: Option<i64>) -> Result<(), Error> {
        let state = if next_at.is_some() { HandoffState::Waiting } else { HandoffState::Dead };
        let query = sqlx::query(
            "UPDATE handoffs SET attempts = attempts + 1, error = ?, state = ?, next_at = coalesce(?, next_at) WHERE tenant = ? AND id = ?",
        );
        let query = query.bind(error).bind(state.as_str()).bind(next_at).bind(tenant.as_str()).bind(id);
        query.execute(&self.pool).await.map(|_| ()).map_err(|e| self.failed(e))
    }

    /// Lets a message that was given up be sent from the beginning; false if there is none.
    pub async fn retry_handoff(&self, tenant: &Tenant, id: &str, now: i64) -> Result<bool, Error> {
        let query =
            sqlx::query("UPDATE handoffs SET state = 'waiting', attempts = 0, next_at = ? WHERE tenant = ? AND id = ? AND state = 'dead'");
        let query = query.bind(now).bind(tenant.as_str()).bind(id);
        query.execute(&self.pool).await.map(|done| done.rows_affected() > 0).map_err(|e| self.failed(e))
    }

    /// A tenant's messages in this state, newest first.
    pub async fn handoffs(&self, tenant: &Tenant, state: Option<HandoffState>, limit: u32) -> Result<Vec<HandoffRecord>, Error> {
        let query = sqlx::query("SELECT * FROM handoffs WHERE tenant = ? AND (? IS NULL OR state = ?) ORDER BY id DESC LIMIT ?");
        let state = state.map(HandoffState::as_str);
        let rows =
            query.bind(tenant.as_str()).bind(state).bind(state).bind(limit).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.handoff_of(row)).collect()
    }

    /// Forgets messages that were given up and are older than `before` (Unix seconds).
    pub async fn forget_handoffs(&self, before: i64) -> Result<u64, Error> {
        let query = sqlx::query("DELETE FROM handoffs WHERE state = 'dead' AND created_at < ?").bind(before);
        query.execute(&self.pool).await.map(|done| done.rows_affected()).map_err(|e| self.failed(e))
    }

    fn handoff_of(&self, row: &SqliteRow) -> Result<HandoffRecord, Error> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed(e));
        let state = text("state")?;
        Ok(HandoffRecord {
            id: text("id")?,
            tenant: Tenant::new(text("tenant")?).map_err(|e| self.broken(&e))?,
            created_at: row.try_get("created_at").map_err(|e| self.failed(e))?,
            reason: text("reason")?,
            trace: row.try_get("trace").map_err(|e| self.failed(e))?,
            body: text("body")?,
            state: serde_json::from_value(state.into()).map_err(|e| self.broken(&e))?,
            attempts: row
                .try_get::<i64, _>("attempts")
                .map(|attempts| u32::try_from(attempts).unwrap_or(u32::MAX))
                .map_err(|e| self.failed(e))?,
            next_at: row.try_get("next_at").map_err(|e| self.failed(e))?,
            error: row.try_get("error").map_err(|e| self.failed(e))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    #[tokio::test]
    async fn a_message_waits_until_it_is_taken_or_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        let record = |id: &str, tenant: &Tenant| HandoffRecord {
            id: id.into(),
            tenant: tenant.clone(),
            created_at: 5,
            reason: "no_evidence".into(),
            trace: None,
            body: "{}".into(),
            state: HandoffState::Waiting,
            attempts: 0,
            next_at: 5,
            error: None,
        };
        let (a, b, c) = (record("evt_a", &tenant), record("evt_b", &tenant), record("evt_c", &other));
        assert_eq!(catalog.put_handoffs(&[a.clone(), b.clone(), c.clone(), record("evt_d", &other)], 3).await.unwrap(), 3);
        let due = |now| catalog.due_handoffs(now, 10);
        assert!(due(4).await.unwrap().is_empty());
        assert_eq!(due(5).await.unwrap(), [a, b, c.clone()]);
        assert!(catalog.remove_handoff(&tenant, "evt_a").await.unwrap());
        assert!(!catalog.remove_handoff(&tenant, "evt_c").await.unwrap(), "another tenant's");
        catalog.handoff_failed(&tenant, "evt_b", "it says 503", Some(9)).await.unwrap();
        assert_eq!(due(8).await.unwrap(), [c]);
        assert_eq!(due(9).await.unwrap()[1].attempts, 1);
        assert!(!catalog.retry_handoff(&tenant, "evt_b", 9).await.unwrap(), "it waits anyway");
        catalog.handoff_failed(&tenant, "evt_b", "it says 500", None).await.unwrap();
        let dead = catalog.handoffs(&tenant, Some(HandoffState::Dead), 10).await.unwrap();
        assert_eq!((dead.len(), dead[0].attempts, dead[0].error.as_deref()), (1, 2, Some("it says 500")));
        assert_eq!(due(100).await.unwrap().len(), 1);
        assert!(!catalog.retry_handoff(&other, "evt_b", 9).await.unwrap(), "another tenant's");
        assert!(catalog.retry_handoff(&tenant, "evt_b", 9).await.unwrap());
        assert_eq!((due(9).await.unwrap().len(), catalog.forget_handoffs(100).await.unwrap()), (2, 0));
        catalog.handoff_failed(&tenant, "evt_b", "it says 500", None).await.unwrap();
        assert_eq!((catalog.forget_handoffs(5).await.unwrap(), catalog.forget_handoffs(6).await.unwrap()), (0, 1));
        assert_eq!(catalog.handoffs(&other, None, 10).await.unwrap().len(), 1);
    }
}
