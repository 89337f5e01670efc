use crate::Global;
use crate::assemble::{Library, configured, needed_models, now, redactor, settings, signed_webhook, source_settings};
use crate::commands::models::pull;
use crate::output::{hint, line};
use crate::{shadows, tuning};
use groundtone_answer::AbstainReason;
use groundtone_catalog::{KeyLimits, Retention};
use groundtone_config::{Config, HandoffReason};
use groundtone_evals::stats::{CanarySettings, SignalRule};
use groundtone_ingest::IngestSettings;
use groundtone_server::{
    AccessPolicy, AppState, CanaryRules, CanaryWatch, Documents, HandoffRules, Handoffs, Keeping, KeyHash, KeyRing, Limits, PageTokens,
    Price, Recorder, Releases, ResponseStore,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Most texts in one call of `/v1/embeddings`; OpenAI's own limit.
const MAX_EMBEDDING_INPUTS: usize = 2048;

/// Flags of `groundtone serve`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address to listen on (server.host)
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on; 0 takes a free one (server.port)
    #[arg(long)]
    port: Option<u16>,
}

impl Args {
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        let mut flags = Vec::new();
        flags.extend(self.host.clone().map(|host| ("server.host", host)));
        flags.extend(self.port.map(|port| ("server.port", port.to_string())));
        flags
    }
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &args.flags())?;
    let listener = listen(&config).await?;
    pull(&config, &needed_models(&config)).await?;
    let library = Library::open(&config, "groundtone serve").await?;
    serve(&config, library, listener, |address| line(format!("listening on {address}  (chat page; Ctrl-C stops)"))).await
}

/// Takes the port before anything slow is loaded.
pub(crate) async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let (host, port) = (config.server.host.trim_matches(['[', ']']), config.server.port);
    TcpListener::bind((host, port)).await.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!("port {port} on {host} is in use"),
            _ => format!("cannot listen on {host} port {port}: {error}"),
        };
        hint(reason, "choose another with --port, or --port 0 for a free one")
    })
}

