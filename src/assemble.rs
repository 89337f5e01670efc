//! Settings to parts: which embedder, which chat model, which index. The only place that knows all of them.

use crate::Global;
use crate::output::hint;
use crate::ranking;
use crate::tuning::{self, LocalShelf};
use anyhow::Context;
use groundtone_answer::{Answerer, Assistant, Live, Semantics, Variant};
use groundtone_catalog::{Catalog, DataDirectory, EmbeddingCache};
use groundtone_config::{Chat, Config, Engine, ExtractorKind, Links, LogFormat, RetrievalMode};
use groundtone_index::{SparseEmbedder, VectorIndex};
use groundtone_index_edge::{Bm25, EdgeIndex, EdgeSettings};
use groundtone_index_qdrant::{QdrantIndex, QdrantSettings};
use groundtone_ingest::extract::{Extractor, ExtractorSettings, RemoteExtractor, WorkerCommand};
use groundtone_ingest::parse::Limits;
use groundtone_ingest::source::Endings;
use groundtone_ingest::{Build, ChunkSettings, IngestSettings, Ingester, SourceSettings};
use groundtone_local::{FetchPolicy, KNOWN_MODELS, LlamaChat, LlamaSettings, LocalEmbedder, ModelStore, available_threads};
use groundtone_prompt::{CitationPolicy, LinkRule, PromptContract, ReadingRules, TemplateVersion};
use groundtone_provider::{
    AnswerCache, Batcher, BreakerSettings, CachedChat, CachedEmbedder, CallLimits, ChatModel, CollectorClient, DocumentExtractor, Embedder,
    Endpoint, Observe, OpenAiChat, OpenAiEmbeddings, Pace, Resilience, Resilient, Sampling, SendWebhook, SignedWebhook,
};
use groundtone_retrieval::{CondenseLimits, Mode, Retriever, Settings};
use groundtone_server::OWNER_HEADER;
use groundtone_telemetry::{Collector, Metrics, Redactor, Spans};
use groundtone_tuning::jobs::open_tuned;
use groundtone_types::Tenant;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Queries of the embedded index that run at the same time.
const PARALLEL_QUERIES: usize = 8;
/// Longest wait for a connection to an extractor's server.
const CONNECT: Duration = Duration::from_secs(5);
const PULL: &str = "run `groundtone models pull`";

/// Settings with the command line's flags on top, and logging switched on.
pub(crate) fn settings(global: &Global, flags: &[(&str, String)]) -> anyhow::Result<Config> {
    let mut flags = flags.to_vec();
    if let Some(data) = &global.data {
        flags.push(("data.directory", data.display().to_string()));
    }
    match global.verbose {
        0 => {}
        1 => flags.push(("log.level", "info".to_owned())),
        _ => flags.push(("log.level", "debug".to_owned())),
    }
    let config = groundtone_config::load(global.config.as_deref(), &flags)
        .map_err(|error| hint(error, "`groundtone config` prints every key with its documentation"))?;
    let format = match config.log.format {
        LogFormat::Text => groundtone_telemetry::Format::Text,
        LogFormat::Json => groundtone_telemetry::Format::Json,
    };
    if let Some(spans) = groundtone_telemetry::init(format, &config.log.level, redactor(&config)?, collector(&config)?)? {
        SPANS.get_or_init(|| spans);
    }
    Ok(config)
}

/// Spans that are on their way to a collector.
static SPANS: OnceLock<Spans> = OnceLock::new();

/// Sends what is left of the spans. Blocks, but no longer than `telemetry.otlp_timeout_seconds`.
pub(crate) fn send_spans() {
    if let Some(spans) = SPANS.get() {
        spans.shut_down();
    }
}

