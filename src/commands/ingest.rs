use crate::Global;
use crate::assemble::{IngestMode, Library, now, settings, source_settings};
use crate::commands::models::pull;
use crate::commands::serve::stop_signal;
use crate::output::{hint, json, line, say, watched};
use anyhow::Context;
use futures::StreamExt;
use groundtone_config::{Config, Engine};
use groundtone_ingest::{Build, Error, Progress, Report, Source, Stage, source};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use std::sync::Arc;

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
    if args.source.is_some() && args.locations.len() > 1 {
        return Err(hint("--source names one source, but several locations are given", "run one command for each"));
    }
    if config.embedder.kind == Engine::Local {
        pull(&config, std::slice::from_ref(&config.embedder.model)).await?;
    }
    let library = Library::open(&config, "groundtone ingest").await?;
    if args.watch {
        return follow(global, &config, &library, &args).await;
    }
    let build = match (args.full, args.generation) {
        (true, _) => Build::Anew,
        (_, true) => Build::Beside,
        _ => Build::Live,
    };
    let mut mode = IngestMode { prune: args.prune, build, dry_run: args.dry_run };
    // Of several locations the first one opens the new generation, the others add to it, and it answers after the last.
    let rebuilt = args.full && !args.dry_run && args.locations.len() > 1;
    if rebuilt {
        mode.build = Build::AnewOpen;
    }
    let (logical, mut config) = (config.ingest.collection.clone(), config);
    for location in &args.locations {
        let report = ingest(&config, &library, location, args.source.as_deref(), mode).await?;
        show(&report, global.json)?;
        if report.new + report.changed + report.unchanged == 0 {
            return Err(hint(format!("none of the {} documents in {location} could be ingested", report.found), "the reasons stand above"));
        }
        if rebuilt {
            mode.build = Build::Live;
            config.ingest.collection = report.collection;
        }
    }
    if rebuilt {
        library.ingester(&config).await?.replace_all(&logical, &config.ingest.collection, now()).await?;
    }
    Ok(())
}

/// Ingests whenever the source says that something changed, until Ctrl-C. A run that fails is said and tried again at the next change.
async fn follow(global: &Global, config: &Config, library: &Library, args: &Args) -> anyhow::Result<()> {
    let [location] = args.locations.as_slice() else {
        return Err(hint("--watch follows one source, but several locations are given", "run one command for each"));
    };
    let mut changes = source::watch(location, &source_settings(config)?)?;
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let mode = IngestMode { prune: args.prune, ..IngestMode::default() };
    loop {
        match ingest(config, library, location, args.source.as_deref(), mode).await {
            Ok(report) if report.new + report.changed + report.removed + report.rejected.len() > 0 => show(&report, global.json)?,
            Ok(_) => {}
            Err(error) => say(format!("error: {error:#}")),
        }
        tokio::select! {
            () = &mut stop => return Ok(()),
            change = changes.next() => if change.is_none() { return Ok(()) },
        }
    }
}

/// What a source is called where nobody named it: a path on this machine by its full path, everything else as it was given.
fn source_name(location: &str) -> String {
    Path::new(location).canonicalize().map_or_else(|_| location.to_owned(), |path| path.display().to_string())
}

/// Ingests with a progress bar, and leaves the report in the ledger.
pub(crate) async fn ingest(
    config: &Config,
    library: &Library,
    location: &str,
    name: Option<&str>,
    mode: IngestMode,
) -> anyhow::Result<Report> {
    let explain = |error: Error| match &error {
        Error::OtherVectors { .. } => hint(
            &error,
            "build it with this one beside the live generation with --generation, or anew with --full, or name another with --collection",
        ),
        Error::Source { .. } | Error::Empty { .. } => {
            hint(&error, "name a folder, a file, a pattern, a web page, a sitemap, s3://bucket/prefix, or - for records on standard input")
        }
        _ => hint(&error, "what was published stays; the same command goes on from there"),
    };
    let source: Arc<dyn Source> = Arc::from(source::open(location, &source_settings(config)?).map_err(explain)?);
    let name = name.map_or_else(|| source_name(location), str::to_owned);
    let settings = library.ingest_settings(config, &name, mode);
    let ledger = !mode.dry_run;
    if ledger {
        library.catalog.start_run(&settings.tenant, &settings.collection, settings.run, &name, now()).await?;
    }
    let bar = if watched() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {percent}% {msg} eta {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let started = std::time::Instant::now();
    let progress = |at: Progress| {
        bar.set_length(at.bytes_total);
        bar.set_position(at.bytes_done);
        let speed = at.embedded as f64 / started.elapsed().as_secs_f64().max(1e-3);
        let what = if at.stage == Stage::Settling { "settling" } else { "documents" };
        bar.set_message(format!("{} {what}, {} chunks, {speed:.0} chunks/s", at.documents, at.embedded));
    };
    let result = library.ingester(config).await?.run(source, &settings, &progress).await;
    bar.finish_and_clear();
    let report = result.map_err(explain)?;
    if ledger {
        let text = serde_json::to_string(&report).context("the report cannot be written as JSON")?;
        library.catalog.finish_run(&settings.tenant, settings.run, &text, now()).await?;
    }
    Ok(report)
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
