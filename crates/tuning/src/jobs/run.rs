//! The scheduler: reads the files of new jobs, trains one after the other, and ends them.

use super::error::JobsError;
use super::service::Jobs;
use super::state::JobEvent;
use super::watch::Place;
use super::{result_csv, service::shelf_id};
use crate::{End, Estimate, Hyperparameters, Method, Outcome, TrainError, Trainer, TrainingRequest};
use groundtone_catalog::{HyperparameterChoice, JobError, JobRecord, JobStatus, ModelRecord, NewFile};
use groundtone_types::Tenant;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often webhooks are looked after where nothing else happens.
const IDLE: Duration = Duration::from_secs(5);
/// Attempts at loading a new model where that may pass later, and the first pause between them; each one is twice as long as the one before.
const LOADS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Beta of DPO where nobody says (Rafailov et al. 2023).
const BETA: f64 = 0.1;

/// A job's files below its folder.
const TRAINING: &str = "training.jsonl";
const VALIDATION: &str = "validation.jsonl";

impl Jobs {
    /// Works until `stop`, then lets the running training write a checkpoint. Jobs that the last process left running are queued again first.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), JobsError> {
        for (tenant, job) in self.parts.catalog.jobs_with(JobStatus::Running).await? {
            let message = format!("The server was restarted; the job goes on from its last checkpoint (step {})", job.step);
            self.happen(&tenant, &job.id, JobEvent::Interrupted, vec![self.said(message)], |_| {}).await?;
        }
        // What a process left behind that ended before it had cleaned up.
        for status in [JobStatus::Failed, JobStatus::Cancelled] {
            for (tenant, job) in self.parts.catalog.jobs_with(status).await? {
                if self.folder(&tenant, &job.id).is_dir() {
                    self.discard(&tenant, &job.id).await;
                }
            }
        }
        let tasks = TaskTracker::new();
        while !stop.is_cancelled() {
            for (tenant, job) in self.parts.catalog.jobs_with(JobStatus::ValidatingFiles).await? {
                self.clone().read_files(&tenant, job).await;
            }
            for (tenant, job) in self.parts.catalog.jobs_with(JobStatus::Queued).await? {
                if self.active.len() >= self.settings.parallel || stop.is_cancelled() {
                    break;
                }
                self.clone().start(tenant, job, &tasks);
            }
            if let Err(error) = self.send_webhooks().await {
                tracing::warn!(%error, "webhooks could not be read");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
        self.active.pause_all();
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    /// Copies a job's files out of reach of their deletion, checks them, and queues the job, or ends it.
    async fn read_files(self: Arc<Self>, tenant: &Tenant, job: JobRecord) {
        let read = self.checked(tenant, &job).await;
        let id = job.id;
        let done = match read {
            Ok((estimate, used)) => {
                // A program that trains does not say beforehand how it reads the rows.
                let tokens = if estimate.tokens > 0 { format!(", {} tokens an epoch", estimate.tokens) } else { String::new() };
                let text = format!("Files validated, moving job to queued state: {} rows{tokens}", estimate.rows);
                self.happen(tenant, &id, JobEvent::FilesRead, vec![self.said(text)], |job| {
                    job.used = Some(used);
                    job.total_steps = Some(estimate.steps);
                })
                .await
            }
            Err(error) => self.fail(tenant, &id, error).await,
        };
        note(&id, done.map(|_| ()));
        self.clean_after(tenant, &id).await;
    }

    /// Whoever calls a job off while it is worked on leaves its files to the worker.
    async fn clean_after(&self, tenant: &Tenant, id: &str) {
        match self.job(tenant, id).await {
            Ok(job) if job.status == JobStatus::Cancelled => self.discard(tenant, id).await,
            Ok(_) => {}
            Err(error) => note(id, Err(error)),
        }
    }

    async fn checked(&self, tenant: &Tenant, job: &JobRecord) -> Result<(Estimate, HyperparameterChoice), JobError> {
        let folder = self.folder(tenant, &job.id);
        let mut wanted = vec![("training_file", &job.training_file, TRAINING)];
        wanted.extend(job.validation_file.as_ref().map(|file| ("validation_file", file, VALIDATION)));
        for (param, id, name) in wanted {
            let found = self.parts.files.locate(tenant, id).await.map_err(|error| internal(&error))?;
            let (_, path) = found.ok_or_else(|| JobError {
                code: "file_not_found".to_owned(),
                message: format!("File {id} was deleted before the job read it"),
                param: Some(param.to_owned()),
            })?;
            let (check, method, to, folder) = (self.parts.check.clone(), job.method.clone(), folder.join(name), folder.clone());
            let copied = blocking(move || {
                copy(&path, &to, &folder).map_err(|error| internal(&error))?;
                check.check(&to, &method, param == "validation_file").map_err(|problem| problem.of(param))
            });
            copied.await?;
        }
        let trainer = self.trainer(job).await?;
        let (base, job) = (self.settings.hyperparameters.clone(), job.clone());
        // The number of rows decides what "auto" is, so the files are read once with one epoch.
        blocking(move || {
            let once = Hyperparameters { n_epochs: 1, seed: u64::from(job.seed), ..base.clone() };
            let rows = trainer.estimate(&request(&folder, &job, once)).map_err(|error| of_trainer(&error))?.rows;
            let used = resolve(&job, &base, rows);
            let estimate = trainer.estimate(&request(&folder, &job, filled(&base, &job, &used))).map_err(|error| of_trainer(&error))?;
            Ok((estimate, used))
        })
        .await
    }

    async fn trainer(&self, job: &JobRecord) -> Result<Arc<dyn Trainer>, JobError> {
        let (workshop, model) = (self.parts.workshop.clone(), job.trained_model.clone());
        blocking(move || workshop.trainer(&model).map_err(|error| of_trainer(&error))).await
    }

    fn start(self: Arc<Self>, tenant: Tenant, job: JobRecord, tasks: &TaskTracker) {
        // One that was just paused and resumed still writes its checkpoint, and has its place.
        let Some(place) = self.active.enter(&tenant, &job.id) else { return };
        tasks.spawn(async move {
            self.train(&tenant, &job, &place).await;
            drop(place);
            self.clean_after(&tenant, &job.id).await;
            self.wake.notify_one();
        });
    }

    /// From the queue to the end, or to the next pause.
    async fn train(self: &Arc<Self>, tenant: &Tenant, job: &JobRecord, place: &Place) {
        let id = job.id.as_str();
        let trainer = match self.fitting_trainer(tenant, job).await {
            Ok(trainer) => trainer,
            Err(error) => return note(id, self.fail(tenant, id, error).await.map(|_| ())),
        };
        let begun = self.happen(tenant, id, JobEvent::Started, vec![self.said("Fine-tuning job started")], |_| {}).await;
        let job = match begun {
            Ok(job) => job,
            // Paused or cancelled in the meantime.
            Err(error) => return note(id, Err(error)),
        };
        let outcome = self.clone().on_own_thread(tenant, &job, trainer, place).await;
        let current = match self.job(tenant, id).await {
            Ok(job) => job.status,
            Err(error) => return note(id, Err(error)),
        };
        let done = match (current, outcome) {
            (JobStatus::Running, Ok(Outcome { end: End::Finished, adapter: Some(adapter), trained_tokens, checkpoints, .. })) => {
                for checkpoint in &checkpoints {
                    note(id, self.note_checkpoint(tenant, &job, checkpoint).await);
                }
                self.succeed(tenant, &job, &adapter, trained_tokens).await
            }
            (JobStatus::Running, Ok(Outcome { end: End::Finished, adapter: None, .. })) => {
                self.fail(tenant, id, internal(&"the trainer left no adapter")).await.map(|_| ())
            }
            // Nobody paused the job: the process is about to end.
            (JobStatus::Running, Ok(_)) => {
                let events = vec![self.said("The server is stopping; the job goes on when it is started again")];
                self.happen(tenant, id, JobEvent::Interrupted, events, |_| {}).await.map(|_| ())
            }
            (JobStatus::Running, Err(error)) => self.fail(tenant, id, error).await.map(|_| ()),
            _ => Ok(()),
        };
        note(id, done);
    }

    /// A trainer, if the machine has room for the training.
    async fn fitting_trainer(&self, tenant: &Tenant, job: &JobRecord) -> Result<Arc<dyn Trainer>, JobError> {
        let trainer = self.trainer(job).await?;
        let (request, resources, asked) = (self.request(tenant, job), self.parts.resources.clone(), trainer.clone());
        blocking(move || resources().check(&asked.estimate(&request).map_err(|error| of_trainer(&error))?)).await?;
        Ok(trainer)
    }

    fn request(&self, tenant: &Tenant, job: &JobRecord) -> TrainingRequest {
        let used = job.used.unwrap_or_default();
        request(&self.folder(tenant, &job.id), job, filled(&self.settings.hyperparameters, job, &used))
    }

    /// The training itself, on a thread of its own. What it reports is in the catalog before its next step: what a checkpoint on the disk stands for is never missing there.
    async fn on_own_thread(
        self: Arc<Self>,
        tenant: &Tenant,
        job: &JobRecord,
        trainer: Arc<dyn Trainer>,
        place: &Place,
    ) -> Result<Outcome, JobError> {
        let request = self.request(tenant, job);
        let (signal, runtime) = (place.signal.clone(), tokio::runtime::Handle::current());
        let (tenant, job, jobs) = (tenant.clone(), job.clone(), self);
        blocking(move || {
            let mut reporter = super::progress::Reporter::new(jobs, tenant, job);
            let mut lost = None;
            let outcome = trainer.train(&request, &|| signal.command(), &mut |progress| {
                if lost.is_none()
                    && let Err(error) = runtime.block_on(reporter.take(progress))
                {
                    // Without its records a training is worth nothing; it goes on from its checkpoint when the disk is well again.
                    lost = Some(internal(&error));
                    signal.cancel();
                }
            });
            if let Err(error) = runtime.block_on(reporter.flush()) {
                lost = lost.or_else(|| Some(internal(&error)));
            }
            match lost {
                Some(error) => Err(error),
                None => outcome.map_err(|error| of_trainer(&error)),
            }
        })
        .await
    }

    async fn succeed(&self, tenant: &Tenant, job: &JobRecord, adapter: &Path, tokens: u64) -> Result<(), JobsError> {
        let model = self.model_record(job, &job.model_name, adapter, false);
        if let Err(error) = self.open_patiently(tenant, &model).await {
            let error = JobError { code: "model_not_loaded".to_owned(), message: error.to_string(), param: None };
            return self.fail(tenant, &job.id, error).await.map(|_| ());
        }
        let csv = result_csv(&self.parts.catalog.steps(tenant, &job.id).await?);
        let new = NewFile { filename: "step_metrics.csv".to_owned(), purpose: "fine-tune-results".to_owned(), expires_at: None };
        self.parts.files.put(tenant, &job.result_file, new, csv.as_bytes(), self.now()).await?;
        self.parts.catalog.put_model(tenant, &model).await?;
        let events =
            vec![self.said(format!("New fine-tuned model created: {}", model.id)), self.said("The job has successfully completed")];
        let done = self.happen(tenant, &job.id, JobEvent::Finished, events, |job| job.trained_tokens = Some(tokens)).await;
        match done {
            Ok(_) => self.remove_rows(tenant, &job.id).await,
            Err(_) => {
                // Called off or paused in the last moment. Paused, it ends in the same way when it is resumed.
                self.parts.catalog.delete_model(tenant, &model.id).await?;
                self.parts.files.remove(tenant, &job.result_file).await?;
                self.parts.shelf.forget(&shelf_id(tenant, &model.id)).await;
            }
        }
        Ok(())
    }

    /// A training is worth more than a minute of a server that is away.
    async fn open_patiently(&self, tenant: &Tenant, model: &ModelRecord) -> Result<(), groundtone_provider::Error> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..LOADS {
            match self.open(tenant, model).await {
                Err(error) if error.is_passing() => tokio::time::sleep(pause).await,
                other => return other.map(drop),
            }
            pause *= 2;
        }
        self.open(tenant, model).await.map(drop)
    }

    pub(super) fn model_record(&self, job: &JobRecord, id: &str, adapter: &Path, checkpoint: bool) -> ModelRecord {
        ModelRecord {
            id: id.to_owned(),
            created_at: self.now(),
            base: job.trained_model.clone(),
            adapter: adapter.strip_prefix(&self.settings.directory).unwrap_or(adapter).to_owned(),
            job: Some(job.id.clone()),
            checkpoint,
            training_sha256: Some(job.training_sha256.clone()),
        }
    }

    async fn fail(&self, tenant: &Tenant, id: &str, error: JobError) -> Result<JobRecord, JobsError> {
        let mut event = self.said(error.message.clone());
        event.level = "error";
        let failed = self.happen(tenant, id, JobEvent::Failed, vec![event], |job| job.error = Some(error)).await;
        if failed.is_ok() {
            self.discard(tenant, id).await;
        }
        failed
    }

    /// Removes everything that a job without a model has on the disk, and its checkpoints.
    pub(super) async fn discard(&self, tenant: &Tenant, id: &str) {
        let clean = async {
            for model in self.parts.catalog.models_of_job(tenant, id).await? {
                self.parts.catalog.delete_model(tenant, &model.id).await?;
                self.parts.shelf.forget(&shelf_id(tenant, &model.id)).await;
            }
            self.parts.catalog.trim_checkpoints(tenant, id, 0).await
        };
        if let Err(error) = clean.await {
            tracing::warn!(job = id, %error, "the checkpoints of a job that is over could not be removed");
        }
        remove(&self.folder(tenant, id)).await;
    }

    async fn remove_rows(&self, tenant: &Tenant, id: &str) {
        let folder = self.folder(tenant, id);
        for name in [TRAINING, VALIDATION] {
            if let Err(error) = tokio::fs::remove_file(folder.join(name)).await
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(job = id, %error, "the copy of a job's rows could not be removed");
            }
        }
    }

