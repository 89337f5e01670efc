//! The bytes of uploaded files, below `files/` in the data directory, under names of our own.

use crate::{Catalog, DataDirectory, Error, FileRecord};
use groundtone_types::Tenant;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// Bytes of all files of a tenant, those included that are just being received.
    pub quota_bytes: u64,
    /// Files of a tenant.
    pub most_files: u64,
}

/// What is known of a file beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// What the client calls it.
    pub filename: String,
    /// What it is for.
    pub purpose: String,
    /// Unix seconds; `None` for one that stays.
    pub expires_at: Option<i64>,
}

/// Keeps uploaded files. A file is complete on disk before its row is there, and its row goes before the file does: what a crash leaves over is a file that nobody knows,
/// and the next start removes it.
#[derive(Debug)]
pub struct FileStore {
    pub(crate) root: PathBuf,
    pub(crate) parts: PathBuf,
    pub(crate) catalog: Arc<Catalog>,
    limits: FileLimits,
    usage: Arc<Usage>,
}

/// What each tenant has on disk now: files and bytes, with what is just being received.
#[derive(Debug, Default)]
struct Usage(Mutex<HashMap<String, (u64, u64)>>);

impl Usage {
    fn change(&self, tenant: &Tenant, change: impl FnOnce(&mut (u64, u64)) -> Result<(), Error>) -> Result<(), Error> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(tenant.to_string()).or_default())
    }

    fn give_back(&self, tenant: &Tenant, files: u64, bytes: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = all.entry(tenant.to_string()).or_default();
        *used = (used.0.saturating_sub(files), used.1.saturating_sub(bytes));
    }
}

pub(crate) fn file_error(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::File { path: path.to_owned(), reason: error.to_string() }
}

async fn blocking<T: Send + 'static>(path: &Path, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?
}

/// Bytes on their way into the store. Dropping it removes them.
#[derive(Debug)]
pub struct Incoming {
    tenant: Tenant,
    path: PathBuf,
    file: Option<tokio::fs::File>,
    digest: Sha256,
    bytes: u64,
    limits: FileLimits,
    usage: Arc<Usage>,
    kept: bool,
}