/// Where spans go.
fn collector(config: &Config) -> anyhow::Result<Option<Collector<CollectorClient>>> {
    let settings = &config.telemetry;
    if settings.otlp_url.is_empty() {
        return Ok(None);
    }
    let timeout = Duration::from_secs(settings.otlp_timeout_seconds);
    let key = groundtone_config::secret("telemetry.otlp_api_key_env", &settings.otlp_api_key_env)?;
    let client = CollectorClient::new(timeout, key.as_ref().map(|key| (settings.otlp_api_key_header.as_str(), key)))?;
    Ok(Some(Collector { address: settings.otlp_url.clone(), share: settings.otlp_share, timeout, queue: settings.otlp_queue, client }))
}

/// What takes personal data and secrets out of logs and traces.
pub(crate) fn redactor(config: &Config) -> anyhow::Result<Redactor> {
    Redactor::new(config.privacy.redact.clone(), &config.privacy.patterns)
        .map_err(|error| hint(format!("`privacy.patterns`: {error}"), "correct the pattern"))
}

/// Unix seconds.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}

/// Opens the data directory for this command alone.
pub(crate) fn data_directory(config: &Config, command: &str) -> anyhow::Result<DataDirectory> {
    data_directory_at(&config.data.directory, command)
}

/// The same for another directory.
pub(crate) fn data_directory_at(path: &Path, command: &str) -> anyhow::Result<DataDirectory> {
    DataDirectory::open(path, command).map_err(|error| match &error {
        groundtone_catalog::Error::Held { pid, .. } => hint(&error, format!("stop process {pid}, or name another directory with --data")),
        _ => error.into(),
    })
}

/// Which model files the settings need.
pub(crate) fn needed_models(config: &Config) -> Vec<String> {
    let mut needed = Vec::new();
    if config.embedder.kind == Engine::Local {
        needed.push(config.embedder.model.clone());
    }
    // A variant may answer with a model that was trained here; that it is there is found out when it is opened.
    let pinned = |chat: &Chat| KNOWN_MODELS.iter().any(|model| model.name == chat.model);
    let variants = config.variants.values().filter_map(|variant| variant.chat(&config.chat)).filter(pinned);
    for chat in std::iter::once(config.chat.clone()).chain(variants) {
        if chat.kind == Engine::Local && chat.path.as_os_str().is_empty() && !needed.contains(&chat.model) {
            needed.push(chat.model);
        }
    }
    needed
}

/// How model files may be fetched.
pub(crate) fn fetch_policy(config: &Config) -> FetchPolicy {
    FetchPolicy { offline: config.models.offline, hub: config.models.hub.clone(), python: config.models.python.clone() }
}

pub(crate) fn threads(configured: usize) -> usize {
    if configured == 0 { available_threads() } else { configured }
}

/// The embedder of the settings.
pub(crate) async fn embedder(config: &Config) -> anyhow::Result<Arc<dyn Embedder>> {
    let settings = config.embedder.clone();
    if settings.kind == Engine::Openai {
        let limit = Duration::from_secs(settings.timeout_seconds);
        let key = groundtone_config::secret("embedder.api_key_env", &settings.api_key_env)?;
        let endpoint = Endpoint::new(&settings.url, key, limit, limit, limit)?;
        let limits = CallLimits { texts: settings.batch, tokens: settings.batch_tokens, parallel: settings.parallel };
        return Ok(Arc::new(OpenAiEmbeddings::new(endpoint, settings.model, settings.dimensions, settings.max_tokens, limits)));
    }
    let paths = ModelStore::new(&config.models.directory).paths(&settings.model).map_err(|error| hint(error, PULL))?;
    let (model, tokenizer) = (paths.first().cloned(), paths.get(1).cloned());
    let (model, tokenizer) =
        model.zip(tokenizer).ok_or_else(|| anyhow::anyhow!("`embedder.model` = `{}` is not an embedding model", settings.model))?;
    let load = move || LocalEmbedder::load(&settings.model, &model, &tokenizer, threads(settings.threads));
    Ok(Arc::new(tokio::task::spawn_blocking(load).await.context("loading the embedder")??))
}

