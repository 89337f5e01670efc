use crate::flags::Flag;
use groundtone_types::{Collection, DocumentId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A document that was not ingested, and why. What was stored of it before stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Where it is: a path or an address.
    pub path: String,
    /// Why, to follow the path in a sentence: `is a binary file`.
    pub reason: String,
    /// The document that it would have been; `None` where it did not get as far as a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<DocumentId>,
}

/// A document that was stored and that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flagged {
    /// Which one.
    pub document: DocumentId,
    /// What for.
    pub flags: Vec<Flag>,
}

/// Seconds that each stage worked. Stages overlap, so they add up to more than the run took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSeconds {
    /// Reading from the source.
    pub read: f64,
    /// Decoding, parsing and cutting.
    pub parse: f64,
    /// Embedding, look-ups in the cache among it.
    pub embed: f64,
    /// Writing points and asking for them again.
    pub store: f64,
    /// The ledger.
    pub publish: f64,
    /// Making the index durable and fast.
    pub settle: f64,
}

/// What a run did. `new + changed + unchanged + rejected` is the number of documents found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run.
    pub run: Uuid,
    /// Where documents went.
    pub collection: Collection,
    /// Where they came from.
    pub source: String,
    /// Nothing was embedded or written; the numbers are what would be.
    pub dry_run: bool,
    /// Documents found in a format that is read.
    pub found: usize,
    /// Documents stored for the first time.
    pub new: usize,
    /// Documents stored again.
    pub changed: usize,
    /// Documents left alone.
    pub unchanged: usize,
    /// Documents removed because they left the source.
    pub removed: usize,
    /// Documents of this source in the catalog that it no longer has, and that stay.
    pub missing: Vec<DocumentId>,
    /// Why nothing was removed although it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_pruned: Option<String>,
    /// Documents that were not ingested.
    pub rejected: Vec<Rejection>,
    /// Documents among the new and changed ones that somebody should look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flagged: Vec<Flagged>,
    /// Files passed over because of their ending.
    pub ignored: usize,
    /// Chunks stored.
    pub chunks: usize,
    /// Their tokens, by the embedder's tokenizer.
    pub tokens: usize,
    /// Texts that were embedded; the others of `chunks` came from the cache or stood twice in the run.
    pub embedded: usize,
    /// Tokens that were embedded.
    pub embedded_tokens: usize,
    /// Calls of the embedder, failed ones too.
    pub embed_calls: usize,
    /// Bytes read.
    pub bytes: u64,
    /// What embedding cost, where `embedder.price_per_million_tokens` says a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Seconds from start to end.
    pub seconds: f64,
    /// Where they went.
    pub stages: StageSeconds,
}

impl Report {
    /// The report of a run that has done nothing yet.
    pub fn of_run(run: Uuid, collection: Collection, source: String, dry_run: bool) -> Self {
        Self {
            run,
            collection,
            source,
            dry_run,
            found: 0,
            new: 0,
            changed: 0,
            unchanged: 0,
            removed: 0,
            missing: Vec::new(),
            not_pruned: None,
            rejected: Vec::new(),
            flagged: Vec::new(),
            ignored: 0,
            chunks: 0,
            tokens: 0,
            embedded: 0,
            embedded_tokens: 0,
            embed_calls: 0,
            bytes: 0,
            cost: None,
            seconds: 0.0,
            stages: StageSeconds::default(),
        }
    }

    /// How many documents were rejected for each reason, most frequent first.
    pub fn reasons(&self) -> Vec<(&str, usize)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.rejected.iter().for_each(|rejection| *counts.entry(&rejection.reason).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        counts
    }
}

/// Which step a run is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading, cutting, embedding, storing.
    Documents,
    /// Making the index durable and fast.
    Settling,
}

/// How far a run is. Bytes tell the share that is done, because the number of chunks is known only at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which step.
    pub stage: Stage,
    /// Bytes of the documents that are through.
    pub bytes_done: u64,
    /// Bytes of the documents listed so far.
    pub bytes_total: u64,
    /// Documents that are through.
    pub documents: usize,
    /// Chunks that have their vectors, from the embedder or from the cache.
    pub embedded: usize,
    /// Chunks stored.
    pub chunks: usize,
}
