//! Values that have the right type and are wrong all the same. A problem is a key and a reason.

use crate::settings::{
    Config, Engine, ExtractorKind, Gate, Handoff, Ingest, Release, Reranker, RerankerKind, Retrieval, Sources, Telemetry, TrainerKind,
    Tuning,
};

type Problem = (&'static str, String);

fn between<T: PartialOrd + std::fmt::Display + Copy>(key: &'static str, value: T, least: T, most: T) -> Result<(), Problem> {
    if value >= least && value <= most { Ok(()) } else { Err((key, format!("must be between {least} and {most}"))) }
}

fn web_address(key: &'static str, url: &str) -> Result<(), Problem> {
    let web = url.is_empty() || url.starts_with("http://") || url.starts_with("https://");
    if web { Ok(()) } else { Err((key, "must begin with http:// or https://".to_owned())) }
}

fn needs_url(key: &'static str, kind: &str, engine: Engine, url: &str) -> Result<(), Problem> {
    if engine == Engine::Openai && url.is_empty() {
        Err((key, format!("`{kind} = \"openai\"` needs the server's base URL")))
    } else {
        Ok(())
    }
}

/// A server without endings, or endings without a server, would quietly do nothing.
fn extractor(ingest: &Ingest) -> Result<(), Problem> {
    web_address("ingest.extractor_url", &ingest.extractor_url)?;
    between("ingest.extract_workers", ingest.extract_workers, 1, 64)?;
    between("ingest.extract_memory_mb", ingest.extract_memory_mb, 256, 1_000_000)?;
    if let Some(wrong) =
        ingest.extractor_endings.iter().find(|ending| ending.is_empty() || ending.starts_with('.') || ending.to_lowercase() != **ending)
    {
        return Err(("ingest.extractor_endings", format!("`{wrong}` must be a file ending in lower case without its dot")));
    }
    if ingest.extractor_kind == ExtractorKind::None {
        let nothing = ingest.extractor_url.is_empty() && ingest.extractor_endings.is_empty();
        return if nothing {
            Ok(())
        } else {
            Err(("ingest.extractor_kind", "must be \"tika\" or \"docling\" where a server or its endings are named".to_owned()))
        };
    }
    if ingest.extractor_url.is_empty() {
        return Err(("ingest.extractor_url", "`ingest.extractor_kind` needs the server's base URL".to_owned()));
    }
    if ingest.extractor_endings.is_empty() {
        return Err(("ingest.extractor_endings", "`ingest.extractor_kind` needs at least one file ending".to_owned()));
    }
    Ok(())
}

pub(crate) fn check(config: &Config) -> Result<(), Problem> {
    needs_url("embedder.url", "embedder.kind", config.embedder.kind, &config.embedder.url)?;
    needs_url("chat.url", "chat.kind", config.chat.kind, &config.chat.url)?;
    web_address("embedder.url", &config.embedder.url)?;
    web_address("chat.url", &config.chat.url)?;
    web_address("store.url", &config.store.url)?;
    web_address("models.hub", &config.models.hub)?;
    between("embedder.dimensions", config.embedder.dimensions, 1, 65_536)?;
    between("embedder.max_tokens", config.embedder.max_tokens, 16, 1_000_000)?;
    between("embedder.batch", config.embedder.batch, 1, 2_048)?;
    between("embedder.batch_tokens", config.embedder.batch_tokens, 1, 10_000_000)?;
    between("embedder.parallel", config.embedder.parallel, 1, 256)?;
    between("embedder.attempts", config.embedder.attempts, 1, 100)?;
    between("embedder.price_per_million_tokens", config.embedder.price_per_million_tokens, 0.0, 1e6)?;
    between("embedder.timeout_seconds", config.embedder.timeout_seconds, 1, 3_600)?;
    between("chat.context_tokens", config.chat.context_tokens, 256, 10_000_000)?;
    between("chat.max_tokens", config.chat.max_tokens, 1, config.chat.context_tokens / 2)?;
    between("chat.temperature", config.chat.temperature, 0.0, 2.0)?;
    between("chat.parallel", config.chat.parallel, 1, 64)?;
    between("chat.queue", config.chat.queue, 0, 10_000)?;
    between("chat.connect_timeout_seconds", config.chat.connect_timeout_seconds, 1, 3_600)?;
    between("chat.first_token_timeout_seconds", config.chat.first_token_timeout_seconds, 1, 3_600)?;
    between("chat.idle_timeout_seconds", config.chat.idle_timeout_seconds, 1, 3_600)?;
    between("chat.total_timeout_seconds", config.chat.total_timeout_seconds, 1, 86_400)?;
    between("chat.remote_parallel", config.chat.remote_parallel, 1, 100_000)?;
    between("chat.queue_timeout_seconds", config.chat.queue_timeout_seconds, 1, 3_600)?;
    between("chat.retries", config.chat.retries, 0, 20)?;
    between("chat.retry_pause_seconds", config.chat.retry_pause_seconds, 1, 3_600)?;
    between("chat.breaker_failures", config.chat.breaker_failures, 0, 10_000)?;
    between("chat.breaker_rest_seconds", config.chat.breaker_rest_seconds, 1, 3_600)?;
    between("store.timeout_seconds", config.store.timeout_seconds, 1, 3_600)?;
    between("store.bm25_average_length", config.store.bm25_average_length, 1.0, 1e6)?;
    between("ingest.chunk_tokens", config.ingest.chunk_tokens, 16, 8_192)?;
    between("ingest.overlap_tokens", config.ingest.overlap_tokens, 0, config.ingest.chunk_tokens / 2)?;
    between("ingest.parent_tokens", config.ingest.parent_tokens, 0, 100_000)?;
    between("ingest.embedding_cache_mb", config.ingest.embedding_cache_mb, 0, 1_000_000)?;
    between("ingest.max_file_bytes", config.ingest.max_file_bytes, 1, 4_000_000_000)?;
    between("ingest.split_above_bytes", config.ingest.split_above_bytes, 0, 4_000_000_000)?;
    between("ingest.parse_timeout_seconds", config.ingest.parse_timeout_seconds, 1, 3_600)?;
    extractor(&config.ingest)?;
    sources(&config.sources)?;
    tuning(&config.tuning)?;
    retrieval(&config.retrieval)?;
    reranker(&config.reranker)?;
    gate(&config.gate)?;
    variants(config)?;
    handoff(&config.handoff)?;
    telemetry(&config.telemetry)?;
    between("citations.semantic_bound", config.citations.semantic_bound, 0.0, 1.0)?;
    between("citations.semantic_timeout_ms", config.citations.semantic_timeout_ms, 1, 60_000)?;
    hosts("citations.link_hosts", &config.citations.link_hosts)?;
    between("assistant.context_tokens", config.assistant.context_tokens, 0, config.chat.context_tokens)?;
    between("server.max_body_bytes", config.server.max_body_bytes, 1_024, 1_000_000_000)?;
    between("server.request_timeout_seconds", config.server.request_timeout_seconds, 1, 86_400)?;
    between("files.quota_mb", config.files.quota_mb, 1, 10_000_000)?;
    between("files.max_files", config.files.max_files, 1, 10_000_000)?;
    between("files.max_vector_stores", config.files.max_vector_stores, 0, 10_000)?;
    if config.assistant.name.trim().is_empty() {
        return Err(("assistant.name", "must not be empty".to_owned()));
    }
    if config.assistant.abstain.trim().is_empty() {
        return Err(("assistant.abstain", "must not be empty".to_owned()));
    }
    if let Some(wrong) = config.server.api_key_sha256.iter().find(|hash| hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(("server.api_key_sha256", format!("`{wrong}` is not 64 hexadecimal digits")));
    }
    operations(config)?;
    Ok(())
}

/// An address of this machine only.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn operations(config: &Config) -> Result<(), Problem> {
    let origin = |origin: &str| match origin.split_once("://") {
        Some(("http" | "https", host)) => {
            !host.is_empty() && !host.contains(['/', '*', ' ', '?', '#', '@']) && origin.to_lowercase() == origin
        }
        _ => false,
    };
    if let Some(wrong) = config.server.cors_origins.iter().find(|given| !origin(given)) {
        return Err(("server.cors_origins", format!("`{wrong}` is not an origin; write it as browsers send it: `https://shop.example`")));
    }
    between("server.page_token_seconds", config.server.page_token_seconds, 1, 86_400)?;
    between("server.audit_days", config.server.audit_days, 1, 36_500)?;
    between("limits.money_per_minute", config.limits.money_per_minute, 0.0, 1e9)?;
    between("limits.money_per_day", config.limits.money_per_day, 0.0, 1e9)?;
    if let Some(at) = config.limits.model_prices().position(|price| price.is_none()) {
        let wrong = &config.limits.prices[at];
        return Err(("limits.prices", format!("`{wrong}` must be a model, `=`, and its prices read/written: `gpt-4o-mini=0.15/0.60`")));
    }
    between("traces.keep_days", config.traces.keep_days, 1, 36_500)?;
    between("traces.keep_count", config.traces.keep_count, 1, 100_000_000)?;
    between("cache.answers_mb", config.cache.answers_mb, 0, 1_000_000)?;
    between("cache.queries", config.cache.queries, 0, 10_000_000)
}

