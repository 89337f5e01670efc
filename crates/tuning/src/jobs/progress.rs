//! What a training reports, as events, steps and checkpoints of its job.

use super::error::JobsError;
use super::service::{Jobs, shelf_id};
use crate::{Checkpoint, Metrics, Progress};
use groundtone_catalog::{CheckpointRecord, JobRecord, JobStatus, NewEvent, Page, StepRecord};
use groundtone_types::Tenant;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// Checkpoints that are kept, as OpenAI does.
pub(super) const KEPT_CHECKPOINTS: u32 = 3;
/// How much a step's own time weighs in the estimate of the rest.
const NEWEST_WEIGHT: f64 = 0.1;

/// Takes the reports of one training.
pub(super) struct Reporter {
    jobs: Arc<Jobs>,
    tenant: Tenant,
    job: JobRecord,
    total_steps: u64,
    /// The last step; its event waits for a validation of the same step, where there is a validation file.
    held: Option<StepRecord>,
    seconds_a_step: Option<f64>,
}

impl Reporter {
    pub(super) fn new(jobs: Arc<Jobs>, tenant: Tenant, job: JobRecord) -> Self {
        let total_steps = job.total_steps.unwrap_or_default();
        Self { jobs, tenant, job, total_steps, held: None, seconds_a_step: None }
    }

    pub(super) async fn take(&mut self, progress: Progress) -> Result<(), JobsError> {
        match progress {
            Progress::Started { total_steps, .. } => {
                self.total_steps = total_steps;
                let event = started(&self.jobs, &self.job, &progress);
                self.change(vec![event], |job| job.total_steps = Some(total_steps)).await
            }
            Progress::Step { step, train_loss, train_mean_token_accuracy, seconds, .. } => {
                self.flush().await?;
                let record = StepRecord { step, train_loss, train_accuracy: train_mean_token_accuracy, ..StepRecord::default() };
                self.jobs.parts.catalog.put_step(&self.tenant, &self.job.id, &record).await?;
                let average = self.seconds_a_step.map_or(seconds, |before| before + NEWEST_WEIGHT * (seconds - before));
                self.seconds_a_step = Some(average);
                self.held = Some(record);
                if self.job.validation_file.is_none() {
                    self.flush().await?;
                }
                Ok(())
            }
            Progress::Validation { step, loss, mean_token_accuracy, full } => {
                let Some(held) = self.held.as_mut().filter(|held| held.step == step) else { return Ok(()) };
                if full {
                    (held.full_valid_loss, held.full_valid_accuracy) = (Some(loss), Some(mean_token_accuracy));
                } else {
                    (held.valid_loss, held.valid_accuracy) = (Some(loss), Some(mean_token_accuracy));
                }
                self.jobs.parts.catalog.put_step(&self.tenant, &self.job.id, held).await?;
                Ok(())
            }
            Progress::Checkpoint(checkpoint) => {
                self.flush().await?;
                if checkpoint.epoch.is_none() {
                    return Ok(());
                }
                self.jobs.note_checkpoint(&self.tenant, &self.job, &checkpoint).await?;
                let event = self.jobs.said(format!("Checkpoint created at step {}", checkpoint.step));
                self.change(vec![event], |_| {}).await
            }
        }
    }

    /// Tells of the last step.
    pub(super) async fn flush(&mut self) -> Result<(), JobsError> {
        let Some(step) = self.held.take() else { return Ok(()) };
        let left = self.total_steps.saturating_sub(step.step);
        let rest = (self.seconds_a_step.unwrap_or_default() * left as f64).ceil() as i64;
        let finish = self.jobs.now().saturating_add(rest);
        let event = measured(&self.jobs, &step, self.total_steps);
        self.change(vec![event], |job| {
            job.step = step.step;
            job.estimated_finish = Some(finish);
        })
        .await
    }

