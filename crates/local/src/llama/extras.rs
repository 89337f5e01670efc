//! What a client may send that this engine cannot do.

use groundtone_openai_api::{Content, RequestMessage};
use groundtone_provider::ChatExtras;
use serde_json::Value;

/// Fields that ask for nothing that an answer shows: who asks, notes, how to bill, hints about speed.
const HARMLESS: &[&str] = &[
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "top_logprobs",
];

/// The first thing that would have to be ignored although it changes the answer; `None` if there is none.
pub(super) fn unsupported(extras: &ChatExtras) -> Option<String> {
    if let Some((name, _)) = extras.parameters.iter().find(|(name, value)| !HARMLESS.contains(&name.as_str()) && asks(name, value)) {
        return Some(name.clone());
    }
    let messages = extras.messages.iter().flatten().map(AsRef::as_ref);
    messages.chain(&extras.tail).find_map(in_message)
}

/// Whether a field's value asks for anything.
fn asks(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !(items.is_empty() || name == "modalities" && items.iter().all(|item| item == "text")),
        Value::Object(fields) => !(fields.is_empty() || name == "response_format" && value["type"] == "text"),
        Value::String(word) => !(matches!(name, "tool_choice" | "function_call") && matches!(word.as_str(), "none" | "auto")),
        _ => true,
    }
}

fn in_message(message: &RequestMessage) -> Option<String> {
    if message.role == "tool" || message.role == "function" {
        return Some(format!("messages[].role: {}", message.role));
    }
    if let Some(Content::Parts(parts)) = &message.content
        && let Some(part) = parts.iter().find(|part| part.kind != "text")
    {
        return Some(format!("messages[].content[].type: {}", part.kind));
    }
    let calls = ["tool_calls", "function_call"].into_iter().find(|name| message.rest.get(*name).is_some_and(|calls| asks(name, calls)));
    calls.map(|name| format!("messages[].{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn what_changes_the_answer_is_named_and_what_does_not_is_ignored() {
        let parameter = |name: &str, value: Value| {
            unsupported(&ChatExtras { parameters: [(name.to_owned(), value)].into_iter().collect(), ..ChatExtras::default() })
        };
        for (name, value) in [
            ("tools", json!([{"type": "function"}])),
            ("response_format", json!({"type": "json_schema"})),
            ("logit_bias", json!({"5": 1})),
            ("logprobs", json!(true)),
            ("tool_choice", json!("required")),
            ("modalities", json!(["text", "audio"])),
            ("top_k", json!(40)),
            ("a_field_of_tomorrow", json!("x")),
        ] {
            assert_eq!(parameter(name, value).as_deref(), Some(name));
        }
        for (name, value) in [
            ("tools", json!([])),
            ("response_format", json!({"type": "text"})),
            ("logit_bias", json!({})),
            ("logprobs", json!(false)),
            ("tool_choice", json!("auto")),
            ("modalities", json!(["text"])),
            ("user", json!("ann")),
            ("metadata", json!({"a": "b"})),
            ("store", json!(true)),
            ("a_field_of_tomorrow", Value::Null),
        ] {
            assert_eq!(parameter(name, value), None, "{name}");
        }
    }

    #[test]
    fn messages_that_are_no_text_are_named() {
        for (message, expected) in [
            (json!({"role": "tool", "tool_call_id": "c", "content": "42"}), Some("messages[].role: tool")),
            (
                json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}),
                Some("messages[].content[].type: image_url"),
            ),
            (json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c"}]}), Some("messages[].tool_calls")),
            (json!({"role": "user", "name": "ann", "content": [{"type": "text", "text": "x"}]}), None),
            (json!({"role": "assistant", "content": "x", "tool_calls": null, "refusal": null}), None),
        ] {
            let message: RequestMessage = serde_json::from_value(message).unwrap();
            let extras = ChatExtras { messages: vec![None, Some(Arc::new(message))], ..ChatExtras::default() };
            assert_eq!(unsupported(&extras).as_deref(), expected);
        }
    }
}
