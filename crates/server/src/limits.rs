//! How much a key may use: counted in minutes and days of the clock (UTC). Pure: the time is passed in.
//!
//! A request is counted when it comes; tokens and money when its answer is through. So an answer that has begun is never cut off, and the last one before a limit may pass it.

use groundtone_catalog::{KeyLimits, Used};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;
const MICROS: f64 = 1e6;

/// What has been used in one minute or one day.
#[derive(Debug, Clone, Copy, Default)]
struct Period {
    /// Which minute or day since 1970.
    index: i64,
    used: Used,
}

impl Period {
    fn at(&mut self, index: i64) -> &mut Used {
        if self.index != index {
            *self = Self { index, used: Used::default() };
        }
        &mut self.used
    }
}

/// What one key has used.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    minute: Period,
    day: Period,
    /// Not yet in the catalog, by day.
    unsaved: Vec<(i64, Used)>,
}

/// How far a key is from a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gauge {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Until it starts anew.
    pub(crate) reset_seconds: u64,
}

/// What the headers `x-ratelimit-*` say: of two limits the one that is nearer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) requests: Option<Gauge>,
    pub(crate) tokens: Option<Gauge>,
}

/// Why a request is turned away.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// `requests`, `tokens` or `money`.
    pub(crate) what: &'static str,
    /// Which limit, in words.
    pub(crate) sentence: String,
    pub(crate) retry_after_seconds: u64,
}

fn micros(money: f64) -> u64 {
    (money.max(0.0) * MICROS).round() as u64
}

fn left(now: i64, period: i64) -> u64 {
    (period - now.rem_euclid(period)).unsigned_abs()
}

impl Meter {
    /// Goes on from what a day's usage was when the process before this one ended.
    pub(crate) fn restore(&mut self, day: i64, used: Used) {
        self.day = Period { index: day, used };
    }

    /// Counts a request, or says which limit it would pass. One that is turned away is not counted.
    pub(crate) fn admit(&mut self, now: i64, limits: &KeyLimits) -> (Standing, Result<(), Refusal>) {
        let minute = *self.minute.at(now.div_euclid(MINUTE));
        let day = *self.day.at(now.div_euclid(DAY));
        let checks = [
            ("requests", "minute", MINUTE, limits.requests_per_minute, minute.requests),
            ("tokens", "minute", MINUTE, limits.tokens_per_minute, minute.tokens),
            ("money", "minute", MINUTE, limits.money_per_minute.map(micros), minute.micros),
            ("requests", "day", DAY, limits.requests_per_day, day.requests),
            ("tokens", "day", DAY, limits.tokens_per_day, day.tokens),
            ("money", "day", DAY, limits.money_per_day.map(micros), day.micros),
        ];
        // Of several the longest wait: coming back earlier would be in vain.
        let passed = checks.into_iter().rev().find(|(_, _, _, limit, used)| limit.is_some_and(|limit| *used >= limit));
        let refusal = passed.map(|(what, name, period, limit, _)| {
            let limit = limit.unwrap_or_default();
            let limit = if what == "money" { (limit as f64 / MICROS).to_string() } else { limit.to_string() };
            Refusal {
                what,
                sentence: format!("the limit of this key is reached: {limit} {what} a {name}"),
                retry_after_seconds: left(now, period),
            }
        });
        if refusal.is_none() {
            self.count(now, Used { requests: 1, ..Used::default() });
        }
        (self.standing(now, limits), refusal.map_or(Ok(()), Err))
    }

    /// Counts what an answer took.
    pub(crate) fn count(&mut self, now: i64, used: Used) {
        let day = now.div_euclid(DAY);
        *self.minute.at(now.div_euclid(MINUTE)) += used;
        *self.day.at(day) += used;
        match self.unsaved.last_mut() {
            Some((last, sum)) if *last == day => *sum += used,
            _ => self.unsaved.push((day, used)),
        }
    }

    fn standing(&mut self, now: i64, limits: &KeyLimits) -> Standing {
        let minute = *self.minute.at(now.div_euclid(MINUTE));
        let day = *self.day.at(now.div_euclid(DAY));
        let gauge = |limit: Option<u64>, used: u64, period: i64| {
            limit.map(|limit| Gauge { limit, remaining: limit.saturating_sub(used), reset_seconds: left(now, period) })
        };
        let nearer = |a: Option<Gauge>, b: Option<Gauge>| a.into_iter().chain(b).min_by_key(|gauge| gauge.remaining);
        Standing {
            requests: nearer(gauge(limits.requests_per_minute, minute.requests, MINUTE), gauge(limits.requests_per_day, day.requests, DAY)),
            tokens: nearer(gauge(limits.tokens_per_minute, minute.tokens, MINUTE), gauge(limits.tokens_per_day, day.tokens, DAY)),
        }
    }

