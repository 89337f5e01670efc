use crate::Global;
use crate::assemble::{Library, now, settings};
use crate::commands::models::pull;
use crate::output::{hint, json, line, say, watched};
use anyhow::Context;
use groundtone_config::{Config, Engine};
use groundtone_ingest::{Error, Progress, Report, Stage};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};

/// Flags of `groundtone ingest`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A folder, or a file
    path: PathBuf,
    /// Where the documents go (ingest.collection)
    #[arg(long)]
    collection: Option<String>,
    /// Remove documents from the index that the folder no longer has
    #[arg(long)]
    prune: bool,
    /// Build the collection anew from nothing
    #[arg(long)]
    full: bool,
    /// Put before a document's path to make the address in its citations (ingest.url_prefix)
    #[arg(long, value_name = "URL")]
    url_prefix: Option<String>,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let mut flags = Vec::new();
    flags.extend(args.collection.map(|collection| ("ingest.collection", collection)));
    flags.extend(args.url_prefix.map(|prefix| ("ingest.url_prefix", prefix)));
    let config = settings(global, &flags)?;
    if config.embedder.kind == Engine::Local {
        pull(&config, std::slice::from_ref(&config.embedder.model)).await?;
    }
    let library = Library::open(&config, "groundtone ingest").await?;
    let report = ingest(&config, &library, &args.path, args.prune, args.full).await?;
    show(&report, global.json)?;
    let nothing = report.new + report.changed + report.unchanged == 0;
    if nothing {
        Err(hint(format!("none of the {} documents in {} could be ingested", report.found, args.path.display()), "the reasons stand above"))
    } else {
        Ok(())
    }
}

/// Ingests with a progress bar, and leaves the report in the ledger.
pub(crate) async fn ingest(config: &Config, library: &Library, path: &Path, prune: bool, full: bool) -> anyhow::Result<Report> {
    let settings = library.ingest_settings(config, prune, full);
    let run = uuid::Uuid::now_v7();
    library.catalog.start_run(&settings.tenant, &settings.collection, run, now()).await?;
    let bar = if watched() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {percent}% {msg} eta {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let started = std::time::Instant::now();
    let progress = |at: Progress| {
        bar.set_length(at.bytes_total);
        bar.set_position(at.bytes_done);
        let speed = at.chunks as f64 / started.elapsed().as_secs_f64().max(1e-3);
        let what = if at.stage == Stage::Settling { "settling" } else { "documents" };
        bar.set_message(format!("{} {what}, {} chunks, {speed:.0} chunks/s", at.documents, at.chunks));
    };
    let result = library.ingester().run(path, &settings, &progress).await;
    bar.finish_and_clear();
    let report = result.map_err(|error| match &error {
        Error::OtherVectors { .. } => hint(&error, "name another collection with --collection, or build this one anew with --full"),
        Error::Source { .. } | Error::Empty { .. } => hint(&error, "name a folder or a file with documents"),
        _ => hint(&error, "what was published stays; the same command goes on from there"),
    })?;
    let text = serde_json::to_string(&report).context("the report cannot be written as JSON")?;
    library.catalog.finish_run(&settings.tenant, run, &text, now()).await?;
    Ok(report)
}

fn show(report: &Report, as_json: bool) -> anyhow::Result<()> {
    for rejection in &report.rejected {
        say(format!("rejected: {} {}", rejection.path.display(), rejection.reason));
    }
    if !report.missing.is_empty() {
        say(format!("{} documents of the collection are not in this folder; --prune removes them", report.missing.len()));
    }
    if as_json {
        return json(report);
    }
    line(format!(
        "{} documents: {} new, {} changed, {} unchanged, {} removed, {} rejected; {} chunks, {} tokens in {:.1} s",
        report.found,
        report.new,
        report.changed,
        report.unchanged,
        report.removed,
        report.rejected.len(),
        report.chunks,
        report.tokens,
        report.seconds
    ))
}
