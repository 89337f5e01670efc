//! `groundtone eval`: one module for each subcommand.

mod advise;
mod leaks;
mod measure;
mod report;
mod run;
mod under_test;
mod unmet;

use crate::Global;

/// Flags of `groundtone eval`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Ask several arms (prompted, rag, tuned, a remote model, ...) the same held-out questions, and decide
    Run(Box<run::Args>),
    /// Before any training: should one? Each reason for and against, with what was measured of your prompt, log, examples and documents
    Advise(advise::Args),
    /// Show a stored evaluation, or list them
    Report(report::ReportArgs),
    /// Two evaluations side by side: what changed from the first to the second
    Compare(report::CompareArgs),
    /// Questions that were not answered or answered badly, by subject: which want a document, a training row, an evaluation case; and make one of them
    Unmet(unmet::Args),
    /// Each arm on a folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/*.tsv): nDCG@10, recall@20, MRR@10, with intervals
    Retrieval(measure::RetrievalArgs),
    /// Fit the evidence gate on labelled questions, and print its settings
    Calibrate(measure::CalibrateArgs),
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    match args.action {
        Action::Run(args) => run::run(global, *args).await,
        Action::Advise(args) => advise::run(global, &args),
        Action::Report(args) => report::report(global, &args),
        Action::Compare(args) => report::compare(global, &args),
        Action::Unmet(args) => unmet::run(global, args).await,
        Action::Retrieval(args) => measure::measure_retrieval(global, args).await,
        Action::Calibrate(args) => measure::fit_gate(global, args).await,
    }
}
