//! The local trainer: LoRA (Hu et al. 2021) on a GGUF base model of llama's architecture, on the CPU.
//!
//! The frozen numbers are read from the very file that is served, and trained in its layout, so the adapter is applied to it as it is.
//! Rows are read with the served model's own vocabulary and chat template: what stands before an answer is, token for token, the prompt that would be served.

mod adapter;
mod attention;
mod base;
mod head;
mod learner;
mod math;
mod network;
mod optimizer;
mod rows;
mod state;

#[cfg(test)]
mod tests;

use crate::adapter_file::Pair;
use crate::{
    Command, End, Estimate, Hyperparameters, Method, Metrics, Outcome, Progress, TargetModule, TrainError, Trainer, TrainingRequest,
};
use adapter::Layout;
use base::Base;
use base::read_shape;
pub(crate) use base::{gguf_name, read_shape as base_shape};
use groundtone_local::ChatTokenizer;
use learner::{Learner, Measured, RowId};
use math::{Products, view};
use network::Network;
use optimizer::{Optimizer, Schedule};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use rows::{Reader, Row};
use sha2::{Digest, Sha256};
use state::Folder;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The learning rate that `learning_rate_multiplier` multiplies.
pub const LEARNING_RATE: f64 = 5e-4;
/// Rows of the validation file that are measured between epochs.
const VALIDATION_ROWS: usize = 16;

/// Trains adapters of one base model in this process.
pub struct LoraTrainer {
    model: String,
    path: PathBuf,
    tokenizer: Arc<ChatTokenizer>,
    threads: usize,
}

impl LoraTrainer {
    /// For the GGUF file at `path`, read with its own vocabulary, on so many threads.
    ///
    /// # Errors
    /// A file that cannot be read or is no model of llama's architecture.
    pub fn new(path: &Path, model: &str, tokenizer: Arc<ChatTokenizer>, threads: usize) -> Result<Self, TrainError> {
        let file = crate::gguf::Gguf::open(path).map_err(|error| TrainError::file(path, error))?;
        read_shape(&file)?;
        Ok(Self { model: model.to_owned(), path: path.to_owned(), tokenizer, threads: threads.max(1) })
    }

    fn rows(&self, request: &TrainingRequest) -> Result<(Vec<Row>, Vec<Row>), TrainError> {
        check(request)?;
        let longest = request.hyperparameters.max_row_tokens as usize;
        let reader = Reader { tokenizer: &self.tokenizer, method: request.method, longest };
        let validation = request.validation_file.as_ref().map(|file| reader.read(file)).transpose()?;
        Ok((reader.read(&request.training_file)?, validation.unwrap_or_default()))
    }
}

/// Works a pair into the matrix that it belongs to.
pub(crate) fn merge(matrix: &mut [f32], pair: &Pair, rank: usize, scale: f32) -> Result<(), TrainError> {
    let inputs = pair.a.len() / rank;
    Products::new().add(matrix, 1.0, scale, view(&pair.b, rank), view(&pair.a, inputs))
}

