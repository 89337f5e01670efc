//! What an answer takes: time, tokens, money.

use crate::Error;
use crate::case::Reply;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Milliseconds at the middle and near the end of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the answers were complete after this.
    pub p50_ms: f64,
    /// 95 of 100 were.
    pub p95_ms: f64,
    /// Half had their first text after this.
    pub first_token_p50_ms: f64,
    /// 95 of 100 had.
    pub first_token_p95_ms: f64,
}

/// Tokens of an answer, on average. `None` where the server does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// Read.
    pub prompt: Option<f64>,
    /// Of them not computed again.
    pub cached: Option<f64>,
    /// Written.
    pub completion: Option<f64>,
}

/// What a model costs. Money has no currency: it is that of the price table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// For a million tokens read.
    #[serde(default)]
    pub prompt_per_million: f64,
    /// For a million tokens read that were cached; the full price where not given.
    #[serde(default)]
    pub cached_per_million: Option<f64>,
    /// For a million tokens written.
    #[serde(default)]
    pub completion_per_million: f64,
    /// For an hour of the machine that answers, where the model is one's own. An answer takes its time, divided by how many are answered at once.
    #[serde(default)]
    pub machine_per_hour: f64,
    /// Once: the training, the rows.
    #[serde(default)]
    pub fixed: f64,
}

/// Prices by the name of an arm or of its model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prices(pub BTreeMap<String, Price>);

impl Prices {
    /// Reads a TOML file with a table for each arm or model: `["gpt-4o-mini"]`, `prompt_per_million = 0.15`, ...
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?;
        let prices: BTreeMap<String, Price> =
            toml::from_str(&text).map_err(|error| Error::Rules { path: path.to_owned(), reason: error.to_string() })?;
        let wrong = |price: &Price| {
            let all = [
                price.prompt_per_million,
                price.cached_per_million.unwrap_or(0.0),
                price.completion_per_million,
                price.machine_per_hour,
                price.fixed,
            ];
            all.iter().any(|value| !value.is_finite() || *value < 0.0)
        };
        match prices.iter().find(|(_, price)| wrong(price)) {
            Some((name, _)) => Err(Error::Rules { path: path.to_owned(), reason: format!("a price of `{name}` is negative or no number") }),
            None => Ok(Self(prices)),
        }
    }

    /// The arm's own price, else that of its model, else that of everything (`default`).
    pub fn of(&self, arm: &str, model: &str) -> Option<&Price> {
        self.0.get(arm).or_else(|| self.0.get(model)).or_else(|| self.0.get("default"))
    }
}

impl Price {
    /// What one answer costs, with `parallel` answered at once.
    pub fn of(&self, reply: &Reply, parallel: usize) -> f64 {
        let million = |tokens: u64, price: f64| tokens as f64 * price / 1e6;
        let prompt = reply.prompt_tokens.unwrap_or(0);
        let cached = reply.cached_tokens.min(prompt);
        million(prompt - cached, self.prompt_per_million)
            + million(cached, self.cached_per_million.unwrap_or(self.prompt_per_million))
            + million(reply.completion_tokens.unwrap_or(0), self.completion_per_million)
            + reply.total_ms / 3.6e6 * self.machine_per_hour / parallel.max(1) as f64
    }
}

/// The value that `share` of the values are not above (nearest rank); 0 of none.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(0.0)
}

impl Latency {
    /// Of the answers that came.
    pub fn of(replies: &[&Reply]) -> Self {
        let mut total: Vec<f64> = replies.iter().filter(|reply| reply.error.is_none()).map(|reply| reply.total_ms).collect();
        let mut first: Vec<f64> = replies.iter().filter(|reply| reply.error.is_none()).map(|reply| reply.first_token_ms).collect();
        Self {
            p50_ms: percentile(&mut total, 0.5),
            p95_ms: percentile(&mut total, 0.95),
            first_token_p50_ms: percentile(&mut first, 0.5),
            first_token_p95_ms: percentile(&mut first, 0.95),
        }
    }
}

impl Tokens {
    /// Of the answers whose server counted.
    pub fn of(replies: &[&Reply]) -> Self {
        let mean = |count: &dyn Fn(&Reply) -> Option<u64>| {
            let known: Vec<u64> = replies.iter().filter_map(|reply| count(reply)).collect();
            (!known.is_empty()).then(|| known.iter().sum::<u64>() as f64 / known.len() as f64)
        };
        Self {
            prompt: mean(&|reply| reply.prompt_tokens),
            cached: mean(&|reply| reply.prompt_tokens.map(|_| reply.cached_tokens)),
            completion: mean(&|reply| reply.completion_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let reply = |total_ms, prompt| Reply {
            total_ms,
            first_token_ms: total_ms / 2.0,
            prompt_tokens: Some(prompt),
            cached_tokens: 500,
            completion_tokens: Some(100),
            ..Reply::default()
        };
        let replies: Vec<Reply> = (1..=20).map(|at| reply(f64::from(at) * 100.0, 1_000)).collect();
        let all: Vec<&Reply> = replies.iter().collect();
        assert_eq!(Latency::of(&all), Latency { p50_ms: 1000.0, p95_ms: 1900.0, first_token_p50_ms: 500.0, first_token_p95_ms: 950.0 });
        assert_eq!(Tokens::of(&all), Tokens { prompt: Some(1000.0), cached: Some(500.0), completion: Some(100.0) });
        let price = Price {
            prompt_per_million: 2.0,
            cached_per_million: Some(1.0),
            completion_per_million: 10.0,
            machine_per_hour: 36.0,
            fixed: 0.0,
        };
        // 500 * 2 + 500 * 1 + 100 * 10 millionths, and 0.1 s of 36 an hour shared by two.
        assert!((price.of(&replies[0], 2) - (0.0025 + 0.0005)).abs() < 1e-12);
        assert_eq!(Latency::of(&[]), Latency::default());
    }

    #[test]
    fn a_price_is_the_arms_then_the_models_then_everybodys() {
        let price = |fixed| Price { fixed, ..Price::default() };
        let prices = Prices([("rag".to_owned(), price(1.0)), ("m".to_owned(), price(2.0)), ("default".to_owned(), price(3.0))].into());
        let fixed = |arm, model| prices.of(arm, model).map(|price| price.fixed);
        assert_eq!((fixed("rag", "m"), fixed("x", "m"), fixed("x", "y")), (Some(1.0), Some(2.0), Some(3.0)));
    }
}
