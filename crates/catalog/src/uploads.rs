//! Large files that come in parts: the parts below `upload-parts/` in the data directory until they are put together.

use crate::file_store::file_error;
use crate::{Catalog, Error, FileRecord, FileStore, Incoming, NewFile};
use groundtone_types::Tenant;
use md5::{Digest, Md5};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// Where an upload is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadStatus {
    /// Takes parts.
    Pending,
    /// Is a file now.
    Completed,
    /// Was called off.
    Cancelled,
    /// Took too long.
    Expired,
}

impl UploadStatus {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// A large file on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// `upload_` and a UUIDv7.
    pub id: String,
    /// What the client calls the file.
    pub filename: String,
    /// What it is for.
    pub purpose: String,
    /// What the client says it is.
    pub mime_type: String,
    /// How long it will be.
    pub bytes: u64,
    /// Unix seconds.
    pub created_at: i64,
    /// When the upload is given up, unix seconds.
    pub expires_at: i64,
    /// How long the file stays, in seconds; `None` for one that stays.
    pub expires_after: Option<i64>,
    /// Where it is in its life.
    pub status: UploadStatus,
    /// The file, once it is completed.
    pub file: Option<String>,
}

/// A part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRecord {
    /// `part_` and a UUIDv7.
    pub id: String,
    /// Its length.
    pub bytes: u64,
    /// Unix seconds.
    pub created_at: i64,
}

/// Why parts are not the file that was promised.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A part that the upload does not have, or that is named twice.
    #[error("the upload has no part `{0}`, or it is named twice")]
    Part(String),
    /// They are longer or shorter.
    #[error("the parts have {found} bytes, but the upload was created for {promised}")]
    Length {
        /// Bytes of the named parts.
        found: u64,
        /// Bytes that were announced.
        promised: u64,
    },
    /// They are something else.
    #[error("the MD5 checksum of the parts is {0}")]
    Checksum(String),
    /// The catalog or the disk.
    #[error(transparent)]
    Store(#[from] Error),
}

impl FileStore {
    /// Keeps what was received as a part. The bytes count towards the tenant's quota until the upload is over.
    pub async fn keep_part(&self, tenant: &Tenant, upload: &UploadRecord, incoming: Incoming, now: i64) -> Result<PartRecord, Error> {
        let id = format!("part_{}", Uuid::now_v7().simple());
        let folder = self.parts.join(tenant.as_str()).join(&upload.id);
        tokio::fs::create_dir_all(&folder).await.map_err(file_error(&folder))?;
        let (bytes, _) = incoming.settle(&folder.join(&id)).await?;
        let part = PartRecord { id, bytes, created_at: now };
        self.catalog.put_part(tenant, &upload.id, &part).await?;
        Ok(part)
    }

    /// Puts parts together to a file, in the order in which they are named, and removes them. Needs room for both for a moment.
    pub async fn complete_upload(
        &self,
        tenant: &Tenant,
        upload: &UploadRecord,
        order: &[String],
        md5: Option<&str>,
        now: i64,
    ) -> Result<FileRecord, UploadError> {
        let parts = self.catalog.parts(tenant, &upload.id).await?;
        let mut found = 0;
        for (at, id) in order.iter().enumerate() {
            match parts.iter().find(|part| part.id == *id) {
                Some(part) if !order[..at].contains(id) => found += part.bytes,
                _ => return Err(UploadError::Part(id.clone())),
            }
        }
        if found != upload.bytes {
            return Err(UploadError::Length { found, promised: upload.bytes });
        }
        let folder = self.parts.join(tenant.as_str()).join(&upload.id);
        let mut incoming = self.receive(tenant).await?;
        let mut digest = Md5::new();
        let mut piece = vec![0; PIECE];
        for id in order {
            let path = folder.join(id);
            let mut file = tokio::fs::File::open(&path).await.map_err(file_error(&path))?;
            loop {
                let length = file.read(&mut piece).await.map_err(file_error(&path))?;
                if length == 0 {
                    break;
                }
                digest.update(&piece[..length]);
                incoming.write(&piece[..length]).await?;
            }
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if md5.is_some_and(|md5| !md5.eq_ignore_ascii_case(&digest)) {
            return Err(UploadError::Checksum(digest));
        }
        let expires_at = upload.expires_after.map(|seconds| now.saturating_add(seconds));
        let new = NewFile { filename: upload.filename.clone(), purpose: upload.purpose.clone(), expires_at };
        let record = self.keep(incoming, new, now).await?;
        self.end_upload(tenant, upload, UploadStatus::Completed, Some(&record.id)).await?;
        Ok(record)
    }

    /// Ends an upload and removes its parts.
    pub async fn end_upload(&self, tenant: &Tenant, upload: &UploadRecord, status: UploadStatus, file: Option<&str>) -> Result<(), Error> {
        let bytes = self.catalog.end_upload(tenant, &upload.id, status, file).await?;
        self.give_back(tenant, bytes);
        let folder = self.parts.join(tenant.as_str()).join(&upload.id);
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error(&folder)(error)),
            _ => Ok(()),
        }
    }

    /// Gives up the uploads of all tenants that took too long.
    pub async fn expire_uploads(&self, now: i64) -> Result<(), Error> {
        for (tenant, upload) in self.catalog.overdue_uploads(now).await? {
            self.end_upload(&tenant, &upload, UploadStatus::Expired, None).await?;
        }
        Ok(())
    }
}

