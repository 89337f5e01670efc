use crate::api::models::unknown;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use groundtone_answer::{AnswerEvent, AnswerStream, Question, Summary};
use groundtone_openai_api::{
    Annotation, ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, Choice, ChunkChoice, Content, Delta, PromptTokensDetails,
    RequestMessage, ResponseMessage, Stop, UrlCitation, Usage,
};
use groundtone_prompt::{PromptMessage, Role};
use groundtone_provider::{FinishReason, Sampling};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Fields that change what an answer must be. Where we cannot do them, the client is told instead of getting something else.
const NOT_YET: &[&str] = &["tools", "tool_choice", "functions", "function_call", "logprobs", "audio", "logit_bias"];
/// A comment line this often keeps proxies from closing a slow stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `POST /v1/chat/completions`, as one body or as a stream.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    ApiJson(request): ApiJson<ChatCompletionRequest>,
) -> Result<Response, ApiError> {
    if request.model != state.answerer.assistant().name {
        return Err(unknown(&state, &request.model));
    }
    let streamed = request.stream.unwrap_or(false);
    let include_usage = request.stream_options.is_some_and(|options| options.include_usage);
    let head = Head { id: format!("chatcmpl-{}", uuid::Uuid::now_v7().simple()), created: unix_now(), model: request.model.clone() };
    let deadline = Instant::now() + state.limits.request_timeout;
    let too_late =
        || ApiError::new(StatusCode::GATEWAY_TIMEOUT, format!("no complete answer within {} s", state.limits.request_timeout.as_secs()));
    let question = question(&state, request)?;
    if streamed {
        let answer = tokio::time::timeout_at(deadline, state.answerer.stream(question)).await.map_err(|_| too_late())??;
        let events = chunks(answer, head, include_usage, deadline).map(Ok::<Event, Infallible>);
        return Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response());
    }
    let answer = tokio::time::timeout_at(deadline, state.answerer.answer(question)).await.map_err(|_| too_late())??;
    let summary = answer.summary;
    let message =
        ResponseMessage { role: "assistant".to_owned(), content: Some(answer.text), refusal: None, annotations: annotations(&summary) };
    let body = ChatCompletion {
        id: head.id,
        object: "chat.completion".to_owned(),
        created: head.created,
        model: head.model,
        choices: vec![Choice { index: 0, message, finish_reason: Some(finish_reason(summary.finish).to_owned()), logprobs: None }],
        usage: usage(&summary),
        groundtone: Some(extension(&summary)),
    };
    Ok(Json(body).into_response())
}

/// Checks a request and takes out of it what an answer needs.
fn question(state: &AppState, request: ChatCompletionRequest) -> Result<Question, ApiError> {
    if let Some(field) = NOT_YET.iter().find(|field| {
        request
            .rest
            .get(**field)
            .is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)) && *value != json!([]) && *value != json!({}))
    }) {
        return Err(ApiError::invalid(field, format!("`{field}` is not supported by this server")));
    }
    if request.rest.get("response_format").is_some_and(|format| format["type"] != "text") {
        return Err(ApiError::invalid("response_format", "only `{\"type\": \"text\"}` is supported by this server"));
    }
    if request.n.is_some_and(|n| n != 1) {
        return Err(ApiError::invalid("n", "this server gives one answer a request: leave `n` out or send 1"));
    }
    in_range("temperature", request.temperature, 0.0, 2.0)?;
    in_range("top_p", request.top_p, 0.0, 1.0)?;
    in_range("presence_penalty", request.presence_penalty, -2.0, 2.0)?;
    in_range("frequency_penalty", request.frequency_penalty, -2.0, 2.0)?;
    let max_tokens = request.max_completion_tokens.or(request.max_tokens);
    if max_tokens == Some(0) {
        return Err(ApiError::invalid("max_tokens", "send at least 1"));
    }
    let stop = request.stop.map(Stop::into_vec).unwrap_or_default();
    if stop.len() > 4 || stop.iter().any(String::is_empty) {
        return Err(ApiError::invalid("stop", "send at most 4 strings, none of them empty"));
    }
    let messages = request.messages.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let sampling = Sampling {
        temperature: request.temperature,
        top_p: request.top_p,
        max_tokens,
        stop,
        seed: request.seed.map(|seed| seed as u64),
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
    };
    Ok(Question { sampling, ..Question::new(state.tenant.clone(), messages) })
}

fn in_range(param: &'static str, value: Option<f32>, least: f32, most: f32) -> Result<(), ApiError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(ApiError::invalid(param, format!("`{param}` must be between {least} and {most}")))
        }
        _ => Ok(()),
    }
}

