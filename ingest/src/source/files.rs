//! Folders, single files and patterns.

use super::glob::Pattern;
use super::parts::{self, Kind};
use super::{
    Endings, Locator, Offer, Source, SourceContent, SourceItem, SourceSettings, not_ours, part_id, plain, refused, shown, too_large,
};
use crate::Error;
use crate::parse::known_endings;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use globset::GlobMatcher;
use groundtone_types::DocumentId;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use walkdir::{DirEntry, WalkDir};

/// Offers that may wait for the pipeline.
const OFFERED_AHEAD: usize = 256;

/// Files below a folder, or one file. Hidden files are left out and symbolic links are not followed.
pub(super) struct FileSource {
    listing: Listing,
    /// False once a folder could not be opened: what is in it has not left.
    whole: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Listing {
    /// As it was named, for messages.
    place: String,
    root: PathBuf,
    /// The root as an absolute path, for addresses.
    absolute: PathBuf,
    is_file: bool,
    matcher: Option<GlobMatcher>,
    endings: Endings,
    split_above: u64,
}

impl FileSource {
    /// A folder or a file that is there.
    pub(super) fn open(root: &Path, settings: &SourceSettings) -> Result<Self, Error> {
        Self::new(shown(root), root, None, settings)
    }

    /// The files below a pattern's folder that match it.
    pub(super) fn matching(whole: &Path, pattern: &Pattern, settings: &SourceSettings) -> Result<Self, Error> {
        let matcher = pattern.matcher().map_err(|reason| refused(&shown(whole), &reason))?;
        Self::new(shown(whole), &pattern.root, Some(matcher), settings)
    }

    fn new(place: String, root: &Path, matcher: Option<GlobMatcher>, settings: &SourceSettings) -> Result<Self, Error> {
        let facts = std::fs::metadata(root).and_then(|metadata| Ok((metadata.is_file(), root.canonicalize()?)));
        let (is_file, absolute) = facts.map_err(|error| match matcher {
            Some(_) => refused(&place, &format!("{}: {}", shown(root), plain(&error))),
            None => refused(&place, &plain(&error)),
        })?;
        if is_file && matcher.is_some() {
            return Err(refused(&place, &format!("{} is not a folder", shown(root))));
        }
        if is_file && root.file_name().and_then(|name| name.to_str()).is_none() {
            return Err(refused(&place, "its name is not UTF-8"));
        }
        let listing = Listing {
            place,
            root: root.to_owned(),
            absolute,
            is_file,
            matcher,
            endings: settings.extra_endings.clone(),
            split_above: settings.split_above_bytes,
        };
        Ok(Self { listing, whole: Arc::new(AtomicBool::new(true)) })
    }
}

#[async_trait]
impl Source for FileSource {
    /// In ascending order of their ids; at most one folder of each level is in memory.
    fn offers(&self) -> BoxStream<'_, Result<Offer, Error>> {
        let (sender, receiver) = mpsc::channel(OFFERED_AHEAD);
        self.whole.store(true, Ordering::SeqCst);
        let (listing, whole) = (self.listing.clone(), self.whole.clone());
        let walk = tokio::task::spawn_blocking(move || listing.walk(&sender, &whole));
        stream::unfold((receiver, Some(walk)), |(mut receiver, walk)| async move {
            if let Some(offer) = receiver.recv().await {
                return Some((offer, (receiver, walk)));
            }
            // A walk that broke off must not look like the end of the folder.
            match walk?.await {
                Ok(()) => None,
                Err(_) => Some((Err(Error::Pipeline("listing")), (receiver, None))),
            }
        })
        .boxed()
    }

