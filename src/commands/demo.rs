use crate::Global;
use crate::assemble::{Library, needed_models, settings};
use crate::commands::ingest::Worker;
use crate::commands::models::pull;
use crate::commands::serve::{self, listen, serve};
use crate::output::{line, say};
use crate::tuning;
use anyhow::Context;
use groundtone_config::{Config, Engine, Variant};
use groundtone_ingest::{Order, Report};
use groundtone_tuning::jobs::NewAdapter;
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The invented brand, compiled in: the demo needs nothing but the binary and the models.
static SAMPLE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/samples/kettlewren");

/// The variant that the sample's own model answers as.
const TUNED: &str = "tuned-rag";

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
    let mut config = settings(global, &flags)?;
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
    let is_tuned = offer_tuned(&mut config, &library, &folder.join("adapter")).await?;
    let name = config.assistant.name.clone();
    let directory = config.data.directory.display().to_string();
    serve(&config, *library, listener, move |address| {
        let body = format!(
            r#"{{"model":"{name}","stream":true,"messages":[{{"role":"user","content":"What is the delivery charge to Switzerland?"}}]}}"#
        );
        line(format!("chat page:  {address}/"))?;
        line(format!("curl:       curl -N {address}/v1/chat/completions -H 'content-type: application/json' -d '{body}'"))?;
        line(format!("terminal:   groundtone ask --data {directory} \"Do you repair old kettles?\""))?;
        if is_tuned {
            line(format!("voice:      the model `{name}:{TUNED}` answers with the sample's adapter"))?;
        }
        line("stop:       Ctrl-C")
    })
    .await
}

/// The base model of the sample's adapter, and the name that the tuned model gets: it changes with the weights.
fn sample_model() -> Option<(String, String)> {
    let weights = SAMPLE.get_file("adapter/adapter_model.safetensors")?.contents();
    let about: serde_json::Value = serde_json::from_slice(SAMPLE.get_file("adapter/adapter_config.json")?.contents()).ok()?;
    let base = about["base_model_name_or_path"].as_str()?;
    let digest = hex::encode(Sha256::digest(weights));
    Some((base.to_owned(), format!("ft:{base}:default:kettlewren:{}", &digest[..8])))
}

/// Offers the sample's adapter as a variant, where one was compiled in and the settings leave it to us: the chat model is its base, and nothing is said about trained models.
async fn offer_tuned(config: &mut Config, library: &Library, folder: &Path) -> anyhow::Result<bool> {
    let Some((base, model)) = sample_model() else { return Ok(false) };
    let (chat, tuning) = (&config.chat, &config.tuning);
    let is_its_base = chat.kind == Engine::Local && chat.path.as_os_str().is_empty() && chat.model == base;
    let is_ours = tuning.vllm_url.is_empty() && tuning.base_models.is_empty() && !config.variants.contains_key(TUNED);
    if !is_its_base || !is_ours {
        return Ok(false);
    }
    if library.catalog.model(&library.tenant, &model).await?.is_none() {
        let files = tuning::files(config, &library.directory, &library.catalog).await?;
        let jobs = tuning::jobs(config, &library.directory, library.catalog.clone(), files, library.shelf.clone())?;
        let adapter = NewAdapter { folder: folder.to_owned(), model: None, name: model.clone() };
        jobs.import_adapter(&library.tenant, adapter).await?;
    }
    config.variants.insert(TUNED.to_owned(), Variant { model: Some(model), ..Variant::default() });
    Ok(true)
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
