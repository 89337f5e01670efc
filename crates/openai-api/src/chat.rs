use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// What model servers get wrong without harm: `null`, or a value of another shape, is taken as nothing.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// `POST /v1/chat/completions`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ChatCompletionRequest {
    /// Which model or assistant.
    pub model: String,
    /// The conversation, oldest first.
    pub messages: Vec<RequestMessage>,
    /// Server-sent events instead of one body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Options of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Most tokens to write; the older name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Most tokens to write; the newer name, and the one that wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
    /// Strings that end the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Sampler seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// How many answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// -2 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// -2 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One string or up to four.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stop {
    /// `"stop": "x"`.
    One(String),
    /// `"stop": ["x", "y"]`.
    Many(Vec<String>),
}

impl Stop {
    /// All of them.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(stop) => vec![stop],
            Self::Many(stops) => stops,
        }
    }
}

/// `stream_options`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct StreamOptions {
    /// One more chunk at the end with `usage` and no choices.
    #[serde(default)]
    pub include_usage: bool,
}

/// A message of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestMessage {
    /// `system`, `developer`, `user`, `assistant`, `tool`.
    pub role: String,
    /// Text, parts, or nothing (an assistant's tool call).
    #[serde(default)]
    pub content: Option<Content>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Text, or a list of parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Typed parts.
    Parts(Vec<ContentPart>),
}

/// One part of a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContentPart {
    /// `text`, `image_url`, `input_audio`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a `text` part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The answer without streaming.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChatCompletion {
    /// `chatcmpl-...`.
    pub id: String,
    /// `chat.completion`.
    #[serde(default)]
    pub object: String,
    /// Unix seconds.
    #[serde(default)]
    pub created: i64,
    /// The model that answered.
    #[serde(default)]
    pub model: String,
    /// The answers.
    pub choices: Vec<Choice>,
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Which backend answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<Value>,
    /// Which tier answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<Value>,
    /// Ours: retrieval, timings, prompt fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groundtone: Option<Value>,
}

/// One answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Choice {
    /// Its number.
    #[serde(default)]
    pub index: u32,
    /// What was written.
    pub message: ResponseMessage,
    /// `stop`, `length`, `content_filter`, ...
    #[serde(default)]
    pub finish_reason: Option<String>,
    /// Not given by local models.
    #[serde(default)]
    pub logprobs: Option<Value>,
}

/// What the model wrote.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResponseMessage {
    /// `assistant`.
    pub role: String,
    /// The text.
    #[serde(default)]
    pub content: Option<String>,
    /// Set when the model refused.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Citations.
    #[serde(default)]
    pub annotations: Vec<Annotation>,
    /// `tool_calls`, `audio`, and what this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A citation, in the SDKs' own type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// `url_citation`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The citation.
    pub url_citation: UrlCitation,
}

/// Characters `start_index..end_index` of the message rest on `url`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlCitation {
    /// First character.
    pub start_index: usize,
    /// One past the last character.
    pub end_index: usize,
    /// Where the source stands.
    pub url: String,
    /// Its title.
    pub title: String,
}

/// Tokens of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    #[serde(default)]
    pub completion_tokens: u64,
    /// Both.
    #[serde(default)]
    pub total_tokens: u64,
    /// Of the tokens read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
    /// Of the tokens written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens_details: Option<CompletionTokensDetails>,
}

/// Part of [`Usage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    /// Tokens that were not computed again.
    #[serde(default)]
    pub cached_tokens: u64,
}

/// Part of [`Usage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletionTokensDetails {
    /// Tokens that the model thought with.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

/// One event of a stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ChatCompletionChunk {
    /// The same in every event.
    #[serde(default)]
    pub id: String,
    /// `chat.completion.chunk`.
    #[serde(default)]
    pub object: String,
    /// Unix seconds, the same in every event.
    #[serde(default)]
    pub created: i64,
    /// The model that answers.
    #[serde(default)]
    pub model: String,
    /// Empty in the event that carries `usage`.
    #[serde(default, deserialize_with = "lenient")]
    pub choices: Vec<ChunkChoice>,
    /// Only in the last event, on request.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Which backend answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<Value>,
    /// Which tier answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<Value>,
    /// Ours, in the event that finishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groundtone: Option<Value>,
}

/// One answer's part of an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChunkChoice {
    /// Its number.
    #[serde(default)]
    pub index: u32,
    /// What is new.
    #[serde(default, deserialize_with = "lenient")]
    pub delta: Delta,
    /// Set in the last one.
    #[serde(default)]
    pub finish_reason: Option<String>,
    /// Not given by local models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Value>,
}

/// What is new in an event.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Delta {
    /// Only in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// More text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Citations, in the event that finishes.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Vec<Annotation>>,
    /// `tool_calls`, `refusal`, and what this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_get_wrong_without_harm_is_taken_as_nothing() {
        let chunk = r#"{"choices":null,"usage":{"prompt_tokens":-4,"completion_tokens":1}}"#;
        let chunk: ChatCompletionChunk = serde_json::from_str(chunk).unwrap();
        assert!(chunk.choices.is_empty() && chunk.usage.is_none());
        let chunk: ChatCompletionChunk =
            serde_json::from_str(r#"{"id":"x","choices":[{"index":0,"delta":null,"finish_reason":"stop"}]}"#).unwrap();
        assert_eq!((chunk.choices[0].delta.content.as_deref(), chunk.choices[0].finish_reason.as_deref()), (None, Some("stop")));
    }

    #[test]
    fn unknown_fields_are_kept_and_sent_on() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}],"name":"ann"}],"tools":[{"x":1}]}"#;
        let request: ChatCompletionRequest = serde_json::from_str(body).unwrap_or_default();
        let sent: Value = serde_json::to_value(&request).unwrap_or_default();
        assert_eq!(sent, serde_json::from_str::<Value>(body).unwrap_or(Value::Null));
    }
}
