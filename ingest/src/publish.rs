//! Points into the index, rows into the ledger, in the order that survives a crash; and the way back.

use crate::Error;
use crate::prepare::Prepared;
use crate::run::{Filled, IngestSettings, Ingester, Run, Seen};
use crate::source::{part_of, part_prefix};
use groundtone_catalog::{DocumentRecord, Publication, Quarantined};
use groundtone_index::Filter;
use groundtone_types::{Collection, DocumentId, Tenant};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::time::Instant;
use uuid::Uuid;

/// Points removed or asked for in one call, and rows in one page.
const PAGE: usize = 1000;

/// What is left of a deleted document: nothing, and somebody looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The document.
    pub document: DocumentId,
    /// Points that were removed.
    pub points: usize,
    /// Points that the index still had of it when asked afterwards; 0.
    pub left: usize,
}

/// Writes one collection of one tenant.
pub(crate) struct Publisher<'a> {
    pub(crate) ingester: &'a Ingester,
    pub(crate) tenant: &'a Tenant,
    pub(crate) collection: &'a Collection,
}

impl Publisher<'_> {
    /// Finishes what an earlier run, cut off, left half done: points that nobody published, and points that were replaced but not removed.
    pub(crate) async fn recover(&self) -> Result<(), Error> {
        let (index, catalog) = (&self.ingester.index, &self.ingester.catalog);
        for document in catalog.intents(self.tenant, self.collection).await? {
            let published: HashSet<Uuid> = catalog.points(self.tenant, self.collection, &document).await?.into_iter().collect();
            let stored = self.stored_points(&document).await?;
            let orphans: Vec<Uuid> = stored.into_iter().filter(|id| !published.contains(id)).collect();
            for batch in orphans.chunks(PAGE) {
                index.delete(self.tenant, self.collection, batch).await?;
            }
            catalog.settled(self.tenant, self.collection, &document).await?;
        }
        let pending = catalog.pending_removals(self.tenant, self.collection).await?;
        self.remove_points(&pending).await
    }

    async fn stored_points(&self, document: &DocumentId) -> Result<Vec<Uuid>, Error> {
        let filter = Filter::document(document.clone());
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let page = self.ingester.index.ids(self.tenant, self.collection, &filter, from, PAGE).await?;
            found.extend(page.ids);
            from = page.next;
            if from.is_none() {
                return Ok(found);
            }
        }
    }

    /// Stores a group's points, asks for them again, and publishes its documents.
    pub(crate) async fn publish(&self, group: Filled, run: &Run<'_>) -> Result<(), Error> {
        let (index, catalog) = (&self.ingester.index, &self.ingester.catalog);
        if group.documents.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let documents: Vec<DocumentId> = group.documents.iter().map(|document| document.id.clone()).collect();
        catalog.intend(self.tenant, self.collection, &documents).await?;
        let noted = began.elapsed();
        let began = Instant::now();
        let ids: Vec<Uuid> = group.points.iter().map(|point| point.id).collect();
        index.upsert(self.tenant, self.collection, group.points).await?;
        let missing = index.missing(self.tenant, self.collection, &ids).await?.len();
        if missing > 0 {
            return Err(Error::NotStored { stored: ids.len(), documents: documents.len(), missing });
        }
        run.note(|report| report.stages.store += began.elapsed().as_secs_f64());
        let began = Instant::now();
        let cut_by = run.settings.chunks.fingerprint(&self.ingester.tokenizer_id());
        let publications: Vec<Publication> =
            group.documents.into_iter().map(|document| publication(document, run.settings, &cut_by)).collect();
        let old = catalog.publish(self.tenant, self.collection, &publications).await?;
        self.remove_points(&old).await?;
        run.note(|report| report.stages.publish += (noted + began.elapsed()).as_secs_f64());
        Ok(())
    }

    /// Removes points that the ledger no longer knows.
    async fn remove_points(&self, ids: &[Uuid]) -> Result<(), Error> {
        for batch in ids.chunks(PAGE) {
            self.ingester.index.delete(self.tenant, self.collection, batch).await?;
            self.ingester.catalog.removed(self.tenant, self.collection, batch).await?;
        }
        Ok(())
    }

    /// A part of a file that was small enough this time to be stored as one document.
    async fn is_part_of_a_whole(&self, document: &DocumentId, seen: &Seen) -> Result<bool, Error> {
        match part_of(document).filter(|(file, _)| seen.contains(file)) {
            Some((file, _)) => Ok(self.record(&file).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Takes a document out, and asks the index whether it is gone.
    pub(crate) async fn delete(&self, document: &DocumentId) -> Result<Receipt, Error> {
        let old = self.ingester.catalog.unpublish(self.tenant, self.collection, document).await?;
        self.remove_points(&old).await?;
        let filter = Filter::document(document.clone());
        let left = self.ingester.index.count(self.tenant, self.collection, &filter).await?;
        if left > 0 {
            return Err(Error::NotRemoved { document: document.clone(), left });
        }
        Ok(Receipt { document: document.clone(), points: old.len(), left })
    }

    /// Of files that were offered to their end, removes what they no longer have: parts that are too many, or the whole file that is in parts now. That needs no `prune`:
    /// the file is there, this is its older version.
    pub(crate) async fn remove_other_parts(&self, seen: &Seen, run: &Run<'_>) -> Result<(), Error> {
        for (file, count) in &seen.files {
            let mut gone = Vec::new();
            if *count > 0 {
                gone.extend(self.record(file).await?);
            } else if self.record(file).await?.is_none() {
                // It was rejected: its parts are what there is of it.
                continue;
            }
            let prefix = part_prefix(file);
            let mut after = DocumentId::new(&prefix).ok();
            while let Some(last) = after.take() {
                let page = self.ingester.catalog.documents(self.tenant, self.collection, Some(&last), PAGE as u32).await?;
                let parts = page.into_iter().take_while(|record| record.id.as_str().starts_with(&prefix));
                let parts: Vec<DocumentRecord> = parts.collect();
                after = parts.last().filter(|_| parts.len() == PAGE).map(|record| record.id.clone());
                gone.extend(parts.into_iter().filter(|record| part_of(&record.id).is_some_and(|(_, number)| number > *count)));
            }
            for record in gone.into_iter().filter(|record| record.source == run.settings.source && !seen.contains(&record.id)) {
                self.remove(&record.id, run).await?;
            }
        }
        Ok(())
    }

    async fn record(&self, document: &DocumentId) -> Result<Option<DocumentRecord>, Error> {
        Ok(self.ingester.catalog.document(self.tenant, self.collection, document).await?)
    }

    async fn remove(&self, document: &DocumentId, run: &Run<'_>) -> Result<(), Error> {
        if !run.settings.dry_run {
            self.delete(document).await?;
        }
        run.note(|report| report.removed += 1);
        Ok(())
    }

    /// Notes what this run rejected, and takes out of the list what is all right again or has left the source.
    pub(crate) async fn quarantine(&self, seen: &Seen, complete: bool, run: &Run<'_>) -> Result<(), Error> {
        let (source, catalog) = (&run.settings.source, &self.ingester.catalog);
        let mut rejected = Vec::new();
        run.note(|report| {
            rejected.extend(report.rejected.iter().map(|rejection| Quarantined {
                source: source.clone(),
                place: rejection.path.clone(),
                document: rejection.document.clone(),
                reason: rejection.reason.clone(),
                run: run.settings.run,
                since: run.settings.now,
                last: run.settings.now,
            }));
        });
        let known = catalog.quarantined(self.tenant, self.collection, Some(source)).await?;
        let all_seen = complete && seen.blind.is_none();
        let names: HashSet<&str> = rejected.iter().map(Quarantined::name).collect();
        let is_over = |entry: &Quarantined| {
            !names.contains(entry.name()) && (all_seen || entry.document.as_ref().is_some_and(|document| seen.contains(document)))
        };
        let released: Vec<Quarantined> = known.into_iter().filter(is_over).collect();
        if rejected.is_empty() && released.is_empty() {
            return Ok(());
        }
        Ok(catalog.quarantine(self.tenant, self.collection, &rejected, &released).await?)
    }

    /// Documents of this source in the ledger that the source no longer has: removed with `prune`, named without.
    pub(crate) async fn handle_missing(&self, seen: &Seen, run: &Run<'_>) -> Result<(), Error> {
        let may_remove = run.settings.prune && seen.blind.is_none();
        if let Some(place) = seen.blind.as_ref().filter(|_| run.settings.prune) {
            run.note(|report| report.not_pruned = Some(format!("{place} could not be read, and what is missing may be in there")));
        }
        let mut after: Option<DocumentId> = None;
        loop {
            let page = self.ingester.catalog.documents(self.tenant, self.collection, after.as_ref(), PAGE as u32).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id.clone());
            for record in page.into_iter().filter(|record| record.source == run.settings.source && !seen.contains(&record.id)) {
                if may_remove || self.is_part_of_a_whole(&record.id, seen).await? {
                    self.remove(&record.id, run).await?;
                } else {
                    run.note(|report| report.missing.push(record.id));
                }
            }
        }
    }
}

fn publication(document: Prepared, settings: &IngestSettings, cut_by: &str) -> Publication {
    let tokens = document.sizes().map(|tokens| tokens as u64).sum();
    let record = DocumentRecord {
        id: document.id,
        source: settings.source.clone(),
        content_hash: document.hash,
        version: document.version,
        settings_fingerprint: cut_by.to_owned(),
        title: document.title,
        url: document.url,
        bytes: document.bytes,
        tokens,
        run: settings.run,
        indexed_at: settings.now,
        metadata: document.metadata,
        flags: document.flags.iter().map(|flag| flag.as_str().to_owned()).collect(),
    };
    Publication { record, points: document.stored.into_iter().map(|(id, _)| id).collect() }
}
