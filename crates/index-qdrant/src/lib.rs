//! A Qdrant server or cluster over gRPC.
//!
//! The same named vectors, payload and stored ids as the embedded index, so a collection looks the same on both. Every call has a time limit of our own and is retried a
//! few times when the server cannot be reached: points are stored by id, so a write that was already done is done again. This is the only crate that knows `qdrant-client`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod convert;

use async_trait::async_trait;
use convert::{chunk, dense, filter, given_id, point_id, point_struct, query_points, snippet, uuid_of};
use groundtone_index::{
    BM25, CollectionSpec, DENSE, Error, Filter, IdPage, Point, Query, Search, VectorIndex, field, sort_hits, stored_id,
};
use groundtone_types::{Chunk, Collection, Snippet, Tenant};
use qdrant_client::qdrant::{
    CountPointsBuilder, CreateAliasBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, DeletePointsBuilder, Distance,
    FieldType, GetPointsBuilder, KeywordIndexParamsBuilder, Modifier, PointId, PointsIdsList, ScrollPointsBuilder,
    SparseVectorParamsBuilder, SparseVectorsConfigBuilder, UpsertPointsBuilder, VectorParamsBuilder, VectorsConfigBuilder, VectorsSelector,
    vectors_config,
};
use qdrant_client::{Qdrant, QdrantError};
use secrecy::{ExposeSecret, SecretString};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Points in one request: 384 numbers and a chunk of text are about 3 kB each.
const UPSERT_BATCH: usize = 256;
/// Ids in one look-up.
const GET_BATCH: usize = 1000;
/// How often a call is tried when the server cannot be reached.
const ATTEMPTS: u32 = 3;
/// Pause before the second try; doubled before each further one.
const BACK_OFF: Duration = Duration::from_millis(200);

/// How the server is called.
#[derive(Debug, Clone, Copy)]
pub struct QdrantSettings {
    /// Longest wait for one try of a call.
    pub timeout: Duration,
}

/// A Qdrant server.
pub struct QdrantIndex {
    client: Qdrant,
    url: String,
    settings: QdrantSettings,
    dimensions: Mutex<HashMap<Collection, usize>>,
}

impl QdrantIndex {
    /// Connects to `url` (`http://host:6334`) and checks that the server answers and takes the key.
    pub async fn connect(url: &str, api_key: Option<SecretString>, settings: QdrantSettings) -> Result<Self, Error> {
        let unavailable = |error: QdrantError| Error::Unavailable { place: url.to_owned(), reason: error.to_string() };
        let mut builder = Qdrant::from_url(url).timeout(settings.timeout).connect_timeout(settings.timeout).skip_compatibility_check();
        if let Some(key) = api_key {
            builder = builder.api_key(key.expose_secret());
        }
        let client = builder.build().map_err(unavailable)?;
        let index = Self { client, url: url.to_owned(), settings, dimensions: Mutex::default() };
        index.ready().await?;
        Ok(index)
    }

    /// Runs a call within the time limit, again when the server could not be reached.
    async fn call<T, F: Future<Output = Result<T, QdrantError>>>(
        &self,
        collection: Option<&Collection>,
        call: impl Fn() -> F,
    ) -> Result<T, Error> {
        let mut pause = BACK_OFF;
        for attempt in 1.. {
            let (reason, again) = match tokio::time::timeout(self.settings.timeout, call()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    if let Some(name) = collection.filter(|_| is_missing(&error)) {
                        return Err(Error::NoCollection(name.clone()));
                    }
                    (error.to_string(), is_unreachable(&error))
                }
                Err(_) => (format!("no answer within {} s", self.settings.timeout.as_secs_f32()), true),
            };
            if !again {
                return Err(Error::Failed { place: self.url.clone(), reason });
            }
            if attempt >= ATTEMPTS {
                return Err(Error::Unavailable { place: self.url.clone(), reason });
            }
            tracing::warn!(attempt, reason, "qdrant did not answer");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(Error::Unavailable { place: self.url.clone(), reason: "no try was made".to_owned() })
    }

