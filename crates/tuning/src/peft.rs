//! Adapters for other programs: PEFT's folder out and in.
//!
//! GGUF files of llama's architecture have the rows of queries and keys in another order than the original weights: pairs that are turned together stand side by side
//! there, and half a head apart here. Only B has those rows.

use crate::adapter_file::{self, Pair, refused};
use crate::gguf::Gguf;
use crate::{TargetModule, TrainError};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";
pub(crate) const CONFIG: &str = "adapter_config.json";
/// An adapter's file is read whole.
const LARGEST: u64 = 2 << 30;

/// What a base model's file says that export and import need.
pub(crate) struct Heads {
    heads: usize,
    kv_heads: usize,
}

pub(crate) fn base_file(base: &Path) -> Result<(Gguf, Heads), TrainError> {
    let file = Gguf::open(base).map_err(|error| TrainError::file(base, error))?;
    let shape = crate::lora::base_shape(&file)?;
    Ok((file, Heads { heads: shape.heads, kv_heads: shape.kv_heads }))
}

impl Heads {
    /// How many heads a matrix's rows are divided into, where their order differs.
    fn turned(&self, module: TargetModule) -> Option<usize> {
        match module {
            TargetModule::QProj => Some(self.heads),
            TargetModule::KProj => Some(self.kv_heads),
            _ => None,
        }
    }

    /// Where each row of the original order stands in the GGUF file's.
    fn order(&self, module: TargetModule, rows: usize) -> Vec<usize> {
        let Some(heads) = self.turned(module) else { return (0..rows).collect() };
        let (head, half) = (rows / heads, rows / heads / 2);
        let place = |row: usize| {
            let (number, within) = (row / head, row % head);
            number * head + within % half * 2 + within / half
        };
        (0..rows).map(place).collect()
    }

    pub(crate) fn original(&self, module: TargetModule, values: &[f32], columns: usize) -> Vec<f32> {
        let order = self.order(module, values.len() / columns);
        order.into_iter().flat_map(|row| &values[row * columns..(row + 1) * columns]).copied().collect()
    }

    fn turned_rows(&self, module: TargetModule, values: &[f32], columns: usize) -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        for (from, to) in self.order(module, values.len() / columns).into_iter().enumerate() {
            out[to * columns..(to + 1) * columns].copy_from_slice(&values[from * columns..(from + 1) * columns]);
        }
        out
    }
}

pub(crate) fn group(module: TargetModule) -> &'static str {
    match module {
        TargetModule::QProj | TargetModule::KProj | TargetModule::VProj | TargetModule::OProj => "self_attn",
        TargetModule::GateProj | TargetModule::UpProj | TargetModule::DownProj => "mlp",
    }
}

/// The name that PEFT and transformers give a matrix, `q_proj` and so on.
pub(crate) fn peft_name(module: TargetModule) -> &'static str {
    match module {
        TargetModule::QProj => "q_proj",
        TargetModule::KProj => "k_proj",
        TargetModule::VProj => "v_proj",
        TargetModule::OProj => "o_proj",
        TargetModule::GateProj => "gate_proj",
        TargetModule::UpProj => "up_proj",
        TargetModule::DownProj => "down_proj",
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes a file whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let text = serde_json::to_string_pretty(value).map_err(|error| TrainError::Compute(error.to_string()))?;
    let unfinished = path.with_extension("part");
    let written = std::fs::write(&unfinished, text + "\n").and_then(|()| std::fs::rename(&unfinished, path));
    written.map_err(|error| TrainError::file(path, error))
}

pub(crate) fn write_tensors(path: &Path, tensors: &BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>) -> Result<(), TrainError> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, (kind, shape, data)) in tensors {
        let view = TensorView::new(*kind, shape.clone(), data).map_err(|error| refused(path, error.to_string()))?;
        views.push((name.clone(), view));
    }
    // transformers refuses a file that does not say which program's layout it has.
    let format = Some([("format".to_owned(), "pt".to_owned())].into_iter().collect());
    safetensors::serialize_to_file(views, &format, path).map_err(|error| refused(path, error.to_string()))
}

