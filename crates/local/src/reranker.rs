//! A cross-encoder in the process: question and snippet are read together (Nogueira and Cho, "Passage Re-ranking with BERT", 2019).

use crate::bert::{Bert, tokenizer};
use async_trait::async_trait;
use groundtone_provider::{Error, Reranker};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokenizers::Tokenizer;
use tokio::sync::Semaphore;

/// Pairs that run through the model together.
const BATCH: usize = 8;

/// How a cross-encoder runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RerankerSettings {
    /// What the model is called.
    pub model_id: String,
    /// Tokens of question and text together; a longer pair is cut.
    pub max_tokens: usize,
    /// Threads that compute.
    pub threads: usize,
    /// Longest wait for all scores of a question.
    pub timeout: Duration,
}

/// A cross-encoder of the BERT family as ONNX, run by rten: `model.onnx` with one logit (or two, of which the second one says yes) and `tokenizer.json`, as transformers and optimum export them.
pub struct LocalReranker {
    settings: RerankerSettings,
    engine: Arc<Engine>,
    /// One batch at a time; questions that wait take turns.
    turn: Arc<Semaphore>,
}

struct Engine {
    network: Bert,
    tokenizer: Tokenizer,
}

impl LocalReranker {
    /// Loads `model.onnx` and `tokenizer.json` of a folder. Blocks while it loads.
    ///
    /// # Errors
    /// Files that are missing, or that are no cross-encoder.
    pub fn load(folder: &Path, settings: RerankerSettings) -> Result<Self, Error> {
        let failed = |reason: String| Error::Model { model: settings.model_id.clone(), reason };
        let engine = Engine {
            network: Bert::load(&folder.join("model.onnx"), "logits", settings.threads).map_err(failed)?,
            tokenizer: tokenizer(&folder.join("tokenizer.json"), settings.max_tokens).map_err(failed)?,
        };
        engine.score("probe", &["probe".to_owned()]).map_err(failed)?;
        Ok(Self { settings, engine: Arc::new(engine), turn: Arc::new(Semaphore::new(1)) })
    }
}

impl Engine {
    /// The probability that each text answers the question. An error is a sentence.
    fn score(&self, question: &str, texts: &[String]) -> Result<Vec<f32>, String> {
        let encode = |text: &String| self.tokenizer.encode_fast((question, text.as_str()), true).map_err(|error| error.to_string());
        let output = self.network.run(&texts.iter().map(encode).collect::<Result<Vec<_>, _>>()?)?;
        let sigmoid = |logit: f32| 1.0 / (1.0 + (-logit).exp());
        match output.shape[..] {
            [rows, 1] if rows == texts.len() => Ok(output.values.into_iter().map(sigmoid).collect()),
            // Of two logits the softmax is the sigmoid of their difference.
            [rows, 2] if rows == texts.len() => Ok(output.values.chunks_exact(2).map(|pair| sigmoid(pair[1] - pair[0])).collect()),
            ref shape => Err(format!("its output is {shape:?} for {} texts; one or two logits for each were expected", texts.len())),
        }
    }
}

#[async_trait]
impl Reranker for LocalReranker {
    fn id(&self) -> &str {
        &self.settings.model_id
    }

    async fn rerank(&self, question: &str, texts: &[String]) -> Result<Vec<f32>, Error> {
        let failed = |reason: String| Error::Model { model: self.settings.model_id.clone(), reason };
        let limit = self.settings.timeout;
        let began = Instant::now();
        // Texts of like length together: padding is computed too.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&at| texts[at].len());
        let mut scores = vec![0.0; texts.len()];
        for batch in order.chunks(BATCH) {
            let late = || failed(format!("{} texts were not read within {} s", texts.len(), limit.as_secs_f32()));
            let left = limit.checked_sub(began.elapsed()).ok_or_else(late)?;
            let turn = tokio::time::timeout(left, self.turn.clone().acquire_owned()).await.map_err(|_| late())?;
            let turn = turn.map_err(|error| failed(error.to_string()))?;
            let (engine, asked) = (self.engine.clone(), question.to_owned());
            let inputs: Vec<String> = batch.iter().map(|&at| texts[at].clone()).collect();
            let work = move || {
                let _turn = turn;
                engine.score(&asked, &inputs)
            };
            let done = tokio::task::spawn_blocking(work).await.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
            batch.iter().zip(done).for_each(|(&at, score)| scores[at] = score);
        }
        Ok(scores)
    }
}
