//! Puts traces and what keys have used into the catalog, behind the answers' backs: a bounded queue and one task.

use crate::keyring::KeyRing;
use groundtone_catalog::{Catalog, Error, Retention, TraceRecord};
use groundtone_telemetry::{Metrics, Redactor};
use groundtone_types::Tenant;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Traces that may wait; one more is lost, and counted.
const QUEUE: usize = 4096;
/// Traces of one transaction.
const BATCH: usize = 256;
/// How long a transaction waits for more of them: each is a write to the disk, which busy answers have to share the machine with.
const GATHER: Duration = Duration::from_millis(100);
/// How often what keys have used is saved.
const SAVE: Duration = Duration::from_secs(1);
/// How often what is too old is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// What is kept, and for how long.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// Whether traces are kept at all.
    pub traces: bool,
    /// For how long.
    pub retention: Retention,
    /// Days of the audit log.
    pub audit_days: u32,
    /// Takes personal data and secrets out before anything is written.
    pub redactor: Redactor,
}

enum Message {
    Trace(Tenant, Box<TraceRecord>),
    Flush(oneshot::Sender<()>),
}

/// The way to the task.
#[derive(Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
    redactor: Redactor,
    traces: bool,
}

struct Task {
    catalog: Arc<Catalog>,
    keys: Arc<KeyRing>,
    metrics: Arc<Metrics>,
    keeping: Keeping,
}

impl Recorder {
    /// Starts the task. It ends when the recorder is dropped; [`Self::flush`] first, or what waits is lost.
    pub fn start(catalog: Arc<Catalog>, keys: Arc<KeyRing>, metrics: Arc<Metrics>, keeping: Keeping) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let recorder = Self { sender, metrics: metrics.clone(), redactor: keeping.redactor.clone(), traces: keeping.traces };
        tokio::spawn(Task { catalog, keys, metrics, keeping }.run(receiver));
        recorder
    }

    /// Whether traces are kept.
    pub(crate) fn keeps_traces(&self) -> bool {
        self.traces
    }

    /// What a text may be kept as.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.redactor.redact(text).into_owned()
    }

    /// Keeps a trace, redacted, soon.
    pub(crate) fn keep(&self, tenant: Tenant, trace: TraceRecord) {
        if self.traces && self.sender.try_send(Message::Trace(tenant, Box::new(trace))).is_err() {
            self.metrics.lost(1);
            tracing::warn!("a trace was lost: the catalog does not keep up");
        }
    }

    /// Returns when everything that was kept before this call is in the catalog.
    pub async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        // An error on either way means that the task has ended: there is nothing left to wait for.
        if self.sender.send(Message::Flush(done)).await.is_ok() && waiting.await.is_err() {
            tracing::warn!("the recorder ended before it was flushed");
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}

/// Waits for more to come, unless it is enough or somebody waits for what is there.
async fn gather(receiver: &mut mpsc::Receiver<Message>, batch: &mut Vec<Message>) {
    let until = tokio::time::Instant::now() + GATHER;
    while batch.len() < BATCH && !batch.iter().any(|message| matches!(message, Message::Flush(_))) {
        let room = BATCH - batch.len();
        match tokio::time::timeout_at(until, receiver.recv_many(batch, room)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

impl Task {
    async fn run(self, mut receiver: mpsc::Receiver<Message>) {
        let (mut save, mut forget) = (tokio::time::interval(SAVE), tokio::time::interval(FORGET));
        save.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = receiver.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    gather(&mut receiver, &mut batch).await;
                    self.store(std::mem::take(&mut batch)).await;
                }
                _ = save.tick() => self.save().await,
                _ = forget.tick() => self.forget().await,
            }
        }
    }

    async fn store(&self, batch: Vec<Message>) {
        let (mut traces, mut waiting) = (Vec::new(), Vec::new());
        for message in batch {
            match message {
                Message::Trace(tenant, trace) => traces.push((tenant, *trace)),
                Message::Flush(done) => waiting.push(done),
            }
        }
        if !traces.is_empty() {
            let count = traces.len();
            if let Err(error) = self.put(traces).await {
                self.metrics.lost(count as u64);
                tracing::warn!(%error, traces = count, "traces were lost");
            }
        }
        if !waiting.is_empty() {
            self.save().await;
        }
        for done in waiting {
            if done.send(()).is_err() {
                tracing::debug!("nobody waits for the recorder any longer");
            }
        }
    }

    /// Redacted: a batch of long conversations takes milliseconds, which are not for the threads that answer.
    async fn put(&self, mut traces: Vec<(Tenant, TraceRecord)>) -> Result<(), String> {
        let redactor = self.keeping.redactor.clone();
        let redact = move || {
            traces.iter_mut().for_each(|(_, trace)| trace.redact(|text| redactor.redact(text).into_owned()));
            traces
        };
        let traces = tokio::task::spawn_blocking(redact).await.map_err(|error| error.to_string())?;
        self.catalog.put_traces(&traces).await.map_err(|error| error.to_string())
    }

    async fn save(&self) {
        let unsaved = self.keys.take_unsaved();
        if !unsaved.is_empty()
            && let Err(error) = self.catalog.add_usage(&unsaved).await
        {
            tracing::warn!(%error, "what keys have used was not saved; a restart forgets it");
        }
    }

    async fn forget(&self) {
        let (now, days) = (now(), i64::from(self.keeping.audit_days));
        let forgotten: Result<u64, Error> = async {
            self.catalog.forget_audit(now - days * 86_400).await?;
            self.catalog.forget_traces(self.keeping.retention, now).await
        }
        .await;
        match forgotten {
            Ok(0) => {}
            Ok(traces) => tracing::info!(traces, "old traces were forgotten"),
            Err(error) => tracing::warn!(%error, "old traces could not be forgotten"),
        }
    }
}
