//! The manifest of each document: what it was made of, and which points are its current version.

use crate::{Catalog, Error};
use groundtone_types::{Collection, ContentHash, DocumentId, Metadata, Tenant};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Rows in one statement; SQLite takes 32,766 parameters, and a document's row has 15.
const ROWS: usize = 500;

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
    /// What the source says of it beside its text.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// What somebody should look at before trusting it; the names are those of the ingest report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
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
            metadata: serde_json::from_str(&text("metadata")?).map_err(|e| self.broken(&e))?,
            flags: serde_json::from_str(&text("flags")?).map_err(|e| self.broken(&e))?,
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
        for part in documents.chunks(ROWS) {
            let mut insert = QueryBuilder::new("INSERT OR IGNORE INTO intents (tenant, collection, document) ");
            insert.push_values(part, |mut row, document| {
                row.push_bind(tenant.as_str()).push_bind(collection.as_str()).push_bind(document.as_str());
            });
            self.execute(insert, &mut transaction).await?;
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
        // The last version of a document counts; what only the others had must go.
        let last: HashMap<&DocumentId, &Publication> =
            publications.iter().map(|publication| (&publication.record.id, publication)).collect();
        let mut latest: Vec<&Publication> = last.into_values().collect();
        latest.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        let mut old: Vec<Uuid> = publications.iter().flat_map(|publication| publication.points.iter().copied()).collect();
        let current: HashSet<Uuid> = latest.iter().flat_map(|publication| publication.points.iter().copied()).collect();
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        for part in latest.chunks(ROWS) {
            let ids: Vec<&DocumentId> = part.iter().map(|publication| &publication.record.id).collect();
            old.extend(self.take_points(&mut transaction, tenant, collection, &ids).await?);
            let points = part.iter().flat_map(|publication| {
                publication.points.iter().enumerate().map(move |(ordinal, point)| (&publication.record.id, ordinal, *point))
            });
            let points: Vec<(&DocumentId, usize, Uuid)> = points.collect();
            self.put_points(&mut transaction, tenant, collection, &points).await?;
            self.put_documents(&mut transaction, tenant, collection, part).await?;
            self.delete_of(&mut transaction, "DELETE FROM intents", tenant, collection, &ids).await?;
        }
        let gone: Vec<Uuid> = old.into_iter().filter(|point| !current.contains(point)).collect();
        self.put_pending_removals(&mut transaction, tenant, collection, &gone).await?;
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(gone)
    }

    /// Unpublishes a document; its points are noted as pending removals and returned.
    pub async fn unpublish(&self, tenant: &Tenant, collection: &Collection, id: &DocumentId) -> Result<Vec<Uuid>, Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        let gone = self.take_points(&mut transaction, tenant, collection, &[id]).await?;
        self.put_pending_removals(&mut transaction, tenant, collection, &gone).await?;
        self.delete_of(&mut transaction, "DELETE FROM documents", tenant, collection, &[id]).await?;
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

    async fn execute(&self, mut query: QueryBuilder<Sqlite>, connection: &mut SqliteConnection) -> Result<(), Error> {
        query.build().execute(connection).await.map(|_| ()).map_err(|e| self.failed(e))
    }

    /// `DELETE FROM table` for these documents; `documents` names its own id `id`, the others name it `document`.
    async fn delete_of(
        &self,
        connection: &mut SqliteConnection,
        statement: &'static str,
        tenant: &Tenant,
        collection: &Collection,
        documents: &[&DocumentId],
    ) -> Result<(), Error> {
        let mut query = QueryBuilder::new(statement);
        let column = if statement.ends_with(" documents") { "id" } else { "document" };
        push_scope(&mut query, tenant, collection, column, documents);
        self.execute(query, connection).await
    }

    async fn put_documents(
        &self,
        connection: &mut SqliteConnection,
        tenant: &Tenant,
        collection: &Collection,
        publications: &[&Publication],
    ) -> Result<(), Error> {
        let mut insert = QueryBuilder::new(
            "INSERT OR REPLACE INTO documents (tenant, collection, id, source, content_hash, version, settings_fingerprint, title, url, bytes, tokens, run, indexed_at, metadata, flags) ",
        );
        insert.push_values(publications, |mut row, Publication { record, .. }| {
            row.push_bind(tenant.as_str())
                .push_bind(collection.as_str())
                .push_bind(record.id.as_str())
                .push_bind(&record.source)
                .push_bind(record.content_hash.as_str())
                .push_bind(&record.version)
                .push_bind(&record.settings_fingerprint)
                .push_bind(&record.title)
                .push_bind(&record.url)
                .push_bind(number(record.bytes))
                .push_bind(number(record.tokens))
                .push_bind(record.run.to_string())
                .push_bind(record.indexed_at)
                .push_bind(record.metadata.to_json())
                .push_bind(serde_json::Value::from(record.flags.clone()).to_string());
        });
        self.execute(insert, connection).await
    }

    /// Takes these documents' points out of the ledger, and gives them back.
    async fn take_points(
        &self,
        connection: &mut SqliteConnection,
        tenant: &Tenant,
        collection: &Collection,
        documents: &[&DocumentId],
    ) -> Result<Vec<Uuid>, Error> {
        let mut query = QueryBuilder::new("SELECT id FROM points");
        push_scope(&mut query, tenant, collection, "document", documents);
        let old: Vec<Uuid> = query.build_query_scalar().fetch_all(&mut *connection).await.map_err(|e| self.failed(e))?;
        if !old.is_empty() {
            self.delete_of(connection, "DELETE FROM points", tenant, collection, documents).await?;
        }
        Ok(old)
    }

    async fn put_points(
        &self,
        connection: &mut SqliteConnection,
        tenant: &Tenant,
        collection: &Collection,
        points: &[(&DocumentId, usize, Uuid)],
    ) -> Result<(), Error> {
        for part in points.chunks(ROWS) {
            let mut insert = QueryBuilder::new("INSERT INTO points (tenant, collection, document, ordinal, id) ");
            insert.push_values(part, |mut row, (document, ordinal, point)| {
                row.push_bind(tenant.as_str())
                    .push_bind(collection.as_str())
                    .push_bind(document.as_str())
                    .push_bind(number(*ordinal as u64))
                    .push_bind(*point);
            });
            self.execute(insert, connection).await?;
        }
        Ok(())
    }

    async fn put_pending_removals(
        &self,
        connection: &mut SqliteConnection,
        tenant: &Tenant,
        collection: &Collection,
        points: &[Uuid],
    ) -> Result<(), Error> {
        for part in points.chunks(ROWS) {
            let mut insert = QueryBuilder::new("INSERT OR IGNORE INTO pending_removals (tenant, collection, id) ");
            insert.push_values(part, |mut row, point| {
                row.push_bind(tenant.as_str()).push_bind(collection.as_str()).push_bind(*point);
            });
            self.execute(insert, connection).await?;
        }
        Ok(())
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
        for part in points.chunks(ROWS) {
            let mut query = QueryBuilder::new("DELETE FROM pending_removals");
            query.push(" WHERE tenant = ").push_bind(tenant.as_str()).push(" AND collection = ").push_bind(collection.as_str());
            query.push(" AND id IN (");
            let mut list = query.separated(", ");
            part.iter().for_each(|point| {
                list.push_bind(*point);
            });
            query.push(")");
            query.build().execute(&self.pool).await.map_err(|e| self.failed(e))?;
        }
        Ok(())
    }
}