    /// Changes the job while it runs. One that was paused or called off says nothing more.
    async fn change(&self, events: Vec<NewEvent>, change: impl FnOnce(&mut JobRecord)) -> Result<(), JobsError> {
        let _turn = self.jobs.turn.lock().await;
        let mut job = self.jobs.job(&self.tenant, &self.job.id).await?;
        if job.status == JobStatus::Running {
            change(&mut job);
            self.jobs.parts.catalog.update_job(&self.tenant, &job, JobStatus::Running, &events).await?;
        }
        Ok(())
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// What is trained with, in absolute numbers.
fn started(jobs: &Jobs, job: &JobRecord, progress: &Progress) -> NewEvent {
    let Progress::Started { total_steps, resumed_at, rows, cut_rows, validation_rows, trained_tokens, learning_rate, parameters } =
        *progress
    else {
        return jobs.said("Training");
    };
    let used = job.used.unwrap_or_default();
    let mut text = format!(
        "Training {rows} rows in {total_steps} steps; learning rate {learning_rate} ({} times the default), {parameters} parameters",
        used.learning_rate_multiplier.unwrap_or(1.0)
    );
    if cut_rows > 0 {
        text.push_str(&format!("; {cut_rows} rows are too long and lose their tail"));
    }
    if resumed_at > 0 {
        text.push_str(&format!("; going on after step {resumed_at}"));
    }
    let data = json!({
        "total_steps": total_steps, "resumed_at": resumed_at, "rows": rows, "cut_rows": cut_rows, "validation_rows": validation_rows,
        "trained_tokens": trained_tokens, "learning_rate": learning_rate, "parameters": parameters, "n_epochs": used.n_epochs, "batch_size": used.batch_size,
    });
    let level = if cut_rows > 0 { "warn" } else { "info" };
    NewEvent { level, data: object(data), ..jobs.said(text) }
}

/// `Step 131/303: training loss=0.25, validation loss=0.37`, as people parse it.
fn measured(jobs: &Jobs, step: &StepRecord, total_steps: u64) -> NewEvent {
    let mut text = format!("Step {}/{total_steps}: training loss={:.2}", step.step, step.train_loss);
    let mut data = json!({
        "step": step.step, "total_steps": total_steps, "train_loss": step.train_loss, "train_mean_token_accuracy": step.train_accuracy,
    });
    let valid = [
        ("valid_loss", step.valid_loss),
        ("valid_mean_token_accuracy", step.valid_accuracy),
        ("full_valid_loss", step.full_valid_loss),
        ("full_valid_mean_token_accuracy", step.full_valid_accuracy),
    ];
    for (name, value) in valid {
        if let Some(value) = value {
            data[name] = json!(value);
        }
    }
    if let Some(loss) = step.valid_loss {
        text.push_str(&format!(", validation loss={loss:.2}"));
    }
    if let Some(loss) = step.full_valid_loss {
        text.push_str(&format!(", full validation loss={loss:.2}"));
    }
    NewEvent { is_metrics: true, data: object(data), ..jobs.said(text) }
}

fn step_record(metrics: &Metrics, step: u64) -> StepRecord {
    StepRecord {
        step,
        train_loss: metrics.train_loss,
        train_accuracy: metrics.train_mean_token_accuracy,
        valid_loss: metrics.valid_loss,
        valid_accuracy: metrics.valid_mean_token_accuracy,
        full_valid_loss: metrics.full_valid_loss,
        full_valid_accuracy: metrics.full_valid_mean_token_accuracy,
    }
}

impl Jobs {
    /// Remembers the state at the end of an epoch as a model that can be asked, and forgets those that are too many. Doing it again changes nothing.
    pub(super) async fn note_checkpoint(&self, tenant: &Tenant, job: &JobRecord, checkpoint: &Checkpoint) -> Result<(), JobsError> {
        let model = format!("{}:ckpt-step-{}", job.model_name, checkpoint.step);
        let record = CheckpointRecord {
            id: format!("ftckpt_{}", Uuid::now_v7().simple()),
            created_at: self.now(),
            model: model.clone(),
            metrics: step_record(&checkpoint.metrics, checkpoint.step),
        };
        let catalog = &self.parts.catalog;
        catalog.put_checkpoint(tenant, &job.id, &record).await?;
        catalog.put_model(tenant, &self.model_record(job, &model, &checkpoint.adapter, true)).await?;
        catalog.trim_checkpoints(tenant, &job.id, KEPT_CHECKPOINTS).await?;
        let kept = catalog.checkpoints(tenant, &job.id, Page { after: None, limit: KEPT_CHECKPOINTS, ascending: false }).await?;
        for model in catalog.models_of_job(tenant, &job.id).await? {
            if model.checkpoint && !kept.iter().any(|kept| kept.model == model.id) {
                catalog.delete_model(tenant, &model.id).await?;
                self.parts.shelf.forget(&shelf_id(tenant, &model.id)).await;
            }
        }
        Ok(())
    }
}
