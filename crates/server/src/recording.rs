//! An answer on its way to the client, watched: its trace, its metrics, and what its key has used.

use crate::access::Caller;
use crate::api::wire::unix_now;
use crate::handoff::Unanswered;
use crate::limits::Price;
use crate::replay::traced;
use crate::state::AppState;
use futures::{Stream, StreamExt};
use groundtone_answer::{Answer, AnswerEvent, AnswerStream, Error, Question, Summary};
use groundtone_catalog::{Outcome, TraceRecord, Used};
use groundtone_prompt::{CitationStatus, Role};
use groundtone_telemetry::AnswerMeasure;
use groundtone_types::{ErrorKind, TokenUsage};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Characters of a token, about, where the model server does not count.
const CHARACTERS_PER_TOKEN: usize = 4;

impl AppState {
    /// Answers piece by piece. Whatever becomes of the stream, what became of it is recorded.
    pub(crate) async fn stream_answer(self: &Arc<Self>, caller: &Caller, question: Question) -> Result<AnswerStream, Error> {
        self.recorded(caller, &question.clone(), self.answerer.stream(question)).await
    }

    /// Begins an answer to `question` and records what becomes of it.
    pub(crate) async fn recorded(
        self: &Arc<Self>,
        caller: &Caller,
        question: &Question,
        begin: impl Future<Output = Result<AnswerStream, Error>>,
    ) -> Result<AnswerStream, Error> {
        let mut draft = Draft::new(self.clone(), caller.clone(), question);
        match begin.await {
            Ok(events) => Ok(Recording { events, draft: Some(draft) }.boxed()),
            Err(error) => {
                draft.fail(&error);
                Err(error)
            }
        }
    }

    /// Answers and waits for the end.
    pub(crate) async fn whole_answer(self: &Arc<Self>, caller: &Caller, question: Question) -> Result<Answer, Error> {
        let events = self.stream_answer(caller, question).await?;
        groundtone_answer::collect(events, self.answerer.model_id()).await
    }
}

/// What is known of an answer so far. Dropped before its end it is a client's that has left.
struct Draft {
    state: Arc<AppState>,
    caller: Caller,
    started: Instant,
    over: bool,
    /// What the client calls the conversation.
    conversation: Option<String>,
    /// Whether the client names the variant: then nobody waits for people.
    pinned: bool,
    trace: TraceRecord,
}

