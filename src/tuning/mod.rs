//! Fine-tuning with the settings: which base models there are, who trains them, and where the trained ones answer.

mod vllm;

use crate::assemble::{gguf_file, llama_settings, now, signed_webhook, threads};
use async_trait::async_trait;
use groundtone_catalog::{Catalog, DataDirectory, FileLimits, FileStore, ModelRecord};
use groundtone_config::{Config, Engine, TrainerKind};
use groundtone_datasets::validate::{self, Options, Severity};
use groundtone_local::{ChatTokenizer, LlamaChat, LlamaSettings};
use groundtone_provider::{ChatModel, Error};
use groundtone_tuning::jobs::{CheckRows, FileProblem, Jobs, JobsSettings, Parts, PlainCheck, Resources, Shelf, Workshop};
use groundtone_tuning::{
    CommandSettings, CommandTrainer, Hyperparameters, LoraTrainer, MergedPrecision, TargetModule, TrainError, Trainer, export_gguf,
};
use groundtone_types::Tenant;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Longest wait for a webhook's receiver.
const WEBHOOK_WAIT: Duration = Duration::from_secs(15);

/// How long a training program may take to save its work when it is told to stop.
const GRACE: Duration = Duration::from_secs(20);

/// The files that clients have uploaded.
pub(crate) async fn files(config: &Config, directory: &DataDirectory, catalog: &Arc<Catalog>) -> anyhow::Result<Arc<FileStore>> {
    let limits = FileLimits { quota_bytes: config.files.quota_mb << 20, most_files: config.files.max_files };
    Ok(Arc::new(FileStore::open(directory, catalog.clone(), limits).await?))
}

/// Where trained models answer: in this process, or on a vLLM server.
pub(crate) fn shelf(config: &Config, local: Arc<LocalShelf>) -> anyhow::Result<Arc<dyn Shelf>> {
    if config.tuning.vllm_url.is_empty() {
        return Ok(local);
    }
    Ok(Arc::new(vllm::VllmShelf::new(config)?))
}

/// Jobs of the settings.
pub(crate) fn jobs(
    config: &Config,
    directory: &DataDirectory,
    catalog: Arc<Catalog>,
    files: Arc<FileStore>,
    local: Arc<LocalShelf>,
) -> anyhow::Result<Jobs> {
    let mut bases = Bases::of(config);
    if !config.tuning.vllm_url.is_empty() {
        // Weights are the other server's.
        bases.files.clear();
    }
    // Another program may be started elsewhere, and another server reads the adapters: names of files must mean the same there.
    let directory = std::path::absolute(directory.path())?;
    let (url, secret) = (&config.tuning.webhook_url, &config.tuning.webhook_secret_env);
    let webhook = signed_webhook("tuning.webhook_secret_env", url, secret, WEBHOOK_WAIT)?;
    let disk = directory.clone();
    let parts = Parts {
        catalog,
        files,
        workshop: Arc::new(ConfiguredWorkshop { bases, threads: threads(config.chat.threads), command: command(config) }),
        shelf: shelf(config, local)?,
        check: Arc::new(RowsCheck),
        webhook,
        resources: Arc::new(move || Resources::of_machine(&disk)),
        clock: Arc::new(now),
    };
    let settings = JobsSettings {
        directory,
        parallel: config.tuning.parallel,
        most_open_jobs: config.tuning.max_open_jobs,
        hyperparameters: hyperparameters(config)?,
    };
    Ok(Jobs::new(parts, settings))
}

/// Opens the models of `tuning.merged_models`, so that no customer waits for it. What cannot be opened is told and keeps nothing else from starting.
pub(crate) async fn open_merged(config: &Config, jobs: &Jobs, tenant: &Tenant) {
    for model in &config.tuning.merged_models {
        match jobs.chat_model(tenant, model).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                tracing::warn!(model, %tenant, "a name in `tuning.merged_models` is no trained model; `groundtone tune list` shows them");
            }
            Err(error) => tracing::warn!(model, %error, "a model of `tuning.merged_models` cannot be opened"),
        }
    }
}

/// The program that trains, where one does.
fn command(config: &Config) -> Option<CommandSettings> {
    let tuning = &config.tuning;
    let (program, arguments) = tuning.command.split_first().filter(|_| tuning.trainer == TrainerKind::Command)?;
    Some(CommandSettings {
        program: program.clone(),
        arguments: arguments.to_vec(),
        environment: groundtone_config::variables(&tuning.command_env),
        timeout: Duration::from_secs(tuning.command_timeout_seconds),
        output_bytes: tuning.command_output_mb << 20,
        grace: GRACE,
    })
}

