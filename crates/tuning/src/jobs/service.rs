use super::error::JobsError;
use super::state::{JobEvent, transition};
use super::watch::Active;
use super::{CheckRows, Resources, Shelf, Workshop};
use crate::Hyperparameters;
use groundtone_catalog::{
    Catalog, FileRecord, FileStore, HyperparameterChoice, JobRecord, JobStatus, ModelRecord, NewEvent, PendingWebhook,
};
use groundtone_provider::{ChatModel, SendWebhook};
use groundtone_types::Tenant;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;
use uuid::Uuid;

/// Purpose of files that can be trained on.
const PURPOSE: &str = "fine-tune";

/// What is allowed and where things go.
#[derive(Debug, Clone)]
pub struct JobsSettings {
    /// The data directory; jobs keep their files below `tuning/` in it.
    pub directory: PathBuf,
    /// Trainings at the same time.
    pub parallel: usize,
    /// Most jobs of a tenant that are not over.
    pub most_open_jobs: u64,
    /// What the client's hyperparameters do not say.
    pub hyperparameters: Hyperparameters,
}

/// What jobs are made of.
pub struct Parts {
    /// Where jobs are remembered.
    pub catalog: Arc<Catalog>,
    /// Where rows come from and results go.
    pub files: Arc<FileStore>,
    /// Where trainers come from.
    pub workshop: Arc<dyn Workshop>,
    /// Where the models go.
    pub shelf: Arc<dyn Shelf>,
    /// What reads rows before a training.
    pub check: Arc<dyn CheckRows>,
    /// Who is told when a job ends.
    pub webhook: Option<Arc<dyn SendWebhook>>,
    /// What the machine has.
    pub resources: Arc<dyn Fn() -> Resources + Send + Sync>,
    /// Unix seconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// What a client asks for. Ranges are checked before.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// The base model, as the client names it.
    pub model: String,
    /// An uploaded file.
    pub training_file: String,
    /// An uploaded file.
    pub validation_file: Option<String>,
    /// `supervised` or `dpo`.
    pub method: String,
    /// `None` is `auto`.
    pub hyperparameters: HyperparameterChoice,
    /// For the model's name.
    pub suffix: Option<String>,
    /// Chosen by chance where it is not given.
    pub seed: Option<u32>,
    /// The client's own notes.
    pub metadata: Option<Map<String, Value>>,
}

/// Jobs of all tenants. Calls change the catalog and return; [`Jobs::run`] does the work.
pub struct Jobs {
    pub(super) parts: Parts,
    pub(super) settings: JobsSettings,
    pub(super) active: Arc<Active>,
    pub(super) wake: Notify,
    /// One change of a job at a time: each is read, decided and written.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Jobs {
    /// Puts the parts together. Nothing runs before [`Self::run`].
    pub fn new(parts: Parts, settings: JobsSettings) -> Self {
        Self { parts, settings, active: Arc::default(), wake: Notify::new(), turn: tokio::sync::Mutex::default() }
    }

    /// Base models that can be trained, as clients name them.
    pub fn base_models(&self) -> Vec<String> {
        self.parts.workshop.names()
    }

    /// Makes a job. `key` is the client's idempotency key with a fingerprint of its request: the same key gives the same job.
    ///
    /// # Errors
    /// A base model or a file that cannot be used, or too many jobs.
    pub async fn create(&self, tenant: &Tenant, new: NewJob, key: Option<(&str, &str)>) -> Result<JobRecord, JobsError> {
        let workshop = &self.parts.workshop;
        let trained_model =
            workshop.trained_model(&new.model).ok_or_else(|| JobsError::Model { model: new.model.clone(), mapped: workshop.names() })?;
        let training = self.usable_file(tenant, "training_file", &new.training_file).await?;
        if let Some(id) = &new.validation_file {
            if *id == new.training_file {
                let message =
                    "`validation_file` must be another file than `training_file`: a model is not measured on what it has seen".to_owned();
                return Err(JobsError::File { param: "validation_file", message });
            }
            self.usable_file(tenant, "validation_file", id).await?;
        }
        let _turn = self.turn.lock().await;
        let (open, most) = (self.parts.catalog.open_jobs(tenant).await?, self.settings.most_open_jobs);
        let is_repeated = match key {
            Some((key, _)) => self.parts.catalog.has_job_key(tenant, key).await?,
            None => false,
        };
        if open >= most && !is_repeated {
            return Err(JobsError::Full { open, most });
        }
        let chance = Uuid::new_v4();
        let now = self.now();
        let job = JobRecord {
            id: format!("ftjob-{}", Uuid::now_v7().simple()),
            status: JobStatus::ValidatingFiles,
            created_at: now,
            model_name: model_name(&new.model, tenant, new.suffix.as_deref(), chance),
            result_file: format!("file-{}", Uuid::now_v7().simple()),
            model: new.model,
            trained_model,
            method: new.method,
            asked: new.hyperparameters,
            used: None,
            suffix: new.suffix,
            // The lower 31 bits: what the API allows.
            seed: new.seed.unwrap_or(Uuid::new_v4().as_fields().0 >> 1),
            training_file: new.training_file,
            validation_file: new.validation_file,
            training_sha256: training.sha256,
            metadata: new.metadata,
            error: None,
            finished_at: None,
            estimated_finish: None,
            trained_tokens: None,
            step: 0,
            total_steps: None,
            webhook: None,
        };
        let events = [
            self.said(format!("Created fine-tuning job: {}", job.id)),
            self.said(format!("Validating training file: {}", job.training_file)),
        ];
        let job = self.parts.catalog.insert_job(tenant, &job, &events, key).await?;
        self.wake.notify_one();
        Ok(job)
    }

