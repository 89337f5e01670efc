//! A trainer that is another program: TRL, Axolotl, Unsloth, or a script of one's own.
//!
//! The program is given one more argument, the path of a JSON file that says what to train ([`request`]); on its standard output it says in JSON lines how it goes ([`protocol`]),
//! at the end where its adapter is, as PEFT saves one. It runs in a process group of its own, without the server's environment, and no longer than it is allowed to ([`process`]).

mod process;
mod protocol;
mod request;

use crate::lora::LEARNING_RATE;
use crate::peft::write_json;
use crate::{Command, End, Estimate, Outcome, Progress, TrainError, Trainer, TrainingRequest, adapter_file, copy_peft, import_peft, lora};
use process::{Heard, Process};
use protocol::{Line, Told};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file that is named to the program.
const REQUEST: &str = "request.json";
/// Where the program works; it is removed when its adapter has been taken.
const OUTPUT: &str = "output";
/// What a finished training left.
const DONE: &str = "done.json";

/// How the program is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSettings {
    /// The program: a path, or a name that is looked for in `PATH`.
    pub program: String,
    /// What comes before the path of the request.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
    /// Longest time from its start to its end.
    pub timeout: Duration,
    /// Most bytes that it may say, standard output and standard error together.
    pub output_bytes: u64,
    /// How long it may take to save its work when it is told to stop (SIGTERM), before it is killed.
    pub grace: Duration,
}

/// Trains adapters of one base model by running a program.
#[derive(Debug, Clone)]
pub struct CommandTrainer {
    model: String,
    base: Option<PathBuf>,
    settings: CommandSettings,
}

/// A training that has ended with an adapter.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    adapter: PathBuf,
    steps: u64,
    trained_tokens: u64,
}

impl CommandTrainer {
    /// Of the model `model`. With the GGUF file `base` adapters are turned into files that llama.cpp applies to it; without it they stay as PEFT saves them.
    pub fn new(model: &str, base: Option<PathBuf>, settings: CommandSettings) -> Self {
        Self { model: model.to_owned(), base, settings }
    }

    /// The program's adapter as it is kept here. It must lie in the folder that the program was given.
    fn take_adapter(&self, output: &Path, told: &str, folder: &Path) -> Result<PathBuf, TrainError> {
        let path = output.join(told);
        let real = path.canonicalize().map_err(|error| TrainError::file(&path, error))?;
        let inside = output.canonicalize().map_err(|error| TrainError::file(output, error))?;
        if !real.starts_with(&inside) {
            return Err(ended("names an adapter that is not in its output folder"));
        }
        let Some(base) = &self.base else {
            let adapter = folder.join("adapter");
            copy_peft(&real, &adapter)?;
            return Ok(adapter);
        };
        let adapter = folder.join("adapter.gguf");
        if real.is_dir() {
            import_peft(&real, base, &adapter)?;
        } else {
            adapter_file::read(&real)?;
            std::fs::copy(&real, &adapter).map_err(|error| TrainError::file(&adapter, error))?;
        }
        Ok(adapter)
    }
}

fn ended(reason: impl Into<String>) -> TrainError {
    TrainError::Program { reason: reason.into() }
}

fn count_rows(path: &Path) -> Result<u64, TrainError> {
    let file = File::open(path).map_err(|error| TrainError::file(path, error))?;
    let (mut reader, mut line, mut rows) = (BufReader::new(file), Vec::new(), 0);
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line).map_err(|error| TrainError::file(path, error))? {
            0 => return Ok(rows),
            _ => rows += u64::from(!line.trim_ascii().is_empty()),
        }
    }
}

impl Trainer for CommandTrainer {
    fn model(&self) -> &str {
        &self.model
    }

