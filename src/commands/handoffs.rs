use crate::Global;
use crate::assemble::{RunningServer, data_directory, now, running_server, settings};
use crate::commands::when;
use crate::output::{hint, json, line};
use groundtone_catalog::{Catalog, HandoffRecord, HandoffState};
use groundtone_config::Config;
use groundtone_provider::{delete_json, get_json, post_json};
use groundtone_server::HandoffList;
use groundtone_types::Tenant;
use serde_json::{Value, json as value};

/// Flags of `groundtone handoffs`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Questions whose webhook was given up, or waits, newest first
    List {
        /// Only those that wait, or only those that were given up: waiting or dead
        #[arg(long, value_parser = state)]
        state: Option<HandoffState>,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Send one again that was given up
    Retry {
        /// Its id: evt_...
        id: String,
    },
    /// Forget one, because somebody has looked after it
    Done {
        /// Its id: evt_...
        id: String,
    },
}

fn state(text: &str) -> Result<HandoffState, String> {
    serde_json::from_value(text.into()).map_err(|_| "waiting or dead".to_owned())
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let server = running_server(&config)?;
    let done = match args.action.unwrap_or(Action::List { state: None, limit: 20 }) {
        Action::List { state, limit } => {
            let handoffs = list(&config, server.as_ref(), state, limit).await?;
            return if global.json { json(&HandoffList { handoffs }) } else { show(&handoffs) };
        }
        Action::Retry { id } => match server {
            Some(server) => post_json(&server.endpoint, &format!("/groundtone/handoffs/{id}/retry"), &value!({})).await?,
            None => changed(catalog(&config).await?.retry_handoff(&Tenant::default(), &id, now()).await?, &id, "waiting")?,
        },
        Action::Done { id } => match server {
            Some(server) => delete_json(&server.endpoint, &format!("/groundtone/handoffs/{id}")).await?,
            None => changed(catalog(&config).await?.remove_handoff(&Tenant::default(), &id).await?, &id, "done")?,
        },
    };
    if global.json { json(&done) } else { line("done") }
}

async fn catalog(config: &Config) -> anyhow::Result<Catalog> {
    Ok(Catalog::open(&data_directory(config, "groundtone handoffs")?).await?)
}

fn changed(found: bool, id: &str, state: &str) -> anyhow::Result<Value> {
    if found {
        Ok(value!({"id": id, "state": state}))
    } else {
        Err(hint(format!("there is no handoff `{id}`"), "`groundtone handoffs` lists them"))
    }
}

async fn list(
    config: &Config,
    server: Option<&RunningServer>,
    state: Option<HandoffState>,
    limit: u32,
) -> anyhow::Result<Vec<HandoffRecord>> {
    let Some(server) = server else { return Ok(catalog(config).await?.handoffs(&Tenant::default(), state, limit).await?) };
    let state = state.map(|state| format!("&state={}", state.as_str())).unwrap_or_default();
    let found: HandoffList = get_json(&server.endpoint, &format!("/groundtone/handoffs?limit={limit}{state}")).await?;
    Ok(found.handoffs)
}

fn show(handoffs: &[HandoffRecord]) -> anyhow::Result<()> {
    for handoff in handoffs {
        let HandoffRecord { id, created_at, reason, state, attempts, error, body, .. } = handoff;
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let question: String = body["data"]["question"].as_str().unwrap_or_default().chars().take(80).collect();
        line(format!("{id}  {}  {:7}  {reason}  {}", when(*created_at), state.as_str(), question.replace('\n', " ")))?;
        if let Some(error) = error {
            line(format!("    not taken {attempts} times: {error}"))?;
        }
    }
    if handoffs.is_empty() { line("nothing waits, and nothing was given up") } else { Ok(()) }
}