    async fn usable_file(&self, tenant: &Tenant, param: &'static str, id: &str) -> Result<FileRecord, JobsError> {
        match self.parts.catalog.file(tenant, id).await? {
            Some(file) if file.purpose == PURPOSE => Ok(file),
            Some(file) => {
                let message = format!("file `{id}` was uploaded for `{}`, but a {param} must have the purpose `{PURPOSE}`", file.purpose);
                Err(JobsError::File { param, message })
            }
            None => Err(JobsError::File { param, message: format!("invalid {param}: there is no file `{id}`") }),
        }
    }

    /// One job.
    ///
    /// # Errors
    /// There is none.
    pub async fn job(&self, tenant: &Tenant, id: &str) -> Result<JobRecord, JobsError> {
        self.parts.catalog.job(tenant, id).await?.ok_or_else(|| JobsError::NotFound { id: id.to_owned() })
    }

    /// Calls a job off. The training stops before its next step.
    ///
    /// # Errors
    /// There is none, or it is over.
    pub async fn cancel(&self, tenant: &Tenant, id: &str) -> Result<JobRecord, JobsError> {
        let job = self.step_in(tenant, id, JobEvent::Cancelled, "Fine-tuning job cancelled").await?;
        if !self.active.is_active(tenant, id) {
            self.discard(tenant, id).await;
        }
        Ok(job)
    }

    /// Lets a job wait. The training writes a checkpoint before its next step, and frees the place for another job.
    ///
    /// # Errors
    /// There is none, or its files are not read yet, or it is over.
    pub async fn pause(&self, tenant: &Tenant, id: &str) -> Result<JobRecord, JobsError> {
        self.step_in(tenant, id, JobEvent::Paused, "Fine-tuning job paused").await
    }

    /// Puts a paused job into the queue again.
    ///
    /// # Errors
    /// There is none, or it is not paused.
    pub async fn resume(&self, tenant: &Tenant, id: &str) -> Result<JobRecord, JobsError> {
        self.step_in(tenant, id, JobEvent::Resumed, "Fine-tuning job resumed").await
    }

    async fn step_in(&self, tenant: &Tenant, id: &str, event: JobEvent, message: &str) -> Result<JobRecord, JobsError> {
        let events = vec![self.said(message)];
        let job = self.happen(tenant, id, event, events, |_| {}).await?;
        self.active.tell(tenant, id, event);
        self.wake.notify_one();
        Ok(job)
    }

    /// The one place where the status of a job changes.
    pub(super) async fn happen(
        &self,
        tenant: &Tenant,
        id: &str,
        event: JobEvent,
        events: Vec<NewEvent>,
        change: impl FnOnce(&mut JobRecord),
    ) -> Result<JobRecord, JobsError> {
        let _turn = self.turn.lock().await;
        let mut job = self.job(tenant, id).await?;
        let before = job.status;
        job.status = transition(before, event).map_err(|cause| JobsError::Status { id: id.to_owned(), cause })?;
        if job.status != JobStatus::Running {
            job.estimated_finish = None;
        }
        change(&mut job);
        if job.status.is_over() {
            let now = self.now();
            job.finished_at = Some(now);
            if self.parts.webhook.is_some() {
                job.webhook = Some(PendingWebhook { id: format!("evt_{}", Uuid::now_v7().simple()), attempts: 0, next_at: now });
            }
        }
        if !self.parts.catalog.update_job(tenant, &job, before, &events).await? {
            // Only this process changes jobs, and it does so in turn.
            return Err(JobsError::NotFound { id: id.to_owned() });
        }
        tracing::info!(job = id, from = %before, to = %job.status, "job changed");
        Ok(job)
    }

