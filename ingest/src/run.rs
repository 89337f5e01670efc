//! The pipeline: prepare -> embed -> store, three stages that work at the same time with bounded queues between them, so the slowest sets the pace and memory does not grow with the corpus.
//!
//! Write order (docs/architecture.md): intents noted -> new points, verified -> the documents' rows in the ledger -> old points removed.
//! A crash at any instant leaves the old version or the new one, never neither; what is left over is known and removed by the next run.

use crate::Error;
use crate::chunk::ChunkSettings;
use crate::embed::EmbedStage;
use crate::extract::Extractor;
use crate::plan::Decision;
use crate::prepare::{Prepared, Preparer, Spent, Step};
use crate::publish::Publisher;
use crate::report::{Flagged, Progress, Rejection, Report, Stage};
use crate::source::Source;
use futures::StreamExt;
use groundtone_catalog::{Catalog, CollectionRecord, EmbeddingCache};
use groundtone_index::{CollectionSpec, Point, SparseEmbedder, VectorIndex};
use groundtone_provider::{Batcher, Embedder};
use groundtone_types::{Collection, DocumentId, Tenant};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument, info_span};
use uuid::Uuid;

/// Full rounds of the embedder in a group of documents: enough that a last batch which is not full costs little, few enough that little is held in memory.
const GROUP_ROUNDS: usize = 4;
/// Fewest and most chunks of a group.
const GROUP_CHUNKS: (usize, usize) = (512, 4096);
/// Documents that are read and cut at the same time, and that may wait for the embedder.
const PREPARE_AHEAD: usize = 8;
/// Groups that are embedded at the same time.
const GROUPS_EMBEDDED: usize = 3;
/// Groups that may wait between two stages.
const GROUPS_AHEAD: usize = 1;
/// Offers that are listed ahead, so that progress knows what is to come.
const LIST_AHEAD: usize = 4096;

/// What a run is told.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// The run's own id.
    pub run: Uuid,
    /// Whose documents.
    pub tenant: Tenant,
    /// Where they go.
    pub collection: Collection,
    /// Name of the source; a run never touches documents of another one.
    pub source: String,
    /// How they are cut.
    pub chunks: ChunkSettings,
    /// Larger documents are rejected.
    pub max_file_bytes: u64,
    /// A document that takes longer to parse is rejected.
    pub parse_timeout: Duration,
    /// Put before a document's id to make its address; the source's own address, or `file://` and the absolute path, where empty.
    pub url_prefix: String,
    /// Remove documents that the source no longer has.
    pub prune: bool,
    /// Into what the documents go.
    pub build: Build,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Price of a million embedded tokens; 0 where it has none.
    pub price_per_million_tokens: f64,
    /// Unix seconds, for the ledger.
    pub now: i64,
}

/// Which generation of a collection a run works on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Build {
    /// The one that answers.
    #[default]
    Live,
    /// A new one beside it, which answers when somebody switches. A run that was cut off goes on with the same one.
    Beside,
    /// A new one from nothing, which answers when the run is through; the older ones are removed then.
    Anew,
    /// A new one from nothing, to which other sources are to be added before [`Ingester::replace_all`] lets it answer.
    AnewOpen,
}

/// Brings a source and a collection into agreement.
pub struct Ingester {
    pub(crate) index: Arc<dyn VectorIndex>,
    pub(crate) sparse: Arc<dyn SparseEmbedder>,
    pub(crate) catalog: Arc<Catalog>,
    extractor: Arc<Extractor>,
    cache: Option<Arc<EmbeddingCache>>,
    embed: EmbedStage,
}

/// Documents whose chunks are embedded and stored together.
#[derive(Default)]
struct Group {
    documents: Vec<Prepared>,
    chunks: usize,
}

/// A group with its points.
pub(crate) struct Filled {
    pub(crate) documents: Vec<Prepared>,
    pub(crate) points: Vec<Point>,
    /// Given back when the group is stored.
    _place: Option<OwnedSemaphorePermit>,
}