/// Serves until Ctrl-C or SIGTERM. `announce` is called with the address when questions can be asked.
pub(crate) async fn serve(
    config: &Config,
    mut library: Library,
    listener: TcpListener,
    announce: impl FnOnce(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let owner_key = uuid::Uuid::new_v4().simple().to_string();
    let access = access(config, &library, KeyHash::of(&owner_key)).await?;
    let mut answerer = library.answerer(config).await?;
    if !config.release.shadow.is_empty() {
        let sink = shadows::sink(library.directory.path().join("shadow.jsonl"), redactor(config)?, now);
        answerer = answerer.with_shadows(config.release.shadow_parallel, sink);
    }
    let seconds = Duration::from_secs;
    let documents = Documents {
        ingester: library.ingester(config).await?,
        catalog: library.catalog.clone(),
        settings: IngestSettings { collection: config.assistant.collection.clone(), ..library.ingest_settings(config) },
        sources: source_settings(config)?,
        turn: Arc::default(),
    };
    let limits = Limits {
        max_document_bytes: usize::try_from(config.ingest.max_file_bytes).unwrap_or(usize::MAX),
        max_training_bytes: usize::try_from(config.tuning.max_file_mb << 20).unwrap_or(usize::MAX),
        upload_quota_bytes: config.files.quota_mb << 20,
        max_body_bytes: config.server.max_body_bytes,
        max_vector_stores: config.files.max_vector_stores,
        request_timeout: seconds(config.server.request_timeout_seconds),
        max_embedding_inputs: MAX_EMBEDDING_INPUTS,
        drain: seconds(config.server.drain_seconds),
    };
    let canary = match config.release.canary_watch {
        true => Some(Arc::new(CanaryWatch::new(canary_rules(config)?, library.metrics.clone()))),
        false => None,
    };
    if let Some(canary) = &canary {
        answerer = answerer.watched_by(canary.clone());
    }
    let mut releases = Releases::new(library.catalog.clone(), library.tenant.clone(), answerer.clone(), configured(config));
    if let Some(canary) = canary {
        releases = releases.watched(canary);
    }
    releases.enter().await.map_err(|error| {
        hint(format!("what was released cannot answer: {error}"), "configure that variant again, or `groundtone release rollback`")
    })?;
    library.catalog.fail_unfinished_store_files().await?;
    let files = tuning::files(config, &library.directory, &library.catalog).await?;
    let tuning = Arc::new(tuning::jobs(config, &library.directory, library.catalog.clone(), files.clone(), library.shelf.clone())?);
    tuning::open_merged(config, &tuning, &library.tenant).await;
    let keeping = Keeping {
        traces: config.traces.keep,
        retention: Retention { days: config.traces.keep_days, count: config.traces.keep_count },
        audit_days: config.server.audit_days,
        redactor: redactor(config)?,
    };
    let recorder = Arc::new(Recorder::start(library.catalog.clone(), access.keys.clone(), library.metrics.clone(), keeping));
    let handoffs = handoffs(config, &library)?;
    let state = AppState {
        answerer,
        releases,
        documents,
        files,
        uploads: tokio::sync::Mutex::default(),
        building: Arc::default(),
        tuning,
        responses: ResponseStore::default(),
        embedder: library.embedder.clone(),
        recorder: recorder.clone(),
        handoffs: handoffs.clone(),
        metrics: library.metrics.clone(),
        answers: library.answers.clone(),
        access,
        limits,
        started_at: now(),
    };
    let address = format!("http://{}", listener.local_addr()?);
    library.directory.set_address(address.clone(), owner_key)?;
    let stop = stop_signal()?;
    announce(&address)?;
    groundtone_server::run(listener, Arc::new(state), stop).await;
    recorder.flush().await;
    if let Some(handoffs) = handoffs {
        handoffs.flush().await;
    }
    library.catalog.close().await;
    Ok(())
}

/// What is tolerated of a canary.
fn canary_rules(config: &Config) -> anyhow::Result<CanaryRules> {
    let release = &config.release;
    let rule = |(signal, margin): (&str, f64)| -> anyhow::Result<SignalRule> {
        // Ratings are too rare to wait for.
        Ok(SignalRule { signal: serde_json::from_value(signal.into())?, margin, required: signal != "feedback" })
    };
    let rules = release.margins().flatten().map(rule).collect::<Result<_, _>>()?;
    let test = CanarySettings { alpha: release.canary_alpha, rules };
    Ok(CanaryRules { test, slowest: Duration::from_secs(release.canary_slowest_seconds) })
}

/// Who takes questions that are not answered.
fn handoffs(config: &Config, library: &Library) -> anyhow::Result<Option<Arc<Handoffs>>> {
    let settings = &config.handoff;
    let (url, secret, wait) = (&settings.webhook_url, &settings.webhook_secret_env, Duration::from_secs(settings.timeout_seconds));
    let Some(webhook) = signed_webhook("handoff.webhook_secret_env", url, secret, wait)? else { return Ok(None) };
    let reason = |reason: &HandoffReason| match reason {
        HandoffReason::NoEvidence => AbstainReason::NoEvidence,
        HandoffReason::Model => AbstainReason::Model,
        HandoffReason::Citations => AbstainReason::Citations,
    };
    let rules = HandoffRules {
        assistant: config.assistant.name.clone(),
        reasons: settings.reasons.iter().map(reason).collect(),
        redactor: settings.redact.then(|| redactor(config)).transpose()?,
        attempts: settings.attempts,
        pause: Duration::from_secs(settings.pause_seconds),
        most_waiting: settings.max_waiting,
        keep_days: settings.keep_days,
    };
    Ok(Some(Arc::new(Handoffs::start(library.catalog.clone(), webhook, rules, library.metrics.clone()))))
}

/// Who may call, and how much.
async fn access(config: &Config, library: &Library, owner: KeyHash) -> anyhow::Result<AccessPolicy> {
    let configured = config.server.api_key_sha256.iter().filter_map(|hex| KeyHash::from_hex(hex)).collect();
    let keys = Arc::new(KeyRing::load(&library.catalog, configured, now()).await?);
    let loopback = config.server.is_loopback();
    if !loopback && keys.is_empty() {
        let message = format!("listening on {} needs a key: everybody there could ask", config.server.host);
        return Err(hint(message, "`groundtone keys create --name NAME --scope chat` makes one"));
    }
    let limits = &config.limits;
    let count = |limit: u64| Some(limit).filter(|limit| *limit > 0);
    let money = |limit: f64| Some(limit).filter(|limit| *limit > 0.0);
    let price = |(model, input, output)| Price { model, input, output };
    Ok(AccessPolicy {
        keys,
        pages: PageTokens::new()?,
        page_token_seconds: config.server.page_token_seconds,
        origins: config.server.cors_origins.clone(),
        limits: KeyLimits {
            requests_per_minute: count(limits.requests_per_minute),
            requests_per_day: count(limits.requests_per_day),
            tokens_per_minute: count(limits.tokens_per_minute),
            tokens_per_day: count(limits.tokens_per_day),
            money_per_minute: money(limits.money_per_minute),
            money_per_day: money(limits.money_per_day),
        },
        prices: limits.model_prices().flatten().map(price).collect(),
        loopback,
        owner: Some(owner),
    })
}

/// Resolves at Ctrl-C or SIGTERM. The handlers are in place when this returns.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
