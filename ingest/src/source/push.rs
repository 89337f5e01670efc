use super::{Locator, Offer, Source, SourceContent, SourceItem};
use crate::Error;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use groundtone_types::{DocumentId, Metadata};

/// What the source of pushed documents is called in the ledger.
pub const PUSH: &str = "push";

/// One document that somebody hands over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedDocument {
    /// Its id in the collection.
    pub id: DocumentId,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The ending that decides its format, without the dot: `md`.
    pub ending: String,
    /// Its title; the format's own where `None`.
    pub title: Option<String>,
    /// Where a reader finds it.
    pub url: String,
    /// What else is said of it.
    pub metadata: Metadata,
}

#[async_trait]
impl Source for PushedDocument {
    fn offers(&self) -> BoxStream<'_, Result<Offer, Error>> {
        let id = self.id.as_str();
        let stem = id.rsplit('/').next().unwrap_or(id);
        let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
        let item = SourceItem {
            id: self.id.clone(),
            name: format!("{stem}.{}", self.ending),
            place: id.to_owned(),
            // A pushed document that says no address is cited by its id.
            url: if self.url.is_empty() { id.to_owned() } else { self.url.clone() },
            bytes: self.bytes.len() as u64,
            version: None,
            locator: Locator::Given,
        };
        stream::once(std::future::ready(Ok(Offer::Item(item)))).boxed()
    }

    async fn read(&self, _item: &SourceItem, max_bytes: u64) -> Result<SourceContent, String> {
        if self.bytes.len() as u64 > max_bytes {
            return Err(format!("has {} bytes; at most {max_bytes} are read (`ingest.max_file_bytes`)", self.bytes.len()));
        }
        let (bytes, title, metadata) = (self.bytes.clone(), self.title.clone(), self.metadata.clone());
        Ok(SourceContent { bytes, title, metadata, ..SourceContent::default() })
    }

    fn is_complete(&self) -> bool {
        false
    }
}
