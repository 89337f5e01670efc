use crate::Global;
use crate::assemble::{extractor, settings};
use crate::output::{hint, json, write};
use std::path::PathBuf;

/// Flags of `groundtone extract`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file
    file: PathBuf,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let name = args.file.display().to_string();
    let bytes = tokio::fs::read(&args.file).await.map_err(|error| hint(format!("cannot read {name}: {error}"), "name a file"))?;
    let extractor = extractor(&config)?;
    let refused = |reason: String| {
        let sentence = format!("{name} {reason}");
        if extractor.reads(&args.file) {
            anyhow::anyhow!(sentence)
        } else {
            hint(sentence, format!("formats: {}", extractor.known_endings()))
        }
    };
    let parsed = extractor.extract(&name, bytes).await.map_err(refused)?;
    if global.json { json(&parsed) } else { write(&parsed.text) }
}
