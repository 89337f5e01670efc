//! The base model: frozen numbers, read from a GGUF file.

use super::math::Rotary;
use crate::gguf::Gguf;
use crate::{TargetModule, TrainError};
use std::path::Path;

/// Sizes of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// Numbers of a head.
    pub(crate) head: usize,
    pub(crate) feed_forward: usize,
    pub(crate) vocabulary: usize,
    pub(crate) epsilon: f32,
    pub(crate) rotary_base: f64,
}

impl Shape {
    /// Inputs and outputs of a matrix.
    pub(crate) fn of(&self, module: TargetModule) -> (usize, usize) {
        let (queries, keys) = (self.heads * self.head, self.kv_heads * self.head);
        match module {
            TargetModule::QProj => (self.width, queries),
            TargetModule::KProj | TargetModule::VProj => (self.width, keys),
            TargetModule::OProj => (queries, self.width),
            TargetModule::GateProj | TargetModule::UpProj => (self.width, self.feed_forward),
            TargetModule::DownProj => (self.feed_forward, self.width),
        }
    }
}

/// A layer's numbers.
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) feed_forward_norm: Vec<f32>,
    /// In the order of [`TargetModule::ALL`]; an output is a row.
    pub(super) matrices: [Vec<f32>; 7],
}

/// A model.
pub(super) struct Base {
    pub(super) shape: Shape,
    /// One row for each token.
    pub(super) embedding: Vec<f32>,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Vec<f32>,
    /// One row for each token; the embedding where the file has none.
    pub(super) head: Option<Vec<f32>>,
    pub(super) rotary_factors: Option<Vec<f32>>,
}

/// What a matrix is called in a GGUF file.
pub(crate) fn gguf_name(module: TargetModule) -> &'static str {
    match module {
        TargetModule::QProj => "attn_q",
        TargetModule::KProj => "attn_k",
        TargetModule::VProj => "attn_v",
        TargetModule::OProj => "attn_output",
        TargetModule::GateProj => "ffn_gate",
        TargetModule::UpProj => "ffn_up",
        TargetModule::DownProj => "ffn_down",
    }
}

fn refused(file: &Gguf, reason: impl Into<String>) -> TrainError {
    TrainError::Model { model: file.path().display().to_string(), reason: reason.into() }
}

/// The sizes that a file's metadata names.
pub(crate) fn read_shape(file: &Gguf) -> Result<Shape, TrainError> {
    let architecture = file.text("general.architecture").unwrap_or_default();
    if architecture != "llama" {
        return Err(refused(file, format!("its architecture is `{architecture}`; the local trainer knows `llama`")));
    }
    let size = |name: &str| {
        let value = file.whole(&format!("llama.{name}")).filter(|&value| value > 0);
        value.ok_or_else(|| refused(file, format!("its metadata lacks `llama.{name}`")))
    };
    let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
    let kv_heads = file.whole("llama.attention.head_count_kv").unwrap_or(heads);
    let head = file.whole("llama.rope.dimension_count").unwrap_or(width / heads);
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) || head * heads != width || !head.is_multiple_of(2) {
        return Err(refused(file, format!("{heads} heads of {head} numbers over {kv_heads} in a width of {width} are not understood")));
    }
    if file.whole("llama.expert_count").unwrap_or(0) > 0 {
        return Err(refused(file, "it is a mixture of experts"));
    }
    if let Some(kind) = file.text("llama.rope.scaling.type").filter(|&kind| kind != "none") {
        return Err(refused(file, format!("its positions are scaled ({kind})")));
    }
    let vocabulary = file.shape("token_embd.weight").and_then(|shape| shape.first().copied()).unwrap_or(0);
    Ok(Shape {
        layers: size("block_count")?,
        width,
        heads,
        kv_heads,
        head,
        feed_forward: size("feed_forward_length")?,
        vocabulary,
        epsilon: file.number("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5) as f32,
        rotary_base: file.number("llama.rope.freq_base").unwrap_or(10_000.0),
    })
}

impl Base {
    /// Reads a model of llama's architecture. Four bytes of memory for each of its numbers.
    pub(super) fn load(path: &Path) -> Result<Self, TrainError> {
        let mut file = Gguf::open(path).map_err(|error| TrainError::file(path, error))?;
        let shape = read_shape(&file)?;
        let known = |name: &str| {
            let plain = ["token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight"].contains(&name);
            let inner = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).and_then(|(_, rest)| rest.strip_suffix(".weight"));
            let modules = TargetModule::ALL.map(gguf_name);
            plain || inner.is_some_and(|inner| modules.contains(&inner) || ["attn_norm", "ffn_norm"].contains(&inner))
        };
        if let Some(name) = file.names().find(|name| !known(name)) {
            return Err(refused(&file, format!("it has a tensor `{name}`, which this trainer does not know")));
        }
        let mut read = |name: &str, wanted: &[usize]| {
            let found = file.shape(name).unwrap_or_default();
            if found != wanted {
                return Err(refused(&file, format!("tensor `{name}` is of shape {found:?}, not {wanted:?}")));
            }
            file.read(name).map_err(|error| TrainError::file(path, error))
        };
        let mut layers = Vec::with_capacity(shape.layers);
        for at in 0..shape.layers {
            let mut matrices: [Vec<f32>; 7] = Default::default();
            for (module, matrix) in TargetModule::ALL.into_iter().zip(&mut matrices) {
                let (inputs, outputs) = shape.of(module);
                *matrix = read(&format!("blk.{at}.{}.weight", gguf_name(module)), &[outputs, inputs])?;
            }
            layers.push(Layer {
                attention_norm: read(&format!("blk.{at}.attn_norm.weight"), &[shape.width])?,
                feed_forward_norm: read(&format!("blk.{at}.ffn_norm.weight"), &[shape.width])?,
                matrices,
            });
        }
        let embedding = read("token_embd.weight", &[shape.vocabulary, shape.width])?;
        let norm = read("output_norm.weight", &[shape.width])?;
        let head =
            file.shape("output.weight").map(|_| file.read("output.weight")).transpose().map_err(|error| TrainError::file(path, error))?;
        if head.as_ref().is_some_and(|head| head.len() != embedding.len()) {
            return Err(refused(&file, "its output matrix is not of the embedding's size"));
        }
        let factors = file.shape("rope_freqs.weight").map(|_| file.read("rope_freqs.weight")).transpose();
        let rotary_factors = factors.map_err(|error| TrainError::file(path, error))?;
        if rotary_factors.as_ref().is_some_and(|factors| factors.len() != shape.head / 2) {
            return Err(refused(&file, "its rotary factors are not one for each pair"));
        }
        Ok(Self { shape, embedding, layers, norm, head, rotary_factors })
    }

    pub(super) fn matrix(&self, layer: usize, module: TargetModule) -> &[f32] {
        &self.layers[layer].matrices[module as usize]
    }

    /// One row for each token: a row's product with a state is the token's logit.
    pub(super) fn output(&self) -> &[f32] {
        self.head.as_deref().unwrap_or(&self.embedding)
    }

    pub(super) fn rotary(&self, positions: usize) -> Rotary {
        Rotary::new(positions, self.shape.head, self.shape.rotary_base, self.rotary_factors.as_deref())
    }
}
