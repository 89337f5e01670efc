use crate::{DataDirectory, Error};
use groundtone_types::{Collection, ContentHash, DocumentId, Tenant};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// The schema, one statement each; `user_version` says how many of the steps a database has seen.
const STEPS: &[&[&str]] = &[&[
    "CREATE TABLE collections (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, dimensions INTEGER NOT NULL, created_at INTEGER NOT NULL) STRICT",
    "CREATE TABLE documents (tenant TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL, content_hash TEXT NOT NULL, settings_fingerprint TEXT NOT NULL,
        title TEXT NOT NULL, url TEXT NOT NULL, point_ids TEXT NOT NULL, indexed_at INTEGER NOT NULL, PRIMARY KEY (tenant, collection, id)) STRICT",
    "CREATE TABLE pending_removals (tenant TEXT NOT NULL, collection TEXT NOT NULL, point_id TEXT NOT NULL, PRIMARY KEY (tenant, collection, point_id)) STRICT",
    "CREATE TABLE runs (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, collection TEXT NOT NULL, started_at INTEGER NOT NULL, finished_at INTEGER, report TEXT) STRICT",
]];

/// What a collection's vectors come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionRecord {
    /// Its name.
    pub name: Collection,
    /// Embedder and BM25 settings.
    pub fingerprint: String,
    /// Length of the dense vectors.
    pub dimensions: usize,
    /// Unix seconds.
    pub created_at: i64,
}

/// A document as it is published: the row says which points are its current version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// Its id.
    pub id: DocumentId,
    /// Of the file's bytes.
    pub content_hash: ContentHash,
    /// How it was cut.
    pub settings_fingerprint: String,
    /// Its title.
    pub title: String,
    /// Where a reader finds it.
    pub url: String,
    /// Its points, in the order of its chunks.
    pub point_ids: Vec<Uuid>,
    /// Unix seconds.
    pub indexed_at: i64,
}

/// A run of ingest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id, ascending in time.
    pub id: Uuid,
    /// Unix seconds.
    pub started_at: i64,
    /// Unix seconds; `None` for a run that was interrupted or still goes on.
    pub finished_at: Option<i64>,
    /// The report as JSON.
    pub report: Option<String>,
}

/// The database. Every call about documents names its tenant.
#[derive(Debug)]
pub struct Catalog {
    pool: SqlitePool,
    path: PathBuf,
}

impl Catalog {
    /// Opens the catalog of a data directory and brings its schema up to date. Commits are durable (WAL, `synchronous=FULL`).
    pub async fn open(directory: &DataDirectory) -> Result<Self, Error> {
        let path = directory.catalog_file();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .map_err(|source| Error::Database { path: path.clone(), source })?;
        let catalog = Self { pool, path };
        catalog.migrate().await?;
        Ok(catalog)
    }

