//! Trained models as files of other programs, adapters of other programs as models, and where a model comes from.

use super::Server;
use crate::Global;
use crate::assemble::{data_directory, running_server};
use crate::output::{hint, json, line};
use crate::tuning;
use groundtone_catalog::{Catalog, DataDirectory, ModelRecord};
use groundtone_config::Config;
use groundtone_provider::{Endpoint, FineTuningClient, post_json};
use groundtone_server::ExportBody;
use groundtone_tuning::jobs::{DocumentState, ExportFormat, Exported, Jobs, Lineage, NewAdapter};
use groundtone_types::Tenant;
use std::path::PathBuf;
use std::sync::Arc;

/// Flags of `groundtone tune export`.
#[derive(clap::Args)]
pub(super) struct Export {
    /// The model: ft:..., a checkpoint, or an alias
    model: String,
    /// peft: the adapter for transformers, PEFT and vLLM; merged: base and adapter in one, for transformers; gguf: the same for llama.cpp; gguf-q8: and in eight bits; adapter: the adapter alone, for llama.cpp
    #[arg(long, value_parser = ["peft", "merged", "gguf", "gguf-q8", "adapter"])]
    format: String,
    /// Folder for the files; it must not be there yet, or be empty
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

/// Flags of `groundtone tune import-adapter`.
#[derive(clap::Args)]
pub(super) struct ImportAdapter {
    /// Folder of an adapter as PEFT saves one (adapter_config.json, adapter_model.safetensors)
    folder: PathBuf,
    /// Suffix of the new model's name, or its whole name, which begins with ft:
    #[arg(long)]
    name: String,
    /// The base model that the adapter was trained on, by its name in `tuning.base_models`; not needed where there is only one
    #[arg(long)]
    model: Option<String>,
}

/// Flags of `groundtone tune lineage`.
#[derive(clap::Args)]
pub(super) struct OfModel {
    /// The model: ft:..., a checkpoint, or an alias
    model: String,
}

/// The data directory, opened by this command because no server has it.
struct Opened {
    jobs: Jobs,
    catalog: Arc<Catalog>,
    _directory: DataDirectory,
}

async fn open(config: &Config) -> anyhow::Result<Opened> {
    let directory = data_directory(config, "groundtone tune")?;
    let catalog = Arc::new(Catalog::open(&directory).await?);
    let files = tuning::files(config, &directory, &catalog).await?;
    let jobs = tuning::jobs(config, &directory, catalog.clone(), files, Arc::new(tuning::LocalShelf::of(config)))?;
    Ok(Opened { jobs, catalog, _directory: directory })
}

/// The server that holds the data directory. Another one does not write and read files here.
fn own_server(config: &Config, server: &Server) -> anyhow::Result<Option<Endpoint>> {
    if let Some(url) = &server.url {
        let message = format!("{url} may be another machine, and the files would be there");
        return Err(hint(message, "run the command on that machine, with --data for its data directory and without --url"));
    }
    Ok(running_server(config)?.map(|running| running.endpoint))
}

pub(super) async fn export(global: &Global, config: &Config, server: &Server, export: &Export) -> anyhow::Result<()> {
    let format = match export.format.as_str() {
        "peft" => ExportFormat::Peft,
        "merged" => ExportFormat::Merged,
        "gguf" => ExportFormat::Gguf,
        "gguf-q8" => ExportFormat::GgufQ8,
        _ => ExportFormat::Adapter,
    };
    let to = std::path::absolute(&export.to)?;
    let exported: Exported = if let Some(endpoint) = own_server(config, server)? {
        post_json(&endpoint, "/groundtone/models/export", &ExportBody { model: export.model.clone(), format, to }).await?
    } else {
        let opened = open(config).await?;
        let exported = opened.jobs.export(&Tenant::default(), &export.model, format, &to).await;
        opened.catalog.close().await;
        exported?
    };
    if global.json {
        return json(&exported);
    }
    exported.files.iter().try_for_each(|file| line(file.display()))
}

pub(super) async fn import(global: &Global, config: &Config, server: &Server, import: &ImportAdapter) -> anyhow::Result<()> {
    let new = NewAdapter { folder: std::path::absolute(&import.folder)?, model: import.model.clone(), name: import.name.clone() };
    let model: ModelRecord = if let Some(endpoint) = own_server(config, server)? {
        post_json(&endpoint, "/groundtone/models/import", &new).await?
    } else {
        let opened = open(config).await?;
        let model = opened.jobs.import_adapter(&Tenant::default(), new).await;
        opened.catalog.close().await;
        model?
    };
    if global.json { json(&model) } else { line(format!("{} answers, on {}", model.id, model.base)) }
}

pub(super) async fn lineage(global: &Global, config: &Config, server: &Server, of: &OfModel) -> anyhow::Result<()> {
    let client = match (&server.url, running_server(config)?) {
        (Some(_), _) => Some(super::client(config, server)?),
        (None, Some(running)) => Some(FineTuningClient::new(running.endpoint)),
        (None, None) => None,
    };
    let lineage: Lineage = if let Some(client) = client {
        serde_json::from_value(client.lineage(&of.model).await?)?
    } else {
        let opened = open(config).await?;
        let lineage = opened.jobs.lineage(&Tenant::default(), &of.model).await;
        opened.catalog.close().await;
        lineage?
    };
    if global.json { json(&lineage) } else { line(told(&lineage)) }
}

/// The chain, a line for each link.
fn told(lineage: &Lineage) -> String {
    let mut lines = vec![format!("{:<10}{}  on {}", "model", lineage.model, lineage.base)];
    let mut say = |what: &str, text: String| lines.push(format!("{what:<10}{text}"));
    if let Some(job) = &lineage.job {
        say("job", format!("{}  {} from {}, seed {}", job.id, job.method, job.model, job.seed));
        say("rows", format!("{}  {}", lineage.training_sha256.as_deref().unwrap_or("unknown"), job.training_file));
    }
    if let Some(dataset) = &lineage.dataset {
        let text = |pointer: &str| dataset.pointer(pointer).and_then(|value| value.as_str()).unwrap_or("unknown").to_owned();
        let rows = dataset.pointer("/counts/rows").and_then(serde_json::Value::as_u64).unwrap_or_default();
        say("dataset", format!("{}  {rows} rows from {}", text("/file/name"), text("/source/name")));
        say("searched", format!("{}  {}", text("/build/generation"), text("/build/vectors")));
    }
    if let Some(fingerprint) = &lineage.prompt_fingerprint {
        say("prompt", fingerprint.clone());
    }
    for document in &lineage.documents {
        let now = match document.now {
            DocumentState::Same => "the same now",
            DocumentState::Changed => "has changed since",
            DocumentState::Gone => "is gone now",
            DocumentState::Unknown => "without a hash",
        };
        let sha256 = document.sha256.as_deref().and_then(|hash| hash.get(..12)).unwrap_or("-");
        say("document", format!("{sha256}  {}  {} snippets, {now}", document.document, document.snippets.len()));
    }
    lineage.unknown.iter().for_each(|sentence| say("unknown", sentence.clone()));
    lines.join("\n")
}
