//! Files that clients upload: the bytes below `files/` in the data directory, under names of our own; what is known of them in the catalog.

use crate::{Catalog, DataDirectory, Error};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// `file-` and a UUIDv7, so ids ascend in time.
    pub id: String,
    /// What the client calls it; never used as a path.
    pub filename: String,
    /// What it is for: `assistants`, `user_data`, ...
    pub purpose: String,
    /// Its length.
    pub bytes: u64,
    /// Of its content, in hexadecimal.
    pub sha256: String,
    /// Unix seconds.
    pub created_at: i64,
}

/// Which part of a list is wanted. Ids ascend in time, so they are the order and the cursor.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// Begin behind this id.
    pub after: Option<&'a str>,
    /// Most rows.
    pub limit: u32,
    /// Oldest first; else newest first.
    pub ascending: bool,
}

impl Page<'_> {
    /// Condition and order of a query whose last two parameters are the cursor and the limit. Every part is a constant.
    pub(crate) fn clause(&self, column: &'static str) -> String {
        let (compare, order) = if self.ascending { (">", "ASC") } else { ("<", "DESC") };
        format!("(? IS NULL OR {column} {compare} ?) ORDER BY {column} {order} LIMIT ?")
    }
}

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// Bytes of all files of a tenant.
    pub quota_bytes: u64,
    /// Files of a tenant.
    pub most_files: u64,
}

/// What an upload brings.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// What the client calls it.
    pub filename: String,
    /// What it is for.
    pub purpose: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Keeps uploaded files. A file is complete on disk before its row is there, and its row goes before the file does: what a crash leaves over is a file that nobody knows,
/// and the next start removes it.
#[derive(Debug)]
pub struct FileStore {
    root: PathBuf,
    catalog: Arc<Catalog>,
    limits: FileLimits,
    /// One upload at a time checks the quota.
    turn: tokio::sync::Mutex<()>,
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::File { path: path.to_owned(), reason: error.to_string() }
}

async fn blocking<T: Send + 'static>(path: &Path, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?
}

impl FileStore {
    /// Opens the files of a data directory, and removes what an interrupted upload or deletion left there.
    pub async fn open(directory: &DataDirectory, catalog: Arc<Catalog>, limits: FileLimits) -> Result<Self, Error> {
        let store = Self { root: directory.path().join("files"), catalog, limits, turn: tokio::sync::Mutex::default() };
        store.sweep().await?;
        Ok(store)
    }

    /// Keeps a file. [`Error::Full`] where the tenant's quota has no room for it.
    pub async fn add(&self, tenant: &Tenant, new: NewFile, now: i64) -> Result<FileRecord, Error> {
        let _turn = self.turn.lock().await;
        let (files, bytes) = self.catalog.file_totals(tenant).await?;
        let length = new.bytes.len() as u64;
        if files >= self.limits.most_files || bytes.saturating_add(length) > self.limits.quota_bytes {
            return Err(Error::Full { files, bytes, most_files: self.limits.most_files, quota_bytes: self.limits.quota_bytes });
        }
        let id = format!("file-{}", Uuid::now_v7().simple());
        let (folder, path) = (self.root.join(tenant.as_str()), self.path(tenant, &id));
        let content = new.bytes;
        let sha256 = blocking(&self.root, move || {
            fs::create_dir_all(&folder).map_err(file_error(&folder))?;
            let write = || -> std::io::Result<()> {
                let mut file = fs::File::create_new(&path)?;
                file.write_all(&content)?;
                file.sync_all()?;
                fs::File::open(&folder)?.sync_all()
            };
            write().map_err(file_error(&path))?;
            Ok(Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        })
        .await?;
        let record = FileRecord { id, filename: new.filename, purpose: new.purpose, bytes: length, sha256, created_at: now };
        self.catalog.put_file(tenant, &record).await?;
        Ok(record)
    }

    /// A file's content; `None` if there is no such file.
    pub async fn read(&self, tenant: &Tenant, id: &str) -> Result<Option<(FileRecord, Vec<u8>)>, Error> {
        // Only an id that the catalog knows becomes a path.
        let Some(record) = self.catalog.file(tenant, id).await? else { return Ok(None) };
        let path = self.path(tenant, &record.id);
        let content = blocking(&self.root, move || fs::read(&path).map_err(file_error(&path))).await?;
        Ok(Some((record, content)))
    }

    /// Removes a file; false if there was none.
    pub async fn remove(&self, tenant: &Tenant, id: &str) -> Result<bool, Error> {
        if !self.catalog.delete_file(tenant, id).await? {
            return Ok(false);
        }
        let path = self.path(tenant, id);
        blocking(&self.root, move || match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error(&path)(error)),
            _ => Ok(true),
        })
        .await
    }

    fn path(&self, tenant: &Tenant, id: &str) -> PathBuf {
        self.root.join(tenant.as_str()).join(id)
    }

    async fn sweep(&self) -> Result<(), Error> {
        let known: Vec<(String, String)> = self.catalog.all_files().await?;
        let root = self.root.clone();
        blocking(&self.root, move || {
            let list = |folder: &Path| -> Result<Vec<PathBuf>, Error> {
                match fs::read_dir(folder) {
                    Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path()).map_err(file_error(folder))).collect(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
                    Err(error) => Err(file_error(folder)(error)),
                }
            };
            for folder in list(&root)?.into_iter().filter(|path| path.is_dir()) {
                for file in list(&folder)? {
                    let is_known = known.iter().any(|(tenant, id)| root.join(tenant).join(id) == file);
                    if !is_known {
                        fs::remove_file(&file).map_err(file_error(&file))?;
                    }
                }
            }
            Ok(())
        })
        .await
    }
}

