//! An adapter as a GGUF file: pairs of matrices, as llama.cpp applies them.

use crate::gguf::{self, Gguf, Tensor, Value};
use crate::lora::gguf_name;
use crate::{TargetModule, TrainError};
use std::path::Path;

/// A pair with its rows in the order of GGUF files.
pub(crate) struct Pair {
    pub(crate) layer: usize,
    pub(crate) module: TargetModule,
    /// `rank` rows.
    pub(crate) a: Vec<f32>,
    /// A row for each output.
    pub(crate) b: Vec<f32>,
}

pub(crate) fn refused(path: &Path, reason: impl Into<String>) -> TrainError {
    TrainError::Adapter { path: path.to_owned(), reason: reason.into() }
}

/// Every pair of an adapter's GGUF file, its rank and its alpha.
pub(crate) fn read(path: &Path) -> Result<(Vec<Pair>, usize, f64), TrainError> {
    let mut file = Gguf::open(path).map_err(|error| TrainError::file(path, error))?;
    if file.text("general.type") != Some("adapter") || file.text("adapter.type") != Some("lora") {
        return Err(refused(path, "this is no LoRA adapter"));
    }
    let alpha = file.number("adapter.lora.alpha").ok_or_else(|| refused(path, "it names no alpha"))?;
    let mut names: Vec<String> = file.names().filter_map(|name| name.strip_suffix(".lora_a")).map(str::to_owned).collect();
    names.sort();
    let (mut pairs, mut rank) = (Vec::new(), 0);
    for name in names {
        let parsed = name.strip_prefix("blk.").and_then(|rest| rest.strip_suffix(".weight")).and_then(|rest| rest.split_once('.'));
        let module = |inner: &str| TargetModule::ALL.into_iter().find(|module| gguf_name(*module) == inner);
        let place = parsed.and_then(|(layer, inner)| Some((layer.parse().ok()?, module(inner)?)));
        let (layer, module) = place.ok_or_else(|| refused(path, format!("tensor `{name}` is not understood")))?;
        let shape = file.shape(&format!("{name}.lora_a")).unwrap_or_default();
        rank = *shape.first().unwrap_or(&0);
        let mut read = |end: &str| file.read(&format!("{name}.{end}")).map_err(|error| TrainError::file(path, error));
        pairs.push(Pair { layer, module, a: read("lora_a")?, b: read("lora_b")? });
    }
    let even = pairs.iter().all(|pair| rank > 0 && pair.a.len().is_multiple_of(rank) && pair.b.len().is_multiple_of(rank));
    if pairs.is_empty() || !even {
        return Err(refused(path, "it holds no pairs of one rank"));
    }
    pairs.sort_by_key(|pair| (pair.layer, pair.module));
    Ok((pairs, rank, alpha))
}

/// Writes an adapter that llama.cpp applies to the base model while it runs. A kill leaves no half of it under its name.
pub(crate) fn write(path: &Path, pairs: &[Pair], rank: usize, alpha: f64) -> Result<(), TrainError> {
    let mut tensors = Vec::new();
    for pair in pairs {
        let name = format!("blk.{}.{}.weight", pair.layer, gguf_name(pair.module));
        tensors.push(Tensor { name: format!("{name}.lora_a"), shape: [rank, pair.a.len() / rank], values: &pair.a });
        tensors.push(Tensor { name: format!("{name}.lora_b"), shape: [pair.b.len() / rank, rank], values: &pair.b });
    }
    let text = |text: &str| Value::Text(text.to_owned());
    let metadata = [
        ("general.type", text("adapter")),
        ("general.architecture", text("llama")),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::Number(alpha)),
    ];
    let unfinished = path.with_extension("part");
    let written = gguf::write(&unfinished, &metadata, &tensors).and_then(|()| std::fs::rename(&unfinished, path));
    written.map_err(|error| TrainError::file(path, error))
}
