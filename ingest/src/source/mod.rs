//! Where documents come from. A new source is one file here and one line in [`open`].

mod files;
mod push;

pub use files::FileSource;
pub(crate) use files::plain;
pub use push::{PUSH, PushedDocument};

use crate::Error;
use async_trait::async_trait;
use futures::stream::BoxStream;
use groundtone_types::DocumentId;
use std::collections::BTreeMap;
use std::path::Path;

/// One document as a source offers it, before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceItem {
    /// Its id in the collection.
    pub id: DocumentId,
    /// File name with its ending, which decides the format.
    pub name: String,
    /// Where it is, for people.
    pub place: String,
    /// Where a reader finds it; empty where the pipeline makes the address.
    pub url: String,
    /// Its size; 0 where the source does not say.
    pub bytes: u64,
    /// What the source calls this version of it: equal versions are equal bytes and need not be read again.
    pub version: Option<String>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceContent {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What the source says they are.
    pub media_type: Option<String>,
    /// A title that the source gives.
    pub title: Option<String>,
    /// Whatever else it says.
    pub metadata: BTreeMap<String, String>,
}

/// Something that a source came upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// A document.
    Item(SourceItem),
    /// Something that could not be looked at.
    Unreadable {
        /// Where.
        place: String,
        /// Why, to follow the place in a sentence.
        reason: String,
    },
    /// A file with an ending that is not read.
    Ignored,
}

/// Offers documents, and reads the ones that are asked for.
#[async_trait]
pub trait Source: Send + Sync {
    /// Offers come as they are found. An error ends the listing and the run, and nothing is taken for removed.
    fn offers(&self) -> BoxStream<'_, Result<Offer, Error>>;
    /// Reads a document of at most `max_bytes`; the error is a reason to follow its place in a sentence.
    async fn read(&self, item: &SourceItem, max_bytes: u64) -> Result<SourceContent, String>;
    /// Whether a document that was not offered has left the source.
    fn is_complete(&self) -> bool;
}

/// The source that a location names.
pub fn open(location: &str) -> Result<Box<dyn Source>, Error> {
    Ok(Box::new(FileSource::open(Path::new(location))?))
}
