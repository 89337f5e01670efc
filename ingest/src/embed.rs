//! Texts to vectors: out of the cache where they are known, from the embedder in batches where not, and each batch remembered as soon as it is there.

use crate::Error;
use futures::StreamExt;
use groundtone_catalog::{EmbeddingCache, EmbeddingKey};
use groundtone_provider::Batcher;
use std::collections::HashMap;
use std::sync::Arc;

/// Embeds documents' texts.
pub(crate) struct EmbedStage {
    batcher: Arc<Batcher>,
    cache: Option<Arc<EmbeddingCache>>,
}

/// What became of some texts.
#[derive(Debug, Default)]
pub(crate) struct Embedded {
    /// For each text its vector, or the reason why it can have none.
    pub(crate) vectors: Vec<Result<Vec<f32>, String>>,
    /// Texts that the embedder was asked for.
    pub(crate) embedded: usize,
    /// Their tokens.
    pub(crate) embedded_tokens: usize,
}

/// Texts that are not known yet, each once.
struct Unknown {
    texts: Vec<String>,
    sizes: Vec<usize>,
    keys: Vec<EmbeddingKey>,
}

impl EmbedStage {
    pub(crate) fn new(batcher: Arc<Batcher>, cache: Option<Arc<EmbeddingCache>>) -> Self {
        Self { batcher, cache }
    }

    pub(crate) fn batcher(&self) -> &Batcher {
        &self.batcher
    }

    fn keys(&self, texts: &[String]) -> Vec<EmbeddingKey> {
        let model = self.batcher.embedder().id();
        texts.iter().map(|text| EmbeddingKey::of(model, text)).collect()
    }

    async fn known(&self, keys: &[EmbeddingKey]) -> Result<HashMap<EmbeddingKey, Vec<f32>>, Error> {
        let mut known = match &self.cache {
            Some(cache) => cache.get(keys).await?,
            None => HashMap::new(),
        };
        let dimensions = self.batcher.embedder().dimensions();
        known.retain(|_, vector| vector.len() == dimensions);
        Ok(known)
    }

    /// Tokens that would have to be embedded, and texts: what a run would cost.
    pub(crate) async fn estimate(&self, texts: &[String], sizes: &[usize]) -> Result<(usize, usize), Error> {
        let keys = self.keys(texts);
        let unknown = unknown(texts, sizes, &keys, &self.known(&keys).await?);
        Ok((unknown.texts.len(), unknown.sizes.iter().sum()))
    }

    /// One result for each text, in order. Equal texts are embedded once. `done` is told how many more texts have their vectors.
    pub(crate) async fn embed(&self, texts: &[String], sizes: &[usize], done: &(dyn Fn(usize) + Send + Sync)) -> Result<Embedded, Error> {
        let keys = self.keys(texts);
        let mut known = self.known(&keys).await?;
        let Unknown { texts, sizes, keys: wanted } = unknown(texts, sizes, &keys, &known);
        done(keys.len() - texts.len());
        let mut refused: HashMap<EmbeddingKey, String> = HashMap::new();
        let mut batches = self.batcher.documents(&texts, &sizes);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            done(batch.positions.len());
            let keys = batch.positions.iter().filter_map(|&at| wanted.get(at).copied());
            match batch.result {
                Ok(vectors) => {
                    let entries: Vec<(EmbeddingKey, Vec<f32>)> = keys.zip(vectors).collect();
                    if let Some(cache) = &self.cache {
                        let borrowed: Vec<(EmbeddingKey, &[f32])> = entries.iter().map(|(key, vector)| (*key, vector.as_slice())).collect();
                        cache.put(&borrowed).await?;
                    }
                    known.extend(entries);
                }
                Err(error) => refused.extend(keys.map(|key| (key, format!("holds a text that the embedder refuses: {error}")))),
            }
        }
        let vector = |key: &EmbeddingKey| match known.get(key) {
            Some(vector) => Ok(vector.clone()),
            None => Err(refused.get(key).cloned().unwrap_or_else(|| "got no vector from the embedder".to_owned())),
        };
        Ok(Embedded { vectors: keys.iter().map(vector).collect(), embedded: texts.len(), embedded_tokens: sizes.iter().sum() })
    }
}

fn unknown(texts: &[String], sizes: &[usize], keys: &[EmbeddingKey], known: &HashMap<EmbeddingKey, Vec<f32>>) -> Unknown {
    let mut unknown = Unknown { texts: Vec::new(), sizes: Vec::new(), keys: Vec::new() };
    let mut seen = std::collections::HashSet::new();
    for ((text, size), key) in texts.iter().zip(sizes).zip(keys) {
        if !known.contains_key(key) && seen.insert(*key) {
            unknown.texts.push(text.clone());
            unknown.sizes.push(*size);
            unknown.keys.push(*key);
        }
    }
    unknown
}
