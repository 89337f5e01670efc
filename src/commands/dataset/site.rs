//! Where a dataset is built: in this process, or in the server that has the data directory open.

use super::build::explain;
use crate::assemble::{Library, RunningServer, needed_models, running_server};
use crate::commands::models::pull;
use crate::commands::serve::stop_signal;
use crate::commands::traces::TraceBook;
use crate::output::hint;
use anyhow::Context;
use futures::StreamExt;
use groundtone_config::Config;
use groundtone_datasets::{BuildEvent, BuildReport, BuildSettings, Builder};
use groundtone_ingest::Ingester;
use groundtone_provider::post_events;
use groundtone_server::BuildBody;
use groundtone_types::Tenant;

const NEXT: &str = "what was built stays, and the same command goes on from there; --overwrite replaces a dataset that is there";

/// Who has documents and catalog open.
pub(super) enum Site {
    Own(Box<Library>),
    Server(RunningServer),
}

impl Site {
    /// The running server, or the data directory itself; the latter for what a server does not do.
    pub(super) async fn open(config: &Config, itself: bool) -> anyhow::Result<Self> {
        if !itself && let Some(server) = running_server(config)? {
            return Ok(Self::Server(server));
        }
        pull(config, &needed_models(config)).await?;
        Ok(Self::Own(Box::new(Library::open(config, "groundtone dataset build").await?)))
    }

    /// Its stored answers.
    pub(super) async fn book(&self, config: &Config, tenant: &Tenant) -> anyhow::Result<TraceBook> {
        match self {
            Self::Own(library) => Ok(TraceBook::Own { catalog: library.catalog.clone(), tenant: tenant.clone(), _directory: None }),
            Self::Server(_) => TraceBook::open(config, tenant, "groundtone dataset build").await,
        }
    }

    /// Builds, and tells `progress` the bytes that were read and the rows so far.
    pub(super) async fn build(
        &self,
        config: &Config,
        tenant: &Tenant,
        build: &BuildSettings,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> anyhow::Result<BuildReport> {
        match self {
            Self::Own(library) => {
                let answerer = library.answerer(config).await?;
                let vectors = Ingester::vectors_fingerprint(&*library.embedder, &*library.sparse);
                let builder = Builder::new(&answerer, library.catalog.clone(), tenant.clone(), vectors).await?;
                builder.run(build, progress).await.map_err(explain)
            }
            Self::Server(server) => by_server(server, tenant, build, progress).await,
        }
    }
}

async fn by_server(
    server: &RunningServer,
    tenant: &Tenant,
    build: &BuildSettings,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> anyhow::Result<BuildReport> {
    let here = std::env::current_dir().context("the current folder")?;
    let paths = BuildSettings { source: here.join(&build.source), out: build.out.as_ref().map(|out| here.join(out)), ..build.clone() };
    let body = BuildBody { tenant: tenant.clone(), build: paths };
    let failed = |error: groundtone_provider::Error| hint(error, NEXT);
    let mut events = post_events::<BuildEvent>(&server.endpoint, "/groundtone/datasets", &body).await.map_err(failed)?;
    let stop = stop_signal()?;
    tokio::pin!(stop);
    loop {
        let event = tokio::select! {
            () = &mut stop => return Err(hint("no longer listening; the server finishes the dataset", "its manifest stands beside it when it is done")),
            event = events.next() => event.context("the server ended the build without a report")?.map_err(failed)?,
        };
        match event {
            BuildEvent::Progress { read, rows } => progress(read, rows),
            BuildEvent::Report(report) => return Ok(BuildReport { out: build.out.clone(), ..*report }),
        }
    }
}
