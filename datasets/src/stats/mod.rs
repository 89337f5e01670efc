//! What a dataset is made of, and what is wrong with it that no target would say: duplicates, contradictions, leaks between its parts, personal data,
//! languages, tone, tokens and cost.
//!
//! The rows of all parts are in memory: about their questions and answers, and half a kilobyte of signature for each.

mod cost;
mod html;
mod rows;
mod similar;
mod tone;

pub use cost::{Cost, ModelCost, PRICES, Price, PriceTable, default_epochs};
pub use html::html;
pub use similar::{Conflict, Conflicts, Duplicates, Leakage};
pub use tone::{Tone, Trait};

use crate::{Error, Frame};
use groundtone_prompt::CountTokens;
use groundtone_types::{PersonalKind, find_personal_data};
use rayon::prelude::*;
use rows::{Item, Loaded, load};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Lines that are listed for a finding; all are counted.
const LISTED: usize = 20;
/// Bars of a histogram.
const BARS: usize = 24;
/// Distinct answers up to which they are taken for labels, where no manifest names labels.
const MOST_LABELS: usize = 500;
/// Characters of a text by which its language is told.
const LANGUAGE_CHARACTERS: usize = 600;
/// Characters below which no language is told.
const LEAST_LANGUAGE_CHARACTERS: usize = 20;

/// What to look at.
#[derive(Clone)]
pub struct StatsSettings {
    /// Files by what they are for: `train` is compared with every other one.
    pub parts: Vec<(String, PathBuf)>,
    /// Tokens of a row that are read.
    pub max_tokens: usize,
    /// Longest line, in bytes.
    pub max_line_bytes: usize,
    /// What counts tokens.
    pub tokens: Arc<dyn CountTokens>,
    /// What stands around the texts of a row.
    pub frame: Frame,
    /// Prices.
    pub prices: PriceTable,
    /// Groups of rows that are listed for a finding; all are counted.
    pub listed: usize,
    /// Passes over the rows; OpenAI's default for their number where not given.
    pub epochs: Option<u64>,
    /// Tokens that the untuned model reads for the same question; the rows' own mean where not given.
    pub untuned_prompt_tokens: Option<f64>,
}

/// Everything about a dataset.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Name of the tokenizer that tokens were counted with.
    pub tokenizer: String,
    /// Its parts.
    pub parts: Vec<PartStats>,
    /// What other parts share with `train`.
    pub leakage: Vec<Leakage>,
    /// What training on the first part would cost.
    pub cost: Cost,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartStats {
    /// What it is for.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Rows that were read.
    pub rows: u64,
    /// Lines that hold no row.
    pub unreadable: Lines,
    /// Messages of a row.
    pub turns: Distribution,
    /// Tokens.
    pub tokens: TokenStats,
    /// Rows that are longer than what is read.
    pub over_limit: OverLimit,
    /// Labels; `None` where there are none.
    pub labels: Option<Labels>,
    /// Rows that are the same.
    pub exact_duplicates: Duplicates,
    /// Rows that ask nearly the same.
    pub near_duplicates: Duplicates,
    /// Rows that ask nearly the same and answer differently.
    pub conflicts: Conflicts,
    /// Personal data and secrets by kind.
    pub personal: BTreeMap<&'static str, Lines>,
    /// Rows by the language of their questions.
    pub input_languages: BTreeMap<&'static str, u64>,
    /// Rows by the language of their answers.
    pub output_languages: BTreeMap<&'static str, u64>,
    /// Rows whose answer is in another language than its question.
    pub language_switches: Lines,
    /// How the answers sound.
    pub tone: Option<Tone>,
    /// Rows by kind, as the manifest says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, u64>,
    /// Rows by the number of the snippet that holds the answer, as the manifest says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub oracle_positions: BTreeMap<usize, u64>,
}

/// Lines with a finding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// How many.
    pub count: u64,
    /// The first ones.
    pub lines: Vec<u64>,
}

impl Lines {
    fn of(lines: impl Iterator<Item = u64>) -> Self {
        let mut found = Self::default();
        for line in lines {
            found.count += 1;
            if found.lines.len() < LISTED {
                found.lines.push(line);
            }
        }
        found
    }
}

/// How a number is spread over the rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// The smallest.
    pub min: u64,
    /// The fifth percentile (nearest rank).
    pub p05: u64,
    /// The median.
    pub p50: u64,
    /// The ninety-fifth percentile.
    pub p95: u64,
    /// The largest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
    /// The sum.
    pub total: u64,
    /// Rows by bars of equal width from `min` to `max`.
    pub bars: Vec<u64>,
}

