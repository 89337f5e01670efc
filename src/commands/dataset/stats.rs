use super::build::explain;
use crate::Global;
use crate::assemble::{gguf_file, settings};
use crate::commands::models::pull;
use crate::output::{hint, json, line, say};
use groundtone_config::{Config, Engine};
use groundtone_datasets::Frame;
use groundtone_datasets::stats::{Lines, PartStats, PriceTable, Stats, StatsSettings, html, stats};
use groundtone_local::ChatTokenizer;
use groundtone_prompt::{CountTokens, OpenAiTokens};
use std::path::PathBuf;
use std::sync::Arc;

/// The model whose tokens are counted as the trainer in this process counts them.
const LOCAL: &str = "local";
/// Tokens of a row that OpenAI's models read.
const LONGEST_ROW: usize = 65_536;

/// Flags of `groundtone dataset stats`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files of rows; the folder of a split is its three parts
    #[arg(required_unless_present = "train")]
    files: Vec<PathBuf>,
    /// The rows that are trained on; the other parts are compared with them
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    train: Option<PathBuf>,
    /// The rows that a trainer watches
    #[arg(long, value_name = "FILE", requires = "train")]
    validation: Option<PathBuf>,
    /// The rows that nobody sees before the evaluation
    #[arg(long, value_name = "FILE", requires = "train")]
    test: Option<PathBuf>,
    /// Write a report as one page of HTML
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Count tokens as this model does; `local` is the chat model in this process, as its trainer counts them
    #[arg(long, value_name = "NAME", default_value = "gpt-4.1-mini")]
    model: String,
    /// Tokens of a row that the model reads: 65,536, and tuning.max_row_tokens for `local`
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Groups of rows that are listed for a finding; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    listed: usize,
    /// Passes over the rows; OpenAI's default for their number where not given
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Prices; a table of 2026-11-24 where not given (`prices.toml` in the documentation shows its shape)
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Tokens that the untuned model reads for the same question, for the break-even
    #[arg(long, value_name = "N")]
    untuned_prompt_tokens: Option<f64>,
}

impl Args {
    fn parts(&self) -> anyhow::Result<Vec<(String, PathBuf)>> {
        if let Some(train) = &self.train {
            let named = [("train", Some(train)), ("validation", self.validation.as_ref()), ("test", self.test.as_ref())];
            return Ok(named.into_iter().filter_map(|(name, path)| Some((name.to_owned(), path?.clone()))).collect());
        }
        if let [folder] = self.files.as_slice()
            && folder.is_dir()
        {
            let parts = ["train", "validation", "test"].map(|name| (name.to_owned(), folder.join(format!("{name}.jsonl"))));
            let parts: Vec<_> = parts.into_iter().filter(|(_, path)| path.is_file()).collect();
            if parts.is_empty() {
                return Err(hint(
                    format!("{} has no train.jsonl", folder.display()),
                    "name files of rows, or the folder that `groundtone dataset split` wrote",
                ));
            }
            return Ok(parts);
        }
        let name = |path: &PathBuf| path.file_stem().map_or_else(|| "rows".to_owned(), |name| name.to_string_lossy().into_owned());
        Ok(self.files.iter().map(|path| (name(path), path.clone())).collect())
    }
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let is_local = args.model == LOCAL;
    let (tokens, frame) = if is_local {
        local(&config).await?
    } else {
        let tokens: Arc<dyn CountTokens> = OpenAiTokens::for_model(&args.model);
        (tokens, Frame::OPENAI)
    };
    let longest = if is_local { config.tuning.max_row_tokens as usize } else { LONGEST_ROW };
    let prices = match &args.prices {
        // Other people's prices are not for other people's tokens.
        None if is_local => PriceTable::default(),
        path => PriceTable::read(path.as_deref()).map_err(explain)?,
    };
    let stats_settings = StatsSettings {
        parts: args.parts()?,
        max_tokens: args.max_tokens.unwrap_or(longest),
        max_line_bytes: config.sources.record_max_bytes,
        tokens,
        frame,
        prices,
        listed: args.listed,
        epochs: args.epochs,
        untuned_prompt_tokens: args.untuned_prompt_tokens,
    };
    let found = tokio::task::spawn_blocking(move || stats(&stats_settings)).await?.map_err(explain)?;
    if let Some(path) = &args.html {
        std::fs::write(path, html(&found))
            .map_err(|error| hint(format!("{}: {error}", path.display()), "name a file that can be written"))?;
        say(format!("report: {}", path.display()));
    }
    if global.json {
        return json(&found);
    }
    show(&found)
}

