use crate::Global;
use crate::assemble::{Library, configured, local_chat, needed_models, now, settings, source_settings};
use crate::commands::models::pull;
use crate::output::{hint, line};
use crate::{shadows, tuning};
use groundtone_catalog::{FileLimits, FileStore};
use groundtone_config::{Config, Engine};
use groundtone_ingest::IngestSettings;
use groundtone_server::{AccessPolicy, AppState, Documents, KeyHash, Limits, Releases, ResponseStore};
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
    library.retriever(config).await?;
    let local = match config.chat.kind {
        Engine::Local => Some(local_chat(config).await?),
        Engine::Openai => None,
    };
    let mut answerer = match &local {
        Some(chat) => library.answerer_with(config, Arc::new(chat.clone())).await?,
        None => library.answerer(config).await?,
    };
    if !config.release.shadow.is_empty() {
        let sink = shadows::sink(library.directory.path().join("shadow.jsonl"), now);
        answerer = answerer.with_shadows(config.release.shadow_parallel, sink);
    }
    let keys = config.server.api_key_sha256.iter().filter_map(|hex| KeyHash::from_hex(hex)).collect();
    let seconds = Duration::from_secs;
    let documents = Documents {
        ingester: library.ingester(config).await?,
        catalog: library.catalog.clone(),
        settings: IngestSettings { collection: config.assistant.collection.clone(), ..library.ingest_settings(config) },
        sources: source_settings(config)?,
        turn: Arc::default(),
    };
    let owner_key = uuid::Uuid::new_v4().simple().to_string();
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
    let releases = Releases::new(library.catalog.clone(), library.tenant.clone(), answerer.clone(), configured(config));
    releases.enter().await.map_err(|error| {
        hint(format!("what was released cannot answer: {error}"), "configure that variant again, or `groundtone release rollback`")
    })?;
    library.catalog.fail_unfinished_store_files().await?;
    let files = FileLimits { quota_bytes: config.files.quota_mb << 20, most_files: config.files.max_files };
    let files = Arc::new(FileStore::open(&library.directory, library.catalog.clone(), files).await?);
    let tuning = Arc::new(tuning::jobs(config, &library, files.clone(), local)?);
    let state = AppState {
        answerer,
        releases,
        documents,
        files,
        uploads: tokio::sync::Mutex::default(),
        tuning,
        responses: ResponseStore::default(),
        embedder: library.embedder.clone(),
        access: AccessPolicy { keys, owner: Some(KeyHash::of(&owner_key)) },
        limits,
        started_at: now(),
    };
    let address = format!("http://{}", listener.local_addr()?);
    library.directory.set_address(address.clone(), owner_key)?;
    let stop = stop_signal()?;
    announce(&address)?;
    groundtone_server::run(listener, Arc::new(state), stop).await?;
    library.catalog.close().await;
    Ok(())
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
