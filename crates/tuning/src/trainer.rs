//! What every way of training looks like.

use crate::TrainError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is learned from a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// To write the assistant's messages.
    Supervised,
    /// To prefer one answer to another (direct preference optimization, Rafailov et al. 2023).
    Dpo {
        /// How strongly the model is held to what it was before; OpenAI allows up to 2.
        beta: f64,
    },
}

/// A matrix of each layer that gets an adapter, by the name that PEFT gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetModule {
    /// Queries of the attention.
    QProj,
    /// Keys of the attention.
    KProj,
    /// Values of the attention.
    VProj,
    /// Output of the attention.
    OProj,
    /// Gate of the feed-forward part.
    GateProj,
    /// Upward matrix of the feed-forward part.
    UpProj,
    /// Downward matrix of the feed-forward part.
    DownProj,
}

impl TargetModule {
    /// Every one, in the order in which a layer uses them.
    pub const ALL: [Self; 7] = [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];
}

/// How to train. Plain data: it is stored with the job and compared when a training goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hyperparameters {
    /// How often every row is seen. 1..=50.
    pub n_epochs: u32,
    /// Rows of one step (gradients are accumulated over them). 1..=256.
    pub batch_size: u32,
    /// Times the trainer's own learning rate, which its documentation and [`Progress::Started`] tell.
    pub learning_rate_multiplier: f64,
    /// Decides the first values of the adapter, the order of rows and the dropout.
    pub seed: u64,
    /// Rank of the adapter's matrices.
    pub rank: u32,
    /// The adapter's output is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Share of the adapter's inputs that are set to zero while training. 0..1.
    pub dropout: f64,
    /// Matrices with an adapter.
    pub target_modules: Vec<TargetModule>,
    /// Only the upper `trained_layers` layers get an adapter; all without it. Fewer train faster.
    pub trained_layers: Option<u32>,
    /// A longer row loses its tail. Tokens.
    pub max_row_tokens: u32,
    /// The gradient is scaled down to this length; 0 leaves it as it is.
    pub max_gradient_norm: f64,
    /// Share of the steps in which the learning rate rises to its full value; afterwards it falls along a cosine.
    pub warmup_ratio: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Besides the end of each epoch, a checkpoint after every so many steps; 0 for none. They are for going on after a kill and replace each other.
    pub checkpoint_every: u32,
    /// The validation loss of a few rows after every so many steps; 0 for none. The whole file is measured at the end of each epoch.
    pub validate_every: u32,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            n_epochs: 3,
            batch_size: 4,
            learning_rate_multiplier: 1.0,
            seed: 42,
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            target_modules: TargetModule::ALL.to_vec(),
            trained_layers: None,
            max_row_tokens: 1024,
            max_gradient_norm: 1.0,
            warmup_ratio: 0.05,
            weight_decay: 0.01,
            checkpoint_every: 50,
            validate_every: 0,
        }
    }
}

impl Hyperparameters {
    /// What "auto" means for a file of so many rows: OpenAI's rule for the epochs (three; more where there are fewer than 34 rows, fewer above 8,333), and four rows a step,
    /// or one row in sixty-four of a large file.
    pub fn for_rows(rows: u64) -> Self {
        let rows = rows.max(1);
        let n_epochs = match rows * 3 {
            seen if seen < 100 => (100 / rows).min(25),
            seen if seen > 25_000 => (25_000 / rows).max(1),
            _ => 3,
        };
        let n_epochs = u32::try_from(n_epochs).unwrap_or(3);
        let batch_size = u32::try_from(rows / 64).unwrap_or(u32::MAX).clamp(4, 16);
        Self { n_epochs, batch_size, ..Self::default() }
    }
}

/// One training.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingRequest {
    /// What is learned.
    pub method: Method,
    /// OpenAI's chat rows, one JSON object a line; for DPO its preference rows.
    pub training_file: PathBuf,
    /// Rows that are measured and not trained on.
    pub validation_file: Option<PathBuf>,
    /// How.
    pub hyperparameters: Hyperparameters,
    /// Checkpoints and state, made if it is not there. If it holds the state of this same training, that goes on; the state of another is an error.
    pub folder: PathBuf,
}

/// Losses and accuracies of a step or a checkpoint. Loss: mean over answer tokens of the negative log-likelihood (nats); for DPO the DPO loss, a mean over rows.
/// Accuracy: share of answer tokens that are the most likely one; for DPO the share of rows whose preferred answer gets the higher reward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The step, from 1.
    pub step: u64,
    /// Of this step's rows, before the step changed the adapter.
    pub train_loss: f64,
    /// The same rows.
    pub train_mean_token_accuracy: f64,
    /// Of the validation rows measured last, if any.
    pub valid_loss: Option<f64>,
    /// The same rows.
    pub valid_mean_token_accuracy: Option<f64>,
    /// Of the whole validation file.
    pub full_valid_loss: Option<f64>,
    /// The whole file.
    pub full_valid_mean_token_accuracy: Option<f64>,
}

