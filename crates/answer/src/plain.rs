//! A model alone: no documents are searched, nothing is rendered and nothing is cited.

use crate::{AnswerEvent, AnswerStream, Error, Question, Summary, Timings};
use futures::{StreamExt, stream};
use groundtone_provider::{ChatEvent, ChatModel, ChatRequest};
use std::sync::Arc;
use std::time::Instant;

/// Lets the model answer the messages as they are.
pub async fn stream_plain(model: Arc<dyn ChatModel>, question: Question) -> Result<AnswerStream, Error> {
    let started = Instant::now();
    model.check(&question.extras)?;
    let Question { messages, sampling, extras, .. } = question;
    let events = model.chat(ChatRequest { messages, sampling, extras }).await?;
    let state = Some((events, model, Timings::default()));
    let answer = stream::unfold(state, move |state| async move {
        let (mut events, model, mut timings) = state?;
        let elapsed = || started.elapsed().as_secs_f64() * 1e3;
        let (event, is_last) = match events.next().await {
            Some(Ok(ChatEvent::Delta(delta))) => {
                if timings.first_token_ms == 0.0 {
                    timings.first_token_ms = elapsed();
                }
                (Ok(AnswerEvent::Delta(delta)), false)
            }
            Some(Ok(ChatEvent::Beside(beside))) => (Ok(AnswerEvent::Beside(beside)), false),
            Some(Ok(ChatEvent::Finished { reason, usage })) => {
                timings.total_ms = elapsed();
                let summary = Summary {
                    citations: Vec::new(),
                    unresolved_markers: Vec::new(),
                    removed_citations: Vec::new(),
                    links_removed: 0,
                    sources: Vec::new(),
                    finish: reason,
                    usage,
                    variant: String::new(),
                    release: None,
                    canary: false,
                    fell_back_from: None,
                    prompt_fingerprint: String::new(),
                    model: model.id().to_owned(),
                    abstained: false,
                    abstained_because: None,
                    evidence: None,
                    rewritten_query: None,
                    timings,
                    trace_id: None,
                };
                (Ok(AnswerEvent::Done(Box::new(summary))), true)
            }
            Some(Err(error)) => (Err(error.into()), true),
            None => (Err(Error::Unfinished { model: model.id().to_owned() }), true),
        };
        Some((event, (!is_last).then_some((events, model, timings))))
    });
    Ok(answer.boxed())
}
