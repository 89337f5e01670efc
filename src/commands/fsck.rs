use crate::Global;
use crate::assemble::{Library, running_server, settings};
use crate::output::{hint, json, line, say};
use groundtone_ingest::Drift;
use groundtone_provider::post_json;
use groundtone_server::FsckBody;

/// Flags of `groundtone fsck`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which collection (ingest.collection)
    #[arg(long)]
    collection: Option<String>,
    /// Remove points that no document has, and mark documents that lack points, so that the next ingest stores them again
    #[arg(long)]
    repair: bool,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let flags: Vec<_> = args.collection.map(|collection| ("ingest.collection", collection)).into_iter().collect();
    let config = settings(global, &flags)?;
    let drift: Drift = match running_server(&config)? {
        Some(server) => {
            let body = FsckBody { collection: config.ingest.collection.clone(), repair: args.repair };
            post_json(&server.endpoint, "/groundtone/fsck", &body).await?
        }
        None => {
            let library = Library::open(&config, "groundtone fsck").await?;
            library.ingester(&config).await?.fsck(&library.tenant, &config.ingest.collection, args.repair).await?
        }
    };
    if global.json {
        json(&drift)?;
    } else {
        let (orphans, incomplete) = (drift.orphans, drift.incomplete.len());
        line(format!(
            "{} documents, {} points: {orphans} points in the index that no document has, {incomplete} documents with missing points",
            drift.documents, drift.points
        ))?;
        drift.incomplete.iter().for_each(|document| say(format!("incomplete: {document}")));
    }
    if drift.is_clean() || drift.repaired {
        if drift.repaired && !drift.incomplete.is_empty() {
            say("repaired; run `groundtone ingest` again to store the incomplete documents");
        }
        return Ok(());
    }
    Err(hint("the catalog and the index disagree", "`groundtone fsck --repair` brings them back together"))
}