    /// Length of a collection's dense vectors; remembered, because it never changes.
    async fn dimensions(&self, name: &Collection) -> Result<usize, Error> {
        if let Some(known) = self.dimensions.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(*known);
        }
        let info = self.call(Some(name), || self.client.collection_info(name.as_str())).await?;
        let params = info
            .result
            .and_then(|info| info.config)
            .and_then(|config| config.params)
            .and_then(|params| params.vectors_config)
            .and_then(|vectors| vectors.config);
        let size = match params {
            Some(vectors_config::Config::ParamsMap(map)) => map.map.get(DENSE).map(|vector| vector.size as usize),
            _ => None,
        };
        let size = size.ok_or_else(|| Error::Failed {
            place: self.url.clone(),
            reason: format!("collection `{name}` has no vector named `{DENSE}`"),
        })?;
        self.dimensions.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), size);
        Ok(size)
    }

    async fn check(&self, collection: &Collection, given: usize) -> Result<(), Error> {
        let stored = self.dimensions(collection).await?;
        if stored == given { Ok(()) } else { Err(Error::DimensionMismatch { collection: collection.clone(), stored, given }) }
    }

    async fn create(&self, spec: &CollectionSpec) -> Result<(), Error> {
        let mut dense = VectorsConfigBuilder::default();
        dense.add_named_vector_params(DENSE, VectorParamsBuilder::new(spec.dimensions as u64, Distance::Cosine));
        let mut sparse = SparseVectorsConfigBuilder::default();
        sparse.add_named_vector_params(BM25, SparseVectorParamsBuilder::default().modifier(Modifier::Idf));
        let create = CreateCollectionBuilder::new(spec.name.as_str()).vectors_config(dense).sparse_vectors_config(sparse);
        self.call(None, || self.client.create_collection(create.clone())).await?;
        for (name, is_tenant) in [(field::TENANT, true), (field::DOCUMENT, false)] {
            let params = KeywordIndexParamsBuilder::default().is_tenant(is_tenant);
            let create =
                CreateFieldIndexCollectionBuilder::new(spec.name.as_str(), name, FieldType::Keyword).field_index_params(params).wait(true);
            self.call(Some(&spec.name), || self.client.create_field_index(create.clone())).await?;
        }
        Ok(())
    }
}

fn is_missing(error: &QdrantError) -> bool {
    matches!(error, QdrantError::ResponseError { status } if status.code() == tonic::Code::NotFound)
}

/// Time-outs of the client surface as `Cancelled`; a refused connection as `Internal`, told apart by its words (qdrant-client 1.20, `channel_pool.rs`).
fn is_unreachable(error: &QdrantError) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable};
    match error {
        QdrantError::ResponseError { status } => {
            matches!(status.code(), Cancelled | DeadlineExceeded | ResourceExhausted | Unavailable)
                || status.message().starts_with("Failed to connect")
        }
        QdrantError::Io(_) => true,
        _ => false,
    }
}

#[async_trait]
impl VectorIndex for QdrantIndex {
    async fn ensure(&self, spec: &CollectionSpec) -> Result<(), Error> {
        if !self.call(None, || self.client.collection_exists(spec.name.as_str())).await? {
            self.create(spec).await?;
        }
        self.check(&spec.name, spec.dimensions).await
    }

    async fn remove(&self, name: &Collection) -> Result<(), Error> {
        self.dimensions.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if self.call(None, || self.client.collection_exists(name.as_str())).await? {
            self.call(None, || self.client.delete_collection(name.as_str())).await?;
        }
        Ok(())
    }

    async fn upsert(&self, tenant: &Tenant, collection: &Collection, points: Vec<Point>) -> Result<(), Error> {
        let stored = self.dimensions(collection).await?;
        if let Some(wrong) = points.iter().find(|point| point.dense.len() != stored) {
            return Err(Error::DimensionMismatch { collection: collection.clone(), stored, given: wrong.dense.len() });
        }
        let mut points = points.into_iter().peekable();
        while points.peek().is_some() {
            let batch =
                points.by_ref().take(UPSERT_BATCH).map(|point| point_struct(&self.url, tenant, point)).collect::<Result<Vec<_>, _>>()?;
            let request = UpsertPointsBuilder::new(collection.as_str(), batch).wait(true);
            self.call(Some(collection), || self.client.upsert_points(request.clone())).await?;
        }
        Ok(())
    }

