//! Many texts to an embedder: in batches of its size, as many at once as it takes, and no faster than it allows.

use crate::{EmbedFor, Embedder, Error};
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use groundtone_types::ErrorKind;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

/// First pause before a second try; each further one is twice as long, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause of our own. A server that asks for a longer one gets it, up to [`LONGEST_WAIT`].
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest wait that a server's `Retry-After` is followed.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How fast an embedder may be called, and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Calls a minute; 0 is no limit.
    pub requests_per_minute: u32,
    /// Tokens a minute; 0 is no limit.
    pub tokens_per_minute: u32,
    /// Tries of one batch before the run is given up.
    pub attempts: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { requests_per_minute: 0, tokens_per_minute: 0, attempts: 8 }
    }
}

/// Vectors of some of the texts, as they come.
#[derive(Debug)]
pub struct Batch {
    /// Positions of the texts.
    pub positions: Vec<usize>,
    /// As many vectors; or why this one text can have none (then it is one position).
    pub result: Result<Vec<Vec<f32>>, Error>,
}

/// Sends texts to one embedder.
///
/// Texts of like length go together. A failure that may pass is tried again after a pause that all batches keep, at least as long as the server asked for. A batch that is too large (413) is
/// halved, and later ones start smaller. A text that alone is refused, when others pass, costs itself only.
pub struct Batcher {
    embedder: Arc<dyn Embedder>,
    pace: Pace,
    requests: Option<DefaultDirectRateLimiter>,
    tokens: Option<(DefaultDirectRateLimiter, NonZeroU32)>,
    calls: AtomicUsize,
    /// Most texts a call; halved when the server says 413.
    texts: AtomicUsize,
    /// Whether any call has passed: then a refusal is about the texts, not about the configuration.
    passed: AtomicBool,
    /// One permit for each call at the same time, however many callers there are.
    slots: Semaphore,
    /// Nobody calls before this instant.
    not_before: Mutex<Option<Instant>>,
}

impl Batcher {
    /// Calls `embedder` within `pace` and the embedder's own limits.
    pub fn new(embedder: Arc<dyn Embedder>, pace: Pace) -> Self {
        let limiter = |per_minute: u32| NonZeroU32::new(per_minute).map(|n| (RateLimiter::direct(Quota::per_minute(n)), n));
        let embedder_limits = embedder.limits();
        let texts = AtomicUsize::new(embedder_limits.texts.max(1));
        Self {
            embedder,
            pace,
            requests: limiter(pace.requests_per_minute).map(|(limiter, _)| limiter),
            tokens: limiter(pace.tokens_per_minute),
            calls: AtomicUsize::default(),
            texts,
            passed: AtomicBool::default(),
            slots: Semaphore::new(embedder_limits.parallel.max(1)),
            not_before: Mutex::default(),
        }
    }

    /// Who embeds.
    pub fn embedder(&self) -> &Arc<dyn Embedder> {
        &self.embedder
    }

