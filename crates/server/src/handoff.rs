//! Questions that the assistant does not answer are handed over to people, by webhook.
//!
//! An answer never waits for it: the message goes into a bounded queue, one task puts it into the catalog, another sends what is due. What is not taken is sent again after
//! growing pauses, and in the end is kept as dead, where an operator finds it. Messages survive a restart; one may come twice, with the same `webhook-id`.

use crate::api::wire::unix_now;
use groundtone_answer::{AbstainReason, Summary};
use groundtone_catalog::{Catalog, Error, HandoffRecord, HandoffState, TraceRecord};
use groundtone_provider::{SendWebhook, WebhookMessage};
use groundtone_telemetry::{Metrics, Redactor};
use groundtone_types::Tenant;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Messages that may wait for the catalog; one more is lost, and counted.
const QUEUE: usize = 1_024;
/// Messages of one transaction, and of one round of sending.
const BATCH: usize = 64;
/// Messages that are sent at the same time.
const PARALLEL: usize = 4;
/// How often it is looked whether one is due, and how often dead ones are forgotten.
const TICK: Duration = Duration::from_secs(1);
const FORGET: Duration = Duration::from_secs(600);
/// The last messages of a conversation that are sent, and characters of each; characters of a snippet.
const TURNS: usize = 50;
const TURN_CHARACTERS: usize = 4_000;
const SNIPPET_CHARACTERS: usize = 4_000;

/// Which questions are handed over, and how hard it is tried.
#[derive(Debug, Clone)]
pub struct HandoffRules {
    /// The assistant's name.
    pub assistant: String,
    /// For which reasons.
    pub reasons: Vec<AbstainReason>,
    /// Takes personal data out of what is sent; `None` sends what the customer wrote.
    pub redactor: Option<Redactor>,
    /// Attempts before a message is given up.
    pub attempts: u32,
    /// The first pause; each one is twice as long as the one before.
    pub pause: Duration,
    /// Most messages that wait; one more is lost, and counted.
    pub most_waiting: u64,
    /// Days that a message is kept that was given up.
    pub keep_days: u32,
}

/// What an answer's end has to say.
pub(crate) struct Unanswered<'a> {
    pub(crate) tenant: &'a Tenant,
    pub(crate) conversation: Option<&'a str>,
    pub(crate) trace: &'a TraceRecord,
    pub(crate) summary: &'a Summary,
}

enum Message {
    Handoff(Box<HandoffRecord>),
    Flush(oneshot::Sender<()>),
}

/// The way to the tasks. They end when it is dropped; [`Self::flush`] first, or what waits for the catalog is lost.
pub struct Handoffs {
    queue: mpsc::Sender<Message>,
    rules: HandoffRules,
    metrics: Arc<Metrics>,
    wake: Arc<Notify>,
    _stop: DropGuard,
}

struct Sender {
    catalog: Arc<Catalog>,
    webhook: Arc<dyn SendWebhook>,
    rules: HandoffRules,
    metrics: Arc<Metrics>,
    wake: Arc<Notify>,
}

impl Handoffs {
    /// Starts the tasks: what an earlier process has left is sent as well.
    pub fn start(catalog: Arc<Catalog>, webhook: Arc<dyn SendWebhook>, rules: HandoffRules, metrics: Arc<Metrics>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let sender = Arc::new(Sender { catalog, webhook, rules: rules.clone(), metrics: metrics.clone(), wake: wake.clone() });
        tokio::spawn(sender.clone().keep(waiting));
        tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sender.send() => {}
                }
            }
        });
        Self { queue, rules, metrics, wake, _stop: stop.drop_guard() }
    }

    /// Hands a question over where it was not answered for one of the reasons.
    pub(crate) fn offer(&self, unanswered: &Unanswered<'_>) {
        let Some(reason) = unanswered.summary.abstained_because.filter(|reason| self.rules.reasons.contains(reason)) else { return };
        let record = self.rules.record(unanswered, reason, unix_now());
        if self.queue.try_send(Message::Handoff(Box::new(record))).is_err() {
            self.metrics.handoff("lost", 1);
            tracing::warn!("a question could not be handed over: the catalog does not keep up");
        }
    }

    /// Has what is due looked for now.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Returns when everything that was offered before this call is in the catalog.
    pub async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() && waiting.await.is_err() {
            tracing::warn!("the handoffs' task ended before it was flushed");
        }
    }
}

impl HandoffRules {
    fn record(&self, unanswered: &Unanswered<'_>, reason: AbstainReason, now: i64) -> HandoffRecord {
        let Unanswered { tenant, conversation, trace, summary } = unanswered;
        let id = format!("evt_{}", uuid::Uuid::now_v7().simple());
        let body = json!({
            "id": id,
            "object": "event",
            "type": "groundtone.handoff",
            "created_at": now,
            "data": {
                "assistant": self.assistant,
                "tenant": tenant.as_str(),
                "conversation": conversation,
                "reason": reason.as_str(),
                "trace_id": summary.trace_id,
                "request_id": trace.request_id,
                "variant": summary.variant,
                "release": summary.release,
                "evidence": summary.evidence,
                "question": self.text(&trace.question, TURN_CHARACTERS),
                "query": self.text(&trace.query, TURN_CHARACTERS),
                "answer": self.text(&trace.answer, TURN_CHARACTERS),
                "transcript": self.transcript(&trace.messages),
                "snippets": trace.snippets.iter().map(|snippet| json!({
                    "number": snippet.number,
                    "document": snippet.document,
                    "title": snippet.title,
                    "url": snippet.url,
                    "score": snippet.score,
                    "text": shorten(&snippet.text, SNIPPET_CHARACTERS),
                })).collect::<Vec<_>>(),
            },
        });
        HandoffRecord {
            id,
            tenant: (*tenant).clone(),
            created_at: now,
            reason: reason.as_str().to_owned(),
            trace: summary.trace_id.clone(),
            body: body.to_string(),
            state: HandoffState::Waiting,
            attempts: 0,
            next_at: now,
            error: None,
        }
    }

