//! The vector index as a trait: points in, ranked hits out.
//!
//! One [`Collection`] holds, for every chunk, a dense vector named `dense`, a sparse BM25 vector named `bm25` whose IDF the index keeps,
//! and the chunk itself as payload. Every call names its [`Tenant`]. This crate never embeds a dense vector and never knows which engine is behind the trait.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod conformance;
mod error;
mod filter;
mod memory;

pub use error::Error;
pub use filter::{Condition, Filter, FilterError, Range, Test, date_of};
pub use memory::{MemoryIndex, WordHashSparse};

use async_trait::async_trait;
use groundtone_types::{Chunk, Collection, Snippet, Tenant};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Name of the dense vector.
pub const DENSE: &str = "dense";
/// Name of the sparse vector.
pub const BM25: &str = "bm25";

/// A sparse vector: `indices` ascending and distinct, as many `values`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SparseVector {
    /// Hashed terms.
    pub indices: Vec<u32>,
    /// Their weights.
    pub values: Vec<f32>,
}

/// Makes BM25's sparse vectors. Documents and questions must come from the same one, and every engine is given the same.
pub trait SparseEmbedder: Send + Sync {
    /// Name and settings; part of a collection's fingerprint.
    fn id(&self) -> String;
    /// Term weights of a chunk (term frequency saturated by k1, length normalised by b), without IDF.
    fn document(&self, text: &str) -> SparseVector;
    /// Terms of a question.
    fn query(&self, text: &str) -> SparseVector;
}

/// How a collection's points look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionSpec {
    /// Its name.
    pub name: Collection,
    /// Length of the dense vectors; cosine distance.
    pub dimensions: usize,
}

/// One chunk with its vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// [`Chunk::point_id`].
    pub id: Uuid,
    /// Dense vector, as long as the collection says.
    pub dense: Vec<f32>,
    /// BM25 vector.
    pub sparse: SparseVector,
    /// What is stored beside them.
    pub chunk: Chunk,
}

/// By what a search ranks. Two rankings are fused by `retrieval`, which needs the scores of both.
#[derive(Debug, Clone, PartialEq)]
pub enum Search {
    /// Nearest dense vectors by cosine.
    Dense(Vec<f32>),
    /// Highest BM25 score.
    Sparse(SparseVector),
}

/// What to search for.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// By what.
    pub search: Search,
    /// Among what.
    pub filter: Filter,
    /// Most hits to return.
    pub limit: usize,
}

/// Some of the ids that a filter admits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdPage {
    /// Ids as they were given to `upsert`.
    pub ids: Vec<Uuid>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<Uuid>,
}

/// The id under which an engine keeps a tenant's point. Two tenants may hold the same document, and so the same point id; derived this way they cannot
/// overwrite or delete each other's.
pub fn stored_id(tenant: &Tenant, id: Uuid) -> Uuid {
    Uuid::new_v5(&id, tenant.as_str().as_bytes())
}

/// Names of the payload's fields.
pub mod field {
    /// The tenant; a keyword index.
    pub const TENANT: &str = "tenant";
    /// The document's id; a keyword index.
    pub const DOCUMENT: &str = "document";
    /// The point's id as it was given.
    pub const POINT: &str = "point";
    /// The chunk as JSON.
    pub const CHUNK: &str = "chunk";
    /// The document's metadata within the chunk: `chunk.metadata.lang` is the path of one key.
    pub const METADATA: &str = "chunk.metadata";
}

/// Puts hits in the promised order: best first, equal scores by id.
pub fn sort_hits(hits: &mut [Snippet]) {
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
}

/// The store of chunks and their vectors.
///
/// `upsert` and `delete` return when every later call sees the change. What was acknowledged survives the death of the process.
#[async_trait]
pub trait VectorIndex: Send + Sync {
    /// Makes the collection, or checks that the one that is there fits; [`Error::DimensionMismatch`] where it does not.
    async fn ensure(&self, spec: &CollectionSpec) -> Result<(), Error>;
    /// Removes a collection and all its points; fine when there is none.
    async fn remove(&self, name: &Collection) -> Result<(), Error>;
    /// Stores points by id, replacing what had the same id.
    async fn upsert(&self, tenant: &Tenant, collection: &Collection, points: Vec<Point>) -> Result<(), Error>;
    /// Removes points by id; ids of other tenants and unknown ids are left alone.
    async fn delete(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<(), Error>;
    /// The best hits, best first; hits of equal score in the order of ids.
    async fn query(&self, tenant: &Tenant, collection: &Collection, query: Query) -> Result<Vec<Snippet>, Error>;
    /// Ids of the stored points that the filter admits, a page of at most `limit` at a time, in the engine's own order; `from` is the last page's `next`.
    async fn ids(
        &self,
        tenant: &Tenant,
        collection: &Collection,
        filter: &Filter,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<IdPage, Error>;
    /// Which of these ids are not stored, in their order.
    async fn missing(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Uuid>, Error>;
    /// The dense vectors of these ids, in their order; `None` where an id is not stored. Only their direction counts: an engine may have scaled them.
    async fn vectors(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Option<Vec<f32>>>, Error>;
    /// The stored chunks of these ids, in their order; ids that are not stored are left out.
    async fn chunks(&self, tenant: &Tenant, collection: &Collection, ids: &[Uuid]) -> Result<Vec<Chunk>, Error>;
    /// How many points the filter admits, exactly.
    async fn count(&self, tenant: &Tenant, collection: &Collection, filter: &Filter) -> Result<usize, Error>;
    /// Lets `alias` stand for `target` from now on, in every call. A call sees the old target or the new one, never a mixture.
    async fn set_alias(&self, alias: &Collection, target: &Collection) -> Result<(), Error>;
    /// What an alias stands for; `None` where there is no such alias.
    async fn resolve(&self, alias: &Collection) -> Result<Option<Collection>, Error>;
    /// Every collection that is stored, aliases not among them.
    async fn collections(&self) -> Result<Vec<Collection>, Error>;
    /// Makes everything durable and searchable at full speed; called after each group of an ingest.
    async fn settle(&self, collection: &Collection) -> Result<(), Error>;
    /// Whether the index can answer now; the error says why not.
    async fn ready(&self) -> Result<(), Error>;
}
