use crate::Global;
use crate::assemble::{Library, needed_models, settings};
use crate::commands::ingest::Worker;
use crate::commands::models::pull;
use crate::commands::serve::{self, listen, serve};
use crate::output::{line, say};
use anyhow::Context;
use groundtone_ingest::{Order, Report};
use include_dir::{Dir, include_dir};
use std::path::Path;

/// The invented brand, compiled in: the demo needs nothing but the binary and the models.
static SAMPLE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/samples/kettlewren");

/// Flags of `groundtone demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    listen: serve::Args,
    /// Write the sample's documents, voice examples and questions to this folder and stop
    #[arg(long, value_name = "DIR")]
    extract: Option<std::path::PathBuf>,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    if let Some(folder) = &args.extract {
        extract(&SAMPLE, folder)?;
        return line(folder.display());
    }
    let mut flags = args.listen.flags();
    flags.push(("assistant.name", "kettlewren".to_owned()));
    if let Some(system) = SAMPLE.get_file("voice/system-prompt.txt").and_then(|file| file.contents_utf8()) {
        flags.push(("assistant.system", system.trim().to_owned()));
    }
    let config = settings(global, &flags)?;
    let listener = listen(&config).await?;
    pull(&config, &needed_models(&config)).await?;
    let worker = Worker::Own(Box::new(Library::open(&config, "groundtone demo").await?));
    let folder = config.data.directory.join("sample");
    extract(&SAMPLE, &folder)?;
    let documents = folder.join("documents").display().to_string();
    let order = Order { locations: vec![documents], source: Some("sample".to_owned()), prune: true, ..Order::default() };
    let told = |report: Report| {
        let (found, changed) = (report.found, report.new + report.changed);
        say(format!(
            "sample brand: {found} documents, {changed} of them new or changed, {} chunks embedded in {:.1} s",
            report.chunks, report.seconds
        ));
        Ok(())
    };
    worker.carry_out(&config, &order, &told).await?;
    let Worker::Own(library) = worker else { anyhow::bail!("the demo does its own work") };
    let name = config.assistant.name.clone();
    let directory = config.data.directory.display().to_string();
    serve(&config, *library, listener, move |address| {
        let body = format!(
            r#"{{"model":"{name}","stream":true,"messages":[{{"role":"user","content":"What is the delivery charge to Switzerland?"}}]}}"#
        );
        line(format!("chat page:  {address}/"))?;
        line(format!("curl:       curl -N {address}/v1/chat/completions -H 'content-type: application/json' -d '{body}'"))?;
        line(format!("terminal:   groundtone ask --data {directory} \"Do you repair old kettles?\""))?;
        line("stop:       Ctrl-C")
    })
    .await
}

/// Writes a compiled-in folder to disk. A file that is there with the same bytes is left alone.
fn extract(folder: &Dir<'_>, target: &Path) -> anyhow::Result<()> {
    for file in folder.files() {
        let path = target.join(file.path());
        if std::fs::read(&path).is_ok_and(|bytes| bytes == file.contents()) {
            continue;
        }
        let parent = path.parent().unwrap_or(target);
        std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        std::fs::write(&path, file.contents()).with_context(|| path.display().to_string())?;
    }
    folder.dirs().try_for_each(|below| extract(below, target))
}
