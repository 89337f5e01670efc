use crate::Global;
use crate::assemble::{Library, RunningServer, running_server, settings, source_settings};
use crate::commands::models::pull;
use crate::commands::serve::stop_signal;
use crate::output::{hint, json, line, say, watched};
use anyhow::Context;
use futures::StreamExt;
use groundtone_config::{Config, Engine};
use groundtone_ingest::{Build, Error, Order, OrderEvent, Progress, Report, Stage, source};
use groundtone_provider::post_events;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::Instant;

/// Rejected documents that are named one by one; a report has them all.
const NAMED_REJECTIONS: usize = 50;

/// Flags of `groundtone ingest`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folders, files, patterns (docs/**/*.md), pages, sitemaps, s3://bucket/prefix, or - for JSONL records on standard input
    #[arg(required = true)]
    locations: Vec<String>,
    /// Where the documents go (ingest.collection)
    #[arg(long)]
    collection: Option<String>,
    /// Name of the source, where it has moved; only documents of the same source are replaced or removed
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Remove documents from the index that have left their source
    #[arg(long)]
    prune: bool,
    /// Build the collection anew from nothing; the old one answers until the new one is complete
    #[arg(long, conflicts_with = "generation")]
    full: bool,
    /// Build a new generation beside the live one; `groundtone generations switch` lets it answer
    #[arg(long)]
    generation: bool,
    /// Stay, and follow what changes in the source
    #[arg(long, conflicts_with_all = ["dry_run", "full", "generation"])]
    watch: bool,
    /// Say what would be done and what it would cost, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Put before a document's path to make the address in its citations (ingest.url_prefix)
    #[arg(long, value_name = "URL")]
    url_prefix: Option<String>,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let mut flags = Vec::new();
    flags.extend(args.collection.clone().map(|collection| ("ingest.collection", collection)));
    flags.extend(args.url_prefix.clone().map(|prefix| ("ingest.url_prefix", prefix)));
    let config = settings(global, &flags)?;
    let build = match (args.full, args.generation) {
        (true, _) => Build::Anew,
        (_, true) => Build::Beside,
        _ => Build::Live,
    };
    let order = Order {
        locations: args.locations.clone(),
        source: args.source.clone(),
        // Our own settings have these already; the server's need not be ours.
        collection: args.collection.is_some().then(|| config.ingest.collection.clone()),
        url_prefix: args.url_prefix.clone(),
        prune: args.prune,
        build,
        dry_run: args.dry_run,
    };
    let worker = Worker::find(&config).await?;
    if args.watch {
        return follow(&config, &worker, order, global.json).await;
    }
    let spool = worker.spool(&config, &order)?;
    let order = spool.as_ref().map_or(order, |spool| spool.order.clone());
    worker.carry_out(&config, &order, &|report| show(&report, global.json)).await
}

/// Who does the work: this process, or the server that holds the data directory.
pub(crate) enum Worker {
    Own(Box<Library>),
    Server(RunningServer),
}

impl Worker {
    async fn find(config: &Config) -> anyhow::Result<Self> {
        if let Some(server) = running_server(config)? {
            say(format!("the server at {} has the data directory open and does the work, with its own settings", server.address));
            return Ok(Self::Server(server));
        }
        if config.embedder.kind == Engine::Local {
            pull(config, std::slice::from_ref(&config.embedder.model)).await?;
        }
        Ok(Self::Own(Box::new(Library::open(config, "groundtone ingest").await?)))
    }

    /// Carries an order out under a progress bar. `told` gets the report of each location as soon as there is one.
    pub(crate) async fn carry_out(
        &self,
        config: &Config,
        order: &Order,
        told: &(dyn Fn(Report) -> anyhow::Result<()> + Send + Sync),
    ) -> anyhow::Result<()> {
        let bar = Bar::new();
        let hear = |event: OrderEvent| match event {
            OrderEvent::Progress(at) => bar.show(at),
            OrderEvent::Report(report) => {
                bar.0.suspend(|| told(*report).unwrap_or_else(|error| say(format!("error: {error:#}"))));
            }
        };
        let result = match self {
            Self::Own(library) => {
                let ingester = library.ingester(config).await?;
                let (settings, sources) = (library.ingest_settings(config), source_settings(config)?);
                ingester.carry_out(order, &settings, &sources, &hear).await.map_err(explain)
            }
            Self::Server(server) => by_server(server, order, &hear).await,
        };
        bar.0.finish_and_clear();
        result
    }

    /// Records on standard input, kept in a file for a server to read. `None` where nothing is to be kept.
    fn spool(&self, config: &Config, order: &Order) -> anyhow::Result<Option<Spool>> {
        if matches!(self, Self::Own(_)) || !order.locations.iter().any(|location| location == "-") {
            return Ok(None);
        }
        if order.locations.len() > 1 {
            return Err(hint("records on standard input and other locations, while a server does the work", "run one command for each"));
        }
        Spool::fill(config, order).map(Some)
    }
}

/// A file that is gone when this is dropped.
struct Spool {
    path: PathBuf,
    order: Order,
}