impl Incoming {
    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Nothing has come yet.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes more bytes. [`Error::Full`] where the tenant's quota has no room for them.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let (more, limits) = (bytes.len() as u64, self.limits);
        self.usage.change(&self.tenant, |(files, used)| {
            if used.saturating_add(more) > limits.quota_bytes {
                let (files, bytes) = (*files, *used);
                return Err(Error::Full { files, bytes, most_files: limits.most_files, quota_bytes: limits.quota_bytes });
            }
            *used += more;
            Ok(())
        })?;
        self.bytes += more;
        self.digest.update(bytes);
        match &mut self.file {
            Some(file) => file.write_all(bytes).await.map_err(file_error(&self.path)),
            None => Err(Error::File { path: self.path.clone(), reason: "it is closed".to_owned() }),
        }
    }

    /// Brings everything to the disk under its last name. The bytes stay counted.
    pub(crate) async fn settle(mut self, to: &Path) -> Result<(u64, String), Error> {
        if let Some(mut file) = self.file.take() {
            let sync = async {
                file.flush().await?;
                file.sync_all().await
            };
            sync.await.map_err(file_error(&self.path))?;
        }
        let (from, to, folder) = (self.path.clone(), to.to_owned(), to.parent().map(Path::to_owned));
        blocking(&self.path, move || {
            fs::rename(&from, &to).map_err(file_error(&to))?;
            folder.map_or(Ok(()), |folder| fs::File::open(&folder).and_then(|folder| folder.sync_all())).map_err(file_error(&to))
        })
        .await?;
        self.kept = true;
        Ok((self.bytes, hex(&std::mem::take(&mut self.digest).finalize())))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.usage.give_back(&self.tenant, 0, self.bytes);
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the rest of an upload is removed at the next start");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FileStore {
    /// Opens the files of a data directory, and removes what an interrupted upload or deletion left there.
    pub async fn open(directory: &DataDirectory, catalog: Arc<Catalog>, limits: FileLimits) -> Result<Self, Error> {
        let usage = Arc::new(Usage(Mutex::new(catalog.stored_bytes().await?)));
        let (root, parts) = (directory.path().join("files"), directory.path().join("upload-parts"));
        let store = Self { root, parts, catalog, limits, usage };
        store.sweep().await?;
        Ok(store)
    }

    /// Begins to receive a file, or a part of one.
    pub async fn receive(&self, tenant: &Tenant) -> Result<Incoming, Error> {
        let folder = self.root.join(tenant.as_str());
        let path = folder.join(format!("incoming-{}", Uuid::now_v7().simple()));
        tokio::fs::create_dir_all(&folder).await.map_err(file_error(&folder))?;
        let file = Some(tokio::fs::File::create_new(&path).await.map_err(file_error(&path))?);
        let digest = Sha256::new();
        Ok(Incoming { tenant: tenant.clone(), path, file, digest, bytes: 0, limits: self.limits, usage: self.usage.clone(), kept: false })
    }

    /// Keeps what was received as a file. [`Error::Full`] where the tenant has too many.
    pub async fn keep(&self, incoming: Incoming, new: NewFile, now: i64) -> Result<FileRecord, Error> {
        let (tenant, limits) = (incoming.tenant.clone(), self.limits);
        self.usage.change(&tenant, |(files, used)| {
            if *files >= limits.most_files {
                let (files, bytes) = (*files, *used);
                return Err(Error::Full { files, bytes, most_files: limits.most_files, quota_bytes: limits.quota_bytes });
            }
            *files += 1;
            Ok(())
        })?;
        let id = format!("file-{}", Uuid::now_v7().simple());
        let length = incoming.bytes;
        let settled = self.settle_as(incoming, &tenant, &id, new, now).await;
        if settled.is_err() {
            self.usage.give_back(&tenant, 1, 0);
            tracing::debug!(length, "a file was not kept");
        }
        settled
    }

    async fn settle_as(&self, incoming: Incoming, tenant: &Tenant, id: &str, new: NewFile, now: i64) -> Result<FileRecord, Error> {
        let (bytes, sha256) = incoming.settle(&self.path(tenant, id)).await?;
        let NewFile { filename, purpose, expires_at } = new;
        let record = FileRecord { id: id.to_owned(), filename, purpose, bytes, sha256, created_at: now, expires_at };
        self.catalog.put_file(tenant, &record).await?;
        Ok(record)
    }

    /// Keeps a file that is in memory.
    pub async fn add(&self, tenant: &Tenant, new: NewFile, content: &[u8], now: i64) -> Result<FileRecord, Error> {
        let mut incoming = self.receive(tenant).await?;
        incoming.write(content).await?;
        self.keep(incoming, new, now).await
    }

    /// Keeps a file of our own making under an id that was chosen before, also where the quota is used up; one of this id is replaced.
    /// A job that is cut off while it writes its result writes it again, once.
    pub async fn put(&self, tenant: &Tenant, id: &str, new: NewFile, content: &[u8], now: i64) -> Result<FileRecord, Error> {
        let before = self.catalog.file(tenant, id).await?;
        let mut incoming = self.receive(tenant).await?;
        incoming.limits.quota_bytes = u64::MAX;
        incoming.write(content).await?;
        let record = self.settle_as(incoming, tenant, id, new, now).await?;
        match before {
            Some(before) => self.usage.give_back(tenant, 0, before.bytes),
            None => self.usage.change(tenant, |(files, _)| {
                *files += 1;
                Ok(())
            })?,
        }
        Ok(record)
    }

    /// A file's content; `None` if there is no such file.
    pub async fn read(&self, tenant: &Tenant, id: &str) -> Result<Option<(FileRecord, Vec<u8>)>, Error> {
        let Some((record, path)) = self.locate(tenant, id).await? else { return Ok(None) };
        let content = blocking(&self.root, move || fs::read(&path).map_err(file_error(&path))).await?;
        Ok(Some((record, content)))
    }

    /// Where a file's content is; `None` if there is no such file.
    pub async fn locate(&self, tenant: &Tenant, id: &str) -> Result<Option<(FileRecord, PathBuf)>, Error> {
        // Only an id that the catalog knows becomes a path.
        let Some(record) = self.catalog.file(tenant, id).await? else { return Ok(None) };
        let path = self.path(tenant, &record.id);
        Ok(Some((record, path)))
    }

    /// Removes a file; false if there was none.
    pub async fn remove(&self, tenant: &Tenant, id: &str) -> Result<bool, Error> {
        let Some((record, path)) = self.locate(tenant, id).await? else { return Ok(false) };
        if !self.catalog.delete_file(tenant, id).await? {
            return Ok(false);
        }
        self.usage.give_back(tenant, 1, record.bytes);
        blocking(&self.root, move || match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error(&path)(error)),
            _ => Ok(true),
        })
        .await
    }

    pub(crate) fn give_back(&self, tenant: &Tenant, bytes: u64) {
        self.usage.give_back(tenant, 0, bytes);
    }

    fn path(&self, tenant: &Tenant, id: &str) -> PathBuf {
        self.root.join(tenant.as_str()).join(id)
    }

    async fn sweep(&self) -> Result<(), Error> {
        let (root, parts) = (self.root.clone(), self.parts.clone());
        let known = self.catalog.all_files().await?.into_iter().map(|(tenant, id)| root.join(tenant).join(id));
        let known_parts = self.catalog.all_parts().await?.into_iter().map(|(tenant, upload, id)| parts.join(tenant).join(upload).join(id));
        let known: std::collections::HashSet<PathBuf> = known.chain(known_parts).collect();
        blocking(&self.root, move || {
            sweep_folder(&root, &known)?;
            sweep_folder(&parts, &known)
        })
        .await
    }
}