/// Writes an adapter as PEFT saves one: a folder that transformers, PEFT and vLLM load over the original weights. `base_name` is what `adapter_config.json` calls them.
///
/// # Errors
/// Files that cannot be read or written, or are no adapter and base model of llama's architecture.
pub fn export_peft(adapter: &Path, base: &Path, base_name: &str, folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let (_, heads) = base_file(base)?;
    let (pairs, rank, alpha) = adapter_file::read(adapter)?;
    std::fs::create_dir_all(folder).map_err(|error| TrainError::file(folder, error))?;
    let mut tensors = BTreeMap::new();
    for pair in &pairs {
        let name = format!("base_model.model.model.layers.{}.{}.{}", pair.layer, group(pair.module), peft_name(pair.module));
        let a = (Dtype::F32, vec![rank, pair.a.len() / rank], bytes(&pair.a));
        let b = (Dtype::F32, vec![pair.b.len() / rank, rank], bytes(&heads.original(pair.module, &pair.b, rank)));
        tensors.insert(format!("{name}.lora_A.weight"), a);
        tensors.insert(format!("{name}.lora_B.weight"), b);
    }
    let mut modules: Vec<&str> = pairs.iter().map(|pair| peft_name(pair.module)).collect();
    modules.sort_unstable();
    modules.dedup();
    let mut layers: Vec<usize> = pairs.iter().map(|pair| pair.layer).collect();
    layers.dedup();
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "inference_mode": true,
        "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": false,
        "target_modules": modules, "layers_to_transform": layers, "layers_pattern": "layers",
    });
    let (weights, described) = (folder.join(WEIGHTS), folder.join(CONFIG));
    write_tensors(&weights, &tensors)?;
    write_json(&described, &config)?;
    Ok(vec![weights, described])
}

/// Reads an adapter that PEFT saved, and writes it as a GGUF file for `base`.
///
/// # Errors
/// A folder that is no LoRA adapter, one that uses what llama.cpp cannot apply, or one that does not fit the base model.
pub fn import_peft(folder: &Path, base: &Path, adapter: &Path) -> Result<(), TrainError> {
    let (file, heads) = base_file(base)?;
    let described = folder.join(CONFIG);
    let text = std::fs::read_to_string(&described).map_err(|error| TrainError::file(&described, error))?;
    let config: Json = serde_json::from_str(&text).map_err(|error| refused(&described, error.to_string()))?;
    let alpha = alpha_of(&config).map_err(|reason| refused(&described, reason))?;
    let weights = folder.join(WEIGHTS);
    let data = read_weights(&weights)?;
    let tensors = SafeTensors::deserialize(&data).map_err(|error| refused(&weights, error.to_string()))?;
    let rank = config["r"].as_u64().and_then(|rank| usize::try_from(rank).ok()).filter(|&rank| rank > 0);
    let rank = rank.ok_or_else(|| refused(&described, "`r` is missing"))?;
    let mut halves: BTreeMap<(usize, TargetModule), [Option<Vec<f32>>; 2]> = BTreeMap::new();
    for (name, tensor) in tensors.tensors() {
        let (layer, module, second) =
            parse(&name).ok_or_else(|| refused(&weights, format!("tensor `{name}` is not one that can be applied")))?;
        let matrix = format!("blk.{layer}.{}.weight", crate::lora::gguf_name(module));
        let shape = file.shape(&matrix).ok_or_else(|| refused(&weights, format!("the base model has no layer {layer}")))?;
        let wanted = if second { [shape[0], rank] } else { [rank, shape[1]] };
        if tensor.shape() != wanted {
            return Err(refused(&weights, format!("tensor `{name}` is of shape {:?}, not {wanted:?}", tensor.shape())));
        }
        let values = numbers(&tensor).ok_or_else(|| refused(&weights, format!("tensor `{name}` is of type {:?}", tensor.dtype())))?;
        let values = if second { heads.turned_rows(module, &values, rank) } else { values };
        halves.entry((layer, module)).or_default()[usize::from(second)] = Some(values);
    }
    let mut pairs = Vec::new();
    for ((layer, module), halves) in halves {
        let [Some(a), Some(b)] = halves else {
            return Err(refused(&weights, format!("layer {layer} has half a pair for {}", peft_name(module))));
        };
        pairs.push(Pair { layer, module, a, b });
    }
    if pairs.is_empty() {
        return Err(refused(&weights, "it holds no pairs"));
    }
    adapter_file::write(adapter, &pairs, rank, alpha)
}

