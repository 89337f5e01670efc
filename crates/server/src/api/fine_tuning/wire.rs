//! Jobs, events and checkpoints in OpenAI's words.

use groundtone_catalog::{CheckpointRecord, EventRecord, JobRecord, JobStatus};
use groundtone_openai_api::{
    CheckpointMetrics, FineTuningCheckpoint, FineTuningError, FineTuningEvent, FineTuningJob, JobHyperparameters, JobMethod, MethodSettings,
};
use groundtone_types::Tenant;
use serde::Serialize;
use serde_json::{Value, json};

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

pub(super) fn job(job: JobRecord, tenant: &Tenant) -> FineTuningJob {
    let chosen = job.used.unwrap_or(job.asked);
    let is_dpo = job.method == "dpo";
    let hyperparameters = JobHyperparameters {
        batch_size: chosen.batch_size.and_then(|size| u16::try_from(size).ok()).into(),
        learning_rate_multiplier: chosen.learning_rate_multiplier.into(),
        n_epochs: chosen.n_epochs.and_then(|epochs| u8::try_from(epochs).ok()).into(),
        beta: is_dpo.then(|| chosen.beta.into()),
    };
    let settings = Some(MethodSettings { hyperparameters });
    let (supervised, dpo) = if is_dpo { (None, settings) } else { (settings, None) };
    let succeeded = job.status == JobStatus::Succeeded;
    let extension = json!({
        "status": job.status, "step": job.step, "total_steps": job.total_steps, "trained_model": job.trained_model, "training_sha256": job.training_sha256,
    });
    FineTuningJob {
        object: "fine_tuning.job".to_owned(),
        created_at: job.created_at,
        error: job.error.map(|error| FineTuningError { code: error.code, message: error.message, param: error.param }),
        fine_tuned_model: succeeded.then_some(job.model_name),
        finished_at: job.finished_at,
        hyperparameters: value(&hyperparameters),
        model: job.model,
        organization_id: format!("org-{tenant}"),
        result_files: if succeeded { vec![job.result_file] } else { Vec::new() },
        seed: job.seed,
        status: if job.status == JobStatus::Paused { JobStatus::Queued } else { job.status }.as_str().to_owned(),
        trained_tokens: job.trained_tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX)),
        training_file: job.training_file,
        validation_file: job.validation_file,
        integrations: Some(Vec::new()),
        estimated_finish: job.estimated_finish.filter(|_| job.status == JobStatus::Running),
        method: Some(value(&JobMethod { kind: job.method, supervised, dpo })),
        metadata: job.metadata,
        groundtone: Some(extension),
        id: job.id,
    }
}

pub(super) fn event(event: EventRecord) -> FineTuningEvent {
    FineTuningEvent {
        id: event.id,
        object: "fine_tuning.job.event".to_owned(),
        created_at: event.created_at,
        level: event.level,
        message: event.message,
        kind: if event.is_metrics { "metrics" } else { "message" }.to_owned(),
        data: Value::Object(event.data),
    }
}