    async fn read(&self, item: &SourceItem, max_bytes: u64) -> Result<SourceContent, String> {
        let path = match &item.locator {
            Locator::File(path) => path,
            Locator::Part(part) if item.bytes <= max_bytes => {
                let part = part.clone();
                let title = Some(part.title.to_string());
                let bytes =
                    tokio::task::spawn_blocking(move || part.read()).await.map_err(|error| format!("cannot be read: {error}"))??;
                return Ok(SourceContent { bytes, title, ..SourceContent::default() });
            }
            Locator::Part(_) => return Err(too_large(item.bytes, max_bytes)),
            _ => return Err(not_ours()),
        };
        if item.bytes > max_bytes {
            return Err(too_large(item.bytes, max_bytes));
        }
        let (path, expected) = (path.clone(), usize::try_from(item.bytes).unwrap_or_default());
        // One hop to a blocking thread for the whole file: tokio's own file makes one for each step.
        let work = move || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::with_capacity(expected.min(1 << 24));
            std::fs::File::open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let read = tokio::task::spawn_blocking(work).await.map_err(|error| format!("cannot be read: {error}"))?;
        let bytes = read.map_err(|error| format!("cannot be read: {}", plain(&error)))?;
        if bytes.len() as u64 > max_bytes {
            return Err(too_large(bytes.len() as u64, max_bytes));
        }
        Ok(SourceContent { bytes, ..SourceContent::default() })
    }

    fn is_complete(&self) -> bool {
        !self.listing.is_file && self.whole.load(Ordering::SeqCst)
    }
}

type Offers = mpsc::Sender<Result<Offer, Error>>;

impl Listing {
    /// Walks until the end, an error, or until nobody listens.
    fn walk(&self, offers: &Offers, whole: &AtomicBool) {
        let (mut found, mut ignored) = (false, false);
        let entries = WalkDir::new(&self.root).sort_by(|a, b| order(a).cmp(&order(b))).into_iter();
        for entry in entries.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry)) {
            let offer = match entry {
                Ok(entry) if entry.file_type().is_file() => self.offer(&entry),
                Ok(_) => continue,
                Err(error) if error.depth() == 0 => Some(Err(refused(&self.place, &walk_reason(&error)))),
                Err(error) => {
                    whole.store(false, Ordering::SeqCst);
                    let place = shown(error.path().unwrap_or(&self.root));
                    Some(Ok(Offer::Unreadable { place, reason: format!("cannot be opened: {}", walk_reason(&error)) }))
                }
            };
            let Some(offer) = offer else { continue };
            found |= matches!(offer, Ok(Offer::Item(_) | Offer::Unreadable { .. }));
            ignored |= matches!(offer, Ok(Offer::Ignored));
            let is_error = offer.is_err();
            if !self.send(offer, offers, whole) || is_error {
                return;
            }
        }
        if !found {
            let nothing = match &self.matcher {
                Some(_) if !ignored => refused(&self.place, "no file matches the pattern"),
                _ => Error::Empty { place: self.place.clone(), formats: known_endings() },
            };
            if offers.blocking_send(Err(nothing)).is_err() {
                tracing::debug!("nobody waits for the end of a listing");
            }
        }
    }

    /// A large text goes in parts, everything else as it is. `false` when nobody listens.
    fn send(&self, offer: Result<Offer, Error>, offers: &Offers, whole: &AtomicBool) -> bool {
        let send = |offer: Offer| offers.blocking_send(Ok(offer)).is_ok();
        let item = match offer {
            Ok(Offer::Item(item)) => item,
            other => return offers.blocking_send(other).is_ok(),
        };
        let id = item.id.clone();
        let path = match &item.locator {
            Locator::File(path) if self.split_above > 0 && item.bytes > self.split_above => path.clone(),
            _ => PathBuf::new(),
        };
        let kind = Kind::of(&path).filter(|_| parts::is_cut(&path, self.endings.others()));
        let Some(kind) = kind else {
            // A single file is all that this source looks at: what was stored of it in parts must be asked for.
            return send(Offer::Item(item)) && (!self.is_file || send(Offer::Parts { id, count: 0 }));
        };
        let mut count = 0;
        let sent = parts::cut(&path, kind, |part| {
            count += 1;
            let Ok(id) = part_id(&id, count) else { return false };
            let (bytes, version, place) = (part.bytes(), Some(part.version.clone()), format!("{} (part {count})", item.place));
            send(Offer::Item(SourceItem { id, place, bytes, version, locator: Locator::Part(Arc::new(part)), ..item.clone() }))
        });
        match sent {
            Ok(Some(0)) => send(Offer::Item(item)),
            Ok(Some(count)) => send(Offer::Parts { id, count }),
            Ok(None) => false,
            Err(error) => {
                whole.store(false, Ordering::SeqCst);
                send(Offer::Unreadable { place: item.place, reason: format!("cannot be read: {}", plain(&error)) })
            }
        }
    }

    /// What a file is to the pipeline; `None` where the pattern does not mean it.
    fn offer(&self, entry: &DirEntry) -> Option<Result<Offer, Error>> {
        let path = entry.path();
        let below = if self.is_file { Path::new(entry.file_name()) } else { path.strip_prefix(&self.root).unwrap_or(path) };
        if self.matcher.as_ref().is_some_and(|matcher| !matcher.is_match(below)) {
            return None;
        }
        if !self.endings.reads(path) {
            return Some(Ok(Offer::Ignored));
        }
        let unreadable = |reason: &str| Some(Ok(Offer::Unreadable { place: shown(path), reason: reason.to_owned() }));
        let parts: Vec<String> = below.iter().map(name_of).collect();
        let Ok(id) = DocumentId::new(parts.join("/")) else { return unreadable("has a name that is too long") };
        let absolute = if self.is_file { self.absolute.clone() } else { self.absolute.join(below) };
        Some(Ok(Offer::Item(SourceItem {
            name: parts.last().cloned().unwrap_or_default(),
            place: shown(path),
            url: format!("file://{}", url_of(&absolute)),
            bytes: entry.metadata().map_or(0, |metadata| metadata.len()),
            version: None,
            locator: Locator::File(path.to_owned()),
            id,
        })))
    }
}

