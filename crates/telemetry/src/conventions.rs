//! What our spans and their fields are called by others: OpenTelemetry's conventions for generative AI (`semantic-conventions-genai` 0.1.0) and for HTTP.
//!
//! A field without a name there goes out as `groundtone.FIELD`. Fields are numbers and names, never the text of a prompt or a document; texts are redacted all the same, as lines
//! of the log are.

use crate::Redactor;
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry::{Key, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

/// How a field's value is written.
#[derive(Debug, Clone, Copy)]
enum As {
    /// As it is.
    Same,
    /// A whole number. `tracing-opentelemetry` writes the unsigned ones as text.
    Whole,
    /// A list with one text.
    List,
}

/// What a span is to others.
struct Meaning {
    span: &'static str,
    /// `gen_ai.operation.name`; the first word of the exported name.
    operation: Option<&'static str>,
    /// The fields that are the other words.
    named_by: &'static [&'static str],
    /// Ours, theirs, and how it is written.
    fields: &'static [(&'static str, &'static str, As)],
}

const MEANINGS: &[Meaning] = &[
    Meaning {
        span: "request",
        operation: None,
        named_by: &["method", "route"],
        fields: &[("method", "http.request.method", As::Same), ("route", "http.route", As::Same), ("status", STATUS_CODE, As::Whole)],
    },
    Meaning {
        span: "answer",
        operation: Some("invoke_agent"),
        named_by: &["assistant"],
        fields: &[("assistant", "gen_ai.agent.name", As::Same), ("error", ERROR, As::Same)],
    },
    Meaning {
        span: "answer.generate",
        operation: Some("chat"),
        named_by: &["model"],
        fields: &[
            ("model", REQUEST_MODEL, As::Same),
            ("max_tokens", "gen_ai.request.max_tokens", As::Whole),
            ("temperature", "gen_ai.request.temperature", As::Same),
            ("stream", "gen_ai.request.stream", As::Same),
            ("provider", PROVIDER, As::Same),
            ("server", SERVER, As::Same),
            ("port", "server.port", As::Whole),
            ("response_model", RESPONSE_MODEL, As::Same),
            ("response_id", "gen_ai.response.id", As::Same),
            ("first_token_seconds", "gen_ai.response.time_to_first_chunk", As::Same),
            ("finish", "gen_ai.response.finish_reasons", As::List),
            ("prompt_tokens", "gen_ai.usage.input_tokens", As::Whole),
            ("cached_tokens", "gen_ai.usage.cache_read.input_tokens", As::Whole),
            ("completion_tokens", "gen_ai.usage.output_tokens", As::Whole),
            ("reasoning_tokens", "gen_ai.usage.reasoning.output_tokens", As::Whole),
            ("error", ERROR, As::Same),
        ],
    },
    Meaning {
        span: "search",
        operation: Some("retrieval"),
        named_by: &["collection"],
        fields: &[
            ("collection", "gen_ai.data_source.id", As::Same),
            ("top_k", "gen_ai.retrieval.top_k", As::Whole),
            ("hits", "groundtone.hits", As::Whole),
            ("error", ERROR, As::Same),
        ],
    },
    Meaning {
        span: "embed",
        operation: Some("embeddings"),
        named_by: &["model"],
        fields: &[
            ("model", REQUEST_MODEL, As::Same),
            ("dimensions", "gen_ai.embeddings.dimension.count", As::Whole),
            ("texts", "groundtone.texts", As::Whole),
            ("provider", PROVIDER, As::Same),
            ("server", SERVER, As::Same),
            ("port", "server.port", As::Whole),
            ("response_model", RESPONSE_MODEL, As::Same),
            ("prompt_tokens", "gen_ai.usage.input_tokens", As::Whole),
            ("error", ERROR, As::Same),
        ],
    },
    Meaning { span: "answer.retrieve", operation: None, named_by: &[], fields: &[("snippets", "groundtone.snippets", As::Whole)] },
    Meaning { span: "answer.render", operation: None, named_by: &[], fields: &[("prompt_tokens", "groundtone.prompt_tokens", As::Whole)] },
    Meaning { span: "answer.cite", operation: None, named_by: &[], fields: &[("citations", "groundtone.citations", As::Whole)] },
];