    /// Removes a model's adapter, and its job's folder with the last of them.
    pub(super) async fn remove_adapter(&self, tenant: &Tenant, model: &ModelRecord) {
        let path = self.settings.directory.join(&model.adapter);
        let removed = if path.is_dir() { tokio::fs::remove_dir_all(&path).await } else { tokio::fs::remove_file(&path).await };
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(model = model.id, %error, "an adapter could not be removed");
        }
        let Some(job) = &model.job else { return };
        match self.parts.catalog.models_of_job(tenant, job).await {
            Ok(left) if left.is_empty() => remove(&self.folder(tenant, job)).await,
            _ => {}
        }
    }
}

fn request(folder: &Path, job: &JobRecord, hyperparameters: Hyperparameters) -> TrainingRequest {
    TrainingRequest {
        method: match job.method.as_str() {
            "dpo" => Method::Dpo { beta: job.used.and_then(|used| used.beta).or(job.asked.beta).unwrap_or(BETA) },
            _ => Method::Supervised,
        },
        training_file: folder.join(TRAINING),
        validation_file: job.validation_file.as_ref().map(|_| folder.join(VALIDATION)),
        hyperparameters,
        folder: folder.join("run"),
    }
}

/// What "auto" is for so many rows.
fn resolve(job: &JobRecord, base: &Hyperparameters, rows: u64) -> HyperparameterChoice {
    let auto = Hyperparameters::for_rows(rows);
    HyperparameterChoice {
        batch_size: job.asked.batch_size.or(Some(auto.batch_size)),
        learning_rate_multiplier: job.asked.learning_rate_multiplier.or(Some(base.learning_rate_multiplier)),
        n_epochs: job.asked.n_epochs.or(Some(auto.n_epochs)),
        beta: (job.method == "dpo").then(|| job.asked.beta.unwrap_or(BETA)),
    }
}