    async fn delete(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<(), Error> {
        let ids = ids.iter().map(|id| point_id(stored_id(tenant, *id))).collect();
        let request = DeletePointsBuilder::new(collection.as_str()).points(PointsIdsList { ids }).wait(true);
        self.call(Some(collection), || self.client.delete_points(request.clone())).await?;
        Ok(())
    }

    async fn query(&self, tenant: &Tenant, collection: &Collection, query: Query) -> Result<Vec<Snippet>, Error> {
        match &query.search {
            Search::Dense(vector) => self.check(collection, vector.len()).await?,
            Search::Sparse(vector) if vector.indices.is_empty() => return Ok(Vec::new()),
            Search::Sparse(_) => {}
        }
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        let request = query_points(collection, tenant, query);
        let found = self.call(Some(collection), || self.client.query(request.clone())).await?;
        let mut hits = found.result.into_iter().map(|point| snippet(&self.url, point)).collect::<Result<Vec<_>, _>>()?;
        sort_hits(&mut hits);
        Ok(hits)
    }

    async fn ids(
        &self,
        tenant: &Tenant,
        collection: &Collection,
        wanted: &Filter,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<IdPage, Error> {
        let limit = u32::try_from(limit.max(1)).unwrap_or(u32::MAX);
        let mut request = ScrollPointsBuilder::new(collection.as_str())
            .filter(filter(tenant, wanted))
            .limit(limit)
            .with_payload(true)
            .with_vectors(false);
        if let Some(from) = from {
            request = request.offset(point_id(from));
        }
        let page = self.call(Some(collection), || self.client.scroll(request.clone())).await?;
        let ids = page.result.iter().map(|point| given_id(&self.url, &point.payload)).collect::<Result<Vec<_>, _>>()?;
        let next = page.next_page_offset.and_then(|id| uuid_of(&id));
        Ok(IdPage { ids, next })
    }

    async fn missing(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let mut found = HashSet::new();
        for part in ids.chunks(GET_BATCH) {
            let wanted: Vec<PointId> = part.iter().map(|id| point_id(stored_id(tenant, *id))).collect();
            let request = GetPointsBuilder::new(collection.as_str(), wanted).with_payload(false).with_vectors(false);
            let answer = self.call(Some(collection), || self.client.get_points(request.clone())).await?;
            found.extend(answer.result.iter().filter_map(|point| uuid_of(point.id.as_ref()?)));
        }
        Ok(ids.iter().copied().filter(|id| !found.contains(&stored_id(tenant, *id))).collect())
    }

    async fn vectors(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let wanted: Vec<PointId> = ids.iter().map(|id| point_id(stored_id(tenant, *id))).collect();
        let only = VectorsSelector { names: vec![DENSE.to_owned()] };
        let request = GetPointsBuilder::new(collection.as_str(), wanted).with_payload(false).with_vectors(only);
        let answer = self.call(Some(collection), || self.client.get_points(request.clone())).await?;
        let found: HashMap<Uuid, Vec<f32>> =
            answer.result.into_iter().filter_map(|point| Some((uuid_of(point.id.as_ref()?)?, dense(point.vectors?)?))).collect();
        Ok(ids.iter().map(|id| found.get(&stored_id(tenant, *id)).cloned()).collect())
    }

    async fn chunks(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Chunk>, Error> {
        let mut found = HashMap::new();
        for part in ids.chunks(GET_BATCH) {
            let wanted: Vec<PointId> = part.iter().map(|id| point_id(stored_id(tenant, *id))).collect();
            let request = GetPointsBuilder::new(collection.as_str(), wanted).with_payload(true).with_vectors(false);
            let answer = self.call(Some(collection), || self.client.get_points(request.clone())).await?;
            for mut point in answer.result {
                let id = given_id(&self.url, &point.payload)?;
                found.insert(id, chunk(&self.url, &mut point.payload)?);
            }
        }
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    async fn count(&self, tenant: &Tenant, collection: &Collection, wanted: &Filter) -> Result<usize, Error> {
        let request = CountPointsBuilder::new(collection.as_str()).filter(filter(tenant, wanted)).exact(true);
        let answer = self.call(Some(collection), || self.client.count(request.clone())).await?;
        Ok(answer.result.map_or(0, |result| result.count as usize))
    }

    /// The server flushes and optimizes by itself.
    async fn set_alias(&self, alias: &Collection, target: &Collection) -> Result<(), Error> {
        // An alias of a collection that is not there would be made, and answer nothing.
        self.dimensions(target).await?;
        let request = CreateAliasBuilder::new(target.as_str(), alias.as_str());
        self.call(Some(target), || self.client.create_alias(request.clone())).await?;
        self.dimensions.lock().unwrap_or_else(PoisonError::into_inner).remove(alias);
        Ok(())
    }

    async fn resolve(&self, alias: &Collection) -> Result<Option<Collection>, Error> {
        let list = self.call(None, || self.client.list_aliases()).await?;
        let found = list.aliases.into_iter().find(|entry| entry.alias_name == alias.as_str());
        let broken = |error: groundtone_types::NameError| Error::Failed { place: self.url.clone(), reason: error.to_string() };
        found.map(|entry| Collection::new(entry.collection_name).map_err(broken)).transpose()
    }

    async fn collections(&self) -> Result<Vec<Collection>, Error> {
        let list = self.call(None, || self.client.list_collections()).await?;
        // Others may share the server; their names need not be ours.
        let mut found: Vec<Collection> = list.collections.into_iter().filter_map(|entry| Collection::new(entry.name).ok()).collect();
        found.sort();
        Ok(found)
    }

    async fn settle(&self, _collection: &Collection) -> Result<(), Error> {
        Ok(())
    }

    /// `list_collections` wants a valid key, which `health_check` does not.
    async fn ready(&self) -> Result<(), Error> {
        self.call(None, || self.client.list_collections()).await.map(|_| ())
    }
}
