use crate::schema::STEPS;
use crate::{DataDirectory, Error};
use groundtone_types::Collection;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// When a run over it came to its end; `None` for one that is still being built, or was cut off.
    pub completed_at: Option<i64>,
}

/// The database. Every call about documents names its tenant.
#[derive(Debug)]
pub struct Catalog {
    pub(crate) pool: SqlitePool,
    path: PathBuf,
}

/// A SQLite file in write-ahead mode, made if it is not there.
pub(crate) async fn open_database(path: &Path, synchronous: SqliteSynchronous) -> Result<SqlitePool, Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(Duration::from_secs(10))
        .foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await;
    pool.map_err(|source| Error::Database { path: path.to_owned(), source })
}

impl Catalog {
    /// Opens the catalog of a data directory and brings its schema up to date. Commits are durable (WAL, `synchronous=FULL`).
    pub async fn open(directory: &DataDirectory) -> Result<Self, Error> {
        let path = directory.catalog_file();
        let pool = open_database(&path, SqliteSynchronous::Full).await?;
        let catalog = Self { pool, path };
        catalog.migrate().await?;
        Ok(catalog)
    }

    /// Closes the database; what was committed is on disk already.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn failed(&self, source: sqlx::Error) -> Error {
        Error::Database { path: self.path.clone(), source }
    }

    pub(crate) fn broken(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Row { path: self.path.clone(), reason: error.to_string() }
    }

    async fn migrate(&self) -> Result<(), Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await.map_err(|e| self.failed(e))?;
        let seen = usize::try_from(version).unwrap_or(0);
        if seen > STEPS.len() {
            return Err(
                self.broken(&format!("its schema has {seen} steps, but this version knows {}; use a newer groundtone", STEPS.len()))
            );
        }
        for (at, step) in STEPS.iter().enumerate().skip(seen) {
            for statement in *step {
                sqlx::query(*statement).execute(&mut *transaction).await.map_err(|e| self.failed(e))?;
            }
            sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", at + 1)))
                .execute(&mut *transaction)
                .await
                .map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// What a collection's vectors come from; `None` if there is no such collection.
    pub async fn collection(&self, name: &Collection) -> Result<Option<CollectionRecord>, Error> {
        let row =
            sqlx::query("SELECT fingerprint, dimensions, created_at, completed_at FROM collections WHERE name = ?").bind(name.as_str());
        let Some(row) = row.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))? else { return Ok(None) };
        let read = || -> Result<CollectionRecord, sqlx::Error> {
            let dimensions = usize::try_from(row.try_get::<i64, _>("dimensions")?).unwrap_or_default();
            Ok(CollectionRecord {
                name: name.clone(),
                fingerprint: row.try_get("fingerprint")?,
                dimensions,
                created_at: row.try_get("created_at")?,
                completed_at: row.try_get("completed_at")?,
            })
        };
        read().map(Some).map_err(|e| self.failed(e))
    }

    /// Notes what a collection's vectors come from.
    pub async fn put_collection(&self, record: &CollectionRecord) -> Result<(), Error> {
        sqlx::query("INSERT OR REPLACE INTO collections (name, fingerprint, dimensions, created_at, completed_at) VALUES (?, ?, ?, ?, ?)")
            .bind(record.name.as_str())
            .bind(&record.fingerprint)
            .bind(i64::try_from(record.dimensions).unwrap_or(i64::MAX))
            .bind(record.created_at)
            .bind(record.completed_at)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Notes that a run over a collection came to its end, the first time that one does.
    pub async fn complete_collection(&self, name: &Collection, now: i64) -> Result<(), Error> {
        let query =
            sqlx::query("UPDATE collections SET completed_at = ? WHERE name = ? AND completed_at IS NULL").bind(now).bind(name.as_str());
        query.execute(&self.pool).await.map(|_| ()).map_err(|e| self.failed(e))
    }

    /// Every generation of a collection that is known, in the order of their numbers.
    pub async fn generations(&self, collection: &Collection) -> Result<Vec<CollectionRecord>, Error> {
        let names: Vec<String> =
            sqlx::query_scalar("SELECT name FROM collections").fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let names = names.into_iter().map(|name| Collection::new(name).map_err(|e| self.broken(&e))).collect::<Result<Vec<_>, _>>()?;
        let mut found = Vec::new();
        for name in names.into_iter().filter(|name| name.base() == collection.base() && name.number().is_some()) {
            found.extend(self.collection(&name).await?);
        }
        found.sort_by_key(|record| record.name.number());
        Ok(found)
    }

    /// Notes that a collection stands for `target` from now on.
    pub async fn record_switch(&self, collection: &Collection, target: &Collection, now: i64) -> Result<(), Error> {
        let query = sqlx::query("INSERT INTO switches (collection, target, at) VALUES (?, ?, ?)").bind(collection.base().to_owned());
        query.bind(target.as_str()).bind(now).execute(&self.pool).await.map(|_| ()).map_err(|e| self.failed(e))
    }

    /// What a collection has stood for, latest first.
    pub async fn switches(&self, collection: &Collection) -> Result<Vec<Collection>, Error> {
        let query =
            sqlx::query_scalar("SELECT target FROM switches WHERE collection = ? ORDER BY id DESC").bind(collection.base().to_owned());
        let names: Vec<String> = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        names.into_iter().map(|name| Collection::new(name).map_err(|e| self.broken(&e))).collect()
    }

    /// Forgets a collection with the documents of every tenant; the caller removes it from the index.
    pub async fn clear_collection(&self, name: &Collection) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await.map_err(|e| self.failed(e))?;
        for statement in [
            "DELETE FROM documents WHERE collection = ?",
            "DELETE FROM points WHERE collection = ?",
            "DELETE FROM intents WHERE collection = ?",
            "DELETE FROM pending_removals WHERE collection = ?",
            "DELETE FROM collections WHERE name = ?",
        ] {
            sqlx::query(statement).bind(name.as_str()).execute(&mut *transaction).await.map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn collections_are_remembered_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let name = Collection::new("c").unwrap();
        let mut record =
            CollectionRecord { name: name.clone(), fingerprint: "minilm".into(), dimensions: 384, created_at: 5, completed_at: None };
        assert_eq!(catalog.collection(&name).await.unwrap(), None);
        catalog.put_collection(&record).await.unwrap();
        assert_eq!(catalog.collection(&name).await.unwrap(), Some(record.clone()));
        catalog.complete_collection(&name, 9).await.unwrap();
        record.completed_at = Some(9);
        assert_eq!(catalog.collection(&name).await.unwrap(), Some(record));
        catalog.clear_collection(&name).await.unwrap();
        assert_eq!(catalog.collection(&name).await.unwrap(), None);
        for number in [2, 10, 1] {
            let record = CollectionRecord {
                name: name.generation(number),
                fingerprint: "m".into(),
                dimensions: 3,
                created_at: 0,
                completed_at: None,
            };
            catalog.put_collection(&record).await.unwrap();
            catalog.record_switch(&name, &record.name, 7).await.unwrap();
        }
        let numbers: Vec<_> = catalog.generations(&name).await.unwrap().iter().filter_map(|record| record.name.number()).collect();
        assert_eq!(numbers, [1, 2, 10]);
        assert_eq!(catalog.switches(&name).await.unwrap(), [1, 10, 2].map(|number| name.generation(number)));
    }

    #[tokio::test]
    async fn the_schema_of_a_newer_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        let catalog = Catalog::open(&directory).await.unwrap();
        let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&catalog.pool).await.unwrap();
        assert_eq!(version, STEPS.len() as i64);
        sqlx::query("PRAGMA user_version = 99").execute(&catalog.pool).await.unwrap();
        catalog.close().await;
        let error = Catalog::open(&directory).await.unwrap_err().to_string();
        assert!(error.contains("its schema has 99 steps"), "{error}");
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
