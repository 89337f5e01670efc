//! Fine-tuning jobs, their events, checkpoints and permissions. Reference: OpenAI API reference, `fine_tuning/jobs` and `fine_tuning/checkpoints`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// The server chooses.
    Auto,
}

/// A number, or `"auto"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AutoOr<T> {
    /// The server chooses.
    Auto(Auto),
    /// The client, or the server, has chosen.
    Value(T),
}

impl<T> From<Option<T>> for AutoOr<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Auto(Auto::Auto), Self::Value)
    }
}

/// `POST /v1/fine_tuning/jobs`. Fields whose ranges are checked one by one stay as they came, so that an error can name them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FineTuningJobRequest {
    /// The base model.
    pub model: String,
    /// An uploaded file of purpose `fine-tune`.
    pub training_file: String,
    /// The same, of rows that are measured and not trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_file: Option<String>,
    /// 1 to 64 characters for the name of the new model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// 0 to 2147483647.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Value>,
    /// `{"type": "supervised", "supervised": {"hyperparameters": {...}}}`, or `dpo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Value>,
    /// Deprecated, and still widely sent: hyperparameters of the supervised method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyperparameters: Option<Value>,
    /// Where metrics are sent as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrations: Option<Value>,
    /// At most 16 pairs; keys up to 64 characters, values up to 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What a job is trained with. Every field is always there for `supervised`; `beta` only for `dpo`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct JobHyperparameters {
    /// Rows of a step.
    pub batch_size: AutoOr<u16>,
    /// Times the trainer's own learning rate.
    pub learning_rate_multiplier: AutoOr<f64>,
    /// How often each row is seen.
    pub n_epochs: AutoOr<u8>,
    /// How strongly a preference is held to the base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<AutoOr<f64>>,
}

/// A method's own object: `{"hyperparameters": {...}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodSettings {
    /// What it is trained with.
    pub hyperparameters: JobHyperparameters,
}

/// How a job trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobMethod {
    /// `supervised` or `dpo`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where the type says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervised: Option<MethodSettings>,
    /// Where the type says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpo: Option<MethodSettings>,
}

/// Why a job failed. All three keys are always there; a healthy job has `error: null`, never an empty object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FineTuningError {
    /// A word for a program: `invalid_n_examples`.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
    /// `training_file` or `validation_file`, where one of them is to blame.
    pub param: Option<String>,
}

/// A fine-tuning job. Every field that OpenAI calls required is always written, `null` where it is not known yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FineTuningJob {
    /// `ftjob-...`.
    pub id: String,
    /// Always `fine_tuning.job`.
    pub object: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Why it failed.
    pub error: Option<FineTuningError>,
    /// `ft:{base}:{organization}:{suffix}:{8 characters}`, once it has succeeded.
    pub fine_tuned_model: Option<String>,
    /// Unix seconds; `None` while it goes on.
    pub finished_at: Option<i64>,
    /// An object for every method: there are clients that cannot read `null` here.
    pub hyperparameters: Value,
    /// The base model, as the client named it.
    pub model: String,
    /// Whose it is.
    pub organization_id: String,
    /// Files of purpose `fine-tune-results`.
    pub result_files: Vec<String>,
    /// What decides everything that is random.
    pub seed: u32,
    /// `validating_files`, `queued`, `running`, `succeeded`, `failed` or `cancelled`. A paused job is `queued`, because there are clients that cannot read another word.
    pub status: String,
    /// Tokens of all epochs, once it has succeeded.
    pub trained_tokens: Option<u32>,
    /// The uploaded file.
    pub training_file: String,
    /// The uploaded file.
    pub validation_file: Option<String>,
    /// Always empty: metrics are not sent elsewhere.
    #[serde(default)]
    pub integrations: Option<Vec<Value>>,
    /// Unix seconds, while it runs.
    #[serde(default)]
    pub estimated_finish: Option<i64>,
    /// How it trains.
    #[serde(default)]
    pub method: Option<Value>,
    /// The client's own notes.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
    /// Ours: what OpenAI's shape has no place for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groundtone: Option<Value>,
}

/// A page of jobs or of events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlainPage<T> {
    /// Always `list`.
    pub object: String,
    /// Newest first.
    pub data: Vec<T>,
    /// Whether there is a next page.
    #[serde(default)]
    pub has_more: bool,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FineTuningEvent {
    /// `ftevent-...`.
    pub id: String,
    /// Always `fine_tuning.job.event`.
    pub object: String,
    /// Unix seconds.
    pub created_at: i64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// A sentence.
    pub message: String,
    /// `message` or `metrics`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Numbers of a `metrics` event; else empty.
    #[serde(default)]
    pub data: Value,
}

/// What was measured at a checkpoint. Numbers in every field: there are clients that cannot read `null` here. Without a validation file the fields of `valid` are 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMetrics {
    /// Steps done. A number in OpenAI's specification, and without a fraction in its examples: there are clients that cannot read `88.0`.
    pub step: u64,
    /// Mean loss of the step's rows.
    #[serde(default)]
    pub train_loss: f64,
    /// Share of right tokens of the step's rows.
    #[serde(default)]
    pub train_mean_token_accuracy: f64,
    /// Of a part of the validation file.
    #[serde(default)]
    pub valid_loss: f64,
    /// Of a part of the validation file.
    #[serde(default)]
    pub valid_mean_token_accuracy: f64,
    /// Of the whole validation file.
    #[serde(default)]
    pub full_valid_loss: f64,
    /// Of the whole validation file.
    #[serde(default)]
    pub full_valid_mean_token_accuracy: f64,
}

/// A model as it was at the end of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FineTuningCheckpoint {
    /// `ftckpt_...`.
    pub id: String,
    /// Always `fine_tuning.job.checkpoint`.
    pub object: String,
    /// Unix seconds.
    pub created_at: i64,
    /// A model that can be asked: `...:ckpt-step-88`.
    pub fine_tuned_model_checkpoint: String,
    /// Its job.
    pub fine_tuning_job_id: String,
    /// Steps done.
    pub step_number: u64,
    /// What was measured.
    pub metrics: CheckpointMetrics,
}

/// `POST /v1/fine_tuning/checkpoints/{model}/permissions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PermissionRequest {
    /// Who may use it as well.
    pub project_ids: Vec<String>,
}

/// That a project may use a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointPermission {
    /// `cp_...`.
    pub id: String,
    /// Always `checkpoint.permission`.
    pub object: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Who.
    pub project_id: String,
}

/// What a webhook is sent: `fine_tuning.job.succeeded`, `.failed` or `.cancelled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookEvent {
    /// `evt_...`; the same at every attempt.
    pub id: String,
    /// Always `event`.
    pub object: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// Unix seconds.
    pub created_at: i64,
    /// To what.
    pub data: WebhookSubject,
}

/// Inside [`WebhookEvent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookSubject {
    /// The job.
    pub id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn auto_is_a_word_and_a_number_is_a_number() {
        let hyperparameters = JobHyperparameters {
            batch_size: Some(4).into(),
            learning_rate_multiplier: None.into(),
            n_epochs: Some(3).into(),
            beta: Some(Some(0.1).into()),
        };
        let wire = serde_json::to_value(hyperparameters).unwrap();
        assert_eq!(wire, json!({"batch_size": 4, "learning_rate_multiplier": "auto", "n_epochs": 3, "beta": 0.1}));
        assert_eq!(serde_json::from_value::<JobHyperparameters>(wire).unwrap(), hyperparameters);
        assert!(serde_json::from_value::<AutoOr<u8>>(json!("automatic")).is_err());
    }
}