    /// What was used today.
    pub(crate) fn today(&mut self, now: i64) -> Used {
        *self.day.at(now.div_euclid(DAY))
    }

    /// What is not in the catalog yet; the caller puts it there.
    pub(crate) fn take_unsaved(&mut self) -> Vec<(i64, Used)> {
        std::mem::take(&mut self.unsaved)
    }
}

/// What a model's tokens cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// The model's name, as the model server has it.
    pub model: String,
    /// A million tokens read.
    pub input: f64,
    /// A million tokens written.
    pub output: f64,
}

impl Price {
    /// What an answer costs, in millionths; nothing where the model has no price.
    pub(crate) fn of(prices: &[Self], model: &str, usage: groundtone_types::TokenUsage) -> u64 {
        let price = prices.iter().find(|price| price.model == model);
        // A price is for a million tokens, and the sum is in millionths: the two cancel out.
        price.map_or(0, |price| (price.input * usage.prompt_tokens as f64 + price.output * usage.completion_tokens as f64).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_limits_of_a_minute_and_of_a_day_hold() {
        let limits = KeyLimits { requests_per_minute: Some(2), requests_per_day: Some(3), ..KeyLimits::default() };
        let mut meter = Meter::default();
        let now = 10 * DAY + 90;
        assert_eq!(meter.admit(now, &limits).0.requests, Some(Gauge { limit: 2, remaining: 1, reset_seconds: 30 }));
        assert!(meter.admit(now + 1, &limits).1.is_ok());
        let (standing, refused) = meter.admit(now + 2, &limits);
        let refused = refused.unwrap_err();
        assert_eq!((refused.what, refused.retry_after_seconds, standing.requests.unwrap().remaining), ("requests", 28, 0));
        assert_eq!(refused.sentence, "the limit of this key is reached: 2 requests a minute");
        assert!(meter.admit(now + 30, &limits).1.is_ok(), "another minute");
        assert_eq!(meter.admit(now + 31, &limits).1.unwrap_err().retry_after_seconds, (DAY - 121) as u64);
        assert!(meter.admit(11 * DAY, &limits).1.is_ok(), "another day");
    }

    #[test]
    fn tokens_and_money_are_counted_when_an_answer_is_through() {
        let limits = KeyLimits { tokens_per_minute: Some(100), money_per_day: Some(0.01), ..KeyLimits::default() };
        let mut meter = Meter::default();
        meter.admit(0, &limits).1.unwrap();
        meter.count(1, Used { tokens: 120, micros: 9_000, requests: 0 });
        assert_eq!(meter.admit(2, &limits).1.unwrap_err().what, "tokens");
        meter.admit(60, &limits).1.unwrap();
        meter.count(61, Used { micros: 1_000, ..Used::default() });
        assert_eq!(meter.admit(120, &limits).1.unwrap_err().sentence, "the limit of this key is reached: 0.01 money a day");
        assert_eq!(meter.take_unsaved(), [(0, Used { requests: 2, tokens: 120, micros: 10_000 })]);
        assert!(meter.take_unsaved().is_empty());
        let mut after = Meter::default();
        after.restore(0, meter.today(120));
        assert_eq!(after.admit(121, &limits).1.unwrap_err().what, "money", "a restart forgets no day");
    }

    #[test]
    fn a_price_is_for_a_million_tokens() {
        let prices = [Price { model: "m".into(), input: 0.5, output: 2.0 }];
        let usage = groundtone_types::TokenUsage { prompt_tokens: 1_000, completion_tokens: 100, ..Default::default() };
        assert_eq!((Price::of(&prices, "m", usage), Price::of(&prices, "other", usage)), (700, 0));
    }

    proptest! {
        #[test]
        fn no_minute_and_no_day_admits_more_than_its_limit(
            steps in proptest::collection::vec(0i64..40, 1..200),
            minute in 0u64..6,
            day in 0u64..40,
        ) {
            let limits = KeyLimits { requests_per_minute: Some(minute), requests_per_day: Some(day), ..KeyLimits::default() };
            let (mut meter, mut now) = (Meter::default(), DAY - 600);
            let mut admitted: Vec<i64> = Vec::new();
            for step in steps {
                now += step;
                let within = |period: i64| admitted.iter().filter(|at| at.div_euclid(period) == now.div_euclid(period)).count() as u64;
                let room = within(MINUTE) < minute && within(DAY) < day;
                let (_, outcome) = meter.admit(now, &limits);
                prop_assert_eq!(outcome.is_ok(), room);
                if let Err(refusal) = &outcome {
                    prop_assert!(refusal.retry_after_seconds >= 1);
                }
                if outcome.is_ok() {
                    admitted.push(now);
                }
            }
        }
    }
}