/// Hyperparameters in their ranges.
pub(crate) fn check(request: &TrainingRequest) -> Result<(), TrainError> {
    let parameters = &request.hyperparameters;
    let between =
        |name, fits: bool, reason: &str| if fits { Ok(()) } else { Err(TrainError::Hyperparameter { name, reason: reason.to_owned() }) };
    between("n_epochs", (1..=50).contains(&parameters.n_epochs), "1 to 50")?;
    between("batch_size", (1..=256).contains(&parameters.batch_size), "1 to 256")?;
    let rate = parameters.learning_rate_multiplier;
    between("learning_rate_multiplier", rate.is_finite() && rate > 0.0, "more than 0")?;
    between("rank", (1..=256).contains(&parameters.rank), "1 to 256")?;
    between("alpha", parameters.alpha.is_finite() && parameters.alpha > 0.0, "more than 0")?;
    between("dropout", (0.0..1.0).contains(&parameters.dropout), "0 or more, less than 1")?;
    between("target_modules", !parameters.target_modules.is_empty(), "at least one")?;
    between("trained_layers", parameters.trained_layers != Some(0), "at least one layer")?;
    between("max_row_tokens", (8..=65_536).contains(&parameters.max_row_tokens), "8 to 65,536")?;
    between("max_gradient_norm", parameters.max_gradient_norm.is_finite() && parameters.max_gradient_norm >= 0.0, "0 or more")?;
    between("warmup_ratio", (0.0..=1.0).contains(&parameters.warmup_ratio), "0 to 1")?;
    between("weight_decay", (0.0..=1.0).contains(&parameters.weight_decay), "0 to 1")?;
    if let Method::Dpo { beta } = request.method {
        between("beta", beta > 0.0 && beta <= 2.0, "more than 0, at most 2")?;
    }
    Ok(())
}

/// Of everything that decides the result: the base model, the files, the method and the hyperparameters that change the numbers.
fn fingerprint(model: &Path, request: &TrainingRequest) -> Result<String, TrainError> {
    let mut sum = Sha256::new();
    for path in [Some(model), Some(request.training_file.as_path()), request.validation_file.as_deref()].into_iter().flatten() {
        let mut file = File::open(path).map_err(|error| TrainError::file(path, error))?;
        let bytes = std::io::copy(&mut file, &mut sum).map_err(|error| TrainError::file(path, error))?;
        sum.update(bytes.to_le_bytes());
    }
    let hyperparameters = Hyperparameters { checkpoint_every: 0, ..request.hyperparameters.clone() };
    sum.update(serde_json::to_vec(&(request.method, hyperparameters)).map_err(|error| TrainError::Compute(error.to_string()))?);
    Ok(hex::encode(sum.finalize()))
}

fn steps_of(rows: usize, hyperparameters: &Hyperparameters) -> (u64, u64) {
    let steps = rows.div_ceil(hyperparameters.batch_size as usize) as u64;
    (steps, steps * u64::from(hyperparameters.n_epochs))
}

/// The order of an epoch's rows.
fn order(rows: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut Pcg64Mcg::seed_from_u64(seed ^ (epoch + 1).wrapping_mul(0xd134_2543_de82_ef95)));
    order
}

impl Trainer for LoraTrainer {
    fn model(&self) -> &str {
        &self.model
    }

    fn train(
        &self,
        request: &TrainingRequest,
        command: &dyn Fn() -> Command,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, TrainError> {
        let (training, validation) = self.rows(request)?;
        let fingerprint = fingerprint(&self.path, request)?;
        let base = Base::load(&self.path)?;
        let layout = Layout::new(&base.shape, &request.hyperparameters);
        let first_values = layout.first_values(request.hyperparameters.seed);
        let (folder, optimizer) = Folder::open(&request.folder, fingerprint, first_values)?;
        let network = Network::new(base, request.hyperparameters.max_row_tokens as usize);
        let learner = Learner::new(network, layout, request.method, request.hyperparameters.dropout);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).thread_name(|at| format!("train-{at}")).build();
        let pool = pool.map_err(|error| TrainError::Compute(error.to_string()))?;
        let run = Run { request, training: &training, validation: &validation, learner: &learner, pool: &pool };
        run.go(folder, optimizer, command, report)
    }