    /// Calls made so far, failed ones too.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Embeds documents' texts; `sizes` are their tokens. Batches come as they are done, each text in exactly one. An error ends the stream: what came before it is good.
    pub fn documents<'a>(&'a self, texts: &'a [String], sizes: &'a [usize]) -> BoxStream<'a, Result<Batch, Error>> {
        let mut order: VecDeque<usize> = (0..texts.len()).collect();
        order.make_contiguous().sort_by_key(|&at| sizes.get(at).copied().unwrap_or_default());
        let limits = self.embedder.limits();
        let cut = stream::iter(std::iter::from_fn(move || self.next_batch(&mut order, sizes, limits.tokens)));
        let batches = cut.map(move |positions| self.embed(positions, texts, sizes)).buffer_unordered(limits.parallel.max(1));
        let ending = |over: &mut bool, batch: Result<Batch, Error>| {
            let next = (!*over).then_some(batch);
            *over |= next.as_ref().is_some_and(Result::is_err);
            std::future::ready(next)
        };
        batches.flat_map(stream::iter).scan(false, ending).boxed()
    }

    /// The next texts in order, as many as fit; at least one.
    fn next_batch(&self, order: &mut VecDeque<usize>, sizes: &[usize], most_tokens: usize) -> Option<Vec<usize>> {
        let (mut positions, mut tokens) = (Vec::new(), 0);
        while let Some(&at) = order.front() {
            let size = sizes.get(at).copied().unwrap_or_default();
            if !positions.is_empty() && (positions.len() >= self.texts.load(Ordering::Relaxed) || tokens + size > most_tokens) {
                break;
            }
            tokens += size;
            positions.push(at);
            order.pop_front();
        }
        (!positions.is_empty()).then_some(positions)
    }

    /// One batch to its end, halved as often as it must be.
    fn embed<'a>(
        &'a self,
        positions: Vec<usize>,
        texts: &'a [String],
        sizes: &'a [usize],
    ) -> futures::future::BoxFuture<'a, Vec<Result<Batch, Error>>> {
        async move {
            let error = match self.call(&positions, texts, sizes).await {
                Ok(vectors) => return vec![Ok(Batch { positions, result: Ok(vectors) })],
                Err(error) => error,
            };
            let too_large = matches!(error, Error::Refused { status: 413, .. });
            let about_the_texts = error.kind() == ErrorKind::InvalidRequest && (too_large || self.passed.load(Ordering::Relaxed));
            if !about_the_texts {
                return vec![Err(error)];
            }
            if positions.len() == 1 {
                return vec![Ok(Batch { positions, result: Err(error) })];
            }
            let half = positions.len() / 2;
            if too_large {
                self.texts.fetch_min(half, Ordering::Relaxed);
                warn!(texts = positions.len(), "the embedder refused a batch as too large; it is halved");
            }
            let mut batches = self.embed(positions[..half].to_vec(), texts, sizes).await;
            batches.extend(self.embed(positions[half..].to_vec(), texts, sizes).await);
            batches
        }
        .boxed()
    }

    /// One call, tried again while its failure may pass.
    async fn call(&self, positions: &[usize], texts: &[String], sizes: &[usize]) -> Result<Vec<Vec<f32>>, Error> {
        let input: Vec<String> = positions.iter().filter_map(|&at| texts.get(at).cloned()).collect();
        let tokens: usize = positions.iter().filter_map(|&at| sizes.get(at)).sum();
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_max_times(self.pace.attempts.saturating_sub(1))
            .with_jitter()
            .build();
        loop {
            let slot = self.slots.acquire().await;
            self.wait_for_turn(tokens).await;
            self.calls.fetch_add(1, Ordering::Relaxed);
            let error = match self.embedder.embed(&input, EmbedFor::Document).await {
                Ok(vectors) => {
                    self.passed.store(true, Ordering::Relaxed);
                    return Ok(vectors);
                }
                Err(error) => error,
            };
            drop(slot);
            let Some(pause) = pauses.next().filter(|_| error.is_passing()) else { return Err(error) };
            let pause = error.retry_after().map_or(pause, |asked| asked.max(pause).min(LONGEST_WAIT));
            warn!(%error, seconds = pause.as_secs_f32(), "the embedder is tried again");
            self.pause(pause);
        }
    }

    /// All batches keep a pause that one of them was asked to make.
    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        *not_before = Some(not_before.map_or(until, |earlier| earlier.max(until)));
    }

    async fn wait_for_turn(&self, tokens: usize) {
        loop {
            let until = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => break,
            }
        }
        if let Some(requests) = &self.requests {
            requests.until_ready().await;
        }
        if let Some((limiter, most)) = &self.tokens {
            // A batch larger than a whole minute's budget takes all of it.
            let wanted = u32::try_from(tokens).ok().and_then(NonZeroU32::new).map_or(NonZeroU32::MIN, |wanted| wanted.min(*most));
            if limiter.until_n_ready(wanted).await.is_err() {
                warn!(tokens, "a batch is larger than the token budget");
            }
        }
    }
}