    /// The model that answers under this name: one that was trained here, a checkpoint, what an alias stands for, or a base model as it is. `None` where there is none.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub async fn chat_model(&self, tenant: &Tenant, name: &str) -> Result<Option<Arc<dyn ChatModel>>, groundtone_provider::Error> {
        let Parts { catalog, shelf, .. } = &self.parts;
        if let Some(model) = open_tuned(catalog, &**shelf, &self.settings.directory, tenant, name).await? {
            return Ok(Some(model));
        }
        match self.parts.workshop.trained_model(name) {
            Some(base) => self.parts.shelf.open_base(&base).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn open(&self, tenant: &Tenant, model: &ModelRecord) -> Result<Arc<dyn ChatModel>, groundtone_provider::Error> {
        open(&*self.parts.shelf, &self.settings.directory, tenant, model).await
    }

    /// Removes a model and its adapter; false if there was none.
    ///
    /// # Errors
    /// The catalog or the disk.
    pub async fn delete_model(&self, tenant: &Tenant, id: &str) -> Result<bool, JobsError> {
        if self.parts.catalog.delete_alias(tenant, id).await? {
            return Ok(true);
        }
        let Some(model) = self.parts.catalog.model(tenant, id).await? else { return Ok(false) };
        self.parts.catalog.delete_model(tenant, id).await?;
        self.parts.shelf.forget(&shelf_id(tenant, id)).await;
        self.remove_adapter(tenant, &model).await;
        Ok(true)
    }

    pub(super) fn now(&self) -> i64 {
        (self.parts.clock)()
    }

    pub(super) fn said(&self, message: impl Into<String>) -> NewEvent {
        NewEvent::info(format!("ftevent-{}", Uuid::now_v7().simple()), self.now(), message)
    }

    pub(super) fn folder(&self, tenant: &Tenant, id: &str) -> PathBuf {
        self.settings.directory.join("tuning").join(tenant.as_str()).join(id)
    }
}

async fn open(
    shelf: &dyn Shelf,
    directory: &Path,
    tenant: &Tenant,
    model: &ModelRecord,
) -> Result<Arc<dyn ChatModel>, groundtone_provider::Error> {
    shelf.open(&shelf_id(tenant, &model.id), model, &directory.join(&model.adapter)).await
}

/// The model that was trained under this name, a checkpoint, or what an alias stands for, loaded from the data directory; `None` where there is none.
///
/// # Errors
/// It cannot be loaded.
pub async fn open_tuned(
    catalog: &Catalog,
    shelf: &dyn Shelf,
    directory: &Path,
    tenant: &Tenant,
    name: &str,
) -> Result<Option<Arc<dyn ChatModel>>, groundtone_provider::Error> {
    let found = catalog.model(tenant, name).await;
    let found = found.map_err(|error| groundtone_provider::Error::Model { model: name.to_owned(), reason: error.to_string() })?;
    match found {
        Some(model) => open(shelf, directory, tenant, &model).await.map(Some),
        None => Ok(None),
    }
}

pub(super) fn shelf_id(tenant: &Tenant, model: &str) -> String {
    format!("{tenant}/{model}")
}

/// `ft:{base}:{organization}:{suffix}:{8 characters}`. The colons are there without a suffix as well; nothing else in the name has one.
pub(super) fn model_name(base: &str, tenant: &Tenant, suffix: Option<&str>, chance: Uuid) -> String {
    let plain = |text: &str| text.replace(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.')), "-");
    let tail: String = chance.simple().to_string().chars().take(8).collect();
    format!("ft:{}:{tenant}:{}:{tail}", plain(base), suffix.map(plain).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_have_five_parts() {
        let chance = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        for (base, suffix, name) in [
            ("gpt-4o-mini-2024-07-18", Some("voice"), "ft:gpt-4o-mini-2024-07-18:default:voice:01234567"),
            ("small", None, "ft:small:default::01234567"),
            ("org/small:1", Some("my: voice/ä"), "ft:org-small-1:default:my--voice-ä:01234567"),
        ] {
            assert_eq!(model_name(base, &Tenant::default(), suffix, chance), name);
        }
    }
}