    fn estimate(&self, request: &TrainingRequest) -> Result<Estimate, TrainError> {
        let (training, validation) = self.rows(request)?;
        let file = crate::gguf::Gguf::open(&self.path).map_err(|error| TrainError::file(&self.path, error))?;
        let shape = read_shape(&file)?;
        let layout = Layout::new(&shape, &request.hyperparameters);
        let longest = training.iter().chain(&validation).map(Row::tokens).max().unwrap_or(0) as u64;
        let frozen: usize = TargetModule::ALL.iter().map(|module| shape.of(*module)).map(|(inputs, outputs)| inputs * outputs).sum();
        let heads = 1 + usize::from(file.shape("output.weight").is_some());
        let frozen = 4 * (shape.layers * frozen + heads * shape.vocabulary * shape.width) as u64;
        // What a layer keeps of each token, and about as much again once, while one layer is computed.
        let kept = 4 * shape.width + 2 * shape.kv_heads * shape.head + 2 * shape.feed_forward + 7 * layout.rank;
        let trained = (shape.layers - layout.lowest()) as u64 + 3;
        let together = longest.max(1024);
        let passing = 4 * kept as u64 * trained * together + 4 * 2 * 256 * shape.vocabulary as u64;
        let adapter = 4 * layout.parameters as u64;
        Ok(Estimate {
            rows: training.len() as u64,
            validation_rows: validation.len() as u64,
            tokens: training.iter().map(Row::tokens).sum::<usize>() as u64,
            longest_row: longest,
            steps: steps_of(training.len(), &request.hyperparameters).1,
            memory_bytes: frozen + passing + 5 * adapter + (64 << 20),
            // The state twice while it is replaced, the kept epochs and one more, the finished one and the one between.
            disk_bytes: adapter * (2 * 3 + state::KEPT as u64 + 3),
        })
    }
}

/// One call of [`Trainer::train`].
struct Run<'a> {
    request: &'a TrainingRequest,
    training: &'a [Row],
    validation: &'a [Row],
    learner: &'a Learner,
    pool: &'a rayon::ThreadPool,
}

