//! The pipeline: parsing runs ahead on a blocking thread, groups of chunks are embedded and stored, documents are published one by one.
//!
//! Write order (docs/architecture.md): new points, verified -> the document's row in the ledger -> old points removed.
//! A crash at any instant leaves the old version or the new one, never neither; what is left over is removed by the next run.

use crate::Error;
use crate::chunk::{ChunkSettings, chunk_document};
use crate::parse::{Limits, parser_for};
use crate::plan::{Decision, decide};
use crate::report::{Progress, Rejection, Report, Stage};
use crate::source::{SourceFile, list_files, plain};
use groundtone_catalog::{Catalog, CollectionRecord, DocumentRecord};
use groundtone_index::{CollectionSpec, Filter, Point, SparseEmbedder, VectorIndex};
use groundtone_prompt::CountTokens;
use groundtone_provider::{EmbedFor, Embedder};
use groundtone_types::{Chunk, Collection, ContentHash, DocumentId, Tenant};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{Instrument, info_span};
use uuid::Uuid;

/// Chunks that are embedded and stored together. Large enough for full batches, small enough that a crash costs seconds.
const GROUP_CHUNKS: usize = 128;
/// Parsed documents that may wait for the embedder.
const PARSED_AHEAD: usize = 16;
/// Points removed in one call.
const REMOVE_BATCH: usize = 1000;

/// What a run is told.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// Whose documents.
    pub tenant: Tenant,
    /// Where they go.
    pub collection: Collection,
    /// How they are cut.
    pub chunks: ChunkSettings,
    /// Larger files are rejected.
    pub max_file_bytes: u64,
    /// A file that takes longer to parse is rejected.
    pub parse_timeout: Duration,
    /// Put before a document's id to make its address; `file://` and the absolute path where empty.
    pub url_prefix: String,
    /// Remove documents that the source no longer has.
    pub prune: bool,
    /// Build the collection anew, from nothing.
    pub full: bool,
    /// Unix seconds, for the ledger.
    pub now: i64,
}

/// Brings a folder and a collection into agreement.
pub struct Ingester {
    index: Arc<dyn VectorIndex>,
    embedder: Arc<dyn Embedder>,
    sparse: Arc<dyn SparseEmbedder>,
    catalog: Arc<Catalog>,
}

/// A document on its way to the store.
struct Prepared {
    id: DocumentId,
    hash: ContentHash,
    title: String,
    url: String,
    bytes: u64,
    decision: Decision,
    chunks: Vec<Chunk>,
}

enum Parsed {
    Ready(Box<Prepared>),
    Unchanged(DocumentId, u64),
    Rejected(Rejection, Option<DocumentId>, u64),
}

impl Ingester {
    /// Puts the parts together.
    pub fn new(index: Arc<dyn VectorIndex>, embedder: Arc<dyn Embedder>, sparse: Arc<dyn SparseEmbedder>, catalog: Arc<Catalog>) -> Self {
        Self { index, embedder, sparse, catalog }
    }

    /// What a collection's vectors come from; two collections with the same answer can be searched the same way.
    pub fn vectors_fingerprint(embedder: &dyn Embedder, sparse: &dyn SparseEmbedder) -> String {
        format!("{} ({} dimensions) + {}", embedder.id(), embedder.dimensions(), sparse.id())
    }

