//! Which release answers, and how that changes: checked, noted in one transaction, and then in force for the next question.

use crate::canary::{CanaryWatch, Trial, TrialStatus};
use groundtone_answer::{Answerer, Canary, Change, Live, Refused, ReleaseState, Variant};
use groundtone_catalog::{Catalog, EvaluatedArm, EvaluationRecord, ReleaseEvent, ReleaseRecord, TraceRecord};
use groundtone_types::{ErrorKind, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// Longest reason, in bytes.
const REASON_BYTES: usize = 2_000;

/// Why a release was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The request names both, or neither.
    #[error("name a variant, or a release by its id, and only one of the two")]
    Target,
    /// There is no such release.
    #[error("there is no release `{0}`")]
    NoRelease(String),
    /// There is no such evaluation.
    #[error("there is no evaluation `{0}`")]
    NoEvaluation(String),
    /// Something speaks against it.
    #[error("`{name}` is not released: {}", objections.join("; "))]
    Objections {
        /// The variant or release.
        name: String,
        /// What.
        objections: Vec<String>,
    },
    /// It is forced, but not by its name.
    #[error("to force it, name it: `{0}`")]
    ForcedName(String),
    /// It is forced, but nobody says why.
    #[error("to force it, give a reason")]
    NoReason,
    /// The reason is a book.
    #[error("a reason has at most {REASON_BYTES} bytes")]
    LongReason,
    /// It makes no sense now.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The configuration has no such variant.
    #[error(transparent)]
    Answer(#[from] groundtone_answer::Error),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] groundtone_catalog::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] groundtone_index::Error),
}

impl ReleaseError {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Target | Self::ForcedName(_) | Self::NoReason | Self::LongReason => ErrorKind::InvalidRequest,
            Self::Refused(Refused::Percent(_)) => ErrorKind::InvalidRequest,
            Self::NoRelease(_) | Self::NoEvaluation(_) => ErrorKind::NotFound,
            Self::Objections { .. } | Self::Refused(_) => ErrorKind::Conflict,
            Self::Answer(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::Index(error) => error.kind(),
        }
    }
}

/// What is to be released, and what speaks for it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseBody {
    /// A variant as it is configured now: it becomes a new release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Or a release that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The id of the evaluation that speaks for a variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<String>,
    /// For a canary: percent of the conversations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// The name once more, to release it although something speaks against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// Why something is rolled back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// What answers, what was released, and what was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// Whose.
    pub assistant: String,
    /// What answers now.
    pub live: Live,
    /// What is not as it was when the live releases were made.
    #[serde(default)]
    pub drift: Vec<String>,
    /// What the server has seen of the canary; nothing where none is on trial, or nobody watches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialStatus>,
    /// Every release, oldest first.
    pub releases: Vec<ReleaseRecord>,
    /// Every change, oldest first.
    pub history: Vec<ReleaseEvent>,
}

/// The releases of one assistant.
pub struct Releases {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) tenant: Tenant,
    answerer: Answerer,
    /// What answers where nothing is released, with the shadow and the fallbacks of all.
    configured: Live,
    /// Changes are made one after the other.
    turn: tokio::sync::Mutex<()>,
    /// Watches canaries.
    pub(crate) watch: Option<Arc<CanaryWatch>>,
}

impl Releases {
    /// The releases in a catalog. Nothing is in force before [`Self::enter`].
    pub fn new(catalog: Arc<Catalog>, tenant: Tenant, answerer: Answerer, configured: Live) -> Self {
        Self { catalog, tenant, answerer, configured, turn: tokio::sync::Mutex::default(), watch: None }
    }

    /// The same, and canaries are watched. The answerer must be [`Answerer::watched_by`] the same one.
    #[must_use]
    pub fn watched(self, watch: Arc<CanaryWatch>) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// Lets what was released answer. An error where the configuration has not the variant that it needs.
    pub async fn enter(&self) -> Result<(), ReleaseError> {
        let (records, history) = self.read().await?;
        self.answerer.switch(live(&self.configured, &records, &state_of(&history)))?;
        self.watch_trial(&history).await
    }

    /// Has the canary watched that is on trial after this history, if one is; a trial that was watched before goes on.
    async fn watch_trial(&self, history: &[ReleaseEvent]) -> Result<(), ReleaseError> {
        let Some(watch) = &self.watch else { return Ok(()) };
        let Some((began, release, baseline)) = trial_of(history) else {
            watch.follow(None);
            return Ok(());
        };
        if watch.follows(began.number) {
            return Ok(());
        }
        let stored = self.catalog.trial(&self.tenant, self.name(), began.number).await?;
        // What an older version has stored is not worth a server that does not start.
        let trial = match stored.map(serde_json::from_value::<Trial>) {
            Some(Ok(trial)) => trial,
            Some(Err(error)) => {
                tracing::warn!(%error, "what was seen of the canary cannot be read; its trial begins anew");
                watch.begin(began.number, release, baseline, began.at)
            }
            None => watch.begin(began.number, release, baseline, began.at),
        };
        watch.follow(Some(trial));
        Ok(())
    }

