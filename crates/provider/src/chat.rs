use crate::{ChatEvent, ChatModel, ChatRequest, ChatStream, Endpoint, Error, FinishReason};
use async_trait::async_trait;
use eventsource_stream::Eventsource;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use groundtone_openai_api::{ChatCompletionChunk, ChatCompletionRequest, Content, ErrorBody, RequestMessage, Stop, StreamOptions};
use groundtone_prompt::{CountTokens, OpenAiTokens};
use groundtone_types::TokenUsage;
use std::sync::Arc;

/// Any server of OpenAI's `/v1/chat/completions`.
pub struct OpenAiChat {
    endpoint: Endpoint,
    model: String,
    context_tokens: usize,
    tokens: Arc<OpenAiTokens>,
}

impl OpenAiChat {
    /// Asks `endpoint` for `model`, which reads and writes `context_tokens` together.
    pub fn new(endpoint: Endpoint, model: impl Into<String>, context_tokens: usize) -> Self {
        let model = model.into();
        let tokens = OpenAiTokens::for_model(&model);
        Self { endpoint, model, context_tokens, tokens }
    }

    fn body(&self, request: ChatRequest) -> ChatCompletionRequest {
        let sampling = request.sampling;
        let messages = request.messages.into_iter().map(|message| RequestMessage {
            role: message.role.as_str().to_owned(),
            content: Some(Content::Text(message.content)),
            rest: serde_json::Map::new(),
        });
        ChatCompletionRequest {
            model: self.model.clone(),
            messages: messages.collect(),
            stream: Some(true),
            stream_options: Some(StreamOptions { include_usage: true }),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            max_completion_tokens: sampling.max_tokens,
            stop: (!sampling.stop.is_empty()).then_some(Stop::Many(sampling.stop)),
            seed: sampling.seed.map(|seed| seed as i64),
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            ..ChatCompletionRequest::default()
        }
    }
}

#[async_trait]
impl ChatModel for OpenAiChat {
    fn id(&self) -> &str {
        &self.model
    }

    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn tokens(&self) -> Arc<dyn CountTokens> {
        self.tokens.clone()
    }

    async fn chat(&self, request: ChatRequest) -> Result<ChatStream, Error> {
        let chunks = stream_chunks(&self.endpoint, &self.body(request)).await?;
        let state = Reading { chunks, endpoint: self.endpoint.clone(), finish: None, usage: None, over: false };
        Ok(stream::unfold(state, Reading::next).boxed())
    }
}

/// Turns wire chunks into events: text as it comes, and one `Finished` with the usage that arrives after the finish reason.
struct Reading {
    chunks: BoxStream<'static, Result<ChatCompletionChunk, Error>>,
    endpoint: Endpoint,
    finish: Option<FinishReason>,
    usage: Option<TokenUsage>,
    over: bool,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<ChatEvent, Error>, Self)> {
        while !self.over {
            let event = match self.chunks.next().await {
                Some(Ok(chunk)) => match self.take(chunk) {
                    Some(delta) => Ok(ChatEvent::Delta(delta)),
                    None => continue,
                },
                Some(Err(error)) => {
                    self.over = true;
                    Err(error)
                }
                None => {
                    self.over = true;
                    match self.finish {
                        Some(reason) => Ok(ChatEvent::Finished { reason, usage: self.usage }),
                        None => Err(self.endpoint.protocol("the stream ended before the answer did".to_owned())),
                    }
                }
            };
            return Some((event, self));
        }
        None
    }

    fn take(&mut self, chunk: ChatCompletionChunk) -> Option<String> {
        if let Some(usage) = chunk.usage {
            let cached_tokens = usage.prompt_tokens_details.map_or(0, |details| details.cached_tokens);
            self.usage = Some(TokenUsage {
                prompt_tokens: usage.prompt_tokens,
                cached_tokens,
                completion_tokens: usage.completion_tokens,
                reasoning_tokens: 0,
            });
        }
        let choice = chunk.choices.into_iter().find(|choice| choice.index == 0)?;
        if let Some(reason) = choice.finish_reason {
            self.finish = Some(match reason.as_str() {
                "length" => FinishReason::Length,
                "content_filter" => FinishReason::ContentFilter,
                _ => FinishReason::Stop,
            });
        }
        choice.delta.content.filter(|text| !text.is_empty())
    }
}

/// Posts a streaming chat request and gives the chunks as they come, until `[DONE]`. Dropping the stream closes the connection, which stops the server.
pub async fn stream_chunks(
    endpoint: &Endpoint,
    body: &ChatCompletionRequest,
) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
    let response = endpoint.post("/chat/completions", body).await?;
    let media = response.headers().get(reqwest::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    if !media.starts_with("text/event-stream") {
        return Err(endpoint.protocol(format!("`{media}` instead of `text/event-stream`")));
    }
    let events = response.bytes_stream().eventsource().boxed();
    let state = Some((events, endpoint.clone()));
    let chunks = stream::unfold(state, |state| async move {
        let (mut events, endpoint) = state?;
        let event = match tokio::time::timeout(endpoint.idle, events.next()).await {
            Err(_) => return Some((Err(endpoint.timeout(endpoint.idle)), None)),
            Ok(None) => return None,
            Ok(Some(Err(error))) => {
                let reason = match error {
                    eventsource_stream::EventStreamError::Transport(error) => return Some((Err(endpoint.unreachable(&error)), None)),
                    other => other.to_string(),
                };
                return Some((Err(endpoint.protocol(reason)), None));
            }
            Ok(Some(Ok(event))) => event,
        };
        if event.data.trim() == "[DONE]" {
            return None;
        }
        match parse_chunk(&endpoint, &event.data) {
            Ok(chunk) => Some((Ok(chunk), Some((events, endpoint)))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(chunks.boxed())
}

fn parse_chunk(endpoint: &Endpoint, data: &str) -> Result<ChatCompletionChunk, Error> {
    match serde_json::from_str::<ChatCompletionChunk>(data) {
        Ok(chunk) => Ok(chunk),
        // Servers report a failure in the middle of a stream as an error object.
        Err(parse) => Err(match serde_json::from_str::<ErrorBody>(data) {
            Ok(body) => Error::Unreachable { endpoint: endpoint.base_url().to_owned(), reason: body.error.message },
            Err(_) => endpoint.protocol(parse.to_string()),
        }),
    }
}
