//! Uploaded files in collections: what is behind `/v1/vector_stores`.

use crate::error::ApiError;
use crate::state::Documents;
use groundtone_catalog::{Error as CatalogError, FileRecord, StoreFileRecord, StoreFileStatus};
use groundtone_ingest::IngestSettings;
use groundtone_ingest::source::PushedDocument;
use groundtone_types::{Collection, DocumentId, Metadata, Tenant};
use std::path::Path;
use std::sync::Arc;

/// The source of documents that came as uploaded files; no other run touches them.
const FILES: &str = "files";

fn failed(error: &CatalogError) -> ApiError {
    ApiError::of(error.kind(), error)
}

/// The document that an uploaded file becomes: its id is unique, and its name is what a reader sees.
pub(crate) fn document_of(file: &FileRecord) -> String {
    format!("{}/{}", file.id, file.filename)
}

/// File id and name of such a document; any other document is its own file.
pub(crate) fn file_of(document: &str) -> (&str, &str) {
    match document.split_once('/') {
        Some((id, name)) if id.starts_with("file-") => (id, name),
        _ => (document, document.rsplit('/').next().unwrap_or(document)),
    }
}

impl Documents {
    /// Reads a file into a store and notes how that went. The row is there from the beginning; whatever ends the reading, the next look finds out.
    pub(crate) async fn attach(
        &self,
        tenant: &Tenant,
        store: &Collection,
        file: &FileRecord,
        bytes: Vec<u8>,
        mut record: StoreFileRecord,
    ) -> Result<StoreFileRecord, ApiError> {
        let ending = Path::new(&file.filename).extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        let id = DocumentId::new(document_of(file)).map_err(|error| ApiError::invalid("file_id", error.to_string()))?;
        let document = PushedDocument { id: id.clone(), bytes, ending, title: None, url: String::new(), metadata: Metadata::default() };
        let settings = IngestSettings { collection: store.clone(), source: FILES.to_owned(), ..self.run_settings(tenant) };
        let _turn = self.turn.lock().await;
        let outcome = self.ingester.run(Arc::new(document), &settings, &|_| {}).await;
        (record.status, record.error) = match outcome {
            Ok(report) => match report.rejected.first() {
                Some(rejection) => (StoreFileStatus::Failed, Some((error_code(&rejection.reason).to_owned(), rejection.reason.clone()))),
                None if report.new + report.changed + report.unchanged > 0 => (StoreFileStatus::Completed, None),
                None => (StoreFileStatus::Failed, Some(("unsupported_file".to_owned(), "is of a format that is not read".to_owned()))),
            },
            Err(error) => {
                tracing::warn!(%error, "a file could not be read into a vector store");
                (StoreFileStatus::Failed, Some(("server_error".to_owned(), error.to_string())))
            }
        };
        // The store or the file may have been deleted meanwhile: then nothing of it may stay.
        if self.catalog.store_file(tenant, store, &record.file).await.map_err(|error| failed(&error))?.is_none() {
            self.remove_document(tenant, store, &id).await?;
            return Ok(record);
        }
        self.catalog.put_store_file(tenant, store, &record).await.map_err(|error| failed(&error))?;
        Ok(record)
    }

    /// Takes a file out of a store; false if it was not in it.
    pub(crate) async fn detach(&self, tenant: &Tenant, store: &Collection, file: &str) -> Result<bool, ApiError> {
        let Some(record) = self.catalog.store_file(tenant, store, file).await.map_err(|error| failed(&error))? else { return Ok(false) };
        let id = DocumentId::new(record.document).map_err(|error| ApiError::invalid("file_id", error.to_string()))?;
        let _turn = self.turn().await?;
        self.remove_document(tenant, store, &id).await?;
        self.catalog.delete_store_file(tenant, store, file).await.map_err(|error| failed(&error))
    }

    async fn remove_document(&self, tenant: &Tenant, store: &Collection, id: &DocumentId) -> Result<(), ApiError> {
        let ingest_failed = |error: groundtone_ingest::Error| ApiError::of(error.kind(), &error);
        let live = self.ingester.live(store).await.map_err(ingest_failed)?;
        let stored = self.catalog.document(tenant, &live, id).await.map_err(|error| failed(&error))?;
        if stored.is_some() {
            self.ingester.delete(tenant, store, id).await.map_err(ingest_failed)?;
        }
        Ok(())
    }

    /// Removes a store with everything in it. Its rows go first, so that nothing is searched in a half of it; the collection is the tenant's alone.
    pub(crate) async fn remove_store(&self, tenant: &Tenant, store: &Collection) -> Result<bool, ApiError> {
        let _turn = self.turn().await?;
        if !self.catalog.delete_store(tenant, store).await.map_err(|error| failed(&error))? {
            return Ok(false);
        }
        self.ingester.remove_collection(store).await.map_err(|error| ApiError::of(error.kind(), &error))?;
        Ok(true)
    }
}

/// OpenAI's word for why a file was rejected.
fn error_code(reason: &str) -> &'static str {
    if reason.contains("format") || reason.contains("not read") { "unsupported_file" } else { "invalid_file" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_knows_its_file() {
        let file = FileRecord {
            id: "file-01".into(),
            filename: "Returns 2026.md".into(),
            purpose: "assistants".into(),
            bytes: 1,
            sha256: String::new(),
            created_at: 0,
            expires_at: None,
        };
        assert_eq!(file_of(&document_of(&file)), ("file-01", "Returns 2026.md"));
        assert_eq!(file_of("policies/returns.md"), ("policies/returns.md", "returns.md"));
    }
}