fn message(message: RequestMessage) -> Result<PromptMessage, ApiError> {
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => return Err(ApiError::invalid("messages", format!("messages of role `{other}` are not supported by this server"))),
    };
    let content = match message.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            let texts = parts.into_iter().map(|part| match (part.kind.as_str(), part.text) {
                ("text", Some(text)) => Ok(text),
                (kind, _) => Err(ApiError::invalid("messages", format!("message parts of type `{kind}` are not supported by this server"))),
            });
            texts.collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        None => String::new(),
    };
    Ok(PromptMessage::new(role, content))
}

/// What every event of one answer says.
struct Head {
    id: String,
    created: i64,
    model: String,
}

impl Head {
    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatCompletionChunk {
        ChatCompletionChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: None,
            groundtone: None,
        }
    }

    fn delta(&self, delta: Delta, finish_reason: Option<&str>) -> ChatCompletionChunk {
        self.chunk(vec![ChunkChoice { index: 0, delta, finish_reason: finish_reason.map(str::to_owned), logprobs: None }])
    }
}

/// The events of one answer. Dropping them, as axum does when the client leaves, stops the model.
fn chunks(answer: AnswerStream, head: Head, include_usage: bool, deadline: Instant) -> impl Stream<Item = Event> + Send {
    let first = head.delta(Delta { role: Some("assistant".to_owned()), content: Some(String::new()), annotations: None }, None);
    let opening = stream::once(std::future::ready(event(&first)));
    let state = Some((answer, head));
    let rest = stream::unfold(state, move |state| async move {
        let (mut answer, head) = state?;
        let step = match tokio::time::timeout_at(deadline, answer.next()).await {
            Err(_) => {
                return Some((
                    vec![failure(&ApiError::new(StatusCode::GATEWAY_TIMEOUT, "the answer took too long and was cut off"))],
                    None,
                ));
            }
            Ok(step) => step?,
        };
        match step {
            Ok(AnswerEvent::Delta(text)) => {
                let events = vec![event(&head.delta(Delta { content: Some(text), ..Delta::default() }, None))];
                Some((events, Some((answer, head))))
            }
            Ok(AnswerEvent::Beside(_)) => Some((Vec::new(), Some((answer, head)))),
            Ok(AnswerEvent::Done(summary)) => Some((closing(&head, &summary, include_usage), None)),
            Err(error) => Some((vec![failure(&ApiError::from(error))], None)),
        }
    });
    opening.chain(rest.map(stream::iter).flatten())
}

/// The last delta with the citations, the usage where it was asked for, and `[DONE]`.
fn closing(head: &Head, summary: &Summary, include_usage: bool) -> Vec<Event> {
    let mut last = head.delta(Delta { annotations: Some(annotations(summary)), ..Delta::default() }, Some(finish_reason(summary.finish)));
    last.groundtone = Some(extension(summary));
    let mut events = vec![event(&last)];
    if include_usage {
        events.push(event(&ChatCompletionChunk { usage: usage(summary), ..head.chunk(Vec::new()) }));
    }
    events.push(Event::default().data("[DONE]"));
    events
}

fn event(chunk: &ChatCompletionChunk) -> Event {
    Event::default().json_data(chunk).unwrap_or_else(|_| Event::default().comment("an event could not be written"))
}

/// A failure after the first event: the body of an error, and no `[DONE]`, so that no client takes the answer for complete.
fn failure(error: &ApiError) -> Event {
    Event::default().json_data(error.body()).unwrap_or_else(|_| Event::default().comment("an error could not be written"))
}

fn annotations(summary: &Summary) -> Vec<Annotation> {
    let annotation = |citation: &groundtone_answer::CitedSource| Annotation {
        kind: "url_citation".to_owned(),
        url_citation: UrlCitation {
            start_index: citation.start,
            end_index: citation.end,
            url: citation.url.clone(),
            title: citation.title.clone(),
        },
    };
    summary.citations.iter().map(annotation).collect()
}

fn usage(summary: &Summary) -> Option<Usage> {
    summary.usage.map(|usage| Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: usage.total(),
        prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: usage.cached_tokens }),
    })
}

/// The `groundtone` object beside the answer: what was retrieved, what was cited and why, and where the time went.
fn extension(summary: &Summary) -> Value {
    let sources: Vec<Value> = summary
        .sources
        .iter()
        .enumerate()
        .map(|(at, source)| {
            let chunk = &source.chunk;
            json!({"number": at + 1, "document": chunk.document, "title": chunk.breadcrumb(), "url": chunk.url, "text": chunk.shown_text(), "score": source.score})
        })
        .collect();
    json!({
        "model": summary.model,
        "prompt_fingerprint": summary.prompt_fingerprint,
        "abstained": summary.abstained,
        "citations": summary.citations,
        "unresolved_markers": summary.unresolved_markers,
        "sources": sources,
        "timings": summary.timings,
    })
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::FunctionCall => "function_call",
    }
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}
