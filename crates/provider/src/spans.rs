//! What spans say of a model server. `groundtone_telemetry` knows what others call it.

use crate::{Embedder, Endpoint};
use tracing::{Span, field, info_span};

/// The span of one call for vectors.
pub fn embed_span(embedder: &dyn Embedder, texts: usize) -> Span {
    info_span!(
        "embed",
        model = embedder.id(),
        dimensions = embedder.dimensions(),
        texts,
        provider = field::Empty,
        server = field::Empty,
        port = field::Empty,
        response_model = field::Empty,
        prompt_tokens = field::Empty,
        error = field::Empty
    )
}

/// Notes on the current span whom it asks. Whoever calls a model has these fields on its span; one without them notes nothing.
pub(crate) fn asks(endpoint: &Endpoint) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    let Ok(url) = url::Url::parse(endpoint.base_url()) else { return };
    let azure = endpoint.is_azure() || url.host_str().is_some_and(|host| host.ends_with(".openai.azure.com"));
    // For the conventions OpenAI is whoever speaks OpenAI's protocol.
    span.record("provider", if azure { "azure.ai.openai" } else { "openai" });
    span.record("server", url.host_str());
    span.record("port", url.port_or_known_default());
}

/// Notes on the current span what a server says of its answer: `response_model`, `response_id`. Not all of them say it.
pub(crate) fn says(field: &'static str, text: &str) {
    if !text.is_empty() {
        Span::current().record(field, text);
    }
}
