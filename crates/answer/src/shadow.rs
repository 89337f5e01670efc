//! Copies of questions for a variant whose answers nobody is shown.

use crate::{Answer, Error};
use groundtone_types::Tenant;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tracing::{Instrument, debug, info_span};

/// An answer that nobody was shown.
#[derive(Debug)]
pub struct ShadowAnswer {
    /// Whose question.
    pub tenant: Tenant,
    /// The question, as it was asked.
    pub question: String,
    /// The variant that answered the client.
    pub primary: String,
    /// The variant that answered in its shadow.
    pub variant: String,
    /// Its answer.
    pub answer: Result<Answer, Error>,
}

/// Takes down what shadows answer. It must return at once.
pub type ShadowSink = Arc<dyn Fn(ShadowAnswer) + Send + Sync>;

/// Runs shadows in the background: so many at a time, and where there are more the copy is dropped.
#[derive(Clone)]
pub(crate) struct Shadows {
    places: Arc<Semaphore>,
    sink: ShadowSink,
}

impl Shadows {
    pub(crate) fn new(parallel: usize, sink: ShadowSink) -> Self {
        Self { places: Arc::new(Semaphore::new(parallel.clamp(1, Semaphore::MAX_PERMITS))), sink }
    }

    /// Answers in the background; false where all places are taken.
    pub(crate) fn run(&self, variant: &str, work: impl Future<Output = ShadowAnswer> + Send + 'static) -> bool {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            debug!(variant, "a shadow was dropped: too many are running");
            return false;
        };
        let sink = self.sink.clone();
        let span = info_span!(parent: None, "answer.shadow", variant);
        let work = async move {
            let answer = work.await;
            drop(place);
            sink(answer);
        };
        // Nobody waits for it, and it may end with the process.
        tokio::spawn(work.instrument(span));
        true
    }
}
