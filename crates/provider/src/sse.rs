//! A model server's stream, or what it sends instead of one, as chunks.

use crate::events::{EventDecoder, EventError};
use crate::{Endpoint, Error};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use groundtone_openai_api::{ChatCompletionChunk, ChatCompletionRequest, ErrorBody};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Most bytes between two events: a line without an end, or comments without an event, would fill the memory.
const EVENT_BYTES: usize = 1 << 20;

/// Posts a streaming chat request and gives the chunks as they come, until `[DONE]`. Dropping the stream closes the connection, which stops the server.
///
/// A server that answers with one JSON body although a stream was asked for gives one chunk with everything.
pub async fn stream_chunks(
    endpoint: &Endpoint,
    body: &ChatCompletionRequest,
) -> Result<BoxStream<'static, Result<ChatCompletionChunk, Error>>, Error> {
    let response = endpoint.post("/chat/completions", body).await?;
    let media = response.headers().get(reqwest::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "text/event-stream" => Ok(events(endpoint.clone(), response.bytes_stream(), parse_event).boxed()),
        "application/json" => {
            let whole: Value = endpoint.read_json(response).await?;
            let chunk = whole_answer(endpoint, whole)?;
            Ok(stream::iter([Ok(chunk)]).boxed())
        }
        _ => Err(endpoint.protocol(format!("`{media}` instead of `text/event-stream`"))),
    }
}

/// Posts a body and gives the events that come back, each as JSON, until the server ends the stream or says `[DONE]`. An error object in the stream ends it with that error.
pub async fn post_events<T: DeserializeOwned + Send + 'static>(
    endpoint: &Endpoint,
    path: &str,
    body: &impl Serialize,
) -> Result<BoxStream<'static, Result<T, Error>>, Error> {
    let response = endpoint.post(path, body).await?;
    Ok(events(endpoint.clone(), response.bytes_stream(), parse_event).boxed())
}

/// What is in an event stream. Only an event counts as a sign of life, so neither single bytes nor comments hold a request open.
fn events<B: AsRef<[u8]> + Send + 'static, T: Send + 'static>(
    endpoint: Endpoint,
    bytes: impl Stream<Item = Result<B, reqwest::Error>> + Send + 'static,
    parse: fn(&Endpoint, &str) -> Result<T, Error>,
) -> impl Stream<Item = Result<T, Error>> + Send {
    let reader =
        EventReader { bytes: bytes.boxed(), decoder: EventDecoder::new(EVENT_BYTES), ready: Vec::new().into_iter(), wrong: None, endpoint };
    stream::unfold(Some(reader), move |reader| async move {
        let mut reader = reader?;
        let data = match tokio::time::timeout(reader.endpoint.idle, reader.next()).await {
            Err(_) => return Some((Err(reader.endpoint.timeout(reader.endpoint.idle)), None)),
            Ok(Err(error)) => return Some((Err(error), None)),
            Ok(Ok(data)) => data.filter(|data| data.trim() != "[DONE]")?,
        };
        match parse(&reader.endpoint, &data) {
            Ok(event) => Some((Ok(event), Some(reader))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

struct EventReader<B> {
    bytes: BoxStream<'static, Result<B, reqwest::Error>>,
    decoder: EventDecoder,
    /// Events that are decoded and not yet given.
    ready: std::vec::IntoIter<String>,
    /// What went wrong behind them.
    wrong: Option<EventError>,
    endpoint: Endpoint,
}

impl<B: AsRef<[u8]>> EventReader<B> {
    /// The data of the next event; `None` at the end.
    async fn next(&mut self) -> Result<Option<String>, Error> {
        loop {
            if let Some(data) = self.ready.next() {
                return Ok(Some(data));
            }
            if let Some(error) = self.wrong {
                return Err(self.endpoint.protocol(error.to_string()));
            }
            let Some(bytes) = self.bytes.next().await else { return Ok(None) };
            let bytes = bytes.map_err(|error| self.endpoint.unreachable(&error))?;
            let mut events = Vec::new();
            self.wrong = self.decoder.feed(bytes.as_ref(), &mut events).err();
            self.ready = events.into_iter();
        }
    }
}

fn parse_event<T: DeserializeOwned>(endpoint: &Endpoint, data: &str) -> Result<T, Error> {
    // Servers report a failure in the middle of a stream as an error object.
    if data.contains("\"error\"")
        && let Ok(body) = serde_json::from_str::<ErrorBody>(data)
    {
        return Err(failure(endpoint, body));
    }
    serde_json::from_str(data).map_err(|error| endpoint.protocol(error.to_string()))
}

/// An error that came with status 200; some servers give the status as its code.
fn failure(endpoint: &Endpoint, body: ErrorBody) -> Error {
    let code = body.error.code.as_ref().and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    let (endpoint, message) = (endpoint.base_url().to_owned(), body.error.message.clone());
    match code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code)) {
        Some(status) => Error::Refused { endpoint, status, message, detail: Some(Box::new(body.error)), retry_after: None },
        None => Error::Unreachable { endpoint, reason: message },
    }
}

/// `chat.completion` as one chunk: each message becomes a delta, and its tool calls get the index that deltas have.
fn whole_answer(endpoint: &Endpoint, mut whole: Value) -> Result<ChatCompletionChunk, Error> {
    if whole.get("error").is_some_and(|error| !error.is_null()) {
        let body = serde_json::from_value(whole).map_err(|error| endpoint.protocol(error.to_string()))?;
        return Err(failure(endpoint, body));
    }
    for choice in whole.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(mut message) = choice.get_mut("message").map(Value::take) else { continue };
        for (at, call) in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            if let Some(call) = call.as_object_mut() {
                call.entry("index").or_insert(json!(at));
            }
        }
        if let Some(choice) = choice.as_object_mut() {
            choice.remove("message");
            choice.insert("delta".to_owned(), message);
        }
    }
    serde_json::from_value(whole).map_err(|error| endpoint.protocol(error.to_string()))
}
