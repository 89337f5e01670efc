//! What the command line and the server are asked for: some locations, one after the other, each run in the ledger.

use crate::report::{Progress, Report};
use crate::run::{Build, IngestSettings, Ingester};
use crate::source::{self, SourceSettings};
use crate::{Error, Source};
use groundtone_types::Collection;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Which documents are to be brought into agreement with their collection, and how thoroughly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Folders, files, patterns, pages, sitemaps, buckets; a relative path is taken from where the ingester runs.
    pub locations: Vec<String>,
    /// Name of the source where it is not the location; only with one location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where the documents go, instead of where they usually go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<Collection>,
    /// Put before a document's id to make its address, instead of the usual prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_prefix: Option<String>,
    /// Remove documents that have left their source.
    #[serde(default)]
    pub prune: bool,
    /// Into which generation.
    #[serde(default)]
    pub build: Build,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is told while an order is carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderEvent {
    /// How far the run over one location is.
    Progress(Progress),
    /// A location is done.
    Report(Box<Report>),
}

/// What a source is called where nobody named it: a path on this machine by its full path, everything else as it was given.
pub fn source_name(location: &str) -> String {
    Path::new(location).canonicalize().map_or_else(|_| location.to_owned(), |path| path.display().to_string())
}

impl Ingester {
    /// Ingests every location of an order. `settings` gives what the order leaves open; its run and source are replaced for each location.
    ///
    /// Of several locations with [`Build::Anew`] the first one opens the new generation, the others add to it, and it answers after the last.
    /// [`Error::NothingTaken`] ends the order at a location of which no document could be ingested.
    pub async fn carry_out(
        &self,
        order: &Order,
        settings: &IngestSettings,
        sources: &SourceSettings,
        tell: &(dyn Fn(OrderEvent) + Send + Sync),
    ) -> Result<(), Error> {
        if order.source.is_some() && order.locations.len() > 1 {
            return Err(Error::OneName);
        }
        let began = Instant::now();
        let mut settings = IngestSettings { prune: order.prune, build: order.build, dry_run: order.dry_run, ..settings.clone() };
        settings.collection = order.collection.clone().unwrap_or(settings.collection);
        settings.url_prefix = order.url_prefix.clone().unwrap_or(settings.url_prefix);
        let logical = settings.collection.clone();
        let rebuilt = order.build == Build::Anew && !order.dry_run && order.locations.len() > 1;
        if rebuilt {
            settings.build = Build::AnewOpen;
        }
        for location in &order.locations {
            settings.run = Uuid::now_v7();
            settings.source = order.source.clone().unwrap_or_else(|| source_name(location));
            let report = self.recorded(location, &settings, sources, tell, began).await?;
            let (found, taken) = (report.found, report.new + report.changed + report.unchanged);
            let collection = report.collection.clone();
            tell(OrderEvent::Report(Box::new(report)));
            if taken == 0 {
                return Err(Error::NothingTaken { location: location.clone(), found });
            }
            if rebuilt {
                settings.build = Build::Live;
                settings.collection = collection;
            }
        }
        if rebuilt {
            self.replace_all(&logical, &settings.collection, later(&settings, began)).await?;
        }
        Ok(())
    }

    /// One run, and its rows in the ledger.
    async fn recorded(
        &self,
        location: &str,
        settings: &IngestSettings,
        sources: &SourceSettings,
        tell: &(dyn Fn(OrderEvent) + Send + Sync),
        began: Instant,
    ) -> Result<Report, Error> {
        let source: Arc<dyn Source> = Arc::from(source::open(location, sources)?);
        let IngestSettings { tenant, collection, run, .. } = settings;
        if !settings.dry_run {
            self.catalog.start_run(tenant, collection, *run, &settings.source, later(settings, began)).await?;
        }
        let report = self.run(source, settings, &|progress| tell(OrderEvent::Progress(progress))).await?;
        if !settings.dry_run {
            let text = serde_json::to_string(&report).map_err(|error| Error::Report(error.to_string()))?;
            self.catalog.finish_run(tenant, *run, &text, later(settings, began)).await?;
        }
        Ok(report)
    }
}

/// Unix seconds now, counted from the beginning that the settings name.
fn later(settings: &IngestSettings, began: Instant) -> i64 {
    settings.now.saturating_add(i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX))
}
