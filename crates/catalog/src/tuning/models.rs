use crate::{Catalog, Error, Page};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use std::path::PathBuf;

/// A model that fine-tuning left, or that another name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// What a client asks: `ft:...`.
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// The model below it.
    pub base: String,
    /// Its adapter, relative to the data directory.
    pub adapter: PathBuf,
    /// The job it comes from; `None` for one that was imported.
    pub job: Option<String>,
    /// A checkpoint answers, but is not in the list of models.
    pub checkpoint: bool,
    /// SHA-256 of the rows it was trained on, where they are known.
    pub training_sha256: Option<String>,
}

/// That a project may use a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionRecord {
    /// `cp_` and a UUIDv7, so ids ascend in time.
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Who.
    pub project: String,
}

impl Catalog {
    /// Remembers a model; one of this name is replaced.
    pub async fn put_model(&self, tenant: &Tenant, model: &ModelRecord) -> Result<(), Error> {
        sqlx::query("INSERT OR REPLACE INTO tuned_models (tenant, id, job, checkpoint, created_at, record) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(&model.id)
            .bind(&model.job)
            .bind(model.checkpoint)
            .bind(model.created_at)
            .bind(self.json(model)?)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// One model, a checkpoint included; an alias is followed once.
    pub async fn model(&self, tenant: &Tenant, id: &str) -> Result<Option<ModelRecord>, Error> {
        let query = sqlx::query_scalar::<_, String>(
            "SELECT record FROM tuned_models WHERE tenant = ?1 AND id = coalesce((SELECT target FROM model_aliases WHERE tenant = ?1 AND id = ?2), ?2)",
        );
        let found = query.bind(tenant.as_str()).bind(id).fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?;
        found.map(|text| serde_json::from_str(&text).map_err(|e| self.broken(&e))).transpose()
    }

    /// Every model of a tenant except checkpoints, oldest first.
    pub async fn models(&self, tenant: &Tenant) -> Result<Vec<ModelRecord>, Error> {
        self.models_where(tenant, "checkpoint = 0", None).await
    }

    /// A job's models: the checkpoints first.
    pub async fn models_of_job(&self, tenant: &Tenant, job: &str) -> Result<Vec<ModelRecord>, Error> {
        self.models_where(tenant, "job = ?", Some(job)).await
    }

    async fn models_where(&self, tenant: &Tenant, condition: &'static str, value: Option<&str>) -> Result<Vec<ModelRecord>, Error> {
        let query = format!("SELECT record FROM tuned_models WHERE tenant = ? AND {condition} ORDER BY checkpoint DESC, created_at, id");
        let mut query = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(query)).bind(tenant.as_str());
        if let Some(value) = value {
            query = query.bind(value);
        }
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.iter().map(|text| serde_json::from_str(text).map_err(|e| self.broken(&e))).collect()
    }

    /// Forgets a model, its permissions and the names that stand for it; false if there was none.
    pub async fn delete_model(&self, tenant: &Tenant, id: &str) -> Result<bool, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let mut removed = 0;
        for statement in [
            "DELETE FROM checkpoint_permissions WHERE tenant = ? AND model = ?",
            "DELETE FROM model_aliases WHERE tenant = ? AND target = ?",
            "DELETE FROM tuned_models WHERE tenant = ? AND id = ?",
        ] {
            let done = sqlx::query(statement).bind(tenant.as_str()).bind(id).execute(&mut *transaction).await;
            removed = done.map_err(|e| self.failed(e))?.rows_affected();
        }
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(removed > 0)
    }

