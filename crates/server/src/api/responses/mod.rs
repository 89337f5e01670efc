//! `/v1/responses`: the same answers as chat completions, in the shape of OpenAI's Responses API, with `file_search` over vector stores.

mod events;
mod output;
mod request;
mod store;

pub use store::ResponseStore;

use crate::access::Caller;
use crate::api::beside::Gathered;
use crate::api::chat::{KEEP_ALIVE, too_late};
use crate::api::conversation::question;
use crate::api::models::Addressed;
use crate::error::{ApiError, ApiJson};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use events::EventWriter;
use futures::{Stream, StreamExt, stream};
use groundtone_answer::{Answer, AnswerEvent, AnswerStream, Question};
use groundtone_openai_api::{Deleted, RequestMessage, ResponseRequest};
use groundtone_prompt::Role;
use groundtone_types::Tenant;
use output::{Head, annotations, call_items, ending, said, text_part};
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;
use store::Kept;
use tokio::time::Instant;

/// `POST /v1/responses`, as one body or as a stream.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    headers: HeaderMap,
    ApiJson(request): ApiJson<ResponseRequest>,
) -> Result<Response, ApiError> {
    let addressed = Addressed::read(&state, &request.model, &headers)?;
    let deadline = Instant::now() + state.limits.request_timeout;
    let streamed = request.stream.unwrap_or(false);
    let before = match &request.previous_response_id {
        Some(id) => state
            .responses
            .get(&caller.tenant, id)
            .ok_or_else(|| no_response(id).param("previous_response_id").code("previous_response_not_found"))?,
        None => Arc::new(Kept { body: Value::Null, conversation: Vec::new() }),
    };
    let asked = request::read(request.clone(), &before.conversation)?;
    let mut question = addressed.to(question(&caller.tenant, asked.chat).map_err(as_input)?);
    if let Some(search) = &asked.search {
        for id in &search.stores {
            question.collections.push(state.vector_store(&caller.tenant, id).await?.collection);
        }
        question.most_snippets = search.most;
    }
    let conversation = before.conversation.iter().cloned().chain(asked.input).collect();
    let keeping = request.store.unwrap_or(true).then_some(conversation);
    let head = Head::new(&request, asked.search, last_words(&question), asked.include_results);
    if streamed {
        let begin = state.stream_answer(&caller, question);
        let answer =
            tokio::time::timeout_at(deadline, begin).await.map_err(|_| too_late(&state))?.map_err(|error| as_input(error.into()))?;
        let events = events_of(state, caller.tenant, answer, head, keeping, deadline).map(Ok::<Event, Infallible>);
        return Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response());
    }
    let answer = tokio::time::timeout_at(deadline, state.whole_answer(&caller, question)).await.map_err(|_| too_late(&state))?;
    let answer = answer.map_err(|error| as_input(error.into()))?;
    let (text, beside, body) = whole(answer, &head);
    keep(&state, &caller.tenant, keeping, &text, &beside, &body);
    Ok(Json(body).into_response())
}

/// What chat completions call `messages` is `input` here.
fn as_input(error: ApiError) -> ApiError {
    error.renamed("messages", "input").renamed("max_tokens", "max_output_tokens").renamed("response_format", "text")
}

fn no_response(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no response `{id}`: responses are kept in memory, and the oldest leave first"))
}

/// What is searched for.
fn last_words(question: &Question) -> String {
    question.messages.iter().rfind(|message| message.role == Role::User).map(|message| message.content.clone()).unwrap_or_default()
}

fn whole(answer: Answer, head: &Head) -> (String, Gathered, Value) {
    let (text, summary, beside) = (answer.text, answer.summary, Gathered::of(answer.beside));
    let mut output = Vec::new();
    if head.search.is_some() {
        output.push(head.search_item("completed", Some(&summary)));
    }
    let calls = call_items(&beside);
    if !text.is_empty() || calls.is_empty() {
        let part = text_part(&text, &annotations(&summary), beside.logprobs.as_ref());
        output.push(head.message_item(ending(summary.finish).0, &[part]));
    }
    output.extend(calls);
    let body = head.finished(output, &summary);
    (text, beside, body)
}

/// Keeps a response so that another one can go on from it.
fn keep(state: &AppState, tenant: &Tenant, conversation: Option<Vec<RequestMessage>>, text: &str, beside: &Gathered, body: &Value) {
    let Some(mut conversation) = conversation else { return };
    conversation.push(said(text, beside));
    state.responses.put(tenant, body["id"].as_str().unwrap_or_default(), Kept { body: body.clone(), conversation });
}

/// A streamed response between its events.
struct Streaming {
    state: Arc<AppState>,
    tenant: Tenant,
    answer: AnswerStream,
    writer: EventWriter,
    keeping: Option<Vec<RequestMessage>>,
}

/// The events of one response. Dropping them, as axum does when the client leaves, stops the model.
fn events_of(
    state: Arc<AppState>,
    tenant: Tenant,
    answer: AnswerStream,
    head: Head,
    keeping: Option<Vec<RequestMessage>>,
    deadline: Instant,
) -> impl Stream<Item = Event> + Send {
    let mut writer = EventWriter::new(head);
    let opening = writer.opening();
    let streaming = Some(Streaming { state, tenant, answer, writer, keeping });
    let rest = stream::unfold(streaming, move |streaming| async move {
        let mut streaming = streaming?;
        let writer = &mut streaming.writer;
        let step = match tokio::time::timeout_at(deadline, streaming.answer.next()).await {
            Err(_) => {
                let error = ApiError::new(StatusCode::GATEWAY_TIMEOUT, "the answer took too long and was cut off");
                return Some((writer.failure(&error), None));
            }
            Ok(step) => step?,
        };
        match step {
            Ok(AnswerEvent::Delta(text)) => Some((writer.delta(&text), Some(streaming))),
            Ok(AnswerEvent::Beside(beside)) => {
                writer.beside(beside);
                Some((Vec::new(), Some(streaming)))
            }
            Ok(AnswerEvent::Done(summary)) => {
                let (events, body, beside) = writer.closing(&summary);
                let keeping = streaming.keeping.take();
                keep(&streaming.state, &streaming.tenant, keeping, &streaming.writer.text, &beside, &body);
                Some((events, None))
            }
            Err(error) => Some((writer.failure(&ApiError::from(error)), None)),
        }
    });
    stream::iter(opening).chain(rest.map(stream::iter).flatten())
}

/// `GET /v1/responses/{id}`.
pub(crate) async fn retrieve(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    state.responses.get(&caller.tenant, &id).map(|kept| Json(kept.body.clone())).ok_or_else(|| no_response(&id))
}

/// `DELETE /v1/responses/{id}`.
pub(crate) async fn delete(State(state): State<Arc<AppState>>, caller: Caller, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    match state.responses.remove(&caller.tenant, &id) {
        true => Ok(Json(Deleted { id, object: "response".to_owned(), deleted: true })),
        false => Err(no_response(&id)),
    }
}
