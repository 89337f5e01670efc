//! Documents that a source has and that were not ingested, with the reason: what there is to mend now, whichever run found it.

use crate::{Catalog, Error};
use groundtone_types::{Collection, DocumentId, Tenant};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

/// A document that the latest run over its source rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The source that has it.
    pub source: String,
    /// Where it is: a path or an address.
    pub place: String,
    /// The document that it would be; `None` where it did not get as far as a name.
    pub document: Option<DocumentId>,
    /// Why it was rejected, to follow the place in a sentence.
    pub reason: String,
    /// The latest run that rejected it.
    pub run: Uuid,
    /// Unix seconds of the first run that rejected it, since it was last all right.
    pub since: i64,
    /// Unix seconds of the latest one.
    pub last: i64,
}

impl Quarantined {
    /// What identifies it within its source: the document, or the place where there is none. A record stays the same one when its line moves.
    pub fn name(&self) -> &str {
        self.document.as_ref().map_or(&self.place, |document| document.as_str())
    }
}

impl Catalog {
    /// Notes rejected documents of a collection (of all its generations), and takes those out that are all right again. `since` stays for those that were known.
    pub async fn quarantine(
        &self,
        tenant: &Tenant,
        collection: &Collection,
        rejected: &[Quarantined],
        released: &[Quarantined],
    ) -> Result<(), Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.failed(e))?;
        for entry in released {
            sqlx::query("DELETE FROM quarantine WHERE tenant = ? AND collection = ? AND source = ? AND name = ?")
                .bind(tenant.as_str())
                .bind(collection.base().to_owned())
                .bind(&entry.source)
                .bind(entry.name())
                .execute(&mut *transaction)
                .await
                .map_err(|e| self.failed(e))?;
        }
        for entry in rejected {
            sqlx::query(
                "INSERT INTO quarantine (tenant, collection, source, name, place, document, reason, run, since, last) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET place = excluded.place, reason = excluded.reason, run = excluded.run, last = excluded.last",
            )
            .bind(tenant.as_str())
            .bind(collection.base().to_owned())
            .bind(&entry.source)
            .bind(entry.name())
            .bind(&entry.place)
            .bind(entry.document.as_ref().map(DocumentId::as_str))
            .bind(&entry.reason)
            .bind(entry.run.to_string())
            .bind(entry.since)
            .bind(entry.last)
            .execute(&mut *transaction)
            .await
            .map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// What is rejected now, by source and place; of one source where it is named.
    pub async fn quarantined(&self, tenant: &Tenant, collection: &Collection, source: Option<&str>) -> Result<Vec<Quarantined>, Error> {
        let query = sqlx::query(
            "SELECT source, place, document, reason, run, since, last FROM quarantine WHERE tenant = ?1 AND collection = ?2 AND (?3 IS NULL OR source = ?3) ORDER BY source, place",
        );
        let query = query.bind(tenant.as_str()).bind(collection.base().to_owned()).bind(source.map(str::to_owned));
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let read = |row: &SqliteRow| -> Result<Quarantined, Error> {
            let text = |column: &str| row.try_get::<String, _>(column).map_err(|e| self.failed(e));
            let document: Option<String> = row.try_get("document").map_err(|e| self.failed(e))?;
            Ok(Quarantined {
                source: text("source")?,
                place: text("place")?,
                document: document.map(DocumentId::new).transpose().map_err(|e| self.broken(&e))?,
                reason: text("reason")?,
                run: text("run")?.parse().map_err(|e: uuid::Error| self.broken(&e))?,
                since: row.try_get("since").map_err(|e| self.failed(e))?,
                last: row.try_get("last").map_err(|e| self.failed(e))?,
            })
        };
        rows.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;

    #[tokio::test]
    async fn a_document_is_quarantined_until_it_is_all_right() {
        let folder = tempfile::tempdir().unwrap();
        let (tenant, other, collection) = (Tenant::default(), Tenant::new("other").unwrap(), Collection::new("c").unwrap());
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let entry = |place: &str, document: Option<&str>, at: i64| Quarantined {
            source: "docs".into(),
            place: place.into(),
            document: document.map(|id| DocumentId::new(id).unwrap()),
            reason: format!("is bad at {at}"),
            run: Uuid::from_u128(at as u128),
            since: at,
            last: at,
        };
        catalog.quarantine(&tenant, &collection, &[entry("docs/a.pdf", Some("a.pdf"), 1), entry("docs/x", None, 1)], &[]).await.unwrap();
        catalog
            .quarantine(&tenant, &collection.generation(2), &[entry("docs/a.pdf", Some("a.pdf"), 5)], &[entry("docs/x", None, 0)])
            .await
            .unwrap();
        let expected = Quarantined { since: 1, ..entry("docs/a.pdf", Some("a.pdf"), 5) };
        assert_eq!(catalog.quarantined(&tenant, &collection, None).await.unwrap(), std::slice::from_ref(&expected));
        assert_eq!(catalog.quarantined(&tenant, &collection, Some("docs")).await.unwrap(), [expected]);
        assert_eq!(catalog.quarantined(&tenant, &collection, Some("else")).await.unwrap(), []);
        assert_eq!(catalog.quarantined(&other, &collection, None).await.unwrap(), []);
    }
}