impl Distribution {
    fn of(values: impl Iterator<Item = usize>) -> Self {
        let mut values: Vec<u64> = values.map(|value| value as u64).collect();
        values.sort_unstable();
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else { return Self::default() };
        // Nearest rank: the smallest value that so many hundredths of the rows do not exceed.
        let rank = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        let total: u64 = values.iter().sum();
        let width = ((max - min + 1) as f64 / BARS as f64).max(1.0);
        let mut bars = vec![0; (((max - min) as f64 / width) as usize + 1).min(BARS)];
        let last = bars.len() - 1;
        values.iter().for_each(|value| bars[(((value - min) as f64 / width) as usize).min(last)] += 1);
        Self { min, p05: rank(5), p50: rank(50), p95: rank(95), max, mean: total as f64 / values.len() as f64, total, bars }
    }
}

/// Tokens of a part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenStats {
    /// Of a row.
    pub row: Distribution,
    /// Of its prompt: everything before the last reply.
    pub prompt: Distribution,
    /// Of its last reply.
    pub reply: Distribution,
    /// Sums by who speaks: system, user, assistant, tool, declared tools, and around rows.
    pub by_role: BTreeMap<&'static str, u64>,
}

/// Rows that are longer than what is read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverLimit {
    /// Tokens that are read.
    pub limit: u64,
    /// The rows.
    pub rows: Lines,
    /// Tokens that are cut off.
    pub tokens_cut: u64,
    /// Rows whose last reply is cut off whole: they teach nothing.
    pub replies_cut: u64,
}

/// How labels are spread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Labels {
    /// `manifest`, or `answers` where the answers themselves are few and short.
    pub from: &'static str,
    /// How many there are.
    pub labels: u64,
    /// Rows of the most frequent one.
    pub most: u64,
    /// Rows of the rarest one.
    pub least: u64,
    /// Entropy of the labels by the largest it could be: 1 where all are equally frequent.
    pub balance: f64,
    /// Rows by label.
    pub rows: BTreeMap<String, u64>,
}

fn labels(items: &[Item]) -> Option<Labels> {
    let named = items.iter().any(|item| item.label.is_some());
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    for item in items {
        if named {
            if let Some(label) = &item.label {
                *rows.entry(label.clone()).or_default() += 1;
            }
            continue;
        }
        if item.output.split_whitespace().count() > 4 || item.output.is_empty() {
            return None;
        }
        *rows.entry(item.output.clone()).or_default() += 1;
    }
    let all: u64 = rows.values().sum();
    if rows.is_empty() || !named && (rows.len() > MOST_LABELS || rows.len() as u64 * 2 > all) {
        return None;
    }
    let entropy: f64 = rows.values().map(|count| *count as f64 / all as f64).map(|share| -share * share.ln()).sum();
    let balance = if rows.len() > 1 { entropy / (rows.len() as f64).ln() } else { 1.0 };
    let (most, least) = (rows.values().max().copied().unwrap_or_default(), rows.values().min().copied().unwrap_or_default());
    Some(Labels { from: if named { "manifest" } else { "answers" }, labels: rows.len() as u64, most, least, balance, rows })
}

/// The language of a text (ISO 639-3), or what stands for none.
fn language(text: &str) -> &'static str {
    let start: String = text.chars().take(LANGUAGE_CHARACTERS).collect();
    if start.chars().filter(|c| c.is_alphabetic()).count() < LEAST_LANGUAGE_CHARACTERS {
        return "too short";
    }
    match whatlang::detect(&start) {
        Some(found) if found.is_reliable() => found.lang().code(),
        _ => "unclear",
    }
}

