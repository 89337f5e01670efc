//! Where a model comes from: its job, the rows, the prompt they were rendered with, the snippets in them, and the documents those were cut from.

use super::error::JobsError;
use super::service::Jobs;
use groundtone_catalog::{DatasetRecord, DatasetSnippet, HyperparameterChoice};
use groundtone_types::{Collection, DocumentId, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Everything that is known of where a model comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The model, by its own name.
    pub model: String,
    /// The model below it.
    pub base: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Of the adapter's file, SHA-256 in hexadecimal; `None` where it cannot be read, or is a folder.
    pub adapter_sha256: Option<String>,
    /// The training; `None` for a model that was imported.
    pub job: Option<JobOrigin>,
    /// Of the rows that it was trained on, SHA-256 in hexadecimal.
    pub training_sha256: Option<String>,
    /// Of the prompt that the rows were rendered with.
    pub prompt_fingerprint: Option<String>,
    /// The manifest of the rows, as the dataset builder wrote it.
    pub dataset: Option<Value>,
    /// The documents whose snippets stand in the rows.
    pub documents: Vec<DocumentOrigin>,
    /// Where the chain ends, in sentences; empty for one that is whole.
    pub unknown: Vec<String>,
}

/// The training that left a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobOrigin {
    /// Its id.
    pub id: String,
    /// Unix seconds.
    pub finished_at: Option<i64>,
    /// The base model, as the client named it.
    pub model: String,
    /// `supervised` or `dpo`.
    pub method: String,
    /// What it was trained with.
    pub hyperparameters: Option<HyperparameterChoice>,
    /// Decides everything that is random.
    pub seed: u32,
    /// The uploaded file; it may be gone.
    pub training_file: String,
    /// The uploaded file; it may be gone.
    pub validation_file: Option<String>,
    /// Tokens of all epochs.
    pub trained_tokens: Option<u64>,
}

/// A document now, compared with what a model learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentState {
    /// The same bytes.
    Same,
    /// Other bytes.
    Changed,
    /// No longer indexed.
    Gone,
    /// The manifest has no hash of it.
    Unknown,
}

/// A document whose snippets stand in the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentOrigin {
    /// Its id.
    pub document: String,
    /// Of its bytes as they were when the rows were made, SHA-256 in hexadecimal.
    pub sha256: Option<String>,
    /// What it is now.
    pub now: DocumentState,
    /// What stands in the rows of it.
    pub snippets: Vec<DatasetSnippet>,
}

impl Jobs {
    /// The chain from a model to the documents behind it. An alias is followed.
    ///
    /// # Errors
    /// There is no such model.
    pub async fn lineage(&self, tenant: &Tenant, id: &str) -> Result<Lineage, JobsError> {
        let catalog = &self.parts.catalog;
        let model = catalog.model(tenant, id).await?.ok_or_else(|| JobsError::NoModel { id: id.to_owned() })?;
        let mut unknown = Vec::new();
        let job = match &model.job {
            Some(job) => catalog.job(tenant, job).await?,
            None => None,
        };
        match (&model.job, &job) {
            (None, _) => unknown.push("it was imported: who trained it, and on what, is not known here".to_owned()),
            (Some(id), None) => unknown.push(format!("its job `{id}` is not known here any longer")),
            (Some(_), Some(_)) => {}
        }
        let dataset = match &model.training_sha256 {
            Some(sha256) => catalog.dataset(tenant, sha256).await?,
            None => None,
        };
        if dataset.is_none() && job.is_some() {
            unknown.push(
                "no manifest came with its rows: `groundtone dataset build` writes one, and `groundtone tune create` sends it along"
                    .to_owned(),
            );
        }
        let adapter = self.settings.directory.join(&model.adapter);
        let adapter_sha256 = tokio::task::spawn_blocking(move || hash(&adapter)).await.ok().flatten();
        let (manifest, documents) = match dataset {
            Some(dataset) => (Some(dataset.manifest.clone()), self.origins(tenant, dataset).await?),
            None => (None, Vec::new()),
        };
        let fingerprint = manifest.as_ref().and_then(|manifest| manifest["build"]["prompt_fingerprint"].as_str());
        Ok(Lineage {
            prompt_fingerprint: fingerprint.map(str::to_owned),
            job: job.map(|job| JobOrigin {
                id: job.id,
                finished_at: job.finished_at,
                model: job.model,
                method: job.method,
                hyperparameters: job.used,
                seed: job.seed,
                training_file: job.training_file,
                validation_file: job.validation_file,
                trained_tokens: job.trained_tokens,
            }),
            model: model.id,
            base: model.base,
            created_at: model.created_at,
            training_sha256: model.training_sha256,
            adapter_sha256,
            dataset: manifest,
            documents,
            unknown,
        })
    }

    async fn origins(&self, tenant: &Tenant, dataset: DatasetRecord) -> Result<Vec<DocumentOrigin>, JobsError> {
        let collection = dataset.manifest["build"]["generation"].as_str().and_then(|name| Collection::new(name).ok());
        let serving = dataset.manifest["build"]["collection"].as_str().and_then(|name| Collection::new(name).ok());
        let mut origins = Vec::new();
        for document in dataset.documents {
            let mut found = None;
            // The generation that the rows were made of may be gone; then the collection under its own name is asked.
            for place in [&collection, &serving].into_iter().flatten() {
                if found.is_none()
                    && let Ok(id) = DocumentId::new(&document.document)
                {
                    found = self.parts.catalog.document(tenant, place, &id).await?;
                }
            }
            let now = match (&document.sha256, found) {
                (None, _) => DocumentState::Unknown,
                (Some(_), None) => DocumentState::Gone,
                (Some(then), Some(record)) if record.content_hash.as_str() == then => DocumentState::Same,
                (Some(_), Some(_)) => DocumentState::Changed,
            };
            origins.push(DocumentOrigin { document: document.document, sha256: document.sha256, now, snippets: document.snippets });
        }
        Ok(origins)
    }
}

fn hash(path: &Path) -> Option<String> {
    let mut sum = Sha256::new();
    let mut file = std::fs::File::open(path).ok()?;
    std::io::copy(&mut file, &mut sum).ok()?;
    Some(hex::encode(sum.finalize()))
}
