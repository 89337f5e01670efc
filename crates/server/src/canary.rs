//! A canary that watches itself: what became of its answers and of everybody else's goes into an always-valid test, and a canary that is worse is ended.
//!
//! The first outcome of each conversation counts, and no other: a conversation belongs to one side as a whole, so its answers are no draws of their own, and one client that repeats
//! itself must neither stop nor save a canary. Feedback is counted once for each answer.

use crate::api::wire::unix_now;
use crate::releases::{ReleaseError, Releases, RollbackBody};
use groundtone_answer::{AbstainReason, Ended, Ending, Live, Question, Summary, Watch};
use groundtone_catalog::{AuditRecord, TraceRecord};
use groundtone_evals::stats::{CanarySettings, CanaryTest, Decision, Side, Signal, Standing};
use groundtone_prompt::CitationStatus;
use groundtone_telemetry::Metrics;
use groundtone_types::ErrorKind;
use quick_cache::unsync::Cache;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Conversations that are remembered, so that each counts once.
const CONVERSATIONS: usize = 65_536;
/// How often what was seen is saved; a process that is killed forgets what came after.
const SAVE: Duration = Duration::from_secs(1);
/// Who ends a canary that is worse, in the history and in the audit log.
const ACTOR: &str = "canary watch";

/// What is watched, and what is tolerated.
#[derive(Debug, Clone)]
pub struct CanaryRules {
    /// Signals, margins and the chance of a false alarm.
    pub test: CanarySettings,
    /// An answer that takes so long is as slow as it gets.
    pub slowest: Duration,
}

/// A canary on trial, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// The change of the history that began it.
    pub(crate) number: i64,
    /// The release on trial.
    pub(crate) release: String,
    /// The release that answers everybody else; `None` where nothing is released.
    pub(crate) baseline: Option<String>,
    /// Unix seconds.
    pub(crate) began_at: i64,
    /// What was seen.
    pub(crate) test: CanaryTest,
}

/// What is known of the canary on trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// The release on trial.
    pub release: String,
    /// Unix seconds.
    pub began_at: i64,
    /// `continue`, `stop` or `pass`.
    #[serde(flatten)]
    pub decision: Decision,
    /// The mean harm of both sides, by signal.
    pub signals: BTreeMap<Signal, Standing>,
}

struct Running {
    trial: Trial,
    /// Hashes of conversations that have counted.
    counted: Cache<u64, ()>,
    unsaved: bool,
}

/// Watches the canary of one assistant.
pub struct CanaryWatch {
    rules: CanaryRules,
    metrics: Arc<Metrics>,
    running: Mutex<Option<Running>>,
    decided: Notify,
}

