use crate::{Catalog, Error};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Most datasets of a tenant.
const MOST_DATASETS: u64 = 10_000;

/// What a file of training rows was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// Of the rows, in hexadecimal.
    pub sha256: String,
    /// Unix seconds.
    pub created_at: i64,
    /// The dataset builder's manifest, as it wrote it.
    pub manifest: Value,
    /// The documents whose snippets stand in the rows.
    pub documents: Vec<DatasetDocument>,
}

/// A document whose snippets stand in training rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetDocument {
    /// Its id.
    pub document: String,
    /// Of its bytes as they were ingested, in hexadecimal; `None` where the builder did not know it.
    pub sha256: Option<String>,
    /// What was shown of it.
    pub snippets: Vec<DatasetSnippet>,
}

/// A snippet that stands in training rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSnippet {
    /// The stored point.
    pub id: Uuid,
    /// Place of the chunk in the document, from 0.
    pub ordinal: u32,
    /// Of what was shown, in hexadecimal.
    pub sha256: String,
    /// In how many rows it stands.
    pub rows: u64,
}

impl Catalog {
    /// Remembers what a file of rows was made of; what was known of the same rows is replaced. [`Error::Full`] where a tenant's datasets together would take more than `quota_bytes`.
    pub async fn put_dataset(&self, tenant: &Tenant, dataset: &DatasetRecord, quota_bytes: u64) -> Result<(), Error> {
        let record = self.json(dataset)?;
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let others = sqlx::query_as("SELECT count(*), coalesce(sum(length(record)), 0) FROM datasets WHERE tenant = ? AND sha256 <> ?");
        let others = others.bind(tenant.as_str()).bind(&dataset.sha256).fetch_one(&mut *transaction);
        let (count, bytes): (i64, i64) = others.await.map_err(|e| self.failed(e))?;
        let (count, bytes) = (count.unsigned_abs(), bytes.unsigned_abs());
        if count >= MOST_DATASETS || bytes.saturating_add(record.len() as u64) > quota_bytes {
            return Err(Error::Full { files: count, bytes, most_files: MOST_DATASETS, quota_bytes });
        }
        sqlx::query("INSERT OR REPLACE INTO datasets (tenant, sha256, created_at, record) VALUES (?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(&dataset.sha256)
            .bind(dataset.created_at)
            .bind(record)
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.failed(e))?;
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// What rows with this hash were made of, if that was told.
    pub async fn dataset(&self, tenant: &Tenant, sha256: &str) -> Result<Option<DatasetRecord>, Error> {
        let query = sqlx::query_scalar::<_, String>("SELECT record FROM datasets WHERE tenant = ? AND sha256 = ?");
        let found = query.bind(tenant.as_str()).bind(sha256).fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?;
        found.map(|text| serde_json::from_str(&text).map_err(|e| self.broken(&e))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;
    use serde_json::json;

    #[tokio::test]
    async fn datasets_are_a_tenants_own_and_keep_to_its_quota() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        let snippet = DatasetSnippet { id: Uuid::nil(), ordinal: 0, sha256: "c".into(), rows: 3 };
        let document = DatasetDocument { document: "returns.md".into(), sha256: Some("d".into()), snippets: vec![snippet] };
        let dataset = DatasetRecord { sha256: "a".into(), created_at: 5, manifest: json!({"format": 1}), documents: vec![document] };
        catalog.put_dataset(&tenant, &dataset, 1_000).await.unwrap();
        assert_eq!(catalog.dataset(&tenant, "a").await.unwrap(), Some(dataset.clone()));
        assert_eq!(catalog.dataset(&other, "a").await.unwrap(), None);
        let second = DatasetRecord { sha256: "b".into(), ..dataset.clone() };
        assert!(matches!(catalog.put_dataset(&tenant, &second, 300).await, Err(Error::Full { files: 1, .. })));
        // The same rows once more take the place that they have.
        let again = DatasetRecord { manifest: json!({"format": 2}), ..dataset };
        catalog.put_dataset(&tenant, &again, 300).await.unwrap();
        assert_eq!(catalog.dataset(&tenant, "a").await.unwrap(), Some(again));
        catalog.put_dataset(&other, &second, 300).await.unwrap();
    }
}
