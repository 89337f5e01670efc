//! The settings as types. What each means stands in `groundtone.default.toml`, in the same order.
#![expect(missing_docs, reason = "groundtone.default.toml is the documentation; a test holds it complete")]

use groundtone_types::{Collection, PersonalKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data: Data,
    pub models: Models,
    pub embedder: Embedder,
    pub chat: Chat,
    pub store: Store,
    pub ingest: Ingest,
    pub sources: Sources,
    pub retrieval: Retrieval,
    pub reranker: Reranker,
    pub gate: Gate,
    pub variants: BTreeMap<String, Variant>,
    pub release: Release,
    pub handoff: Handoff,
    pub citations: Citations,
    pub assistant: Assistant,
    pub server: Server,
    pub limits: KeyLimits,
    pub traces: Traces,
    pub privacy: Privacy,
    pub cache: Cache,
    pub files: Files,
    pub tuning: Tuning,
    pub log: Log,
    pub telemetry: Telemetry,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Local,
    Openai,
}

/// Which server reads documents that our own parsers do not read, or read worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtractorKind {
    None,
    Tika,
    Docling,
}

/// Which arms search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetrievalMode {
    Hybrid,
    Dense,
    Bm25,
}

/// How two arms become one ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FusionKind {
    Rrf,
    Weighted,
}

/// Who reads question and snippet together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RerankerKind {
    None,
    Local,
    Tei,
    Cohere,
}

/// What becomes of a citation whose source does not say what the answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CitationPolicy {
    Report,
    Repair,
    Remove,
    Refuse,
}