/// Counts the look-ups of a cache.
fn observing(metrics: &Arc<Metrics>, cache: &'static str) -> Observe {
    let metrics = metrics.clone();
    Arc::new(move |hit| metrics.cached(cache, hit))
}

/// The embedder with a memory for questions.
fn remembering(embedder: Arc<dyn Embedder>, config: &Config, metrics: &Arc<Metrics>) -> Arc<dyn Embedder> {
    match config.cache.queries {
        0 => embedder,
        most => Arc::new(CachedEmbedder::new(embedder, most, observing(metrics, "queries"))),
    }
}

/// The chat model of the settings.
pub(crate) async fn chat_model(config: &Config) -> anyhow::Result<Arc<dyn ChatModel>> {
    chat_model_of(config, &config.chat).await
}

/// A chat model of settings like `[chat]`.
async fn chat_model_of(config: &Config, settings: &Chat) -> anyhow::Result<Arc<dyn ChatModel>> {
    let settings = settings.clone();
    if settings.kind == Engine::Openai {
        let seconds = Duration::from_secs;
        let key = groundtone_config::secret("chat.api_key_env", &settings.api_key_env)?;
        let endpoint = Endpoint::new(
            &settings.url,
            key,
            seconds(settings.connect_timeout_seconds),
            seconds(settings.first_token_timeout_seconds),
            seconds(settings.idle_timeout_seconds),
        )?;
        let remote = Arc::new(OpenAiChat::new(endpoint, settings.model, settings.context_tokens as usize));
        let resilience = Resilience {
            parallel: settings.remote_parallel,
            queue: settings.queue,
            queue_wait: seconds(settings.queue_timeout_seconds),
            first_token: seconds(settings.first_token_timeout_seconds),
            total: seconds(settings.total_timeout_seconds),
            retries: settings.retries,
            longest_pause: seconds(settings.retry_pause_seconds),
            breaker: BreakerSettings { failures: settings.breaker_failures, rest: seconds(settings.breaker_rest_seconds) },
        };
        return Ok(Arc::new(Resilient::new(remote, settings.url, resilience)));
    }
    Ok(Arc::new(local_chat(config, &settings).await?))
}

/// A chat model in this process.
async fn local_chat(config: &Config, settings: &Chat) -> anyhow::Result<LlamaChat> {
    let (path, model_id) = gguf_file(config, settings)?;
    let llama = llama_settings(settings, model_id);
    let load = move || LlamaChat::load(&path, llama);
    let model = tokio::task::spawn_blocking(load).await.context("loading the chat model")?;
    model.map_err(|error| hint(error, "check `chat.path`, or run `groundtone models pull`"))
}

/// Where a local chat model is, and what it is called.
pub(crate) fn gguf_file(config: &Config, settings: &Chat) -> anyhow::Result<(PathBuf, String)> {
    if settings.path.as_os_str().is_empty() {
        let paths = ModelStore::new(&config.models.directory).paths(&settings.model).map_err(|error| hint(error, PULL))?;
        let path = paths.into_iter().next().filter(|path| path.extension().is_some_and(|ending| ending == "gguf"));
        return Ok((
            path.ok_or_else(|| anyhow::anyhow!("`chat.model` = `{}` is not a chat model", settings.model))?,
            settings.model.clone(),
        ));
    }
    let name = settings.path.file_stem().map_or_else(|| settings.model.clone(), |stem| stem.to_string_lossy().into_owned());
    Ok((settings.path.clone(), name))
}

/// How models in this process run.
pub(crate) fn llama_settings(chat: &Chat, model_id: String) -> LlamaSettings {
    LlamaSettings {
        model_id,
        context_tokens: chat.context_tokens,
        parallel: chat.parallel,
        threads: threads(chat.threads),
        queue: chat.queue,
        max_tokens: chat.max_tokens,
    }
}

