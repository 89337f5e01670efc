//! The base model with an adapter worked into it: as transformers loads it, and as llama.cpp does.

use crate::adapter_file::{self, Pair, refused};
use crate::gguf::MergedPrecision;
use crate::lora::{base_shape, gguf_name, merge};
use crate::peft::{base_file, group, peft_name, write_json, write_tensors};
use crate::{TargetModule, TrainError};
use half::f16;
use safetensors::tensor::Dtype;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn fits(adapter: &Path, pair: &Pair, rank: usize, (inputs, outputs): (usize, usize)) -> Result<(), TrainError> {
    let right = pair.a.len() == rank * inputs && pair.b.len() == rank * outputs;
    if right { Ok(()) } else { Err(refused(adapter, "it does not fit the base model")) }
}

/// Writes one GGUF file that answers as base and adapter do together. Matrices with a pair are in `precision`; everything else is the base's own, byte for byte, vocabulary and
/// chat template included. A kill leaves no half of it under its name.
///
/// # Errors
/// Files that cannot be read or written, or are no adapter and base model of llama's architecture.
pub fn export_gguf(adapter: &Path, base: &Path, precision: MergedPrecision, to: &Path) -> Result<(), TrainError> {
    let (mut file, _) = base_file(base)?;
    let shape = base_shape(&file)?;
    let (pairs, rank, alpha) = adapter_file::read(adapter)?;
    let scale = (alpha / rank as f64) as f32;
    let mut changed = BTreeMap::new();
    for pair in pairs {
        if pair.layer >= shape.layers {
            return Err(refused(adapter, format!("the base model has no layer {}", pair.layer)));
        }
        fits(adapter, &pair, rank, shape.of(pair.module))?;
        changed.insert(format!("blk.{}.{}.weight", pair.layer, gguf_name(pair.module)), pair);
    }
    let change = |name: &str, values: &mut [f32]| match changed.get(name) {
        Some(pair) => merge(values, pair, rank, scale).map_err(std::io::Error::other),
        None => Ok(()),
    };
    let unfinished = to.with_extension("part");
    let written = file.copy_changed(&unfinished, &changed.keys().map(String::as_str).collect(), precision, &change);
    written.and_then(|()| std::fs::rename(&unfinished, to)).map_err(|error| TrainError::file(to, error))
}

/// Writes the base model with the adapter worked into it, in halves of precision, as transformers loads it: `model.safetensors` and `config.json`. The tokenizer is the original's.
///
/// # Errors
/// Files that cannot be read or written, or are no adapter and base model of llama's architecture.
pub fn export_merged(adapter: &Path, base: &Path, folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let (mut file, heads) = base_file(base)?;
    let shape = base_shape(&file)?;
    let (pairs, rank, alpha) = adapter_file::read(adapter)?;
    let scale = (alpha / rank as f64) as f32;
    std::fs::create_dir_all(folder).map_err(|error| TrainError::file(folder, error))?;
    let mut tensors = BTreeMap::new();
    let mut put = |name: String, shape: Vec<usize>, values: &[f32]| {
        let data = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        tensors.insert(name, (Dtype::F16, shape, data));
    };
    let mut names = vec![
        ("token_embd.weight".to_owned(), "model.embed_tokens.weight".to_owned()),
        ("output_norm.weight".to_owned(), "model.norm.weight".to_owned()),
    ];
    let tied = file.shape("output.weight").is_none();
    if !tied {
        names.push(("output.weight".to_owned(), "lm_head.weight".to_owned()));
    }
    for layer in 0..shape.layers {
        names.push((format!("blk.{layer}.attn_norm.weight"), format!("model.layers.{layer}.input_layernorm.weight")));
        names.push((format!("blk.{layer}.ffn_norm.weight"), format!("model.layers.{layer}.post_attention_layernorm.weight")));
    }
    for (from, to) in names {
        let values = file.read(&from).map_err(|error| TrainError::file(base, error))?;
        put(to, file.shape(&from).unwrap_or_default(), &values);
    }
    for layer in 0..shape.layers {
        for module in TargetModule::ALL {
            let (inputs, outputs) = shape.of(module);
            let mut values =
                file.read(&format!("blk.{layer}.{}.weight", gguf_name(module))).map_err(|error| TrainError::file(base, error))?;
            if let Some(pair) = pairs.iter().find(|pair| (pair.layer, pair.module) == (layer, module)) {
                fits(adapter, pair, rank, (inputs, outputs))?;
                merge(&mut values, pair, rank, scale)?;
            }
            let name = format!("model.layers.{layer}.{}.{}.weight", group(module), peft_name(module));
            put(name, vec![outputs, inputs], &heads.original(module, &values, inputs));
        }
    }
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16", "hidden_act": "silu",
        "hidden_size": shape.width, "intermediate_size": shape.feed_forward, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head,
        "vocab_size": shape.vocabulary, "rms_norm_eps": shape.epsilon, "rope_theta": shape.rotary_base, "tie_word_embeddings": tied,
        "max_position_embeddings": file.whole("llama.context_length").unwrap_or(2048), "attention_bias": false, "mlp_bias": false,
        "bos_token_id": file.whole("tokenizer.ggml.bos_token_id"), "eos_token_id": file.whole("tokenizer.ggml.eos_token_id"),
    });
    let (weights, described) = (folder.join("model.safetensors"), folder.join("config.json"));
    write_tensors(&weights, &tensors)?;
    write_json(&described, &config)?;
    Ok(vec![weights, described])
}