fn part(name: &str, path: PathBuf, loaded: &Loaded, settings: &StatsSettings) -> PartStats {
    let items = &loaded.items;
    let of = |of: fn(&Item) -> usize| Distribution::of(items.iter().map(of));
    let sum = |of: fn(&Item) -> usize| items.iter().map(of).sum::<usize>() as u64;
    let limit = settings.max_tokens;
    let languages: Vec<(&str, &str)> = items.par_iter().map(|item| (language(&item.input), language(&item.output))).collect();
    let mut personal: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    let found: Vec<BTreeSet<&'static str>> = items
        .par_iter()
        .map(|item| find_personal_data(&item.said, &PersonalKind::ALL).iter().map(|found| found.kind.as_str()).collect())
        .collect();
    for (item, kinds) in items.iter().zip(found) {
        kinds.into_iter().for_each(|kind| personal.entry(kind).or_default().push(item.line));
    }
    let (near_duplicates, conflicts) = similar::near(items, settings.listed);
    let count = |which: fn(&(&'static str, &'static str)) -> &'static str| {
        let mut counts = BTreeMap::new();
        languages.iter().for_each(|pair| *counts.entry(which(pair)).or_default() += 1);
        counts
    };
    let told = |language: &str| language != "unclear" && language != "too short";
    let switches = items.iter().zip(&languages).filter(|(_, (input, output))| input != output && told(input) && told(output));
    let over = || items.iter().filter(|item| item.tokens.total() > limit);
    PartStats {
        name: name.to_owned(),
        path,
        rows: items.len() as u64,
        unreadable: Lines::of(loaded.unreadable.iter().copied()),
        turns: of(|item| item.turns),
        tokens: TokenStats {
            row: of(|item| item.tokens.total()),
            prompt: of(|item| item.tokens.before_reply),
            reply: of(|item| item.tokens.total() - item.tokens.before_reply),
            by_role: BTreeMap::from([
                ("system", sum(|item| item.tokens.system)),
                ("user", sum(|item| item.tokens.user)),
                ("assistant", sum(|item| item.tokens.assistant)),
                ("tool", sum(|item| item.tokens.tool)),
                ("declared", sum(|item| item.tokens.declared)),
                ("row", sum(|item| item.tokens.row)),
            ]),
        },
        over_limit: OverLimit {
            limit: limit as u64,
            rows: Lines::of(over().map(|item| item.line)),
            tokens_cut: over().map(|item| item.tokens.total() - limit).sum::<usize>() as u64,
            replies_cut: over().filter(|item| item.tokens.before_reply >= limit).count() as u64,
        },
        labels: labels(items),
        exact_duplicates: similar::exact(items, settings.listed),
        near_duplicates,
        conflicts,
        personal: personal.into_iter().map(|(kind, lines)| (kind, Lines::of(lines.into_iter()))).collect(),
        input_languages: count(|pair| pair.0),
        output_languages: count(|pair| pair.1),
        language_switches: Lines::of(switches.map(|(item, _)| item.line)),
        tone: tone::tone(items),
        kinds: loaded.manifest.as_ref().map(|manifest| manifest.counts.kinds.clone()).unwrap_or_default(),
        oracle_positions: loaded.manifest.as_ref().map(|manifest| manifest.counts.oracle_positions.clone()).unwrap_or_default(),
    }
}

/// Looks at every part of a dataset. Blocking.
pub fn stats(settings: &StatsSettings) -> Result<Stats, Error> {
    let mut loaded = Vec::with_capacity(settings.parts.len());
    for (name, path) in &settings.parts {
        loaded.push((name, load(path, &*settings.tokens, &settings.frame, settings.max_line_bytes)?));
    }
    let parts: Vec<PartStats> =
        settings.parts.iter().zip(&loaded).map(|((name, path), (_, loaded))| part(name, path.clone(), loaded, settings)).collect();
    let train = loaded.iter().position(|(name, _)| *name == "train");
    let leakage = match train {
        Some(train) => {
            let others = loaded.iter().enumerate().filter(|(at, _)| *at != train);
            others.map(|(_, (name, other))| similar::leakage(name, &loaded[train].1.items, &other.items, settings.listed)).collect()
        }
        None => Vec::new(),
    };
    let trained = train.unwrap_or_default();
    let (items, tokens) = loaded
        .get(trained)
        .zip(parts.get(trained))
        .map(|((_, loaded), part)| (&loaded.items, &part.tokens))
        .ok_or_else(|| Error::Controls("name at least one file of rows".to_owned()))?;
    let billed: usize = items.iter().map(|item| item.tokens.total().min(settings.max_tokens)).sum();
    let epochs = settings.epochs.unwrap_or_else(|| default_epochs(items.len() as u64));
    let untuned = settings.untuned_prompt_tokens.unwrap_or(tokens.prompt.mean);
    let cost = cost::cost(&settings.prices, epochs, billed as u64, tokens.prompt.mean, tokens.reply.mean, untuned);
    Ok(Stats { tokenizer: settings.tokens.id().to_owned(), parts, leakage, cost })
}

#[cfg(test)]
mod tests;
