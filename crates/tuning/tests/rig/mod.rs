//! A trainer that counts instead of learning, and the jobs around it. Everything else is real: the catalog, the files, the scheduler.

use async_trait::async_trait;
use groundtone_catalog::{Catalog, DataDirectory, FileLimits, FileStore, HyperparameterChoice, JobRecord, ModelRecord, NewFile};
use groundtone_provider::{ChatModel, ChatRequest, ChatStream, SendWebhook, WebhookMessage};
use groundtone_tuning::jobs::{Jobs, JobsSettings, NewJob, Parts, PlainCheck, Resources, Shelf, Workshop};
use groundtone_tuning::{
    Checkpoint, Command, End, Estimate, Hyperparameters, Metrics, Outcome, Progress, TrainError, Trainer, TrainingRequest,
};
use groundtone_types::Tenant;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a training is allowed to do.
#[derive(Default)]
pub struct Gate {
    steps: Mutex<u64>,
    changed: Condvar,
}

impl Gate {
    pub fn allow(&self, steps: u64) {
        *self.steps.lock().unwrap() += steps;
        self.changed.notify_all();
    }

    fn pass(&self, command: &dyn Fn() -> Command) -> Command {
        let mut steps = self.steps.lock().unwrap();
        loop {
            match command() {
                Command::Go if *steps > 0 => {
                    *steps -= 1;
                    return Command::Go;
                }
                Command::Go => steps = self.changed.wait_timeout(steps, Duration::from_millis(2)).unwrap().0,
                other => return other,
            }
        }
    }
}

/// Counts steps. Its state is a file, as a real trainer's; a row with the word `explode` makes the loss infinite.
pub struct Counter {
    pub gate: Arc<Gate>,
    pub pause: Duration,
    pub checkpoint_every: u64,
    /// Every step that was done, one a line.
    pub log: PathBuf,
    pub memory_bytes: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    step: u64,
    checkpoints: Vec<Checkpoint>,
}

impl Counter {
    fn rows(path: &Path) -> Result<u64, TrainError> {
        let text = std::fs::read_to_string(path).unwrap();
        for (at, line) in text.lines().enumerate() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            if row["messages"].as_array().is_none_or(Vec::is_empty) {
                return Err(TrainError::Row { path: path.to_owned(), line: at + 1, reason: "there are no messages".into() });
            }
        }
        Ok(text.lines().count() as u64)
    }

    fn save(&self, folder: &Path, state: &State) {
        let temporary = folder.join("state.tmp");
        std::fs::write(&temporary, serde_json::to_vec(state).unwrap()).unwrap();
        std::fs::rename(temporary, folder.join("state.json")).unwrap();
    }
}

impl Trainer for Counter {
    fn model(&self) -> &str {
        "counter"
    }