/// Removes every file below `folder` that is not known.
fn sweep_folder(folder: &Path, known: &std::collections::HashSet<PathBuf>) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file_error(folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(file_error(folder))?;
        let path = entry.path();
        if entry.file_type().map_err(file_error(&path))?.is_dir() {
            sweep_folder(&path, known)?;
        } else if !known.contains(&path) {
            fs::remove_file(&path).map_err(file_error(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Page;

    const LIMITS: FileLimits = FileLimits { quota_bytes: 10, most_files: 3 };

    fn new(filename: &str) -> NewFile {
        NewFile { filename: filename.into(), purpose: "assistants".into(), expires_at: None }
    }

    #[tokio::test]
    async fn files_belong_to_their_tenant_and_keep_to_the_quota() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        let catalog = Arc::new(Catalog::open(&directory).await.unwrap());
        let store = FileStore::open(&directory, catalog.clone(), LIMITS).await.unwrap();
        let (tenant, other) = (Tenant::default(), Tenant::new("other").unwrap());
        let first = store.add(&tenant, new("../../etc/passwd"), b"1234", 5).await.unwrap();
        let second = store.add(&tenant, new("b.md"), b"123456", 6).await.unwrap();
        assert!(matches!(store.add(&tenant, new("c"), b"1", 7).await, Err(Error::Full { bytes: 10, .. })));
        store.add(&other, new("d"), b"0123456789", 8).await.unwrap();
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
        let kept = store.add(&tenant, new("a"), b"1", 5).await.unwrap();
        let orphan = store.path(&tenant, "file-0123");
        fs::write(&orphan, "half").unwrap();
        let store = FileStore::open(&directory, catalog, LIMITS).await.unwrap();
        assert!(!orphan.exists() && store.read(&tenant, &kept.id).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn bytes_that_are_being_received_count() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        let catalog = Arc::new(Catalog::open(&directory).await.unwrap());
        let store = FileStore::open(&directory, catalog, LIMITS).await.unwrap();
        let tenant = Tenant::default();
        let mut one = store.receive(&tenant).await.unwrap();
        one.write(b"123456").await.unwrap();
        let mut other = store.receive(&tenant).await.unwrap();
        other.write(b"1234").await.unwrap();
        assert!(matches!(other.write(b"5").await, Err(Error::Full { bytes: 10, .. })));
        drop(one);
        other.write(b"567890").await.unwrap();
        let kept = store.keep(other, new("a"), 5).await.unwrap();
        assert_eq!(kept.bytes, 10);
        assert_eq!(fs::read_dir(store.root.join("default")).unwrap().count(), 1, "what was dropped is gone");
        let result = store.put(&tenant, "file-result", new("r.csv"), b"step", 6).await.unwrap();
        store.put(&tenant, "file-result", new("r.csv"), b"steps", 7).await.unwrap();
        assert_eq!(store.read(&tenant, &result.id).await.unwrap().unwrap().1, b"steps");
        assert!(store.remove(&tenant, &kept.id).await.unwrap() && store.remove(&tenant, "file-result").await.unwrap());
        store.add(&tenant, new("b"), b"1234567890", 8).await.unwrap();
    }
}
