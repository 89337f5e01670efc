use groundtone_index::{Error, SparseEmbedder, SparseVector};
use qdrant_edge::bm25_embed::{EdgeBm25, EdgeBm25Config};
use qdrant_edge::external::ordered_float::NotNan;

/// BM25's term weights (k1 1.2, b 0.75; Robertson and Zaragoza, 2009), bit-identical to the ones a Qdrant server makes as `Qdrant/bm25`. IDF is the index's part.
pub struct Bm25 {
    model: EdgeBm25,
    /// Without length normalisation: what it weighs says how often a term is there.
    counter: EdgeBm25,
    id: String,
}

/// Saturation of the term frequency.
const K1: f64 = 1.2;

impl Bm25 {
    /// `language` decides stemming and stop words (`english`, `german`, ...; `none` for neither); `average_length` is the mean number of words of a chunk.
    pub fn new(language: &str, average_length: f64) -> Result<Self, Error> {
        let failed = |reason: String| Error::Failed { place: format!("BM25 for `{language}`"), reason };
        let avg_len = NotNan::new(average_length).map_err(|error| failed(error.to_string()))?;
        let config = EdgeBm25Config { language: Some(language.to_owned()), avg_len, ..EdgeBm25Config::default() };
        let counter = EdgeBm25Config { b: NotNan::default(), ..config.clone() };
        let counter = EdgeBm25::new(counter).map_err(|error| failed(error.to_string()))?;
        let model = EdgeBm25::new(config).map_err(|error| failed(error.to_string()))?;
        Ok(Self { model, counter, id: format!("bm25({language}, k1=1.2, b=0.75, avgdl={average_length})") })
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

impl SparseEmbedder for Bm25 {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn document(&self, text: &str) -> SparseVector {
        convert(self.model.embed_document(text))
    }

    fn query(&self, text: &str) -> SparseVector {
        convert(self.model.embed_query(text))
    }
}
