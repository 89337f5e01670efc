use crate::access::Caller;
use crate::api::beside::Gathered;
use crate::api::conversation::question;
use crate::api::models::Addressed;
use crate::api::wire::{annotations, extension, unix_now, usage};
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;
use futures::{Stream, StreamExt, stream};
use groundtone_answer::{Answer, AnswerEvent, AnswerStream, Error, Question, Summary, collect, stream_plain};
use groundtone_openai_api::{ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, Choice, ChunkChoice, Delta, ResponseMessage};
use groundtone_provider::{Beside, ChatModel};
use groundtone_types::{Tenant, TokenUsage};
use serde_json::{Map, Value};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A comment line this often keeps proxies from closing a slow stream.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Most answers of one request.
const MOST_CHOICES: u32 = 16;

/// `POST /v1/chat/completions`, as one body or as a stream.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    headers: HeaderMap,
    ApiJson(request): ApiJson<ChatCompletionRequest>,
) -> Result<Response, ApiError> {
    let speaker = Speaker::named(&state, &caller.tenant, &request.model, &headers).await?;
    let streamed = request.stream.unwrap_or(false);
    let include_usage = request.stream_options.is_some_and(|options| options.include_usage);
    let head = Head {
        id: format!("chatcmpl-{}", uuid::Uuid::now_v7().simple()),
        created: unix_now(),
        model: request.model.clone(),
        answer: Map::new(),
    };
    let deadline = Instant::now() + state.limits.request_timeout;
    let count = request.n.unwrap_or(1);
    if !(1..=MOST_CHOICES).contains(&count) {
        return Err(ApiError::invalid("n", format!("`n` must be between 1 and {MOST_CHOICES}")));
    }
    let questions = choices(&speaker.asked(question(&caller.tenant, request)?), count);
    if streamed {
        let begin = try_join_all(questions.into_iter().map(|question| speaker.stream(&state, &caller, question)));
        let answers = tokio::time::timeout_at(deadline, begin).await.map_err(|_| too_late(&state))??;
        let events = chunks(answers, head, include_usage, deadline).map(Ok::<Event, Infallible>);
        return Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response());
    }
    let answers = try_join_all(questions.into_iter().map(|question| speaker.answer(&state, &caller, question)));
    let answers = tokio::time::timeout_at(deadline, answers).await.map_err(|_| too_late(&state))??;
    Ok(Json(whole(answers, head)).into_response())
}

/// Who answers.
enum Speaker {
    /// The assistant, out of its documents.
    Assistant(Addressed),
    /// A model that was trained here, or a base model, alone.
    Alone(Arc<dyn ChatModel>),
}

impl Speaker {
    async fn named(state: &AppState, tenant: &Tenant, name: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        match Addressed::read(state, name, headers) {
            Ok(addressed) => Ok(Self::Assistant(addressed)),
            Err(refusal) => {
                let alone = state.tuning.chat_model(tenant, name).await.map_err(Error::from)?;
                alone.map(Self::Alone).ok_or(refusal)
            }
        }
    }

    /// The question as it is meant for this one.
    fn asked(&self, question: Question) -> Question {
        match self {
            Self::Assistant(addressed) => addressed.to(question),
            Self::Alone(_) => question,
        }
    }

    /// Piece by piece; what becomes of it is recorded.
    async fn stream(&self, state: &Arc<AppState>, caller: &Caller, question: Question) -> Result<AnswerStream, Error> {
        match self {
            Self::Assistant(_) => state.stream_answer(caller, question).await,
            Self::Alone(model) => state.recorded(caller, &question.clone(), stream_plain(model.clone(), question)).await,
        }
    }

    async fn answer(&self, state: &Arc<AppState>, caller: &Caller, question: Question) -> Result<Answer, Error> {
        collect(self.stream(state, caller, question).await?, state.answerer.model_id()).await
    }
}

pub(crate) fn too_late(state: &AppState) -> ApiError {
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, format!("no complete answer within {} s", state.limits.request_timeout.as_secs()))
}

/// One question for each answer that is wanted: each is retrieved, written and cited for itself. A given seed is counted up, or all would be the same.
fn choices(question: &Question, count: u32) -> Vec<Question> {
    let choice = |number: u32| {
        let mut question = question.clone();
        question.sampling.seed = question.sampling.seed.map(|seed| seed.wrapping_add(u64::from(number)));
        question
    };
    (0..count).map(choice).collect()
}

fn whole(answers: Vec<Answer>, head: Head) -> ChatCompletion {
    let mut body = ChatCompletion {
        id: head.id,
        object: "chat.completion".to_owned(),
        created: head.created,
        model: head.model,
        choices: Vec::with_capacity(answers.len()),
        usage: usage(sum(answers.iter().map(|answer| answer.summary.usage))),
        system_fingerprint: None,
        service_tier: None,
        groundtone: answers.first().map(|answer| extension(&answer.summary)),
    };
    for (index, answer) in (0..).zip(answers) {
        let mut beside = Gathered::of(answer.beside);
        body.system_fingerprint = beside.answer.remove("system_fingerprint").or(body.system_fingerprint);
        body.service_tier = beside.answer.remove("service_tier").or(body.service_tier);
        let refusal = beside.message.remove("refusal").and_then(|refusal| refusal.as_str().map(str::to_owned));
        // A model that only calls tools, or refuses, says nothing.
        let silent = answer.text.is_empty() && (refusal.is_some() || !beside.message.is_empty());
        let message = ResponseMessage {
            role: "assistant".to_owned(),
            content: (!silent).then_some(answer.text),
            refusal,
            annotations: annotations(&answer.summary),
            rest: beside.message,
        };
        let finish_reason = Some(answer.summary.finish.as_str().to_owned());
        body.choices.push(Choice { index, message, finish_reason, logprobs: beside.logprobs });
    }
    body
}