    fn train(
        &self,
        request: &TrainingRequest,
        command: &dyn Fn() -> Command,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, TrainError> {
        std::fs::create_dir_all(&request.folder).unwrap();
        let rows = Self::rows(&request.training_file)?;
        let explodes = std::fs::read_to_string(&request.training_file).unwrap().contains("explode");
        let epochs = u64::from(request.hyperparameters.n_epochs);
        let an_epoch = rows.div_ceil(u64::from(request.hyperparameters.batch_size));
        let total_steps = an_epoch * epochs;
        let mut state: State =
            std::fs::read(request.folder.join("state.json")).map(|bytes| serde_json::from_slice(&bytes).unwrap()).unwrap_or_default();
        report(Progress::Started {
            total_steps,
            resumed_at: state.step,
            rows,
            cut_rows: 0,
            validation_rows: 0,
            trained_tokens: rows * 10 * epochs,
            learning_rate: 2e-4 * request.hyperparameters.learning_rate_multiplier,
            parameters: 1000,
        });
        while state.step < total_steps {
            let told = self.gate.pass(command);
            if told != Command::Go {
                if told == Command::Pause {
                    self.save(&request.folder, &state);
                }
                let end = if told == Command::Pause { End::Paused } else { End::Cancelled };
                return Ok(Outcome { end, adapter: None, trained_tokens: 0, steps: state.step, checkpoints: state.checkpoints });
            }
            std::thread::sleep(self.pause);
            let step = state.step + 1;
            writeln!(std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap(), "{step}").unwrap();
            if explodes && step == 2 {
                return Err(TrainError::Diverged { step, loss: f64::INFINITY });
            }
            state.step = step;
            let (train_loss, accuracy) = (4.0 / step as f64, 1.0 - 1.0 / step as f64);
            report(Progress::Step {
                step,
                total_steps,
                epoch: 1,
                train_loss,
                train_mean_token_accuracy: accuracy,
                learning_rate: 1e-4,
                gradient_norm: 1.0,
                seconds: 2.0,
                tokens: 10,
            });
            let mut metrics = Metrics { step, train_loss, train_mean_token_accuracy: accuracy, ..Metrics::default() };
            let ends_epoch = step.is_multiple_of(an_epoch);
            if ends_epoch && request.validation_file.is_some() {
                metrics.full_valid_loss = Some(0.5);
                metrics.full_valid_mean_token_accuracy = Some(0.75);
                report(Progress::Validation { step, loss: 0.5, mean_token_accuracy: 0.75, full: true });
            }
            if ends_epoch || step.is_multiple_of(self.checkpoint_every) {
                let adapter = request.folder.join(format!("step-{step}.gguf"));
                std::fs::write(&adapter, format!("adapter {step}")).unwrap();
                let checkpoint = Checkpoint { step, epoch: ends_epoch.then(|| (step / an_epoch) as u32), adapter, metrics };
                if ends_epoch {
                    state.checkpoints.push(checkpoint.clone());
                    if state.checkpoints.len() > 3 {
                        let old = state.checkpoints.remove(0);
                        let _ = std::fs::remove_file(old.adapter);
                    }
                }
                self.save(&request.folder, &state);
                report(Progress::Checkpoint(checkpoint));
            }
        }
        let adapter = request.folder.join("adapter.gguf");
        std::fs::write(&adapter, "adapter").unwrap();
        let (trained_tokens, steps) = (rows * 10 * epochs, state.step);
        Ok(Outcome { end: End::Finished, adapter: Some(adapter), trained_tokens, steps, checkpoints: state.checkpoints })
    }

    fn estimate(&self, request: &TrainingRequest) -> Result<Estimate, TrainError> {
        let rows = Self::rows(&request.training_file)?;
        let validation_rows = request.validation_file.as_deref().map(Self::rows).transpose()?.unwrap_or_default();
        let steps = rows.div_ceil(u64::from(request.hyperparameters.batch_size)) * u64::from(request.hyperparameters.n_epochs);
        Ok(Estimate {
            rows,
            validation_rows,
            tokens: rows * 10,
            longest_row: 10,
            steps,
            memory_bytes: self.memory_bytes,
            disk_bytes: 1 << 20,
        })
    }
}

struct OneTrainer(Arc<Counter>);

impl Workshop for OneTrainer {
    fn names(&self) -> Vec<String> {
        vec!["gpt-4o-mini".into(), "counter".into()]
    }

    fn trained_model(&self, name: &str) -> Option<String> {
        self.names().contains(&name.to_owned()).then(|| "counter".to_owned())
    }

    fn trainer(&self, _model: &str) -> Result<Arc<dyn Trainer>, TrainError> {
        Ok(self.0.clone())
    }

    fn model_file(&self, _model: &str) -> Option<PathBuf> {
        None
    }
}

/// A shelf that looks whether the adapter is there.
#[derive(Default)]
pub struct Shelves {
    pub loaded: Mutex<Vec<String>>,
}

struct Silent(String);

#[async_trait]
impl ChatModel for Silent {
    fn id(&self) -> &str {
        &self.0
    }
    fn context_tokens(&self) -> usize {
        100
    }
    fn tokens(&self) -> Arc<dyn groundtone_prompt::CountTokens> {
        unreachable!("nobody counts")
    }
    async fn chat(&self, _request: ChatRequest) -> Result<ChatStream, groundtone_provider::Error> {
        unreachable!("nobody asks")
    }
}

#[async_trait]
impl Shelf for Shelves {
    async fn open(&self, id: &str, model: &ModelRecord, adapter: &Path) -> Result<Arc<dyn ChatModel>, groundtone_provider::Error> {
        if !adapter.is_file() {
            return Err(groundtone_provider::Error::Model { model: model.id.clone(), reason: format!("no {}", adapter.display()) });
        }
        let mut loaded = self.loaded.lock().unwrap();
        if !loaded.iter().any(|name| name == id) {
            loaded.push(id.to_owned());
        }
        Ok(Arc::new(Silent(model.id.clone())))
    }

    async fn open_base(&self, model: &str) -> Result<Arc<dyn ChatModel>, groundtone_provider::Error> {
        Ok(Arc::new(Silent(model.to_owned())))
    }

    async fn forget(&self, id: &str) {
        self.loaded.lock().unwrap().retain(|name| name != id);
    }
}

/// A webhook's receiver that refuses the first messages.
#[derive(Default)]
pub struct Receiver {
    pub refuse: AtomicU64,
    pub got: Mutex<Vec<WebhookMessage>>,
}

#[async_trait]
impl SendWebhook for Receiver {
    async fn send(&self, message: &WebhookMessage) -> Result<(), String> {
        self.got.lock().unwrap().push(message.clone());
        match self.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err("it says 503".into()),
            Err(_) => Ok(()),
        }
    }
}

/// Jobs in a data directory.
pub struct Rig {
    pub jobs: Arc<Jobs>,
    pub catalog: Arc<Catalog>,
    pub files: Arc<FileStore>,
    pub gate: Arc<Gate>,
    pub shelf: Arc<Shelves>,
    pub receiver: Arc<Receiver>,
    pub clock: Arc<AtomicI64>,
    pub folder: PathBuf,
    pub tenant: Tenant,
    pub stop: CancellationToken,
    pub running: tokio::task::JoinHandle<()>,
    _directory: DataDirectory,
}

