//! Where documents come from: files, pages, buckets, records.
//!
//! A source offers documents and reads the ones that are asked for. It never parses, never decides what has changed and never writes.

mod files;
mod glob;
mod objects;
mod parts;
mod push;
mod records;
mod settings;
mod sitemap;
mod watch;
mod web;

pub use push::{PUSH, PushedDocument};
pub use settings::{Endings, SourceSettings};
pub use watch::{Changes, watch};

pub(crate) use files::url_path;

use crate::Error;
use async_trait::async_trait;
use files::FileSource;
use futures::stream::BoxStream;
use groundtone_types::{ContentHash, DocumentId, Metadata};
use objects::ObjectSource;
use parts::Part;
use records::{Record, RecordSource};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;
use web::{PageSource, SitemapSource};

/// One document as a source offers it, before it is read.
#[derive(Debug, Clone)]
pub struct SourceItem {
    /// Its name in the collection.
    pub id: DocumentId,
    /// File name or last part of the path, with the ending that says the format.
    pub name: String,
    /// For people: a path or an address.
    pub place: String,
    /// For citations; may be empty.
    pub url: String,
    /// 0 where nobody knows.
    pub bytes: u64,
    /// Equal versions mean equal bytes, so that the document need not be read again. `None`: read it and see.
    pub version: Option<String>,
    locator: Locator,
}

/// How the source itself finds the document again.
#[derive(Debug, Clone)]
enum Locator {
    File(PathBuf),
    Part(Arc<Part>),
    Page(Url),
    Object(object_store::path::Path),
    Record(Arc<Record>),
    /// The source is the document.
    Given,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceContent {
    /// The document as it is stored there.
    pub bytes: Vec<u8>,
    /// `text/html`, where the source says; then it counts for more than the name.
    pub media_type: Option<String>,
    /// The character set, where the source says.
    pub charset: Option<String>,
    /// The title, where the source says; then it counts for more than the document's own.
    pub title: Option<String>,
    /// What else the source says; every chunk carries it.
    pub metadata: Metadata,
}

impl SourceContent {
    /// Of everything that the document is made of: its bytes, and what the source says beside them.
    pub fn hash(&self) -> ContentHash {
        let bytes = ContentHash::of(&self.bytes);
        if self.title.is_none() && self.charset.is_none() && self.metadata.is_empty() {
            return bytes;
        }
        let (title, charset) = (self.title.as_deref().unwrap_or_default(), self.charset.as_deref().unwrap_or_default());
        let parts = [bytes.as_str(), title, charset, &self.metadata.to_json()];
        ContentHash::of(parts.map(|part| format!("{} {part}", part.len())).join("\n").as_bytes())
    }
}

/// What a source found.
#[derive(Debug, Clone)]
pub enum Offer {
    /// A document.
    Item(SourceItem),
    /// Something that is no document and should perhaps be one.
    Unreadable {
        /// For people: a path or an address.
        place: String,
        /// Why, to follow the place in a sentence.
        reason: String,
    },
    /// A large file was offered to its end, as the documents `ID#part-00001` to `count`; with `count` 0 as the one document `id`. Whatever else is stored of it is no more.
    Parts {
        /// What the file is called.
        id: DocumentId,
        /// How many parts it has.
        count: u32,
    },
    /// A file with an ending that is not read.
    Ignored,
}

/// What the parts of a file are called, up to the number.
pub(crate) fn part_prefix(file: &DocumentId) -> String {
    format!("{file}#part-")
}

/// What a part of a file is called: `big.txt#part-00003`.
pub(crate) fn part_id(file: &DocumentId, number: u32) -> Result<DocumentId, groundtone_types::NameError> {
    DocumentId::new(format!("{}{number:05}", part_prefix(file)))
}

/// The file and the number of a part.
pub(crate) fn part_of(id: &DocumentId) -> Option<(DocumentId, u32)> {
    let (file, number) = id.as_str().rsplit_once("#part-")?;
    Some((DocumentId::new(file).ok()?, number.parse().ok()?))
}

/// A place with documents.
#[async_trait]
pub trait Source: Send + Sync {
    /// Everything that is there, as it is found and not faster than it is taken.
    /// An error ends the listing and the run: nothing may then be taken for removed.
    fn offers(&self) -> BoxStream<'_, Result<Offer, Error>>;
    /// Whether an item holds its document already, so that only a few may wait.
    fn carries_content(&self) -> bool {
        false
    }
    /// Reads a document of this source. An error is the reason, to follow the place in a sentence.
    async fn read(&self, item: &SourceItem, max_bytes: u64) -> Result<SourceContent, String>;
    /// Whether a document that was not offered has left the source. Ask after the listing: a folder that could not be opened or a limit that was met makes it false.
    fn is_complete(&self) -> bool;
}

/// Opens a source; what kind it is shows in the location:
/// `-`, `https://host/page`, `https://host/sitemap.xml`, `sitemap:https://host/pages`, `s3://bucket/prefix`, `file:///folder`, `records.jsonl`, `docs/**/*.md`, a folder or a file.
pub fn open(location: &str, settings: &SourceSettings) -> Result<Box<dyn Source>, Error> {
    if location == "-" {
        return Ok(Box::new(RecordSource::stdin(settings)));
    }
    if let Some(address) = location.strip_prefix("sitemap:") {
        return Ok(Box::new(SitemapSource::new(&web_address(address)?, settings)?));
    }
    if let Some(path) = file_address(location) {
        return local(&path?, settings);
    }
    match location.split_once("://") {
        Some(("http" | "https", _)) => {
            let url = web_address(location)?;
            let path = url.path().to_lowercase();
            let is_sitemap = path.ends_with(".xml") || path.ends_with(".xml.gz");
            if is_sitemap { Ok(Box::new(SitemapSource::new(&url, settings)?)) } else { Ok(Box::new(PageSource::new(&url, settings)?)) }
        }
        Some(("s3", rest)) => Ok(Box::new(ObjectSource::open(rest, settings)?)),
        Some((scheme, _)) if scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') => {
            Err(refused(location, "a source is a path, a pattern, http(s)://, sitemap:, s3://, file:// or -"))
        }
        _ => local(Path::new(location), settings),
    }
}

