//! What to do with a document, as a pure function of what is stored and what is there.

use groundtone_catalog::DocumentRecord;
use groundtone_types::ContentHash;

/// What to do with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Never seen.
    New,
    /// Its bytes, its address or the way it is cut have changed.
    Changed,
    /// Nothing to do: no embedding, no write.
    Unchanged,
}

/// Compares a document's bytes and settings with the ledger's row for it.
pub fn decide(stored: Option<&DocumentRecord>, hash: &ContentHash, settings: &str, url: &str) -> Decision {
    match stored {
        None => Decision::New,
        Some(row) if row.content_hash == *hash && row.settings_fingerprint == settings && row.url == url => Decision::Unchanged,
        Some(_) => Decision::Changed,
    }
}
