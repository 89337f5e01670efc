//! `groundtone dataset`: one module for each subcommand.

mod build;

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
    Build(build::Args),
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Build(args) => build::run(global, args).await,
    }
}
