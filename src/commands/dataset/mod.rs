//! `groundtone dataset`: one module for each subcommand.

mod build;
mod export;
mod made;
mod read;
mod site;
mod split;
mod stats;
mod validate;

use crate::Global;

/// Flags of `groundtone dataset`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Examples to training rows: retrieved and rendered as serving would
    Build(Box<build::Args>),
    /// Train, validation and test, with no document in two of them
    Split(split::Args),
    /// Every problem of a training file, with its line and column, before a job is paid for
    Validate(validate::Args),
    /// What the rows are made of: tokens, duplicates, contradictions, leaks, personal data, tone, cost
    Stats(stats::Args),
    /// The rows as another trainer wants them, or as pairs of preferences
    Export(export::Args),
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Build(args) => build::run(global, *args).await,
        Command::Split(args) => split::run(global, args).await,
        Command::Validate(args) => validate::run(global, args).await,
        Command::Stats(args) => stats::run(global, args).await,
        Command::Export(args) => export::run(global, args).await,
    }
}
