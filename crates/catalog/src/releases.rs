//! What was released, by whom, and what was done with it. Nothing here is ever changed; the state is what the history adds up to.

use crate::{Catalog, Error};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// One way to answer, as it was when it was released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// `rel_...`, ascending in time.
    pub id: String,
    /// Whose.
    pub assistant: String,
    /// Which of its variants.
    pub variant: String,
    /// The model that writes.
    pub model: String,
    /// What renders its prompts.
    pub prompt_fingerprint: String,
    /// The generation of the documents that answered then.
    pub generation: String,
    /// The evaluation that speaks for it: its id, verdict, and what was compared.
    pub evaluation: Option<Value>,
    /// It was released although something spoke against it; this.
    pub forced: Option<String>,
    /// Unix seconds.
    pub created_at: i64,
    /// Who released it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// One change of what answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseEvent {
    /// Its place in the assistant's history, from 1.
    pub number: i64,
    /// `promote`, `canary` or `rollback`.
    pub action: String,
    /// The release that it was done with.
    pub release: Option<String>,
    /// Percent of a canary.
    pub percent: Option<u8>,
    /// Unix seconds.
    pub at: i64,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl Catalog {
    /// Notes a change, and with it the release that it brings, in one transaction. The event's number must be the one behind the last:
    /// of two that were made of the same history the second is an [`Error::Conflict`].
    pub async fn put_release_event(
        &self,
        tenant: &Tenant,
        assistant: &str,
        record: Option<&ReleaseRecord>,
        event: &ReleaseEvent,
    ) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await.map_err(|e| self.failed(e))?;
        if let Some(record) = record {
            let query = "INSERT INTO releases (tenant, id, assistant, variant, model, prompt_fingerprint, generation, evaluation, forced, created_at, actor, reason)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
            sqlx::query(query)
                .bind(tenant.as_str())
                .bind(&record.id)
                .bind(&record.assistant)
                .bind(&record.variant)
                .bind(&record.model)
                .bind(&record.prompt_fingerprint)
                .bind(&record.generation)
                .bind(record.evaluation.as_ref().map(Value::to_string))
                .bind(&record.forced)
                .bind(record.created_at)
                .bind(&record.actor)
                .bind(&record.reason)
                .execute(&mut *transaction)
                .await
                .map_err(|e| self.failed(e))?;
        }
        let query = "INSERT INTO release_events (tenant, assistant, number, action, release, percent, at, actor, reason)
            SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE ? = 1 + (SELECT COALESCE(MAX(number), 0) FROM release_events WHERE tenant = ? AND assistant = ?)";
        let done = sqlx::query(query)
            .bind(tenant.as_str())
            .bind(assistant)
            .bind(event.number)
            .bind(&event.action)
            .bind(&event.release)
            .bind(event.percent.map(i64::from))
            .bind(event.at)
            .bind(&event.actor)
            .bind(&event.reason)
            .bind(event.number)
            .bind(tenant.as_str())
            .bind(assistant)
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.failed(e))?;
        if done.rows_affected() == 0 {
            return Err(Error::Conflict { what: format!("the releases of `{assistant}` were changed by somebody else at the same time") });
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// Every release of an assistant, oldest first.
    pub async fn releases(&self, tenant: &Tenant, assistant: &str) -> Result<Vec<ReleaseRecord>, Error> {
        let query =
            sqlx::query("SELECT * FROM releases WHERE tenant = ? AND assistant = ? ORDER BY id").bind(tenant.as_str()).bind(assistant);
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(|row| self.release_of(row)).collect()
    }

    /// Every change of what an assistant answers with, oldest first.
    pub async fn release_events(&self, tenant: &Tenant, assistant: &str) -> Result<Vec<ReleaseEvent>, Error> {
        let query = "SELECT * FROM release_events WHERE tenant = ? AND assistant = ? ORDER BY number";
        let rows = sqlx::query(query).bind(tenant.as_str()).bind(assistant).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let read = |row: &SqliteRow| -> Result<ReleaseEvent, sqlx::Error> {
            Ok(ReleaseEvent {
                number: row.try_get("number")?,
                action: row.try_get("action")?,
                release: row.try_get("release")?,
                percent: row.try_get::<Option<i64>, _>("percent")?.and_then(|percent| u8::try_from(percent).ok()),
                at: row.try_get("at")?,
                actor: row.try_get("actor")?,
                reason: row.try_get("reason")?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|e| self.failed(e))
    }

    /// Keeps what is known of the canary on trial: one for each assistant. `number` is the change of the history that began it.
    pub async fn put_trial(&self, tenant: &Tenant, assistant: &str, number: i64, record: &Value) -> Result<(), Error> {
        let query = sqlx::query("INSERT OR REPLACE INTO canary_trials (tenant, assistant, number, record) VALUES (?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(assistant)
            .bind(number)
            .bind(record.to_string());
        query.execute(&self.pool).await.map(|_| ()).map_err(|e| self.failed(e))
    }

    /// What is known of the trial that this change began; `None` where nothing is, or of another one.
    pub async fn trial(&self, tenant: &Tenant, assistant: &str, number: i64) -> Result<Option<Value>, Error> {
        let query = "SELECT record FROM canary_trials WHERE tenant = ? AND assistant = ? AND number = ?";
        let query = sqlx::query_scalar::<_, String>(query).bind(tenant.as_str()).bind(assistant).bind(number);
        let found = query.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?;
        found.map(|text| serde_json::from_str(&text).map_err(|e| self.broken(&e))).transpose()
    }

    fn release_of(&self, row: &SqliteRow) -> Result<ReleaseRecord, Error> {
        let read = || -> Result<(ReleaseRecord, Option<String>), sqlx::Error> {
            let record = ReleaseRecord {
                id: row.try_get("id")?,
                assistant: row.try_get("assistant")?,
                variant: row.try_get("variant")?,
                model: row.try_get("model")?,
                prompt_fingerprint: row.try_get("prompt_fingerprint")?,
                generation: row.try_get("generation")?,
                evaluation: None,
                forced: row.try_get("forced")?,
                created_at: row.try_get("created_at")?,
                actor: row.try_get("actor")?,
                reason: row.try_get("reason")?,
            };
            Ok((record, row.try_get("evaluation")?))
        };
        let (record, evaluation) = read().map_err(|e| self.failed(e))?;
        let evaluation = evaluation.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| self.broken(&error))?;
        Ok(ReleaseRecord { evaluation, ..record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    #[tokio::test]
    async fn a_trial_belongs_to_the_change_that_began_it() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let tenant = Tenant::default();
        let (first, second) = (serde_json::json!({"seen": 4}), serde_json::json!({"seen": 9}));
        catalog.put_trial(&tenant, "shop", 3, &first).await.unwrap();
        catalog.put_trial(&tenant, "shop", 3, &second).await.unwrap();
        assert_eq!(catalog.trial(&tenant, "shop", 3).await.unwrap(), Some(second));
        assert_eq!(catalog.trial(&tenant, "shop", 4).await.unwrap(), None, "the same release on another trial");
        assert_eq!(catalog.trial(&tenant, "other", 3).await.unwrap(), None);
        catalog.put_trial(&tenant, "shop", 4, &first).await.unwrap();
        assert_eq!(catalog.trial(&tenant, "shop", 3).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_release_and_its_change_are_noted_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        let record = |id: &str| ReleaseRecord {
            id: id.into(),
            assistant: "shop".into(),
            variant: "tuned-rag".into(),
            model: "ft:m".into(),
            prompt_fingerprint: "abc".into(),
            generation: "documents@2".into(),
            evaluation: Some(serde_json::json!({"id": "eval_1", "verdict": "combine"})),
            forced: None,
            created_at: 5,
            actor: "ann".into(),
            reason: "better".into(),
        };
        let event = |number: i64, release: &str| ReleaseEvent {
            number,
            action: "promote".into(),
            release: Some(release.into()),
            percent: Some(10),
            at: 6,
            actor: "ann".into(),
            reason: String::new(),
        };
        catalog.put_release_event(&tenant, "shop", Some(&record("rel_1")), &event(1, "rel_1")).await.unwrap();
        // Made of the same history as the first one: neither the change nor its release is there.
        let late = catalog.put_release_event(&tenant, "shop", Some(&record("rel_2")), &event(1, "rel_2")).await.unwrap_err();
        assert!(matches!(late, Error::Conflict { .. }), "{late}");
        assert_eq!(catalog.releases(&tenant, "shop").await.unwrap(), [record("rel_1")]);
        assert_eq!(catalog.release_events(&tenant, "shop").await.unwrap(), [event(1, "rel_1")]);
        // A record is never written over.
        assert!(catalog.put_release_event(&tenant, "shop", Some(&record("rel_1")), &event(2, "rel_1")).await.is_err());
        catalog.put_release_event(&tenant, "shop", None, &event(2, "rel_1")).await.unwrap();
        assert_eq!(catalog.release_events(&tenant, "shop").await.unwrap().len(), 2);
        for (tenant, assistant) in [(&other, "shop"), (&tenant, "else")] {
            assert!(catalog.releases(tenant, assistant).await.unwrap().is_empty());
            assert!(catalog.release_events(tenant, assistant).await.unwrap().is_empty());
        }
    }
}
