//! Who wants to know how answers end.

use crate::{AnswerEvent, AnswerStream, Decision, Error, Live, Question, Summary};
use futures::{StreamExt, stream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What became of a question.
#[derive(Debug, Clone, Copy)]
pub enum Ending<'a> {
    /// The whole text, and what is known of it.
    Answered(&'a str, &'a Summary),
    /// There is none, or it broke off.
    Failed(&'a Error),
    /// Nobody waited for the end: the client has left, or the server's time was up.
    Left,
}

/// How a question ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// The question.
    pub question: &'a Question,
    /// What stays the same in all turns of its conversation, with the tenant.
    pub conversation: &'a str,
    /// Who was to answer it.
    pub decision: &'a Decision,
    /// What was released then.
    pub live: &'a Live,
    /// What became of it.
    pub ending: Ending<'a>,
    /// From the question to the end.
    pub took: Duration,
}

/// Is told of every answer that was meant for somebody, once. It must return at once.
pub trait Watch: Send + Sync {
    /// An answer is complete, has failed, or was given up.
    fn ended(&self, ended: &Ended<'_>);
}

/// A question on its way, and who is told of its end: also where it is dropped before there is one.
pub(crate) struct Watched {
    pub(crate) question: Question,
    pub(crate) conversation: String,
    pub(crate) decision: Decision,
    pub(crate) live: Arc<Live>,
    /// `None` once it was told, and where nobody wants to know.
    pub(crate) watch: Option<Arc<dyn Watch>>,
    pub(crate) began: Instant,
}

impl Watched {
    fn tell(&mut self, ending: Ending<'_>) {
        if let Some(watch) = self.watch.take() {
            let Self { question, conversation, decision, live, began, .. } = &*self;
            watch.ended(&Ended { question, conversation, decision, live, ending, took: began.elapsed() });
        }
    }

    /// The same answer, of whose end somebody is told.
    pub(crate) fn follow(mut self, answer: Result<AnswerStream, Error>) -> Result<AnswerStream, Error> {
        let events = match answer {
            Ok(events) if self.watch.is_none() => return Ok(events),
            Ok(events) => events,
            Err(error) => {
                self.tell(Ending::Failed(&error));
                return Err(error);
            }
        };
        let state = (self, events, String::new());
        Ok(stream::unfold(state, |(mut watched, mut events, mut text)| async move {
            let event = events.next().await?;
            match &event {
                Ok(AnswerEvent::Delta(delta)) => text.push_str(delta),
                Ok(AnswerEvent::Beside(_)) => {}
                Ok(AnswerEvent::Done(summary)) => watched.tell(Ending::Answered(&text, summary)),
                Err(error) => watched.tell(Ending::Failed(error)),
            }
            Some((event, (watched, events, text)))
        })
        .boxed())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tell(Ending::Left);
    }
}
