//! The keys that are accepted: those of the configuration and those of the catalog, in memory, so that a revocation counts from the next request on.

use crate::limits::{Meter, Refusal, Standing};
use groundtone_catalog::{Catalog, Error, KeyLimits, KeyRecord, Used};
use groundtone_types::{Scope, Tenant};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use subtle::ConstantTimeEq;

/// Random bytes of a key's public id and of its secret.
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// SHA-256 of a key. The key itself is never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// From 64 hexadecimal digits, as the configuration has them.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text.trim(), &mut hash).ok().map(|()| Self(hash))
    }

    /// Of a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// In a time that does not depend on where they differ.
    pub(crate) fn equals(self, other: Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// What a new key shall be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// Whose data it reaches; the maker's own tenant where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Unix seconds from which on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// How much it may use.
    #[serde(default)]
    pub limits: KeyLimits,
}

/// A new key, with its secret for the only time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatedKey {
    /// `gt-`, the id, and the secret.
    pub key: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub record: KeyRecord,
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// Fills `bytes` from the system's generator.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    ring::rand::SystemRandom::new().fill(bytes).map_err(|_| NoRandomness)
}

/// Makes a key with 256 random bits. The caller keeps its hash and shows the key once.
pub fn make_key(new: NewKey, tenant: &Tenant, now: i64) -> Result<(CreatedKey, KeyHash), NoRandomness> {
    let mut bytes = [0; ID_BYTES + SECRET_BYTES];
    random(&mut bytes)?;
    let (id, secret) = bytes.split_at(ID_BYTES);
    let id = hex::encode(id);
    let key = format!("gt-{id}-{}", hex::encode(secret));
    let hash = KeyHash::of(&key);
    let record = KeyRecord {
        id,
        name: new.name,
        tenant: new.tenant.unwrap_or_else(|| tenant.clone()),
        scopes: new.scopes,
        limits: new.limits,
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
    };
    Ok((CreatedKey { key, record }, hash))
}

/// The bytes that the catalog keeps of a key.
impl From<KeyHash> for [u8; 32] {
    fn from(hash: KeyHash) -> Self {
        hash.0
    }
}

/// A key that is accepted, or was.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) record: KeyRecord,
    hash: KeyHash,
    revoked: AtomicBool,
    meter: Mutex<Meter>,
}

impl Key {
    fn new(record: KeyRecord, hash: KeyHash) -> Self {
        let revoked = AtomicBool::new(record.revoked_at.is_some());
        Self { record, hash, revoked, meter: Mutex::default() }
    }

    /// Whether it may be used now.
    fn is_valid(&self, now: i64) -> bool {
        !self.revoked.load(Ordering::SeqCst) && self.record.expires_at.is_none_or(|end| now < end)
    }

    /// Counts a request, or says which limit it would pass.
    pub(crate) fn admit(&self, now: i64, defaults: KeyLimits) -> (Standing, Result<(), Refusal>) {
        let limits = self.record.limits.or(defaults);
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).admit(now, &limits)
    }

    /// Counts what an answer took.
    pub(crate) fn count(&self, now: i64, used: Used) {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).count(now, used);
    }

    /// What it has used today.
    pub(crate) fn today(&self, now: i64) -> Used {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).today(now)
    }
}

/// Every key, by its id.
#[derive(Debug, Default)]
pub struct KeyRing {
    /// Of the configuration: they have every right, and no limits.
    configured: Vec<Arc<Key>>,
    kept: RwLock<HashMap<String, Arc<Key>>>,
}

impl KeyRing {
    /// The keys of the configuration and of the catalog, with what they have used today.
    pub async fn load(catalog: &Catalog, configured: Vec<KeyHash>, now: i64) -> Result<Self, Error> {
        let owner = |(at, hash): (usize, KeyHash)| {
            let record = KeyRecord {
                id: format!("config-{}", at + 1),
                name: "server.api_key_sha256".to_owned(),
                tenant: Tenant::default(),
                scopes: Scope::ALL.to_vec(),
                limits: KeyLimits::default(),
                created_at: 0,
                expires_at: None,
                revoked_at: None,
            };
            Arc::new(Key::new(record, hash))
        };
        let ring = Self { configured: configured.into_iter().enumerate().map(owner).collect(), kept: RwLock::default() };
        for (record, hash) in catalog.every_key().await? {
            ring.put(record, KeyHash(hash));
        }
        let day = now.div_euclid(86_400);
        for (id, used) in catalog.usage_of_day(day).await? {
            if let Some(key) = ring.get(&id) {
                key.meter.lock().unwrap_or_else(PoisonError::into_inner).restore(day, used);
            }
        }
        Ok(ring)
    }