impl CanaryWatch {
    /// Nothing is on trial yet.
    pub fn new(rules: CanaryRules, metrics: Arc<Metrics>) -> Self {
        Self { rules, metrics, running: Mutex::default(), decided: Notify::new() }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the trial that this change began is watched already.
    pub(crate) fn follows(&self, number: i64) -> bool {
        self.running().as_ref().is_some_and(|running| running.trial.number == number)
    }

    /// Watches this trial from now on, or none. One that was stored under other rules begins anew: rules that change with what was seen prove nothing.
    pub(crate) fn follow(&self, trial: Option<Trial>) {
        let running = trial.map(|mut trial| {
            if *trial.test.settings() != self.rules.test {
                trial.test = CanaryTest::new(self.rules.test.clone());
            }
            Running { trial, counted: Cache::new(CONVERSATIONS), unsaved: true }
        });
        *self.running() = running;
        self.decided.notify_one();
    }

    /// A trial of which nothing was seen.
    pub(crate) fn begin(&self, number: i64, release: String, baseline: Option<String>, began_at: i64) -> Trial {
        Trial { number, release, baseline, began_at, test: CanaryTest::new(self.rules.test.clone()) }
    }

    /// What is known of the canary; `None` where none is on trial.
    pub(crate) fn status(&self) -> Option<TrialStatus> {
        let running = self.running();
        let Trial { release, began_at, test, .. } = &running.as_ref()?.trial;
        Some(TrialStatus { release: release.clone(), began_at: *began_at, decision: test.decision(), signals: test.standings() })
    }

    /// What somebody thought of an answer: `live` is what answers now.
    pub(crate) fn rated(&self, live: &Live, trace: &TraceRecord, is_bad: bool) {
        let mut running = self.running();
        let Some(running) = running.as_mut().filter(|running| trace.at >= running.trial.began_at) else { return };
        let Some(canary) = live.canary.as_ref().filter(|canary| canary.release == running.trial.release) else { return };
        // An answer that another variant gave in a release's place says nothing about the release.
        let side = match &trace.release {
            Some(release) if *release == canary.release && trace.variant == canary.variant => Side::Canary,
            release if *release == running.trial.baseline && trace.variant == live.variant => Side::Baseline,
            _ => return,
        };
        self.observe(running, side, &[(Signal::Feedback, f64::from(u8::from(is_bad)))]);
    }

    fn observe(&self, running: &mut Running, side: Side, harms: &[(Signal, f64)]) {
        let before = running.trial.test.decision();
        for (signal, harm) in harms {
            running.trial.test.observe(side, *signal, *harm);
        }
        running.unsaved = true;
        if before != Decision::Continue {
            return;
        }
        match running.trial.test.decision() {
            Decision::Continue => {}
            Decision::Pass => {
                self.metrics.canary("pass", "all");
                tracing::warn!(release = running.trial.release, "the canary is within its margins; it may be promoted");
            }
            Decision::Stop { signal, .. } => {
                self.metrics.canary("stop", signal_name(signal));
                self.decided.notify_one();
            }
        }
    }

    /// What is to be saved since the last call.
    fn take_unsaved(&self) -> Option<Trial> {
        let mut running = self.running();
        let running = running.as_mut().filter(|running| running.unsaved)?;
        running.unsaved = false;
        Some(running.trial.clone())
    }

    /// The canary that must end, and why.
    fn must_end(&self) -> Option<(String, String)> {
        let running = self.running();
        let Trial { release, test, .. } = &running.as_ref()?.trial;
        let Decision::Stop { signal, p } = test.decision() else { return None };
        let standing = test.standings().remove(&signal)?;
        let Standing { baseline, canary, baseline_count, canary_count, .. } = standing;
        let name = signal_name(signal);
        let reason = format!(
            "stopped by itself: {name} {canary:.3} over {canary_count} conversations of the canary, {baseline:.3} over {baseline_count} of the others; p = {p:.4}"
        );
        Some((release.clone(), reason))
    }
}

impl Watch for CanaryWatch {
    fn ended(&self, ended: &Ended<'_>) {
        // Who pins a variant has not been drawn.
        if ended.question.variant.is_some() {
            return;
        }
        let Some(canary) = &ended.live.canary else { return };
        let (side, variant) = if ended.decision.canary { (Side::Canary, &canary.variant) } else { (Side::Baseline, &ended.live.variant) };
        let harms = harms(ended, variant, self.rules.slowest);
        if harms.is_empty() {
            return;
        }
        let mut running = self.running();
        let on_trial = |running: &&mut Running| running.trial.release == canary.release && running.trial.baseline == ended.live.release;
        let Some(running) = running.as_mut().filter(on_trial) else { return };
        let mut hasher = DefaultHasher::new();
        ended.conversation.hash(&mut hasher);
        let conversation = hasher.finish();
        if running.counted.get(&conversation).is_none() {
            running.counted.insert(conversation, ());
            self.observe(running, side, &harms);
        }
    }
}

/// What an end says about the release that was asked, whose variant is `variant`: a harm between 0 and 1 for each signal. Nothing where the client was at fault, or left early.
fn harms(ended: &Ended<'_>, variant: &str, slowest: Duration) -> Vec<(Signal, f64)> {
    let flag = |bad: bool| f64::from(u8::from(bad));
    let slowness = Signal::slowness(ended.took.as_secs_f64() * 1e3, slowest.as_secs_f64() * 1e3);
    match ended.ending {
        Ending::Failed(error) if error.kind() == ErrorKind::InvalidRequest => Vec::new(),
        Ending::Failed(_) => vec![(Signal::Error, 1.0)],
        // Another variant had to answer: the client saw no error, and there was one.
        Ending::Answered(_, summary) if summary.variant != variant => vec![(Signal::Error, 1.0)],
        Ending::Answered(_, summary) => {
            let mut harms = vec![(Signal::Error, 0.0), (Signal::Abstention, flag(summary.abstained)), (Signal::Latency, slowness)];
            harms.extend(citation_failed(ended.question, summary).map(|failed| (Signal::CitationFailure, flag(failed))));
            harms
        }
        // It has taken as long as counts. How long one would have taken whose client left sooner is not known.
        Ending::Left if slowness >= 1.0 => vec![(Signal::Latency, 1.0)],
        Ending::Left => Vec::new(),
    }
}

/// Whether an answer's citations are wrong or missing; `None` where none are expected.
fn citation_failed(question: &Question, summary: &Summary) -> Option<bool> {
    match summary.abstained_because {
        Some(AbstainReason::Citations) => return Some(true),
        Some(_) => return None,
        None => {}
    }
    if summary.sources.is_empty() || !question.extras.is_plain() {
        return None;
    }
    let unsupported = summary.citations.iter().any(|cited| cited.status == CitationStatus::Unsupported);
    Some(unsupported || summary.citations.is_empty() || !summary.unresolved_markers.is_empty() || !summary.removed_citations.is_empty())
}

/// As it is in settings and reports.
fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Feedback => "feedback",
        Signal::Abstention => "abstention",
        Signal::CitationFailure => "citation_failure",
        Signal::Error => "error",
        Signal::Latency => "latency",
    }
}

impl Releases {
    /// Saves what is seen of canaries and ends the ones that are worse, until `stop`.
    pub(crate) async fn watch_canaries(&self, stop: &CancellationToken) {
        let Some(watch) = &self.watch else { return };
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = watch.decided.notified() => false,
                () = tokio::time::sleep(SAVE) => false,
            };
            if let Some(trial) = watch.take_unsaved()
                && let Err(error) = self.save_trial(&trial).await
            {
                tracing::warn!(%error, "what was seen of the canary was not saved; a restart forgets it");
            }
            if let Some((release, reason)) = watch.must_end()
                && let Err(error) = self.end_worse(&release, reason).await
            {
                // It is tried again in a moment.
                tracing::error!(%error, release, "a canary that is worse could not be ended");
                tokio::time::sleep(SAVE).await;
            }
            if stopped {
                return;
            }
        }
    }

    async fn end_worse(&self, release: &str, reason: String) -> Result<(), ReleaseError> {
        let now = unix_now();
        let body = RollbackBody { reason };
        if !self.end_canary(release, &body, ACTOR, now).await? {
            // Somebody was faster; what is on trial now is watched already.
            return Ok(());
        }
        tracing::warn!(release, reason = body.reason, "a canary was stopped");
        let record = AuditRecord {
            id: uuid::Uuid::now_v7().to_string(),
            at: now,
            tenant: self.tenant.clone(),
            key: None,
            action: format!("stop canary {release}"),
            origin: ACTOR.to_owned(),
            request_id: None,
            status: Some(200),
        };
        Ok(self.catalog.audit(&record).await?)
    }
}

#[cfg(test)]
#[path = "canary_tests.rs"]
mod tests;