/// The trainer's settings with the job's own on top.
fn filled(base: &Hyperparameters, job: &JobRecord, used: &HyperparameterChoice) -> Hyperparameters {
    Hyperparameters {
        n_epochs: used.n_epochs.unwrap_or(base.n_epochs),
        batch_size: used.batch_size.unwrap_or(base.batch_size),
        learning_rate_multiplier: used.learning_rate_multiplier.unwrap_or(base.learning_rate_multiplier),
        seed: u64::from(job.seed),
        ..base.clone()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, JobError> + Send + 'static) -> Result<T, JobError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| internal(&error))?
}

fn internal(error: &dyn std::fmt::Display) -> JobError {
    JobError { code: "server_error".to_owned(), message: error.to_string(), param: None }
}

/// A trainer's error in a client's words: which file, which row, without a path of this machine.
fn of_trainer(error: &TrainError) -> JobError {
    let param = |path: &Path| if path.ends_with(VALIDATION) { "validation_file" } else { "training_file" };
    let job_error =
        |code: &str, message: String, param: Option<&str>| JobError { code: code.to_owned(), message, param: param.map(str::to_owned) };
    match error {
        TrainError::Row { path, line, reason } => {
            let message = format!("Invalid file format. Line {line}: {reason}");
            job_error("invalid_training_file", message, Some(param(path)))
        }
        TrainError::Empty { path } => job_error("invalid_n_examples", "The file has no examples".to_owned(), Some(param(path))),
        TrainError::Hyperparameter { name, reason } => {
            job_error("invalid_hyperparameter", format!("`{name}`: {reason}"), Some("hyperparameters"))
        }
        TrainError::Model { .. } => job_error("model_not_available", error.to_string(), Some("model")),
        TrainError::Diverged { .. } => job_error("training_diverged", error.to_string(), None),
        TrainError::Adapter { reason, .. } => job_error("trainer_failed", format!("the adapter cannot be used: {reason}"), None),
        TrainError::Program { .. } => job_error("trainer_failed", error.to_string(), None),
        other => internal(other),
    }
}

/// A hard link where the disk allows it: the file stays here when it is deleted there.
fn copy(from: &Path, to: &Path, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(|_| ()))
}

async fn remove(folder: &PathBuf) {
    if let Err(error) = tokio::fs::remove_dir_all(folder).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "a job's folder could not be removed");
    }
}

/// What nobody waits for is told to the log.
fn note(id: &str, done: Result<(), JobsError>) {
    match done {
        Ok(()) => {}
        Err(JobsError::Status { cause, .. }) => tracing::debug!(job = id, %cause, "somebody was faster"),
        Err(error) => tracing::error!(job = id, %error, "a job could not be changed"),
    }
}
