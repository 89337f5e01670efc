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

/// What is published of a document, as far as it decides.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    record: &'a DocumentRecord,
    /// It was cut as it would be cut now.
    same_settings: bool,
}

impl<'a> Known<'a> {
    /// A published document, and the fingerprint of today's settings.
    pub fn new(record: &'a DocumentRecord, settings: &str) -> Self {
        Self { record, same_settings: record.settings_fingerprint == settings }
    }

    /// Whether the source's own word suffices: the same version under the same address, cut the same way, need not even be read.
    pub fn has_version(&self, version: Option<&str>, url: &str) -> bool {
        version.is_some() && self.record.version.as_deref() == version && self.same_settings && self.record.url == url
    }
}

/// Compares a document's bytes and settings with what is published of it.
pub fn decide(known: Option<&Known<'_>>, hash: &ContentHash, url: &str) -> Decision {
    match known {
        None => Decision::New,
        Some(known) if known.record.content_hash == *hash && known.same_settings && known.record.url == url => Decision::Unchanged,
        Some(_) => Decision::Changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundtone_types::DocumentId;
    use uuid::Uuid;

    #[test]
    fn only_equal_bytes_settings_and_address_are_unchanged() {
        let record = DocumentRecord {
            id: DocumentId::new("a").unwrap(),
            source: "s".into(),
            content_hash: ContentHash::of(b"x"),
            version: Some("v1".into()),
            settings_fingerprint: "f".into(),
            title: "A".into(),
            url: "u".into(),
            bytes: 1,
            tokens: 1,
            run: Uuid::nil(),
            indexed_at: 0,
            metadata: Default::default(),
            flags: Vec::new(),
        };
        let known = Known::new(&record, "f");
        assert_eq!(decide(None, &ContentHash::of(b"x"), "u"), Decision::New);
        assert_eq!(decide(Some(&known), &ContentHash::of(b"x"), "u"), Decision::Unchanged);
        assert_eq!(decide(Some(&known), &ContentHash::of(b"y"), "u"), Decision::Changed);
        assert_eq!(decide(Some(&known), &ContentHash::of(b"x"), "v"), Decision::Changed);
        assert_eq!(decide(Some(&Known::new(&record, "g")), &ContentHash::of(b"x"), "u"), Decision::Changed);
        assert!(known.has_version(Some("v1"), "u") && !known.has_version(Some("v2"), "u") && !known.has_version(None, "u"));
        assert!(!known.has_version(Some("v1"), "v") && !Known::new(&record, "g").has_version(Some("v1"), "u"));
    }
}