    /// Ingests a folder or a file. `progress` is called after each group.
    pub async fn run(&self, root: &Path, settings: &IngestSettings, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<Report, Error> {
        let started = Instant::now();
        let listing = list_files(root)?;
        self.open_collection(settings).await?;
        self.finish_removals(settings).await?;
        let stored: BTreeMap<DocumentId, DocumentRecord> =
            self.catalog.documents(&settings.tenant, &settings.collection).await?.into_iter().map(|row| (row.id.clone(), row)).collect();
        let mut report = Report { found: listing.files.len(), ignored: listing.ignored, ..Report::default() };
        report.rejected.extend(listing.unreadable.into_iter().map(|(path, reason)| Rejection { path, reason }));
        report.found += report.rejected.len();
        let total = listing.files.iter().map(|file| file.bytes).sum();
        let mut state = Progress { stage: Stage::Documents, bytes_done: 0, bytes_total: total, documents: 0, chunks: 0 };
        let mut seen = HashSet::new();
        let mut group: Vec<Prepared> = Vec::new();
        let mut parsed = self.parse_ahead(listing.files, stored.clone(), settings.clone());
        while let Some(next) = parsed.recv().await {
            let (id, bytes) = match next {
                Parsed::Ready(document) => {
                    let key = (Some(document.id.clone()), 0);
                    group.push(*document);
                    key
                }
                Parsed::Unchanged(id, bytes) => {
                    report.unchanged += 1;
                    report.bytes += bytes;
                    (Some(id), bytes)
                }
                Parsed::Rejected(rejection, id, bytes) => {
                    report.rejected.push(rejection);
                    (id, bytes)
                }
            };
            seen.extend(id);
            if bytes > 0 {
                state.documents += 1;
                state.bytes_done += bytes;
            }
            if group.iter().map(|document| document.chunks.len()).sum::<usize>() >= GROUP_CHUNKS {
                self.publish(std::mem::take(&mut group), settings, &mut report, &mut state).await?;
                progress(state);
            }
        }
        self.publish(group, settings, &mut report, &mut state).await?;
        self.handle_missing(&stored, &seen, root, settings, &mut report).await?;
        progress(Progress { stage: Stage::Settling, ..state });
        self.index.settle(&settings.collection).await?;
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Makes the collection or checks that its vectors come from the same models as ours.
    async fn open_collection(&self, settings: &IngestSettings) -> Result<(), Error> {
        let configured = Self::vectors_fingerprint(&*self.embedder, &*self.sparse);
        let recorded = self.catalog.collection(&settings.collection).await?;
        match &recorded {
            Some(record) if record.fingerprint != configured && !settings.full => {
                return Err(Error::OtherVectors {
                    collection: settings.collection.clone(),
                    stored: record.fingerprint.clone(),
                    configured,
                });
            }
            _ if settings.full => {
                self.catalog.clear_collection(&settings.collection).await?;
                self.index.remove(&settings.collection).await?;
            }
            _ => {}
        }
        let dimensions = self.embedder.dimensions();
        self.index.ensure(&CollectionSpec { name: settings.collection.clone(), dimensions }).await?;
        if recorded.is_none_or(|record| record.fingerprint != configured) || settings.full {
            let record =
                CollectionRecord { name: settings.collection.clone(), fingerprint: configured, dimensions, created_at: settings.now };
            self.catalog.put_collection(&record).await?;
        }
        Ok(())
    }

    /// Removes points that an earlier run had replaced but, interrupted, did not remove.
    async fn finish_removals(&self, settings: &IngestSettings) -> Result<(), Error> {
        let (tenant, collection) = (&settings.tenant, &settings.collection);
        let pending = self.catalog.pending_removals(tenant, collection).await?;
        for batch in pending.chunks(REMOVE_BATCH) {
            self.index.delete(tenant, collection, batch).await?;
            self.catalog.removed(tenant, collection, batch).await?;
        }
        Ok(())
    }

    /// Reads and cuts files ahead of the embedder, in order, bounded by the channel.
    fn parse_ahead(
        &self,
        files: Vec<SourceFile>,
        stored: BTreeMap<DocumentId, DocumentRecord>,
        settings: IngestSettings,
    ) -> mpsc::Receiver<Parsed> {
        let (sender, receiver) = mpsc::channel(PARSED_AHEAD);
        let tokens = self.embedder.tokens();
        let fingerprint = settings.chunks.fingerprint(tokens.id());
        let context = Arc::new(ParseContext { stored, settings, tokens, fingerprint });
        tokio::spawn(
            async move {
                for file in files {
                    let parsed = prepare_within_limits(context.clone(), file).await;
                    if sender.send(parsed).await.is_err() {
                        return;
                    }
                }
            }
            .instrument(info_span!("ingest.parse")),
        );
        receiver
    }

    /// Embeds and stores a group, then publishes its documents.
    async fn publish(
        &self,
        group: Vec<Prepared>,
        settings: &IngestSettings,
        report: &mut Report,
        state: &mut Progress,
    ) -> Result<(), Error> {
        if group.is_empty() {
            return Ok(());
        }
        let (tenant, collection) = (&settings.tenant, &settings.collection);
        let texts: Vec<String> = group.iter().flat_map(|document| &document.chunks).map(embedded_text).collect();
        let tokens = self.embedder.tokens();
        report.tokens += texts.iter().map(|text| tokens.count(text)).sum::<usize>();
        let mut vectors = Vec::new();
        if !texts.is_empty() {
            vectors = self.embedder.embed(&texts, EmbedFor::Document).instrument(info_span!("ingest.embed", chunks = texts.len())).await?;
            report.embed_calls += 1;
        }
        let points: Vec<Point> = group
            .iter()
            .flat_map(|document| &document.chunks)
            .zip(texts.iter().zip(vectors))
            .map(|(chunk, (text, dense))| Point { id: chunk.point_id(), dense, sparse: self.sparse.document(text), chunk: chunk.clone() })
            .collect();
        let ids: HashSet<Uuid> = points.iter().map(|point| point.id).collect();
        self.index.upsert(tenant, collection, points).instrument(info_span!("ingest.store", chunks = texts.len())).await?;
        self.verify(&group, &ids, settings).await?;
        report.chunks += texts.len();
        for document in group {
            self.flip(&document, settings).await?;
            match document.decision {
                Decision::New => report.new += 1,
                Decision::Changed | Decision::Unchanged => report.changed += 1,
            }
            report.bytes += document.bytes;
            state.bytes_done += document.bytes;
            state.documents += 1;
            state.chunks += document.chunks.len();
        }
        Ok(())
    }

    /// Asks the index for every id that it has just taken.
    async fn verify(&self, group: &[Prepared], wanted: &HashSet<Uuid>, settings: &IngestSettings) -> Result<(), Error> {
        let filter = Filter { documents: group.iter().map(|document| document.id.clone()).collect() };
        let mut missing: HashSet<Uuid> = wanted.clone();
        let mut after = None;
        loop {
            let page = self.index.ids(&settings.tenant, &settings.collection, &filter, after, REMOVE_BATCH).await?;
            for id in &page.ids {
                missing.remove(id);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Error::NotStored { stored: wanted.len(), documents: group.len(), missing: missing.len() })
        }
    }

    /// The ledger's row changes and the old points are noted for removal in one transaction; then they are removed.
    async fn flip(&self, document: &Prepared, settings: &IngestSettings) -> Result<(), Error> {
        let (tenant, collection) = (&settings.tenant, &settings.collection);
        let record = DocumentRecord {
            id: document.id.clone(),
            content_hash: document.hash.clone(),
            settings_fingerprint: settings.chunks.fingerprint(self.embedder.tokens().id()),
            title: document.title.clone(),
            url: document.url.clone(),
            point_ids: document.chunks.iter().map(Chunk::point_id).collect(),
            indexed_at: settings.now,
        };
        let old = self.catalog.flip_document(tenant, collection, &record).await?;
        self.remove_points(&old, settings).await
    }

    async fn remove_points(&self, ids: &[Uuid], settings: &IngestSettings) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        self.index.delete(&settings.tenant, &settings.collection, ids).await?;
        self.catalog.removed(&settings.tenant, &settings.collection, ids).await?;
        Ok(())
    }

    /// Documents of the ledger that this folder no longer has: removed with `prune`, named without.
    async fn handle_missing(
        &self,
        stored: &BTreeMap<DocumentId, DocumentRecord>,
        seen: &HashSet<DocumentId>,
        root: &Path,
        settings: &IngestSettings,
        report: &mut Report,
    ) -> Result<(), Error> {
        if root.is_file() {
            return Ok(());
        }
        for id in stored.keys().filter(|id| !seen.contains(*id)) {
            if settings.prune {
                let old = self.catalog.remove_document(&settings.tenant, &settings.collection, id).await?;
                self.remove_points(&old, settings).await?;
                report.removed += 1;
            } else {
                report.missing.push(id.clone());
            }
        }
        Ok(())
    }
}

/// What is embedded and indexed: the breadcrumb says what a short piece is about.
fn embedded_text(chunk: &Chunk) -> String {
    format!("{}\n{}", chunk.breadcrumb(), chunk.text)
}

struct ParseContext {
    stored: BTreeMap<DocumentId, DocumentRecord>,
    settings: IngestSettings,
    tokens: Arc<dyn CountTokens>,
    fingerprint: String,
}

/// A panic or a hang in one file costs that file.
async fn prepare_within_limits(context: Arc<ParseContext>, file: SourceFile) -> Parsed {
    let (path, bytes, limit) = (file.path.clone(), file.bytes, context.settings.parse_timeout);
    let id = DocumentId::new(file.id.clone()).ok();
    let reject = |reason: String| Parsed::Rejected(Rejection { path: path.clone(), reason }, id.clone(), bytes.max(1));
    let work = tokio::task::spawn_blocking(move || prepare(&context, &file));
    match tokio::time::timeout(limit, work).await {
        Err(_) => reject(format!("took longer than {} s to parse", limit.as_secs())),
        Ok(Err(_)) => reject("made its parser fail; please report it with the file".to_owned()),
        Ok(Ok(Err(reason))) => reject(reason),
        Ok(Ok(Ok(parsed))) => parsed,
    }
}

fn prepare(context: &ParseContext, file: &SourceFile) -> Result<Parsed, String> {
    let settings = &context.settings;
    let id = DocumentId::new(file.id.clone()).map_err(|error| error.to_string())?;
    if file.bytes > settings.max_file_bytes {
        return Err(format!("has {} bytes; at most {} are read (`ingest.max_file_bytes`)", file.bytes, settings.max_file_bytes));
    }
    let bytes = std::fs::read(&file.path).map_err(|error| format!("cannot be read: {}", plain(&error)))?;
    let hash = ContentHash::of(&bytes);
    let url = address(&settings.url_prefix, file)?;
    let decision = decide(context.stored.get(&id), &hash, &context.fingerprint, &url);
    if decision == Decision::Unchanged {
        return Ok(Parsed::Unchanged(id, file.bytes.max(1)));
    }
    let parser = parser_for(&file.path).ok_or_else(|| "has an ending that is not read".to_owned())?;
    let parsed = parser.parse(&bytes, &Limits::default())?;
    if parsed.text.trim().is_empty() {
        return Err("holds no text".to_owned());
    }
    let title = parsed.title.clone().unwrap_or_else(|| title_from_name(&file.id));
    let chunks = chunk_document(&id, &title, &url, &parsed, settings.chunks, &*context.tokens);
    if chunks.is_empty() {
        return Err("holds headings but no text".to_owned());
    }
    Ok(Parsed::Ready(Box::new(Prepared { id, hash, title, url, bytes: file.bytes.max(1), decision, chunks })))
}

fn address(prefix: &str, file: &SourceFile) -> Result<String, String> {
    let encode = |path: &str| path.replace('%', "%25").replace(' ', "%20").replace('#', "%23").replace('?', "%3F");
    if prefix.is_empty() {
        let path = file.path.canonicalize().map_err(|error| format!("cannot be read: {}", plain(&error)))?;
        Ok(format!("file://{}", encode(&path.to_string_lossy())))
    } else {
        Ok(format!("{}/{}", prefix.trim_end_matches('/'), encode(&file.id)))
    }
}

/// `products/price-list.csv` -> `Price list`.
fn title_from_name(id: &str) -> String {
    let name = id.rsplit('/').next().unwrap_or(id);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem).replace(['-', '_'], " ");
    let mut chars = stem.chars();
    chars.next().map_or_else(|| name.to_owned(), |first| first.to_uppercase().chain(chars).collect())
}