fn hyperparameters(config: &Config) -> anyhow::Result<Hyperparameters> {
    let tuning = &config.tuning;
    let module = |name: &String| serde_json::from_value::<TargetModule>(serde_json::Value::from(name.as_str()));
    Ok(Hyperparameters {
        learning_rate_multiplier: tuning.learning_rate_multiplier,
        rank: tuning.rank,
        alpha: tuning.alpha,
        dropout: tuning.dropout,
        target_modules: tuning.target_modules.iter().map(module).collect::<Result<_, _>>()?,
        trained_layers: Some(tuning.trained_layers).filter(|&layers| layers > 0),
        max_row_tokens: tuning.max_row_tokens,
        checkpoint_every: tuning.checkpoint_every,
        validate_every: tuning.validate_every,
        ..Hyperparameters::default()
    })
}

/// Problems that are listed: the first error is told, and warnings before it must not push it out.
const LISTED: usize = 10_000;

/// Rows as every server of the API takes them. The first problem that makes a file useless is the job's error.
struct RowsCheck;

impl CheckRows for RowsCheck {
    fn check(&self, file: &Path, method: &str, is_validation: bool) -> Result<(), FileProblem> {
        PlainCheck.check(file, method, is_validation)?;
        let invalid = |message: String| FileProblem { code: "invalid_training_file".to_owned(), message };
        let method = if method == "dpo" { validate::Method::Dpo } else { validate::Method::Sft };
        let options = Options { method, max_problems: LISTED, threads: 1, ..Options::default() };
        let source = std::fs::File::open(file).map_err(|error| invalid(format!("The file cannot be read: {error}")))?;
        let report = validate::validate(source, &options).map_err(|error| invalid(format!("The file cannot be read: {error}")))?;
        // How many rows there must be is checked above, in OpenAI's words; a file of validation rows may be short.
        let problem = report.problems.iter().find(|problem| problem.severity == Severity::Error && problem.rule != "too-few-rows");
        match problem {
            Some(problem) => Err(invalid(format!("Invalid file format. Line {}: {}", problem.line, problem.message))),
            None => Ok(()),
        }
    }
}

/// Base models: the names that clients send, and the files of what they stand for.
struct Bases {
    names: Vec<(String, String)>,
    files: HashMap<String, PathBuf>,
}

impl Bases {
    fn of(config: &Config) -> Self {
        let mut names: Vec<(String, String)> = config.tuning.base_model_pairs().flatten().collect();
        let mut files = HashMap::new();
        if config.chat.kind == Engine::Local
            && let Ok((path, id)) = gguf_file(config, &config.chat)
        {
            if names.is_empty() {
                names.push((id.clone(), id.clone()));
            }
            files.insert(id, path);
        }
        for (_, model) in &names {
            let known = groundtone_local::ModelStore::new(&config.models.directory).paths(model).ok();
            let known = known.and_then(|paths| paths.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "gguf")));
            // What is no known model is a path; the trainer says what is wrong with it.
            files.entry(model.clone()).or_insert_with(|| known.unwrap_or_else(|| PathBuf::from(model)));
        }
        Self { names, files }
    }
}

struct ConfiguredWorkshop {
    bases: Bases,
    threads: usize,
    command: Option<CommandSettings>,
}

impl Workshop for ConfiguredWorkshop {
    fn names(&self) -> Vec<String> {
        self.bases.names.iter().map(|(name, _)| name.clone()).collect()
    }

    fn trained_model(&self, name: &str) -> Option<String> {
        self.bases.names.iter().find(|(known, _)| known == name).map(|(_, model)| model.clone())
    }

    fn trainer(&self, model: &str) -> Result<Arc<dyn Trainer>, TrainError> {
        if let Some(command) = &self.command {
            return Ok(Arc::new(CommandTrainer::new(model, self.model_file(model), command.clone())));
        }
        let failed = |reason: String| TrainError::Model { model: model.to_owned(), reason };
        let path = self.bases.files.get(model).ok_or_else(|| failed("it is no longer in `tuning.base_models`".to_owned()))?;
        let tokenizer = ChatTokenizer::load(path, model).map_err(|error| failed(error.to_string()))?;
        Ok(Arc::new(LoraTrainer::new(path, model, Arc::new(tokenizer), self.threads)?))
    }

    fn model_file(&self, model: &str) -> Option<PathBuf> {
        self.bases.files.get(model).cloned()
    }
}

