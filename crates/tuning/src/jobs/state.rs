//! The life of a job, as a table. Nothing here reads or writes.

use groundtone_catalog::JobStatus;

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEvent {
    /// Its files can be trained on.
    FilesRead,
    /// Its turn has come.
    Started,
    /// The process that trained it ended, or is about to.
    Interrupted,
    /// Somebody wants it to wait.
    Paused,
    /// Somebody wants it to go on.
    Resumed,
    /// Somebody has called it off.
    Cancelled,
    /// Every step is done.
    Finished,
    /// It cannot go on.
    Failed,
}

impl JobEvent {
    /// Every one.
    pub const ALL: [Self; 8] =
        [Self::FilesRead, Self::Started, Self::Interrupted, Self::Paused, Self::Resumed, Self::Cancelled, Self::Finished, Self::Failed];

    fn verb(self) -> &'static str {
        match self {
            Self::FilesRead | Self::Started | Self::Finished | Self::Failed | Self::Interrupted => "changed",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Something that cannot happen to a job in this status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} cannot be {}", event.verb())]
pub struct IllegalTransition {
    /// What it is.
    pub from: JobStatus,
    /// What should have happened.
    pub event: JobEvent,
}

/// Which status follows.
///
/// # Errors
/// [`IllegalTransition`] for everything that is not in the table. Nothing follows a status that is over.
pub fn transition(from: JobStatus, event: JobEvent) -> Result<JobStatus, IllegalTransition> {
    use JobStatus::{Cancelled, Failed, Paused, Queued, Running, Succeeded, ValidatingFiles};
    match (from, event) {
        (ValidatingFiles, JobEvent::FilesRead) => Ok(Queued),
        (Queued, JobEvent::Started) => Ok(Running),
        (Running, JobEvent::Interrupted) => Ok(Queued),
        (Queued | Running, JobEvent::Paused) => Ok(Paused),
        (Paused, JobEvent::Resumed) => Ok(Queued),
        (Running, JobEvent::Finished) => Ok(Succeeded),
        (ValidatingFiles | Queued | Running, JobEvent::Failed) => Ok(Failed),
        (ValidatingFiles | Queued | Running | Paused, JobEvent::Cancelled) => Ok(Cancelled),
        _ => Err(IllegalTransition { from, event }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;

    #[test]
    fn the_table_is_this_one() {
        let mut table = String::new();
        for from in JobStatus::ALL {
            let next = JobEvent::ALL.iter().filter_map(|&event| Some(format!("{event:?}>{}", transition(from, event).ok()?)));
            writeln!(table, "{from}: {}", next.collect::<Vec<_>>().join(" ")).unwrap();
        }
        let expected = "\
validating_files: FilesRead>queued Cancelled>cancelled Failed>failed
queued: Started>running Paused>paused Cancelled>cancelled Failed>failed
running: Interrupted>queued Paused>paused Cancelled>cancelled Finished>succeeded Failed>failed
paused: Resumed>queued Cancelled>cancelled
succeeded: 
failed: 
cancelled: 
";
        assert_eq!(table, expected);
    }

    fn any_event() -> impl Strategy<Value = JobEvent> {
        prop::sample::select(JobEvent::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn whatever_happens_a_job_ends_once_and_only_after_it_has_trained(events in prop::collection::vec(any_event(), 0..60)) {
            let (mut status, mut ends, mut has_read, mut has_run) = (JobStatus::ValidatingFiles, 0, false, false);
            for event in events {
                let Ok(next) = transition(status, event) else { continue };
                prop_assert!(!status.is_over(), "{status} was left by {event:?}");
                has_read |= event == JobEvent::FilesRead;
                prop_assert!(next != JobStatus::Running || has_read);
                has_run |= next == JobStatus::Running;
                prop_assert!(next != JobStatus::Succeeded || (has_run && status == JobStatus::Running));
                ends += usize::from(next.is_over());
                status = next;
            }
            prop_assert!(ends <= 1);
            // Whatever came before, a job that is not over can be called off.
            prop_assert_eq!(transition(status, JobEvent::Cancelled).is_ok(), !status.is_over());
        }
    }
}
