use crate::{aliases, payload};
use async_trait::async_trait;
use groundtone_index::{
    BM25, CollectionSpec, DENSE, Error, Filter, IdPage, Point, Query, Search, VectorIndex, field, sort_hits, stored_id,
};
use groundtone_types::{Chunk, Collection, Snippet, Tenant};
use qdrant_edge::{
    CountRequest, CreateIndex, Distance, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams, FieldIndexOperations,
    HnswIndexConfig, KeywordIndexParams, Modifier, NamedQuery, OperationError, PayloadFieldSchema, PayloadSchemaParams, PointId,
    PointInsertOperations, PointOperations, QueryEnum, QueryRequest, ScoringQuery, ScrollRequest, SparseVector, UpdateOperation,
    VectorInternal, WithPayloadInterface, WithVector,
};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use uuid::Uuid;

/// Bytes of the disk that are not written to: more than one batch takes.
const KEPT_FREE: u64 = 32 << 20;
/// Points that one call of the engine takes.
const UPSERT_BATCH: usize = 500;
/// The index is optimized when so many points are in no HNSW graph; below that an exact scan is fast (measured: FINDINGS, 14 ms at 100,000).
const UNINDEXED_POINTS: usize = 10_000;
/// Hits that are asked for beyond the wanted number, so that equals at its end are told apart by their ids.
const EQUAL_SCORES: usize = 16;

/// How the engine may use the machine.
#[derive(Debug, Clone, Copy)]
pub struct EdgeSettings {
    /// Queries that run at the same time; each occupies a thread.
    pub parallel_queries: usize,
    /// A query that takes longer is given up.
    pub query_timeout: Duration,
    /// Threads that build an HNSW graph.
    pub indexing_threads: usize,
}

/// One collection: queries share the shard, writes take turns.
struct Open {
    /// Always there, until it is dropped.
    shard: Option<EdgeShard>,
    writer: Arc<AsyncMutex<()>>,
    dimensions: usize,
}

impl Open {
    fn shard(&self) -> Result<&EdgeShard, Error> {
        self.shard.as_ref().ok_or_else(|| Error::Unavailable { place: "Qdrant Edge".to_owned(), reason: "it is closed".to_owned() })
    }
}

impl Drop for Open {
    /// The engine flushes when it is dropped, and panics where it cannot: on a full disk that would hide the error that the caller is about to read.
    fn drop(&mut self) {
        let shard = self.shard.take();
        if catch_unwind(AssertUnwindSafe(|| drop(shard))).is_err() {
            tracing::error!("a collection could not be flushed when it was closed");
        }
    }
}

/// Refuses to write where the disk is nearly full: the engine writes through mapped files, and where there is no room behind a page the kernel ends the process (SIGBUS).
fn check_room(place: &Path) -> Result<(), Error> {
    match fs4::available_space(place) {
        Ok(free) if free < KEPT_FREE => Err(Error::Unavailable {
            place: place.display().to_string(),
            reason: format!("the disk is full: {} MB are free, and {} MB must stay free", free >> 20, KEPT_FREE >> 20),
        }),
        // Where the system does not say, the engine's own error has to do.
        _ => Ok(()),
    }
}

/// Flushes, and turns the engine's panic into an error.
fn flush(shard: &EdgeShard) -> Result<(), Error> {
    catch_unwind(AssertUnwindSafe(|| shard.flush())).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
        let is_full = text.contains("No space left on device");
        let reason = if is_full {
            "the disk is full".to_owned()
        } else {
            format!("it could not be flushed: {}", text.lines().next().unwrap_or_default())
        };
        Error::Unavailable { place: shard.path().display().to_string(), reason }
    })
}

/// Collections in folders below one root.
pub struct EdgeIndex {
    root: PathBuf,
    settings: EdgeSettings,
    collections: Arc<Mutex<HashMap<Collection, Arc<Open>>>>,
    /// What stands in the `.alias` files; this process is their only writer.
    aliases: Mutex<HashMap<Collection, Collection>>,
    queries: Arc<Semaphore>,
}

impl EdgeIndex {
    /// Uses `root`, making it if it is not there. A collection is opened when it is first asked for. One process at a time: a second one is refused by the write-ahead log's lock.
    pub fn open(root: &Path, settings: EdgeSettings) -> Result<Self, Error> {
        std::fs::create_dir_all(root)
            .map_err(|error| Error::Unavailable { place: root.display().to_string(), reason: error.to_string() })?;
        let queries = Arc::new(Semaphore::new(settings.parallel_queries.max(1)));
        let aliases = Mutex::new(aliases::read(root)?);
        Ok(Self { root: root.to_owned(), settings, collections: Arc::default(), aliases, queries })
    }

