//! A collector of spans: OTLP over HTTP, as protobuf.

use crate::{Reply, Shared, respond};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Records a batch as JSON, with its headers, and gives the next [`Reply::Raw`]; with any other reply it never answers.
pub(crate) async fn collect(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("a text header").to_owned());
    let batch = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let mut spans = Vec::new();
    let mut resource = Map::new();
    for part in batch.resource_spans {
        resource.extend(attributes(part.resource.expect("a resource").attributes));
        spans.extend(part.scope_spans.into_iter().flat_map(|scope| scope.spans).map(span));
    }
    shared.requests.lock().expect("not poisoned").push(json!({
        "content-type": header("content-type"),
        "authorization": header("authorization"),
        "resource": resource,
        "spans": spans,
    }));
    match shared.next_reply() {
        Reply::Raw(status, media, text) => respond(StatusCode::from_u16(status).expect("a status"), media, Body::from(text)),
        _ => std::future::pending().await,
    }
}

fn span(span: Span) -> Value {
    json!({
        "name": span.name,
        "kind": span.kind().as_str_name().trim_start_matches("SPAN_KIND_").to_lowercase(),
        "trace": hex(&span.trace_id),
        "id": hex(&span.span_id),
        "parent": hex(&span.parent_span_id),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "failed": span.status.as_ref().is_some_and(|status| status.code() == SpanStatus::Error),
        "events": span.events.len(),
        "attributes": attributes(span.attributes),
    })
}

fn attributes(attributes: Vec<KeyValue>) -> Map<String, Value> {
    attributes.into_iter().map(|attribute| (attribute.key, attribute.value.map_or(Value::Null, plain))).collect()
}

fn plain(value: AnyValue) -> Value {
    match value.value {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(flag)) => json!(flag),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::DoubleValue(number)) => json!(number),
        Some(Any::ArrayValue(list)) => list.values.into_iter().map(plain).collect(),
        other => panic!("{other:?} is not expected of an attribute"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