/// The tokens of the chat model in this process, and what its chat template puts around them.
async fn local(config: &Config) -> anyhow::Result<(Arc<dyn CountTokens>, Frame)> {
    if config.chat.kind != Engine::Local {
        return Err(hint(
            "`--model local` is the chat model in this process, and `chat.kind` is another",
            "name the model whose tokens are counted",
        ));
    }
    if config.chat.path.as_os_str().is_empty() {
        pull(config, std::slice::from_ref(&config.chat.model)).await?;
    }
    let (path, id) = gguf_file(config, &config.chat)?;
    let load = move || -> anyhow::Result<(Arc<dyn CountTokens>, Frame)> {
        let tokenizer = ChatTokenizer::load(&path, &id)?;
        let frame = Frame::of_template(&tokenizer, |messages| Ok(tokenizer.chat(messages)?.tokens.len())).map_err(anyhow::Error::msg)?;
        let tokens: Arc<dyn CountTokens> = Arc::new(tokenizer);
        Ok((tokens, frame))
    };
    tokio::task::spawn_blocking(load).await?
}

fn lines(found: &Lines) -> String {
    let listed: Vec<String> = found.lines.iter().map(u64::to_string).collect();
    let more = if found.count > found.lines.len() as u64 { ", ..." } else { "" };
    format!("{} (lines {}{more})", found.count, listed.join(", "))
}

fn show(stats: &Stats) -> anyhow::Result<()> {
    stats.parts.iter().try_for_each(show_part)?;
    for leak in &stats.leakage {
        line(format!(
            "{}: {} rows ask what training rows ask, {} are answered from documents of training rows",
            leak.part, leak.by_text, leak.by_document
        ))?;
    }
    let cost = &stats.cost;
    let prices = if cost.models.is_empty() { String::new() } else { format!("; USD of {}:", cost.prices_of) };
    line(format!("{} epochs, {} trained tokens by {}{prices}", cost.epochs, cost.billed_tokens, stats.tokenizer))?;
    for model in &cost.models {
        let pays =
            model.break_even_requests.map_or_else(|| "never by these prompts".to_owned(), |requests| format!("after {requests} requests"));
        let off = model.off.as_ref().map(|day| format!(" (off {day})")).unwrap_or_default();
        line(format!(
            "  {:<14} {:>10.2} training; cheaper from {:.0} prompt tokens on; pays for itself {pays}{off}",
            model.name, model.training_usd, model.cheaper_from_prompt_tokens
        ))?;
    }
    Ok(())
}

fn show_part(part: &PartStats) -> anyhow::Result<()> {
    let tokens = &part.tokens;
    line(format!(
        "{}: {} rows, {} tokens; a row has {} to {} (half up to {}), its reply {:.1} on average",
        part.name, part.rows, tokens.row.total, tokens.row.min, tokens.row.max, tokens.row.p50, tokens.reply.mean
    ))?;
    let say_if = |count: u64, text: String| if count > 0 { line(format!("  {text}")) } else { Ok(()) };
    say_if(part.unreadable.count, format!("no row: {}", lines(&part.unreadable)))?;
    let over = &part.over_limit;
    say_if(
        over.rows.count,
        format!(
            "over {} tokens: {}; {} tokens and {} whole replies are cut off",
            over.limit,
            lines(&over.rows),
            over.tokens_cut,
            over.replies_cut
        ),
    )?;
    say_if(
        part.exact_duplicates.rows,
        format!("exact duplicates: {} rows of {} groups", part.exact_duplicates.rows, part.exact_duplicates.groups),
    )?;
    say_if(
        part.near_duplicates.rows,
        format!("near duplicates: {} rows of {} groups", part.near_duplicates.rows, part.near_duplicates.groups),
    )?;
    say_if(
        part.conflicts.groups,
        format!("conflicts: {} questions are answered differently by {} rows", part.conflicts.groups, part.conflicts.rows),
    )?;
    for conflict in part.conflicts.examples.iter().take(5) {
        let pairs: Vec<String> =
            conflict.lines.iter().zip(&conflict.outputs).take(3).map(|(line, text)| format!("line {line}: {}", short(text))).collect();
        say_if(1, format!("  {} -> {}", short(&conflict.inputs[0]), pairs.join(" | ")))?;
    }
    for (kind, found) in &part.personal {
        say_if(found.count, format!("personal data, {kind}: {}", lines(found)))?;
    }
    say_if(part.language_switches.count, format!("answer in another language than the question: {}", lines(&part.language_switches)))?;
    if let Some(labels) = &part.labels {
        say_if(
            1,
            format!(
                "labels: {} ({}), {} to {} rows each, balance {:.3}",
                labels.labels, labels.from, labels.least, labels.most, labels.balance
            ),
        )?;
    }
    if let Some(tone) = &part.tone {
        let habits =
            tone.traits.iter().filter(|found| found.share >= 0.9).map(|found| format!("{} ({:.0} %)", found.name, found.share * 100.0));
        let habits: Vec<String> = habits.collect();
        say_if(
            1,
            format!(
                "tone: consistency {:.2}; habits: {}",
                tone.consistency,
                if habits.is_empty() { "none".to_owned() } else { habits.join(", ") }
            ),
        )?;
    }
    Ok(())
}

fn short(text: &str) -> String {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() > 80 { text.chars().take(79).chain(['…']).collect() } else { text }
}
