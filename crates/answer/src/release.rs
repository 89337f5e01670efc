//! What has been released, from what was done: a fold over the history. Pure.

use serde::{Deserialize, Serialize};

/// What was done to the releases of an assistant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Change {
    /// This release answers everybody; a canary ends.
    Promote {
        /// Which.
        release: String,
    },
    /// This release answers a share of the conversations.
    Canary {
        /// Which.
        release: String,
        /// Percent of the conversations, 1 to 100.
        percent: u8,
    },
    /// The canary ends; where there is none, what answered before answers again.
    Rollback,
}

impl Change {
    /// Its name in the history.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Promote { .. } => "promote",
            Self::Canary { .. } => "canary",
            Self::Rollback => "rollback",
        }
    }
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It answers everybody already.
    #[error("release {0} answers already")]
    Current(String),
    /// Not between 1 and 100.
    #[error("a canary gets 1 to 100 percent of the conversations, not {0}")]
    Percent(u8),
    /// There is neither a canary nor an earlier release.
    #[error("there is nothing to roll back to: no canary, and no earlier release")]
    Nothing,
}

/// Which release answers, which one is tried, and what answered before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReleaseState {
    /// Answers everybody; `None` is the variant of the configuration.
    pub current: Option<String>,
    /// On trial, and its percent.
    pub canary: Option<(String, u8)>,
    before: Vec<Option<String>>,
}

impl ReleaseState {
    /// The state after a history, oldest first. What could not have been done then is left out.
    pub fn of<'a>(history: impl IntoIterator<Item = &'a Change>) -> Self {
        history.into_iter().fold(Self::default(), |state, change| state.after(change).unwrap_or(state))
    }

    /// The state after one more change.
    pub fn after(&self, change: &Change) -> Result<Self, Refused> {
        let mut next = self.clone();
        match change {
            Change::Promote { release } if self.current.as_ref() == Some(release) => return Err(Refused::Current(release.clone())),
            Change::Promote { release } => {
                next.before.push(next.current.replace(release.clone()));
                next.canary = None;
            }
            Change::Canary { release, .. } if self.current.as_ref() == Some(release) => return Err(Refused::Current(release.clone())),
            Change::Canary { percent, .. } if !(1..=100).contains(percent) => return Err(Refused::Percent(*percent)),
            Change::Canary { release, percent } => next.canary = Some((release.clone(), *percent)),
            Change::Rollback if self.canary.is_some() => next.canary = None,
            Change::Rollback => next.current = next.before.pop().ok_or(Refused::Nothing)?,
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn promote(release: &str) -> Change {
        Change::Promote { release: release.into() }
    }

    #[test]
    fn a_rollback_ends_the_canary_first_and_then_goes_back_step_by_step() {
        let mut state = ReleaseState::default();
        let mut shown = Vec::new();
        for change in [
            promote("a"),
            promote("b"),
            Change::Canary { release: "c".into(), percent: 10 },
            Change::Rollback,
            Change::Rollback,
            promote("d"),
            Change::Rollback,
            Change::Rollback,
        ] {
            state = state.after(&change).unwrap();
            shown.push(format!("{:?} {:?}", state.current.as_deref().unwrap_or("-"), state.canary.as_ref().map(|(name, _)| name)));
        }
        assert_eq!(
            shown,
            [r#""a" None"#, r#""b" None"#, r#""b" Some("c")"#, r#""b" None"#, r#""a" None"#, r#""d" None"#, r#""a" None"#, r#""-" None"#]
        );
        assert_eq!(state.after(&Change::Rollback), Err(Refused::Nothing));
        assert_eq!(state.after(&Change::Canary { release: "c".into(), percent: 0 }), Err(Refused::Percent(0)));
        let state = state.after(&promote("a")).unwrap();
        assert_eq!(state.after(&promote("a")), Err(Refused::Current("a".into())));
    }

    proptest! {
        #[test]
        fn a_rollback_takes_back_the_last_change_that_is_not_taken_back_yet(
            steps in proptest::collection::vec((0u8..4, "[a-e]", 0u8..=101), 0..40),
        ) {
            let mut state = ReleaseState::default();
            let mut history = Vec::new();
            for (kind, release, percent) in steps {
                let change = match kind {
                    0 | 1 => promote(&release),
                    2 => Change::Canary { release, percent },
                    _ => Change::Rollback,
                };
                let Ok(next) = state.after(&change) else { continue };
                if matches!(change, Change::Promote { .. }) {
                    let back = next.after(&Change::Rollback).unwrap();
                    prop_assert_eq!((&back.current, &back.before), (&state.current, &state.before));
                }
                prop_assert!(next.canary.is_none() || next.canary.as_ref().map(|(name, _)| name) != next.current.as_ref());
                history.push(change);
                state = next;
                prop_assert_eq!(&ReleaseState::of(&history), &state);
            }
        }
    }
}