    fn target(&self, name: &Collection) -> Collection {
        self.aliases.lock().unwrap_or_else(PoisonError::into_inner).get(name).unwrap_or(name).clone()
    }

    fn place(&self, name: &Collection) -> String {
        self.root.join(name.as_str()).display().to_string()
    }

    /// The open collection, opening it from its folder if need be. Held across the open, so that two callers do not open twice.
    async fn collection(&self, name: &Collection, create: Option<usize>) -> Result<Arc<Open>, Error> {
        let (collections, name, threads) = (self.collections.clone(), self.target(name), self.settings.indexing_threads);
        let path = self.root.join(name.as_str());
        blocking(move || {
            let mut collections = collections.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = collections.get(&name) {
                return Ok(open.clone());
            }
            let open = Arc::new(open_shard(&path, &name, create, threads)?);
            collections.insert(name, open.clone());
            Ok(open)
        })
        .await
    }

    /// Runs a read on a blocking thread, within the limits.
    async fn read<T: Send + 'static>(
        &self,
        name: &Collection,
        work: impl FnOnce(&EdgeShard) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let open = self.collection(name, None).await?;
        let stopped = |reason: &str| Error::Unavailable { place: self.place(name), reason: reason.to_owned() };
        let limit = self.settings.query_timeout;
        let run = async {
            let permit = self.queries.clone().acquire_owned().await.map_err(|_| stopped("it is closed"))?;
            blocking(move || {
                let _permit = permit;
                work(open.shard()?)
            })
            .await
        };
        tokio::time::timeout(limit, run).await.unwrap_or_else(|_| Err(stopped(&format!("no answer within {} s", limit.as_secs()))))
    }

    /// Runs a write on a blocking thread, one at a time for each collection, and flushes: 0.7.2 writes its log but never replays it, so what is not flushed dies
    /// with the process (docs/decisions/0002-edge-flush.md). Not cancelled half-way: the thread goes on when the caller leaves.
    async fn write(&self, name: &Collection, work: impl FnOnce(&EdgeShard) -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
        let open = self.collection(name, None).await?;
        let turn = open.writer.clone().lock_owned().await;
        blocking(move || {
            let _turn = turn;
            let shard = open.shard()?;
            work(shard)?;
            flush(shard)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Failed { place: "Qdrant Edge".to_owned(), reason: error.to_string() })?
}

fn engine_failed(place: &Path) -> impl Fn(OperationError) -> Error + '_ {
    move |error| Error::Failed { place: place.display().to_string(), reason: error.to_string() }
}

fn open_shard(path: &Path, name: &Collection, create: Option<usize>, threads: usize) -> Result<Open, Error> {
    let exists = path.join("edge_config.json").exists();
    let shard = match (exists, create) {
        (true, _) => EdgeShard::load(path, None).map_err(engine_failed(path))?,
        (false, Some(dimensions)) => create_shard(path, dimensions, threads)?,
        (false, None) => return Err(Error::NoCollection(name.clone())),
    };
    let dimensions = shard.config().vectors.get(DENSE).map(|vector| vector.size);
    let no_vector = || Error::Failed { place: path.display().to_string(), reason: format!("has no vector named `{DENSE}`") };
    Ok(Open { dimensions: dimensions.ok_or_else(no_vector)?, shard: Some(shard), writer: Arc::default() })
}

fn create_shard(path: &Path, dimensions: usize, threads: usize) -> Result<EdgeShard, Error> {
    std::fs::create_dir_all(path).map_err(|error| Error::Unavailable { place: path.display().to_string(), reason: error.to_string() })?;
    // payload_m = 0: no extra graph links for each payload value; a filter of one tenant is a scan of its points (measured: 37 s instead of 140 s for 100,000 points).
    let hnsw = HnswIndexConfig {
        m: 16,
        ef_construct: 100,
        full_scan_threshold: 10_000,
        max_indexing_threads: threads,
        on_disk: None,
        payload_m: Some(0),
        inline_storage: None,
    };
    let config = EdgeConfig::builder()
        .vector(DENSE, EdgeVectorParams::builder(dimensions, Distance::Cosine).build())
        .sparse_vector(BM25, EdgeSparseVectorParams::builder().modifier(Modifier::Idf).build())
        .hnsw_config(hnsw);
    let shard = EdgeShard::new(path, config.build()).map_err(engine_failed(path))?;
    for (name, is_tenant) in [(field::TENANT, true), (field::DOCUMENT, false)] {
        let schema = PayloadFieldSchema::FieldParams(PayloadSchemaParams::Keyword(KeywordIndexParams {
            is_tenant: Some(is_tenant),
            ..KeywordIndexParams::default()
        }));
        let create = CreateIndex { field_name: payload::path(name)?, field_schema: Some(schema) };
        shard.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(create))).map_err(engine_failed(path))?;
    }
    flush(&shard)?;
    Ok(shard)
}

