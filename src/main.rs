//! `groundtone`: one module for each subcommand; this file reads the command line and says what went wrong.

mod assemble;
mod commands;
mod output;
mod ranking;
mod shadows;
mod tuning;

use clap::{Parser, Subcommand};
use commands::{
    ask, dataset, demo, eval, extract, extract_worker, fsck, generations, handoffs, ingest, keys, models, release, runs, search, serve,
    traces, tune,
};
use std::path::PathBuf;
use std::process::ExitCode;

/// For documents and answers; llama.cpp and the other C libraries keep the system's.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Facts come from retrieval, form comes from fine-tuning: an assistant server with both.
#[derive(Parser)]
#[command(name = "groundtone", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(clap::Args)]
pub(crate) struct Global {
    /// Settings; $GROUNDTONE_CONFIG or groundtone.toml in the working directory where not given
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory (data.directory)
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON for machines; the last line is the result
    #[arg(long, global = true)]
    json: bool,
    /// More of what happens, on standard error: -v for spans and their durations, -vv for details
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Sample brand -> ingest -> serve; prints a URL and a curl line
    Demo(demo::Args),
    /// The API and the chat page
    Serve(serve::Args),
    /// Bring documents into the index: Markdown, text, HTML, CSV, PDF, Office, spreadsheets, EPUB, source code
    Ingest(ingest::Args),
    /// What ingest would read out of a file
    Extract(extract::Args),
    /// Read files that a run hands over on standard input; started by `ingest` itself
    #[command(hide = true)]
    ExtractWorker,
    /// One cited answer in the terminal, streamed
    Ask(ask::Args),
    /// What retrieval finds, with scores
    Search(search::Args),
    /// Generations of a collection: list, compare, switch, roll back, remove
    Generations(generations::Args),
    /// Past runs of ingest and their reports, and which documents are rejected now
    Runs(runs::Args),
    /// Measure retrieval on labelled questions, or fit the evidence gate
    Eval(eval::Args),
    /// Compare the catalog with the index, and repair what differs
    Fsck(fsck::Args),
    /// Training data: build rows out of examples, and everything that is done with them
    Dataset(dataset::Args),
    /// Which variant answers: status, promote, canary, rollback, history
    Release(release::Args),
    /// Fine-tuning jobs, on this server or on any other of OpenAI's API: create, watch, list, cancel, pause, resume
    Tune(tune::Args),
    /// API keys: make one, list them, end one
    Keys(keys::Args),
    /// Who changed what, and who looked at what
    Audit(keys::AuditArgs),
    /// What was answered, from what, and what people thought of it
    Traces(traces::Args),
    /// Questions that were to be handed over to people: what waits, and what was given up
    Handoffs(handoffs::Args),
    /// Ask a question of the past again, with other settings, and see what differs
    Replay(traces::ReplayArgs),
    /// Model files: pull them, or list them
    Models(models::Args),
    /// Print every setting with its default and its documentation
    Config,
}

/// A panic is a defect of ours or of a library; whoever catches it says what it cost. Here it is one line of the log instead of a page on the terminal.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or_default();
        let text: String = text.lines().next().unwrap_or_default().chars().take(300).collect();
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, "panicked: {text}");
        } else {
            output::say(format!("panicked at {place}: {text}"));
        }
    }));
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::ExtractWorker = cli.command {
        return extract_worker::run();
    }
    log_panics();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&anyhow::anyhow!("the async runtime cannot be started: {error}"), cli.global.json),
    };
    let json = cli.global.json;
    let result = runtime.block_on(run(cli));
    // While the runtime still carries them.
    assemble::send_spans();
    // A blocking parser or a model's thread must not keep a finished command from ending.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error, json),
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let global = cli.global;
    match cli.command {
        Command::Demo(args) => demo::run(&global, args).await,
        Command::Serve(args) => serve::run(&global, args).await,
        Command::Ingest(args) => ingest::run(&global, args).await,
        Command::Extract(args) => extract::run(&global, args).await,
        Command::ExtractWorker => anyhow::bail!("`extract-worker` is started before the async runtime"),
        Command::Ask(args) => ask::run(&global, args).await,
        Command::Search(args) => search::run(&global, args).await,
        Command::Generations(args) => generations::run(&global, args).await,
        Command::Eval(args) => eval::run(&global, args).await,
        Command::Fsck(args) => fsck::run(&global, args).await,
        Command::Dataset(args) => dataset::run(&global, args).await,
        Command::Tune(args) => tune::run(&global, args).await,
        Command::Keys(args) => keys::run(&global, args).await,
        Command::Audit(args) => keys::audit_log(&global, args).await,
        Command::Traces(args) => traces::run(&global, args).await,
        Command::Handoffs(args) => handoffs::run(&global, args).await,
        Command::Replay(args) => traces::replay(&global, args).await,
        Command::Models(args) => models::run(&global, args).await,
        Command::Release(args) => release::run(&global, args).await,
        Command::Runs(args) => runs::run(&global, args).await,
        Command::Config => output::line(groundtone_config::DEFAULTS.trim_end()),
    }
}