pub(super) fn checkpoint(checkpoint: CheckpointRecord, job: &str) -> FineTuningCheckpoint {
    let metrics = checkpoint.metrics;
    let number = |value: Option<f64>| value.unwrap_or_default();
    // An epoch's end measures the whole file; then that is the best that is known of a part of it.
    let part = |part: Option<f64>, whole: Option<f64>| number(part.or(whole));
    FineTuningCheckpoint {
        id: checkpoint.id,
        object: "fine_tuning.job.checkpoint".to_owned(),
        created_at: checkpoint.created_at,
        fine_tuned_model_checkpoint: checkpoint.model,
        fine_tuning_job_id: job.to_owned(),
        step_number: metrics.step,
        metrics: CheckpointMetrics {
            step: metrics.step,
            train_loss: metrics.train_loss,
            train_mean_token_accuracy: metrics.train_accuracy,
            valid_loss: part(metrics.valid_loss, metrics.full_valid_loss),
            valid_mean_token_accuracy: part(metrics.valid_accuracy, metrics.full_valid_accuracy),
            full_valid_loss: number(metrics.full_valid_loss),
            full_valid_mean_token_accuracy: number(metrics.full_valid_accuracy),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundtone_catalog::{HyperparameterChoice, JobError, StepRecord};

    fn record(status: JobStatus) -> JobRecord {
        JobRecord {
            id: "ftjob-1".into(),
            status,
            created_at: 5,
            model: "gpt-4o-mini".into(),
            trained_model: "small".into(),
            method: "supervised".into(),
            asked: HyperparameterChoice { n_epochs: Some(3), ..HyperparameterChoice::default() },
            used: None,
            suffix: None,
            seed: 7,
            training_file: "file-1".into(),
            validation_file: None,
            training_sha256: "00".into(),
            metadata: None,
            error: None,
            finished_at: None,
            estimated_finish: Some(9),
            model_name: "ft:gpt-4o-mini:default::01234567".into(),
            result_file: "file-2".into(),
            trained_tokens: None,
            step: 0,
            total_steps: None,
            webhook: None,
        }
    }

    fn wire(record: JobRecord) -> Value {
        value(&job(record, &Tenant::default()))
    }

    #[test]
    fn a_new_job_has_every_required_key() {
        let mut wire = wire(record(JobStatus::ValidatingFiles));
        wire.as_object_mut().unwrap().remove("groundtone");
        assert_eq!(
            wire,
            json!({
                "id": "ftjob-1", "object": "fine_tuning.job", "created_at": 5, "error": null, "fine_tuned_model": null, "finished_at": null,
                "hyperparameters": {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": 3}, "model": "gpt-4o-mini",
                "organization_id": "org-default", "result_files": [], "seed": 7, "status": "validating_files", "trained_tokens": null, "training_file": "file-1",
                "validation_file": null, "integrations": [], "estimated_finish": null,
                "method": {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": 3}}},
                "metadata": null
            })
        );
    }

    #[test]
    fn a_paused_job_is_queued_for_clients_that_know_no_other_word() {
        let paused = wire(record(JobStatus::Paused));
        assert_eq!((&paused["status"], &paused["groundtone"]["status"]), (&json!("queued"), &json!("paused")));
    }

    #[test]
    fn a_model_is_named_when_it_is_there_and_numbers_stay_small() {
        let used =
            Some(HyperparameterChoice { batch_size: Some(256), learning_rate_multiplier: Some(2.0), n_epochs: Some(50), beta: Some(0.1) });
        let done = JobRecord { used, trained_tokens: Some(u64::MAX), finished_at: Some(8), ..record(JobStatus::Succeeded) };
        let done = wire(done);
        assert_eq!(done["hyperparameters"], json!({"batch_size": 256, "learning_rate_multiplier": 2.0, "n_epochs": 50}));
        assert_eq!((&done["fine_tuned_model"], &done["result_files"]), (&json!("ft:gpt-4o-mini:default::01234567"), &json!(["file-2"])));
        assert_eq!((&done["trained_tokens"], &done["estimated_finish"]), (&json!(u32::MAX), &Value::Null));
        let running = wire(record(JobStatus::Running));
        assert_eq!((&running["fine_tuned_model"], &running["estimated_finish"]), (&Value::Null, &json!(9)));
    }

    #[test]
    fn an_error_has_its_three_keys() {
        let error = Some(JobError { code: "server_error".into(), message: "no".into(), param: None });
        let failed = wire(JobRecord { error, ..record(JobStatus::Failed) });
        assert_eq!(failed["error"], json!({"code": "server_error", "message": "no", "param": null}));
        let dpo = wire(JobRecord { method: "dpo".into(), ..record(JobStatus::Queued) });
        assert_eq!(dpo["method"]["dpo"]["hyperparameters"]["beta"], "auto");
        assert!(dpo["hyperparameters"].is_object() && dpo["method"].get("supervised").is_none());
    }

    #[test]
    fn checkpoints_have_numbers_in_every_field() {
        let metrics = StepRecord { step: 88, train_loss: 0.5, train_accuracy: 0.75, full_valid_loss: Some(0.25), ..StepRecord::default() };
        let record = CheckpointRecord { id: "ftckpt_1".into(), created_at: 5, model: "m:ckpt-step-88".into(), metrics };
        let wire = value(&checkpoint(record, "ftjob-1"));
        assert!(wire["metrics"].as_object().unwrap().values().all(Value::is_number), "{wire}");
        assert_eq!((&wire["metrics"]["valid_loss"], &wire["step_number"]), (&json!(0.25), &json!(88)));
        // async-openai cannot read 88.0.
        assert_eq!(wire["metrics"]["step"], json!(88));
    }
}
