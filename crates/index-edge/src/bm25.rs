use ahash::AHashMap;
use groundtone_index::{Error, SparseEmbedder, SparseVector};
use qdrant_edge::bm25_embed::{EdgeBm25, EdgeBm25Config};
use qdrant_edge::external::ordered_float::NotNan;
use std::sync::{Mutex, PoisonError};

/// BM25's saturation of term frequency and normalization by length.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// Longest word whose term is remembered, in bytes: its length and its bytes are one number, compared in one step.
const WORD_BYTES: usize = 15;
/// Most words that one map remembers; then it begins anew. About 2 MB.
const MAP_WORDS: usize = 1 << 16;

/// For each word the term that it is stemmed to; `None` for a stop word.
type Terms = AHashMap<u128, Option<u32>>;

/// BM25's term weights (k1 1.2, b 0.75; Robertson and Zaragoza, 2009), bit-identical to the ones a Qdrant server makes as `Qdrant/bm25`. IDF is the index's part.
///
/// Stemming is most of the work, and a corpus has few different words: the terms of words are remembered. A thread takes a map for as long as it needs it.
pub struct Bm25 {
    model: EdgeBm25,
    average_length: f64,
    terms: Mutex<Vec<Terms>>,
    /// Without length normalisation: what it weighs says how often a term is there.
    counter: EdgeBm25,
    id: String,
}

impl Bm25 {
    /// `language` decides stemming and stop words (`english`, `german`, ...; `none` for neither); `average_length` is the mean number of words of a chunk.
    pub fn new(language: &str, average_length: f64) -> Result<Self, Error> {
        let failed = |reason: String| Error::Failed { place: format!("BM25 for `{language}`"), reason };
        let constant = |value: f64| NotNan::new(value).map_err(|error| failed(error.to_string()));
        let avg_len = NotNan::new(average_length).map_err(|error| failed(error.to_string()))?;
        let config =
            EdgeBm25Config { language: Some(language.to_owned()), avg_len, k: constant(K1)?, b: constant(B)?, ..EdgeBm25Config::default() };
        let counter = EdgeBm25Config { b: NotNan::default(), ..config.clone() };
        let counter = EdgeBm25::new(counter).map_err(|error| failed(error.to_string()))?;
        let model = EdgeBm25::new(config).map_err(|error| failed(error.to_string()))?;
        let id = format!("bm25({language}, k1=1.2, b=0.75, avgdl={average_length})");
        Ok(Self { model, average_length, terms: Mutex::default(), counter, id })
    }

    /// Terms of a text as BM25 counts them, stop words left out: their mean over a collection is the right `average_length`.
    ///
    /// Without length normalisation a term that is there f times weighs w = f (k1 + 1) / (f + k1); solved for f and added up.
    pub fn length(&self, text: &str) -> usize {
        let weights = self.counter.embed_document(text).values;
        let count = |weight: f32| (f64::from(weight) * K1 / (K1 + 1.0 - f64::from(weight))).round().max(1.0);
        weights.into_iter().map(|weight| count(weight) as usize).sum()
    }
}

fn convert(vector: qdrant_edge::SparseVector) -> SparseVector {
    let mut pairs: Vec<(u32, f32)> = vector.indices.into_iter().zip(vector.values).collect();
    pairs.sort_unstable_by_key(|(index, _)| *index);
    let (indices, values) = pairs.into_iter().unzip();
    SparseVector { indices, values }
}

/// A short word as a number.
fn key(word: &[u8]) -> Option<u128> {
    let mut bytes = [0; WORD_BYTES + 1];
    bytes.get_mut(1..=word.len())?.copy_from_slice(word);
    bytes[0] = word.len() as u8;
    Some(u128::from_le_bytes(bytes))
}

impl Bm25 {
    fn term(&self, known: &mut Terms, word: &str) -> Option<u32> {
        let compute = || self.model.embed_document(word).indices.first().copied();
        let Some(key) = key(word.as_bytes()) else { return compute() };
        if let Some(term) = known.get(&key) {
            return *term;
        }
        let term = compute();
        if known.len() >= MAP_WORDS {
            known.clear();
        }
        known.insert(key, term);
        term
    }
}

impl SparseEmbedder for Bm25 {
    fn id(&self) -> String {
        self.id.clone()
    }

    /// The same as [`EdgeBm25::embed_document`], which stems every word anew (a property test compares them).
    fn document(&self, text: &str) -> SparseVector {
        let mut known = self.terms.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let mut terms: Vec<u32> = words.filter_map(|word| self.term(&mut known, word)).collect();
        self.terms.lock().unwrap_or_else(PoisonError::into_inner).push(known);
        terms.sort_unstable();
        let length = terms.len() as f64;
        let (mut indices, mut values) = (Vec::new(), Vec::new());
        for equal in terms.chunk_by(|a, b| a == b) {
            let count = equal.len() as f64;
            indices.extend(equal.first());
            values.push((count * (K1 + 1.0) / K1.mul_add(1.0 - B + B * length / self.average_length, count)) as f32);
        }
        SparseVector { indices, values }
    }

    fn query(&self, text: &str) -> SparseVector {
        convert(self.model.embed_query(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn remembered_terms_weigh_what_edges_do(texts in proptest::collection::vec(prop_oneof![
            "([a-zA-Z]{1,7}(ing|ed|s|ly|'s|)[ .,\\n-]){0,20}",
            "((The|running|runs|İstanbul|straße|Œuvre|検索|naïve|42)[ /]){0,12}",
            any::<String>(),
        ], 1..4)) {
            for language in ["english", "german", "none"] {
                let Ok(ours) = Bm25::new(language, 60.0) else { continue };
                for text in &texts {
                    prop_assert_eq!(ours.document(text), convert(ours.model.embed_document(text)), "{} {:?}", language, text);
                }
            }
        }
    }
}