/// Trained models in this process: one base for all of its adapters. The local chat model, where there is one, is such a base: its weights are in memory once.
/// Those of `tuning.merged_models` have a copy of the base of their own instead, with the adapter worked in.
pub(crate) struct LocalShelf {
    files: HashMap<String, PathBuf>,
    settings: LlamaSettings,
    loaded: Mutex<HashMap<String, LlamaChat>>,
    merged_models: BTreeSet<String>,
    /// Those that are loaded, by the shelf's name for them.
    merged: Mutex<HashMap<String, LlamaChat>>,
}

impl LocalShelf {
    /// An empty one.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            files: Bases::of(config).files,
            settings: llama_settings(&config.chat, String::new()),
            loaded: Mutex::default(),
            merged_models: config.tuning.merged_models.iter().cloned().collect(),
            merged: Mutex::default(),
        }
    }

    /// Adapters of this base are applied to this one.
    pub(crate) async fn keep(&self, base: LlamaChat) {
        self.loaded.lock().await.insert(base.id().to_owned(), base);
    }

    async fn base(&self, name: &str) -> Result<LlamaChat, Error> {
        let mut loaded = self.loaded.lock().await;
        if let Some(base) = loaded.get(name) {
            return Ok(base.clone());
        }
        let (path, settings) = (self.base_file(name)?, self.settings_of(name));
        let base = away(name, move || LlamaChat::load(&path, settings)).await?;
        loaded.insert(name.to_owned(), base.clone());
        Ok(base)
    }

    fn base_file(&self, name: &str) -> Result<PathBuf, Error> {
        let reason = "it is no longer in `tuning.base_models`";
        self.files.get(name).cloned().ok_or_else(|| Error::Model { model: name.to_owned(), reason: reason.to_owned() })
    }

    fn settings_of(&self, model: &str) -> LlamaSettings {
        LlamaSettings { model_id: model.to_owned(), ..self.settings.clone() }
    }

    /// The model as one with its base. The file of it is written anew each time and not kept: it takes a second or two, and cannot be out of date.
    async fn merged(&self, id: &str, model: &ModelRecord, adapter: &Path) -> Result<LlamaChat, Error> {
        let mut merged = self.merged.lock().await;
        if let Some(whole) = merged.get(id) {
            return Ok(whole.clone());
        }
        let (base, settings) = (self.base_file(&model.base)?, self.settings_of(&model.id));
        let (adapter, file, name) = (adapter.to_owned(), adapter.with_extension("merged"), model.id.clone());
        let whole = away(&model.id, move || {
            export_gguf(&adapter, &base, MergedPrecision::Eight, &file)
                .map_err(|error| Error::Model { model: name, reason: error.to_string() })?;
            let whole = LlamaChat::load(&file, settings);
            // It is mapped into memory where it is loaded, and its name is not needed.
            if let Err(error) = std::fs::remove_file(&file) {
                tracing::warn!(file = %file.display(), %error, "a merged model's file could not be removed");
            }
            whole
        });
        let whole = whole.await?;
        tracing::info!(model = model.id, "it answers from a copy of its base of its own");
        merged.insert(id.to_owned(), whole.clone());
        Ok(whole)
    }
}

#[async_trait]
impl Shelf for LocalShelf {
    async fn open(&self, id: &str, model: &ModelRecord, adapter: &Path) -> Result<Arc<dyn ChatModel>, Error> {
        if self.merged_models.contains(&model.id) {
            return Ok(Arc::new(self.merged(id, model, adapter).await?));
        }
        let base = self.base(&model.base).await?;
        if let Some(ready) = base.with_adapter(id, &model.id) {
            return Ok(ready);
        }
        base.load_adapter(id, adapter).await?;
        base.with_adapter(id, &model.id)
            .ok_or_else(|| Error::Model { model: model.id.clone(), reason: "its adapter was unloaded".to_owned() })
    }

    async fn open_base(&self, model: &str) -> Result<Arc<dyn ChatModel>, Error> {
        Ok(Arc::new(self.base(model).await?))
    }

    async fn forget(&self, id: &str) {
        self.merged.lock().await.remove(id);
        for base in self.loaded.lock().await.values() {
            if let Err(error) = base.unload_adapter(id).await {
                tracing::warn!(model = id, %error, "an adapter could not be unloaded");
            }
        }
    }
}

/// Loads a model away from the runtime's threads.
async fn away(model: &str, load: impl FnOnce() -> Result<LlamaChat, Error> + Send + 'static) -> Result<LlamaChat, Error> {
    let loaded = tokio::task::spawn_blocking(load).await;
    loaded.map_err(|error| Error::Model { model: model.to_owned(), reason: error.to_string() })?
}
