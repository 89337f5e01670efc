//! Generations: a collection is an alias, and what it stands for is changed at once.
//!
//! A new embedder or other chunk settings are built as another generation beside the live one, compared with it, and switched to without a moment in which nothing answers;
//! the one before stays until it is removed, so that switching back is as quick.

use crate::Error;
use crate::run::{Build, IngestSettings, Ingester};
use groundtone_types::{Collection, Tenant};
use serde::{Deserialize, Serialize};

/// One generation of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its name: `documents@2`.
    pub name: Collection,
    /// Whether it answers.
    pub live: bool,
    /// Whether a run over it came to its end.
    pub complete: bool,
    /// Whether its vectors can be searched with the configured embedders.
    pub searchable: bool,
    /// What its vectors come from.
    pub fingerprint: String,
    /// Documents in it.
    pub documents: u64,
    /// Chunks in it.
    pub chunks: u64,
    /// Unix seconds.
    pub created_at: i64,
}

impl Ingester {
    /// The generation that a collection stands for; the name itself where it names a generation or nothing yet.
    pub async fn live(&self, collection: &Collection) -> Result<Collection, Error> {
        Ok(self.index.resolve(collection).await?.unwrap_or_else(|| collection.clone()))
    }

    /// The generation that a run works on. Vectors of different models never meet in one.
    pub(crate) async fn choose_generation(&self, settings: &IngestSettings) -> Result<Collection, Error> {
        let (collection, configured) = (&settings.collection, self.fingerprint());
        let live = self.index.resolve(collection).await?;
        let name = match (live, settings.build) {
            (Some(live), Build::Live) => live,
            (None, _) if collection.number().is_some() => collection.clone(),
            // The very first run may have been cut off before its generation answered; its vectors are compared like any other's.
            (None, Build::Live) => collection.generation(1),
            (None, _) => return self.next_generation(collection).await,
            (Some(live), Build::Beside) => {
                let begun = self.catalog.generations(collection).await?.into_iter().rev();
                let switched = self.catalog.switches(collection).await?;
                let mut open =
                    begun.filter(|record| record.name != live && record.fingerprint == configured && !switched.contains(&record.name));
                match open.next() {
                    Some(record) => return Ok(record.name),
                    None => return self.next_generation(collection).await,
                }
            }
            (Some(_), Build::Anew | Build::AnewOpen) => return self.next_generation(collection).await,
        };
        match self.catalog.collection(&name).await? {
            Some(record) if record.fingerprint != configured => {
                Err(Error::OtherVectors { collection: name, stored: record.fingerprint, configured })
            }
            _ => Ok(name),
        }
    }

    async fn next_generation(&self, collection: &Collection) -> Result<Collection, Error> {
        let stored = self.index.collections().await?;
        let known = self.catalog.generations(collection).await?.into_iter().map(|record| record.name);
        let numbers = stored.into_iter().chain(known).filter(|name| name.base() == collection.base()).filter_map(|name| name.number());
        Ok(collection.generation(numbers.max().unwrap_or_default() + 1))
    }

    /// Every generation of a collection.
    pub async fn generations(&self, tenant: &Tenant, collection: &Collection) -> Result<Vec<Generation>, Error> {
        let (live, configured) = (self.live(collection).await?, self.fingerprint());
        let mut found = Vec::new();
        for record in self.catalog.generations(collection).await? {
            let (documents, chunks) = self.catalog.counts(tenant, &record.name).await?;
            found.push(Generation {
                live: record.name == live,
                complete: record.completed_at.is_some(),
                searchable: record.fingerprint == configured,
                name: record.name,
                fingerprint: record.fingerprint,
                documents,
                chunks,
                created_at: record.created_at,
            });
        }
        Ok(found)
    }

    /// Lets a collection stand for another of its generations. Everything that searches the collection sees the new one from the next query on.
    pub async fn switch(&self, collection: &Collection, target: &Collection, now: i64) -> Result<(), Error> {
        let no_such = || Error::NoGeneration { collection: collection.clone(), wanted: format!("generation `{target}`") };
        if target.base() != collection.base() || target.number().is_none() {
            return Err(no_such());
        }
        let record = self.catalog.collection(target).await?.ok_or_else(no_such)?;
        let configured = self.fingerprint();
        if record.fingerprint != configured {
            return Err(Error::OtherVectors { collection: target.clone(), stored: record.fingerprint, configured });
        }
        if record.completed_at.is_none() {
            return Err(Error::Unfinished { generation: target.clone() });
        }
        self.let_answer(collection, target, now).await
    }

    /// Lets a generation answer, and removes all others.
    pub async fn replace_all(&self, collection: &Collection, target: &Collection, now: i64) -> Result<(), Error> {
        self.switch(collection, target, now).await?;
        self.remove_generations(collection, 0).await.map(|_| ())
    }

    pub(crate) async fn let_answer(&self, collection: &Collection, target: &Collection, now: i64) -> Result<(), Error> {
        self.index.set_alias(collection, target).await?;
        Ok(self.catalog.record_switch(collection, target, now).await?)
    }

    /// The newest generation that is not live: what `switch` without a name means.
    pub async fn newest(&self, collection: &Collection) -> Result<Collection, Error> {
        let live = self.live(collection).await?;
        let newest = self.catalog.generations(collection).await?.into_iter().rev().map(|record| record.name).find(|name| *name != live);
        newest.ok_or_else(|| Error::NoGeneration { collection: collection.clone(), wanted: "generation beside the live one".to_owned() })
    }

    /// Back to the generation that answered before; the answer says which.
    pub async fn rollback(&self, collection: &Collection, now: i64) -> Result<Collection, Error> {
        let live = self.live(collection).await?;
        for name in self.catalog.switches(collection).await?.into_iter().filter(|name| *name != live) {
            if self.catalog.collection(&name).await?.is_some() {
                self.switch(collection, &name, now).await?;
                return Ok(name);
            }
        }
        Err(Error::NoGeneration { collection: collection.clone(), wanted: "earlier generation".to_owned() })
    }

    /// Removes a collection with all its generations and the documents of every tenant; fine when there is none.
    pub async fn remove_collection(&self, collection: &Collection) -> Result<(), Error> {
        let live = self.live(collection).await?;
        self.remove_generations(collection, 0).await?;
        // The ledger last: what it still knows is removed by the next call, should this one be cut off.
        self.index.remove(&live).await?;
        self.catalog.clear_collection(&live).await?;
        Ok(())
    }

    /// Removes generations that do not answer, but for the `keep` that answered last; gives their names.
    pub async fn remove_generations(&self, collection: &Collection, keep: usize) -> Result<Vec<Collection>, Error> {
        let live = self.live(collection).await?;
        let mut kept: Vec<Collection> = Vec::new();
        for name in self.catalog.switches(collection).await? {
            if name != live && !kept.contains(&name) && kept.len() < keep {
                kept.push(name);
            }
        }
        let stored = self.index.collections().await?;
        let known = self.catalog.generations(collection).await?.into_iter().map(|record| record.name);
        let mut gone: Vec<Collection> = stored.into_iter().chain(known).collect();
        gone.retain(|name| name.base() == collection.base() && name.number().is_some() && *name != live && !kept.contains(name));
        gone.sort();
        gone.dedup();
        for name in &gone {
            // The ledger last: what it still knows is removed by the next call, should this one be cut off.
            self.index.remove(name).await?;
            self.catalog.clear_collection(name).await?;
        }
        Ok(gone)
    }
}