    /// Whether there is any key, valid or not: from the first one on every request needs one.
    pub fn is_empty(&self) -> bool {
        self.configured.is_empty() && self.kept.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Accepts a key from now on.
    pub(crate) fn put(&self, record: KeyRecord, hash: KeyHash) {
        let key = Arc::new(Key::new(record, hash));
        self.kept.write().unwrap_or_else(PoisonError::into_inner).insert(key.record.id.clone(), key);
    }

    /// Refuses a key from now on. What it is still writing counts for it.
    pub(crate) fn revoke(&self, id: &str) {
        if let Some(key) = self.get(id) {
            key.revoked.store(true, Ordering::SeqCst);
        }
    }

    /// The key with this id, valid or not.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Key>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        kept.or_else(|| self.configured.iter().find(|key| key.record.id == id).cloned())
    }

    /// The key with this id, where it may be used now.
    pub(crate) fn valid(&self, id: &str, now: i64) -> Option<Arc<Key>> {
        self.get(id).filter(|key| key.is_valid(now))
    }

    /// The key that was sent, where it may be used now. One of ours is looked up by its id and then compared; one of the configuration is compared with each.
    pub(crate) fn find(&self, sent: &str, now: i64) -> Option<Arc<Key>> {
        let hash = KeyHash::of(sent);
        let id = sent.strip_prefix("gt-").and_then(|rest| rest.split_once('-')).map(|(id, _)| id);
        let kept = id.and_then(|id| self.kept.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned());
        kept.into_iter().chain(self.configured.iter().cloned()).find(|key| key.hash.equals(hash) && key.is_valid(now))
    }

    /// What has been used since the last call: key, day, how much. The caller puts it into the catalog.
    pub(crate) fn take_unsaved(&self) -> Vec<(String, i64, Used)> {
        let kept: Vec<Arc<Key>> = self.kept.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut unsaved = Vec::new();
        for key in kept {
            let days = key.meter.lock().unwrap_or_else(PoisonError::into_inner).take_unsaved();
            unsaved.extend(days.into_iter().map(|(day, used)| (key.record.id.clone(), day, used)));
        }
        unsaved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(scopes: &[Scope]) -> NewKey {
        NewKey { name: "n".to_owned(), scopes: scopes.to_vec(), ..NewKey::default() }
    }

    #[test]
    fn a_key_is_shown_once_and_found_by_its_hash() {
        let ring = KeyRing::default();
        assert!(ring.is_empty());
        let (created, hash) = make_key(new(&[Scope::Chat]), &Tenant::default(), 5).unwrap();
        let (other, _) = make_key(new(&[Scope::Chat]), &Tenant::default(), 5).unwrap();
        assert!(created.key.len() == 3 + 12 + 1 + 64 && created.key != other.key, "{}", created.key);
        ring.put(created.record.clone(), hash);
        let found = |sent: &str| ring.find(sent, 10).map(|key| key.record.id.clone());
        assert_eq!(found(&created.key), Some(created.record.id.clone()));
        let forged = format!("{}0", &created.key[..created.key.len() - 1]);
        for wrong in [other.key.as_str(), &created.key[..20], "", "gt-", &forged] {
            assert!(wrong == created.key || found(wrong).is_none(), "{wrong}");
        }
        assert!(!serde_json::to_string(&created.record).unwrap().contains(&created.key[16..]));
    }

    #[test]
    fn a_key_ends_when_it_is_revoked_or_expires() {
        let ring = KeyRing::default();
        let expiring = NewKey { expires_at: Some(100), ..new(&[Scope::Chat]) };
        let (created, hash) = make_key(expiring, &Tenant::default(), 5).unwrap();
        ring.put(created.record.clone(), hash);
        assert!(ring.find(&created.key, 99).is_some() && ring.find(&created.key, 100).is_none());
        let in_use = ring.valid(&created.record.id, 99).unwrap();
        in_use.count(99, Used { tokens: 3, ..Used::default() });
        ring.revoke(&created.record.id);
        assert!(ring.find(&created.key, 60).is_none() && ring.valid(&created.record.id, 60).is_none());
        assert!(!ring.is_empty(), "a server does not open when its last key ends");
        assert_eq!(ring.take_unsaved(), [(created.record.id, 0, Used { tokens: 3, ..Used::default() })]);
    }
}
