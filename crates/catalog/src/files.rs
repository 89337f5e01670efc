//! Files that clients upload, as the catalog knows them. The bytes are [`crate::FileStore`]'s.

use crate::{Catalog, Error};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::collections::HashMap;

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
    /// Unix seconds; `None` for one that stays.
    pub expires_at: Option<i64>,
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

impl Catalog {
    pub(crate) async fn put_file(&self, tenant: &Tenant, record: &FileRecord) -> Result<(), Error> {
        sqlx::query("INSERT OR REPLACE INTO files (tenant, id, filename, purpose, bytes, sha256, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(tenant.as_str())
            .bind(&record.id)
            .bind(&record.filename)
            .bind(&record.purpose)
            .bind(i64::try_from(record.bytes).unwrap_or(i64::MAX))
            .bind(&record.sha256)
            .bind(record.created_at)
            .bind(record.expires_at)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    pub(crate) async fn delete_file(&self, tenant: &Tenant, id: &str) -> Result<bool, Error> {
        let query = sqlx::query("DELETE FROM files WHERE tenant = ? AND id = ?").bind(tenant.as_str()).bind(id);
        query.execute(&self.pool).await.map(|done| done.rows_affected() > 0).map_err(|e| self.failed(e))
    }

    /// Number and bytes of each tenant's files and of the parts of unfinished uploads.
    pub(crate) async fn stored_bytes(&self) -> Result<HashMap<String, (u64, u64)>, Error> {
        let query = "SELECT tenant, sum(files), sum(bytes) FROM (SELECT tenant, 1 AS files, bytes FROM files UNION ALL SELECT tenant, 0 AS files, bytes FROM upload_parts) GROUP BY tenant";
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(query).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        Ok(rows.into_iter().map(|(tenant, files, bytes)| (tenant, (files.unsigned_abs(), bytes.unsigned_abs()))).collect())
    }

    /// Files of all tenants whose time has come. Whoever asks removes them.
    pub async fn expired_files(&self, now: i64) -> Result<Vec<(Tenant, String)>, Error> {
        let query = sqlx::query_as("SELECT tenant, id FROM files WHERE expires_at <= ?").bind(now);
        let rows: Vec<(String, String)> = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.into_iter().map(|(tenant, id)| Ok((Tenant::new(tenant).map_err(|e| self.broken(&e))?, id))).collect()
    }

    pub(crate) async fn all_files(&self) -> Result<Vec<(String, String)>, Error> {
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
            expires_at: row.try_get("expires_at").map_err(|e| self.failed(e))?,
        })
    }
}