impl Catalog {
    async fn put_file(&self, tenant: &Tenant, record: &FileRecord) -> Result<(), Error> {
        sqlx::query("INSERT INTO files (tenant, id, filename, purpose, bytes, sha256, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(&record.id)
            .bind(&record.filename)
            .bind(&record.purpose)
            .bind(i64::try_from(record.bytes).unwrap_or(i64::MAX))
            .bind(&record.sha256)
            .bind(record.created_at)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    async fn delete_file(&self, tenant: &Tenant, id: &str) -> Result<bool, Error> {
        let query = sqlx::query("DELETE FROM files WHERE tenant = ? AND id = ?").bind(tenant.as_str()).bind(id);
        query.execute(&self.pool).await.map(|done| done.rows_affected() > 0).map_err(|e| self.failed(e))
    }

    async fn file_totals(&self, tenant: &Tenant) -> Result<(u64, u64), Error> {
        let query =
            sqlx::query("SELECT count(*) AS files, coalesce(sum(bytes), 0) AS bytes FROM files WHERE tenant = ?").bind(tenant.as_str());
        let row = query.fetch_one(&self.pool).await.map_err(|e| self.failed(e))?;
        let number = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs).map_err(|e| self.failed(e));
        Ok((number("files")?, number("bytes")?))
    }

    async fn all_files(&self) -> Result<Vec<(String, String)>, Error> {
        sqlx::query_as("SELECT tenant, id FROM files").fetch_all(&self.pool).await.map_err(|e| self.failed(e))
    }

    /// One uploaded file.
    pub async fn file(&self, tenant: &Tenant, id: &str) -> Result<Option<FileRecord>, Error> {
        let query = sqlx::query("SELECT * FROM files WHERE tenant = ? AND id = ?").bind(tenant.as_str()).bind(id);
        query.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?.map(|row| self.file_of(&row)).transpose()
    }

    /// A page of uploaded files, of one purpose or of all.
    pub async fn files(&self, tenant: &Tenant, purpose: Option<&str>, page: Page<'_>) -> Result<Vec<FileRecord>, Error> {
        let query = format!("SELECT * FROM files WHERE tenant = ? AND (? IS NULL OR purpose = ?) AND {}", page.clause("id"));
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(tenant.as_str()).bind(purpose).bind(purpose);
        let query = query.bind(page.after).bind(page.after).bind(page.limit);
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(|row| self.file_of(row)).collect()
    }

    fn file_of(&self, row: &SqliteRow) -> Result<FileRecord, Error> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed(e));
        Ok(FileRecord {
            id: text("id")?,
            filename: text("filename")?,
            purpose: text("purpose")?,
            bytes: row.try_get::<i64, _>("bytes").map_err(|e| self.failed(e))?.unsigned_abs(),
            sha256: text("sha256")?,
            created_at: row.try_get("created_at").map_err(|e| self.failed(e))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FileLimits = FileLimits { quota_bytes: 10, most_files: 3 };

    fn new(filename: &str, bytes: &[u8]) -> NewFile {
        NewFile { filename: filename.into(), purpose: "assistants".into(), bytes: bytes.to_vec() }
    }

    #[tokio::test]
    async fn files_belong_to_their_tenant_and_keep_to_the_quota() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        let catalog = Arc::new(Catalog::open(&directory).await.unwrap());
        let store = FileStore::open(&directory, catalog.clone(), LIMITS).await.unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        let first = store.add(&tenant, new("../../etc/passwd", b"1234"), 5).await.unwrap();
        let second = store.add(&tenant, new("b.md", b"123456"), 6).await.unwrap();
        assert!(matches!(store.add(&tenant, new("c", b"1"), 7).await, Err(Error::Full { bytes: 10, .. })));
        store.add(&other, new("d", b"0123456789"), 8).await.unwrap();
        assert_eq!(store.read(&tenant, &first.id).await.unwrap().unwrap(), (first.clone(), b"1234".to_vec()));
        assert_eq!(store.read(&other, &first.id).await.unwrap(), None);
        assert_eq!(store.read(&tenant, "../catalog.sqlite").await.unwrap(), None);
        let ids = |page| {
            let (catalog, tenant) = (catalog.clone(), tenant.clone());
            async move { catalog.files(&tenant, Some("assistants"), page).await.unwrap().into_iter().map(|file| file.id).collect::<Vec<_>>() }
        };
        assert_eq!(ids(Page { after: None, limit: 9, ascending: true }).await, [first.id.clone(), second.id.clone()]);
        assert_eq!(ids(Page { after: None, limit: 1, ascending: false }).await, std::slice::from_ref(&second.id));
        assert_eq!(ids(Page { after: Some(&second.id), limit: 9, ascending: false }).await, std::slice::from_ref(&first.id));
        assert!(catalog.files(&tenant, Some("fine-tune"), Page { after: None, limit: 9, ascending: true }).await.unwrap().is_empty());
        assert!(!store.remove(&other, &first.id).await.unwrap());
        assert!(store.remove(&tenant, &first.id).await.unwrap());
        assert!(!store.path(&tenant, &first.id).exists());
    }

    #[tokio::test]
    async fn what_a_crash_left_over_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        let catalog = Arc::new(Catalog::open(&directory).await.unwrap());
        let store = FileStore::open(&directory, catalog.clone(), LIMITS).await.unwrap();
        let tenant = Tenant::default();
        let kept = store.add(&tenant, new("a", b"1"), 5).await.unwrap();
        let orphan = store.path(&tenant, "file-0123");
        fs::write(&orphan, "half").unwrap();
        let store = FileStore::open(&directory, catalog, LIMITS).await.unwrap();
        assert!(!orphan.exists() && store.read(&tenant, &kept.id).await.unwrap().is_some());
    }
}