/// Who is told by webhook; `None` where `url` is empty. `key` is the setting that names the variable with the secret, `wait` the longest wait for the receiver.
pub(crate) fn signed_webhook(key: &'static str, url: &str, variable: &str, wait: Duration) -> anyhow::Result<Option<Arc<dyn SendWebhook>>> {
    if url.is_empty() {
        return Ok(None);
    }
    let Some(secret) = groundtone_config::secret(key, variable)? else { return Ok(None) };
    Ok(Some(Arc::new(SignedWebhook::new(url, secret, wait)?)))
}

/// BM25 of the settings.
pub(crate) fn sparse(config: &Config) -> anyhow::Result<Arc<dyn SparseEmbedder>> {
    Ok(Arc::new(Bm25::new(&config.store.bm25_language, config.store.bm25_average_length)?))
}

/// The index of the settings.
pub(crate) async fn index(config: &Config, directory: &DataDirectory) -> anyhow::Result<Arc<dyn VectorIndex>> {
    let timeout = Duration::from_secs(config.store.timeout_seconds);
    if config.store.url.is_empty() {
        let settings = EdgeSettings { parallel_queries: PARALLEL_QUERIES, query_timeout: timeout, indexing_threads: available_threads() };
        return Ok(Arc::new(EdgeIndex::open(&directory.vectors(), settings)?));
    }
    let key = groundtone_config::secret("store.api_key_env", &config.store.api_key_env)?;
    let index = QdrantIndex::connect(&config.store.url, key, QdrantSettings { timeout }).await;
    Ok(Arc::new(index.map_err(|error| hint(error, "start Qdrant, correct `store.url`, or leave it empty for the embedded index"))?))
}

/// The extractor of the settings; its workers are this same program.
pub(crate) fn extractor(config: &Config) -> anyhow::Result<Extractor> {
    let settings = &config.ingest;
    let timeout = Duration::from_secs(settings.parse_timeout_seconds);
    let limits = Limits::default();
    let kind = match settings.extractor_kind {
        ExtractorKind::None => None,
        ExtractorKind::Tika => Some(groundtone_provider::ExtractorKind::Tika),
        ExtractorKind::Docling => Some(groundtone_provider::ExtractorKind::Docling),
    };
    let remote = match kind {
        None => None,
        Some(kind) => {
            let endpoint = Endpoint::new(&settings.extractor_url, None, CONNECT, timeout, timeout)?;
            let most = usize::try_from(limits.max_text_bytes).unwrap_or(usize::MAX);
            Some(RemoteExtractor { client: DocumentExtractor::new(endpoint, kind, most), endings: settings.extractor_endings.clone() })
        }
    };
    let program = std::env::current_exe().context("finding our own program, to start extract workers")?;
    Ok(Extractor::new(ExtractorSettings {
        worker: Some(WorkerCommand { program, args: vec!["extract-worker".into()] }),
        workers: settings.extract_workers,
        timeout,
        memory_bytes: settings.extract_memory_mb << 20,
        limits,
        remote,
    }))
}

/// A data directory with the parts that ingest and search need.
pub(crate) struct Library {
    pub(crate) directory: DataDirectory,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) index: Arc<dyn VectorIndex>,
    pub(crate) embedder: Arc<dyn Embedder>,
    pub(crate) sparse: Arc<dyn SparseEmbedder>,
    pub(crate) tenant: Tenant,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) answers: Option<Arc<AnswerCache>>,
    /// Models that were trained here.
    pub(crate) shelf: Arc<LocalShelf>,
}

impl Library {
    /// Opens everything; the data directory first, so that a second process is told at once.
    pub(crate) async fn open(config: &Config, command: &str) -> anyhow::Result<Self> {
        let directory = data_directory(config, command)?;
        let metrics = Arc::new(Metrics::beside(SPANS.get()));
        let embedder = remembering(embedder(config).await?, config, &metrics);
        let answers = (config.cache.answers_mb > 0)
            .then(|| Arc::new(AnswerCache::new(config.cache.answers_mb << 20, observing(&metrics, "answers"))));
        let catalog = Arc::new(Catalog::open(&directory).await?);
        let index = index(config, &directory).await?;
        let shelf = Arc::new(LocalShelf::of(config));
        Ok(Self { directory, catalog, index, embedder, sparse: sparse(config)?, tenant: Tenant::default(), metrics, answers, shelf })
    }

