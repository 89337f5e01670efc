//! Trainings that run in this process, and what they are told.

use super::state::JobEvent;
use crate::Command;
use groundtone_types::Tenant;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const GO: u8 = 0;
const PAUSE: u8 = 1;
const CANCEL: u8 = 2;

/// What a training is told; it looks before every step.
#[derive(Debug, Default)]
pub(super) struct Signal(AtomicU8);

impl Signal {
    pub(super) fn command(&self) -> Command {
        match self.0.load(Ordering::SeqCst) {
            GO => Command::Go,
            PAUSE => Command::Pause,
            _ => Command::Cancel,
        }
    }

    /// A training that was called off stays so.
    fn raise(&self, to: u8) {
        self.0.fetch_max(to, Ordering::SeqCst);
    }

    pub(super) fn cancel(&self) {
        self.raise(CANCEL);
    }
}

/// Trainings by tenant and job. One that was paused is in here until it has written its checkpoint, so it is not started twice.
#[derive(Debug, Default)]
pub(super) struct Active(Mutex<HashMap<(String, String), Arc<Signal>>>);

/// A training's place among the active ones; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    active: Arc<Active>,
    key: (String, String),
    pub(super) signal: Arc<Signal>,
}

impl Active {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Arc<Signal>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for this job, unless it has one.
    pub(super) fn enter(self: &Arc<Self>, tenant: &Tenant, id: &str) -> Option<Place> {
        let key = (tenant.to_string(), id.to_owned());
        let mut all = self.lock();
        if all.contains_key(&key) {
            return None;
        }
        let signal = Arc::<Signal>::default();
        all.insert(key.clone(), signal.clone());
        drop(all);
        Some(Place { active: self.clone(), key, signal })
    }

    pub(super) fn tell(&self, tenant: &Tenant, id: &str, event: JobEvent) {
        if let Some(signal) = self.lock().get(&(tenant.to_string(), id.to_owned())) {
            match event {
                JobEvent::Paused => signal.raise(PAUSE),
                JobEvent::Cancelled => signal.raise(CANCEL),
                _ => {}
            }
        }
    }

    /// Everything writes a checkpoint and stops.
    pub(super) fn pause_all(&self) {
        self.lock().values().for_each(|signal| signal.raise(PAUSE));
    }

    pub(super) fn is_active(&self, tenant: &Tenant, id: &str) -> bool {
        self.lock().contains_key(&(tenant.to_string(), id.to_owned()))
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.active.lock().remove(&self.key);
    }
}