/// A path that is there is taken as it is written; else it may be a pattern.
fn local(path: &Path, settings: &SourceSettings) -> Result<Box<dyn Source>, Error> {
    let records = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl") || ending.eq_ignore_ascii_case("ndjson"));
    match (std::fs::metadata(path), glob::split(path)) {
        (Ok(metadata), _) if metadata.is_file() && records => Ok(Box::new(RecordSource::file(path, settings))),
        (Ok(_), _) => Ok(Box::new(FileSource::open(path, settings)?)),
        (Err(_), Some(pattern)) => Ok(Box::new(FileSource::matching(path, &pattern, settings)?)),
        (Err(error), None) => Err(refused(&shown(path), &plain(&error))),
    }
}

/// The path of a `file://` address; `None` for any other location.
fn file_address(location: &str) -> Option<Result<PathBuf, Error>> {
    location.strip_prefix("file://")?;
    let path = Url::parse(location).ok().and_then(|url| url.to_file_path().ok());
    Some(path.ok_or_else(|| refused(location, "its address must look like file:///folder")))
}

fn web_address(location: &str) -> Result<Url, Error> {
    let url = Url::parse(location).map_err(|error| refused(location, &format!("it is not an address: {error}")))?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(refused(location, "its address must begin with http:// or https://"))
    }
}

fn refused(place: &str, reason: &str) -> Error {
    Error::Source { place: place.to_owned(), reason: reason.to_owned() }
}

/// A path for people: without what could move a terminal's cursor.
fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn too_large(bytes: u64, max_bytes: u64) -> String {
    format!("has {bytes} bytes; at most {max_bytes} are read (`ingest.max_file_bytes`)")
}

/// `No such file or directory` without the number that follows it.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The item was offered by another source: a defect of the caller.
fn not_ours() -> String {
    "was offered by another source".to_owned()
}

#[cfg(test)]
mod tests;