/// A name as part of an id. Bytes that are not UTF-8 and control characters become `%` and two hexadecimal digits; a `%` that could be mistaken for one of them becomes `%25`,
/// so two names never become one id.
fn name_of(name: &OsStr) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        let valid = chunk.valid();
        for (at, c) in valid.char_indices() {
            match c {
                '%' if is_escape(&valid.as_bytes()[at + 1..]) => text.push_str("%25"),
                c if c.is_control() => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_escape(&mut text, byte)),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_escape(&mut text, *byte));
    }
    text
}

fn push_escape(text: &mut String, byte: u8) {
    text.push('%');
    text.push_str(&hex::encode_upper([byte]));
}

/// Whether the bytes after a `%` look like what [`name_of`] writes.
fn is_escape(rest: &[u8]) -> bool {
    let byte = rest.get(..2).and_then(|digits| hex::decode(digits).ok());
    byte.is_some_and(|byte| byte.first().is_some_and(|byte| byte.is_ascii_control() || !byte.is_ascii() || *byte == b'%'))
}

/// A path as part of a `file://` address.
fn url_of(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for c in url_path(chunk.valid()).chars() {
            match c.is_control() {
                true => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_escape(&mut text, byte)),
                false => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_escape(&mut text, *byte));
    }
    text
}

/// Sorts the entries of a folder as the ids below them sort: a folder's name ends with `/`.
fn order(entry: &DirEntry) -> Vec<u8> {
    let mut key = entry.file_name().as_encoded_bytes().to_vec();
    if entry.file_type().is_dir() {
        key.push(b'/');
    }
    key
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn walk_reason(error: &walkdir::Error) -> String {
    error.io_error().map_or_else(|| error.to_string(), plain)
}

/// A path as part of an address.
pub(crate) fn url_path(path: &str) -> String {
    path.replace('%', "%25").replace(' ', "%20").replace('#', "%23").replace('?', "%3F")
}
