//! Trained models out of the registry, as files for other programs, and adapters of other programs into it.

use super::error::JobsError;
use super::service::{Jobs, model_name};
use super::{AdapterKind, blocking_adapter};
use crate::{MergedPrecision, copy_peft, export_gguf, export_merged, export_peft, import_peft};
use groundtone_catalog::ModelRecord;
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What a trained model is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// The adapter as PEFT saves one: transformers, PEFT and vLLM load it over the original weights.
    Peft,
    /// Base and adapter in one, as transformers loads a model.
    Merged,
    /// Base and adapter in one, as llama.cpp loads a model.
    Gguf,
    /// The same with the trained matrices in eight bits (`Q8_0`): smaller, and quicker.
    #[serde(rename = "gguf-q8")]
    GgufQ8,
    /// The adapter as it is kept here: a GGUF file that llama.cpp applies to the base.
    Adapter,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The model, by its own name.
    pub model: String,
    /// The model below it.
    pub base: String,
    /// As what.
    pub format: ExportFormat,
    /// The files.
    pub files: Vec<PathBuf>,
}

/// An adapter that another program trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAdapter {
    /// As PEFT saved it.
    pub folder: PathBuf,
    /// The base model that it was trained on, as clients name it; not needed where there is only one.
    #[serde(default)]
    pub model: Option<String>,
    /// The suffix of the new name, or a whole name that begins with `ft:`.
    pub name: String,
}

impl Jobs {
    /// Writes a trained model into a folder that is not there yet, or is empty. It appears whole or not at all.
    ///
    /// # Errors
    /// There is no such model, its base model's file is missing, or the folder cannot be written.
    pub async fn export(&self, tenant: &Tenant, id: &str, format: ExportFormat, to: &Path) -> Result<Exported, JobsError> {
        let model = self.parts.catalog.model(tenant, id).await?.ok_or_else(|| JobsError::NoModel { id: id.to_owned() })?;
        let adapter = self.settings.directory.join(&model.adapter);
        let base = self.parts.workshop.model_file(&model.base);
        let (to, base_name) = (to.to_owned(), model.base.clone());
        let files = blocking_adapter(move || {
            let is_free = match std::fs::read_dir(&to) {
                Ok(mut entries) => entries.next().is_none(),
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            };
            if !is_free {
                return Err(JobsError::Folder { path: to, reason: "is there already, and not empty".to_owned() });
            }
            let failed = |error: std::io::Error| JobsError::Folder { path: to.clone(), reason: error.to_string() };
            let name = to.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidFilename.into()))?;
            let unfinished = to.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), Uuid::now_v7().simple()));
            std::fs::create_dir_all(&unfinished).map_err(failed)?;
            let written = write(&adapter, base.as_deref(), &base_name, format, &unfinished);
            let files = match written {
                Ok(files) => files,
                Err(error) => {
                    std::fs::remove_dir_all(&unfinished).map_err(failed)?;
                    return Err(error);
                }
            };
            std::fs::rename(&unfinished, &to).map_err(failed)?;
            Ok(files.iter().filter_map(|file| file.file_name()).map(|name| to.join(name)).collect())
        });
        Ok(Exported { model: model.id, base: model.base, format, files: files.await? })
    }

    /// Makes a model of an adapter that PEFT saved. It answers when this returns.
    ///
    /// # Errors
    /// A base model that is not mapped, a name that is taken, an adapter that cannot be applied to the base.
    pub async fn import_adapter(&self, tenant: &Tenant, new: NewAdapter) -> Result<ModelRecord, JobsError> {
        let workshop = &self.parts.workshop;
        let names = workshop.names();
        let asked = match (&new.model, names.as_slice()) {
            (Some(model), _) => model.clone(),
            (None, [only]) => only.clone(),
            (None, _) => return Err(JobsError::WhichBase { mapped: names }),
        };
        let base = workshop.trained_model(&asked).ok_or_else(|| JobsError::Model { model: asked.clone(), mapped: names })?;
        let chance = Uuid::new_v4();
        let id = if new.name.starts_with("ft:") { new.name.clone() } else { model_name(&asked, tenant, Some(&new.name), chance) };
        let catalog = &self.parts.catalog;
        if catalog.model(tenant, &id).await?.is_some() || workshop.trained_model(&id).is_some() {
            return Err(JobsError::NameTaken { id });
        }
        let place = PathBuf::from("tuning").join(tenant.as_str()).join("imported").join(chance.simple().to_string());
        let (kind, file) = (self.parts.shelf.adapter_kind(), workshop.model_file(&base));
        let place = if kind == AdapterKind::Gguf { place.with_extension("gguf") } else { place };
        let (to, folder, of) = (self.settings.directory.join(&place), new.folder, base.clone());
        blocking_adapter(move || {
            let failed = |error: std::io::Error| JobsError::Folder { path: to.clone(), reason: error.to_string() };
            to.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
            match (kind, file) {
                (AdapterKind::Peft, _) => copy_peft(&folder, &to).map(drop)?,
                (AdapterKind::Gguf, Some(file)) => import_peft(&folder, &file, &to)?,
                (AdapterKind::Gguf, None) => return Err(JobsError::NoModel { id: of }),
            }
            Ok(())
        })
        .await?;
        let created_at = self.now();
        let model = ModelRecord { id, created_at, base, adapter: place, job: None, checkpoint: false, training_sha256: None };
        let loaded = match self.open(tenant, &model).await {
            Ok(_) => catalog.put_model(tenant, &model).await.map_err(JobsError::from),
            Err(error) => Err(JobsError::Load(error)),
        };
        if loaded.is_err() {
            self.remove_adapter(tenant, &model).await;
        }
        loaded.map(|()| model)
    }
}

/// Blocks; files of a few gigabytes where base and adapter become one.
fn write(adapter: &Path, base: Option<&Path>, base_name: &str, format: ExportFormat, folder: &Path) -> Result<Vec<PathBuf>, JobsError> {
    if adapter.is_dir() {
        return match format {
            ExportFormat::Peft | ExportFormat::Adapter => Ok(copy_peft(adapter, folder)?),
            ExportFormat::Merged | ExportFormat::Gguf | ExportFormat::GgufQ8 => {
                let reason = "cannot be written: this model's base is on another server; export it as `peft`".to_owned();
                Err(JobsError::Folder { path: folder.to_owned(), reason })
            }
        };
    }
    let base = base.ok_or_else(|| JobsError::NoModel { id: base_name.to_owned() });
    Ok(match format {
        ExportFormat::Peft => export_peft(adapter, base?, base_name, folder)?,
        ExportFormat::Merged => export_merged(adapter, base?, folder)?,
        ExportFormat::Gguf | ExportFormat::GgufQ8 => {
            let file = folder.join("model.gguf");
            let precision = if format == ExportFormat::Gguf { MergedPrecision::Half } else { MergedPrecision::Eight };
            export_gguf(adapter, base?, precision, &file)?;
            vec![file]
        }
        ExportFormat::Adapter => {
            let file = folder.join("adapter.gguf");
            std::fs::copy(adapter, &file).map_err(|error| JobsError::Folder { path: file.clone(), reason: error.to_string() })?;
            vec![file]
        }
    })
}
