use super::{summary, watch};
use crate::Global;
use crate::output::{hint, json, line, say};
use groundtone_openai_api::FineTuningJobRequest;
use groundtone_provider::FineTuningClient;
use groundtone_server::DatasetBody;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Flags of `groundtone tune create`.
#[derive(clap::Args)]
pub(super) struct Create {
    /// Training rows: a .jsonl file, or the id of an uploaded one
    training: String,
    /// Rows that are measured and not trained on: a .jsonl file, or the id of an uploaded one
    #[arg(long, value_name = "FILE")]
    validation: Option<String>,
    /// The base model, by the server's name
    #[arg(long)]
    model: String,
    /// 1 to 64 characters for the name of the new model
    #[arg(long)]
    suffix: Option<String>,
    /// What decides everything that is random; chosen by the server where not given
    #[arg(long)]
    seed: Option<u32>,
    /// How often each row is seen; "auto" where not given
    #[arg(long)]
    epochs: Option<u32>,
    /// Rows of one step; "auto" where not given
    #[arg(long)]
    batch_size: Option<u32>,
    /// Times the trainer's own learning rate; "auto" where not given
    #[arg(long)]
    learning_rate_multiplier: Option<f64>,
    /// What is learned
    #[arg(long, value_parser = ["supervised", "dpo"], default_value = "supervised")]
    method: String,
    /// Of dpo: how strongly the model is held to what it was
    #[arg(long)]
    beta: Option<f64>,
    /// A note for the job, as often as wanted
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Follow the job to its end
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(global: &Global, client: &FineTuningClient, create: &Create) -> anyhow::Result<()> {
    let training_file = file(client, &create.training).await?;
    let validation_file = match &create.validation {
        Some(validation) => Some(file(client, validation).await?),
        None => None,
    };
    let request = FineTuningJobRequest {
        model: create.model.clone(),
        training_file,
        validation_file,
        suffix: create.suffix.clone(),
        seed: create.seed.map(Value::from),
        method: Some(method(create)),
        metadata: metadata(&create.metadata)?,
        ..FineTuningJobRequest::default()
    };
    let job = client.create(&request).await?;
    if create.watch {
        say(format!("created {}", job.id));
        return watch::follow(global, client, &job.id, None).await;
    }
    if global.json { json(&job) } else { line(summary(&job)) }
}

/// A file that is here is uploaded; anything else is the id of one that is there.
async fn file(client: &FineTuningClient, given: &str) -> anyhow::Result<String> {
    let path = Path::new(given);
    if path.is_file() {
        let uploaded = client.upload(path, "fine-tune").await?;
        say(format!("uploaded {given} as {} ({} bytes)", uploaded.id, uploaded.bytes));
        send_manifest(client, path).await?;
        return Ok(uploaded.id);
    }
    if given.starts_with("file-") {
        return Ok(given.to_owned());
    }
    Err(hint(format!("there is no file {given}"), "name a .jsonl file, or the id of an uploaded one (file-...)"))
}

/// Tells one of our own servers what the rows were made of, if their manifest stands beside them. Nothing of it goes to any other server.
async fn send_manifest(client: &FineTuningClient, rows: &Path) -> anyhow::Result<()> {
    let (manifest, documents) = match groundtone_datasets::origins(rows) {
        Ok(Some(origins)) => origins,
        Ok(None) => return Ok(()),
        Err(error) => {
            say(format!("the model will not know what its rows were made of: {error}"));
            return Ok(());
        }
    };
    let sha256 = manifest.file.sha256.clone();
    if client.knows_dataset(&sha256).await? == Some(false) {
        let body = DatasetBody { manifest: serde_json::to_value(&manifest)?, documents };
        match client.put_dataset(&sha256, &body).await {
            Ok(()) => say("sent the manifest of the rows along"),
            Err(error) => say(format!("the model will not know what its rows were made of: {error}")),
        }
    }
    Ok(())
}

fn method(create: &Create) -> Value {
    let mut hyperparameters = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            hyperparameters.insert(name.to_owned(), value);
        }
    };
    set("n_epochs", create.epochs.map(Value::from));
    set("batch_size", create.batch_size.map(Value::from));
    set("learning_rate_multiplier", create.learning_rate_multiplier.map(Value::from));
    set("beta", create.beta.map(Value::from));
    json!({"type": create.method, create.method.as_str(): {"hyperparameters": hyperparameters}})
}

fn metadata(pairs: &[String]) -> anyhow::Result<Option<Value>> {
    let mut metadata = Map::new();
    for pair in pairs {
        let (key, value) = pair.split_once('=').ok_or_else(|| hint(format!("`{pair}` is no note"), "write it as KEY=VALUE"))?;
        metadata.insert(key.to_owned(), Value::from(value));
    }
    Ok(Some(Value::Object(metadata)).filter(|_| !pairs.is_empty()))
}