pub struct Options {
    pub pause: Duration,
    pub memory_bytes: u64,
    pub parallel: usize,
    pub most_open_jobs: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { pause: Duration::ZERO, memory_bytes: 1 << 20, parallel: 1, most_open_jobs: 10 }
    }
}

impl Rig {
    pub async fn open(folder: &Path, options: Options) -> Self {
        let directory = DataDirectory::open(folder, "test").unwrap();
        let catalog = Arc::new(Catalog::open(&directory).await.unwrap());
        let limits = FileLimits { quota_bytes: 1 << 20, most_files: 100 };
        let files = Arc::new(FileStore::open(&directory, catalog.clone(), limits).await.unwrap());
        let (gate, clock) = (Arc::<Gate>::default(), Arc::new(AtomicI64::new(1_000)));
        let log = folder.join("trained.log");
        let counter = Counter { gate: gate.clone(), pause: options.pause, checkpoint_every: 4, log, memory_bytes: options.memory_bytes };
        let (shelf, receiver, now) = (Arc::<Shelves>::default(), Arc::<Receiver>::default(), clock.clone());
        let parts = Parts {
            catalog: catalog.clone(),
            files: files.clone(),
            workshop: Arc::new(OneTrainer(Arc::new(counter))),
            shelf: shelf.clone(),
            check: Arc::new(PlainCheck),
            webhook: Some(receiver.clone()),
            resources: Arc::new(|| Resources { disk_bytes: Some(1 << 40), memory_bytes: Some(1 << 30) }),
            clock: Arc::new(move || now.load(Ordering::SeqCst)),
        };
        let settings = JobsSettings {
            directory: folder.to_owned(),
            parallel: options.parallel,
            most_open_jobs: options.most_open_jobs,
            hyperparameters: Hyperparameters::default(),
        };
        let jobs = Arc::new(Jobs::new(parts, settings));
        let stop = CancellationToken::new();
        let (worker, until) = (jobs.clone(), stop.clone());
        let running = tokio::spawn(async move { worker.run(until).await.unwrap() });
        Self {
            jobs,
            catalog,
            files,
            gate,
            shelf,
            receiver,
            clock,
            folder: folder.to_owned(),
            tenant: Tenant::default(),
            stop,
            running,
            _directory: directory,
        }
    }

    pub async fn rows(&self, rows: usize) -> String {
        self.file(&"{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}\n".repeat(rows)).await
    }

    pub async fn file(&self, text: &str) -> String {
        let new = NewFile { filename: "rows.jsonl".into(), purpose: "fine-tune".into(), expires_at: None };
        self.files.add(&self.tenant, new, text.as_bytes(), 5).await.unwrap().id
    }

    /// 12 rows, 4 a step, `epochs` epochs: three steps an epoch.
    pub async fn create(&self, epochs: u32) -> JobRecord {
        let file = self.rows(12).await;
        self.jobs.create(&self.tenant, new_job(&file, epochs), None).await.unwrap()
    }

    pub async fn job(&self, id: &str) -> JobRecord {
        self.jobs.job(&self.tenant, id).await.unwrap()
    }

    /// Waits until the job is as it should be.
    pub async fn until(&self, id: &str, what: &str, holds: impl Fn(&JobRecord) -> bool) -> JobRecord {
        for _ in 0..5_000 {
            let job = self.job(id).await;
            if holds(&job) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{what} did not happen: {:?}", self.job(id).await);
    }

    /// Waits until nothing of the job is on the disk.
    pub async fn until_gone(&self, id: &str) {
        let folder = self.folder.join("tuning").join(self.tenant.as_str()).join(id);
        for _ in 0..5_000 {
            if !folder.exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{} is still there", folder.display());
    }

    /// What was said, oldest first.
    pub async fn messages(&self, id: &str) -> Vec<String> {
        let page = groundtone_catalog::Page { after: None, limit: 1_000, ascending: true };
        self.catalog.events(&self.tenant, id, page).await.unwrap().into_iter().map(|event| event.message).collect()
    }

    pub fn trained(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.folder.join("trained.log")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Ends the scheduler as the server's stop does.
    pub async fn close(self) {
        self.stop.cancel();
        self.running.await.unwrap();
        self.catalog.close().await;
    }
}

pub fn new_job(file: &str, epochs: u32) -> NewJob {
    NewJob {
        model: "gpt-4o-mini".into(),
        training_file: file.into(),
        validation_file: None,
        method: "supervised".into(),
        hyperparameters: HyperparameterChoice { n_epochs: Some(epochs), batch_size: Some(4), ..HyperparameterChoice::default() },
        suffix: Some("voice".into()),
        seed: Some(7),
        metadata: None,
    }
}
