//! Whether a source says in other words what a claim says: the embedder is asked where numbers, names and quotations agree and only the wording is in doubt.

use groundtone_prompt::statements;
use groundtone_provider::{EmbedFor, Embedder, Error};
use groundtone_types::{Snippet, cosine};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// Sentences of one source that are compared; a claim that rests on a later one stays in doubt.
const MOST_STATEMENTS: usize = 64;

/// Who compares, and what counts as the same.
#[derive(Clone)]
pub struct Semantics {
    /// Vectors of length 1.
    pub embedder: Arc<dyn Embedder>,
    /// From this cosine on a sentence of the source says what the claim says. Fits one embedder only.
    pub bound: f32,
    /// Longest wait for one comparison; after it the claim stays in doubt.
    pub timeout: Duration,
}

/// The comparisons of one answer. A source's sentences are embedded once, in the same calls whatever is compared with them: what comes out does not depend on the order of the questions.
pub(crate) struct Comparison {
    semantics: Semantics,
    sources: HashMap<usize, Vec<Vec<f32>>>,
}

impl Comparison {
    pub(crate) fn new(semantics: Semantics) -> Self {
        Self { semantics, sources: HashMap::new() }
    }

    /// Whether a sentence of one of these sources (numbers, from 1) says `claim`. Where the embedder fails or is late, none does.
    pub(crate) async fn supports(&mut self, claim: &str, numbers: &[usize], sources: &[Snippet]) -> bool {
        let timeout = self.semantics.timeout;
        match tokio::time::timeout(timeout, self.best(claim, numbers, sources)).await {
            Ok(Ok(best)) => best >= self.semantics.bound,
            Ok(Err(error)) => {
                warn!(%error, "a claim could not be compared with its sources");
                false
            }
            Err(_) => {
                warn!(milliseconds = timeout.as_millis(), "a claim was not compared with its sources in time");
                false
            }
        }
    }

    /// The largest cosine of the claim and a sentence of these sources; -1 where there is none.
    async fn best(&mut self, claim: &str, numbers: &[usize], sources: &[Snippet]) -> Result<f32, Error> {
        let claims = self.embed(&[claim.to_owned()]).await?;
        let mut best = -1.0f32;
        for number in numbers {
            let Some(snippet) = number.checked_sub(1).and_then(|at| sources.get(at)) else { continue };
            if !self.sources.contains_key(number) {
                let mut sentences = statements(snippet.chunk.shown_text());
                sentences.truncate(MOST_STATEMENTS);
                let vectors = self.embed(&sentences).await?;
                self.sources.insert(*number, vectors);
            }
            for (claim, sentence) in claims.iter().flat_map(|claim| self.sources[number].iter().map(move |sentence| (claim, sentence))) {
                best = best.max(cosine(claim, sentence));
            }
        }
        Ok(best)
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        let embedder = &self.semantics.embedder;
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(embedder.limits().texts.max(1)) {
            // Both sides as documents: two statements are compared, not a question and an answer.
            vectors.extend(embedder.embed(batch, EmbedFor::Document).await?);
        }
        Ok(vectors)
    }
}