    /// Somebody has rated the answer of this trace.
    pub(crate) fn rated(&self, trace: &TraceRecord, is_bad: bool) {
        if let Some(watch) = &self.watch {
            watch.rated(&self.answerer.live(), trace, is_bad);
        }
    }

    /// Keeps what was seen of a canary.
    pub(crate) async fn save_trial(&self, trial: &Trial) -> Result<(), ReleaseError> {
        let record = match serde_json::to_value(trial) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(%error, "what was seen of the canary cannot be written");
                return Ok(());
            }
        };
        Ok(self.catalog.put_trial(&self.tenant, self.name(), trial.number, &record).await?)
    }

    fn name(&self) -> &str {
        &self.answerer.assistant().name
    }

    async fn read(&self) -> Result<(Vec<ReleaseRecord>, Vec<ReleaseEvent>), ReleaseError> {
        let records = self.catalog.releases(&self.tenant, self.name()).await?;
        Ok((records, self.catalog.release_events(&self.tenant, self.name()).await?))
    }

    /// What answers, and how it came to it.
    pub async fn status(&self) -> Result<ReleaseStatus, ReleaseError> {
        let (releases, history) = self.read().await?;
        let live = live(&self.configured, &releases, &state_of(&history));
        let ids = live.release.iter().chain(live.canary.iter().map(|canary| &canary.release));
        let generation = self.generation().await?;
        let mut drift = Vec::new();
        for record in ids.filter_map(|id| releases.iter().find(|record| record.id == *id)) {
            match self.answerer.variant(&record.variant) {
                Ok(variant) => drift.extend(drifted(record, variant, &generation)),
                Err(error) => drift.push(error.to_string()),
            }
        }
        let trial = self.watch.as_ref().and_then(|watch| watch.status());
        Ok(ReleaseStatus { assistant: self.name().to_owned(), live, drift, trial, releases, history })
    }

    /// Lets a variant or a release answer everybody.
    pub async fn promote(&self, body: &ReleaseBody, actor: &str, now: i64) -> Result<ReleaseStatus, ReleaseError> {
        let promote = |release| Change::Promote { release };
        self.release(body, actor, now, true, promote).await
    }

    /// Lets a variant or a release answer a share of the conversations. A trial needs no evaluation.
    pub async fn canary(&self, body: &ReleaseBody, actor: &str, now: i64) -> Result<ReleaseStatus, ReleaseError> {
        let percent = body.percent.unwrap_or(0);
        self.release(body, actor, now, false, |release| Change::Canary { release, percent }).await
    }

    /// Ends the canary, or lets what answered before answer again.
    pub async fn rollback(&self, body: &RollbackBody, actor: &str, now: i64) -> Result<ReleaseStatus, ReleaseError> {
        let _turn = self.turn.lock().await;
        let (records, history) = self.read().await?;
        self.change(&records, &history, None, Change::Rollback, By { actor, reason: &body.reason, now }).await
    }

    /// Ends this canary; false where it is on trial no more.
    pub async fn end_canary(&self, release: &str, body: &RollbackBody, actor: &str, now: i64) -> Result<bool, ReleaseError> {
        let _turn = self.turn.lock().await;
        let (records, history) = self.read().await?;
        if state_of(&history).canary.is_none_or(|(canary, _)| canary != release) {
            return Ok(false);
        }
        self.change(&records, &history, None, Change::Rollback, By { actor, reason: &body.reason, now }).await?;
        Ok(true)
    }

    async fn release(
        &self,
        body: &ReleaseBody,
        actor: &str,
        now: i64,
        evaluated: bool,
        change: impl FnOnce(String) -> Change,
    ) -> Result<ReleaseStatus, ReleaseError> {
        let _turn = self.turn.lock().await;
        let (records, history) = self.read().await?;
        let generation = self.generation().await?;
        let by = By { actor, reason: &body.reason, now };
        match (&body.variant, &body.release) {
            (Some(name), None) => {
                let variant = self.answerer.variant(name)?;
                let evaluation = self.evaluation(body.evaluation.as_deref()).await?;
                let pinned = format!("{}:{name}", self.name());
                let arm = evaluation.as_ref().and_then(|evaluation| evaluation.arm(&pinned).or_else(|| evaluation.arm(name)));
                let objections = if evaluated || evaluation.is_some() { objections(variant, arm) } else { Vec::new() };
                let forced = forced(body, name, objections)?;
                let record = ReleaseRecord {
                    id: format!("rel_{}", uuid::Uuid::now_v7().simple()),
                    assistant: self.name().to_owned(),
                    variant: name.clone(),
                    model: variant.model.id().to_owned(),
                    prompt_fingerprint: variant.fingerprint().to_string(),
                    generation,
                    evaluation: evaluation.as_ref().map(|evaluation| kept(evaluation, arm)),
                    forced,
                    created_at: now,
                    actor: actor.to_owned(),
                    reason: body.reason.clone(),
                };
                let change = change(record.id.clone());
                self.change(&records, &history, Some(record), change, by).await
            }
            (None, Some(id)) => {
                let record = records.iter().find(|record| record.id == *id).ok_or_else(|| ReleaseError::NoRelease(id.clone()))?;
                let mut found = drifted(record, self.answerer.variant(&record.variant)?, &record.generation);
                if evaluated && record.evaluation.is_none() && record.forced.is_none() {
                    found.push("no evaluation speaks for it; release its variant with one".to_owned());
                }
                forced(body, id, found)?;
                self.change(&records, &history, None, change(id.clone()), by).await
            }
            _ => Err(ReleaseError::Target),
        }
    }

    /// Notes a change and puts it in force.
    async fn change(
        &self,
        records: &[ReleaseRecord],
        history: &[ReleaseEvent],
        record: Option<ReleaseRecord>,
        change: Change,
        by: By<'_>,
    ) -> Result<ReleaseStatus, ReleaseError> {
        if by.reason.len() > REASON_BYTES {
            return Err(ReleaseError::LongReason);
        }
        let next = state_of(history).after(&change)?;
        let mut all = records.to_vec();
        all.extend(record.clone());
        let next = live(&self.configured, &all, &next);
        // Whatever cannot answer is not noted.
        self.answerer.variant(&next.variant)?;
        let (release, percent) = match &change {
            Change::Promote { release } => (Some(release.clone()), None),
            Change::Canary { release, percent } => (Some(release.clone()), Some(*percent)),
            Change::Rollback => (None, None),
        };
        let event = ReleaseEvent {
            number: history.last().map_or(0, |last| last.number) + 1,
            action: change.as_str().to_owned(),
            release,
            percent,
            at: by.now,
            actor: by.actor.to_owned(),
            reason: by.reason.to_owned(),
        };
        self.catalog.put_release_event(&self.tenant, self.name(), record.as_ref(), &event).await?;
        self.answerer.switch(next)?;
        let history: Vec<ReleaseEvent> = history.iter().cloned().chain([event.clone()]).collect();
        self.watch_trial(&history).await?;
        tracing::warn!(
            action = event.action,
            release = event.release,
            percent = event.percent,
            actor = by.actor,
            "the release was changed"
        );
        self.status().await
    }

    /// The evaluation of this id, from the catalog.
    async fn evaluation(&self, id: Option<&str>) -> Result<Option<EvaluationRecord>, ReleaseError> {
        let Some(id) = id else { return Ok(None) };
        let found = self.catalog.evaluation(&self.tenant, id).await?;
        found.map(Some).ok_or_else(|| ReleaseError::NoEvaluation(id.to_owned()))
    }

    /// The documents that answer now.
    async fn generation(&self) -> Result<String, ReleaseError> {
        let collection = &self.answerer.assistant().collection;
        Ok(self.answerer.retriever().index().resolve(collection).await?.unwrap_or_else(|| collection.clone()).to_string())
    }
}

