//! Work that outlives its client, told as an event stream: how far it is, what is done as soon as it is done, and an error as the last event.

use crate::error::ApiError;
use axum::response::Sse;
use axum::response::sse::Event;
use futures::{Stream, StreamExt, stream};
use groundtone_types::ErrorKind;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Interval;

/// How often progress is sent, whether there is any or not: the client takes silence for a dead server.
const TICK: Duration = Duration::from_millis(500);

/// What the work tells.
pub(crate) struct Teller<E> {
    progress: watch::Sender<Option<E>>,
    done: mpsc::Sender<E>,
}

impl<E> Teller<E> {
    /// How far it is. Only the newest is sent.
    pub(crate) fn at(&self, progress: E) {
        self.progress.send_replace(Some(progress));
    }

    /// Something that is not to be missed.
    pub(crate) fn done(&self, event: E) {
        if self.done.try_send(event).is_err() {
            tracing::debug!("the client has left; the work goes on");
        }
    }
}

/// Begins work that tells at most `most` things that are not to be missed. It goes on when the client leaves.
pub(crate) fn tell<E, W>(most: usize, work: impl FnOnce(Teller<E>) -> W) -> Sse<impl Stream<Item = Result<Event, Infallible>>>
where
    E: Serialize + Clone + Send + Sync + 'static,
    W: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (progress, seen) = watch::channel(None);
    let (done, told) = mpsc::channel(most);
    let work = tokio::spawn(work(Teller { progress, done }));
    Sse::new(events(Telling { seen, told, work: Some(work), tick: tokio::time::interval(TICK) }).map(Ok))
}

struct Telling<E> {
    seen: watch::Receiver<Option<E>>,
    told: mpsc::Receiver<E>,
    work: Option<JoinHandle<Result<(), ApiError>>>,
    tick: Interval,
}

fn events<E: Serialize + Clone>(telling: Telling<E>) -> impl Stream<Item = Event> {
    stream::unfold(telling, |mut telling| async move {
        telling.work.as_ref()?;
        loop {
            tokio::select! {
                biased;
                event = telling.told.recv() => {
                    let event = match event {
                        Some(event) => json(&event),
                        // The work has let go of its end of the channel: it is over.
                        None => ending(telling.work.take()?).await,
                    };
                    return Some((event, telling));
                }
                _ = telling.tick.tick() => {
                    let at = telling.seen.borrow().clone();
                    if let Some(at) = at {
                        return Some((json(&at), telling));
                    }
                }
            }
        }
    })
}

async fn ending(work: JoinHandle<Result<(), ApiError>>) -> Event {
    let error = match work.await {
        Ok(Ok(())) => return Event::default().data("[DONE]"),
        Ok(Err(error)) => error,
        Err(error) => ApiError::of(ErrorKind::Internal, &error),
    };
    json(&error.body())
}

fn json(value: &impl Serialize) -> Event {
    Event::default().json_data(value).unwrap_or_else(|_| Event::default().comment("an event could not be written"))
}
