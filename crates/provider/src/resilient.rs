//! A chat model behind a queue, time limits, retries and a circuit breaker.

use crate::breaker::{Breaker, BreakerSettings};
use crate::{ChatEvent, ChatExtras, ChatModel, ChatRequest, ChatStream, Error};
use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{StreamExt, stream};
use groundtone_prompt::CountTokens;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

/// The first retry comes after half of this to all of it; each further one after twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(400);

/// What a model server may take, and what is done when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resilience {
    /// Answers at the same time.
    pub parallel: usize,
    /// Requests that may wait for one of them to end; one more is refused with [`Error::Overloaded`].
    pub queue: usize,
    /// Longest wait in that queue.
    pub queue_wait: Duration,
    /// Longest wait for the first piece of an answer, for each try.
    pub first_token: Duration,
    /// Longest time for everything: waiting, all tries, and the answer to its end.
    pub total: Duration,
    /// Tries after the first one, all of them before anything of an answer has come.
    pub retries: usize,
    /// Longest pause before a retry. A server that asks for a longer one is not asked again.
    pub longest_pause: Duration,
    /// When the server is left alone.
    pub breaker: BreakerSettings,
}

/// A [`ChatModel`] that keeps to [`Resilience`].
///
/// [`ChatModel::chat`] returns when the first piece of the answer is there: until then a failure that may pass is tried again, and is an error of the call.
/// After it nothing is tried again, because the client has read a part. Dropping the call or its stream drops what it asked for, at any point.
pub struct Resilient {
    model: Arc<dyn ChatModel>,
    /// What error messages call the server.
    name: String,
    settings: Resilience,
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    breaker: Arc<Mutex<Breaker>>,
}

