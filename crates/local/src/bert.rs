//! A network of the BERT family as ONNX, run by rten: what the embedder and the reranker have in common.

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use std::path::Path;
use std::sync::Arc;
use tokenizers::{Encoding, Tokenizer, TruncationParams};

/// The network, and the threads that it computes with.
pub(crate) struct Bert {
    model: Model,
    ids: NodeId,
    mask: NodeId,
    /// RoBERTa and its like have none.
    types: Option<NodeId>,
    output: NodeId,
    threads: Arc<ThreadPool>,
}

/// What came out: numbers row by row, and the size of each dimension.
pub(crate) struct Output {
    pub(crate) values: Vec<f32>,
    pub(crate) shape: Vec<usize>,
}

impl Bert {
    /// Loads an ONNX file whose inputs are called as transformers exports them, with an output of this name. An error is a sentence.
    pub(crate) fn load(path: &Path, output: &str, threads: usize) -> Result<Self, String> {
        let failed = |reason: String| format!("{}: {reason}", path.display());
        // The loader's own words for a missing file are about external data.
        std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
        // A question is a few rows against all weights: packing these anew for each call took longer than multiplying.
        let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(path).map_err(|error| failed(error.to_string()))?;
        let node = |name: &str| model.find_node(name).ok_or_else(|| failed(format!("it has no `{name}`")));
        let (ids, mask, output) = (node("input_ids")?, node("attention_mask")?, node(output)?);
        let types = model.find_node("token_type_ids").filter(|node| model.input_ids().contains(node));
        Ok(Self { model, ids, mask, types, output, threads: Arc::new(ThreadPool::with_num_threads(threads.max(1))) })
    }

    /// Runs texts through it, padded to the longest. Padding is masked. An error is a sentence.
    pub(crate) fn run(&self, encodings: &[Encoding]) -> Result<Output, String> {
        let (rows, columns) = (encodings.len(), encodings.iter().map(|encoding| encoding.get_ids().len()).max().unwrap_or(0));
        let fill = |value: &dyn Fn(&Encoding, usize) -> i32| {
            let cells = encodings.iter().flat_map(|encoding| (0..columns).map(move |column| (encoding, column)));
            let cells: Vec<i32> =
                cells.map(|(encoding, column)| if column < encoding.get_ids().len() { value(encoding, column) } else { 0 }).collect();
            NdTensor::<i32, 2>::from_data([rows, columns], cells)
        };
        let ids = fill(&|encoding, column| encoding.get_ids()[column] as i32);
        let mask = fill(&|_, _| 1);
        let types = fill(&|encoding, column| encoding.get_type_ids()[column] as i32);
        let mut inputs = vec![(self.ids, ids.view().into()), (self.mask, mask.view().into())];
        inputs.extend(self.types.map(|node| (node, types.view().into())));
        let options = RunOptions::default().with_thread_pool(Some(self.threads.clone()));
        let [output] = self.model.run_n(inputs, [self.output], Some(options)).map_err(|error| error.to_string())?;
        let output: rten_tensor::Tensor<f32> = output.try_into().map_err(|_| "its output is not a tensor of numbers".to_owned())?;
        Ok(Output { shape: output.shape().to_vec(), values: output.to_vec() })
    }
}

/// A tokenizer without padding that cuts a text, or a pair of them, to `most` tokens. An error is a sentence.
pub(crate) fn tokenizer(path: &Path, most: usize) -> Result<Tokenizer, String> {
    let failed = |error: tokenizers::Error| format!("{}: {error}", path.display());
    let mut tokenizer = Tokenizer::from_file(path).map_err(failed)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(Some(TruncationParams { max_length: most, ..TruncationParams::default() })).map_err(failed)?;
    Ok(tokenizer)
}
