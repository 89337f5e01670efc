//! Tokens of a training row, counted the way OpenAI bills them, or the way a model with a chat template reads them.
//!
//! What is trained on is every token of every row in every epoch, each row up to the longest that is read: OpenAI's bill and the local trainer's `trained_tokens`
//! mean the same, and differ in the tokenizer and in what stands around the messages. The local trainer reads a row up to the end of the last answer that it learns.

use groundtone_prompt::{CountTokens, PromptMessage, Role};
use serde_json::Value;

/// What stands around the texts of a row, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Around each message, the name of its role not among them.
    pub message: usize,
    /// Around the row; negative where the end of its last message is not read.
    pub row: isize,
    /// What stands in place of a system message where a row has none.
    pub no_system: usize,
    /// For the name of a message's author.
    pub name: usize,
    /// Whether a preference row is read as two chats, each with the question.
    pub pairs_apart: bool,
}

impl Frame {
    /// OpenAI's (its cookbook, "How to count tokens", and the notebook that checks training files).
    pub const OPENAI: Self = Self { message: 3, row: 3, no_system: 0, name: 1, pairs_apart: false };

    /// A chat template's, from how long it makes three small chats. `chat` gives the tokens of a chat up to the end of its last answer.
    ///
    /// # Errors
    /// What `chat` says.
    pub fn of_template(tokens: &dyn CountTokens, chat: impl Fn(&[PromptMessage]) -> Result<usize, String>) -> Result<Self, String> {
        let around = |roles: &[Role]| {
            let messages: Vec<PromptMessage> = roles.iter().map(|role| PromptMessage::new(*role, "x")).collect();
            let own: usize = roles.iter().map(|role| tokens.count(role.as_str()) + tokens.count("x")).sum();
            chat(&messages).map(|length| length.cast_signed() - own.cast_signed())
        };
        let two = around(&[Role::User, Role::Assistant])?;
        let three = around(&[Role::System, Role::User, Role::Assistant])?;
        let five = around(&[Role::System, Role::User, Role::Assistant, Role::User, Role::Assistant])?;
        let message = (five - three) / 2;
        let row = three - 3 * message;
        let left = |tokens: isize| usize::try_from(tokens).unwrap_or_default();
        Ok(Self { message: left(message), row, no_system: left(two - 2 * message - row), name: 0, pairs_apart: true })
    }
}

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
fn message_tokens(message: &Value, tokens: &dyn CountTokens, frame: &Frame) -> usize {
    let Some(object) = message.as_object() else { return frame.message };
    let values: usize = object.iter().map(|(key, value)| tokens_of(value, tokens) + if key == "name" { frame.name } else { 0 }).sum();
    frame.message + values
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Tokens of one row: `messages`, or a preference row's `input` and both outputs, or `prompt` and `completion`.
pub fn row_tokens(row: &Value, tokens: &dyn CountTokens, frame: &Frame) -> RowTokens {
    let mut found = RowTokens::default();
    let input = row.get("input").filter(|input| input.is_object());
    let holder = input.unwrap_or(row);
    for key in ["tools", "functions"] {
        found.declared +=
            holder.get(key).and_then(Value::as_array).into_iter().flatten().map(|tool| tokens.count(&tool.to_string())).sum::<usize>();
    }
    let question = list(holder.get("messages"));
    let mut messages: Vec<&Value> = question.iter().collect();
    let mut chats = 1;
    for (one, older) in [("preferred_output", "preferred_completion"), ("non_preferred_output", "non_preferred_completion")] {
        let answer = list(row.get(one).or_else(|| row.get(older)));
        if frame.pairs_apart && one == "non_preferred_output" && !answer.is_empty() {
            messages.extend(question);
            chats = 2;
        }
        messages.extend(answer);
    }
    let has_system = question.iter().any(|message| matches!(message["role"].as_str(), Some("system" | "developer")));
    let around = frame.row + if has_system { 0 } else { frame.no_system.cast_signed() };
    found.row = usize::try_from(around * chats).unwrap_or_default();
    let mut so_far = found.row + found.declared;
    for message in messages {
        let count = message_tokens(message, tokens, frame);
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
    // The end of the last answer, where it is not read.
    found.assistant = found.assistant.saturating_sub(usize::try_from(-around * chats).unwrap_or_default());
    found
}