const ERROR: &str = "error.type";
const STATUS_CODE: &str = "http.response.status_code";
const REQUEST_MODEL: &str = "gen_ai.request.model";
const RESPONSE_MODEL: &str = "gen_ai.response.model";
const PROVIDER: &str = "gen_ai.provider.name";
const SERVER: &str = "server.address";

/// Gives a span and its fields the names that others know, and takes personal data and secrets out of their texts.
pub(crate) fn translate(span: &mut SpanData, redactor: &Redactor) {
    let meaning = MEANINGS.iter().find(|meaning| meaning.span == span.name.as_ref());
    let mut attributes: Vec<KeyValue> = Vec::with_capacity(span.attributes.len() + 3);
    for attribute in span.attributes.drain(..) {
        let attribute = translated(attribute, meaning, redactor);
        // What was noted again, at a second attempt, is meant.
        match attributes.iter_mut().find(|known| known.key == attribute.key) {
            Some(known) => known.value = attribute.value,
            None => attributes.push(attribute),
        }
    }
    span.attributes = attributes;
    let Some(meaning) = meaning else { return };
    let remote = text(span, SERVER).is_some();
    span.span_kind = match meaning.span {
        "request" => SpanKind::Server,
        _ if remote => SpanKind::Client,
        _ => SpanKind::Internal,
    };
    if let Some(operation) = meaning.operation {
        span.attributes.push(KeyValue::new("gen_ai.operation.name", operation));
        // Nobody else was asked: a model in this process, or the answer was remembered.
        if text(span, PROVIDER).is_none() {
            span.attributes.push(KeyValue::new(PROVIDER, "groundtone"));
        }
        if let (false, None, Some(model)) = (remote, text(span, RESPONSE_MODEL), text(span, REQUEST_MODEL)) {
            span.attributes.push(KeyValue::new(RESPONSE_MODEL, model));
        }
    }
    if let Some(status) = text(span, STATUS_CODE).filter(|status| status.starts_with('5')) {
        span.attributes.push(KeyValue::new(ERROR, status));
    }
    if text(span, ERROR).is_some() {
        span.status = Status::error("");
    }
    let named_by = meaning.named_by.iter().filter_map(|field| {
        let (_, theirs, _) = meaning.fields.iter().find(|(ours, ..)| ours == field)?;
        text(span, theirs)
    });
    let words: Vec<String> = meaning.operation.map(str::to_owned).into_iter().chain(named_by).collect();
    if !words.is_empty() {
        span.name = words.join(" ").into();
    }
}

fn translated(attribute: KeyValue, meaning: Option<&Meaning>, redactor: &Redactor) -> KeyValue {
    let KeyValue { key, value, .. } = attribute;
    let known = meaning.and_then(|meaning| meaning.fields.iter().find(|(ours, ..)| *ours == key.as_str()));
    let value = match value {
        Value::String(text) => Value::String(redactor.redact(text.as_str()).into_owned().into()),
        other => other,
    };
    match known {
        None => KeyValue::new(format!("groundtone.{}", key.as_str()), value),
        Some(&(_, theirs, shape)) => KeyValue::new(Key::from_static_str(theirs), shape.write(value)),
    }
}

impl As {
    fn write(self, value: Value) -> Value {
        match (self, value) {
            (Self::Whole, Value::String(text)) => text.as_str().parse().map_or(Value::String(text), Value::I64),
            (Self::List, Value::String(text)) => Value::Array(vec![text].into()),
            (_, other) => other,
        }
    }
}

fn text(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.to_string())
}