/// Who does something, why and when.
#[derive(Clone, Copy)]
struct By<'a> {
    actor: &'a str,
    reason: &'a str,
    now: i64,
}

/// What the history adds up to.
fn state_of(history: &[ReleaseEvent]) -> ReleaseState {
    let changes: Vec<Change> = history.iter().filter_map(change_of).collect();
    ReleaseState::of(&changes)
}

/// The canary on trial after a history: the change that began it, its release, and the one that answers everybody else. Another percentage is the same trial.
fn trial_of(history: &[ReleaseEvent]) -> Option<(&ReleaseEvent, String, Option<String>)> {
    let (mut state, mut began) = (ReleaseState::default(), None);
    for event in history {
        let Some(next) = change_of(event).and_then(|change| state.after(&change).ok()) else { continue };
        let before = state.canary.as_ref().map(|(release, _)| release);
        match &next.canary {
            Some((release, _)) if before == Some(release) => {}
            Some(_) => began = Some(event),
            None => began = None,
        }
        state = next;
    }
    let (release, _) = state.canary?;
    Some((began?, release, state.current))
}

fn change_of(event: &ReleaseEvent) -> Option<Change> {
    match (event.action.as_str(), event.release.clone()) {
        ("promote", Some(release)) => Some(Change::Promote { release }),
        ("canary", Some(release)) => Some(Change::Canary { release, percent: event.percent? }),
        ("rollback", _) => Some(Change::Rollback),
        _ => None,
    }
}