fn retrieval(retrieval: &Retrieval) -> Result<(), Problem> {
    between("retrieval.top_k", retrieval.top_k, 1, 50)?;
    between("retrieval.candidates", retrieval.candidates, retrieval.top_k, 1_000)?;
    between("retrieval.rrf_k", retrieval.rrf_k, 1, 1_000)?;
    between("retrieval.dense_weight", retrieval.dense_weight, 0.0, 1.0)?;
    between("retrieval.recency_half_life_days", retrieval.recency_half_life_days, 0.01, 100_000.0)?;
    between("retrieval.recency_weight", retrieval.recency_weight, 0.0, 1.0)?;
    between("retrieval.mmr_lambda", retrieval.mmr_lambda, 0.0, 1.0)?;
    between("retrieval.condense_timeout_seconds", retrieval.condense_timeout_seconds, 1, 60)?;
    if let Some(at) = retrieval.trust_weights().position(|entry| entry.is_none()) {
        return Err((
            "retrieval.trust",
            format!("`{}` must be a prefix, `=` and a weight between 0 and 10: `policies/=1.5`", retrieval.trust[at]),
        ));
    }
    Ok(())
}

fn reranker(reranker: &Reranker) -> Result<(), Problem> {
    web_address("reranker.url", &reranker.url)?;
    if (reranker.kind == RerankerKind::Local) == reranker.path.as_os_str().is_empty() {
        return Err(("reranker.path", "`reranker.kind = \"local\"` and a folder in `reranker.path` go together".to_owned()));
    }
    between("reranker.max_tokens", reranker.max_tokens, 16, 8_192)?;
    if matches!(reranker.kind, RerankerKind::Tei | RerankerKind::Cohere) && reranker.url.is_empty() {
        return Err(("reranker.url", "`reranker.kind` needs the server's base URL".to_owned()));
    }
    if reranker.kind == RerankerKind::Cohere && reranker.model.is_empty() {
        return Err(("reranker.model", "`reranker.kind = \"cohere\"` needs the name of a model".to_owned()));
    }
    between("reranker.candidates", reranker.candidates, 1, 1_000)?;
    between("reranker.batch", reranker.batch, 1, 1_000)?;
    between("reranker.timeout_seconds", reranker.timeout_seconds, 1, 600)
}

