//! Vector stores of OpenAI's API: names for collections, and which uploaded files are in them.

use crate::{Catalog, Error, Page};
use groundtone_types::{Collection, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// A vector store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRecord {
    /// The collection that it is; its id on the wire.
    pub collection: Collection,
    /// What the client calls it.
    pub name: String,
    /// The client's own notes.
    pub metadata: Map<String, Value>,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds of the last change or search.
    pub last_active_at: i64,
}

/// How far a file of a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreFileStatus {
    /// It is being read.
    InProgress,
    /// It can be found.
    Completed,
    /// It could not be read.
    Failed,
}

impl StoreFileStatus {
    /// The word on the wire and in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// An uploaded file in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFileRecord {
    /// The uploaded file.
    pub file: String,
    /// The document that it became.
    pub document: String,
    /// How far it is.
    pub status: StoreFileStatus,
    /// Why it failed: a word for a program, and a sentence.
    pub error: Option<(String, String)>,
    /// The client's own notes.
    pub attributes: Map<String, Value>,
    /// Length of the file.
    pub bytes: u64,
    /// Unix seconds.
    pub created_at: i64,
}

impl Catalog {
    /// Notes a store, or its new name and notes.
    pub async fn put_store(&self, tenant: &Tenant, record: &StoreRecord) -> Result<(), Error> {
        let query = "INSERT INTO vector_stores (tenant, id, name, metadata, created_at, last_active_at) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET name = excluded.name, metadata = excluded.metadata, last_active_at = excluded.last_active_at";
        sqlx::query(query)
            .bind(tenant.as_str())
            .bind(record.collection.as_str())
            .bind(&record.name)
            .bind(Value::Object(record.metadata.clone()).to_string())
            .bind(record.created_at)
            .bind(record.last_active_at)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// One store.
    pub async fn store(&self, tenant: &Tenant, collection: &Collection) -> Result<Option<StoreRecord>, Error> {
        let query = sqlx::query("SELECT * FROM vector_stores WHERE tenant = ? AND id = ?").bind(tenant.as_str()).bind(collection.as_str());
        query.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?.map(|row| self.store_of(&row)).transpose()
    }

    /// A page of stores.
    pub async fn stores(&self, tenant: &Tenant, page: Page<'_>) -> Result<Vec<StoreRecord>, Error> {
        let query = format!("SELECT * FROM vector_stores WHERE tenant = ? AND {}", page.clause("id"));
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(tenant.as_str()).bind(page.after).bind(page.after).bind(page.limit);
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(|row| self.store_of(row)).collect()
    }

    /// Forgets a store and which files were in it; false if there was none. The caller removes its collection.
    pub async fn delete_store(&self, tenant: &Tenant, collection: &Collection) -> Result<bool, Error> {
        let mut transaction = self.pool.begin().await.map_err(|e| self.failed(e))?;
        let mut found = false;
        for statement in
            ["DELETE FROM vector_store_files WHERE tenant = ? AND store = ?", "DELETE FROM vector_stores WHERE tenant = ? AND id = ?"]
        {
            let query = sqlx::query(statement).bind(tenant.as_str()).bind(collection.as_str());
            found = query.execute(&mut *transaction).await.map_err(|e| self.failed(e))?.rows_affected() > 0;
        }
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(found)
    }

    /// Notes a file of a store, or how far it is now.
    pub async fn put_store_file(&self, tenant: &Tenant, store: &Collection, record: &StoreFileRecord) -> Result<(), Error> {
        let query = "INSERT OR REPLACE INTO vector_store_files (tenant, store, file, document, status, error_code, error, attributes, bytes, created_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let (code, error) = record.error.clone().unzip();
        sqlx::query(query)
            .bind(tenant.as_str())
            .bind(store.as_str())
            .bind(&record.file)
            .bind(&record.document)
            .bind(record.status.as_str())
            .bind(code)
            .bind(error)
            .bind(Value::Object(record.attributes.clone()).to_string())
            .bind(i64::try_from(record.bytes).unwrap_or(i64::MAX))
            .bind(record.created_at)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// One file of a store.
    pub async fn store_file(&self, tenant: &Tenant, store: &Collection, file: &str) -> Result<Option<StoreFileRecord>, Error> {
        let query = sqlx::query("SELECT * FROM vector_store_files WHERE tenant = ? AND store = ? AND file = ?");
        let row = query.bind(tenant.as_str()).bind(store.as_str()).bind(file).fetch_optional(&self.pool).await;
        row.map_err(|e| self.failed(e))?.map(|row| self.store_file_of(&row)).transpose()
    }

    /// A page of a store's files, in one state or in all.
    pub async fn store_files(
        &self,
        tenant: &Tenant,
        store: &Collection,
        status: Option<&str>,
        page: Page<'_>,
    ) -> Result<Vec<StoreFileRecord>, Error> {
        let query = format!(
            "SELECT * FROM vector_store_files WHERE tenant = ? AND store = ? AND (? IS NULL OR status = ?) AND {}",
            page.clause("file")
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(tenant.as_str()).bind(store.as_str()).bind(status).bind(status);
        let query = query.bind(page.after).bind(page.after).bind(page.limit);
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(|row| self.store_file_of(row)).collect()
    }

    /// The stores that a file is in.
    pub async fn stores_of_file(&self, tenant: &Tenant, file: &str) -> Result<Vec<Collection>, Error> {
        let query =
            sqlx::query_scalar("SELECT store FROM vector_store_files WHERE tenant = ? AND file = ?").bind(tenant.as_str()).bind(file);
        let names: Vec<String> = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        names.into_iter().map(|name| Collection::new(name).map_err(|e| self.broken(&e))).collect()
    }

    /// Takes a file out of a store; false if it was not in it. The caller removes its document.
    pub async fn delete_store_file(&self, tenant: &Tenant, store: &Collection, file: &str) -> Result<bool, Error> {
        let query = sqlx::query("DELETE FROM vector_store_files WHERE tenant = ? AND store = ? AND file = ?");
        let done = query.bind(tenant.as_str()).bind(store.as_str()).bind(file).execute(&self.pool).await;
        done.map(|done| done.rows_affected() > 0).map_err(|e| self.failed(e))
    }

    /// Files in each state, and the bytes of those that can be found.
    pub async fn store_counts(&self, tenant: &Tenant, store: &Collection) -> Result<(Vec<(StoreFileStatus, u64)>, u64), Error> {
        let query =
            "SELECT status, count(*) AS files, sum(bytes) AS bytes FROM vector_store_files WHERE tenant = ? AND store = ? GROUP BY status";
        let rows = sqlx::query(query).bind(tenant.as_str()).bind(store.as_str()).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let (mut counts, mut usage) = (Vec::new(), 0);
        for row in &rows {
            let number = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs).map_err(|e| self.failed(e));
            let status = self.status_of(row)?;
            counts.push((status, number("files")?));
            if status == StoreFileStatus::Completed {
                usage = number("bytes")?;
            }
        }
        Ok((counts, usage))
    }

    /// At the start of a server nothing is being read: what was, was cut off.
    pub async fn fail_unfinished_store_files(&self) -> Result<(), Error> {
        let query = "UPDATE vector_store_files SET status = 'failed', error_code = 'server_error', error = 'the server stopped while it read this file; attach it again'
            WHERE status = 'in_progress'";
        sqlx::query(query).execute(&self.pool).await.map(|_| ()).map_err(|e| self.failed(e))
    }

    fn map_of(&self, row: &SqliteRow, column: &str) -> Result<Map<String, Value>, Error> {
        let text: String = row.try_get(column).map_err(|e| self.failed(e))?;
        serde_json::from_str(&text).map_err(|e| self.broken(&e))
    }

    fn status_of(&self, row: &SqliteRow) -> Result<StoreFileStatus, Error> {
        let word: String = row.try_get("status").map_err(|e| self.failed(e))?;
        serde_json::from_value(Value::String(word)).map_err(|e| self.broken(&e))
    }

    fn store_of(&self, row: &SqliteRow) -> Result<StoreRecord, Error> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed(e));
        let time = |column: &str| row.try_get::<i64, _>(column).map_err(|e| self.failed(e));
        Ok(StoreRecord {
            collection: Collection::new(text("id")?).map_err(|e| self.broken(&e))?,
            name: text("name")?,
            metadata: self.map_of(row, "metadata")?,
            created_at: time("created_at")?,
            last_active_at: time("last_active_at")?,
        })
    }