/// What the stages of one run share.
pub(crate) struct Run<'a> {
    pub(crate) settings: &'a IngestSettings,
    pub(crate) report: Mutex<Report>,
    state: Mutex<Progress>,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
}

impl Run<'_> {
    pub(crate) fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn advance(&self, change: impl FnOnce(&mut Progress)) {
        let state = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state);
            *state
        };
        (self.progress)(state);
    }

    pub(crate) fn reject(&self, rejection: Rejection, bytes: u64) {
        self.note(|report| {
            report.found += 1;
            report.rejected.push(rejection);
        });
        self.advance(|state| {
            state.documents += 1;
            state.bytes_done += bytes;
        });
    }
}

/// Documents that were offered, by a hash of their ids: eight bytes each, so a million take eight megabytes.
#[derive(Default)]
pub(crate) struct Seen {
    hashes: HashSet<u64>,
    hasher: RandomState,
    /// Files that were offered to their end, and in how many parts.
    pub(crate) files: Vec<(DocumentId, u32)>,
    /// Something without an id could not be read: what is missing may be in there.
    pub(crate) blind: Option<String>,
}

impl Seen {
    fn insert(&mut self, id: &DocumentId) {
        self.hashes.insert(self.hasher.hash_one(id));
    }

    pub(crate) fn contains(&self, id: &DocumentId) -> bool {
        self.hashes.contains(&self.hasher.hash_one(id))
    }
}

impl Ingester {
    /// Puts the parts together. Without a cache every changed document is embedded whole.
    pub fn new(
        extractor: Arc<Extractor>,
        index: Arc<dyn VectorIndex>,
        batcher: Arc<Batcher>,
        sparse: Arc<dyn SparseEmbedder>,
        catalog: Arc<Catalog>,
        cache: Option<Arc<EmbeddingCache>>,
    ) -> Self {
        Self { index, sparse, catalog, extractor, embed: EmbedStage::new(batcher, cache.clone()), cache }
    }

    pub(crate) fn tokenizer_id(&self) -> String {
        self.embed.batcher().embedder().tokens().id().to_owned()
    }

    /// Takes a document out of a collection; the receipt says that it is gone.
    pub async fn delete(&self, tenant: &Tenant, collection: &Collection, document: &DocumentId) -> Result<crate::Receipt, Error> {
        let collection = &self.live(collection).await?;
        Publisher { ingester: self, tenant, collection }.delete(document).await
    }

    /// What a collection's vectors come from; two collections with the same answer can be searched the same way.
    pub fn vectors_fingerprint(embedder: &dyn Embedder, sparse: &dyn SparseEmbedder) -> String {
        format!("{} ({} dimensions) + {}", embedder.id(), embedder.dimensions(), sparse.id())
    }

