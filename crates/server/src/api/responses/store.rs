//! Responses that can be gone on from: in memory, bounded in number and in size, the oldest leave first.

use groundtone_openai_api::RequestMessage;
use groundtone_types::Tenant;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Most responses that are kept, and most bytes of them.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 64 << 20;

/// A response and the conversation that it ends.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The response as it was sent.
    pub(crate) body: Value,
    /// Everything said so far, its own answer included, without instructions.
    pub(crate) conversation: Vec<RequestMessage>,
}

type Key = (Tenant, String);

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<Key, (Arc<Kept>, usize)>,
    order: VecDeque<Key>,
    bytes: usize,
}

/// The responses of all tenants.
#[derive(Debug, Default)]
pub struct ResponseStore {
    inner: Mutex<Inner>,
}

impl ResponseStore {
    pub(crate) fn put(&self, tenant: &Tenant, id: &str, kept: Kept) {
        let size = kept.body.to_string().len() + serde_json::to_string(&kept.conversation).map_or(0, |text| text.len());
        if size > MOST_BYTES {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.kept.len() >= MOST || inner.bytes + size > MOST_BYTES {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.forget(&oldest);
        }
        let key = (tenant.clone(), id.to_owned());
        inner.order.push_back(key.clone());
        inner.kept.insert(key, (Arc::new(kept), size));
        inner.bytes += size;
    }

    pub(crate) fn get(&self, tenant: &Tenant, id: &str) -> Option<Arc<Kept>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kept.get(&(tenant.clone(), id.to_owned())).map(|(kept, _)| kept.clone())
    }

    /// False if there was none.
    pub(crate) fn remove(&self, tenant: &Tenant, id: &str) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant.clone(), id.to_owned());
        inner.order.retain(|known| *known != key);
        inner.forget(&key)
    }
}

impl Inner {
    fn forget(&mut self, key: &Key) -> bool {
        let gone = self.kept.remove(key);
        self.bytes -= gone.as_ref().map_or(0, |(_, size)| *size);
        gone.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_and_nobody_reads_anothers() {
        let (store, tenant, other) = (ResponseStore::default(), Tenant::default(), Tenant::new("other").unwrap());
        let big = || Kept { body: Value::String("x".repeat(MOST_BYTES / 3)), conversation: Vec::new() };
        ["a", "b", "c"].iter().for_each(|id| store.put(&tenant, id, big()));
        assert!(store.get(&tenant, "a").is_none(), "three do not fit");
        assert!(store.get(&tenant, "b").is_some() && store.get(&other, "b").is_none());
        assert!(!store.remove(&other, "b") && store.remove(&tenant, "b") && !store.remove(&tenant, "b"));
        store.put(&tenant, "d", Kept { body: Value::String("x".repeat(MOST_BYTES + 1)), conversation: Vec::new() });
        assert!(store.get(&tenant, "d").is_none() && store.get(&tenant, "c").is_some());
    }
}
