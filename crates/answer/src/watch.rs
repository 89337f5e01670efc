//! Who wants to know how answers end.

use crate::{AnswerEvent, AnswerStream, Decision, Error, Live, Question, Summary};
use futures::{StreamExt, stream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a question ended. A client that left before the end is not told of.
#[derive(Debug)]
pub struct Ended<'a> {
    /// The question.
    pub question: &'a Question,
    /// Who was to answer it.
    pub decision: &'a Decision,
    /// What was released then.
    pub live: &'a Live,
    /// The text and what is known of it, or why there is none.
    pub outcome: Result<(&'a str, &'a Summary), &'a Error>,
    /// From the question to the end.
    pub took: Duration,
}

/// Is told of every answer that was shown to somebody. It must return at once.
pub trait Watch: Send + Sync {
    /// An answer is complete, or has failed.
    fn ended(&self, ended: &Ended<'_>);
}

/// A question on its way, and who is told of its end.
pub(crate) struct Watched {
    pub(crate) question: Question,
    pub(crate) decision: Decision,
    pub(crate) live: Arc<Live>,
    pub(crate) watch: Arc<dyn Watch>,
    pub(crate) began: Instant,
}

impl Watched {
    fn tell(&self, outcome: Result<(&str, &Summary), &Error>) {
        let Self { question, decision, live, .. } = self;
        self.watch.ended(&Ended { question, decision, live, outcome, took: self.began.elapsed() });
    }

    /// The same answer, of whose end somebody is told.
    pub(crate) fn follow(self, answer: Result<AnswerStream, Error>) -> Result<AnswerStream, Error> {
        let events = match answer {
            Ok(events) => events,
            Err(error) => {
                self.tell(Err(&error));
                return Err(error);
            }
        };
        let state = (self, events, String::new());
        Ok(stream::unfold(state, |(watched, mut events, mut text)| async move {
            let event = events.next().await?;
            match &event {
                Ok(AnswerEvent::Delta(delta)) => text.push_str(delta),
                Ok(AnswerEvent::Beside(_)) => {}
                Ok(AnswerEvent::Done(summary)) => watched.tell(Ok((&text, summary))),
                Err(error) => watched.tell(Err(error)),
            }
            Some((event, (watched, events, text)))
        })
        .boxed())
    }
}