    fn store_file_of(&self, row: &SqliteRow) -> Result<StoreFileRecord, Error> {
        let text = |column: &str| row.try_get::<Option<String>, _>(column).map_err(|e| self.failed(e));
        Ok(StoreFileRecord {
            file: text("file")?.unwrap_or_default(),
            document: text("document")?.unwrap_or_default(),
            status: self.status_of(row)?,
            error: text("error_code")?.zip(text("error")?),
            attributes: self.map_of(row, "attributes")?,
            bytes: row.try_get::<i64, _>("bytes").map_err(|e| self.failed(e))?.unsigned_abs(),
            created_at: row.try_get("created_at").map_err(|e| self.failed(e))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    #[tokio::test]
    async fn stores_and_their_files_are_remembered_by_their_tenant() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (tenant, other, id) = (Tenant::default(), Tenant::new("other").unwrap(), Collection::new("vs_1").unwrap());
        let mut store = StoreRecord { collection: id.clone(), name: "a".into(), metadata: Map::new(), created_at: 1, last_active_at: 1 };
        catalog.put_store(&tenant, &store).await.unwrap();
        store.name = "b".into();
        store.metadata.insert("k".into(), "v".into());
        catalog.put_store(&tenant, &store).await.unwrap();
        let page = Page { after: None, limit: 10, ascending: true };
        assert_eq!(catalog.stores(&tenant, page).await.unwrap(), std::slice::from_ref(&store));
        assert_eq!(catalog.store(&other, &id).await.unwrap(), None);
        let mut file = StoreFileRecord {
            file: "file-1".into(),
            document: "file-1/a.md".into(),
            status: StoreFileStatus::InProgress,
            error: None,
            attributes: Map::new(),
            bytes: 7,
            created_at: 2,
        };
        catalog.put_store_file(&tenant, &id, &file).await.unwrap();
        catalog.fail_unfinished_store_files().await.unwrap();
        let failed = catalog.store_file(&tenant, &id, "file-1").await.unwrap().unwrap();
        assert_eq!((failed.status, failed.error.unwrap().0.as_str()), (StoreFileStatus::Failed, "server_error"));
        file.status = StoreFileStatus::Completed;
        catalog.put_store_file(&tenant, &id, &file).await.unwrap();
        assert_eq!(catalog.store_counts(&tenant, &id).await.unwrap(), (vec![(StoreFileStatus::Completed, 1)], 7));
        assert_eq!(catalog.store_files(&tenant, &id, Some("completed"), page).await.unwrap(), std::slice::from_ref(&file));
        assert!(catalog.store_files(&tenant, &id, Some("failed"), page).await.unwrap().is_empty());
        assert_eq!(catalog.stores_of_file(&tenant, "file-1").await.unwrap(), std::slice::from_ref(&id));
        assert!(!catalog.delete_store(&other, &id).await.unwrap());
        assert!(catalog.delete_store(&tenant, &id).await.unwrap());
        assert_eq!(catalog.store_file(&tenant, &id, "file-1").await.unwrap(), None);
    }
}
