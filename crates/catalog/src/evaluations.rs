//! Evaluations: which arms were compared on which held-out set, and the verdict. A release rests on one.

use crate::{Catalog, Error};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// An arm of an evaluation, as far as a release needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluatedArm {
    /// Its name in the evaluation: `rag`, `tuned-rag`, ...
    pub name: String,
    /// The model that the client named: `groundtone:tuned-rag`, `ft:...`.
    pub model: String,
    /// The model that wrote the answers, where the server said so.
    pub answered_by: Option<String>,
    /// Fingerprint of the prompt that the answers were written under, where the server said so.
    pub prompt_fingerprint: Option<String>,
    /// Whether the verdict lets it be released: measured on enough rows, not clearly worse than the baseline in any metric.
    pub passed: bool,
    /// Why, or why not.
    pub reason: String,
}

/// An evaluation that came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// `eval-` and a UUIDv7, so ids ascend in time.
    pub id: String,
    /// What the operator calls it; the set's file name where nothing else was said.
    pub name: String,
    /// SHA-256 of the held-out set, in hexadecimal.
    pub set_sha256: String,
    /// Rows of the set that were asked.
    pub cases: u64,
    /// The verdict's decision: `do_not_fine_tune`, `keep_rag`, `use_tuned`, `combine`, `need_more_rows`, ...
    pub decision: String,
    /// The verdict's sentence.
    pub reason: String,
    /// The arms.
    pub arms: Vec<EvaluatedArm>,
    /// The whole report, as JSON.
    pub report: String,
    /// Unix seconds.
    pub created_at: i64,
}

impl EvaluationRecord {
    /// The arm with this name, or with this model name.
    pub fn arm(&self, name: &str) -> Option<&EvaluatedArm> {
        self.arms.iter().find(|arm| arm.name == name).or_else(|| self.arms.iter().find(|arm| arm.model == name))
    }
}

impl Catalog {
    /// Keeps an evaluation. It is never changed afterwards: the same id twice is an error.
    pub async fn put_evaluation(&self, tenant: &Tenant, record: &EvaluationRecord) -> Result<(), Error> {
        let arms = serde_json::to_string(&record.arms).map_err(|e| self.broken(&e))?;
        sqlx::query(
            "INSERT INTO evaluations (tenant, id, name, set_sha256, cases, decision, reason, arms, report, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(tenant.as_str())
        .bind(&record.id)
        .bind(&record.name)
        .bind(&record.set_sha256)
        .bind(i64::try_from(record.cases).unwrap_or(i64::MAX))
        .bind(&record.decision)
        .bind(&record.reason)
        .bind(arms)
        .bind(&record.report)
        .bind(record.created_at)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(|e| self.failed(e))
    }

    /// One evaluation; `None` where there is none of that id.
    pub async fn evaluation(&self, tenant: &Tenant, id: &str) -> Result<Option<EvaluationRecord>, Error> {
        let query = sqlx::query("SELECT * FROM evaluations WHERE tenant = ? AND id = ?").bind(tenant.as_str()).bind(id);
        query.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?.map(|row| self.evaluation_of(&row)).transpose()
    }

    /// The latest evaluations, newest first.
    pub async fn evaluations(&self, tenant: &Tenant, limit: u32) -> Result<Vec<EvaluationRecord>, Error> {
        let query = sqlx::query("SELECT * FROM evaluations WHERE tenant = ? ORDER BY id DESC LIMIT ?").bind(tenant.as_str()).bind(limit);
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(|row| self.evaluation_of(row)).collect()
    }

    fn evaluation_of(&self, row: &SqliteRow) -> Result<EvaluationRecord, Error> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed(e));
        Ok(EvaluationRecord {
            id: text("id")?,
            name: text("name")?,
            set_sha256: text("set_sha256")?,
            cases: row.try_get::<i64, _>("cases").map_err(|e| self.failed(e))?.unsigned_abs(),
            decision: text("decision")?,
            reason: text("reason")?,
            arms: serde_json::from_str(&text("arms")?).map_err(|e| self.broken(&e))?,
            report: text("report")?,
            created_at: row.try_get("created_at").map_err(|e| self.failed(e))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    fn record(id: &str) -> EvaluationRecord {
        let arm = |name: &str, passed| EvaluatedArm {
            name: name.into(),
            model: format!("groundtone:{name}"),
            answered_by: Some("smollm2".into()),
            prompt_fingerprint: None,
            passed,
            reason: "as good".into(),
        };
        EvaluationRecord {
            id: id.into(),
            name: "held-out".into(),
            set_sha256: "ab".into(),
            cases: 40,
            decision: "combine".into(),
            reason: "it is better".into(),
            arms: vec![arm("rag", false), arm("tuned-rag", true)],
            report: "{}".into(),
            created_at: 7,
        }
    }

    #[tokio::test]
    async fn an_evaluation_is_kept_as_it_is_and_belongs_to_its_tenant() {
        let folder = tempfile::tempdir().unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (first, second) = (record("eval-1"), record("eval-2"));
        catalog.put_evaluation(&tenant, &first).await.unwrap();
        catalog.put_evaluation(&tenant, &second).await.unwrap();
        assert!(catalog.put_evaluation(&tenant, &first).await.is_err(), "an evaluation is never replaced");
        assert_eq!(catalog.evaluation(&tenant, "eval-1").await.unwrap(), Some(first));
        assert_eq!(catalog.evaluation(&other, "eval-1").await.unwrap(), None);
        let ids: Vec<String> = catalog.evaluations(&tenant, 5).await.unwrap().into_iter().map(|record| record.id).collect();
        assert_eq!(ids, ["eval-2", "eval-1"]);
        assert_eq!(second.arm("groundtone:tuned-rag").map(|arm| arm.passed), Some(true));
        assert_eq!(second.arm("rag").map(|arm| arm.passed), Some(false));
        assert!(second.arm("tuned").is_none());
    }
}
