//! A data set's documents in an index, each as one chunk: made once, gone on with where it was cut off.

use crate::Error;
use crate::beir::{Dataset, Document};
use async_trait::async_trait;
use futures::StreamExt;
use groundtone_catalog::{EmbeddingCache, EmbeddingKey};
use groundtone_index::{CollectionSpec, Filter, Point, SparseEmbedder, VectorIndex};
use groundtone_prompt::CountTokens;
use groundtone_provider::{Batcher, CallLimits, EmbedFor, Embedder, Error as ProviderError};
use groundtone_types::{Chunk, Collection, DocumentId, Span, Tenant};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// Documents that are stored together; so many are lost when a run is cut off, but not their vectors.
const GROUP: usize = 256;
/// The metadata key that says in which half of the corpus a document is.
const HALF: &str = "half";

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CorpusProgress {
    /// Documents stored, or texts embedded.
    pub done: usize,
    /// Of so many.
    pub total: usize,
}

/// The embedder, remembering the questions: each arm asks with the same vector, computed once.
pub struct Remembered {
    inner: Arc<dyn Embedder>,
    known: HashMap<String, Vec<f32>>,
}

#[async_trait]
impl Embedder for Remembered {
    fn id(&self) -> &str {
        self.inner.id()
    }
    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }
    fn max_tokens(&self) -> usize {
        self.inner.max_tokens()
    }
    fn tokens(&self) -> Arc<dyn CountTokens> {
        self.inner.tokens()
    }
    fn limits(&self) -> CallLimits {
        self.inner.limits()
    }
    async fn embed(&self, texts: &[String], purpose: EmbedFor) -> Result<Vec<Vec<f32>>, ProviderError> {
        let known: Option<Vec<Vec<f32>>> = texts.iter().map(|text| self.known.get(text).cloned()).collect();
        match known {
            Some(vectors) if purpose == EmbedFor::Query => Ok(vectors),
            _ => self.inner.embed(texts, purpose).await,
        }
    }
}

/// A data set's documents, searchable.
pub struct Corpus {
    /// Where they are.
    pub index: Arc<dyn VectorIndex>,
    /// Under which name.
    pub collection: Collection,
    /// And whose they are.
    pub tenant: Tenant,
    batcher: Batcher,
    sparse: Arc<dyn SparseEmbedder>,
    cache: EmbeddingCache,
}

/// 0 or 1, by the hash of a document's id.
fn half(id: &str) -> u8 {
    Sha256::digest(id.as_bytes())[0] & 1
}

fn chunk(document: &Document) -> Result<Chunk, String> {
    Ok(Chunk {
        document: DocumentId::new(&document.id).map_err(|error| error.to_string())?,
        ordinal: 0,
        span: Span { start: 0, end: document.text.len() },
        heading_path: Vec::new(),
        title: document.title.clone(),
        url: String::new(),
        text: document.text.clone(),
        page: None,
        parent: None,
        metadata: serde_json::from_value(serde_json::json!({HALF: half(&document.id)})).map_err(|error| error.to_string())?,
    })
}

impl Corpus {
    /// Uses `index` for a data set. Another BM25 is another collection; vectors are shared through the `cache`.
    pub fn new(
        index: Arc<dyn VectorIndex>,
        batcher: Batcher,
        sparse: Arc<dyn SparseEmbedder>,
        cache: EmbeddingCache,
        dataset: &Dataset,
    ) -> Result<Self, Error> {
        let identity = format!("{} {} {}", dataset.corpus_digest, batcher.embedder().id(), sparse.id());
        let name = format!("eval-{}", &hex::encode(Sha256::digest(identity.as_bytes()))[..16]);
        let collection = Collection::new(name).map_err(|error| Error::Empty { path: dataset.folder.clone(), reason: error.to_string() })?;
        Ok(Self { index, collection, tenant: Tenant::default(), batcher, sparse, cache })
    }

    /// Only the documents of one half of the corpus, 0 or 1.
    pub fn half(half: u8) -> Result<Filter, Error> {
        let filter = serde_json::json!({HALF: half});
        let filter = filter.as_object().map(Filter::of_metadata).transpose();
        filter.map(Option::unwrap_or_default).map_err(|error| Error::Empty { path: "filter".into(), reason: error.to_string() })
    }

