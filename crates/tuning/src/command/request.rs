//! What the program is told: one JSON file.

use crate::{Hyperparameters, Method, TrainingRequest};
use serde::Serialize;
use std::path::Path;

/// The version of this file's shape. A field that is added does not change it.
const FORMAT: u32 = 1;

/// The file's content.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    format: u32,
    /// The base model, as `tuning.base_models` has it: a name of a hub, a folder, a GGUF file.
    model: &'a str,
    /// Its GGUF file, where the model is one that is served here.
    model_file: Option<&'a Path>,
    /// `supervised` or `dpo`.
    method: &'static str,
    /// Of DPO.
    beta: Option<f64>,
    training_file: &'a Path,
    validation_file: Option<&'a Path>,
    /// Everything that the program writes goes in here.
    output_dir: &'a Path,
    /// The folder holds what an earlier run of the same training left.
    resume: bool,
    /// Absolute: the default rate times the multiplier.
    learning_rate: f64,
    hyperparameters: &'a Hyperparameters,
}

impl<'a> Request<'a> {
    pub(super) fn new(
        model: &'a str,
        model_file: Option<&'a Path>,
        request: &'a TrainingRequest,
        output_dir: &'a Path,
        learning_rate: f64,
        resume: bool,
    ) -> Self {
        let (method, beta) = match request.method {
            Method::Supervised => ("supervised", None),
            Method::Dpo { beta } => ("dpo", Some(beta)),
        };
        Self {
            format: FORMAT,
            model,
            model_file,
            method,
            beta,
            training_file: &request.training_file,
            validation_file: request.validation_file.as_deref(),
            output_dir,
            resume,
            learning_rate,
            hyperparameters: &request.hyperparameters,
        }
    }
}