impl Resilient {
    /// Puts `settings` around `model`, which is called `name` (its address) in errors.
    pub fn new(model: Arc<dyn ChatModel>, name: impl Into<String>, settings: Resilience) -> Self {
        let places = settings.parallel.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            model,
            name: name.into(),
            settings,
            places: Arc::new(Semaphore::new(places)),
            waiting: Arc::default(),
            breaker: Arc::new(Mutex::new(Breaker::new(settings.breaker))),
        }
    }

    fn timeout(&self, limit: Duration) -> Error {
        Error::Timeout { endpoint: self.name.clone(), seconds: limit.as_secs() }
    }

    /// A place among those that are answered; waits in the queue where there is none.
    async fn take_place(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let full = |waiting| Error::Overloaded { model: self.name.clone(), waiting };
        let most = self.settings.queue;
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| (waiting < most).then_some(waiting + 1)).map_err(full)?;
        let _waits = Waits(self.waiting.clone());
        match tokio::time::timeout(self.settings.queue_wait, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // The semaphore is never closed, so this is always the time limit.
            Ok(Err(_)) | Err(_) => Err(full(self.waiting.load(Ordering::SeqCst))),
        }
    }

    /// Sends the request once, and waits for the first piece.
    async fn attempt(&self, request: ChatRequest) -> Result<(Trial, ChatEvent, ChatStream), Error> {
        let admitted = self.breaker.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        admitted.map_err(|wait| Error::Resting { endpoint: self.name.clone(), wait })?;
        let mut trial = Trial { breaker: self.breaker.clone(), name: self.name.clone(), over: false };
        let first = async {
            let mut events = self.model.chat(request).await?;
            let first = events.next().await.unwrap_or_else(|| Err(self.ended()))?;
            Ok((first, events))
        };
        match tokio::time::timeout(self.settings.first_token, first).await.unwrap_or_else(|_| Err(self.timeout(self.settings.first_token)))
        {
            Ok((first, events)) => {
                trial.began();
                Ok((trial, first, events))
            }
            Err(error) => {
                trial.ended(&error);
                Err(error)
            }
        }
    }

    fn ended(&self) -> Error {
        Error::Unreachable { endpoint: self.name.clone(), reason: "the answer ended before it began".to_owned() }
    }

    /// Tries until the first piece is there, or until trying again makes no sense.
    async fn start(&self, request: ChatRequest) -> Result<(Trial, ChatEvent, ChatStream), Error> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE / 2)
            .with_max_delay(self.settings.longest_pause)
            .with_max_times(self.settings.retries)
            .with_jitter()
            .build();
        loop {
            let error = match self.attempt(request.clone()).await {
                Ok(begun) => return Ok(begun),
                Err(error) => error,
            };
            let Some(pause) = pauses.next().filter(|_| may_be_retried(&error)) else { return Err(error) };
            let pause = match error.retry_after() {
                Some(asked) if asked > self.settings.longest_pause => return Err(error),
                Some(asked) => asked.max(pause),
                None => pause,
            };
            warn!(%error, seconds = pause.as_secs_f32(), "the model server is tried again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// What may pass by itself. After a time-out the server is probably still computing, and a second request would make it slower still.
fn may_be_retried(error: &Error) -> bool {
    error.is_passing() && !matches!(error, Error::Timeout { .. } | Error::Resting { .. } | Error::Overloaded { .. })
}

/// Whether an error says that the server is ill. A 429 says that it is well and busy; a 4xx that the request was wrong.
fn is_illness(error: &Error) -> bool {
    match error {
        Error::Refused { status, .. } => *status >= 500,
        Error::Unreachable { .. } | Error::Timeout { .. } | Error::Protocol { .. } => true,
        _ => false,
    }
}

#[async_trait]
impl ChatModel for Resilient {
    fn id(&self) -> &str {
        self.model.id()
    }

    fn context_tokens(&self) -> usize {
        self.model.context_tokens()
    }

    fn tokens(&self) -> Arc<dyn CountTokens> {
        self.model.tokens()
    }

    fn check(&self, extras: &ChatExtras) -> Result<(), Error> {
        self.model.check(extras)
    }

    fn is_resting(&self) -> bool {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner).is_resting(Instant::now())
    }

    async fn chat(&self, request: ChatRequest) -> Result<ChatStream, Error> {
        let deadline = tokio::time::Instant::now() + self.settings.total;
        let begin = async {
            let place = self.take_place().await?;
            let (trial, first, events) = self.start(request).await?;
            Ok((place, trial, first, events))
        };
        let too_late = self.timeout(self.settings.total);
        let (place, trial, first, events) = match tokio::time::timeout_at(deadline, begin).await {
            Ok(begun) => begun?,
            Err(_) => return Err(too_late),
        };
        let answer = Answering { events, trial, _place: place, deadline, too_late: Some(too_late) };
        Ok(stream::once(std::future::ready(Ok(first))).chain(stream::unfold(answer, Answering::next)).boxed())
    }
}

/// An answer after its first piece.
struct Answering {
    events: ChatStream,
    trial: Trial,
    _place: OwnedSemaphorePermit,
    deadline: tokio::time::Instant,
    /// Taken when the time is up; nothing follows it.
    too_late: Option<Error>,
}

impl Answering {
    async fn next(mut self) -> Option<(Result<ChatEvent, Error>, Self)> {
        self.too_late.as_ref()?;
        let Ok(event) = tokio::time::timeout_at(self.deadline, self.events.next()).await else {
            return self.too_late.take().map(|error| (Err(error), self));
        };
        match &event {
            Some(Ok(ChatEvent::Finished { .. })) | None => self.trial.succeeded(),
            Some(Err(error)) => self.trial.ended(error),
            Some(Ok(_)) => {}
        }
        event.map(|event| (event, self))
    }
}

/// A place in the queue; given back when dropped.
struct Waits(Arc<AtomicUsize>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One request that the breaker admitted, and what it tells the breaker; dropped early, it tells nothing.
struct Trial {
    breaker: Arc<Mutex<Breaker>>,
    name: String,
    over: bool,
}

impl Trial {
    fn tell(&mut self, verdict: impl FnOnce(&mut Breaker, Instant) -> bool) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let opened = verdict(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        if opened {
            warn!(server = self.name, "the model server failed too often and is left alone for a while");
        }
    }

    fn began(&mut self) {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner).began();
    }

    fn succeeded(&mut self) {
        self.tell(|breaker, _| {
            breaker.succeeded();
            false
        });
    }

    fn ended(&mut self, error: &Error) {
        if is_illness(error) {
            self.tell(Breaker::failed);
        } else {
            self.tell(|breaker, now| {
                breaker.no_verdict(now);
                false
            });
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.tell(|breaker, now| {
            breaker.no_verdict(now);
            false
        });
    }
}
