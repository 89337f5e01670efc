//! Training rows in, an adapter out.
//!
//! [`Trainer`] is what every way of training looks like: files and hyperparameters in, progress while it runs, an adapter at the end. A trainer blocks its thread,
//! asks before every step whether to go on, and leaves checkpoints from which the same call goes on. It never touches the catalog, never serves and never reads the clock for a decision.
//! [`jobs`] is what does: a durable queue of trainings.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod adapter_file;
mod command;
mod error;
mod gguf;
pub mod jobs;
mod lora;
mod merged;
mod peft;
mod trainer;

pub use command::{CommandSettings, CommandTrainer};
pub use error::TrainError;
pub use gguf::MergedPrecision;
pub use lora::{LEARNING_RATE, LoraTrainer};
pub use merged::{export_gguf, export_merged};
pub use peft::{copy_peft, export_peft, import_peft};
pub use trainer::{
    Checkpoint, Command, End, Estimate, Hyperparameters, Method, Metrics, Outcome, Progress, TargetModule, Trainer, TrainingRequest,
};