fn gate(gate: &Gate) -> Result<(), Problem> {
    between("gate.threshold", gate.threshold, 0.0, 1.0)?;
    let weights = [
        ("gate.intercept", gate.intercept),
        ("gate.dense", gate.dense),
        ("gate.bm25", gate.bm25),
        ("gate.margin", gate.margin),
        ("gate.coverage", gate.coverage),
    ];
    weights.into_iter().try_for_each(|(key, weight)| between(key, weight, -1e6, 1e6))
}

fn variants(config: &Config) -> Result<(), Problem> {
    for (name, variant) in &config.variants {
        let good = !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !good {
            return Err(("variants", format!("`{name}` is no name of a variant: at most 64 small letters, digits and `-`")));
        }
        if variant.prompt_file.is_some() && variant.system.is_some() {
            return Err(("variants", format!("`{name}` has both `prompt_file` and `system`; give one")));
        }
        if let Some(chat) = variant.chat(&config.chat) {
            let wrong = |what: &str| Err(("variants", format!("`{name}`: {what}")));
            if chat.kind == Engine::Openai && chat.url.is_empty() {
                return wrong("`kind = \"openai\"` needs the server's base URL");
            }
            if web_address("variants", &chat.url).is_err() {
                return wrong("`url` must begin with http:// or https://");
            }
            if !(256..=10_000_000).contains(&chat.context_tokens) || chat.max_tokens > chat.context_tokens / 2 {
                return wrong("`context_tokens` must be at least 256, and twice `chat.max_tokens`");
            }
        }
    }
    let known = |name: &String| name == "rag" || config.variants.contains_key(name);
    let release = &config.release;
    let no_variant = |key, name: &str| Err((key, format!("there is no variant `{name}`; add [variants.{name}]")));
    if !known(&release.variant) {
        return no_variant("release.variant", &release.variant);
    }
    if let Some(name) = release.fallbacks.iter().find(|name| !known(name)) {
        return no_variant("release.fallbacks", name);
    }
    if !release.shadow.is_empty() && !known(&release.shadow) {
        return no_variant("release.shadow", &release.shadow);
    }
    between("release.shadow_parallel", release.shadow_parallel, 1, 1_000)?;
    between("release.canary_alpha", release.canary_alpha, 1e-6, 0.5)?;
    between("release.canary_slowest_seconds", release.canary_slowest_seconds, 1, 3_600)?;
    if let Some(at) = release.margins().position(|entry| entry.is_none()) {
        let wrong = &release.canary_margins[at];
        let signals = Release::SIGNALS.join(", ");
        return Err((
            "release.canary_margins",
            format!("`{wrong}` must be one of {signals}, `=`, and a margin between 0 and 1: `error=0.02`"),
        ));
    }
    let names: Vec<&str> = release.margins().flatten().map(|(signal, _)| signal).collect();
    if let Some((at, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(("release.canary_margins", format!("`{twice}` stands there twice, at last as `{}`", release.canary_margins[at])));
    }
    Ok(())
}

fn handoff(handoff: &Handoff) -> Result<(), Problem> {
    web_address("handoff.webhook_url", &handoff.webhook_url)?;
    if !handoff.webhook_url.is_empty() && handoff.webhook_secret_env.is_empty() {
        return Err(("handoff.webhook_secret_env", "`handoff.webhook_url` needs a secret to sign with".to_owned()));
    }
    between("handoff.timeout_seconds", handoff.timeout_seconds, 1, 600)?;
    between("handoff.attempts", handoff.attempts, 1, 20)?;
    between("handoff.pause_seconds", handoff.pause_seconds, 1, 3_600)?;
    between("handoff.max_waiting", handoff.max_waiting, 1, 1_000_000)?;
    between("handoff.keep_days", handoff.keep_days, 1, 36_500)
}

fn telemetry(telemetry: &Telemetry) -> Result<(), Problem> {
    let url = &telemetry.otlp_url;
    web_address("telemetry.otlp_url", url)?;
    if !url.is_empty() && url.split('/').nth(3).is_none_or(str::is_empty) {
        return Err(("telemetry.otlp_url", format!("`{url}` must be the whole address of traces: `http://127.0.0.1:4318/v1/traces`")));
    }
    let header = &telemetry.otlp_api_key_header;
    if header.is_empty() || !header.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return Err(("telemetry.otlp_api_key_header", format!("`{header}` is not a header's name")));
    }
    between("telemetry.otlp_share", telemetry.otlp_share, 0.0, 1.0)?;
    between("telemetry.otlp_timeout_seconds", telemetry.otlp_timeout_seconds, 1, 60)?;
    between("telemetry.otlp_queue", telemetry.otlp_queue, 16, 1_000_000)
}

