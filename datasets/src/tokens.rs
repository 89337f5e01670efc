//! Tokens of a training row, counted the way OpenAI bills them.

use groundtone_prompt::CountTokens;
use serde_json::Value;

/// Tokens around each message, and around each row (OpenAI's cookbook, "How to count tokens", and the notebook that checks training files).
const AROUND_A_MESSAGE: usize = 3;
const AROUND_A_ROW: usize = 3;
const FOR_A_NAME: usize = 1;

/// Tokens of one row by who speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowTokens {
    /// System and developer messages.
    pub system: usize,
    /// The user's messages.
    pub user: usize,
    /// The assistant's messages, calls of tools included.
    pub assistant: usize,
    /// Messages of tools and functions, and of roles that nobody knows.
    pub tool: usize,
    /// What the row declares: tools and functions.
    pub declared: usize,
    /// What belongs to nobody: the row itself.
    pub row: usize,
    /// What stands before the last message of the assistant.
    pub before_reply: usize,
}

impl RowTokens {
    /// All of them.
    pub fn total(&self) -> usize {
        self.system + self.user + self.assistant + self.tool + self.declared + self.row
    }
}

/// The text of a value: itself, or its JSON.
fn tokens_of(value: &Value, tokens: &dyn CountTokens) -> usize {
    match value {
        Value::String(text) => tokens.count(text),
        Value::Array(parts) if parts.iter().all(|part| part.get("type").is_some()) && !parts.is_empty() => parts
            .iter()
            .map(|part| match part.get("text").or_else(|| part.get("refusal")) {
                Some(Value::String(text)) => tokens.count(text),
                // Pictures are billed by their size, which only the one who loads them knows.
                _ if part.get("function").is_some() => tokens.count(&part.to_string()),
                _ => 0,
            })
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        other => tokens.count(&other.to_string()),
    }
}

/// Tokens of one message: what is around it, every value, and one more for a name.
pub fn message_tokens(message: &Value, tokens: &dyn CountTokens) -> usize {
    let Some(object) = message.as_object() else { return AROUND_A_MESSAGE };
    let values: usize = object.iter().map(|(key, value)| tokens_of(value, tokens) + if key == "name" { FOR_A_NAME } else { 0 }).sum();
    AROUND_A_MESSAGE + values
}

/// Tokens of one row: `messages`, or a preference row's `input` and both outputs, or `prompt` and `completion`.
pub fn row_tokens(row: &Value, tokens: &dyn CountTokens) -> RowTokens {
    let mut found = RowTokens { row: AROUND_A_ROW, ..RowTokens::default() };
    let input = row.get("input").filter(|input| input.is_object());
    let holder = input.unwrap_or(row);
    for key in ["tools", "functions"] {
        found.declared +=
            holder.get(key).and_then(Value::as_array).into_iter().flatten().map(|tool| tokens.count(&tool.to_string())).sum::<usize>();
    }
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut messages = list(holder.get("messages"));
    for (one, older) in [("preferred_output", "preferred_completion"), ("non_preferred_output", "non_preferred_completion")] {
        messages.extend(list(row.get(one).or_else(|| row.get(older))));
    }
    let mut so_far = found.row + found.declared;
    for message in &messages {
        let count = message_tokens(message, tokens);
        match message.get("role").and_then(Value::as_str) {
            Some("system" | "developer") => found.system += count,
            Some("user") => found.user += count,
            Some("assistant") => {
                found.assistant += count;
                found.before_reply = so_far;
            }
            _ => found.tool += count,
        }
        so_far += count;
    }
    let text = |key: &str| holder.get(key).map_or(0, |value| tokens_of(value, tokens));
    found.user += text("prompt");
    found.assistant += text("completion") + text("text");
    found
}