/// Tokens of all answers; `None` where the model server did not say.
fn sum(usages: impl Iterator<Item = Option<TokenUsage>>) -> Option<TokenUsage> {
    usages.flatten().reduce(|a, b| TokenUsage {
        prompt_tokens: a.prompt_tokens + b.prompt_tokens,
        cached_tokens: a.cached_tokens + b.cached_tokens,
        completion_tokens: a.completion_tokens + b.completion_tokens,
        reasoning_tokens: a.reasoning_tokens + b.reasoning_tokens,
    })
}

/// What every event of one request says.
struct Head {
    id: String,
    created: i64,
    model: String,
    /// `system_fingerprint`, `service_tier`: known when the model server has said them.
    answer: Map<String, Value>,
}

impl Head {
    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatCompletionChunk {
        ChatCompletionChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            system_fingerprint: self.answer.get("system_fingerprint").cloned(),
            service_tier: self.answer.get("service_tier").cloned(),
            usage: None,
            groundtone: None,
        }
    }

    fn delta(&self, index: u32, delta: Delta, finish_reason: Option<&str>) -> ChatCompletionChunk {
        self.chunk(vec![ChunkChoice { index, delta, finish_reason: finish_reason.map(str::to_owned), logprobs: None }])
    }

    fn beside(&mut self, index: u32, beside: Beside) -> ChatCompletionChunk {
        self.answer.extend(beside.answer);
        let delta = Delta { rest: beside.delta, ..Delta::default() };
        self.chunk(vec![ChunkChoice { index, delta, finish_reason: None, logprobs: beside.logprobs }])
    }

    /// The last delta of one answer, with its citations.
    fn closing(&self, index: u32, summary: &Summary) -> ChatCompletionChunk {
        let delta = Delta { annotations: Some(annotations(summary)), ..Delta::default() };
        ChatCompletionChunk { groundtone: Some(extension(summary)), ..self.delta(index, delta, Some(summary.finish.as_str())) }
    }
}

/// Answers that are being written, and what is known of those that are through.
struct Writing<S> {
    events: S,
    head: Head,
    left: usize,
    usages: Vec<Option<TokenUsage>>,
}

/// The events of all answers of one request. Dropping them, as axum does when the client leaves, stops the model.
fn chunks(answers: Vec<AnswerStream>, head: Head, include_usage: bool, deadline: Instant) -> impl Stream<Item = Event> + Send {
    let opening: Vec<Event> = (0..)
        .zip(&answers)
        .map(|(index, _)| {
            event(&head.delta(index, Delta { role: Some("assistant".to_owned()), content: Some(String::new()), ..Delta::default() }, None))
        })
        .collect();
    let left = answers.len();
    let numbered = (0..).zip(answers).map(|(index, answer)| answer.map(move |event| (index, event)));
    let state = Some(Writing { events: stream::select_all(numbered), head, left, usages: Vec::new() });
    let rest = stream::unfold(state, move |state| async move {
        let mut writing = state?;
        let step = match tokio::time::timeout_at(deadline, writing.events.next()).await {
            Err(_) => {
                let error = ApiError::new(StatusCode::GATEWAY_TIMEOUT, "the answer took too long and was cut off");
                return Some((vec![failure(&error)], None));
            }
            Ok(step) => step?,
        };
        writing.step(step, include_usage)
    });
    stream::iter(opening).chain(rest.map(stream::iter).flatten())
}

impl<S> Writing<S> {
    fn step(
        mut self,
        (index, event_or_error): (u32, Result<AnswerEvent, Error>),
        include_usage: bool,
    ) -> Option<(Vec<Event>, Option<Self>)> {
        match event_or_error {
            Ok(AnswerEvent::Delta(text)) => {
                let chunk = self.head.delta(index, Delta { content: Some(text), ..Delta::default() }, None);
                Some((vec![event(&chunk)], Some(self)))
            }
            Ok(AnswerEvent::Beside(beside)) => Some((vec![event(&self.head.beside(index, beside))], Some(self))),
            Ok(AnswerEvent::Done(summary)) => {
                self.usages.push(summary.usage);
                self.left -= 1;
                let mut events = vec![event(&self.head.closing(index, &summary))];
                if self.left > 0 {
                    return Some((events, Some(self)));
                }
                if include_usage {
                    events.push(event(&ChatCompletionChunk { usage: usage(sum(self.usages.into_iter())), ..self.head.chunk(Vec::new()) }));
                }
                events.push(Event::default().data("[DONE]"));
                Some((events, None))
            }
            Err(error) => Some((vec![failure(&ApiError::from(error))], None)),
        }
    }
}

fn event(chunk: &ChatCompletionChunk) -> Event {
    Event::default().json_data(chunk).unwrap_or_else(|_| Event::default().comment("an event could not be written"))
}

/// A failure after the first event: the body of an error, and no `[DONE]`, so that no client takes the answer for complete.
fn failure(error: &ApiError) -> Event {
    Event::default().json_data(error.body()).unwrap_or_else(|_| Event::default().comment("an error could not be written"))
}
