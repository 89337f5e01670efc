use crate::{Catalog, Error, Page};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// `ftevent-` and a UUIDv7, so ids ascend in time.
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    /// A sentence.
    pub message: String,
    /// Whether it is a measurement.
    pub is_metrics: bool,
    /// Numbers that belong to it.
    pub data: Map<String, Value>,
}

impl NewEvent {
    /// A message that all is well.
    pub fn info(id: String, created_at: i64, message: impl Into<String>) -> Self {
        Self { id, created_at, level: "info", message: message.into(), is_metrics: false, data: Map::new() }
    }
}

/// The same, as it was remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRecord {
    /// `ftevent-...`.
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// A sentence.
    pub message: String,
    /// Whether it is a measurement.
    pub is_metrics: bool,
    /// Numbers that belong to it.
    pub data: Map<String, Value>,
}

/// What was measured at a step, or at a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// From 1.
    pub step: u64,
    /// Mean loss of the step's rows.
    pub train_loss: f64,
    /// Share of right tokens of the step's rows.
    pub train_accuracy: f64,
    /// Of some validation rows, where they were measured.
    #[serde(default)]
    pub valid_loss: Option<f64>,
    /// Of some validation rows, where they were measured.
    #[serde(default)]
    pub valid_accuracy: Option<f64>,
    /// Of the whole validation file, where it was measured.
    #[serde(default)]
    pub full_valid_loss: Option<f64>,
    /// Of the whole validation file, where it was measured.
    #[serde(default)]
    pub full_valid_accuracy: Option<f64>,
}

/// A model as it was at the end of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// `ftckpt_` and a UUIDv7, so ids ascend in time.
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// What a client asks: `...:ckpt-step-88`.
    pub model: String,
    /// What was measured.
    pub metrics: StepRecord,
}

impl Catalog {
    pub(super) async fn add_events(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        tenant: &Tenant,
        job: &str,
        events: &[NewEvent],
    ) -> Result<(), Error> {
        for event in events {
            sqlx::query(
                "INSERT INTO tuning_events (tenant, job, id, created_at, level, message, is_metrics, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(tenant.as_str())
            .bind(job)
            .bind(&event.id)
            .bind(event.created_at)
            .bind(event.level)
            .bind(&event.message)
            .bind(event.is_metrics)
            .bind(self.json(&event.data)?)
            .execute(&mut **transaction)
            .await
            .map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// A page of what happened to a job.
    pub async fn events(&self, tenant: &Tenant, job: &str, page: Page<'_>) -> Result<Vec<EventRecord>, Error> {
        let query = format!("SELECT * FROM tuning_events WHERE tenant = ? AND job = ? AND {}", page.clause("id"));
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(tenant.as_str()).bind(job);
        let query = query.bind(page.after).bind(page.after).bind(page.limit);
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(|row| self.event_of(row)).collect()
    }

    fn event_of(&self, row: &SqliteRow) -> Result<EventRecord, Error> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed(e));
        Ok(EventRecord {
            id: text("id")?,
            created_at: row.try_get("created_at").map_err(|e| self.failed(e))?,
            level: text("level")?,
            message: text("message")?,
            is_metrics: row.try_get("is_metrics").map_err(|e| self.failed(e))?,
            data: serde_json::from_str(&text("data")?).map_err(|e| self.broken(&e))?,
        })
    }

    /// Remembers what a step measured. A step that is done again, behind the checkpoint where a job went on, replaces what it measured before.
    pub async fn put_step(&self, tenant: &Tenant, job: &str, step: &StepRecord) -> Result<(), Error> {
        sqlx::query("INSERT OR REPLACE INTO tuning_steps (tenant, job, step, record) VALUES (?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(job)
            .bind(i64::try_from(step.step).unwrap_or(i64::MAX))
            .bind(self.json(step)?)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// What all steps measured, in order.
    pub async fn steps(&self, tenant: &Tenant, job: &str) -> Result<Vec<StepRecord>, Error> {
        let query = sqlx::query_scalar::<_, String>("SELECT record FROM tuning_steps WHERE tenant = ? AND job = ? ORDER BY step");
        let rows = query.bind(tenant.as_str()).bind(job).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.iter().map(|text| serde_json::from_str(text).map_err(|e| self.broken(&e))).collect()
    }

    /// Remembers a checkpoint; one that the job has at this step already stays as it is.
    pub async fn put_checkpoint(&self, tenant: &Tenant, job: &str, checkpoint: &CheckpointRecord) -> Result<(), Error> {
        sqlx::query("INSERT OR IGNORE INTO tuning_checkpoints (tenant, job, step, id, record) VALUES (?, ?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(job)
            .bind(i64::try_from(checkpoint.metrics.step).unwrap_or(i64::MAX))
            .bind(&checkpoint.id)
            .bind(self.json(checkpoint)?)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Forgets the checkpoints of a job except the newest `kept`.
    pub async fn trim_checkpoints(&self, tenant: &Tenant, job: &str, kept: u32) -> Result<(), Error> {
        sqlx::query(
            "DELETE FROM tuning_checkpoints WHERE tenant = ?1 AND job = ?2 AND step NOT IN
                (SELECT step FROM tuning_checkpoints WHERE tenant = ?1 AND job = ?2 ORDER BY step DESC LIMIT ?3)",
        )
        .bind(tenant.as_str())
        .bind(job)
        .bind(kept)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(|e| self.failed(e))
    }

    /// A page of a job's checkpoints.
    pub async fn checkpoints(&self, tenant: &Tenant, job: &str, page: Page<'_>) -> Result<Vec<CheckpointRecord>, Error> {
        let query = format!("SELECT record FROM tuning_checkpoints WHERE tenant = ? AND job = ? AND {}", page.clause("id"));
        let query = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(query)).bind(tenant.as_str()).bind(job);
        let query = query.bind(page.after).bind(page.after).bind(page.limit);
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.iter().map(|text| serde_json::from_str(text).map_err(|e| self.broken(&e))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    fn step(number: u64, loss: f64) -> StepRecord {
        StepRecord { step: number, train_loss: loss, train_accuracy: 0.5, ..StepRecord::default() }
    }

    #[tokio::test]
    async fn a_step_that_is_done_again_is_remembered_once() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        for (number, loss) in [(1, 3.0), (2, 2.5), (3, 2.0), (2, 2.25)] {
            catalog.put_step(&tenant, "ftjob-1", &step(number, loss)).await.unwrap();
        }
        assert_eq!(catalog.steps(&tenant, "ftjob-1").await.unwrap(), [step(1, 3.0), step(2, 2.25), step(3, 2.0)]);
        assert!(catalog.steps(&other, "ftjob-1").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_newest_checkpoints_stay() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let tenant = Tenant::default();
        for (at, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (4, "again")] {
            let record =
                CheckpointRecord { id: format!("ftckpt_{id}"), created_at: 5, model: format!("m:ckpt-step-{at}"), metrics: step(at, 1.0) };
            catalog.put_checkpoint(&tenant, "ftjob-1", &record).await.unwrap();
            catalog.trim_checkpoints(&tenant, "ftjob-1", 3).await.unwrap();
        }
        let page = Page { after: None, limit: 9, ascending: false };
        let ids: Vec<String> = catalog.checkpoints(&tenant, "ftjob-1", page).await.unwrap().into_iter().map(|c| c.id).collect();
        assert_eq!(ids, ["ftckpt_d", "ftckpt_c", "ftckpt_b"]);
    }
}