impl Spool {
    fn fill(config: &Config, order: &Order) -> anyhow::Result<Self> {
        let folder = config.data.directory.canonicalize().with_context(|| config.data.directory.display().to_string())?;
        let path = folder.join(format!("stdin-{}.jsonl", std::process::id()));
        let mut file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
        let mut order = order.clone();
        order.source.get_or_insert_with(|| "-".to_owned());
        order.locations = vec![path.display().to_string()];
        let spool = Self { path, order };
        std::io::copy(&mut std::io::stdin().lock(), &mut file).context("standard input cannot be kept")?;
        Ok(spool)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            say(format!("{} could not be removed: {error}", self.path.display()));
        }
    }
}

async fn by_server(server: &RunningServer, order: &Order, hear: &(dyn Fn(OrderEvent) + Send + Sync)) -> anyhow::Result<()> {
    let here = std::env::current_dir().context("the current folder")?;
    let absolute = |location: &String| if location.contains("://") { location.clone() } else { here.join(location).display().to_string() };
    let order = Order { locations: order.locations.iter().map(absolute).collect(), ..order.clone() };
    let mut events = post_events::<OrderEvent>(&server.endpoint, "/groundtone/ingest", &order).await?;
    let stop = stop_signal()?;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Err(hint("no longer listening; the server finishes the run", "`groundtone runs` shows how it ends")),
            event = events.next() => match event {
                None => return Ok(()),
                Some(event) => hear(event?),
            },
        }
    }
}

/// Progress on a terminal.
struct Bar(ProgressBar, Instant);

impl Bar {
    fn new() -> Self {
        let bar = if watched() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{bar:30} {percent}% {msg} eta {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self(bar, Instant::now())
    }

    fn show(&self, at: Progress) {
        self.0.set_length(at.bytes_total);
        self.0.set_position(at.bytes_done);
        let speed = at.embedded as f64 / self.1.elapsed().as_secs_f64().max(1e-3);
        let what = if at.stage == Stage::Settling { "settling" } else { "documents" };
        self.0.set_message(format!("{} {what}, {} chunks, {speed:.0} chunks/s", at.documents, at.embedded));
    }
}

/// Ingests whenever the source says that something changed, until Ctrl-C. A run that fails is said and tried again at the next change.
async fn follow(config: &Config, worker: &Worker, order: Order, as_json: bool) -> anyhow::Result<()> {
    let [location] = order.locations.as_slice() else {
        return Err(hint("--watch follows one source, but several locations are given", "run one command for each"));
    };
    let mut changes = source::watch(location, &source_settings(config)?)?;
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let told = |report: Report| {
        let something = report.new + report.changed + report.removed + report.rejected.len() > 0;
        if something { show(&report, as_json) } else { Ok(()) }
    };
    loop {
        if let Err(error) = worker.carry_out(config, &order, &told).await {
            say(format!("error: {error:#}"));
        }
        tokio::select! {
            () = &mut stop => return Ok(()),
            change = changes.next() => if change.is_none() { return Ok(()) },
        }
    }
}

/// What to do about an error of a run.
fn explain(error: Error) -> anyhow::Error {
    let next = match &error {
        Error::OtherVectors { .. } => {
            "build it with this one beside the live generation with --generation, or anew with --full, or name another with --collection"
        }
        Error::Source { .. } | Error::Empty { .. } => {
            "name a folder, a file, a pattern, a web page, a sitemap, s3://bucket/prefix, or - for records on standard input"
        }
        Error::OneName => "run one command for each location",
        Error::NothingTaken { .. } => "the reasons stand above",
        _ => "what was published stays; the same command goes on from there",
    };
    hint(error, next)
}

fn show(report: &Report, as_json: bool) -> anyhow::Result<()> {
    for rejection in report.rejected.iter().take(NAMED_REJECTIONS) {
        say(format!("rejected: {} {}", rejection.path, rejection.reason));
    }
    if report.rejected.len() > NAMED_REJECTIONS {
        say(format!("and {} more; --json names them all. By reason:", report.rejected.len() - NAMED_REJECTIONS));
        report.reasons().iter().for_each(|(reason, count)| say(format!("  {count:>6}  {reason}")));
    }
    for flagged in report.flagged.iter().take(NAMED_REJECTIONS) {
        let flags: Vec<&str> = flagged.flags.iter().map(|flag| flag.as_str()).collect();
        say(format!("look at: {} ({})", flagged.document, flags.join(", ")));
    }
    if report.flagged.len() > NAMED_REJECTIONS {
        say(format!("and {} more to look at; --json names them all", report.flagged.len() - NAMED_REJECTIONS));
    }
    if let Some(reason) = &report.not_pruned {
        say(format!("nothing was removed: {reason}"));
    } else if !report.missing.is_empty() {
        say(format!("{} documents of the collection have left this source; --prune removes them", report.missing.len()));
    }
    if as_json {
        return json(report);
    }
    let would = if report.dry_run { "would be: " } else { "" };
    line(format!(
        "{would}{} documents: {} new, {} changed, {} unchanged, {} removed, {} rejected; {} chunks, {} of them embedded in {} calls, {} tokens{}; {:.1} s",
        report.found,
        report.new,
        report.changed,
        report.unchanged,
        report.removed,
        report.rejected.len(),
        report.chunks,
        report.embedded,
        report.embed_calls,
        report.embedded_tokens,
        report.cost.map(|cost| format!(", cost {cost:.4}")).unwrap_or_default(),
        report.seconds
    ))
}