fn nearest(vector: VectorInternal, using: &str) -> ScoringQuery {
    ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery { query: vector, using: Some(using.to_owned()) }))
}

fn sparse_query(place: &str, vector: groundtone_index::SparseVector) -> Result<ScoringQuery, Error> {
    let vector = SparseVector::new(vector.indices, vector.values)
        .map_err(|error| Error::Failed { place: place.to_owned(), reason: error.to_string() })?;
    Ok(nearest(VectorInternal::Sparse(vector), BM25))
}

fn request(place: &str, query: Query, filter: qdrant_edge::Filter) -> Result<QueryRequest, Error> {
    let scoring = match query.search {
        Search::Dense(vector) => nearest(VectorInternal::Dense(vector), DENSE),
        Search::Sparse(vector) => sparse_query(place, vector)?,
    };
    Ok(QueryRequest {
        prefetches: Vec::new(),
        query: Some(scoring),
        filter: Some(filter),
        score_threshold: None,
        limit: query.limit,
        offset: 0,
        params: None,
        with_vector: WithVector::Bool(false),
        with_payload: WithPayloadInterface::Bool(true),
    })
}

#[async_trait]
impl VectorIndex for EdgeIndex {
    async fn ensure(&self, spec: &CollectionSpec) -> Result<(), Error> {
        let open = self.collection(&spec.name, Some(spec.dimensions)).await?;
        if open.dimensions == spec.dimensions {
            Ok(())
        } else {
            Err(Error::DimensionMismatch { collection: spec.name.clone(), stored: open.dimensions, given: spec.dimensions })
        }
    }