    /// In which half a document is.
    pub fn half_of(id: &str) -> u8 {
        half(id)
    }

    /// Embeds and stores what is not stored yet.
    pub async fn fill(&self, dataset: &Dataset, progress: &(dyn Fn(CorpusProgress) + Send + Sync)) -> Result<(), Error> {
        let spec = CollectionSpec { name: self.collection.clone(), dimensions: self.batcher.embedder().dimensions() };
        self.index.ensure(&spec).await?;
        let total = dataset.documents.len();
        let mut done = 0;
        for (group, documents) in dataset.documents.chunks(GROUP).enumerate() {
            let refused =
                |at: usize, reason: String| Error::Line { path: dataset.folder.join("corpus.jsonl"), line: group * GROUP + at + 1, reason };
            let chunks = documents.iter().enumerate().map(|(at, document)| chunk(document).map_err(|reason| refused(at, reason)));
            let chunks: Vec<Chunk> = chunks.collect::<Result<_, _>>()?;
            let ids: Vec<Uuid> = chunks.iter().map(Chunk::point_id).collect();
            let missing: HashSet<Uuid> = self.index.missing(&self.tenant, &self.collection, &ids).await?.into_iter().collect();
            let wanted: Vec<usize> = (0..ids.len()).filter(|at| missing.contains(&ids[*at])).collect();
            let texts: Vec<String> = wanted.iter().map(|at| documents[*at].embedded()).collect();
            let report = |embedded: usize| progress(CorpusProgress { done: done + documents.len() - texts.len() + embedded, total });
            let vectors = self.vectors(&texts, &report).await?;
            let points = wanted.iter().zip(&texts).zip(vectors).map(|((at, text), dense)| Point {
                id: ids[*at],
                dense,
                sparse: self.sparse.document(text),
                chunk: chunks[*at].clone(),
            });
            self.index.upsert(&self.tenant, &self.collection, points.collect()).await?;
            done += documents.len();
            progress(CorpusProgress { done, total });
        }
        Ok(self.index.settle(&self.collection).await?)
    }

    /// The embedder with the vectors of all questions.
    pub async fn questions(&self, texts: &[String]) -> Result<Remembered, Error> {
        let vectors = self.vectors(texts, &|_| {}).await?;
        Ok(Remembered { inner: self.batcher.embedder().clone(), known: texts.iter().cloned().zip(vectors).collect() })
    }

    /// Vectors of texts, from the cache where they are known. `done` is told how many texts have theirs.
    async fn vectors(&self, texts: &[String], done: &(dyn Fn(usize) + Send + Sync)) -> Result<Vec<Vec<f32>>, Error> {
        let embedder = self.batcher.embedder();
        let keys: Vec<EmbeddingKey> = texts.iter().map(|text| EmbeddingKey::of(embedder.id(), text)).collect();
        let mut known = self.cache.get(&keys).await?;
        let unknown: Vec<usize> = (0..texts.len()).filter(|at| !known.contains_key(&keys[*at])).collect();
        let wanted: Vec<String> = unknown.iter().map(|at| texts[*at].clone()).collect();
        let sizes: Vec<usize> = wanted.iter().map(String::len).collect();
        let mut batches = self.batcher.documents(&wanted, &sizes);
        let mut finished = texts.len() - wanted.len();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let vectors = batch.result?;
            let entries: Vec<(EmbeddingKey, &[f32])> =
                batch.positions.iter().zip(&vectors).map(|(at, vector)| (keys[unknown[*at]], vector.as_slice())).collect();
            self.cache.put(&entries).await?;
            finished += entries.len();
            known.extend(entries.into_iter().map(|(key, vector)| (key, vector.to_vec())));
            done(finished);
        }
        let missing = || Error::Embed(ProviderError::Model { model: embedder.id().to_owned(), reason: "a text got no vector".to_owned() });
        keys.iter().map(|key| known.get(key).cloned().ok_or_else(missing)).collect()
    }
}