impl Catalog {
    /// Remembers a new upload.
    pub async fn put_upload(&self, tenant: &Tenant, upload: &UploadRecord) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO uploads (tenant, id, filename, purpose, mime_type, bytes, created_at, expires_at, expires_after, status, file) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(tenant.as_str())
        .bind(&upload.id)
        .bind(&upload.filename)
        .bind(&upload.purpose)
        .bind(&upload.mime_type)
        .bind(i64::try_from(upload.bytes).unwrap_or(i64::MAX))
        .bind(upload.created_at)
        .bind(upload.expires_at)
        .bind(upload.expires_after)
        .bind(upload.status.as_str())
        .bind(&upload.file)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(|e| self.failed(e))
    }

    /// One upload.
    pub async fn upload(&self, tenant: &Tenant, id: &str) -> Result<Option<UploadRecord>, Error> {
        let query = sqlx::query("SELECT * FROM uploads WHERE tenant = ? AND id = ?").bind(tenant.as_str()).bind(id);
        query.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?.map(|row| self.upload_of(&row)).transpose()
    }

    /// How many uploads of a tenant take parts.
    pub async fn open_uploads(&self, tenant: &Tenant) -> Result<u64, Error> {
        let query = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM uploads WHERE tenant = ? AND status = 'pending'");
        query.bind(tenant.as_str()).fetch_one(&self.pool).await.map(i64::unsigned_abs).map_err(|e| self.failed(e))
    }

    /// The parts of an upload, oldest first.
    pub async fn parts(&self, tenant: &Tenant, upload: &str) -> Result<Vec<PartRecord>, Error> {
        let query = sqlx::query_as("SELECT id, bytes, created_at FROM upload_parts WHERE tenant = ? AND upload = ? ORDER BY id");
        let rows: Vec<(String, i64, i64)> =
            query.bind(tenant.as_str()).bind(upload).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        Ok(rows.into_iter().map(|(id, bytes, created_at)| PartRecord { id, bytes: bytes.unsigned_abs(), created_at }).collect())
    }

    async fn put_part(&self, tenant: &Tenant, upload: &str, part: &PartRecord) -> Result<(), Error> {
        sqlx::query("INSERT INTO upload_parts (tenant, upload, id, bytes, created_at) VALUES (?, ?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(upload)
            .bind(&part.id)
            .bind(i64::try_from(part.bytes).unwrap_or(i64::MAX))
            .bind(part.created_at)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Ends an upload and forgets its parts; gives their bytes.
    async fn end_upload(&self, tenant: &Tenant, id: &str, status: UploadStatus, file: Option<&str>) -> Result<u64, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let bytes: i64 = sqlx::query_scalar("SELECT coalesce(sum(bytes), 0) FROM upload_parts WHERE tenant = ? AND upload = ?")
            .bind(tenant.as_str())
            .bind(id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(|e| self.failed(e))?;
        let remove = sqlx::query("DELETE FROM upload_parts WHERE tenant = ? AND upload = ?").bind(tenant.as_str()).bind(id);
        remove.execute(&mut *transaction).await.map_err(|e| self.failed(e))?;
        let end = sqlx::query("UPDATE uploads SET status = ?, file = ? WHERE tenant = ? AND id = ?").bind(status.as_str()).bind(file);
        end.bind(tenant.as_str()).bind(id).execute(&mut *transaction).await.map_err(|e| self.failed(e))?;
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(bytes.unsigned_abs())
    }

    async fn overdue_uploads(&self, now: i64) -> Result<Vec<(Tenant, UploadRecord)>, Error> {
        let query = sqlx::query("SELECT * FROM uploads WHERE status = 'pending' AND expires_at <= ?").bind(now);
        let read = |row: &SqliteRow| {
            let tenant: String = row.try_get("tenant").map_err(|e| self.failed(e))?;
            Ok((Tenant::new(tenant).map_err(|e| self.broken(&e))?, self.upload_of(row)?))
        };
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(read).collect()
    }

    pub(crate) async fn all_parts(&self) -> Result<Vec<(String, String, String)>, Error> {
        sqlx::query_as("SELECT tenant, upload, id FROM upload_parts").fetch_all(&self.pool).await.map_err(|e| self.failed(e))
    }

    fn upload_of(&self, row: &SqliteRow) -> Result<UploadRecord, Error> {
        let read = || -> Result<UploadRecord, sqlx::Error> {
            let status: String = row.try_get("status")?;
            Ok(UploadRecord {
                id: row.try_get("id")?,
                filename: row.try_get("filename")?,
                purpose: row.try_get("purpose")?,
                mime_type: row.try_get("mime_type")?,
                bytes: row.try_get::<i64, _>("bytes")?.unsigned_abs(),
                created_at: row.try_get("created_at")?,
                expires_at: row.try_get("expires_at")?,
                expires_after: row.try_get("expires_after")?,
                status: match status.as_str() {
                    "pending" => UploadStatus::Pending,
                    "completed" => UploadStatus::Completed,
                    "cancelled" => UploadStatus::Cancelled,
                    _ => UploadStatus::Expired,
                },
                file: row.try_get("file")?,
            })
        };
        read().map_err(|e| self.failed(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataDirectory, FileLimits};
    use std::sync::Arc;

    #[tokio::test]
    async fn parts_become_the_file_that_was_promised() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        let catalog = Arc::new(Catalog::open(&directory).await.unwrap());
        let store = FileStore::open(&directory, catalog.clone(), FileLimits { quota_bytes: 20, most_files: 3 }).await.unwrap();
        let tenant = Tenant::default();
        let upload = |id: &str| UploadRecord {
            id: id.into(),
            filename: "a.jsonl".into(),
            purpose: "fine-tune".into(),
            mime_type: "text/jsonl".into(),
            bytes: 6,
            created_at: 5,
            expires_at: 3605,
            expires_after: Some(3600),
            status: UploadStatus::Pending,
            file: None,
        };
        let one = upload("upload_1");
        catalog.put_upload(&tenant, &one).await.unwrap();
        let part = |text: &'static [u8], upload: UploadRecord| {
            let (store, tenant) = (&store, &tenant);
            async move {
                let mut incoming = store.receive(tenant).await.unwrap();
                incoming.write(text).await.unwrap();
                store.keep_part(tenant, &upload, incoming, 6).await.unwrap().id
            }
        };
        let (b, a) = (part(b"456", one.clone()).await, part(b"123", one.clone()).await);
        let refused = |order: Vec<String>, md5: Option<&'static str>| {
            let (store, tenant, one) = (&store, &tenant, &one);
            async move { store.complete_upload(tenant, one, &order, md5, 7).await.unwrap_err().to_string() }
        };
        assert_eq!(refused(vec![a.clone()], None).await, "the parts have 3 bytes, but the upload was created for 6");
        assert!(refused(vec![a.clone(), a.clone()], None).await.contains("named twice"));
        assert!(refused(vec!["part_x".into()], None).await.contains("no part `part_x`"));
        assert!(refused(vec![a.clone(), b.clone()], Some("00")).await.contains("e10adc3949ba59abbe56e057f20f883e"));
        let md5 = Some("E10ADC3949BA59ABBE56E057F20F883E");
        let file = store.complete_upload(&tenant, &one, &[a, b], md5, 7).await.unwrap();
        assert_eq!((file.expires_at, store.read(&tenant, &file.id).await.unwrap().unwrap().1), (Some(3607), b"123456".to_vec()));
        let done = catalog.upload(&tenant, "upload_1").await.unwrap().unwrap();
        assert_eq!((done.status, done.file.as_deref()), (UploadStatus::Completed, Some(file.id.as_str())));

        let slow = upload("upload_2");
        catalog.put_upload(&tenant, &slow).await.unwrap();
        part(b"123456789", slow).await;
        store.expire_uploads(3604).await.unwrap();
        assert_eq!(catalog.open_uploads(&tenant).await.unwrap(), 1);
        store.expire_uploads(3605).await.unwrap();
        assert_eq!(catalog.upload(&tenant, "upload_2").await.unwrap().unwrap().status, UploadStatus::Expired);
        assert_eq!(catalog.expired_files(3607).await.unwrap(), [(tenant.clone(), file.id.clone())]);
        assert!(catalog.expired_files(3606).await.unwrap().is_empty());
        // The parts of both are given back: 6 of 20 bytes are taken.
        let new = NewFile { filename: "b".into(), purpose: "user_data".into(), expires_at: None };
        store.add(&tenant, new, b"12345678901234", 8).await.unwrap();
    }
}