fn hosts(key: &'static str, hosts: &[String]) -> Result<(), Problem> {
    match hosts.iter().find(|host| host.is_empty() || host.contains(['/', ' ', '*'])) {
        Some(wrong) => Err((key, format!("`{wrong}` is not a host; write it as `wiki.internal` or `10.1.2.3`, without scheme and path"))),
        None => Ok(()),
    }
}

fn sources(sources: &Sources) -> Result<(), Problem> {
    between("sources.web_max_pages", sources.web_max_pages, 1, 1_000_000)?;
    between("sources.web_timeout_seconds", sources.web_timeout_seconds, 1, 3_600)?;
    between("sources.record_max_bytes", sources.record_max_bytes, 1_024, 1_000_000_000)?;
    between("sources.watch_debounce_ms", sources.watch_debounce_ms, 1, 60_000)?;
    between("sources.watch_rescan_seconds", sources.watch_rescan_seconds, 1, 86_400)?;
    web_address("sources.s3_endpoint", &sources.s3_endpoint)?;
    let agent = &sources.web_user_agent;
    if !agent.starts_with(|c: char| c.is_ascii_alphabetic()) || !agent.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(("sources.web_user_agent", "must begin with a letter and hold nothing but ASCII".to_owned()));
    }
    hosts("sources.allow_private_hosts", &sources.allow_private_hosts)?;
    if sources.s3_endpoint.starts_with("http://") && !sources.s3_allow_http {
        return Err(("sources.s3_endpoint", "http:// needs `sources.s3_allow_http = true`".to_owned()));
    }
    if sources.s3_access_key_env.is_empty() != sources.s3_secret_key_env.is_empty() {
        return Err(("sources.s3_access_key_env", "goes with `sources.s3_secret_key_env`; set both or none".to_owned()));
    }
    Ok(())
}

