use crate::{DocumentId, Metadata};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use uuid::Uuid;

/// Bytes `start..end` of a document's extracted text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// SHA-256 of some text, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentHash(String);

impl ContentHash {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }
    /// Takes a hash that was stored before; it is compared, never trusted.
    pub fn from_stored(hex: impl Into<String>) -> Self {
        Self(hex.into())
    }
    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The piece of a document that is embedded, stored and searched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The document that it was cut from.
    pub document: DocumentId,
    /// Place among the document's chunks, from 0.
    pub ordinal: u32,
    /// Where it stands in the document's extracted text.
    pub span: Span,
    /// The headings above it, outermost first (the breadcrumb).
    pub heading_path: Vec<String>,
    /// The document's title.
    pub title: String,
    /// Where a reader finds the document.
    pub url: String,
    /// The text itself.
    pub text: String,
    /// The page or slide that it begins on, from 1, where the format has pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// The longer piece that is shown in its place: a small chunk is searched, its parent is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// What the source says of the document beside its text.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// A longer piece of the same document that a chunk is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Where it stands in the document's extracted text.
    pub span: Span,
    /// Its text.
    pub text: String,
}

impl Chunk {
    /// What identifies the content: everything that a reader or the model would see of it.
    pub fn content_hash(&self) -> ContentHash {
        let mut bytes = Vec::with_capacity(self.text.len() + 64);
        for part in self.heading_path.iter().chain([&self.title, &self.url, &self.text]) {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        if let Some(page) = self.page {
            bytes.extend_from_slice(b"page");
            bytes.extend_from_slice(&page.to_le_bytes());
        }
        if let Some(parent) = &self.parent {
            bytes.extend_from_slice(b"parent");
            bytes.extend_from_slice(parent.text.as_bytes());
        }
        if !self.metadata.is_empty() {
            bytes.extend_from_slice(b"metadata");
            bytes.extend_from_slice(self.metadata.to_json().as_bytes());
        }
        ContentHash::of(&bytes)
    }

    /// What a reader or a model is shown: the parent's text where there is one.
    pub fn shown_text(&self) -> &str {
        self.parent.as_ref().map_or(&self.text, |parent| &parent.text)
    }

    /// UUIDv5 of (document id, ordinal, content hash): the same chunk always gets the same id, so storing it twice is storing it once.
    pub fn point_id(&self) -> Uuid {
        let name = format!("{}\u{0}{}\u{0}{}", self.document, self.ordinal, self.content_hash());
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
    }

    /// The document's title and the headings, without saying the same twice: `Returns › Return window`.
    pub fn path(&self) -> String {
        breadcrumb(&self.title, &self.heading_path)
    }

    /// [`Self::path`] and the page, for readers: `Manual › page 3`.
    pub fn breadcrumb(&self) -> String {
        match self.page {
            Some(page) => format!("{} › page {page}", self.path()),
            None => self.path(),
        }
    }
}

/// A stored chunk as retrieval hands it on: what the model may be shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snippet {
    /// The stored point.
    pub id: Uuid,
    /// The chunk that was stored.
    #[serde(flatten)]
    pub chunk: Chunk,
    /// The index's score; its scale depends on the query (for RRF: sums of 1/(k + rank)).
    pub score: f32,
}

fn breadcrumb(title: &str, heading_path: &[String]) -> String {
    let mut parts: Vec<&str> = vec![title];
    for heading in heading_path {
        if parts.last().is_none_or(|last| !last.eq_ignore_ascii_case(heading)) {
            parts.push(heading);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" › ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(document: &str, ordinal: u32, headings: &[&str], text: &str) -> Chunk {
        Chunk {
            document: DocumentId::new(document).unwrap_or_else(|e| unreachable!("{e}")),
            ordinal,
            span: Span { start: 0, end: text.len() },
            heading_path: headings.iter().map(|h| (*h).to_owned()).collect(),
            title: "Returns".into(),
            url: "https://example.test/returns".into(),
            text: text.into(),
            page: None,
            parent: None,
            metadata: Metadata::default(),
        }
    }

    proptest! {
        #[test]
        fn a_point_id_depends_on_content_and_place_only(text in ".{0,40}", other in ".{0,40}", ordinal in 0u32..5) {
            let a = chunk("returns.md", ordinal, &["Window"], &text);
            let mut moved = a.clone();
            moved.span = Span { start: 100, end: 200 };
            prop_assert_eq!(a.point_id(), moved.point_id());
            let b = chunk("returns.md", ordinal, &["Window"], &other);
            prop_assert_eq!(a.point_id() == b.point_id(), text == other);
            prop_assert_ne!(a.point_id(), chunk("other.md", ordinal, &["Window"], &text).point_id());
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(chunk("a", 0, &["x", "y"], "z").point_id(), chunk("a", 0, &["xy"], "z").point_id());
    }

    #[test]
    fn what_a_reader_sees_more_of_is_another_content() {
        let plain = chunk("a", 0, &[], "z");
        let paged = Chunk { page: Some(3), ..plain.clone() };
        let nested = Chunk { parent: Some(Parent { span: Span { start: 0, end: 3 }, text: "xyz".into() }), ..plain.clone() };
        let told = Chunk { metadata: serde_json::from_str(r#"{"lang":"en"}"#).unwrap_or_default(), ..plain.clone() };
        assert_eq!((plain.shown_text(), nested.shown_text()), ("z", "xyz"));
        assert_eq!(paged.breadcrumb(), "Returns › page 3");
        let hashes = [plain, paged, nested, told].map(|chunk| chunk.content_hash().to_string());
        assert_eq!(std::collections::BTreeSet::from(hashes).len(), 4);
    }

    #[test]
    fn the_breadcrumb_does_not_repeat_the_title() {
        assert_eq!(chunk("a", 0, &["Returns", "Window"], "z").breadcrumb(), "Returns › Window");
        assert_eq!(chunk("a", 0, &[], "z").breadcrumb(), "Returns");
    }
}
