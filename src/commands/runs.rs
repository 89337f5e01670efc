use crate::Global;
use crate::assemble::{data_directory, running_server, settings};
use crate::commands::when;
use crate::output::{hint, json, line};
use anyhow::Context;
use groundtone_catalog::{Catalog, Quarantined, RunRecord};
use groundtone_ingest::Report;
use groundtone_provider::{Endpoint, get_json};
use groundtone_server::{RejectedList, RunList};
use groundtone_types::{Collection, Tenant};
use serde_json::{Value, json as value};

/// Flags of `groundtone runs`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// The latest runs of ingest, newest first
    List {
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// The report of one run
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Documents that their source has and that are not in the collection, with the reason and since when
    Rejected {
        /// Which collection (ingest.collection)
        #[arg(long)]
        collection: Option<Collection>,
    },
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let ledger = match running_server(&config)? {
        Some(server) => Ledger::Server(server.endpoint),
        None => Ledger::Own(Catalog::open(&data_directory(&config, "groundtone runs")?).await?, Tenant::default()),
    };
    match args.action.unwrap_or(Action::List { limit: 20 }) {
        Action::List { limit } => list(&ledger.runs(limit).await?, global.json),
        Action::Show { id } => show(&ledger.runs_with(&id).await?, &id, global.json),
        Action::Rejected { collection } => {
            let collection = collection.unwrap_or_else(|| config.ingest.collection.clone());
            rejected(&ledger.rejected(&collection).await?, &collection, global.json)
        }
    }
}

/// Where runs are written down: our own catalog, or that of the server that has it open.
enum Ledger {
    Own(Catalog, Tenant),
    Server(Endpoint),
}

impl Ledger {
    async fn runs(&self, limit: u32) -> anyhow::Result<Vec<RunRecord>> {
        Ok(match self {
            Self::Own(catalog, tenant) => catalog.runs(tenant, limit).await?,
            Self::Server(endpoint) => get_json::<RunList>(endpoint, &format!("/groundtone/runs?limit={limit}")).await?.runs,
        })
    }

    /// Two at most.
    async fn runs_with(&self, prefix: &str) -> anyhow::Result<Vec<RunRecord>> {
        Ok(match self {
            Self::Own(catalog, tenant) => catalog.runs_with(tenant, prefix).await?,
            // No id has any other letters, and a path is no place for them.
            Self::Server(_) if !prefix.chars().all(|c| c.is_ascii_hexdigit() || c == '-') => Vec::new(),
            Self::Server(endpoint) => get_json::<RunList>(endpoint, &format!("/groundtone/runs/{prefix}")).await?.runs,
        })
    }

    async fn rejected(&self, collection: &Collection) -> anyhow::Result<Vec<Quarantined>> {
        Ok(match self {
            Self::Own(catalog, tenant) => catalog.quarantined(tenant, collection, None).await?,
            Self::Server(endpoint) => {
                get_json::<RejectedList>(endpoint, &format!("/groundtone/rejected?collection={collection}")).await?.rejected
            }
        })
    }
}

fn report_of(run: &RunRecord) -> anyhow::Result<Option<Value>> {
    run.report.as_deref().map(serde_json::from_str).transpose().with_context(|| format!("the report of run {} is not JSON", run.id))
}

fn in_full(run: &RunRecord) -> anyhow::Result<Value> {
    let (started, finished) = (run.started_at, run.finished_at);
    Ok(value!({"id": run.id, "source": run.source, "started_at": started, "finished_at": finished, "report": report_of(run)?}))
}

fn list(runs: &[RunRecord], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(&value!({"runs": runs.iter().map(in_full).collect::<anyhow::Result<Vec<_>>>()?}));
    }
    if runs.is_empty() {
        return line("no run of ingest yet");
    }
    for run in runs {
        let done = match report_of(run)?.map(serde_json::from_value::<Report>) {
            Some(Ok(report)) => format!(
                "{} new, {} changed, {} unchanged, {} removed, {} rejected",
                report.new,
                report.changed,
                report.unchanged,
                report.removed,
                report.rejected.len()
            ),
            Some(Err(_)) => "has the report of another version; `groundtone runs show` prints it".to_owned(),
            None => "did not come to its end".to_owned(),
        };
        line(format!("{}  {}  {}: {done}", run.id, when(run.started_at), run.source))?;
    }
    Ok(())
}

fn show(found: &[RunRecord], id: &str, as_json: bool) -> anyhow::Result<()> {
    let [run] = found else {
        let message = if found.is_empty() { format!("there is no run `{id}`") } else { format!("{} runs begin with `{id}`", found.len()) };
        return Err(hint(message, "`groundtone runs` lists them"));
    };
    let whole = in_full(run)?;
    if as_json { json(&whole) } else { line(serde_json::to_string_pretty(&whole)?) }
}

fn rejected(found: &[Quarantined], collection: &Collection, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(&value!({"collection": collection, "rejected": found}));
    }
    for entry in found {
        line(format!("{} {} (since {})", entry.place, entry.reason, when(entry.since)))?;
    }
    if found.is_empty() { line("nothing is rejected") } else { Ok(()) }
}
