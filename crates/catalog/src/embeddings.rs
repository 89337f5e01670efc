//! Vectors that were computed before, by model and text. A cache: losing it costs time, nothing else.

use crate::ledger::open_database;
use crate::{DataDirectory, Error};
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteSynchronous};
use std::collections::HashMap;
use std::path::PathBuf;

/// Hashes in one query; SQLite takes 32,766 parameters.
const KEYS: usize = 500;
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS vectors (key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL) STRICT";

/// SHA-256 of a model's name and a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EmbeddingKey([u8; 32]);

impl EmbeddingKey {
    /// The key of `text` as `model` embeds it.
    pub fn of(model: &str, text: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update((model.len() as u64).to_le_bytes());
        digest.update(model.as_bytes());
        digest.update(text.as_bytes());
        Self(digest.finalize().into())
    }
}

/// A file beside the catalog, held to a size by forgetting what was stored first.
#[derive(Debug)]
pub struct EmbeddingCache {
    pool: SqlitePool,
    path: PathBuf,
    max_bytes: u64,
}

impl EmbeddingCache {
    /// Opens the cache of a data directory; `max_bytes` of vectors are kept.
    pub async fn open(directory: &DataDirectory, max_bytes: u64) -> Result<Self, Error> {
        let path = directory.path().join("embeddings.sqlite");
        // A cache need not be durable at once; what a power failure takes is computed again.
        let pool = open_database(&path, SqliteSynchronous::Normal).await?;
        let cache = Self { pool, path, max_bytes };
        sqlx::query(SCHEMA).execute(&cache.pool).await.map_err(|e| cache.failed(e))?;
        Ok(cache)
    }

    fn failed(&self, source: sqlx::Error) -> Error {
        Error::Database { path: self.path.clone(), source }
    }

    /// The vectors that are known, of those that are asked for.
    pub async fn get(&self, keys: &[EmbeddingKey]) -> Result<HashMap<EmbeddingKey, Vec<f32>>, Error> {
        let mut known = HashMap::new();
        for part in keys.chunks(KEYS) {
            let mut builder = sqlx::QueryBuilder::new("SELECT key, vector FROM vectors WHERE key IN (");
            let mut list = builder.separated(", ");
            part.iter().for_each(|key| {
                list.push_bind(key.0.to_vec());
            });
            builder.push(")");
            for row in builder.build().fetch_all(&self.pool).await.map_err(|e| self.failed(e))? {
                let key: Vec<u8> = row.try_get("key").map_err(|e| self.failed(e))?;
                let bytes: Vec<u8> = row.try_get("vector").map_err(|e| self.failed(e))?;
                let key = <[u8; 32]>::try_from(key)
                    .map_err(|_| Error::Row { path: self.path.clone(), reason: "a key is not 32 bytes long".to_owned() })?;
                let vector = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                known.insert(EmbeddingKey(key), vector);
            }
        }
        Ok(known)
    }

    /// Remembers vectors, in one transaction.
    pub async fn put(&self, entries: &[(EmbeddingKey, &[f32])]) -> Result<(), Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        for (key, vector) in entries {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            sqlx::query("INSERT OR IGNORE INTO vectors (key, vector) VALUES (?, ?)")
                .bind(key.0.to_vec())
                .bind(bytes)
                .execute(&mut *transaction)
                .await
                .map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// Forgets what was stored first until the rest fits; called at the end of a run.
    pub async fn trim(&self) -> Result<(), Error> {
        let (first, last): (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT min(rowid), max(rowid) FROM vectors").fetch_one(&self.pool).await.map_err(|e| self.failed(e))?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
        let size: Option<i64> = sqlx::query_scalar("SELECT length(vector) FROM vectors WHERE rowid = ?")
            .bind(last)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let fits = i64::try_from(self.max_bytes).unwrap_or(i64::MAX) / size.unwrap_or(1).max(1);
        if last - first < fits {
            return Ok(());
        }
        sqlx::query("DELETE FROM vectors WHERE rowid <= ?")
            .bind(last - fits)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn vectors_come_back_bit_for_bit_and_the_oldest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        let cache = EmbeddingCache::open(&directory, 12 * 600).await.unwrap();
        let keys: Vec<EmbeddingKey> = (0..1_200).map(|n| EmbeddingKey::of("m", &format!("text {n}"))).collect();
        let vectors: Vec<[f32; 3]> = (0..1_200).map(|n| [n as f32, f32::MIN_POSITIVE, -0.1]).collect();
        let entries: Vec<(EmbeddingKey, &[f32])> = keys.iter().copied().zip(vectors.iter().map(<[f32; 3]>::as_slice)).collect();
        cache.put(&entries).await.unwrap();
        cache.put(&entries[..3]).await.unwrap();
        let known = cache.get(&keys).await.unwrap();
        assert!(keys.iter().zip(&vectors).all(|(key, vector)| known[key] == vector), "{}", known.len());
        assert!(cache.get(&[EmbeddingKey::of("other", "text 1")]).await.unwrap().is_empty());
        cache.trim().await.unwrap();
        let known = cache.get(&keys).await.unwrap();
        assert_eq!(known.len(), 600);
        assert!(known.contains_key(&keys[1_199]) && !known.contains_key(&keys[0]));
        cache.trim().await.unwrap();
        assert_eq!(cache.get(&keys).await.unwrap().len(), 600);
    }
}