/// Which links an answer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Links {
    Known,
    Any,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    pub directory: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    pub directory: PathBuf,
    pub hub: String,
    pub python: String,
    pub offline: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedder {
    pub kind: Engine,
    pub model: String,
    pub url: String,
    pub api_key_env: String,
    pub dimensions: usize,
    pub max_tokens: usize,
    pub batch: usize,
    pub batch_tokens: usize,
    pub parallel: usize,
    pub requests_per_minute: u32,
    pub tokens_per_minute: u32,
    pub attempts: usize,
    pub price_per_million_tokens: f64,
    pub timeout_seconds: u64,
    pub threads: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    pub kind: Engine,
    pub model: String,
    pub path: PathBuf,
    pub url: String,
    pub api_key_env: String,
    pub context_tokens: u32,
    pub max_tokens: u32,
    pub temperature: f32,
    pub threads: usize,
    pub parallel: u32,
    pub queue: usize,
    pub connect_timeout_seconds: u64,
    pub first_token_timeout_seconds: u64,
    pub idle_timeout_seconds: u64,
    pub total_timeout_seconds: u64,
    pub remote_parallel: usize,
    pub queue_timeout_seconds: u64,
    pub retries: usize,
    pub retry_pause_seconds: u64,
    pub breaker_failures: u32,
    pub breaker_rest_seconds: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    pub url: String,
    pub api_key_env: String,
    pub timeout_seconds: u64,
    pub bm25_language: String,
    pub bm25_average_length: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    pub collection: Collection,
    pub chunk_tokens: usize,
    pub overlap_tokens: usize,
    pub parent_tokens: usize,
    pub breadcrumb: bool,
    pub embedding_cache_mb: u64,
    pub max_file_bytes: u64,
    pub split_above_bytes: u64,
    pub parse_timeout_seconds: u64,
    pub extract_workers: usize,
    pub extract_memory_mb: u64,
    pub extractor_kind: ExtractorKind,
    pub extractor_url: String,
    pub extractor_endings: Vec<String>,
    pub url_prefix: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    pub allow_private_hosts: Vec<String>,
    pub web_max_pages: usize,
    pub web_timeout_seconds: u64,
    pub web_user_agent: String,
    pub s3_endpoint: String,
    pub s3_region: String,
    pub s3_access_key_env: String,
    pub s3_secret_key_env: String,
    pub s3_allow_http: bool,
    pub record_max_bytes: usize,
    pub watch_debounce_ms: u64,
    pub watch_rescan_seconds: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retrieval {
    pub mode: RetrievalMode,
    pub top_k: usize,
    pub candidates: usize,
    pub fusion: FusionKind,
    pub rrf_k: u32,
    pub dense_weight: f32,
    pub recency_field: String,
    pub recency_half_life_days: f64,
    pub recency_weight: f32,
    pub trust: Vec<String>,
    pub mmr_lambda: f32,
    pub merge_neighbours: bool,
    pub condense: bool,
    pub condense_timeout_seconds: u64,
}

impl Retrieval {
    /// `trust` as prefixes and weights; `None` for an entry that is not `PREFIX=WEIGHT` with a weight between 0 and 10.
    pub fn trust_weights(&self) -> impl Iterator<Item = Option<(String, f32)>> {
        self.trust.iter().map(|entry| {
            let (prefix, weight) = entry.rsplit_once('=')?;
            let weight: f32 = weight.trim().parse().ok()?;
            (!prefix.is_empty() && (0.0..=10.0).contains(&weight)).then(|| (prefix.to_owned(), weight))
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reranker {
    pub kind: RerankerKind,
    pub path: PathBuf,
    pub max_tokens: usize,
    pub threads: usize,
    pub url: String,
    pub api_key_env: String,
    pub model: String,
    pub candidates: usize,
    pub batch: usize,
    pub timeout_seconds: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    pub embedder: String,
    pub threshold: f64,
    pub intercept: f64,
    pub dense: f64,
    pub bm25: f64,
    pub margin: f64,
    pub coverage: f64,
}

/// A way to answer; what is not given is that of the assistant and the chat model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Variant {
    pub retrieval: Option<bool>,
    pub prompt_file: Option<PathBuf>,
    pub system: Option<String>,
    pub kind: Option<Engine>,
    pub model: Option<String>,
    pub path: Option<PathBuf>,
    pub url: Option<String>,
    pub api_key_env: Option<String>,
    pub context_tokens: Option<u32>,
}

impl Variant {
    /// Its keys.
    pub(crate) const KEYS: [&str; 9] =
        ["retrieval", "prompt_file", "system", "kind", "model", "path", "url", "api_key_env", "context_tokens"];

    /// Whether it looks documents up; `name` is its own.
    pub fn looks_up(&self, name: &str) -> bool {
        self.retrieval.unwrap_or(!matches!(name, "prompted" | "tuned"))
    }

    /// The chat model that writes its answers; `None` where it is the assistant's own.
    pub fn chat(&self, own: &Chat) -> Option<Chat> {
        let named =
            self.kind.is_some() || self.model.is_some() || self.path.is_some() || self.url.is_some() || self.context_tokens.is_some();
        named.then(|| {
            let own = own.clone();
            Chat {
                kind: self.kind.unwrap_or(own.kind),
                // A model that is named is not the file that the own one comes from.
                path: self.path.clone().unwrap_or(if self.model.is_some() { PathBuf::new() } else { own.path }),
                model: self.model.clone().unwrap_or(own.model),
                url: self.url.clone().unwrap_or(own.url),
                api_key_env: self.api_key_env.clone().unwrap_or(own.api_key_env),
                context_tokens: self.context_tokens.unwrap_or(own.context_tokens),
                ..own
            }
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub variant: String,
    pub fallbacks: Vec<String>,
    pub shadow: String,
    pub shadow_parallel: usize,
    pub canary_watch: bool,
    pub canary_alpha: f64,
    pub canary_margins: Vec<String>,
    pub canary_slowest_seconds: u64,
}

impl Release {
    /// What can be watched of a canary.
    pub const SIGNALS: [&str; 5] = ["error", "citation_failure", "abstention", "latency", "feedback"];

    /// `canary_margins` as signals and margins; `None` for an entry that is not `SIGNAL=MARGIN` with a margin above 0 and below 1.
    pub fn margins(&self) -> impl Iterator<Item = Option<(&str, f64)>> {
        self.canary_margins.iter().map(|entry| {
            let (signal, margin) = entry.split_once('=')?;
            let margin: f64 = margin.trim().parse().ok()?;
            let signal = signal.trim();
            (Self::SIGNALS.contains(&signal) && margin > 0.0 && margin < 1.0).then_some((signal, margin))
        })
    }
}

/// Why a question is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandoffReason {
    NoEvidence,
    Model,
    Citations,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    pub webhook_url: String,
    pub webhook_secret_env: String,
    pub reasons: Vec<HandoffReason>,
    pub redact: bool,
    pub timeout_seconds: u64,
    pub attempts: u32,
    pub pause_seconds: u64,
    pub max_waiting: u64,
    pub keep_days: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Citations {
    pub policy: CitationPolicy,
    pub links: Links,
    pub link_hosts: Vec<String>,
    pub semantic_bound: f32,
    pub semantic_timeout_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assistant {
    pub name: String,
    pub collection: Collection,
    pub system: String,
    pub abstain: String,
    pub context_tokens: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub api_key_sha256: Vec<String>,
    pub api_key_env: String,
    pub cors_origins: Vec<String>,
    pub page_token_seconds: u32,
    pub audit_days: u32,
    pub max_body_bytes: usize,
    pub request_timeout_seconds: u64,
    pub drain_seconds: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    pub requests_per_minute: u64,
    pub requests_per_day: u64,
    pub tokens_per_minute: u64,
    pub tokens_per_day: u64,
    pub money_per_minute: f64,
    pub money_per_day: f64,
    pub prices: Vec<String>,
}

impl Server {
    /// Whether it listens for this machine only.
    pub fn is_loopback(&self) -> bool {
        crate::check::is_loopback(&self.host)
    }
}

impl KeyLimits {
    /// `prices` as model, price of a million tokens read, and of a million written; `None` for an entry that is not `MODEL=INPUT/OUTPUT`.
    pub fn model_prices(&self) -> impl Iterator<Item = Option<(String, f64, f64)>> {
        self.prices.iter().map(|entry| {
            let (model, prices) = entry.rsplit_once('=')?;
            let (input, output) = prices.split_once('/')?;
            let price = |text: &str| text.trim().parse::<f64>().ok().filter(|price| (0.0..=1e6).contains(price));
            let model = model.trim();
            (!model.is_empty()).then(|| Some((model.to_owned(), price(input)?, price(output)?)))?
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    pub keep: bool,
    pub keep_days: u32,
    pub keep_count: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    pub redact: Vec<PersonalKind>,
    pub patterns: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    pub answers_mb: u64,
    pub queries: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    pub quota_mb: u64,
    pub max_files: u64,
    pub max_vector_stores: u32,
}

/// Who trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainerKind {
    Local,
    Command,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    pub trainer: TrainerKind,
    pub command: Vec<String>,
    pub command_env: Vec<String>,
    pub command_timeout_seconds: u64,
    pub command_output_mb: u64,
    pub vllm_url: String,
    pub vllm_api_key_env: String,
    pub base_models: Vec<String>,
    pub parallel: usize,
    pub max_open_jobs: u64,
    pub max_file_mb: u64,
    pub rank: u32,
    pub alpha: f64,
    pub dropout: f64,
    pub target_modules: Vec<String>,
    pub trained_layers: u32,
    pub max_row_tokens: u32,
    pub learning_rate_multiplier: f64,
    pub checkpoint_every: u32,
    pub validate_every: u32,
    pub merged_models: Vec<String>,
    pub retirements: Vec<String>,
    pub webhook_url: String,
    pub webhook_secret_env: String,
}

impl Tuning {
    /// When a base model stops answering, as a date, by the longest prefix of its name.
    pub fn retirement(&self, base: &str) -> Option<&str> {
        let dated = self.retirements.iter().filter_map(|entry| entry.rsplit_once('='));
        dated.filter(|(prefix, _)| base.starts_with(prefix)).max_by_key(|(prefix, _)| prefix.len()).map(|(_, date)| date)
    }

    /// `base_models` as names and the models that they stand for; `None` for an entry that is not `NAME=MODEL`.
    pub fn base_model_pairs(&self) -> impl Iterator<Item = Option<(String, String)>> {
        self.base_models.iter().map(|entry| {
            let (name, model) = entry.rsplit_once('=')?;
            let (name, model) = (name.trim(), model.trim());
            (!name.is_empty() && !model.is_empty()).then(|| (name.to_owned(), model.to_owned()))
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    pub otlp_url: String,
    pub otlp_api_key_env: String,
    pub otlp_api_key_header: String,
    pub otlp_share: f64,
    pub otlp_timeout_seconds: u64,
    pub otlp_queue: usize,
}
