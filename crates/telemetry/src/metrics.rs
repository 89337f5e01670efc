//! Everything that `/metrics` shows, and its names.
//!
//! Labels are few and bounded: routes as the router has them, variants, models, outcomes. Never a key, a tenant or a word of a customer.

use crate::Spans;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
    variant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    model: String,
    outcome: &'static str,
    variant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    kind: &'static str,
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: String,
    variant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cached {
    cache: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Canary {
    decision: &'static str,
    signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handoff {
    result: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// 0.5 ms to about 65 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 18))
}

/// What one answer was.
#[derive(Debug, Clone, Default)]
pub struct AnswerMeasure<'a> {
    /// Which of the assistant's variants.
    pub variant: &'a str,
    /// The model that wrote.
    pub model: &'a str,
    /// `answered`, `abstained`, `failed` or `cancelled`.
    pub outcome: &'static str,
    /// Name and milliseconds of each stage that was reached.
    pub stages: &'a [(&'static str, f64)],
    /// Kind and number of tokens.
    pub tokens: &'a [(&'static str, u64)],
    /// What it cost, in the currency of the prices.
    pub money: f64,
    /// The status of each citation.
    pub citations: &'a [&'a str],
}

/// Counters and histograms of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    request_seconds: Histograms<Route>,
    open: Gauge,
    answers: Family<Ended, Counter>,
    stage_seconds: Histograms<Stage>,
    tokens: Family<Tokens, Counter>,
    money: Family<Model, Counter<f64, AtomicU64>>,
    citations: Family<Status, Counter>,
    feedback: Family<Reason, Counter>,
    refused: Family<Reason, Counter>,
    lost: Counter,
    cache: Family<Cached, Counter>,
    canaries: Family<Canary, Counter>,
    handoffs: Family<Handoff, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        Self::beside(None)
    }

    /// The same with what was lost of spans that go to a collector.
    pub fn beside(spans: Option<&Spans>) -> Self {
        let mut registry = Registry::with_prefix("groundtone");
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            open: Gauge::default(),
            answers: Family::default(),
            stage_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            tokens: Family::default(),
            money: Family::default(),
            citations: Family::default(),
            feedback: Family::default(),
            refused: Family::default(),
            lost: Counter::default(),
            cache: Family::default(),
            canaries: Family::default(),
            handoffs: Family::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Requests by route and status", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From a request to the head of its response",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register("http_requests_open", "Requests whose response has not begun", metrics.open.clone());
        registry.register("answers", "Answers by how they ended", metrics.answers.clone());
        registry.register_with_unit(
            "answer_stage_duration",
            "Where the time of an answer went: retrieve, render, first_token, total",
            Unit::Seconds,
            metrics.stage_seconds.clone(),
        );
        registry.register("tokens", "Tokens: prompt (cached among them), completion (reasoning among them)", metrics.tokens.clone());
        registry.register("money", "What answers cost, in the currency of the prices", metrics.money.clone());
        registry.register("citations", "Citations by status", metrics.citations.clone());
        registry.register("feedback", "Thumbs, up and down", metrics.feedback.clone());
        registry.register("refused", "Requests turned away: key, scope, limit", metrics.refused.clone());
        registry.register(
            "records_lost",
            "Traces that were not stored because the catalog did not keep up or failed",
            metrics.lost.clone(),
        );
        registry.register(
            "spans_lost",
            "Spans that the collector did not take, or that had no room to wait",
            spans.map_or_else(Counter::default, Spans::lost),
        );
        registry.register("cache", "Look-ups of the caches of answers and of query embeddings", metrics.cache.clone());
        registry.register("canary_decisions", "Canaries that were stopped, and by which signal, or that passed", metrics.canaries.clone());
        registry.register("handoffs", "Questions handed over to people: delivered, retried, dead, lost", metrics.handoffs.clone());
        Self { registry, ..metrics }
    }

    /// A request has come; [`Self::request`] says how it was answered.
    pub fn request_begins(&self) {
        self.open.inc();
    }

    /// A request was answered, or its client has left.
    pub fn request(&self, method: &str, route: &str, status: u16, seconds: f64) {
        self.open.dec();
        self.requests.get_or_create(&Request { method: method.to_owned(), route: route.to_owned(), status }).inc();
        self.request_seconds.get_or_create(&Route { route: route.to_owned() }).observe(seconds);
    }

    /// An answer came to its end.
    pub fn answer(&self, measure: &AnswerMeasure<'_>) {
        let (variant, model) = (measure.variant, measure.model);
        self.answers.get_or_create(&Ended { model: model.to_owned(), outcome: measure.outcome, variant: variant.to_owned() }).inc();
        for (stage, milliseconds) in measure.stages {
            self.stage_seconds.get_or_create(&Stage { stage, variant: variant.to_owned() }).observe(milliseconds / 1e3);
        }
        for (kind, count) in measure.tokens {
            self.tokens.get_or_create(&Tokens { kind, model: model.to_owned() }).inc_by(*count);
        }
        if measure.money > 0.0 {
            self.money.get_or_create(&Model { model: model.to_owned() }).inc_by(measure.money);
        }
        for status in measure.citations {
            self.citations.get_or_create(&Status { status: (*status).to_owned(), variant: variant.to_owned() }).inc();
        }
    }

    /// Somebody thought something of an answer: `up` or `down`.
    pub fn feedback(&self, thumb: &'static str) {
        self.feedback.get_or_create(&Reason { reason: thumb }).inc();
    }

    /// A request was turned away: `key`, `scope`, `requests`, `tokens` or `money`.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// Traces were lost.
    pub fn lost(&self, count: u64) {
        self.lost.inc_by(count);
    }

    /// Something was looked up in a cache: `answers` or `queries`.
    pub fn cached(&self, cache: &'static str, hit: bool) {
        self.cache.get_or_create(&Cached { cache, result: if hit { "hit" } else { "miss" } }).inc();
    }

    /// A canary was decided: `stop` and the signal, or `pass`.
    pub fn canary(&self, decision: &'static str, signal: &'static str) {
        self.canaries.get_or_create(&Canary { decision, signal }).inc();
    }

    /// A question was to be handed over to people: `delivered`, `retried`, `dead` or `lost`.
    pub fn handoff(&self, result: &'static str, count: u64) {
        self.handoffs.get_or_create(&Handoff { result }).inc_by(count);
    }

    /// Everything in the OpenMetrics text format.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.request_begins();
        metrics.request("POST", "/v1/chat/completions", 200, 0.003);
        metrics.answer(&AnswerMeasure {
            variant: "rag",
            model: "m",
            outcome: "answered",
            stages: &[("retrieve", 4.0)],
            tokens: &[("prompt", 40), ("completion", 9)],
            money: 0.25,
            citations: &["verified", "removed"],
        });
        metrics.feedback("down");
        metrics.refused("key");
        metrics.lost(2);
        metrics.cached("queries", true);
        metrics.canary("stop", "error");
        metrics.handoff("lost", 3);
        let text = metrics.text().unwrap();
        for line in [
            "groundtone_http_requests_total{method=\"POST\",route=\"/v1/chat/completions\",status=\"200\"} 1",
            "groundtone_http_request_duration_seconds_bucket{le=\"0.004\",route=\"/v1/chat/completions\"} 1",
            "groundtone_http_requests_open 0",
            "groundtone_answers_total{model=\"m\",outcome=\"answered\",variant=\"rag\"} 1",
            "groundtone_answer_stage_duration_seconds_count{stage=\"retrieve\",variant=\"rag\"} 1",
            "groundtone_tokens_total{kind=\"prompt\",model=\"m\"} 40",
            "groundtone_money_total{model=\"m\"} 0.25",
            "groundtone_citations_total{status=\"removed\",variant=\"rag\"} 1",
            "groundtone_feedback_total{reason=\"down\"} 1",
            "groundtone_refused_total{reason=\"key\"} 1",
            "groundtone_records_lost_total 2",
            "groundtone_spans_lost_total 0",
            "groundtone_cache_total{cache=\"queries\",result=\"hit\"} 1",
            "groundtone_canary_decisions_total{decision=\"stop\",signal=\"error\"} 1",
            "groundtone_handoffs_total{result=\"lost\"} 3",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