/// A state of the adapter that is on the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    /// Epochs done; `None` for one in the middle of an epoch, which is there for going on after a kill only and is replaced by the next.
    pub epoch: Option<u32>,
    /// The adapter as a GGUF file, ready to be loaded by `local`.
    pub adapter: PathBuf,
    /// What was measured.
    pub metrics: Metrics,
}

/// What a trainer tells while it works, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The files are read and the model is loaded.
    Started {
        /// Steps of the whole training.
        total_steps: u64,
        /// Steps that were done before, from a checkpoint; 0 at a first start.
        resumed_at: u64,
        /// Rows of the training file.
        rows: u64,
        /// Rows that lost their tail.
        cut_rows: u64,
        /// Rows of the validation file.
        validation_rows: u64,
        /// Tokens of the whole training: every token of every row in every epoch.
        trained_tokens: u64,
        /// The highest learning rate, absolute: the trainer's own times the multiplier.
        learning_rate: f64,
        /// Numbers that are trained.
        parameters: u64,
    },
    /// A step is done.
    Step {
        /// From 1.
        step: u64,
        /// Steps of the whole training.
        total_steps: u64,
        /// The epoch it belongs to, from 1.
        epoch: u32,
        /// See [`Metrics`].
        train_loss: f64,
        /// See [`Metrics`].
        train_mean_token_accuracy: f64,
        /// This step's learning rate.
        learning_rate: f64,
        /// Length of the gradient before it was clipped.
        gradient_norm: f64,
        /// How long the step took.
        seconds: f64,
        /// Tokens of its rows.
        tokens: u64,
    },
    /// The validation file, or a part of it, was measured.
    Validation {
        /// Steps done.
        step: u64,
        /// See [`Metrics`].
        loss: f64,
        /// See [`Metrics`].
        mean_token_accuracy: f64,
        /// Whether it was the whole file.
        full: bool,
    },
    /// A checkpoint is on the disk.
    Checkpoint(Checkpoint),
}

/// What the trainer is told; it asks before every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Do the next step.
    Go,
    /// Write a checkpoint and return.
    Pause,
    /// Return at once.
    Cancel,
}

/// How a call of [`Trainer::train`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every step is done.
    Finished,
    /// It was told to pause; the same call goes on.
    Paused,
    /// It was told to stop.
    Cancelled,
}

/// What a training leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The adapter as a GGUF file; only if it finished.
    pub adapter: Option<PathBuf>,
    /// Tokens trained on, those before a resumption included.
    pub trained_tokens: u64,
    /// Steps done.
    pub steps: u64,
    /// The checkpoints at the ends of epochs, oldest first, those before a resumption included. The newest three are kept.
    pub checkpoints: Vec<Checkpoint>,
}

/// What a training will need. Numbers of the request's files as they are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Rows of the training file.
    pub rows: u64,
    /// Rows of the validation file.
    pub validation_rows: u64,
    /// Tokens of one epoch.
    pub tokens: u64,
    /// Tokens of the longest row.
    pub longest_row: u64,
    /// Steps of the whole training.
    pub steps: u64,
    /// Memory at its highest, bytes.
    pub memory_bytes: u64,
    /// Disk space at its highest, bytes.
    pub disk_bytes: u64,
}

/// Something that trains. It blocks: the caller gives it a thread of its own.
pub trait Trainer: Send + Sync {
    /// The base model's id.
    fn model(&self) -> &str;

    /// Trains, or goes on with what `request.folder` holds. `command` is asked before every step; `report` hears of everything in order.
    ///
    /// # Errors
    /// A file, a row or a hyperparameter that cannot be used, a folder with another training's state, a loss that is not a number, a full disk.
    fn train(
        &self,
        request: &TrainingRequest,
        command: &dyn Fn() -> Command,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, TrainError>;

    /// Reads and checks the files, trains nothing.
    ///
    /// # Errors
    /// As [`Self::train`] would answer about its files and hyperparameters.
    fn estimate(&self, request: &TrainingRequest) -> Result<Estimate, TrainError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_follows_the_published_rule() {
        for (rows, epochs, batch) in [(1, 25, 4), (10, 10, 4), (33, 3, 4), (50, 3, 4), (1000, 3, 15), (20_000, 1, 16)] {
            let auto = Hyperparameters::for_rows(rows);
            assert_eq!((auto.n_epochs, auto.batch_size), (epochs, batch), "{rows} rows");
        }
    }
}