    async fn remove(&self, name: &Collection) -> Result<(), Error> {
        let (collections, path, name) = (self.collections.clone(), self.root.join(name.as_str()), name.clone());
        blocking(move || {
            collections.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::Unavailable { place: path.display().to_string(), reason: error.to_string() })
                }
                _ => Ok(()),
            }
        })
        .await
    }

    async fn upsert(&self, tenant: &Tenant, collection: &Collection, points: Vec<Point>) -> Result<(), Error> {
        let open = self.collection(collection, None).await?;
        if let Some(wrong) = points.iter().find(|point| point.dense.len() != open.dimensions) {
            return Err(Error::DimensionMismatch { collection: collection.clone(), stored: open.dimensions, given: wrong.dense.len() });
        }
        let tenant = tenant.clone();
        self.write(collection, move |shard| {
            let mut points = points.into_iter().peekable();
            while points.peek().is_some() {
                check_room(shard.path())?;
                let batch =
                    points.by_ref().take(UPSERT_BATCH).map(|point| payload::point(&tenant, point)).collect::<Result<Vec<_>, _>>()?;
                let operation = PointOperations::UpsertPoints(PointInsertOperations::PointsList(batch));
                shard.update(UpdateOperation::PointOperation(operation)).map_err(engine_failed(shard.path()))?;
            }
            Ok(())
        })
        .await
    }

    async fn delete(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<(), Error> {
        let ids: Vec<PointId> = ids.iter().map(|id| PointId::Uuid(stored_id(tenant, *id))).collect();
        self.write(collection, move |shard| {
            shard.update(UpdateOperation::PointOperation(PointOperations::DeletePoints { ids })).map_err(engine_failed(shard.path()))
        })
        .await
    }

    async fn query(&self, tenant: &Tenant, collection: &Collection, query: Query) -> Result<Vec<Snippet>, Error> {
        let open = self.collection(collection, None).await?;
        if let Search::Dense(vector) = &query.search
            && vector.len() != open.dimensions
        {
            return Err(Error::DimensionMismatch { collection: collection.clone(), stored: open.dimensions, given: vector.len() });
        }
        if matches!(&query.search, Search::Sparse(vector) if vector.indices.is_empty()) || query.limit == 0 {
            return Ok(Vec::new());
        }
        let place = self.place(collection);
        // The engine orders equal scores by chance: the list is cut here, when it is sorted.
        let limit = query.limit;
        let query = Query { limit: limit + EQUAL_SCORES, ..query };
        let request = request(&place, query.clone(), payload::filter(tenant, &query.filter)?)?;
        self.read(collection, move |shard| {
            let found = shard.query(request).map_err(engine_failed(shard.path()))?;
            let mut hits = found.into_iter().map(|point| payload::snippet(&place, point)).collect::<Result<Vec<_>, _>>()?;
            sort_hits(&mut hits);
            hits.truncate(limit);
            Ok(hits)
        })
        .await
    }

    async fn ids(
        &self,
        tenant: &Tenant,
        collection: &Collection,
        filter: &Filter,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<IdPage, Error> {
        let place = self.place(collection);
        let request = ScrollRequest {
            offset: from.map(PointId::Uuid),
            limit: Some(limit.max(1)),
            filter: Some(payload::filter(tenant, filter)?),
            with_payload: Some(WithPayloadInterface::Fields(vec![payload::path(field::POINT)?])),
            with_vector: WithVector::Bool(false),
            order_by: None,
        };
        self.read(collection, move |shard| {
            let (records, next) = shard.scroll(request).map_err(engine_failed(shard.path()))?;
            let ids = records.iter().map(|record| payload::given_id(&place, record.payload.as_ref())).collect::<Result<Vec<_>, _>>()?;
            let next = match next {
                Some(PointId::Uuid(id)) => Some(id),
                _ => None,
            };
            Ok(IdPage { ids, next })
        })
        .await
    }

    async fn missing(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let wanted: Vec<(Uuid, PointId)> = ids.iter().map(|id| (*id, PointId::Uuid(stored_id(tenant, *id)))).collect();
        self.read(collection, move |shard| {
            let stored: Vec<PointId> = wanted.iter().map(|(_, stored)| *stored).collect();
            let found = shard.retrieve(&stored, Some(WithPayloadInterface::Bool(false)), Some(WithVector::Bool(false)));
            let found: HashSet<PointId> = found.map_err(engine_failed(shard.path()))?.into_iter().map(|record| record.id).collect();
            Ok(wanted.into_iter().filter(|(_, stored)| !found.contains(stored)).map(|(id, _)| id).collect())
        })
        .await
    }

    async fn vectors(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let wanted: Vec<PointId> = ids.iter().map(|id| PointId::Uuid(stored_id(tenant, *id))).collect();
        self.read(collection, move |shard| {
            let only = WithVector::Selector(vec![DENSE.to_owned()]);
            let found =
                shard.retrieve(&wanted, Some(WithPayloadInterface::Bool(false)), Some(only)).map_err(engine_failed(shard.path()))?;
            let found: HashMap<PointId, Vec<f32>> =
                found.into_iter().filter_map(|record| Some((record.id, payload::dense(record.vector?)?))).collect();
            Ok(wanted.iter().map(|id| found.get(id).cloned()).collect())
        })
        .await
    }

    async fn chunks(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Chunk>, Error> {
        let wanted: Vec<PointId> = ids.iter().map(|id| PointId::Uuid(stored_id(tenant, *id))).collect();
        let place = self.place(collection);
        self.read(collection, move |shard| {
            let found = shard.retrieve(&wanted, Some(WithPayloadInterface::Bool(true)), Some(WithVector::Bool(false)));
            let found = found.map_err(engine_failed(shard.path()))?.into_iter();
            let mut chunks = found
                .map(|record| payload::chunk(&place, record.payload).map(|chunk| (record.id, chunk)))
                .collect::<Result<HashMap<PointId, Chunk>, _>>()?;
            Ok(wanted.iter().filter_map(|id| chunks.remove(id)).collect())
        })
        .await
    }

    async fn count(&self, tenant: &Tenant, collection: &Collection, filter: &Filter) -> Result<usize, Error> {
        let request = CountRequest { filter: Some(payload::filter(tenant, filter)?), exact: true };
        self.read(collection, move |shard| shard.count(request).map_err(engine_failed(shard.path()))).await
    }

    async fn set_alias(&self, alias: &Collection, target: &Collection) -> Result<(), Error> {
        // Opened first: an alias never stands for what cannot be read.
        self.collection(target, None).await?;
        let (root, name, to) = (self.root.clone(), alias.clone(), target.clone());
        blocking(move || aliases::write(&root, &name, &to)).await?;
        self.aliases.lock().unwrap_or_else(PoisonError::into_inner).insert(alias.clone(), target.clone());
        Ok(())
    }

    async fn resolve(&self, alias: &Collection) -> Result<Option<Collection>, Error> {
        Ok(self.aliases.lock().unwrap_or_else(PoisonError::into_inner).get(alias).cloned())
    }

    async fn collections(&self) -> Result<Vec<Collection>, Error> {
        let root = self.root.clone();
        blocking(move || aliases::collections(&root)).await
    }

    async fn settle(&self, collection: &Collection) -> Result<(), Error> {
        self.write(collection, |shard| {
            let info = shard.info();
            // `indexed_vectors_count` counts the sparse vectors too; both kinds of an optimized point are indexed.
            if info.points_count.saturating_sub(info.indexed_vectors_count / 2) >= UNINDEXED_POINTS {
                shard.optimize().map_err(engine_failed(shard.path()))?;
            }
            Ok(())
        })
        .await
    }

    async fn ready(&self) -> Result<(), Error> {
        std::fs::metadata(&self.root)
            .map(|_| ())
            .map_err(|error| Error::Unavailable { place: self.root.display().to_string(), reason: error.to_string() })
    }
}