    /// Ingest with these parts.
    pub(crate) async fn ingester(&self, config: &Config) -> anyhow::Result<Ingester> {
        let settings = &config.embedder;
        // Only a remote embedder has a budget.
        let pace = match settings.kind {
            Engine::Local => Pace::default(),
            Engine::Openai => Pace {
                requests_per_minute: settings.requests_per_minute,
                tokens_per_minute: settings.tokens_per_minute,
                attempts: settings.attempts,
            },
        };
        let cache = match config.ingest.embedding_cache_mb {
            0 => None,
            megabytes => Some(Arc::new(EmbeddingCache::open(&self.directory, megabytes << 20).await?)),
        };
        let batcher = Arc::new(Batcher::new(self.embedder.clone(), pace));
        Ok(Ingester::new(Arc::new(extractor(config)?), self.index.clone(), batcher, self.sparse.clone(), self.catalog.clone(), cache))
    }

    /// Search with the embedders of other settings, for a generation that was built under them.
    pub(crate) async fn retriever_of(&self, config: &Config) -> anyhow::Result<Retriever> {
        self.retriever_with(config, embedder(config).await?, sparse(config)?).await
    }

    /// Search with these parts, after a check that the collection is there and was built with the same embedders.
    pub(crate) async fn retriever(&self, config: &Config) -> anyhow::Result<Retriever> {
        self.retriever_with(config, self.embedder.clone(), self.sparse.clone()).await
    }

    async fn retriever_with(
        &self,
        config: &Config,
        embedder: Arc<dyn Embedder>,
        sparse: Arc<dyn SparseEmbedder>,
    ) -> anyhow::Result<Retriever> {
        let name = &config.assistant.collection;
        let ours = Ingester::vectors_fingerprint(&*embedder, &*sparse);
        let live = self.index.resolve(name).await?.unwrap_or_else(|| name.clone());
        match self.catalog.collection(&live).await? {
            None => {
                return Err(hint(
                    format!("there is no collection `{name}` in {}", self.directory.path().display()),
                    "run `groundtone ingest FOLDER` first, or `groundtone demo`",
                ));
            }
            Some(record) if record.fingerprint != ours => {
                let message = format!("collection `{live}` was built with {} but the configuration says {ours}", record.fingerprint);
                return Err(hint(
                    message,
                    "configure the same embedder, or build the collection with this one: `groundtone ingest --full FOLDER`",
                ));
            }
            Some(_) => {}
        }
        let mode = match config.retrieval.mode {
            RetrievalMode::Hybrid => Mode::Hybrid,
            RetrievalMode::Dense => Mode::Dense,
            RetrievalMode::Bm25 => Mode::Bm25,
        };
        let settings = Settings { mode, top_k: config.retrieval.top_k, candidates: config.retrieval.candidates };
        ranking::ranked(Retriever::new(self.index.clone(), embedder, sparse, settings), config)
    }