/// Matrices of a layer, by the names that PEFT gives them.
const MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

fn tuning(tuning: &Tuning) -> Result<(), Problem> {
    if let Some(at) = tuning.base_model_pairs().position(|entry| entry.is_none()) {
        let wrong = &tuning.base_models[at];
        return Err(("tuning.base_models", format!("`{wrong}` must be a name, `=` and a model: `gpt-4o-mini=smollm2-135m-instruct-q4_1`")));
    }
    if let Some(wrong) = tuning.target_modules.iter().find(|module| !MODULES.contains(&module.as_str())) {
        return Err(("tuning.target_modules", format!("`{wrong}` is none of {}", MODULES.join(", "))));
    }
    if tuning.target_modules.is_empty() {
        return Err(("tuning.target_modules", "name at least one matrix".to_owned()));
    }
    let is_date = |date: &str| {
        date.len() == 10 && date.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
    };
    if let Some(wrong) =
        tuning.retirements.iter().find(|entry| !entry.rsplit_once('=').is_some_and(|(name, date)| !name.is_empty() && is_date(date)))
    {
        return Err(("tuning.retirements", format!("`{wrong}` must be the beginning of a name, `=` and a date: `gpt-4o=2027-01-14`")));
    }
    between("tuning.parallel", tuning.parallel, 1, 16)?;
    between("tuning.max_open_jobs", tuning.max_open_jobs, 1, 100_000)?;
    between("tuning.max_file_mb", tuning.max_file_mb, 1, 8_192)?;
    between("tuning.rank", tuning.rank, 1, 512)?;
    between("tuning.alpha", tuning.alpha, 0.001, 10_000.0)?;
    between("tuning.dropout", tuning.dropout, 0.0, 0.9)?;
    between("tuning.max_row_tokens", tuning.max_row_tokens, 16, 1_000_000)?;
    between("tuning.learning_rate_multiplier", tuning.learning_rate_multiplier, 1e-4, 1e4)?;
    between("tuning.checkpoint_every", tuning.checkpoint_every, 0, 1_000_000)?;
    between("tuning.validate_every", tuning.validate_every, 0, 1_000_000)?;
    between("tuning.command_timeout_seconds", tuning.command_timeout_seconds, 1, 30 * 86_400)?;
    between("tuning.command_output_mb", tuning.command_output_mb, 1, 100_000)?;
    let is_command = tuning.trainer == TrainerKind::Command;
    if is_command != tuning.command.first().is_some_and(|program| !program.is_empty()) {
        return Err(("tuning.command", "`tuning.trainer = \"command\"` and a program in `tuning.command` go together".to_owned()));
    }
    web_address("tuning.vllm_url", &tuning.vllm_url)?;
    if !tuning.vllm_url.is_empty() && !is_command {
        let reason = "the local trainer's adapters are served in this process; `tuning.vllm_url` needs `tuning.trainer = \"command\"`";
        return Err(("tuning.vllm_url", reason.to_owned()));
    }
    if !tuning.merged_models.is_empty() && !tuning.vllm_url.is_empty() {
        return Err((
            "tuning.merged_models",
            "with `tuning.vllm_url` adapters are the other server's, and nothing is merged here".to_owned(),
        ));
    }
    web_address("tuning.webhook_url", &tuning.webhook_url)?;
    if !tuning.webhook_url.is_empty() && tuning.webhook_secret_env.is_empty() {
        return Err(("tuning.webhook_secret_env", "`tuning.webhook_url` needs a secret to sign with".to_owned()));
    }
    Ok(())
}
