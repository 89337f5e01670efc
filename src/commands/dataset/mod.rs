//! `groundtone dataset`: one module for each subcommand.

mod build;
mod read;
mod split;

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
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Build(args) => build::run(global, *args).await,
        Command::Split(args) => split::run(global, args).await,
    }
}