    /// Closes the database; what was committed is on disk already.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    fn failed(&self, source: sqlx::Error) -> Error {
        Error::Database { path: self.path.clone(), source }
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Row { path: self.path.clone(), reason: error.to_string() }
    }

    async fn migrate(&self) -> Result<(), Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await.map_err(|e| self.failed(e))?;
        for statement in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)).copied().flatten() {
            sqlx::query(*statement).execute(&mut *transaction).await.map_err(|e| self.failed(e))?;
        }
        if version == 0 {
            sqlx::query("PRAGMA user_version = 1").execute(&mut *transaction).await.map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// What a collection's vectors come from; `None` if there is no such collection.
    pub async fn collection(&self, name: &Collection) -> Result<Option<CollectionRecord>, Error> {
        let row = sqlx::query("SELECT fingerprint, dimensions, created_at FROM collections WHERE name = ?").bind(name.as_str());
        let Some(row) = row.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))? else { return Ok(None) };
        let read = || -> Result<CollectionRecord, sqlx::Error> {
            let dimensions = usize::try_from(row.try_get::<i64, _>("dimensions")?).unwrap_or_default();
            Ok(CollectionRecord {
                name: name.clone(),
                fingerprint: row.try_get("fingerprint")?,
                dimensions,
                created_at: row.try_get("created_at")?,
            })
        };
        read().map(Some).map_err(|e| self.failed(e))
    }

    /// Notes what a collection's vectors come from.
    pub async fn put_collection(&self, record: &CollectionRecord) -> Result<(), Error> {
        sqlx::query("INSERT OR REPLACE INTO collections (name, fingerprint, dimensions, created_at) VALUES (?, ?, ?, ?)")
            .bind(record.name.as_str())
            .bind(&record.fingerprint)
            .bind(i64::try_from(record.dimensions).unwrap_or(i64::MAX))
            .bind(record.created_at)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Forgets a collection with the documents of every tenant; the caller removes it from the index.
    pub async fn clear_collection(&self, name: &Collection) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await.map_err(|e| self.failed(e))?;
        for statement in [
            "DELETE FROM documents WHERE collection = ?",
            "DELETE FROM pending_removals WHERE collection = ?",
            "DELETE FROM collections WHERE name = ?",
        ] {
            sqlx::query(statement).bind(name.as_str()).execute(&mut *transaction).await.map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// All published documents, in the order of their ids.
    pub async fn documents(&self, tenant: &Tenant, collection: &Collection) -> Result<Vec<DocumentRecord>, Error> {
        let query = sqlx::query("SELECT * FROM documents WHERE tenant = ? AND collection = ? ORDER BY id")
            .bind(tenant.as_str())
            .bind(collection.as_str());
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.document_of(row)).collect()
    }

    fn document_of(&self, row: &SqliteRow) -> Result<DocumentRecord, Error> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed(e));
        Ok(DocumentRecord {
            id: DocumentId::new(text("id")?).map_err(|e| self.broken(&e))?,
            content_hash: ContentHash::from_stored(text("content_hash")?),
            settings_fingerprint: text("settings_fingerprint")?,
            title: text("title")?,
            url: text("url")?,
            point_ids: serde_json::from_str(&text("point_ids")?).map_err(|e| self.broken(&e))?,
            indexed_at: row.try_get("indexed_at").map_err(|e| self.failed(e))?,
        })
    }

    /// Publishes a document's new version. In the same transaction, the points that only the old version had are noted as pending removals; they are returned.
    pub async fn flip_document(&self, tenant: &Tenant, collection: &Collection, record: &DocumentRecord) -> Result<Vec<Uuid>, Error> {
        self.replace(tenant, collection, &record.id, Some(record)).await
    }

    /// Unpublishes a document; its points are noted as pending removals and returned.
    pub async fn remove_document(&self, tenant: &Tenant, collection: &Collection, id: &DocumentId) -> Result<Vec<Uuid>, Error> {
        self.replace(tenant, collection, id, None).await
    }

    async fn replace(
        &self,
        tenant: &Tenant,
        collection: &Collection,
        id: &DocumentId,
        record: Option<&DocumentRecord>,
    ) -> Result<Vec<Uuid>, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let old: Option<String> = sqlx::query_scalar("SELECT point_ids FROM documents WHERE tenant = ? AND collection = ? AND id = ?")
            .bind(tenant.as_str())
            .bind(collection.as_str())
            .bind(id.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|e| self.failed(e))?;
        let old: Vec<Uuid> = old.map_or(Ok(Vec::new()), |json| serde_json::from_str(&json)).map_err(|e| self.broken(&e))?;
        let current: HashSet<Uuid> = record.iter().flat_map(|record| record.point_ids.iter().copied()).collect();
        let gone: Vec<Uuid> = old.into_iter().filter(|id| !current.contains(id)).collect();
        sqlx::query("DELETE FROM documents WHERE tenant = ? AND collection = ? AND id = ?")
            .bind(tenant.as_str())
            .bind(collection.as_str())
            .bind(id.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.failed(e))?;
        if let Some(record) = record {
            let points = serde_json::to_string(&record.point_ids).map_err(|e| self.broken(&e))?;
            sqlx::query("INSERT INTO documents (tenant, collection, id, content_hash, settings_fingerprint, title, url, point_ids, indexed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
                .bind(tenant.as_str())
                .bind(collection.as_str())
                .bind(record.id.as_str())
                .bind(record.content_hash.as_str())
                .bind(&record.settings_fingerprint)
                .bind(&record.title)
                .bind(&record.url)
                .bind(points)
                .bind(record.indexed_at)
                .execute(&mut *transaction)
                .await
                .map_err(|e| self.failed(e))?;
        }
        for point in &gone {
            sqlx::query("INSERT OR IGNORE INTO pending_removals (tenant, collection, point_id) VALUES (?, ?, ?)")
                .bind(tenant.as_str())
                .bind(collection.as_str())
                .bind(point.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(gone)
    }

    /// Points that no document has any more and that the index may still hold. A point that a document has got back in the meantime is not among them.
    pub async fn pending_removals(&self, tenant: &Tenant, collection: &Collection) -> Result<Vec<Uuid>, Error> {
        let query = sqlx::query_scalar("SELECT point_id FROM pending_removals WHERE tenant = ? AND collection = ?")
            .bind(tenant.as_str())
            .bind(collection.as_str());
        let rows: Vec<String> = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let live: HashSet<Uuid> = self.documents(tenant, collection).await?.into_iter().flat_map(|document| document.point_ids).collect();
        let ids: Vec<Uuid> = rows.iter().map(|text| text.parse()).collect::<Result<_, uuid::Error>>().map_err(|e| self.broken(&e))?;
        Ok(ids.into_iter().filter(|id| !live.contains(id)).collect())
    }

    /// The index holds these points no more.
    pub async fn removed(&self, tenant: &Tenant, collection: &Collection, points: &[Uuid]) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await.map_err(|e| self.failed(e))?;
        for point in points {
            sqlx::query("DELETE FROM pending_removals WHERE tenant = ? AND collection = ? AND point_id = ?")
                .bind(tenant.as_str())
                .bind(collection.as_str())
                .bind(point.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// Notes that a run has begun.
    pub async fn start_run(&self, tenant: &Tenant, collection: &Collection, id: Uuid, now: i64) -> Result<(), Error> {
        sqlx::query("INSERT INTO runs (id, tenant, collection, started_at) VALUES (?, ?, ?, ?)")
            .bind(id.to_string())
            .bind(tenant.as_str())
            .bind(collection.as_str())
            .bind(now)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
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
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// The latest runs, newest first.
    pub async fn runs(&self, tenant: &Tenant, limit: u32) -> Result<Vec<RunRecord>, Error> {
        let query = sqlx::query("SELECT id, started_at, finished_at, report FROM runs WHERE tenant = ? ORDER BY id DESC LIMIT ?")
            .bind(tenant.as_str())
            .bind(limit);
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let read = |row: &SqliteRow| -> Result<RunRecord, Error> {
            let id: String = row.try_get("id").map_err(|e| self.failed(e))?;
            Ok(RunRecord {
                id: id.parse().map_err(|e: uuid::Error| self.broken(&e))?,
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

    fn record(id: &str, points: &[u128]) -> DocumentRecord {
        DocumentRecord {
            id: DocumentId::new(id).unwrap(),
            content_hash: ContentHash::of(id.as_bytes()),
            settings_fingerprint: "s".into(),
            title: "Ä title".into(),
            url: "file:///x".into(),
            point_ids: points.iter().map(|&n| Uuid::from_u128(n)).collect(),
            indexed_at: 7,
        }
    }

    fn names() -> (Tenant, Tenant, Collection) {
        (Tenant::default(), Tenant::new("other").unwrap(), Collection::new("c").unwrap())
    }

    #[tokio::test]
    async fn a_flip_publishes_the_new_version_and_remembers_what_must_go_even_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let (tenant, other, collection) = names();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        let catalog = Catalog::open(&directory).await.unwrap();
        assert_eq!(catalog.flip_document(&tenant, &collection, &record("a", &[1, 2])).await.unwrap(), Vec::<Uuid>::new());
        assert_eq!(catalog.flip_document(&other, &collection, &record("a", &[1, 2])).await.unwrap(), Vec::<Uuid>::new());
        let gone = catalog.flip_document(&tenant, &collection, &record("a", &[2, 3])).await.unwrap();
        assert_eq!(gone, [Uuid::from_u128(1)]);
        drop(catalog);
        let catalog = Catalog::open(&directory).await.unwrap();
        assert_eq!(catalog.documents(&tenant, &collection).await.unwrap(), [record("a", &[2, 3])]);
        assert_eq!(catalog.documents(&other, &collection).await.unwrap(), [record("a", &[1, 2])]);
        assert_eq!(catalog.pending_removals(&tenant, &collection).await.unwrap(), gone);
        assert_eq!(catalog.pending_removals(&other, &collection).await.unwrap(), Vec::<Uuid>::new());
        catalog.flip_document(&tenant, &collection, &record("a", &[1, 2])).await.unwrap();
        assert_eq!(catalog.pending_removals(&tenant, &collection).await.unwrap(), [Uuid::from_u128(3)], "a point that came back stays");
        catalog.removed(&tenant, &collection, &[Uuid::from_u128(3)]).await.unwrap();
        assert_eq!(catalog.pending_removals(&tenant, &collection).await.unwrap(), Vec::<Uuid>::new());
        let gone = catalog.remove_document(&tenant, &collection, &DocumentId::new("a").unwrap()).await.unwrap();
        assert_eq!(gone.len(), 2);
        assert_eq!(catalog.documents(&tenant, &collection).await.unwrap(), Vec::<DocumentRecord>::new());
        assert_eq!(catalog.documents(&other, &collection).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn runs_and_collections_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let (tenant, other, collection) = names();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let collection_record = CollectionRecord { name: collection.clone(), fingerprint: "minilm".into(), dimensions: 384, created_at: 5 };
        assert_eq!(catalog.collection(&collection).await.unwrap(), None);
        catalog.put_collection(&collection_record).await.unwrap();
        assert_eq!(catalog.collection(&collection).await.unwrap(), Some(collection_record));
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        catalog.start_run(&tenant, &collection, first, 10).await.unwrap();
        catalog.start_run(&tenant, &collection, second, 11).await.unwrap();
        catalog.finish_run(&other, first, "{}", 12).await.unwrap();
        catalog.finish_run(&tenant, second, "{}", 12).await.unwrap();
        let runs: Vec<_> = catalog.runs(&tenant, 10).await.unwrap().into_iter().map(|run| (run.id, run.finished_at)).collect();
        assert_eq!(runs, [(second, Some(12)), (first, None)], "another tenant cannot finish a run");
        catalog.clear_collection(&collection).await.unwrap();
        assert_eq!(catalog.collection(&collection).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        std::fs::write(directory.catalog_file(), "not a database, but long enough to be looked at as one".repeat(50)).unwrap();
        let error = Catalog::open(&directory).await.unwrap_err().to_string();
        assert!(error.contains("catalog.sqlite") && error.contains("not a database"), "{error}");
    }
}
