use super::events::NewEvent;
use crate::{Catalog, Error, Page};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::fmt;

/// Where a job is in its life. Which may follow which is the business of `tuning::jobs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Its files are read.
    ValidatingFiles,
    /// It waits for its turn.
    Queued,
    /// It trains.
    Running,
    /// Somebody wants it to wait.
    Paused,
    /// It has left a model.
    Succeeded,
    /// It cannot go on; its error says why.
    Failed,
    /// Somebody has called it off.
    Cancelled,
}

impl JobStatus {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::ValidatingFiles, Self::Queued, Self::Running, Self::Paused, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ValidatingFiles => "validating_files",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing will happen any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a client asked for, or what a job was trained with; `None` is `auto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HyperparameterChoice {
    /// Rows of a step, 1 to 256.
    pub batch_size: Option<u32>,
    /// Times the trainer's own rate, above 0.
    pub learning_rate_multiplier: Option<f64>,
    /// 1 to 50.
    pub n_epochs: Option<u32>,
    /// Of DPO, above 0 and up to 2.
    pub beta: Option<f64>,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// A word for a program.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
    /// `training_file` or `validation_file`, where one of them is to blame.
    pub param: Option<String>,
}

/// A message that a webhook has not taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingWebhook {
    /// `evt_...`, the same at every attempt.
    pub id: String,
    /// Failed attempts.
    pub attempts: u32,
    /// Unix seconds of the next attempt.
    pub next_at: i64,
}

/// A fine-tuning job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// `ftjob-` and a UUIDv7, so ids ascend in time.
    pub id: String,
    /// Where it is in its life.
    pub status: JobStatus,
    /// Unix seconds.
    pub created_at: i64,
    /// The base model, as the client named it.
    pub model: String,
    /// The model that is trained: what the configuration maps `model` to.
    pub trained_model: String,
    /// `supervised` or `dpo`.
    pub method: String,
    /// What the client asked for.
    pub asked: HyperparameterChoice,
    /// What it is trained with, once its files are read.
    pub used: Option<HyperparameterChoice>,
    /// For the model's name.
    pub suffix: Option<String>,
    /// 0 to 2147483647.
    pub seed: u32,
    /// The uploaded file.
    pub training_file: String,
    /// The uploaded file.
    pub validation_file: Option<String>,
    /// Hash of the training file's content (SHA-256, hexadecimal): which data the model comes from.
    pub training_sha256: String,
    /// The client's own notes.
    pub metadata: Option<Map<String, Value>>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Unix seconds.
    pub finished_at: Option<i64>,
    /// Unix seconds, while it runs.
    pub estimated_finish: Option<i64>,
    /// What the model will be called; known from the beginning, so that a job that is cut off in its last moment ends with the same model.
    pub model_name: String,
    /// The id that its result file will have, for the same reason.
    pub result_file: String,
    /// Tokens of all epochs.
    pub trained_tokens: Option<u64>,
    /// Steps done.
    pub step: u64,
    /// Steps of the whole training, once they are counted.
    pub total_steps: Option<u64>,
    /// What a webhook has still to be told.
    pub webhook: Option<PendingWebhook>,
}

impl Catalog {
    /// Remembers a new job and its first events. With a key, in the same transaction, under that key: a job that was made with it before is given back instead.
    /// [`Error::KeyReused`] if that one came from another request (`fingerprint`).
    pub async fn insert_job(
        &self,
        tenant: &Tenant,
        job: &JobRecord,
        events: &[NewEvent],
        key: Option<(&str, &str)>,
    ) -> Result<JobRecord, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        if let Some((key, fingerprint)) = key {
            let query = sqlx::query("SELECT record, key_fingerprint FROM tuning_jobs WHERE tenant = ? AND idempotency_key = ?");
            let query = query.bind(tenant.as_str()).bind(key).fetch_optional(&mut *transaction);
            if let Some(row) = query.await.map_err(|e| self.failed(e))? {
                let before: Option<String> = row.try_get("key_fingerprint").map_err(|e| self.failed(e))?;
                return if before.as_deref() == Some(fingerprint) {
                    self.job_of(&row)
                } else {
                    Err(Error::KeyReused { key: key.to_owned() })
                };
            }
        }
        sqlx::query("INSERT INTO tuning_jobs (tenant, id, status, record, idempotency_key, key_fingerprint) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(&job.id)
            .bind(job.status.as_str())
            .bind(self.json(job)?)
            .bind(key.map(|(key, _)| key))
            .bind(key.map(|(_, fingerprint)| fingerprint))
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.failed(e))?;
        self.add_events(&mut transaction, tenant, &job.id, events).await?;
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(job.clone())
    }

    /// Replaces a job that still has the status `before`, and adds events, in one transaction; false, and nothing happened, if it has another by now.
    pub async fn update_job(&self, tenant: &Tenant, job: &JobRecord, before: JobStatus, events: &[NewEvent]) -> Result<bool, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let done = sqlx::query("UPDATE tuning_jobs SET status = ?, record = ? WHERE tenant = ? AND id = ? AND status = ?")
            .bind(job.status.as_str())
            .bind(self.json(job)?)
            .bind(tenant.as_str())
            .bind(&job.id)
            .bind(before.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.failed(e))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.add_events(&mut transaction, tenant, &job.id, events).await?;
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(true)
    }

    /// One job.
    pub async fn job(&self, tenant: &Tenant, id: &str) -> Result<Option<JobRecord>, Error> {
        let query = sqlx::query("SELECT record FROM tuning_jobs WHERE tenant = ? AND id = ?").bind(tenant.as_str()).bind(id);
        query.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?.map(|row| self.job_of(&row)).transpose()
    }

    /// A page of jobs whose notes hold every one of these pairs; with `Some` of no pairs, those without notes.
    pub async fn jobs(&self, tenant: &Tenant, metadata: Option<&[(String, String)]>, page: Page<'_>) -> Result<Vec<JobRecord>, Error> {
        let pairs = metadata.unwrap_or_default();
        let mut wanted = "AND EXISTS (SELECT 1 FROM json_each(record, '$.metadata') WHERE key = ? AND value = ?) ".repeat(pairs.len());
        if metadata.is_some_and(<[_]>::is_empty) {
            wanted.push_str("AND json_type(record, '$.metadata') = 'null' ");
        }
        let query = format!("SELECT record FROM tuning_jobs WHERE tenant = ? {wanted}AND {}", page.clause("id"));
        let mut query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(tenant.as_str());
        for (key, value) in pairs {
            query = query.bind(key).bind(value);
        }
        let query = query.bind(page.after).bind(page.after).bind(page.limit);
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(|row| self.job_of(row)).collect()
    }

    /// Whether a job was made with this idempotency key.
    pub async fn has_job_key(&self, tenant: &Tenant, key: &str) -> Result<bool, Error> {
        let query = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM tuning_jobs WHERE tenant = ? AND idempotency_key = ?");
        query.bind(tenant.as_str()).bind(key).fetch_one(&self.pool).await.map(|count| count > 0).map_err(|e| self.failed(e))
    }

    /// How many jobs a tenant has that are not over.
    pub async fn open_jobs(&self, tenant: &Tenant) -> Result<u64, Error> {
        let query = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM tuning_jobs WHERE tenant = ? AND status NOT IN ('succeeded', 'failed', 'cancelled')",
        );
        query.bind(tenant.as_str()).fetch_one(&self.pool).await.map(i64::unsigned_abs).map_err(|e| self.failed(e))
    }

    /// The jobs of all tenants that have this status, oldest first. The scheduler is nobody's: it serves all.
    pub async fn jobs_with(&self, status: JobStatus) -> Result<Vec<(Tenant, JobRecord)>, Error> {
        let query = sqlx::query("SELECT tenant, record FROM tuning_jobs WHERE status = ? ORDER BY id").bind(status.as_str());
        self.jobs_of_all(&query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?)
    }

    /// The jobs of all tenants whose end a webhook has still to be told.
    pub async fn jobs_with_webhooks(&self) -> Result<Vec<(Tenant, JobRecord)>, Error> {
        let query = sqlx::query("SELECT tenant, record FROM tuning_jobs WHERE json_type(record, '$.webhook') = 'object' ORDER BY id");
        self.jobs_of_all(&query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?)
    }

    fn jobs_of_all(&self, rows: &[SqliteRow]) -> Result<Vec<(Tenant, JobRecord)>, Error> {
        let read = |row: &SqliteRow| {
            let tenant: String = row.try_get("tenant").map_err(|e| self.failed(e))?;
            Ok((Tenant::new(tenant).map_err(|e| self.broken(&e))?, self.job_of(row)?))
        };
        rows.iter().map(read).collect()
    }

    fn job_of(&self, row: &SqliteRow) -> Result<JobRecord, Error> {
        let record: String = row.try_get("record").map_err(|e| self.failed(e))?;
        serde_json::from_str(&record).map_err(|e| self.broken(&e))
    }

    pub(super) fn json(&self, value: &impl Serialize) -> Result<String, Error> {
        serde_json::to_string(value).map_err(|e| self.broken(&e))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::DataDirectory;
    use serde_json::json;

    pub(crate) fn job(id: &str) -> JobRecord {
        JobRecord {
            id: id.into(),
            status: JobStatus::ValidatingFiles,
            created_at: 5,
            model: "gpt-4o-mini".into(),
            trained_model: "small".into(),
            method: "supervised".into(),
            asked: HyperparameterChoice::default(),
            used: None,
            suffix: None,
            seed: 7,
            training_file: "file-1".into(),
            validation_file: None,
            training_sha256: "00".into(),
            metadata: None,
            error: None,
            finished_at: None,
            estimated_finish: None,
            model_name: format!("ft:gpt-4o-mini:default::{id}"),
            result_file: "file-2".into(),
            trained_tokens: None,
            step: 0,
            total_steps: None,
            webhook: None,
        }
    }

    fn said(message: &str) -> NewEvent {
        NewEvent::info(format!("ftevent-{message}"), 5, message)
    }

    #[tokio::test]
    async fn a_job_changes_only_from_the_status_that_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        let first = catalog.insert_job(&tenant, &job("ftjob-1"), &[said("a")], None).await.unwrap();
        let queued = JobRecord { status: JobStatus::Queued, ..first.clone() };
        assert!(!catalog.update_job(&other, &queued, JobStatus::ValidatingFiles, &[said("x")]).await.unwrap());
        assert!(catalog.update_job(&tenant, &queued, JobStatus::ValidatingFiles, &[said("b")]).await.unwrap());
        assert!(!catalog.update_job(&tenant, &first, JobStatus::ValidatingFiles, &[said("c")]).await.unwrap());
        assert_eq!(catalog.job(&tenant, "ftjob-1").await.unwrap(), Some(queued.clone()));
        assert_eq!(catalog.job(&other, "ftjob-1").await.unwrap(), None);
        let page = Page { after: None, limit: 9, ascending: false };
        let events: Vec<String> = catalog.events(&tenant, "ftjob-1", page).await.unwrap().into_iter().map(|e| e.message).collect();
        assert_eq!(events, ["b", "a"]);
        assert_eq!(catalog.jobs_with(JobStatus::Queued).await.unwrap(), [(tenant.clone(), queued)]);
        assert_eq!((catalog.open_jobs(&tenant).await.unwrap(), catalog.open_jobs(&other).await.unwrap()), (1, 0));
    }

    #[tokio::test]
    async fn a_key_makes_one_job() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        let first = catalog.insert_job(&tenant, &job("ftjob-1"), &[said("a")], Some(("k", "body"))).await.unwrap();
        assert_eq!(catalog.insert_job(&tenant, &job("ftjob-2"), &[said("b")], Some(("k", "body"))).await.unwrap(), first);
        let refused = catalog.insert_job(&tenant, &job("ftjob-3"), &[], Some(("k", "another"))).await.unwrap_err();
        assert!(matches!(refused, Error::KeyReused { .. }));
        assert_eq!(catalog.insert_job(&other, &job("ftjob-4"), &[], Some(("k", "another"))).await.unwrap().id, "ftjob-4");
    }

    #[tokio::test]
    async fn jobs_are_found_by_their_notes() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let tenant = Tenant::default();
        for (id, notes) in
            [("ftjob-1", json!({"team": "a", "it's \"x\"": "1"})), ("ftjob-2", json!({"team": "b"})), ("ftjob-3", json!(null))]
        {
            let metadata = notes.as_object().cloned();
            catalog.insert_job(&tenant, &JobRecord { metadata, ..job(id) }, &[], None).await.unwrap();
        }
        let found = |pairs: Option<Vec<(&'static str, &'static str)>>| {
            let (catalog, tenant) = (&catalog, &tenant);
            async move {
                let pairs: Option<Vec<(String, String)>> =
                    pairs.map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
                let page = Page { after: None, limit: 9, ascending: false };
                let jobs = catalog.jobs(tenant, pairs.as_deref(), page).await.unwrap();
                jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
            }
        };
        assert_eq!(found(None).await, ["ftjob-3", "ftjob-2", "ftjob-1"]);
        assert_eq!(found(Some(vec![("team", "a")])).await, ["ftjob-1"]);
        assert_eq!(found(Some(vec![("team", "a"), ("it's \"x\"", "1")])).await, ["ftjob-1"]);
        assert!(found(Some(vec![("team", "c")])).await.is_empty());
        assert_eq!(found(Some(vec![])).await, ["ftjob-3"]);
    }
}
