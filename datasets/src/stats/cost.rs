//! What training would cost, and after how many requests it has paid for itself.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The table that comes with the program; it has a date because it ages.
pub const PRICES: &str = include_str!("prices.toml");

/// Prices of a day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// The day they were read.
    pub date: String,
    /// Models that can be tuned.
    #[serde(rename = "model")]
    pub models: Vec<Price>,
}

/// Prices of one model, in USD for a million tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Its name.
    pub name: String,
    /// What the untuned model reads.
    pub input: f64,
    /// What it writes.
    pub output: f64,
    /// What the tuned model reads.
    pub tuned_input: f64,
    /// What it writes.
    pub tuned_output: f64,
    /// What it is trained on, for each epoch.
    pub training: f64,
    /// The day on which it is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
}

impl PriceTable {
    /// The table of a file, or the one that comes with the program.
    pub fn read(path: Option<&Path>) -> Result<Self, Error> {
        let text = match path {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?
            }
            None => PRICES.to_owned(),
        };
        toml::from_str(&text)
            .map_err(|error| Error::File { path: path.unwrap_or(Path::new("prices.toml")).to_owned(), reason: error.message().to_owned() })
    }
}

/// What a file of rows would cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// The day of the prices.
    pub prices_of: String,
    /// Passes over the rows.
    pub epochs: u64,
    /// Tokens that are billed: each row up to the limit, times the epochs.
    pub billed_tokens: u64,
    /// For each model.
    pub models: Vec<ModelCost>,
}

/// What one model would cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelCost {
    /// Its name.
    pub name: String,
    /// The day on which it is switched off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
    /// USD for the training.
    pub training_usd: f64,
    /// USD for a thousand requests like the rows, to the tuned model.
    pub tuned_usd: f64,
    /// USD for a thousand requests to the untuned model with the longer prompt.
    pub untuned_usd: f64,
    /// Tokens of a prompt from which on the tuned model is cheaper.
    pub cheaper_from_prompt_tokens: f64,
    /// Requests after which the training has paid for itself; `None`: never.
    pub break_even_requests: Option<u64>,
}

/// Passes over the rows where nobody says how many: three, more for few rows, fewer for many (OpenAI's default).
pub fn default_epochs(rows: u64) -> u64 {
    match rows {
        0 => 0,
        rows if rows * 3 < 100 => (100 / rows).min(25),
        rows if rows * 3 > 25_000 => (25_000 / rows).max(1),
        _ => 3,
    }
}

/// Costs by a table. `prompt_tokens` and `reply_tokens` are the means of the rows; `untuned_prompt_tokens` is what the untuned model reads for the same question.
pub(super) fn cost(
    prices: &PriceTable,
    epochs: u64,
    row_tokens: u64,
    prompt_tokens: f64,
    reply_tokens: f64,
    untuned_prompt_tokens: f64,
) -> Cost {
    let billed_tokens = row_tokens * epochs;
    let models = prices.models.iter().map(|price| {
        let training_usd = billed_tokens as f64 * price.training / 1e6;
        let request = |input: f64, output: f64, tokens: f64| (tokens * input + reply_tokens * output) / 1e6;
        let tuned = request(price.tuned_input, price.tuned_output, prompt_tokens);
        let untuned = request(price.input, price.output, untuned_prompt_tokens);
        let saved = untuned - tuned;
        ModelCost {
            name: price.name.clone(),
            off: price.off.clone(),
            training_usd,
            tuned_usd: tuned * 1_000.0,
            untuned_usd: untuned * 1_000.0,
            cheaper_from_prompt_tokens: (tuned * 1e6 - reply_tokens * price.output) / price.input,
            break_even_requests: (saved > 0.0).then(|| (training_usd / saved).ceil() as u64),
        }
    });
    Cost { prices_of: prices.date.clone(), epochs, billed_tokens, models: models.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_openais_defaults() {
        assert_eq!([1, 4, 10, 33, 34, 100, 8_333, 8_334, 30_000].map(default_epochs), [25, 25, 10, 3, 3, 3, 3, 2, 1]);
    }

    #[test]
    fn training_pays_for_itself_where_prompts_shrink_enough() {
        let table = PriceTable::read(None).unwrap();
        let at = |untuned: f64| {
            let cost = cost(&table, 3, 1_000_000, 200.0, 100.0, untuned);
            cost.models.into_iter().find(|model| model.name == "gpt-4.1-mini").unwrap()
        };
        let mini = at(2_000.0);
        // 3,000,000 tokens at 5 USD; 200 x 0.80 + 100 x 3.20 = 480 against 2,000 x 0.40 + 100 x 1.60 = 960 millionths of a dollar.
        let cents = |usd: f64| (usd * 100.0).round();
        assert_eq!((cents(mini.training_usd), cents(mini.tuned_usd), cents(mini.untuned_usd)), (1_500.0, 48.0, 96.0));
        assert_eq!(mini.break_even_requests, Some(31_250));
        assert!((mini.cheaper_from_prompt_tokens - 800.0).abs() < 1e-6);
        assert_eq!(at(800.0).break_even_requests, None);
    }

    #[test]
    fn a_table_of_ones_own_is_read_and_a_wrong_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prices.toml");
        std::fs::write(
            &path,
            "date = \"2027-01-01\"\n[[model]]\nname = \"m\"\ninput = 1\noutput = 2\ntuned_input = 3\ntuned_output = 4\ntraining = 5\n",
        )
        .unwrap();
        assert_eq!(PriceTable::read(Some(&path)).unwrap().models[0].training, 5.0);
        std::fs::write(&path, "date = \"x\"\n[[model]]\nname = \"m\"\nprice = 1\n").unwrap();
        assert!(PriceTable::read(Some(&path)).unwrap_err().to_string().contains("prices.toml"));
    }
}
