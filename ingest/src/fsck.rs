//! Compares the ledger with the index, point by point.

use crate::Error;
use crate::publish::Publisher;
use crate::run::Ingester;
use groundtone_index::Filter;
use groundtone_types::{Collection, DocumentId, Tenant};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

const PAGE: usize = 1000;

/// Where the ledger and the index disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The collection.
    pub collection: Collection,
    /// Documents in the ledger.
    pub documents: usize,
    /// Points in the ledger.
    pub points: usize,
    /// Points in the index that the ledger does not know.
    pub orphans: usize,
    /// Documents of which the index lacks points.
    pub incomplete: Vec<DocumentId>,
    /// Orphans were removed, and incomplete documents will be stored again by the next ingest.
    pub repaired: bool,
}

impl Drift {
    /// Nothing to repair.
    pub fn is_clean(&self) -> bool {
        self.orphans == 0 && self.incomplete.is_empty()
    }
}

impl Ingester {
    /// Looks for drift, and repairs it if told to: orphans are removed, and documents with missing points are marked, so that the next ingest stores them again.
    pub async fn fsck(&self, tenant: &Tenant, collection: &Collection, repair: bool) -> Result<Drift, Error> {
        let collection = &self.live(collection).await?;
        if repair {
            Publisher { ingester: self, tenant, collection }.recover().await?;
        }
        let (documents, mut owners) = self.owners(tenant, collection).await?;
        let points = owners.len();
        let (mut orphans, mut from) = (Vec::new(), None);
        loop {
            let page = self.index.ids(tenant, collection, &Filter::default(), from, PAGE).await?;
            orphans.extend(page.ids.into_iter().filter(|id| owners.remove(id).is_none()));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let incomplete: BTreeSet<usize> = owners.into_values().collect();
        let incomplete: Vec<DocumentId> = incomplete.into_iter().filter_map(|at| documents.get(at).cloned()).collect();
        let repaired = repair && !(orphans.is_empty() && incomplete.is_empty());
        if repaired {
            for batch in orphans.chunks(PAGE) {
                self.index.delete(tenant, collection, batch).await?;
            }
            for document in &incomplete {
                self.catalog.doubt(tenant, collection, document).await?;
            }
        }
        Ok(Drift { collection: collection.clone(), documents: documents.len(), points, orphans: orphans.len(), incomplete, repaired })
    }

    /// Every document of the ledger, and for each point which of them it belongs to.
    async fn owners(&self, tenant: &Tenant, collection: &Collection) -> Result<(Vec<DocumentId>, HashMap<Uuid, usize>), Error> {
        let (mut documents, mut owners) = (Vec::new(), HashMap::new());
        loop {
            let page = self.catalog.documents(tenant, collection, documents.last(), PAGE as u32).await?;
            if page.is_empty() {
                return Ok((documents, owners));
            }
            for record in page {
                let points = self.catalog.points(tenant, collection, &record.id).await?;
                owners.extend(points.into_iter().map(|point| (point, documents.len())));
                documents.push(record.id);
            }
        }
    }
}