    fn train(
        &self,
        request: &TrainingRequest,
        command: &dyn Fn() -> Command,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, TrainError> {
        let estimate = self.estimate(request)?;
        let (folder, output, done) = (&request.folder, request.folder.join(OUTPUT), request.folder.join(DONE));
        if let Ok(bytes) = std::fs::read(&done)
            && let Ok(done) = serde_json::from_slice::<Done>(&bytes)
        {
            return Ok(finished(done));
        }
        // What the last process left running would work in the same folder.
        process::end_leftover(folder);
        let resume = output.is_dir();
        std::fs::create_dir_all(&output).map_err(|error| TrainError::file(&output, error))?;
        let path = folder.join(REQUEST);
        let rate = LEARNING_RATE * request.hyperparameters.learning_rate_multiplier;
        write_json(&path, &request::Request::new(&self.model, self.base.as_deref(), request, &output, rate, resume))?;
        if command() != Command::Go {
            return Ok(stopped(command(), 0));
        }
        let mut process = Process::start(&self.settings, &path, folder)?;
        let mut hearing = Hearing { estimate, rate, resume, started: false, step: 0, total_steps: 0, said: None };
        let ending = hearing.listen(&mut process, &self.settings, command, report);
        let tail = process.finish();
        let said = match ending {
            Ok(None) => hearing.said.take(),
            Ok(Some(told)) => return Ok(stopped(told, hearing.step)),
            Err(error) => {
                tracing::warn!(%error, stderr = tail, "a training program failed");
                return Err(error);
            }
        };
        let Some(Line::Done { adapter, trained_tokens }) = said else {
            tracing::warn!(stderr = tail, "a training program ended without an adapter");
            return Err(ended("ended without saying where its adapter is"));
        };
        let adapter = self.take_adapter(&output, &adapter, folder)?;
        let left = Done { adapter, steps: hearing.step, trained_tokens };
        write_json(&done, &left)?;
        std::fs::remove_dir_all(&output).map_err(|error| TrainError::file(&output, error))?;
        Ok(finished(left))
    }

    fn estimate(&self, request: &TrainingRequest) -> Result<Estimate, TrainError> {
        lora::check(request)?;
        if self.base.as_ref().is_some_and(|base| !base.is_file()) {
            let reason = "its adapters would be applied to a GGUF file, and there is none; name one in `tuning.base_models`, or a server in `tuning.vllm_url`";
            return Err(TrainError::Model { model: self.model.clone(), reason: reason.to_owned() });
        }
        let rows = count_rows(&request.training_file)?;
        if rows == 0 {
            return Err(TrainError::Empty { path: request.training_file.clone() });
        }
        let validation_rows = request.validation_file.as_deref().map(count_rows).transpose()?.unwrap_or_default();
        let steps = rows.div_ceil(u64::from(request.hyperparameters.batch_size)) * u64::from(request.hyperparameters.n_epochs);
        // What another program needs of the machine is its own affair, and perhaps another machine's.
        Ok(Estimate { rows, validation_rows, tokens: 0, longest_row: 0, steps, memory_bytes: 0, disk_bytes: 0 })
    }
}

fn finished(done: Done) -> Outcome {
    let Done { adapter, steps, trained_tokens } = done;
    Outcome { end: End::Finished, adapter: Some(adapter), trained_tokens, steps, checkpoints: Vec::new() }
}

fn stopped(told: Command, steps: u64) -> Outcome {
    let end = if told == Command::Pause { End::Paused } else { End::Cancelled };
    Outcome { end, adapter: None, trained_tokens: 0, steps, checkpoints: Vec::new() }
}

/// What was heard of a program.
struct Hearing {
    estimate: Estimate,
    /// What it was told; what it says it uses comes before it.
    rate: f64,
    resume: bool,
    started: bool,
    step: u64,
    total_steps: u64,
    /// Its last word: where the adapter is, or why there is none.
    said: Option<Line>,
}

impl Hearing {
    /// Listens until the program ends in order (`None`), or is told to stop.
    fn listen(
        &mut self,
        process: &mut Process,
        settings: &CommandSettings,
        command: &dyn Fn() -> Command,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Option<Command>, TrainError> {
        let (began, mut last) = (Instant::now(), Instant::now());
        loop {
            match command() {
                Command::Go => {}
                Command::Pause => {
                    process.stop_gently(settings.grace);
                    return Ok(Some(Command::Pause));
                }
                Command::Cancel => {
                    process.kill();
                    return Ok(Some(Command::Cancel));
                }
            }
            if began.elapsed() > settings.timeout {
                process.kill();
                return Err(ended(format!("did not end within {} s", settings.timeout.as_secs())));
            }
            if process.said_bytes() > settings.output_bytes {
                process.kill();
                return Err(ended(format!("said more than {} bytes", settings.output_bytes)));
            }
            match process.hear()? {
                Heard::Line(line) => {
                    let seconds = last.elapsed().as_secs_f64();
                    if self.take(&line, seconds, report)? {
                        last = Instant::now();
                    }
                }
                Heard::Nothing => {}
                Heard::End(status) if status.success() => return self.failure().map_or(Ok(None), Err),
                Heard::End(status) => return Err(self.failure().unwrap_or_else(|| ended(format!("failed ({status})")))),
            }
        }
    }

    /// What the program itself gave as the reason.
    fn failure(&self) -> Option<TrainError> {
        match &self.said {
            Some(Line::Failed { message }) => Some(ended(format!("says: {message}"))),
            _ => None,
        }
    }

    /// Takes a line; true if it told of a step.
    fn take(&mut self, line: &[u8], seconds: f64, report: &mut dyn FnMut(Progress)) -> Result<bool, TrainError> {
        match protocol::read(line) {
            Line::Told(told) => Ok(self.tell(&told, seconds, report)),
            Line::NotFinite { step } => Err(TrainError::Diverged { step: step.unwrap_or(self.step), loss: f64::NAN }),
            last @ (Line::Done { .. } | Line::Failed { .. }) => {
                self.said = Some(last);
                Ok(false)
            }
            Line::Note => {
                tracing::debug!(line = %String::from_utf8_lossy(line), "a training program says");
                Ok(false)
            }
        }
    }

    fn tell(&mut self, told: &Told, seconds: f64, report: &mut dyn FnMut(Progress)) -> bool {
        self.total_steps = told.total_steps.unwrap_or(if self.total_steps > 0 { self.total_steps } else { self.estimate.steps });
        if !self.started {
            self.started = true;
            report(Progress::Started {
                total_steps: self.total_steps,
                resumed_at: if self.resume { told.step.unwrap_or(1).saturating_sub(1) } else { 0 },
                rows: self.estimate.rows,
                cut_rows: told.cut_rows.unwrap_or_default(),
                validation_rows: self.estimate.validation_rows,
                trained_tokens: told.trained_tokens.unwrap_or_default(),
                learning_rate: told.learning_rate.filter(|_| told.step.is_none()).unwrap_or(self.rate),
                parameters: told.parameters.unwrap_or_default(),
            });
        }
        let Some(step) = told.step.filter(|step| *step > 0) else { return false };
        self.step = step;
        if let Some(loss) = told.loss {
            report(Progress::Step {
                step,
                total_steps: self.total_steps.max(step),
                epoch: told.epoch.map_or(1, |epoch| epoch.ceil().max(1.0) as u32),
                train_loss: loss,
                train_mean_token_accuracy: told.accuracy.unwrap_or_default(),
                learning_rate: told.learning_rate.unwrap_or(self.rate),
                gradient_norm: told.gradient_norm.unwrap_or_default(),
                seconds: told.seconds.unwrap_or(seconds),
                tokens: told.tokens.unwrap_or_default(),
            });
        }
        if let Some(loss) = told.valid_loss {
            let mean_token_accuracy = told.valid_accuracy.unwrap_or_default();
            report(Progress::Validation { step, loss, mean_token_accuracy, full: true });
        }
        told.loss.is_some()
    }
}

#[cfg(test)]
mod tests;