    /// The last turns of a conversation, as `role` and `content`.
    fn transcript(&self, messages: &Value) -> Vec<Value> {
        let all = messages.as_array().map(Vec::as_slice).unwrap_or_default();
        let turn = |message: &Value| {
            let content = message["content"].as_str().unwrap_or_default();
            json!({"role": message["role"], "content": self.text(content, TURN_CHARACTERS)})
        };
        all[all.len().saturating_sub(TURNS)..].iter().map(turn).collect()
    }

    fn text(&self, text: &str, most: usize) -> String {
        match &self.redactor {
            Some(redactor) => shorten(&redactor.redact(text), most),
            None => shorten(text, most),
        }
    }
}

/// The beginning of a text, with a sign where the rest is missing.
fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

impl Sender {
    /// Puts what is offered into the catalog.
    async fn keep(self: Arc<Self>, mut waiting: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let (mut records, mut flushed) = (Vec::new(), Vec::new());
            for message in batch.drain(..) {
                match message {
                    Message::Handoff(record) => records.push(*record),
                    Message::Flush(done) => flushed.push(done),
                }
            }
            let kept = if records.is_empty() { Ok(0) } else { self.catalog.put_handoffs(&records, self.rules.most_waiting).await };
            let lost = records.len() - kept.as_ref().map_or(0, |kept| *kept);
            if lost > 0 {
                self.metrics.handoff("lost", lost as u64);
                let reason = kept.err().map_or_else(|| "too many wait to be handed over".to_owned(), |error| error.to_string());
                tracing::warn!(lost, reason, "questions could not be handed over");
            }
            self.wake.notify_one();
            for done in flushed {
                if done.send(()).is_err() {
                    tracing::debug!("nobody waits for the handoffs any longer");
                }
            }
        }
    }

    /// Sends what is due, for ever.
    async fn send(&self) {
        let mut forget = tokio::time::interval(FORGET);
        loop {
            let done = tokio::select! {
                () = self.wake.notified() => self.send_due().await,
                () = tokio::time::sleep(TICK) => self.send_due().await,
                _ = forget.tick() => {
                    let before = unix_now() - i64::from(self.rules.keep_days) * 86_400;
                    self.catalog.forget_handoffs(before).await.map(drop)
                }
            };
            if let Err(error) = done {
                tracing::warn!(%error, "questions that wait to be handed over could not be read");
                tokio::time::sleep(TICK).await;
            }
        }
    }

    async fn send_due(&self) -> Result<(), Error> {
        use futures::{StreamExt, TryStreamExt, stream};
        loop {
            let due = self.catalog.due_handoffs(unix_now(), BATCH as u32).await?;
            if due.is_empty() {
                return Ok(());
            }
            stream::iter(due).map(|record| self.attempt(record)).buffer_unordered(PARALLEL).try_collect::<()>().await?;
        }
    }

    async fn attempt(&self, record: HandoffRecord) -> Result<(), Error> {
        let message = WebhookMessage { id: record.id.clone(), timestamp: unix_now(), body: record.body };
        let Err(reason) = self.webhook.send(&message).await else {
            self.metrics.handoff("delivered", 1);
            return self.catalog.remove_handoff(&record.tenant, &record.id).await.map(drop);
        };
        let attempts = record.attempts + 1;
        let pause = self.rules.pause.saturating_mul(1 << record.attempts.min(16));
        let next_at = (attempts < self.rules.attempts).then(|| unix_now() + i64::try_from(pause.as_secs()).unwrap_or(i64::MAX / 2));
        match next_at {
            Some(_) => {
                self.metrics.handoff("retried", 1);
                tracing::warn!(id = record.id, attempts, reason, "a handoff was not taken");
            }
            None => {
                self.metrics.handoff("dead", 1);
                tracing::error!(id = record.id, attempts, reason, "a handoff was given up; `groundtone handoffs` lists it");
            }
        }
        self.catalog.handoff_failed(&record.tenant, &record.id, &reason, next_at).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_bounded() {
        let rules = HandoffRules {
            assistant: "shop".into(),
            reasons: vec![AbstainReason::NoEvidence],
            redactor: Some(Redactor::new(groundtone_types::PersonalKind::ALL.to_vec(), &[]).unwrap()),
            attempts: 3,
            pause: Duration::from_secs(1),
            most_waiting: 10,
            keep_days: 7,
        };
        let messages: Vec<Value> =
            (0..200).map(|at| json!({"role": "user", "content": format!("{at} ann@example.org {}", "ü".repeat(9_000))})).collect();
        let transcript = rules.transcript(&Value::Array(messages));
        let last = transcript[TURNS - 1]["content"].as_str().unwrap();
        assert_eq!((transcript.len(), last.chars().count()), (TURNS, TURN_CHARACTERS + 2));
        assert!(last.starts_with("199 [email] ü") && last.ends_with("ü …"), "{last}");
        assert_eq!((rules.transcript(&Value::Null).len(), shorten("abc", 3)), (0, "abc".to_owned()));
        let open = HandoffRules { redactor: None, ..rules };
        assert_eq!(open.text("ann@example.org", 100), "ann@example.org");
    }
}
