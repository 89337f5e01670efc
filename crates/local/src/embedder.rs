use crate::bert::{self, Bert};
use async_trait::async_trait;
use groundtone_prompt::CountTokens;
use groundtone_provider::{CallLimits, EmbedFor, Embedder, Error, embed_span};
use std::path::Path;
use std::sync::Arc;
use tokenizers::Tokenizer;
use tokio::sync::Semaphore;
use tracing::Instrument;

/// Texts that run through the model together.
const BATCH: usize = 16;
/// What sentence-transformers cuts this model's texts to.
const MAX_TOKENS: usize = 256;

/// A sentence-transformer of the BERT family as ONNX, run by rten: mean pooling over the tokens, scaled to length 1.
pub struct LocalEmbedder {
    id: String,
    engine: Arc<Engine>,
    /// One batch at a time; waiting batches take turns, so a question waits for one batch of an ingest, not for the ingest.
    turn: Arc<Semaphore>,
    tokens: Arc<WordPieces>,
    dimensions: usize,
}

struct Engine {
    network: Bert,
    tokenizer: Tokenizer,
}

/// The embedder's tokenizer without truncation.
struct WordPieces {
    id: String,
    tokenizer: Tokenizer,
}

impl LocalEmbedder {
    /// Loads the model and its tokenizer; `id` is its name. It uses `threads` threads.
    pub fn load(id: &str, model: &Path, tokenizer: &Path, threads: usize) -> Result<Self, Error> {
        let failed = |reason: String| Error::Model { model: id.to_owned(), reason };
        let cut = bert::tokenizer(tokenizer, MAX_TOKENS).map_err(failed)?;
        let mut whole = cut.clone();
        whole.with_truncation(None).map_err(|error| failed(error.to_string()))?;
        let engine = Engine { network: Bert::load(model, "last_hidden_state", threads).map_err(failed)?, tokenizer: cut };
        let probe = engine.embed(id, &["probe".to_owned()])?;
        let dimensions = probe.first().map_or(0, Vec::len);
        let tokens = Arc::new(WordPieces { id: format!("wordpiece:{id}"), tokenizer: whole });
        Ok(Self { id: id.to_owned(), engine: Arc::new(engine), turn: Arc::new(Semaphore::new(1)), tokens, dimensions })
    }
}

impl Engine {
    fn embed(&self, id: &str, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        let failed = |reason: String| Error::Model { model: id.to_owned(), reason };
        let encodings = texts
            .iter()
            .map(|text| self.tokenizer.encode_fast(text.as_str(), true))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed(error.to_string()))?;
        let output = self.network.run(&encodings).map_err(failed)?;
        let [_, columns, width] = output.shape[..] else {
            return Err(failed(format!("its output is {:?}, not one vector for each token", output.shape)));
        };
        let hidden = output.values;
        Ok(encodings
            .iter()
            .enumerate()
            .map(|(row, encoding)| pool(&hidden[row * columns * width..], encoding.get_ids().len(), width))
            .collect())
    }
}

/// The mean over the tokens, scaled to length 1.
fn pool(hidden: &[f32], tokens: usize, width: usize) -> Vec<f32> {
    let mut vector = vec![0f32; width];
    for token in hidden.chunks_exact(width).take(tokens) {
        vector.iter_mut().zip(token).for_each(|(sum, value)| *sum += value);
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

#[async_trait]
impl Embedder for LocalEmbedder {
    fn id(&self) -> &str {
        &self.id
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn max_tokens(&self) -> usize {
        MAX_TOKENS
    }

    fn tokens(&self) -> Arc<dyn CountTokens> {
        self.tokens.clone()
    }

    /// Sixty-four texts a call, so that little is lost when a run is cut off; two calls, so that the next one is tokenized while one computes.
    fn limits(&self) -> CallLimits {
        CallLimits { texts: 4 * BATCH, tokens: usize::MAX, parallel: 2 }
    }

    async fn embed(&self, texts: &[String], _purpose: EmbedFor) -> Result<Vec<Vec<f32>>, Error> {
        let span = embed_span(self, texts.len());
        let vectors = self.embed_all(texts).instrument(span.clone()).await;
        vectors.inspect_err(|error| {
            span.record("error", error.kind().as_str());
        })
    }
}

impl LocalEmbedder {
    async fn embed_all(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        // Texts of like length together: padding is computed too. Bytes stand for tokens well enough.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&at| texts[at].len());
        let mut vectors = vec![Vec::new(); texts.len()];
        for batch in order.chunks(BATCH) {
            let inputs: Vec<String> = batch.iter().map(|&at| texts[at].clone()).collect();
            let failed = |reason: String| Error::Model { model: self.id.clone(), reason };
            let turn = self.turn.clone().acquire_owned().await.map_err(|error| failed(error.to_string()))?;
            let (engine, id) = (self.engine.clone(), self.id.clone());
            let work = move || {
                let _turn = turn;
                engine.embed(&id, &inputs)
            };
            let done = tokio::task::spawn_blocking(work).await.map_err(|error| failed(error.to_string()))??;
            for (&at, vector) in batch.iter().zip(done) {
                vectors[at] = vector;
            }
        }
        Ok(vectors)
    }
}

impl CountTokens for WordPieces {
    fn id(&self) -> &str {
        &self.id
    }

    fn token_starts(&self, text: &str) -> Vec<u32> {
        match self.tokenizer.encode(text, false) {
            Ok(encoding) => encoding.get_offsets().iter().map(|(start, _)| *start as u32).collect(),
            // The tokenizer has an unknown token and no post-processor that could fail; should it, each byte counts, which only makes chunks smaller.
            Err(_) => (0..text.len() as u32).collect(),
        }
    }
}
