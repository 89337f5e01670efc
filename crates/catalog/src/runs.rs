//! The runs of ingest and their reports.

use crate::{Catalog, Error};
use groundtone_types::{Collection, Tenant};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

/// A run of ingest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id, ascending in time.
    pub id: Uuid,
    /// Where the documents came from.
    pub source: String,
    /// Unix seconds.
    pub started_at: i64,
    /// Unix seconds; `None` for a run that was interrupted or still goes on.
    pub finished_at: Option<i64>,
    /// The report as JSON.
    pub report: Option<String>,
}

impl Catalog {
    /// Notes that a run has begun.
    pub async fn start_run(&self, tenant: &Tenant, collection: &Collection, id: Uuid, source: &str, now: i64) -> Result<(), Error> {
        sqlx::query("INSERT INTO runs (id, tenant, collection, source, started_at) VALUES (?, ?, ?, ?, ?)")
            .bind(id.to_string())
            .bind(tenant.as_str())
            .bind(collection.as_str())
            .bind(source)
            .bind(now)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Notes how a run ended.
    pub async fn finish_run(&self, tenant: &Tenant, id: Uuid, report: &str, now: i64) -> Result<(), Error> {
        sqlx::query("UPDATE runs SET finished_at = ?, report = ? WHERE id = ? AND tenant = ?")
            .bind(now)
            .bind(report)
            .bind(id.to_string())
            .bind(tenant.as_str())
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// The latest runs, newest first.
    pub async fn runs(&self, tenant: &Tenant, limit: u32) -> Result<Vec<RunRecord>, Error> {
        let query = sqlx::query("SELECT id, source, started_at, finished_at, report FROM runs WHERE tenant = ? ORDER BY id DESC LIMIT ?")
            .bind(tenant.as_str())
            .bind(limit);
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        self.runs_of(&rows)
    }

    /// The runs whose ids begin so, at most two: more than one is too many to mean one.
    pub async fn runs_with(&self, tenant: &Tenant, prefix: &str) -> Result<Vec<RunRecord>, Error> {
        let query = sqlx::query(
            "SELECT id, source, started_at, finished_at, report FROM runs WHERE tenant = ?1 AND substr(id, 1, length(?2)) = ?2 ORDER BY id LIMIT 2",
        );
        let rows = query.bind(tenant.as_str()).bind(prefix).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        self.runs_of(&rows)
    }

    fn runs_of(&self, rows: &[SqliteRow]) -> Result<Vec<RunRecord>, Error> {
        let read = |row: &SqliteRow| -> Result<RunRecord, Error> {
            let id: String = row.try_get("id").map_err(|e| self.failed(e))?;
            Ok(RunRecord {
                id: id.parse().map_err(|e: uuid::Error| self.broken(&e))?,
                source: row.try_get("source").map_err(|e| self.failed(e))?,
                started_at: row.try_get("started_at").map_err(|e| self.failed(e))?,
                finished_at: row.try_get("finished_at").map_err(|e| self.failed(e))?,
                report: row.try_get("report").map_err(|e| self.failed(e))?,
            })
        };
        rows.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    #[tokio::test]
    async fn runs_are_remembered_by_their_tenant() {
        let folder = tempfile::tempdir().unwrap();
        let (tenant, other, collection) = (Tenant::default(), Tenant::new("other").unwrap(), Collection::new("c").unwrap());
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        catalog.start_run(&tenant, &collection, first, "docs", 10).await.unwrap();
        catalog.start_run(&tenant, &collection, second, "docs", 11).await.unwrap();
        catalog.finish_run(&other, first, "{}", 12).await.unwrap();
        catalog.finish_run(&tenant, second, "{}", 12).await.unwrap();
        let runs: Vec<_> = catalog.runs(&tenant, 10).await.unwrap().into_iter().map(|run| (run.id, run.finished_at)).collect();
        for (prefix, count) in [(second.to_string().as_str(), 1), ("00000000", 2), ("%", 0)] {
            assert_eq!(catalog.runs_with(&tenant, prefix).await.unwrap().len(), count, "{prefix}");
        }
        assert_eq!(runs, [(second, Some(12)), (first, None)], "another tenant cannot finish a run");
    }
}