/// Copies the two files of an adapter that PEFT saved, for a server that reads them as they are. They are looked at first; pickles and everything else in the folder stay where they are.
///
/// # Errors
/// A folder that is no LoRA adapter in safetensors, or a disk that is full.
pub fn copy_peft(from: &Path, to: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let described = from.join(CONFIG);
    let text = std::fs::read_to_string(&described).map_err(|error| TrainError::file(&described, error))?;
    let config: Json = serde_json::from_str(&text).map_err(|error| refused(&described, error.to_string()))?;
    if config["peft_type"] != "LORA" {
        return Err(refused(&described, format!("`peft_type` is {}, not \"LORA\"", config["peft_type"])));
    }
    let weights = from.join(WEIGHTS);
    let data = read_weights(&weights)?;
    let tensors = SafeTensors::deserialize(&data).map_err(|error| refused(&weights, error.to_string()))?;
    if tensors.is_empty() {
        return Err(refused(&weights, "it holds no pairs"));
    }
    std::fs::create_dir_all(to).map_err(|error| TrainError::file(to, error))?;
    let mut files = Vec::new();
    for (name, bytes) in [(WEIGHTS, data.as_slice()), (CONFIG, text.as_bytes())] {
        let file = to.join(name);
        std::fs::write(&file, bytes).map_err(|error| TrainError::file(&file, error))?;
        files.push(file);
    }
    Ok(files)
}

fn read_weights(weights: &Path) -> Result<Vec<u8>, TrainError> {
    let size = std::fs::metadata(weights).map_err(|error| TrainError::file(weights, error))?.len();
    if size > LARGEST {
        return Err(refused(weights, format!("{size} bytes are too many for an adapter")));
    }
    std::fs::read(weights).map_err(|error| TrainError::file(weights, error))
}

/// Alpha such that `alpha / rank` is what PEFT multiplies with; or what cannot be applied.
fn alpha_of(config: &Json) -> Result<f64, String> {
    if config["peft_type"] != "LORA" {
        return Err(format!("`peft_type` is {}, not \"LORA\"", config["peft_type"]));
    }
    for name in ["use_dora", "fan_in_fan_out", "lora_bias"] {
        if config[name] == true {
            return Err(format!("`{name}` cannot be applied"));
        }
    }
    let filled = |name: &&str| match &config[*name] {
        Json::Object(fields) => !fields.is_empty(),
        Json::Array(items) => !items.is_empty(),
        _ => false,
    };
    if let Some(name) = ["rank_pattern", "alpha_pattern", "modules_to_save"].iter().find(|name| filled(name)) {
        return Err(format!("`{name}` cannot be applied"));
    }
    let (alpha, rank) = (config["lora_alpha"].as_f64(), config["r"].as_f64());
    let (Some(alpha), Some(rank)) = (alpha, rank) else { return Err("`r` or `lora_alpha` is missing".to_owned()) };
    Ok(if config["use_rslora"] == true { alpha * rank.sqrt() } else { alpha })
}

/// Layer, module, and whether it is B.
fn parse(name: &str) -> Option<(usize, TargetModule, bool)> {
    let (_, rest) = name.split_once("model.layers.")?;
    let parts: Vec<&str> = rest.split('.').collect();
    let [layer, part, module, which, "weight"] = parts[..] else { return None };
    let module = TargetModule::ALL.into_iter().find(|known| peft_name(*known) == module && group(*known) == part)?;
    let second = match which {
        "lora_A" => false,
        "lora_B" => true,
        _ => return None,
    };
    Some((layer.parse().ok()?, module, second))
}

fn numbers(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = tensor.data();
    let pair = |bytes: &[u8]| [bytes[0], bytes[1]];
    Some(match tensor.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect(),
        Dtype::F16 => data.chunks_exact(2).map(|bytes| f16::from_le_bytes(pair(bytes)).to_f32()).collect(),
        Dtype::BF16 => data.chunks_exact(2).map(|bytes| bf16::from_le_bytes(pair(bytes)).to_f32()).collect(),
        _ => return None,
    })
}
