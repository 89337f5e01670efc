//! A response and its output items.

use super::request::FileSearch;
use crate::api::beside::Gathered;
use crate::api::vector_stores::hit;
use crate::api::wire::{extension, unix_now};
use crate::stores::file_of;
use groundtone_answer::{CitedSource, Summary};
use groundtone_openai_api::{Content, RequestMessage, ResponseRequest};
use groundtone_provider::FinishReason;
use groundtone_types::TokenUsage;
use serde_json::{Map, Value, json};

fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}

/// Everything about a response that is known before its answer.
pub(super) struct Head {
    pub(super) message_id: String,
    pub(super) search_id: String,
    pub(super) search: Option<FileSearch>,
    pub(super) queries: Vec<String>,
    pub(super) include_results: bool,
    /// The response object without `status`, `output` and `usage`.
    base: Map<String, Value>,
}

impl Head {
    pub(super) fn new(request: &ResponseRequest, search: Option<FileSearch>, question: String, include_results: bool) -> Self {
        let id = new_id("resp");
        let given = |name: &str| request.rest.get(name).cloned().unwrap_or_default();
        let base = json!({
            "id": id, "object": "response", "created_at": unix_now(), "status": "in_progress", "background": false, "error": null, "incomplete_details": null,
            "instructions": request.instructions, "max_output_tokens": request.max_output_tokens, "model": request.model, "output": [],
            "parallel_tool_calls": request.rest.get("parallel_tool_calls").and_then(Value::as_bool).unwrap_or(true),
            "previous_response_id": request.previous_response_id, "reasoning": request.reasoning.clone().map_or_else(|| json!({"effort": null, "summary": null}), Value::Object),
            "safety_identifier": given("safety_identifier"), "service_tier": "default", "store": request.store.unwrap_or(true),
            "temperature": request.temperature.unwrap_or(1.0), "text": request.text.clone().map_or_else(|| json!({"format": {"type": "text"}}), Value::Object),
            "tool_choice": request.tool_choice.clone().unwrap_or_else(|| json!("auto")), "tools": request.tools.clone().unwrap_or_default(),
            "top_p": request.top_p.unwrap_or(1.0), "truncation": "disabled", "usage": null, "user": given("user"),
            "metadata": request.metadata.clone().unwrap_or_default(),
        });
        let base = base.as_object().cloned().unwrap_or_default();
        let (message_id, search_id) = (new_id("msg"), new_id("fs"));
        Self { message_id, search_id, search, queries: vec![question], include_results, base }
    }

    /// The response with this status and output.
    pub(super) fn response(&self, status: &str, output: Vec<Value>) -> Value {
        let mut body = self.base.clone();
        body.insert("status".to_owned(), json!(status));
        body.insert("output".to_owned(), Value::Array(output));
        Value::Object(body)
    }

    /// The response when its answer is there.
    pub(super) fn finished(&self, output: Vec<Value>, summary: &Summary) -> Value {
        let (status, reason) = ending(summary.finish);
        let mut body = self.response(status, output);
        body["usage"] = usage(summary.usage);
        body["groundtone"] = extension(summary);
        body["completed_at"] = json!(unix_now());
        if let Some(reason) = reason {
            body["incomplete_details"] = json!({"reason": reason});
        }
        body
    }

    /// The search's item.
    pub(super) fn search_item(&self, status: &str, summary: Option<&Summary>) -> Value {
        let results = summary.filter(|_| self.include_results).map(|summary| {
            let hits = summary.sources.iter().map(hit);
            let result = |hit: groundtone_openai_api::VectorStoreHit| {
                let text: String = hit.content.into_iter().map(|part| part.text).collect();
                json!({"file_id": hit.file_id, "filename": hit.filename, "score": hit.score, "attributes": hit.attributes, "text": text})
            };
            hits.map(result).collect::<Vec<Value>>()
        });
        json!({"id": self.search_id, "type": "file_search_call", "status": status, "queries": self.queries, "results": results})
    }

    /// The message's item.
    pub(super) fn message_item(&self, status: &str, content: &[Value]) -> Value {
        json!({"id": self.message_id, "type": "message", "status": status, "role": "assistant", "content": content})
    }
}

/// A response's status and why it is incomplete, by why the model stopped.
pub(super) fn ending(finish: FinishReason) -> (&'static str, Option<&'static str>) {
    match finish {
        FinishReason::Length => ("incomplete", Some("max_output_tokens")),
        FinishReason::ContentFilter => ("incomplete", Some("content_filter")),
        FinishReason::Stop | FinishReason::ToolCalls | FinishReason::FunctionCall => ("completed", None),
    }
}

/// A text part.
pub(super) fn text_part(text: &str, annotations: &[Value], logprobs: Option<&Value>) -> Value {
    let logprobs = logprobs.map_or_else(|| json!([]), |logprobs| logprobs["content"].clone());
    json!({"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs})
}

/// Citations as annotations: of an uploaded file by its id, of any other document by its address.
pub(super) fn annotations(summary: &Summary) -> Vec<Value> {
    let annotation = |citation: &CitedSource| match file_of(&citation.document) {
        (id, filename) if id.starts_with("file-") => {
            json!({"type": "file_citation", "file_id": id, "filename": filename, "index": citation.end})
        }
        _ => {
            json!({"type": "url_citation", "start_index": citation.start, "end_index": citation.end, "url": citation.url, "title": citation.title})
        }
    };
    summary.citations.iter().map(annotation).collect()
}

/// The calls of functions as items.
pub(super) fn call_items(beside: &Gathered) -> Vec<Value> {
    let calls = beside.message.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let item = |call: &Value| {
        let function = &call["function"];
        json!({"id": new_id("fc"), "type": "function_call", "status": "completed", "call_id": call["id"], "name": function["name"], "arguments": function["arguments"]})
    };
    calls.iter().map(item).collect()
}

fn usage(usage: Option<TokenUsage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    json!({
        "input_tokens": usage.prompt_tokens, "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens, "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total(),
    })
}

/// The answer as a message of the conversation that follows it.
pub(super) fn said(text: &str, beside: &Gathered) -> RequestMessage {
    let calls = beside.message.get("tool_calls").map(|calls| ("tool_calls".to_owned(), calls.clone()));
    let content = (!text.is_empty() || calls.is_none()).then(|| Content::Text(text.to_owned()));
    RequestMessage { role: "assistant".to_owned(), content, rest: calls.into_iter().collect() }
}