    /// Answering with these parts.
    pub(crate) async fn answerer(&self, config: &Config) -> anyhow::Result<Answerer> {
        // First what fails fast.
        let retriever = self.retriever(config).await?;
        let model: Arc<dyn ChatModel> = match config.chat.kind {
            Engine::Openai => chat_model(config).await?,
            Engine::Local => {
                let chat = local_chat(config, &config.chat).await?;
                self.shelf.keep(chat.clone()).await;
                Arc::new(chat)
            }
        };
        let model: Arc<dyn ChatModel> = match &self.answers {
            Some(answers) => Arc::new(CachedChat::new(model, answers.clone())),
            None => model,
        };
        let contract = PromptContract {
            template: TemplateVersion::V1,
            system: config.assistant.system.clone(),
            abstain: config.assistant.abstain.clone(),
            context_tokens: config.assistant.context_tokens as usize,
            tokenizer: model.tokens().id().to_owned(),
        };
        let sampling =
            Sampling { temperature: Some(config.chat.temperature), max_tokens: Some(config.chat.max_tokens), ..Sampling::default() };
        let assistant = Assistant {
            name: config.assistant.name.clone(),
            collection: config.assistant.collection.clone(),
            contract,
            reading: reading(config),
            sampling,
        };
        let mut variants = Vec::new();
        for (name, settings) in &config.variants {
            variants.push(self.variant(config, name, settings, &assistant, &model).await.with_context(|| format!("variant `{name}`"))?);
        }
        let mut answerer = Answerer::new(assistant, retriever, model).with_variants(variants);
        answerer.switch(configured(config))?;
        if config.citations.semantic_bound > 0.0 {
            let timeout = Duration::from_millis(config.citations.semantic_timeout_ms);
            answerer = answerer.comparing(Semantics { embedder: self.embedder.clone(), bound: config.citations.semantic_bound, timeout });
        }
        if !config.retrieval.condense {
            return Ok(answerer);
        }
        let timeout = Duration::from_secs(config.retrieval.condense_timeout_seconds);
        Ok(answerer.condensing(CondenseLimits { timeout, ..CondenseLimits::default() }))
    }

    /// A variant of the assistant, which shares its model where the settings name no other one.
    async fn variant(
        &self,
        config: &Config,
        name: &str,
        settings: &groundtone_config::Variant,
        assistant: &Assistant,
        own: &Arc<dyn ChatModel>,
    ) -> anyhow::Result<Variant> {
        let model = match settings.chat(&config.chat) {
            Some(chat) => self.variant_chat(config, &chat).await?,
            None => own.clone(),
        };
        let system = match (&settings.prompt_file, &settings.system) {
            (Some(path), _) => tokio::fs::read_to_string(path).await.with_context(|| format!("cannot read {}", path.display()))?,
            (None, Some(system)) => system.clone(),
            (None, None) => assistant.contract.system.clone(),
        };
        let tokenizer = model.tokens().id().to_owned();
        Ok(Variant {
            name: name.to_owned(),
            retrieval: settings.looks_up(name),
            contract: PromptContract { system, tokenizer, ..assistant.contract.clone() },
            model,
            sampling: assistant.sampling.clone(),
        })
    }

    /// The model of a variant: what was trained here under that name, or else what `[chat]` could name.
    async fn variant_chat(&self, config: &Config, chat: &Chat) -> anyhow::Result<Arc<dyn ChatModel>> {
        if chat.kind == Engine::Local && chat.path.as_os_str().is_empty() {
            let (shelf, directory) = (tuning::shelf(config, self.shelf.clone())?, std::path::absolute(self.directory.path())?);
            let tuned = open_tuned(&self.catalog, &*shelf, &directory, &self.tenant, &chat.model).await;
            let hint_base = "its base model must be the local [chat] model, or stand in `tuning.base_models`";
            if let Some(tuned) = tuned.map_err(|error| hint(error, hint_base))? {
                return Ok(tuned);
            }
            if !KNOWN_MODELS.iter().any(|model| model.name == chat.model) {
                return Err(hint(
                    format!("there is no model `{}` in {}", chat.model, self.directory.path().display()),
                    "`groundtone tune list` shows what was trained here, `groundtone models list` what can be fetched",
                ));
            }
        }
        chat_model_of(config, chat).await
    }

