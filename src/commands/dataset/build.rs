use crate::Global;
use crate::assemble::{Library, needed_models, settings};
use crate::commands::models::pull;
use crate::output::{json, line, say};
use anyhow::Context;
use groundtone_datasets::{read_examples, row};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

/// Flags of `groundtone dataset build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Examples: JSONL with `id`, `question` and `answer`
    examples: PathBuf,
    /// The file of rows
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    pull(&config, &needed_models(&config)).await?;
    let library = Library::open(&config, "groundtone dataset build").await?;
    let answerer = library.answerer(&config).await?;
    let place = || args.examples.display().to_string();
    let found = read_examples(BufReader::new(File::open(&args.examples).with_context(place)?)).with_context(place)?;
    found.bad.iter().for_each(|bad| say(format!("rejected: line {}: {}", bad.line, bad.reason)));
    let mut out = BufWriter::new(File::create(&args.out).with_context(|| args.out.display().to_string())?);
    for example in &found.examples {
        serde_json::to_writer(&mut out, &row(&answerer, &library.tenant, example).await?)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    let report = serde_json::json!({"rows": found.examples.len(), "rejected": found.bad});
    if global.json { json(&report) } else { line(format!("{} rows, {} rejected", found.examples.len(), found.bad.len())) }
}