    /// Brings a source and a collection into agreement. `progress` is called as documents go through.
    ///
    /// An error ends the run; what was published stays, and the next run goes on from there.
    pub async fn run(
        &self,
        source: Arc<dyn Source>,
        settings: &IngestSettings,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Report, Error> {
        let started = Instant::now();
        let calls_before = self.embed.batcher().calls();
        let logical = settings.collection.clone();
        let target = self.choose_generation(settings).await?;
        let settings = &IngestSettings { collection: target, ..settings.clone() };
        let publisher = Publisher { ingester: self, tenant: &settings.tenant, collection: &settings.collection };
        if !settings.dry_run {
            self.open_collection(&logical, settings).await?;
            publisher.recover().await?;
        }
        let report = Report::of_run(settings.run, settings.collection.clone(), settings.source.clone(), settings.dry_run);
        let state = Progress { stage: Stage::Documents, bytes_done: 0, bytes_total: 0, documents: 0, embedded: 0, chunks: 0 };
        let run = Run { settings, report: Mutex::new(report), state: Mutex::new(state), progress };
        let (to_embed, groups) = mpsc::channel(GROUPS_AHEAD);
        let (to_store, filled) = mpsc::unbounded_channel();
        let (seen, (), ()) = futures::try_join!(
            self.prepare(source.clone(), &run, to_embed).instrument(info_span!("ingest.prepare")),
            self.embed_groups(&run, groups, to_store).instrument(info_span!("ingest.embed")),
            self.store_groups(&run, &publisher, filled).instrument(info_span!("ingest.store")),
        )?;
        publisher.remove_other_parts(&seen, &run).await?;
        if source.is_complete() {
            publisher.handle_missing(&seen, &run).await?;
        }
        if !settings.dry_run {
            publisher.quarantine(&seen, source.is_complete(), &run).await?;
        }
        run.advance(|state| state.stage = Stage::Settling);
        let settling = Instant::now();
        if !settings.dry_run {
            self.index.settle(&settings.collection).await?;
            if let Some(cache) = &self.cache {
                cache.trim().await?;
            }
            self.catalog.complete_collection(&settings.collection, settings.now).await?;
            if settings.build == Build::Anew {
                self.replace_all(&logical, &settings.collection, settings.now).await?;
            }
        }
        let mut report = run.report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.stages.settle = settling.elapsed().as_secs_f64();
        report.embed_calls = self.embed.batcher().calls() - calls_before;
        report.cost =
            (settings.price_per_million_tokens > 0.0).then(|| report.embedded_tokens as f64 * settings.price_per_million_tokens / 1e6);
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    /// The fingerprint of the vectors that this one makes.
    pub fn fingerprint(&self) -> String {
        Self::vectors_fingerprint(&**self.embed.batcher().embedder(), &*self.sparse)
    }

    /// Makes the generation where it is not there yet. The first one of a collection answers from the beginning.
    async fn open_collection(&self, logical: &Collection, settings: &IngestSettings) -> Result<(), Error> {
        let (name, dimensions) = (settings.collection.clone(), self.embed.batcher().embedder().dimensions());
        // The ledger first: a run that is cut off in between goes on with this generation instead of leaving a folder that nobody knows.
        if self.catalog.collection(&name).await?.is_none() {
            let record = CollectionRecord {
                name: name.clone(),
                fingerprint: self.fingerprint(),
                dimensions,
                created_at: settings.now,
                completed_at: None,
            };
            self.catalog.put_collection(&record).await?;
        }
        self.index.ensure(&CollectionSpec { name: name.clone(), dimensions }).await?;
        if logical.number().is_none() && self.index.resolve(logical).await?.is_none() {
            self.let_answer(logical, &name, settings.now).await?;
        }
        Ok(())
    }

    /// Stage one: lists, reads and cuts, and makes groups.
    async fn prepare(&self, source: Arc<dyn Source>, run: &Run<'_>, to_embed: mpsc::Sender<Group>) -> Result<Seen, Error> {
        let tokens = self.embed.batcher().embedder().tokens();
        let fingerprint = run.settings.chunks.fingerprint(tokens.id());
        let first = self.catalog.documents(&run.settings.tenant, &run.settings.collection, None, 1).await?.is_empty();
        let preparer = Arc::new(Preparer {
            first,
            source: source.clone(),
            extractor: self.extractor.clone(),
            catalog: self.catalog.clone(),
            settings: run.settings.clone(),
            tokens,
            fingerprint,
        });
        let limits = self.embed.batcher().embedder().limits();
        let round = limits.texts.saturating_mul(limits.parallel);
        let group_chunks = round.saturating_mul(GROUP_ROUNDS).clamp(GROUP_CHUNKS.0, GROUP_CHUNKS.1);
        let (to_prepare, offers) = mpsc::channel(if source.carries_content() { PREPARE_AHEAD } else { LIST_AHEAD });
        let list = async {
            let mut listing = source.offers();
            while let Some(offer) = listing.next().await {
                let offer = offer?;
                if let crate::source::Offer::Item(item) = &offer {
                    run.advance(|state| state.bytes_total += item.bytes.max(1));
                }
                if to_prepare.send(offer).await.is_err() {
                    break;
                }
            }
            drop(to_prepare);
            Ok::<(), Error>(())
        };
        let work = async {
            let mut steps = ReceiverStream::new(offers).map(|offer| preparer.clone().on_a_task(offer)).buffered(PREPARE_AHEAD);
            let (mut seen, mut group) = (Seen::default(), Group::default());
            while let Some(step) = steps.next().await {
                let (step, spent) = step?;
                let Some(document) = self.take_step(step, spent, run, &mut seen).await? else { continue };
                group.chunks += document.cuts.len();
                group.documents.push(*document);
                if group.chunks >= group_chunks {
                    send(&to_embed, std::mem::take(&mut group), "embedding").await?;
                }
            }
            if !group.documents.is_empty() {
                send(&to_embed, group, "embedding").await?;
            }
            Ok::<Seen, Error>(seen)
        };
        let ((), seen) = futures::try_join!(list, work)?;
        Ok(seen)
    }

    /// Counts what needs no more work; gives back what does.
    async fn take_step(&self, step: Step, spent: Spent, run: &Run<'_>, seen: &mut Seen) -> Result<Option<Box<Prepared>>, Error> {
        run.note(|report| {
            report.stages.read += spent.read.as_secs_f64();
            report.stages.parse += spent.parse.as_secs_f64();
        });
        match step {
            Step::Ready(document) => {
                seen.insert(&document.id);
                return Ok(Some(document));
            }
            Step::Unchanged { id, bytes, version } => {
                seen.insert(&id);
                if let Some(version) = version.filter(|_| !run.settings.dry_run) {
                    self.catalog.set_version(&run.settings.tenant, &run.settings.collection, &id, &version).await?;
                }
                run.note(|report| {
                    report.found += 1;
                    report.unchanged += 1;
                    report.bytes += bytes;
                });
                run.advance(|state| {
                    state.documents += 1;
                    state.bytes_done += bytes.max(1);
                });
            }
            Step::Rejected { rejection, bytes } => {
                match &rejection.document {
                    Some(id) => seen.insert(id),
                    None => seen.blind = Some(rejection.path.clone()),
                }
                run.reject(rejection, bytes);
            }
            Step::Parts { id, count } => seen.files.push((id, count)),
            Step::Ignored => run.note(|report| report.ignored += 1),
        }
        Ok(None)
    }

    /// Stage two: vectors for each group. The next groups begin while one still waits for its last batch, so the embedder is never idle between two of them.
    /// What holds the stage up is how many groups are between here and the store, never a full queue: a call in progress is always looked after.
    async fn embed_groups(
        &self,
        run: &Run<'_>,
        groups: mpsc::Receiver<Group>,
        to_store: mpsc::UnboundedSender<Filled>,
    ) -> Result<(), Error> {
        let places = Arc::new(Semaphore::new(GROUPS_EMBEDDED + GROUPS_AHEAD));
        let fill = |group: Group| {
            let places = places.clone();
            async move {
                let place = places.acquire_owned().await.map_err(|_| Error::Pipeline("embedding"))?;
                let began = Instant::now();
                let filled = self.fill(group.documents, run).await?;
                run.note(|report| report.stages.embed += began.elapsed().as_secs_f64());
                Ok::<Filled, Error>(Filled { _place: Some(place), ..filled })
            }
        };
        let mut filled = ReceiverStream::new(groups).map(fill).buffered(GROUPS_EMBEDDED);
        while let Some(group) = filled.next().await {
            to_store.send(group?).map_err(|_| Error::Pipeline("storing"))?;
        }
        Ok(())
    }

    async fn fill(&self, documents: Vec<Prepared>, run: &Run<'_>) -> Result<Filled, Error> {
        let chunks = run.settings.chunks;
        let cuts = || documents.iter().flat_map(|document| &document.cuts);
        let texts: Vec<String> = cuts().map(|cut| chunks.embedded_text(&cut.chunk)).collect();
        let sizes: Vec<usize> = cuts().map(|cut| cut.tokens).collect();
        if run.settings.dry_run {
            let (texts, tokens) = self.embed.estimate(&texts, &sizes).await?;
            run.note(|report| {
                report.embedded += texts;
                report.embedded_tokens += tokens;
            });
            return Ok(Filled { documents, points: Vec::new(), _place: None });
        }
        let embedded = self.embed.embed(&texts, &sizes, &|texts| run.advance(|state| state.embedded += texts)).await?;
        run.note(|report| {
            report.embedded += embedded.embedded;
            report.embedded_tokens += embedded.embedded_tokens;
        });
        let (sparse, vectors) = (self.sparse.clone(), embedded.vectors);
        let work = move || assemble(documents, &texts, vectors, &*sparse);
        let (filled, refused) = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Pipeline("embedding"))?;
        for (document, reason) in refused {
            run.reject(Rejection { path: document.place, reason, document: Some(document.id) }, document.bytes);
        }
        Ok(filled)
    }

    /// Stage three: points into the index, documents into the ledger.
    async fn store_groups(
        &self,
        run: &Run<'_>,
        publisher: &Publisher<'_>,
        mut filled: mpsc::UnboundedReceiver<Filled>,
    ) -> Result<(), Error> {
        while let Some(group) = filled.recv().await {
            let documents: Vec<(Decision, u64, usize, usize)> = group
                .documents
                .iter()
                .map(|document| (document.decision, document.bytes, document.sizes().count(), document.sizes().sum()))
                .collect();
            let flagged = group.documents.iter().filter(|document| !document.flags.is_empty());
            let flagged: Vec<Flagged> =
                flagged.map(|document| Flagged { document: document.id.clone(), flags: document.flags.clone() }).collect();
            if !run.settings.dry_run {
                publisher.publish(group, run).await?;
            }
            run.note(|report| report.flagged.extend(flagged));
            for (decision, bytes, chunks, tokens) in documents {
                run.note(|report| {
                    report.found += 1;
                    match decision {
                        Decision::New => report.new += 1,
                        Decision::Changed | Decision::Unchanged => report.changed += 1,
                    }
                    report.bytes += bytes;
                    report.chunks += chunks;
                    report.tokens += tokens;
                });
                run.advance(|state| {
                    state.documents += 1;
                    state.chunks += chunks;
                    state.bytes_done += bytes.max(1);
                });
            }
        }
        Ok(())
    }
}

/// Points out of documents and their vectors, with the documents of which a text has none. BM25's terms are counted here, so it runs on a blocking thread.
fn assemble(
    documents: Vec<Prepared>,
    texts: &[String],
    vectors: Vec<Result<Vec<f32>, String>>,
    sparse: &dyn SparseEmbedder,
) -> (Filled, Vec<(Prepared, String)>) {
    let mut vectors = texts.iter().zip(vectors);
    let mut filled = Filled { documents: Vec::with_capacity(documents.len()), points: Vec::with_capacity(texts.len()), _place: None };
    let mut all_refused = Vec::new();
    for mut document in documents {
        let first = filled.points.len();
        let mut refused = None;
        for (cut, (text, vector)) in std::mem::take(&mut document.cuts).into_iter().zip(vectors.by_ref()) {
            document.stored.push((cut.id, cut.tokens));
            match vector {
                Ok(dense) => filled.points.push(Point { id: cut.id, dense, sparse: sparse.document(text), chunk: cut.chunk }),
                Err(reason) => refused = Some(reason),
            }
        }
        match refused {
            Some(reason) => {
                filled.points.truncate(first);
                all_refused.push((document, reason));
            }
            None => filled.documents.push(document),
        }
    }
    (filled, all_refused)
}

/// A stage that has ended early leaves its reason with itself; this error only stops the stages before it.
async fn send<T>(channel: &mpsc::Sender<T>, item: T, stage: &'static str) -> Result<(), Error> {
    channel.send(item).await.map_err(|_| Error::Pipeline(stage))
}
