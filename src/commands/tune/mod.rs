//! `groundtone tune`: fine-tuning jobs over the API, here and elsewhere alike.

mod create;
mod import;
mod models;
mod plot;
mod watch;

use crate::Global;
use crate::assemble::{running_server, settings};
use crate::output::{hint, json, line};
use groundtone_config::Config;
use groundtone_openai_api::FineTuningJob;
use groundtone_provider::{Endpoint, FineTuningClient, JobAction};
use secrecy::SecretString;
use std::time::Duration;

/// Longest wait for a connection, and for an answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(120);
/// Jobs that `list` shows.
const LISTED: u32 = 100;

/// Flags of `groundtone tune`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    action: Action,
}

/// Which server.
#[derive(clap::Args)]
struct Server {
    /// Base URL, as the SDKs have it: `http://127.0.0.1:8080/v1`, `https://api.openai.com/v1`, `https://NAME.openai.azure.com/openai/v1`; the server of the data directory where not given
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// Key; others on this machine can read it in the list of processes, so rather use --api-key-env
    #[arg(long, global = true, value_name = "KEY", conflicts_with = "api_key_env")]
    api_key: Option<String>,
    /// Name of the environment variable with the key (server.api_key_env)
    #[arg(long, global = true, value_name = "VARIABLE")]
    api_key_env: Option<String>,
    /// Azure OpenAI's api-version, where the URL ends with /openai
    #[arg(long, global = true, value_name = "VERSION")]
    api_version: Option<String>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Upload rows and start a job
    Create(create::Create),
    /// Follow a job to its end: progress, losses as a plot, time left
    Watch(watch::Watch),
    /// Jobs, newest first
    List,
    /// Call a job off
    Cancel(Job),
    /// Let a job wait; it frees its place for the next one
    Pause(Job),
    /// Let a paused job go on
    Resume(Job),
    /// Take an account's fine-tuning along before its models stop answering: days left, files, jobs, metrics, answers
    Import(import::Import),
    /// Write a trained model as files for other programs
    Export(models::Export),
    /// Let an adapter that PEFT saved answer as a model of its own
    ImportAdapter(models::ImportAdapter),
    /// Show where a model comes from: job, rows, prompt, snippets, documents, and whether they have changed since
    Lineage(models::OfModel),
    /// Let an old name answer from its replacement, on one of our own servers
    Alias {
        /// The name that clients send: ft:gpt-4o-mini-2024-07-18:acme::AbC12345
        name: String,
        /// The fine-tuned model that answers
        model: String,
    },
}

#[derive(clap::Args)]
struct Job {
    /// Its id: ftjob-...
    job: String,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let server = &args.server;
    let client = || client(&config, server);
    match args.action {
        // These open the data directory themselves where no server has it.
        Action::Export(export) => models::export(global, &config, server, &export).await,
        Action::ImportAdapter(import) => models::import(global, &config, server, &import).await,
        Action::Lineage(of) => models::lineage(global, &config, server, &of).await,
        Action::Create(create) => create::run(global, &client()?, &create).await,
        Action::Watch(watch) => watch::run(global, &client()?, &watch).await,
        Action::List => list(global, &client()?).await,
        Action::Cancel(job) => act(global, &client()?, &job, JobAction::Cancel).await,
        Action::Pause(job) => act(global, &client()?, &job, JobAction::Pause).await,
        Action::Resume(job) => act(global, &client()?, &job, JobAction::Resume).await,
        Action::Import(import) => import::run(global, &config, &client()?, &import).await,
        Action::Alias { name, model } => {
            let alias = client()?.put_alias(&name, &model).await?;
            if global.json { json(&alias) } else { line(format!("{name} answers from {model}")) }
        }
    }
}

/// The client of the named server, or of the one that holds the data directory.
fn client(config: &Config, server: &Server) -> anyhow::Result<FineTuningClient> {
    let Some(url) = &server.url else {
        let running = running_server(config)?.ok_or_else(|| {
            hint(
                format!("no server runs on {}", config.data.directory.display()),
                "start one with `groundtone serve`, or name one with --url",
            )
        })?;
        return Ok(FineTuningClient::new(running.endpoint));
    };
    let key = match (&server.api_key, &server.api_key_env) {
        (Some(key), _) => Some(SecretString::from(key.clone())),
        (None, Some(variable)) => groundtone_config::secret("--api-key-env", variable)?,
        (None, None) => groundtone_config::secret("server.api_key_env", &config.server.api_key_env)?,
    };
    let is_azure = server.api_version.is_some() || url.contains(".openai.azure.com") || url.contains(".cognitiveservices.azure.com");
    let endpoint = match key {
        // Azure OpenAI's own name for the key.
        Some(key) if is_azure => Endpoint::new(url, None, CONNECT, ANSWER, ANSWER)?.with_header("api-key", key),
        key => Endpoint::new(url, key, CONNECT, ANSWER, ANSWER)?,
    };
    Ok(FineTuningClient::new(match &server.api_version {
        Some(version) => endpoint.with_api_version(version.clone()),
        None => endpoint,
    }))
}

async fn list(global: &Global, client: &FineTuningClient) -> anyhow::Result<()> {
    let page = client.jobs(None, LISTED).await?;
    if global.json {
        return json(&page.data);
    }
    if page.data.is_empty() {
        return line("no jobs");
    }
    page.data.iter().try_for_each(|job| line(summary(job)))
}

async fn act(global: &Global, client: &FineTuningClient, job: &Job, action: JobAction) -> anyhow::Result<()> {
    let job = client.act(&job.job, action).await?;
    if global.json { json(&job) } else { line(summary(&job)) }
}

/// Our own servers say more than OpenAI's words: `paused`.
fn status(job: &FineTuningJob) -> &str {
    let own = job.groundtone.as_ref().and_then(|own| own["status"].as_str());
    own.unwrap_or(&job.status)
}

/// A job in one line.
fn summary(job: &FineTuningJob) -> String {
    let result = match (&job.fine_tuned_model, &job.error) {
        (Some(model), _) => model.clone(),
        (None, Some(error)) => error.message.clone(),
        (None, None) => String::new(),
    };
    format!("{}  {:<16}  {}  {result}", job.id, status(job), job.model).trim_end().to_owned()
}
