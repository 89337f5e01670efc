//! The local trainer without a server, for `tests/bench/tune.py` and the fixtures of the tests.
//!
//! ```text
//! lora train BASE.gguf REQUEST.json FOLDER     trains; one JSON line of progress for each step
//! lora peft  ADAPTER.gguf BASE.gguf FOLDER     writes the adapter as PEFT saves one
//! lora merged ADAPTER.gguf BASE.gguf FOLDER    writes the base with the adapter worked into it, as transformers loads it
//! lora ask   BASE.gguf ADAPTER.gguf|- ROWS.jsonl TOKENS     answers each row without its last message, greedily; one JSON line for each
//! ```
//! REQUEST.json: `{"method", "training_file", "validation_file", "hyperparameters", "pause_at_once", "threads"}`.
#![allow(clippy::print_stdout, reason = "a program's output")]

use anyhow::{Context, bail};
use futures::StreamExt;
use groundtone_local::{ChatTokenizer, LlamaChat, LlamaSettings, available_threads};
use groundtone_prompt::PromptMessage;
use groundtone_provider::{ChatEvent, ChatModel, ChatRequest, Sampling};
use groundtone_tuning::{Command, Hyperparameters, LoraTrainer, Method, Progress, Trainer, TrainingRequest, export_merged, export_peft};
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Deserialize)]
struct Row {
    messages: Vec<PromptMessage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: Method,
    training_file: PathBuf,
    #[serde(default)]
    validation_file: Option<PathBuf>,
    #[serde(default)]
    hyperparameters: Hyperparameters,
    /// Writes the first values of the adapter and ends.
    #[serde(default)]
    pause_at_once: bool,
    #[serde(default)]
    threads: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "train", base, request, folder] => train(Path::new(base), Path::new(request), Path::new(folder)),
        [_, "peft", adapter, base, folder] => {
            let files = export_peft(Path::new(adapter), Path::new(base), base, Path::new(folder))?;
            println!("{}", json!({"files": files}));
            Ok(())
        }
        [_, "merged", adapter, base, folder] => {
            let files = export_merged(Path::new(adapter), Path::new(base), Path::new(folder))?;
            println!("{}", json!({"files": files}));
            Ok(())
        }
        [_, "ask", base, adapter, rows, tokens] => {
            let adapter = (adapter != "-").then(|| Path::new(adapter));
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(ask(Path::new(base), adapter, Path::new(rows), tokens.parse()?))
        }
        _ => bail!(
            "lora train BASE.gguf REQUEST.json FOLDER | peft ADAPTER.gguf BASE.gguf FOLDER | merged ADAPTER.gguf BASE.gguf FOLDER | ask BASE.gguf ADAPTER.gguf ROWS.jsonl TOKENS"
        ),
    }
}

async fn ask(base: &Path, adapter: Option<&Path>, rows: &Path, max_tokens: u32) -> anyhow::Result<()> {
    let threads = available_threads();
    let settings = LlamaSettings { model_id: "base".into(), context_tokens: 4096, parallel: 1, threads, queue: 4, max_tokens };
    let chat = LlamaChat::load(base, settings)?;
    let mut model: Arc<dyn ChatModel> = Arc::new(chat.clone());
    if let Some(adapter) = adapter {
        chat.load_adapter("tuned", adapter).await?;
        model = chat.with_adapter("tuned", "tuned").context("the adapter is not there")?;
    }
    for line in std::fs::read_to_string(rows)?.lines() {
        let row: Row = serde_json::from_str(line)?;
        let (_, prompt) = row.messages.split_last().context("an empty row")?;
        let messages = prompt.to_vec();
        let sampling = Sampling { temperature: Some(0.0), max_tokens: Some(max_tokens), ..Sampling::default() };
        let began = std::time::Instant::now();
        let mut events = model.chat(ChatRequest { messages, sampling, extras: Default::default() }).await?;
        let (mut text, mut used) = (String::new(), None);
        while let Some(event) = events.next().await {
            match event? {
                ChatEvent::Delta(delta) => text.push_str(&delta),
                ChatEvent::Finished { usage, .. } => used = usage,
                ChatEvent::Beside(_) => {}
            }
        }
        println!("{}", json!({"answer": text, "usage": used, "seconds": began.elapsed().as_secs_f64()}));
    }
    Ok(())
}

fn train(base: &Path, request: &Path, folder: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(request).with_context(|| request.display().to_string())?;
    let request: Request = serde_json::from_str(&text)?;
    let tokenizer = Arc::new(ChatTokenizer::load(base, "base")?);
    let trainer = LoraTrainer::new(base, "base", tokenizer, request.threads.unwrap_or_else(available_threads))?;
    let training = TrainingRequest {
        method: request.method,
        training_file: request.training_file,
        validation_file: request.validation_file,
        hyperparameters: request.hyperparameters,
        folder: folder.to_owned(),
    };
    let command = || if request.pause_at_once { Command::Pause } else { Command::Go };
    let mut report = |progress: Progress| match progress {
        Progress::Step { step, train_loss, train_mean_token_accuracy, learning_rate, gradient_norm, seconds, tokens, .. } => println!(
            "{}",
            json!({"step": step, "loss": train_loss, "accuracy": train_mean_token_accuracy, "rate": learning_rate, "norm": gradient_norm, "seconds": seconds, "tokens": tokens})
        ),
        Progress::Checkpoint(kept) => println!("{}", json!({"checkpoint": kept.step, "adapter": kept.adapter, "metrics": kept.metrics})),
        Progress::Started { trained_tokens, learning_rate, parameters, .. } => {
            println!("{}", json!({"trained_tokens": trained_tokens, "learning_rate": learning_rate, "parameters": parameters}));
        }
        Progress::Validation { step, loss, mean_token_accuracy, full } => {
            println!("{}", json!({"validated": step, "loss": loss, "accuracy": mean_token_accuracy, "full": full}));
        }
    };
    let outcome = trainer.train(&training, &command, &mut report)?;
    println!("{}", json!({"end": format!("{:?}", outcome.end), "adapter": outcome.adapter, "trained_tokens": outcome.trained_tokens}));
    Ok(())
}