/// ` WHERE tenant = ? AND collection = ? AND column IN (...)`.
fn push_scope<'a>(
    query: &mut QueryBuilder<Sqlite>,
    tenant: &'a Tenant,
    collection: &'a Collection,
    column: &'static str,
    documents: &'a [&DocumentId],
) {
    query.push(" WHERE tenant = ").push_bind(tenant.to_string()).push(" AND collection = ").push_bind(collection.to_string());
    query.push(" AND ").push(column).push(" IN (");
    let mut list = query.separated(", ");
    documents.iter().for_each(|document| {
        list.push_bind(document.to_string());
    });
    query.push(")");
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
            metadata: serde_json::from_str(r#"{"lang":"de","tags":["a"]}"#).unwrap(),
            flags: vec!["instructions".into()],
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
    async fn the_last_of_several_versions_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (tenant, _, collection, id) = names();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let both = [publication("a", &[1, 2, 3]), publication("b", &[7]), publication("a", &[2])];
        let gone = catalog.publish(&tenant, &collection, &both).await.unwrap();
        assert_eq!(gone, [Uuid::from_u128(1), Uuid::from_u128(3)]);
        assert_eq!(catalog.points(&tenant, &collection, &id).await.unwrap(), [Uuid::from_u128(2)]);
        assert_eq!(catalog.counts(&tenant, &collection).await.unwrap(), (2, 2));
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
