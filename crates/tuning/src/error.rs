//! Why a training did not end with an adapter.

use groundtone_types::ErrorKind;
use std::path::{Path, PathBuf};

/// Why a training did not end with an adapter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A row of a training or validation file cannot be trained on.
    #[error("{}:{line}: {reason}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds no rows.
    #[error("{} holds no rows", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The base model cannot be trained by this trainer.
    #[error("model `{model}` cannot be trained: {reason}")]
    Model {
        /// Which one.
        model: String,
        /// Why.
        reason: String,
    },
    /// An adapter cannot be exported or imported.
    #[error("{}: {reason}", path.display())]
    Adapter {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A hyperparameter is out of range.
    #[error("hyperparameter `{name}`: {reason}")]
    Hyperparameter {
        /// Which one.
        name: &'static str,
        /// What is allowed.
        reason: String,
    },
    /// The folder holds the state of another training, or one that cannot be read.
    #[error("{} holds no state that this training can go on from: {reason}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The loss became infinite or not a number.
    #[error("the loss is {loss} at step {step}: the learning rate is too high, or a row is odd")]
    Diverged {
        /// The step.
        step: u64,
        /// What it was.
        loss: f64,
    },
    /// The program that trains ended without an adapter.
    #[error("the training program {reason}")]
    Program {
        /// How it ended.
        reason: String,
    },
    /// The arithmetic failed.
    #[error("training failed: {0}")]
    Compute(String),
}

impl TrainError {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Row { .. }
            | Self::Empty { .. }
            | Self::Model { .. }
            | Self::Adapter { .. }
            | Self::Hyperparameter { .. }
            | Self::Diverged { .. } => ErrorKind::InvalidRequest,
            Self::State { .. } => ErrorKind::Conflict,
            Self::File { .. } | Self::Program { .. } | Self::Compute(_) => ErrorKind::Internal,
        }
    }
}