impl Draft {
    fn new(state: Arc<AppState>, caller: Caller, question: &Question) -> Self {
        let asked = question.messages.iter().rfind(|message| message.role == Role::User);
        let asked = asked.map(|message| message.content.clone()).unwrap_or_default();
        let sampling = &question.sampling;
        let trace = TraceRecord {
            id: format!("tr_{}", uuid::Uuid::now_v7().simple()),
            at: unix_now(),
            key: caller.key_id(),
            request_id: caller.request_id.clone(),
            variant: question.variant.clone().unwrap_or_else(|| state.answerer.live().variant.clone()),
            release: None,
            model: state.answerer.model_id().to_owned(),
            outcome: Outcome::Cancelled,
            error: None,
            query: asked.clone(),
            question: asked,
            answer: String::new(),
            messages: serde_json::to_value(&question.messages).unwrap_or(Value::Null),
            sampling: json!({"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens, "seed": sampling.seed, "stop": sampling.stop}),
            snippets: Vec::new(),
            citations: json!([]),
            prompt_fingerprint: String::new(),
            usage: None,
            money: 0.0,
            timings: json!({}),
            feedback: None,
        };
        let (conversation, pinned) = (question.conversation.clone(), question.variant.is_some());
        Self { state, caller, started: Instant::now(), over: false, conversation, pinned, trace }
    }

    fn finish(&mut self, summary: &mut Summary) {
        summary.trace_id = self.state.recorder.keeps_traces().then(|| self.trace.id.clone());
        let trace = &mut self.trace;
        trace.outcome = if summary.abstained { Outcome::Abstained } else { Outcome::Answered };
        trace.variant = summary.variant.clone();
        trace.release = summary.release.clone();
        trace.model = summary.model.clone();
        if let Some(query) = &summary.rewritten_query {
            trace.query.clone_from(query);
        }
        trace.prompt_fingerprint = summary.prompt_fingerprint.clone();
        trace.usage = summary.usage;
        trace.citations = serde_json::to_value(&summary.citations).unwrap_or(Value::Null);
        trace.timings = serde_json::to_value(summary.timings).unwrap_or(Value::Null);
        trace.snippets = (1..).zip(&summary.sources).map(|(number, snippet)| traced(number, snippet)).collect();
        if let Some(handoffs) = self.state.handoffs.as_ref().filter(|_| !self.pinned) {
            let (tenant, conversation) = (&self.caller.tenant, self.conversation.as_deref());
            handoffs.offer(&Unanswered { tenant, conversation, trace, summary });
        }
        let timings = summary.timings;
        let stages = [
            ("retrieve", timings.retrieve_ms),
            ("render", timings.render_ms),
            ("first_token", timings.first_token_ms),
            ("total", timings.total_ms),
        ];
        let cited = summary.citations.iter().map(|citation| match citation.status {
            CitationStatus::Supported => "supported",
            CitationStatus::Repaired => "repaired",
            CitationStatus::Unsupported => "unsupported",
            CitationStatus::Unchecked => "unchecked",
        });
        let unresolved = summary.unresolved_markers.iter().map(|_| "unresolved");
        let statuses: Vec<&str> = cited.chain(unresolved).chain(summary.removed_citations.iter().map(|_| "removed")).collect();
        self.close(&stages, &statuses);
    }

    fn fail(&mut self, error: &Error) {
        if error.kind() == ErrorKind::InvalidRequest {
            // The client's own mistake: nothing was asked of anybody.
            self.over = true;
            return;
        }
        self.trace.outcome = Outcome::Failed;
        self.trace.error = Some(error.to_string());
        let total = self.started.elapsed().as_secs_f64() * 1e3;
        self.close(&[("total", total)], &[]);
    }

    /// Counts and keeps what is known.
    fn close(&mut self, stages: &[(&'static str, f64)], citations: &[&str]) {
        self.over = true;
        let usage = self.trace.usage.unwrap_or_else(|| self.guess());
        let micros = Price::of(&self.state.access.prices, &self.trace.model, usage);
        self.trace.money = micros as f64 / 1e6;
        let used = Used { requests: 0, tokens: usage.total(), micros };
        if let Some(key) = &self.caller.key {
            key.count(unix_now(), used);
        }
        let tokens = [
            ("prompt", usage.prompt_tokens),
            ("cached", usage.cached_tokens),
            ("completion", usage.completion_tokens),
            ("reasoning", usage.reasoning_tokens),
        ];
        self.state.metrics.answer(&AnswerMeasure {
            variant: &self.trace.variant,
            model: &self.trace.model,
            outcome: self.trace.outcome.as_str(),
            stages,
            tokens: &tokens,
            money: self.trace.money,
            citations,
        });
        if self.state.recorder.keeps_traces() {
            self.state.recorder.keep(self.caller.tenant.clone(), self.trace.clone());
        }
    }

    /// Tokens by the length of the texts, where nobody has counted: a key's limits hold all the same. Nothing for an answer that did not begin.
    fn guess(&self) -> TokenUsage {
        if self.trace.answer.is_empty() {
            return TokenUsage::default();
        }
        let tokens = |text: &str| (text.len().div_ceil(CHARACTERS_PER_TOKEN)) as u64;
        let snippets: u64 = self.trace.snippets.iter().map(|snippet| tokens(&snippet.text)).sum();
        TokenUsage {
            prompt_tokens: tokens(&self.trace.messages.to_string()) + snippets,
            completion_tokens: tokens(&self.trace.answer),
            ..TokenUsage::default()
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.over {
            let total = self.started.elapsed().as_secs_f64() * 1e3;
            self.close(&[("total", total)], &[]);
        }
    }
}

/// The stream of an answer and its draft.
struct Recording {
    events: AnswerStream,
    draft: Option<Draft>,
}

impl Stream for Recording {
    type Item = Result<AnswerEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.events.poll_next_unpin(context);
        if let (Poll::Ready(Some(event)), Some(draft)) = (&next, &mut self.draft) {
            match event {
                Ok(AnswerEvent::Delta(text)) => draft.trace.answer.push_str(text),
                Ok(AnswerEvent::Beside(_) | AnswerEvent::Done(_)) => {}
                Err(error) => draft.fail(error),
            }
        }
        next.map(|event| match event {
            Some(Ok(AnswerEvent::Done(mut summary))) => {
                if let Some(mut draft) = self.draft.take() {
                    draft.finish(&mut summary);
                }
                Some(Ok(AnswerEvent::Done(summary)))
            }
            other => other,
        })
    }
}