    /// What ingest is told; the run, its source and its mode are each order's own.
    pub(crate) fn ingest_settings(&self, config: &Config) -> IngestSettings {
        let ingest = &config.ingest;
        IngestSettings {
            run: uuid::Uuid::now_v7(),
            tenant: self.tenant.clone(),
            collection: ingest.collection.clone(),
            source: String::new(),
            chunks: ChunkSettings {
                max_tokens: ingest.chunk_tokens,
                overlap_tokens: ingest.overlap_tokens,
                parent_tokens: ingest.parent_tokens,
                breadcrumb: ingest.breadcrumb,
            },
            max_file_bytes: ingest.max_file_bytes,
            parse_timeout: Duration::from_secs(ingest.parse_timeout_seconds),
            url_prefix: ingest.url_prefix.clone(),
            prune: false,
            build: Build::Live,
            dry_run: false,
            price_per_million_tokens: config.embedder.price_per_million_tokens,
            now: now(),
        }
    }
}

/// What answers before anything was released.
pub(crate) fn configured(config: &Config) -> Live {
    let release = &config.release;
    Live {
        release: None,
        variant: release.variant.clone(),
        canary: None,
        shadow: Some(release.shadow.clone()).filter(|shadow| !shadow.is_empty()),
        fallbacks: release.fallbacks.clone(),
    }
}

/// How answers are read.
fn reading(config: &Config) -> ReadingRules {
    let settings = &config.citations;
    let policy = match settings.policy {
        groundtone_config::CitationPolicy::Report => CitationPolicy::Report,
        groundtone_config::CitationPolicy::Repair => CitationPolicy::Repair,
        groundtone_config::CitationPolicy::Remove => CitationPolicy::Remove,
        groundtone_config::CitationPolicy::Refuse => CitationPolicy::Refuse,
    };
    let links = match settings.links {
        Links::Known => LinkRule::Known(settings.link_hosts.clone()),
        Links::Any => LinkRule::Any,
    };
    ReadingRules { policy, links, semantic: settings.semantic_bound > 0.0 }
}

/// What sources are told.
pub(crate) fn source_settings(config: &Config) -> anyhow::Result<SourceSettings> {
    let sources = config.sources.clone();
    Ok(SourceSettings {
        extra_endings: Endings::new(config.ingest.extractor_endings.iter().cloned()),
        split_above_bytes: config.ingest.split_above_bytes,
        allow_private_hosts: sources.allow_private_hosts,
        web_max_pages: sources.web_max_pages,
        web_timeout: Duration::from_secs(sources.web_timeout_seconds),
        web_user_agent: sources.web_user_agent,
        s3_endpoint: sources.s3_endpoint,
        s3_region: sources.s3_region,
        s3_access_key: groundtone_config::secret("sources.s3_access_key_env", &sources.s3_access_key_env)?,
        s3_secret_key: groundtone_config::secret("sources.s3_secret_key_env", &sources.s3_secret_key_env)?,
        s3_allow_http: sources.s3_allow_http,
        record_max_bytes: sources.record_max_bytes,
        watch_debounce: Duration::from_millis(sources.watch_debounce_ms),
        watch_rescan: Duration::from_secs(sources.watch_rescan_seconds),
    })
}

/// The server that holds the data directory, if one does.
pub(crate) fn running_server(config: &Config) -> anyhow::Result<Option<RunningServer>> {
    let Some(holder) = DataDirectory::holder(&config.data.directory)? else { return Ok(None) };
    let Some(address) = holder.address else { return Ok(None) };
    let key = groundtone_config::secret("server.api_key_env", &config.server.api_key_env)?;
    let limit = Duration::from_secs(config.server.request_timeout_seconds);
    let mut endpoint = Endpoint::new(&format!("{address}/v1"), key, Duration::from_secs(5), limit, limit)?;
    if let Some(key) = holder.owner_key {
        endpoint = endpoint.with_header(OWNER_HEADER, key.into());
    }
    Ok(Some(RunningServer { address, endpoint }))
}

/// A server on our own data directory, as its client sees it.
pub(crate) struct RunningServer {
    /// `http://127.0.0.1:8080`.
    pub(crate) address: String,
    /// Its API, with our keys.
    pub(crate) endpoint: Endpoint,
}
