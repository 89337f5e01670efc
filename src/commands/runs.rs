use crate::Global;
use crate::assemble::{data_directory, settings};
use crate::output::{hint, json, line};
use anyhow::Context;
use chrono::DateTime;
use groundtone_catalog::{Catalog, RunRecord};
use groundtone_ingest::Report;
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
    let directory = data_directory(&config, "groundtone runs")?;
    let (catalog, tenant) = (Catalog::open(&directory).await?, Tenant::default());
    match args.action.unwrap_or(Action::List { limit: 20 }) {
        Action::List { limit } => list(&catalog.runs(&tenant, limit).await?, global.json),
        Action::Show { id } => show(&catalog, &tenant, &id, global.json).await,
        Action::Rejected { collection } => {
            let collection = collection.unwrap_or_else(|| config.ingest.collection.clone());
            rejected(&catalog, &tenant, &collection, global.json).await
        }
    }
}

/// Seconds since 1970 as people write them, in UTC.
fn when(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0).map_or_else(|| seconds.to_string(), |at| at.format("%Y-%m-%d %H:%M:%S").to_string())
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

async fn show(catalog: &Catalog, tenant: &Tenant, id: &str, as_json: bool) -> anyhow::Result<()> {
    let found = catalog.runs_with(tenant, id).await?;
    let [run] = found.as_slice() else {
        let message = if found.is_empty() { format!("there is no run `{id}`") } else { format!("{} runs begin with `{id}`", found.len()) };
        return Err(hint(message, "`groundtone runs` lists them"));
    };
    let whole = in_full(run)?;
    if as_json { json(&whole) } else { line(serde_json::to_string_pretty(&whole)?) }
}

async fn rejected(catalog: &Catalog, tenant: &Tenant, collection: &Collection, as_json: bool) -> anyhow::Result<()> {
    let found = catalog.quarantined(tenant, collection, None).await?;
    if as_json {
        return json(&value!({"collection": collection, "rejected": found}));
    }
    for entry in &found {
        line(format!("{} {} (since {})", entry.place, entry.reason, when(entry.since)))?;
    }
    if found.is_empty() { line("nothing is rejected") } else { Ok(()) }
}
