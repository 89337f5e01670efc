//! The manifest of each document: what it was made of, and which points are its current version.

use crate::{Catalog, Error};
use groundtone_types::{Collection, ContentHash, DocumentId, Tenant};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::HashSet;
use uuid::Uuid;

/// A document as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// Its id.
    pub id: DocumentId,
    /// The source that it came from; only a run over that source may take it for removed.
    pub source: String,
    /// Of the bytes that were read.
    pub content_hash: ContentHash,
    /// What the source calls this version of it (an ETag, a sitemap's date), if it says.
    pub version: Option<String>,
    /// How it was cut and what was embedded of it.
    pub settings_fingerprint: String,
    /// Its title.
    pub title: String,
    /// Where a reader finds it.
    pub url: String,
    /// Bytes read.
    pub bytes: u64,
    /// Tokens of its chunks.
    pub tokens: u64,
    /// The run that published it.
    pub run: Uuid,
    /// Unix seconds.
    pub indexed_at: i64,
}

/// A document's new version on its way to being published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The new row.
    pub record: DocumentRecord,
    /// Its points, in the order of its chunks.
    pub points: Vec<Uuid>,
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Catalog {
    /// One published document.
    pub async fn document(&self, tenant: &Tenant, collection: &Collection, id: &DocumentId) -> Result<Option<DocumentRecord>, Error> {
        let query = sqlx::query("SELECT * FROM documents WHERE tenant = ? AND collection = ? AND id = ?")
            .bind(tenant.as_str())
            .bind(collection.as_str())
            .bind(id.as_str());
        let row = query.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?;
        row.map(|row| self.document_of(&row)).transpose()
    }

    /// A page of published documents in the order of their ids, after `after`.
    pub async fn documents(
        &self,
        tenant: &Tenant,
        collection: &Collection,
        after: Option<&DocumentId>,
        limit: u32,
    ) -> Result<Vec<DocumentRecord>, Error> {
        let query = sqlx::query("SELECT * FROM documents WHERE tenant = ? AND collection = ? AND id > ? ORDER BY id LIMIT ?")
            .bind(tenant.as_str())
            .bind(collection.as_str())
            .bind(after.map(DocumentId::as_str).unwrap_or_default())
            .bind(limit);
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.document_of(row)).collect()
    }

    /// A document's points, in the order of its chunks.
    pub async fn points(&self, tenant: &Tenant, collection: &Collection, id: &DocumentId) -> Result<Vec<Uuid>, Error> {
        let mut connection = self.pool.acquire().await.map_err(|e| self.failed(e))?;
        self.points_of(&mut connection, tenant, collection, id).await
    }

    /// How many documents and points are published.
    pub async fn counts(&self, tenant: &Tenant, collection: &Collection) -> Result<(u64, u64), Error> {
        let mut counts = [0u64; 2];
        for (count, table) in counts.iter_mut().zip([
            "SELECT count(*) FROM documents WHERE tenant = ? AND collection = ?",
            "SELECT count(*) FROM points WHERE tenant = ? AND collection = ?",
        ]) {
            let query = sqlx::query_scalar::<_, i64>(table).bind(tenant.as_str()).bind(collection.as_str());
            *count = query.fetch_one(&self.pool).await.map_err(|e| self.failed(e))?.unsigned_abs();
        }
        Ok((counts[0], counts[1]))
    }

    fn document_of(&self, row: &SqliteRow) -> Result<DocumentRecord, Error> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed(e));
        let count = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs).map_err(|e| self.failed(e));
        Ok(DocumentRecord {
            id: DocumentId::new(text("id")?).map_err(|e| self.broken(&e))?,
            source: text("source")?,
            content_hash: ContentHash::from_stored(text("content_hash")?),
            version: row.try_get("version").map_err(|e| self.failed(e))?,
            settings_fingerprint: text("settings_fingerprint")?,
            title: text("title")?,
            url: text("url")?,
            bytes: count("bytes")?,
            tokens: count("tokens")?,
            run: text("run")?.parse().map_err(|e: uuid::Error| self.broken(&e))?,
            indexed_at: row.try_get("indexed_at").map_err(|e| self.failed(e))?,
        })
    }

    async fn points_of(
        &self,
        connection: &mut SqliteConnection,
        tenant: &Tenant,
        collection: &Collection,
        id: &DocumentId,
    ) -> Result<Vec<Uuid>, Error> {
        let query = sqlx::query_scalar("SELECT id FROM points WHERE tenant = ? AND collection = ? AND document = ? ORDER BY ordinal")
            .bind(tenant.as_str())
            .bind(collection.as_str())
            .bind(id.as_str());
        query.fetch_all(connection).await.map_err(|e| self.failed(e))
    }

    /// Notes which documents' points are about to be written, so that a crash before they are published leaves nothing unknown behind.
    pub async fn intend(&self, tenant: &Tenant, collection: &Collection, documents: &[DocumentId]) -> Result<(), Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        for document in documents {
            self.run(
                &mut transaction,
                "INSERT OR IGNORE INTO intents (tenant, collection, document) VALUES (?, ?, ?)",
                tenant,
                collection,
                document,
            )
            .await?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// Documents whose points may be in the index although nobody published them: an earlier run was cut off there.
    pub async fn intents(&self, tenant: &Tenant, collection: &Collection) -> Result<Vec<DocumentId>, Error> {
        let query = sqlx::query_scalar::<_, String>("SELECT document FROM intents WHERE tenant = ? AND collection = ? ORDER BY document")
            .bind(tenant.as_str())
            .bind(collection.as_str());
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.into_iter().map(|id| DocumentId::new(id).map_err(|e| self.broken(&e))).collect()
    }

    /// The points of this document are settled: nothing of it is in the index but what is published.
    pub async fn settled(&self, tenant: &Tenant, collection: &Collection, document: &DocumentId) -> Result<(), Error> {
        let mut connection = self.pool.acquire().await.map_err(|e| self.failed(e))?;
        self.run(&mut connection, "DELETE FROM intents WHERE tenant = ? AND collection = ? AND document = ?", tenant, collection, document)
            .await
    }

    async fn run(
        &self,
        connection: &mut SqliteConnection,
        statement: &'static str,
        tenant: &Tenant,
        collection: &Collection,
        document: &DocumentId,
    ) -> Result<(), Error> {
        let query = sqlx::query(statement).bind(tenant.as_str()).bind(collection.as_str()).bind(document.as_str());
        query.execute(connection).await.map(|_| ()).map_err(|e| self.failed(e))
    }

    /// Publishes new versions, all or none. In the same transaction the points that only the old versions had are noted as pending removals; they are returned.
    pub async fn publish(&self, tenant: &Tenant, collection: &Collection, publications: &[Publication]) -> Result<Vec<Uuid>, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let mut gone = Vec::new();
        for publication in publications {
            let id = &publication.record.id;
            gone.extend(self.replace_points(&mut transaction, tenant, collection, id, &publication.points).await?);
            self.put_document(&mut transaction, tenant, collection, &publication.record).await?;
            self.run(&mut transaction, "DELETE FROM intents WHERE tenant = ? AND collection = ? AND document = ?", tenant, collection, id)
                .await?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(gone)
    }

    /// Unpublishes a document; its points are noted as pending removals and returned.
    pub async fn unpublish(&self, tenant: &Tenant, collection: &Collection, id: &DocumentId) -> Result<Vec<Uuid>, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let gone = self.replace_points(&mut transaction, tenant, collection, id, &[]).await?;
        self.run(&mut transaction, "DELETE FROM documents WHERE tenant = ? AND collection = ? AND id = ?", tenant, collection, id).await?;
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(gone)
    }

    /// Notes that nothing but its version name changed.
    pub async fn set_version(&self, tenant: &Tenant, collection: &Collection, id: &DocumentId, version: &str) -> Result<(), Error> {
        let query = sqlx::query("UPDATE documents SET version = ? WHERE tenant = ? AND collection = ? AND id = ?")
            .bind(version)
            .bind(tenant.as_str())
            .bind(collection.as_str())
            .bind(id.as_str());
        query.execute(&self.pool).await.map(|_| ()).map_err(|e| self.failed(e))
    }

    /// Makes the next run take a document for changed; its published version stays until then.
    pub async fn doubt(&self, tenant: &Tenant, collection: &Collection, id: &DocumentId) -> Result<(), Error> {
        let mut connection = self.pool.acquire().await.map_err(|e| self.failed(e))?;
        let statement = "UPDATE documents SET content_hash = '', version = NULL WHERE tenant = ? AND collection = ? AND id = ?";
        self.run(&mut connection, statement, tenant, collection, id).await
    }

    async fn put_document(
        &self,
        connection: &mut SqliteConnection,
        tenant: &Tenant,
        collection: &Collection,
        record: &DocumentRecord,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT OR REPLACE INTO documents (tenant, collection, id, source, content_hash, version, settings_fingerprint, title, url, bytes, tokens, run, indexed_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(tenant.as_str())
        .bind(collection.as_str())
        .bind(record.id.as_str())
        .bind(&record.source)
        .bind(record.content_hash.as_str())
        .bind(&record.version)
        .bind(&record.settings_fingerprint)
        .bind(&record.title)
        .bind(&record.url)
        .bind(number(record.bytes))
        .bind(number(record.tokens))
        .bind(record.run.to_string())
        .bind(record.indexed_at)
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(|e| self.failed(e))
    }

    async fn replace_points(
        &self,
        connection: &mut SqliteConnection,
        tenant: &Tenant,
        collection: &Collection,
        document: &DocumentId,
        points: &[Uuid],
    ) -> Result<Vec<Uuid>, Error> {
        let old = self.points_of(connection, tenant, collection, document).await?;
        if !old.is_empty() {
            let statement = "DELETE FROM points WHERE tenant = ? AND collection = ? AND document = ?";
            self.run(connection, statement, tenant, collection, document).await?;
        }
        for (ordinal, point) in points.iter().enumerate() {
            sqlx::query("INSERT INTO points (tenant, collection, document, ordinal, id) VALUES (?, ?, ?, ?, ?)")
                .bind(tenant.as_str())
                .bind(collection.as_str())
                .bind(document.as_str())
                .bind(number(ordinal as u64))
                .bind(point)
                .execute(&mut *connection)
                .await
                .map_err(|e| self.failed(e))?;
        }
        let current: HashSet<&Uuid> = points.iter().collect();
        let gone: Vec<Uuid> = old.into_iter().filter(|id| !current.contains(id)).collect();
        for point in &gone {
            sqlx::query("INSERT OR IGNORE INTO pending_removals (tenant, collection, id) VALUES (?, ?, ?)")
                .bind(tenant.as_str())
                .bind(collection.as_str())
                .bind(point)
                .execute(&mut *connection)
                .await
                .map_err(|e| self.failed(e))?;
        }
        Ok(gone)
    }

    /// Points that no document has any more and that the index may still hold. A point that a document has got back in the meantime is not among them.
    pub async fn pending_removals(&self, tenant: &Tenant, collection: &Collection) -> Result<Vec<Uuid>, Error> {
        let query = sqlx::query_scalar(
            "SELECT id FROM pending_removals WHERE tenant = ?1 AND collection = ?2 AND id NOT IN (SELECT id FROM points WHERE tenant = ?1 AND collection = ?2)",
        );
        query.bind(tenant.as_str()).bind(collection.as_str()).fetch_all(&self.pool).await.map_err(|e| self.failed(e))
    }

    /// The index holds these points no more.
    pub async fn removed(&self, tenant: &Tenant, collection: &Collection, points: &[Uuid]) -> Result<(), Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        for point in points {
            sqlx::query("DELETE FROM pending_removals WHERE tenant = ? AND collection = ? AND id = ?")
                .bind(tenant.as_str())
                .bind(collection.as_str())
                .bind(point)
                .execute(&mut *transaction)
                .await
                .map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    fn publication(id: &str, points: &[u128]) -> Publication {
        let record = DocumentRecord {
            id: DocumentId::new(id).unwrap(),
            source: "folder".into(),
            content_hash: ContentHash::of(id.as_bytes()),
            version: Some("v1".into()),
            settings_fingerprint: "s".into(),
            title: "Ä title".into(),
            url: "file:///x".into(),
            bytes: 12,
            tokens: 3,
            run: Uuid::from_u128(9),
            indexed_at: 7,
        };
        Publication { record, points: points.iter().map(|&n| Uuid::from_u128(n)).collect() }
    }

    fn names() -> (Tenant, Tenant, Collection, DocumentId) {
        (Tenant::default(), Tenant::new("other").unwrap(), Collection::new("c").unwrap(), DocumentId::new("a").unwrap())
    }

    #[tokio::test]
    async fn publishing_remembers_what_must_go_even_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let (tenant, other, collection, id) = names();
        let directory = DataDirectory::open(folder.path(), "test").unwrap();
        let catalog = Catalog::open(&directory).await.unwrap();
        let none = Vec::<Uuid>::new();
        catalog.intend(&tenant, &collection, std::slice::from_ref(&id)).await.unwrap();
        assert_eq!(catalog.intents(&tenant, &collection).await.unwrap(), std::slice::from_ref(&id));
        assert_eq!(catalog.publish(&tenant, &collection, &[publication("a", &[1, 2])]).await.unwrap(), none);
        assert_eq!(catalog.intents(&tenant, &collection).await.unwrap(), []);
        assert_eq!(catalog.publish(&other, &collection, &[publication("a", &[1, 2])]).await.unwrap(), none);
        let gone = catalog.publish(&tenant, &collection, &[publication("a", &[2, 3])]).await.unwrap();
        assert_eq!(gone, [Uuid::from_u128(1)]);
        drop(catalog);
        let catalog = Catalog::open(&directory).await.unwrap();
        assert_eq!(catalog.document(&tenant, &collection, &id).await.unwrap(), Some(publication("a", &[]).record));
        assert_eq!(catalog.points(&tenant, &collection, &id).await.unwrap(), publication("a", &[2, 3]).points);
        assert_eq!(catalog.points(&other, &collection, &id).await.unwrap(), publication("a", &[1, 2]).points);
        assert_eq!(catalog.counts(&tenant, &collection).await.unwrap(), (1, 2));
        assert_eq!(catalog.pending_removals(&tenant, &collection).await.unwrap(), gone);
        assert_eq!(catalog.pending_removals(&other, &collection).await.unwrap(), none);
        catalog.publish(&tenant, &collection, &[publication("a", &[1, 2])]).await.unwrap();
        assert_eq!(catalog.pending_removals(&tenant, &collection).await.unwrap(), [Uuid::from_u128(3)], "a point that came back stays");
        catalog.removed(&tenant, &collection, &[Uuid::from_u128(3)]).await.unwrap();
        assert_eq!(catalog.pending_removals(&tenant, &collection).await.unwrap(), none);
        assert_eq!(catalog.unpublish(&tenant, &collection, &id).await.unwrap().len(), 2);
        assert_eq!(catalog.counts(&tenant, &collection).await.unwrap(), (0, 0));
        assert_eq!(catalog.counts(&other, &collection).await.unwrap(), (1, 2));
    }

    #[tokio::test]
    async fn pages_give_every_document_once() {
        let folder = tempfile::tempdir().unwrap();
        let (tenant, _, collection, _) = names();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let all: Vec<Publication> = (0..25).map(|n| publication(&format!("d{n:02}"), &[n])).collect();
        catalog.publish(&tenant, &collection, &all).await.unwrap();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = catalog.documents(&tenant, &collection, after.as_ref(), 10).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            seen.extend(page);
        }
        assert_eq!(seen, all.into_iter().map(|publication| publication.record).collect::<Vec<_>>());
    }
}