impl Run<'_> {
    fn go(
        &self,
        mut folder: Folder<'_>,
        mut optimizer: Optimizer,
        command: &dyn Fn() -> Command,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, TrainError> {
        let hyperparameters = &self.request.hyperparameters;
        let (steps_an_epoch, steps) = steps_of(self.training.len(), hyperparameters);
        let schedule = Schedule::new(steps, LEARNING_RATE * hyperparameters.learning_rate_multiplier, hyperparameters.warmup_ratio);
        report(self.started(&optimizer, &schedule));
        let mut end = End::Finished;
        while optimizer.step < steps {
            match command() {
                Command::Go => {}
                Command::Pause => {
                    report(Progress::Checkpoint(folder.save_between(&optimizer, &self.learner.layout)?));
                    end = End::Paused;
                    break;
                }
                Command::Cancel => {
                    end = End::Cancelled;
                    break;
                }
            }
            self.step(&mut folder, &mut optimizer, &schedule, steps_an_epoch, report)?;
            if optimizer.step.is_multiple_of(steps_an_epoch) {
                self.measure(&mut folder, &optimizer, true, report)?;
                let epoch = (optimizer.step / steps_an_epoch) as u32;
                report(Progress::Checkpoint(folder.save_epoch(epoch, &optimizer, &self.learner.layout)?));
                continue;
            }
            let every = |every: u32| every > 0 && optimizer.step.is_multiple_of(u64::from(every));
            if every(hyperparameters.validate_every) {
                self.measure(&mut folder, &optimizer, false, report)?;
            }
            if every(hyperparameters.checkpoint_every) {
                report(Progress::Checkpoint(folder.save_between(&optimizer, &self.learner.layout)?));
            }
        }
        let adapter = if end == End::Finished { Some(folder.finish(&optimizer, &self.learner.layout)?) } else { None };
        let trained_tokens = folder.head.trained_tokens;
        Ok(Outcome { end, adapter, trained_tokens, steps: optimizer.step, checkpoints: folder.checkpoints() })
    }

    fn started(&self, optimizer: &Optimizer, schedule: &Schedule) -> Progress {
        let tokens = self.training.iter().map(Row::tokens).sum::<usize>() as u64;
        Progress::Started {
            total_steps: schedule.steps,
            resumed_at: optimizer.step,
            rows: self.training.len() as u64,
            cut_rows: self.training.iter().filter(|row| row.0.iter().any(|sequence| sequence.cut)).count() as u64,
            validation_rows: self.validation.len() as u64,
            trained_tokens: tokens * u64::from(self.request.hyperparameters.n_epochs),
            learning_rate: schedule.highest,
            parameters: self.learner.layout.parameters as u64,
        }
    }

    fn step(
        &self,
        folder: &mut Folder<'_>,
        optimizer: &mut Optimizer,
        schedule: &Schedule,
        steps_an_epoch: u64,
        report: &mut dyn FnMut(Progress),
    ) -> Result<(), TrainError> {
        let began = Instant::now();
        let hyperparameters = &self.request.hyperparameters;
        let (epoch, within) = (optimizer.step / steps_an_epoch, (optimizer.step % steps_an_epoch) as usize);
        let order = order(self.training.len(), hyperparameters.seed, epoch);
        let batch = hyperparameters.batch_size as usize;
        let chosen = order.iter().skip(within * batch).take(batch);
        let rows: Vec<(RowId, &Row)> = chosen.map(|&at| (RowId { validation: false, at }, &self.training[at])).collect();
        let seed = hyperparameters.seed.wrapping_add(optimizer.step.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let rate = schedule.rate(optimizer.step + 1);
        let (measured, norm) = self.pool.install(|| {
            let (measured, gradients) = self.learner.learn(&optimizer.values, &rows, seed)?;
            if !measured.loss.is_finite() || gradients.iter().any(|gradient| !gradient.is_finite()) {
                return Err(TrainError::Diverged { step: optimizer.step + 1, loss: measured.mean_loss() });
            }
            Ok((measured, optimizer.step(&gradients, rate, hyperparameters)))
        })?;
        let tokens = rows.iter().map(|(_, row)| row.tokens()).sum::<usize>() as u64;
        let metrics = &mut folder.head.metrics;
        (metrics.step, metrics.train_loss, metrics.train_mean_token_accuracy) = (optimizer.step, measured.mean_loss(), measured.accuracy());
        folder.head.trained_tokens += tokens;
        report(Progress::Step {
            step: optimizer.step,
            total_steps: schedule.steps,
            epoch: epoch as u32 + 1,
            train_loss: measured.mean_loss(),
            train_mean_token_accuracy: measured.accuracy(),
            learning_rate: rate,
            gradient_norm: norm,
            seconds: began.elapsed().as_secs_f64(),
            tokens,
        });
        Ok(())
    }

    /// Measures the validation file, or between epochs a few rows of it, others each time.
    fn measure(
        &self,
        folder: &mut Folder<'_>,
        optimizer: &Optimizer,
        full: bool,
        report: &mut dyn FnMut(Progress),
    ) -> Result<(), TrainError> {
        let count = self.validation.len();
        if count == 0 {
            return Ok(());
        }
        let few = if full { count } else { VALIDATION_ROWS.min(count) };
        let begin = if full { 0 } else { optimizer.step as usize % count };
        let chosen = (begin..begin + few).map(|at| at % count);
        let rows: Vec<(RowId, &Row)> = chosen.map(|at| (RowId { validation: true, at }, &self.validation[at])).collect();
        let measured: Measured = self.pool.install(|| self.learner.measure(&optimizer.values, &rows))?;
        let (loss, accuracy) = (measured.mean_loss(), measured.accuracy());
        let metrics: &mut Metrics = &mut folder.head.metrics;
        (metrics.valid_loss, metrics.valid_mean_token_accuracy) = (Some(loss), Some(accuracy));
        if full {
            (metrics.full_valid_loss, metrics.full_valid_mean_token_accuracy) = (Some(loss), Some(accuracy));
        }
        report(Progress::Validation { step: optimizer.step, loss, mean_token_accuracy: accuracy, full });
        Ok(())
    }
}