    /// Lets `id` stand for the model `target`.
    pub async fn put_alias(&self, tenant: &Tenant, id: &str, target: &str) -> Result<(), Error> {
        sqlx::query("INSERT OR REPLACE INTO model_aliases (tenant, id, target) VALUES (?, ?, ?)")
            .bind(tenant.as_str())
            .bind(id)
            .bind(target)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Takes an alias away; false if there was none.
    pub async fn delete_alias(&self, tenant: &Tenant, id: &str) -> Result<bool, Error> {
        let query = sqlx::query("DELETE FROM model_aliases WHERE tenant = ? AND id = ?").bind(tenant.as_str()).bind(id);
        query.execute(&self.pool).await.map(|done| done.rows_affected() > 0).map_err(|e| self.failed(e))
    }

    /// Every alias and what it stands for.
    pub async fn aliases(&self, tenant: &Tenant) -> Result<Vec<(String, String)>, Error> {
        let query = sqlx::query_as("SELECT id, target FROM model_aliases WHERE tenant = ? ORDER BY id").bind(tenant.as_str());
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))
    }

    /// Lets a project use a model.
    pub async fn put_permission(&self, tenant: &Tenant, model: &str, permission: &PermissionRecord) -> Result<(), Error> {
        sqlx::query("INSERT INTO checkpoint_permissions (tenant, model, id, created_at, project) VALUES (?, ?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(model)
            .bind(&permission.id)
            .bind(permission.created_at)
            .bind(&permission.project)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Takes a permission back; false if there was none.
    pub async fn delete_permission(&self, tenant: &Tenant, model: &str, id: &str) -> Result<bool, Error> {
        let query = sqlx::query("DELETE FROM checkpoint_permissions WHERE tenant = ? AND model = ? AND id = ?");
        let query = query.bind(tenant.as_str()).bind(model).bind(id);
        query.execute(&self.pool).await.map(|done| done.rows_affected() > 0).map_err(|e| self.failed(e))
    }

    /// A page of a model's permissions, of one project or of all.
    pub async fn permissions(
        &self,
        tenant: &Tenant,
        model: &str,
        project: Option<&str>,
        page: Page<'_>,
    ) -> Result<Vec<PermissionRecord>, Error> {
        let query = format!(
            "SELECT id, created_at, project FROM checkpoint_permissions WHERE tenant = ? AND model = ? AND (? IS NULL OR project = ?) AND {}",
            page.clause("id")
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(tenant.as_str()).bind(model).bind(project).bind(project);
        let rows = query.bind(page.after).bind(page.after).bind(page.limit).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(PermissionRecord { id: row.try_get("id")?, created_at: row.try_get("created_at")?, project: row.try_get("project")? })
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(|e| self.failed(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    #[tokio::test]
    async fn models_answer_under_their_aliases_until_they_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        let model = |id: &str, checkpoint| ModelRecord {
            id: id.into(),
            created_at: 5,
            base: "small".into(),
            adapter: "tuning/a.gguf".into(),
            job: Some("ftjob-1".into()),
            checkpoint,
            training_sha256: None,
        };
        let (whole, half) = (model("ft:small:org::a", false), model("ft:small:org::a:ckpt-step-2", true));
        catalog.put_model(&tenant, &whole).await.unwrap();
        catalog.put_model(&tenant, &half).await.unwrap();
        catalog.put_alias(&tenant, "ft:gpt-4o:acme::old", &whole.id).await.unwrap();
        assert_eq!(catalog.models(&tenant).await.unwrap(), std::slice::from_ref(&whole));
        assert_eq!(catalog.models_of_job(&tenant, "ftjob-1").await.unwrap(), [half.clone(), whole.clone()]);
        for id in [whole.id.as_str(), "ft:gpt-4o:acme::old"] {
            assert_eq!(catalog.model(&tenant, id).await.unwrap().as_ref(), Some(&whole), "{id}");
            assert_eq!(catalog.model(&other, id).await.unwrap(), None, "{id}");
        }
        let permission = PermissionRecord { id: "cp_1".into(), created_at: 5, project: "proj_a".into() };
        catalog.put_permission(&tenant, &half.id, &permission).await.unwrap();
        let page = Page { after: None, limit: 9, ascending: false };
        assert_eq!(catalog.permissions(&tenant, &half.id, Some("proj_a"), page).await.unwrap(), [permission]);
        assert!(catalog.permissions(&tenant, &half.id, Some("proj_b"), page).await.unwrap().is_empty());
        assert!(!catalog.delete_model(&other, &whole.id).await.unwrap());
        assert!(catalog.delete_model(&tenant, &whole.id).await.unwrap() && catalog.delete_model(&tenant, &half.id).await.unwrap());
        assert!(catalog.aliases(&tenant).await.unwrap().is_empty() && !catalog.delete_permission(&tenant, &half.id, "cp_1").await.unwrap());
    }
}
