//! The local trainer without a server, for `tests/bench/tune.py` and the fixtures of the tests.
//!
//! ```text
//! lora train BASE.gguf REQUEST.json FOLDER     trains; one JSON line of progress for each step
//! lora peft  ADAPTER.gguf BASE.gguf FOLDER     writes the adapter as PEFT saves one
//! lora merged ADAPTER.gguf BASE.gguf FOLDER    writes the base with the adapter worked into it, as transformers loads it
//! lora ask   BASE.gguf ADAPTER.gguf|- ROWS.jsonl TOKENS     answers each row without its last message, greedily; one JSON line for each
//! lora decode BASE.gguf ADAPTER.gguf ROWS.jsonl TOKENS      answers each row without the adapter, with it, and with base and adapter in one (`Q8_0`), turn by turn; tokens a second behind the first one, one JSON line for each row
//! ```
//! REQUEST.json: `{"method", "training_file", "validation_file", "hyperparameters", "pause_at_once", "threads"}`.
#![allow(clippy::print_stdout, reason = "a program's output")]

use anyhow::{Context, bail};
use futures::StreamExt;
use groundtone_local::{ChatTokenizer, LlamaChat, LlamaSettings, available_threads};
use groundtone_prompt::PromptMessage;
use groundtone_provider::{ChatEvent, ChatModel, ChatRequest, Sampling};
use groundtone_tuning::{
    Command, Hyperparameters, LoraTrainer, MergedPrecision, Method, Progress, Trainer, TrainingRequest, export_gguf, export_merged,
    export_peft,
};
use groundtone_types::TokenUsage;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

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
        [_, "decode", base, adapter, rows, tokens] => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(decode(Path::new(base), Path::new(adapter), Path::new(rows), tokens.parse()?))
        }
        _ => bail!(
            "lora train BASE.gguf REQUEST.json FOLDER | peft ADAPTER.gguf BASE.gguf FOLDER | merged ADAPTER.gguf BASE.gguf FOLDER | ask BASE.gguf ADAPTER.gguf ROWS.jsonl TOKENS"
        ),
    }
}

fn load(base: &Path, max_tokens: u32) -> anyhow::Result<LlamaChat> {
    let threads = available_threads();
    let settings = LlamaSettings { model_id: "base".into(), context_tokens: 4096, parallel: 1, threads, queue: 4, max_tokens };
    Ok(LlamaChat::load(base, settings)?)
}

async fn with_adapter(chat: &LlamaChat, adapter: &Path) -> anyhow::Result<Arc<dyn ChatModel>> {
    chat.load_adapter("tuned", adapter).await?;
    chat.with_adapter("tuned", "tuned").context("the adapter is not there")
}

/// An answer, and how long it took.
struct Answered {
    text: String,
    usage: Option<TokenUsage>,
    seconds: f64,
    /// Tokens a second, the first one and the reading of the prompt not counted.
    tokens_per_second: f64,
}

/// Answers a row without its last message.
async fn answer(model: &dyn ChatModel, row: &str, max_tokens: u32) -> anyhow::Result<Answered> {
    let row: Row = serde_json::from_str(row)?;
    let (_, prompt) = row.messages.split_last().context("an empty row")?;
    let messages = prompt.to_vec();
    let sampling = Sampling { temperature: Some(0.0), max_tokens: Some(max_tokens), ..Sampling::default() };
    let began = Instant::now();
    let mut events = model.chat(ChatRequest { messages, sampling, extras: Default::default() }).await?;
    let (mut text, mut usage, mut first) = (String::new(), None, None);
    while let Some(event) = events.next().await {
        match event? {
            ChatEvent::Delta(delta) => {
                first.get_or_insert_with(Instant::now);
                text.push_str(&delta);
            }
            ChatEvent::Finished { usage: counted, .. } => usage = counted,
            ChatEvent::Beside(_) => {}
        }
    }
    let written = usage.map_or(0, |usage: TokenUsage| usage.completion_tokens);
    let tokens_per_second = first.map_or(0.0, |first| written.saturating_sub(1) as f64 / first.elapsed().as_secs_f64());
    Ok(Answered { text, usage, seconds: began.elapsed().as_secs_f64(), tokens_per_second })
}

async fn ask(base: &Path, adapter: Option<&Path>, rows: &Path, max_tokens: u32) -> anyhow::Result<()> {
    let chat = load(base, max_tokens)?;
    let model = match adapter {
        Some(adapter) => with_adapter(&chat, adapter).await?,
        None => Arc::new(chat),
    };
    for row in std::fs::read_to_string(rows)?.lines() {
        let Answered { text, usage, seconds, .. } = answer(&*model, row, max_tokens).await?;
        println!("{}", json!({"answer": text, "usage": usage, "seconds": seconds}));
    }
    Ok(())
}

async fn decode(base: &Path, adapter: &Path, rows: &Path, max_tokens: u32) -> anyhow::Result<()> {
    let chat = load(base, max_tokens)?;
    let tuned = with_adapter(&chat, adapter).await?;
    let folder = tempfile::tempdir()?;
    let whole = folder.path().join("merged.gguf");
    export_gguf(adapter, base, MergedPrecision::Eight, &whole)?;
    let whole = load(&whole, max_tokens)?;
    let models: [(&str, &dyn ChatModel); 3] = [("base", &chat), ("adapter", &*tuned), ("merged", &whole)];
    for row in std::fs::read_to_string(rows)?.lines() {
        let (mut line, mut tokens) = (json!({}), Vec::new());
        for (name, model) in models {
            let answered = answer(model, row, max_tokens).await?;
            line[name] = json!(answered.tokens_per_second);
            tokens.push(answered.usage.map(|usage| usage.completion_tokens));
        }
        line["tokens"] = json!(tokens);
        println!("{line}");
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