/// A state with its variants.
fn live(configured: &Live, records: &[ReleaseRecord], state: &ReleaseState) -> Live {
    let variant = |id: &String| records.iter().find(|record| record.id == *id).map(|record| record.variant.clone());
    let current = state.current.as_ref().and_then(|id| Some((id.clone(), variant(id)?)));
    let canary =
        state.canary.as_ref().and_then(|(id, percent)| Some(Canary { release: id.clone(), variant: variant(id)?, percent: *percent }));
    let (release, variant) = current.map_or_else(|| (None, configured.variant.clone()), |(id, variant)| (Some(id), variant));
    Live { release, variant, canary, ..configured.clone() }
}

/// What a release keeps of its evaluation: its verdict and the arm that is released.
fn kept(evaluation: &EvaluationRecord, arm: Option<&EvaluatedArm>) -> serde_json::Value {
    let EvaluationRecord { id, set_sha256, decision, reason, .. } = evaluation;
    json!({"id": id, "set_sha256": set_sha256, "decision": decision, "reason": reason, "arm": arm})
}

/// What is not as it was when a release was made.
fn drifted(record: &ReleaseRecord, variant: &Variant, generation: &str) -> Vec<String> {
    let pairs = [
        ("prompt", record.prompt_fingerprint.as_str(), variant.fingerprint().as_str().to_owned()),
        ("model", record.model.as_str(), variant.model.id().to_owned()),
        ("documents", record.generation.as_str(), generation.to_owned()),
    ];
    let changed = pairs.into_iter().filter(|(_, then, now)| then != now);
    changed.map(|(what, then, now)| format!("the {what} of {} was {then} and is {now} now", record.id)).collect()
}

/// What speaks against releasing a variant.
fn objections(variant: &Variant, arm: Option<&EvaluatedArm>) -> Vec<String> {
    let Some(arm) = arm else { return vec!["no evaluation speaks for it".to_owned()] };
    let mut found = Vec::new();
    if !arm.passed {
        found.push(format!("its evaluation did not pass: {}", arm.reason));
    }
    match &arm.prompt_fingerprint {
        Some(then) if *then == variant.fingerprint().to_string() => {}
        Some(then) => found.push(format!("it was evaluated with the prompt {then}, but would answer with {}", variant.fingerprint())),
        None => found.push("its evaluation does not say with which prompt".to_owned()),
    }
    match &arm.answered_by {
        Some(model) if model != variant.model.id() => {
            found.push(format!("it was evaluated with the model {model}, but would answer with {}", variant.model.id()));
        }
        _ => {}
    }
    found
}

/// What is overruled; an error where something speaks against it and it is not forced, by name and with a reason.
fn forced(body: &ReleaseBody, name: &str, objections: Vec<String>) -> Result<Option<String>, ReleaseError> {
    match &body.force {
        _ if objections.is_empty() => Ok(None),
        None => Err(ReleaseError::Objections { name: name.to_owned(), objections }),
        Some(forced) if forced != name => Err(ReleaseError::ForcedName(name.to_owned())),
        Some(_) if body.reason.trim().is_empty() => Err(ReleaseError::NoReason),
        Some(_) => Ok(Some(objections.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_begins_with_its_canary_and_ends_with_it() {
        let steps = [
            ("promote", Some("a"), None),
            ("canary", Some("b"), Some(5)),
            // More of the same is the same trial.
            ("canary", Some("b"), Some(50)),
            ("rollback", None, None),
            ("canary", Some("b"), Some(5)),
            ("canary", Some("c"), Some(5)),
            ("promote", Some("c"), None),
        ];
        let mut history = Vec::new();
        let mut shown = Vec::new();
        for ((action, release, percent), number) in steps.into_iter().zip(1..) {
            let release = release.map(str::to_owned);
            let (actor, reason) = (String::new(), String::new());
            history.push(ReleaseEvent { number, action: action.into(), release, percent, at: number * 10, actor, reason });
            shown.push(
                trial_of(&history).map(|(began, release, baseline)| format!("{} {release} {}", began.number, baseline.unwrap_or_default())),
            );
        }
        let shown: Vec<&str> = shown.iter().map(|trial| trial.as_deref().unwrap_or("-")).collect();
        assert_eq!(shown, ["-", "2 b a", "2 b a", "-", "5 b a", "6 c a", "-"]);
    }
}
