use crate::spans::{asks, says};
use crate::sse::stream_chunks;
use crate::{Beside, ChatEvent, ChatModel, ChatRequest, ChatStream, Endpoint, Error, FinishReason};
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use groundtone_openai_api::{ChatCompletionChunk, ChatCompletionRequest, ChunkChoice, Stop, StreamOptions, Usage};
use groundtone_prompt::{CountTokens, OpenAiTokens};
use groundtone_types::TokenUsage;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tracing::Span;

/// The answer is complete with its finish reason; usage and `[DONE]` are waited for so long and no longer.
const AFTER_FINISH: Duration = Duration::from_secs(2);

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
        let (sampling, extras) = (request.sampling, request.extras);
        let (older, newer) = if extras.older_max_tokens { (sampling.max_tokens, None) } else { (None, sampling.max_tokens) };
        ChatCompletionRequest {
            model: self.model.clone(),
            messages: extras.join(request.messages),
            stream: Some(true),
            stream_options: Some(StreamOptions { include_usage: true }),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            max_tokens: older,
            max_completion_tokens: newer,
            stop: (!sampling.stop.is_empty()).then_some(Stop::Many(sampling.stop)),
            seed: sampling.seed.map(|seed| seed as i64),
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            rest: extras.parameters.clone(),
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
        asks(&self.endpoint);
        Span::current().record("stream", true);
        let chunks = stream_chunks(&self.endpoint, &self.body(request)).await?;
        let state = Reading {
            chunks,
            endpoint: self.endpoint.clone(),
            ready: VecDeque::new(),
            finish: None,
            usage: None,
            seen: Map::new(),
            named: false,
            over: false,
        };
        Ok(stream::unfold(state, Reading::next).boxed())
    }
}

/// Turns wire chunks into events: text and the rest as they come, and one `Finished` with the usage that arrives after the finish reason.
struct Reading {
    chunks: BoxStream<'static, Result<ChatCompletionChunk, Error>>,
    endpoint: Endpoint,
    /// Events of the chunk that was read last.
    ready: VecDeque<ChatEvent>,
    finish: Option<FinishReason>,
    usage: Option<TokenUsage>,
    /// Fields of the whole answer that were passed on.
    seen: Map<String, Value>,
    /// The server has said who answers.
    named: bool,
    over: bool,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<ChatEvent, Error>, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if self.over {
                return None;
            }
            match self.chunk().await {
                Some(Ok(chunk)) => match self.take(chunk) {
                    Ok(()) => {}
                    Err(error) => return self.end(Err(error)),
                },
                // What fails after the finish reason takes nothing from the answer.
                Some(Err(error)) if self.finish.is_none() => return self.end(Err(error)),
                Some(Err(_)) | None => {
                    let end = match self.finish {
                        Some(reason) => Ok(ChatEvent::Finished { reason, usage: self.usage }),
                        None => Err(Error::Unreachable {
                            endpoint: self.endpoint.base_url().to_owned(),
                            reason: "the stream ended before the answer did".to_owned(),
                        }),
                    };
                    return self.end(end);
                }
            }
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape that `unfold` wants")]
    fn end(mut self, event: Result<ChatEvent, Error>) -> Option<(Result<ChatEvent, Error>, Self)> {
        self.over = true;
        Some((event, self))
    }

    async fn chunk(&mut self) -> Option<Result<ChatCompletionChunk, Error>> {
        if self.finish.is_some() {
            return tokio::time::timeout(AFTER_FINISH, self.chunks.next()).await.unwrap_or(None);
        }
        self.chunks.next().await
    }

    fn take(&mut self, chunk: ChatCompletionChunk) -> Result<(), Error> {
        if !std::mem::replace(&mut self.named, true) {
            says("response_model", &chunk.model);
            says("response_id", &chunk.id);
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(token_usage(&usage));
        }
        let mut answer = Map::new();
        for (name, value) in [("system_fingerprint", chunk.system_fingerprint), ("service_tier", chunk.service_tier)] {
            if let Some(value) = value.filter(|value| !value.is_null() && self.seen.get(name) != Some(value)) {
                self.seen.insert(name.to_owned(), value.clone());
                answer.insert(name.to_owned(), value);
            }
        }
        // One answer was asked for; what comes after its end belongs to no answer.
        let choice = chunk.choices.into_iter().find(|choice| choice.index == 0).filter(|_| self.finish.is_none());
        let Some(ChunkChoice { delta, finish_reason, logprobs, .. }) = choice else {
            self.queue_beside(Beside { answer, ..Beside::default() });
            return Ok(());
        };
        let fields = delta.rest.into_iter().filter(|(_, value)| !value.is_null()).collect();
        self.queue_beside(Beside { delta: fields, logprobs: logprobs.filter(|value| !value.is_null()), answer });
        self.ready.extend(delta.content.filter(|text| !text.is_empty()).map(ChatEvent::Delta));
        self.finish = match finish_reason.as_deref() {
            None | Some("") => None,
            Some("error") => return Err(self.endpoint.protocol("it ended the answer with the reason `error`".to_owned())),
            Some("length") => Some(FinishReason::Length),
            Some("content_filter") => Some(FinishReason::ContentFilter),
            Some("tool_calls") => Some(FinishReason::ToolCalls),
            Some("function_call") => Some(FinishReason::FunctionCall),
            Some(_) => Some(FinishReason::Stop),
        };
        Ok(())
    }

    fn queue_beside(&mut self, beside: Beside) {
        if !beside.is_empty() {
            self.ready.push_back(ChatEvent::Beside(beside));
        }
    }
}

fn token_usage(usage: &Usage) -> TokenUsage {
    TokenUsage {
        prompt_tokens: usage.prompt_tokens,
        cached_tokens: usage.prompt_tokens_details.map_or(0, |details| details.cached_tokens),
        completion_tokens: usage.completion_tokens,
        reasoning_tokens: usage.completion_tokens_details.map_or(0, |details| details.reasoning_tokens),
    }
}
