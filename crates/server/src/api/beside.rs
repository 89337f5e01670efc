//! What a model server sends beside text, put together for an answer that is not streamed.

use groundtone_provider::Beside;
use serde_json::{Map, Value, json};

/// Everything that came beside one answer's text.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Fields of the message: `tool_calls`, `refusal`, ...
    pub(crate) message: Map<String, Value>,
    /// The choice's `logprobs`.
    pub(crate) logprobs: Option<Value>,
    /// Fields of the whole answer.
    pub(crate) answer: Map<String, Value>,
}

impl Gathered {
    pub(crate) fn of(pieces: Vec<Beside>) -> Self {
        let mut gathered = Self::default();
        for piece in pieces {
            for (name, value) in piece.delta {
                add(&mut gathered.message, name, value);
            }
            if let Some(Value::Object(logprobs)) = piece.logprobs {
                let mut all = match gathered.logprobs.take() {
                    Some(Value::Object(all)) => all,
                    _ => Map::new(),
                };
                for (name, value) in logprobs {
                    add(&mut all, name, value);
                }
                gathered.logprobs = Some(Value::Object(all));
            }
            gathered.answer.extend(piece.answer);
        }
        // Only a delta has an index for each call.
        for call in gathered.message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(call) = call.as_object_mut() {
                call.remove("index");
            }
        }
        gathered
    }
}

/// Deltas add up as OpenAI's SDKs add them: texts are appended, `tool_calls` by their index, other lists at their end; anything else replaces what was there.
fn add(all: &mut Map<String, Value>, name: String, value: Value) {
    match (all.get_mut(&name), value) {
        (Some(Value::String(text)), Value::String(more)) if !matches!(name.as_str(), "id" | "type") => text.push_str(&more),
        (Some(Value::Object(fields)), Value::Object(more)) => more.into_iter().for_each(|(name, value)| add(fields, name, value)),
        (Some(Value::Array(calls)), Value::Array(more)) if name == "tool_calls" => more.into_iter().for_each(|call| add_call(calls, call)),
        (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
        (_, Value::Array(more)) if name == "tool_calls" => {
            let mut calls = Vec::new();
            more.into_iter().for_each(|call| add_call(&mut calls, call));
            all.insert(name, Value::Array(calls));
        }
        (Some(_), Value::Null) => {}
        (_, value) => {
            all.insert(name, value);
        }
    }
}

fn add_call(calls: &mut Vec<Value>, call: Value) {
    let index = call.get("index").cloned().unwrap_or_else(|| json!(calls.len()));
    let known = calls.iter_mut().find(|known| known["index"] == index);
    match (known.and_then(Value::as_object_mut), call) {
        (Some(known), Value::Object(more)) => {
            more.into_iter().filter(|(name, _)| name != "index").for_each(|(name, value)| add(known, name, value));
        }
        (_, call) => calls.push(call),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(delta: &Value) -> Beside {
        Beside { delta: delta.as_object().cloned().unwrap_or_default(), ..Beside::default() }
    }

    #[test]
    fn streamed_calls_of_tools_add_up() {
        let pieces = vec![
            piece(&json!({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "price", "arguments": ""}}]})),
            piece(&json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"sku\":"}}]})),
            piece(&json!({"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "stock", "arguments": "{}"}}]})),
            piece(&json!({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"arguments": "\"G1\"}"}}]})),
            piece(&json!({"reasoning_content": "Let me "})),
            piece(&json!({"reasoning_content": "see."})),
        ];
        let message = Value::Object(Gathered::of(pieces).message);
        assert_eq!(
            message,
            json!({"tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "price", "arguments": "{\"sku\":\"G1\"}"}},
                {"id": "c2", "type": "function", "function": {"name": "stock", "arguments": "{}"}}
            ], "reasoning_content": "Let me see."})
        );
    }

    #[test]
    fn log_probabilities_are_one_list() {
        let logprob = |token: &str| Beside {
            logprobs: Some(json!({"content": [{"token": token, "logprob": -0.5}], "refusal": null})),
            ..Beside::default()
        };
        let logprobs = Gathered::of(vec![logprob("a"), logprob("b")]).logprobs.unwrap();
        assert_eq!(logprobs, json!({"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.5}], "refusal": null}));
        assert!(Gathered::of(Vec::new()).logprobs.is_none());
    }
}
