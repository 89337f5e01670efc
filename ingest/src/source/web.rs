//! Pages: one of them, or those that a site's sitemap names.

use super::sitemap::{self, Entry, SITEMAP_BYTES, Sitemap};
use super::{Locator, Offer, Source, SourceContent, SourceItem, SourceSettings, not_ours, refused, too_large};
use crate::Error;
use crate::parse::parser_for;
use async_trait::async_trait;
use chrono::{DateTime, Days, NaiveDate, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use groundtone_provider::{WebClient, WebError, WebPage, WebRequest, WebSettings, same_site};
use groundtone_types::{DocumentId, ErrorKind};
use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use url::Url;

/// Longest silence of a site.
const IDLE: Duration = Duration::from_secs(10);
/// An index of sitemaps may name indexes, and those sitemaps.
const INDEX_DEPTH: usize = 2;
/// Sitemaps that are fetched for one source.
const MOST_SITEMAPS: usize = 1_000;

/// One page.
pub(super) struct PageSource {
    client: WebClient,
    url: Url,
}

/// The pages of a sitemap, as far as they are on its own site.
pub(super) struct SitemapSource {
    client: WebClient,
    url: Url,
    most_pages: usize,
    /// False once a sitemap could not be read or a limit was met: what it names has not left.
    whole: AtomicBool,
}

fn client(url: &Url, settings: &SourceSettings) -> Result<WebClient, Error> {
    let web = WebSettings {
        user_agent: settings.web_user_agent.clone(),
        allow_private_hosts: settings.allow_private_hosts.clone(),
        timeout: settings.web_timeout,
        idle: IDLE.min(settings.web_timeout),
    };
    WebClient::new(&web).map_err(|error| listing_error(url, &error))
}

fn listing_error(url: &Url, error: &WebError) -> Error {
    match error.kind() {
        ErrorKind::Timeout | ErrorKind::Unavailable => Error::Unavailable { place: url.to_string(), reason: error.to_string() },
        _ => refused(url.as_str(), &format!("it {error}")),
    }
}

impl PageSource {
    pub(super) fn new(url: &Url, settings: &SourceSettings) -> Result<Self, Error> {
        Ok(Self { client: client(url, settings)?, url: without_fragment(url) })
    }
}

#[async_trait]
impl Source for PageSource {
    fn offers(&self) -> BoxStream<'_, Result<Offer, Error>> {
        stream::iter([Ok(offer(&self.url, None))]).boxed()
    }

    async fn read(&self, item: &SourceItem, max_bytes: u64) -> Result<SourceContent, String> {
        read(&self.client, item, max_bytes, false).await
    }

    fn is_complete(&self) -> bool {
        false
    }
}

impl SitemapSource {
    pub(super) fn new(url: &Url, settings: &SourceSettings) -> Result<Self, Error> {
        let (client, url) = (client(url, settings)?, without_fragment(url));
        Ok(Self { client, url, most_pages: settings.web_max_pages, whole: AtomicBool::new(true) })
    }

    /// Fetches and reads one sitemap; parsing is too much work for a thread that serves others.
    async fn load(&self, url: &Url) -> Result<Sitemap, WebError> {
        let page = self.client.get(WebRequest { url, max_bytes: SITEMAP_BYTES, stay_on_site: true }).await?;
        let parsed = tokio::task::spawn_blocking(move || sitemap::parse(&sitemap::unpack(page.bytes, SITEMAP_BYTES)?)).await;
        parsed.unwrap_or_else(|_| Err("makes its parser fail".to_owned())).map_err(WebError::Content)
    }

    async fn next(&self, walk: &mut Walk) -> Option<Result<Offer, Error>> {
        loop {
            if let Some((place, reason)) = walk.refused.pop_front() {
                return Some(Ok(self.broken(&place, reason)));
            }
            if let Some(entry) = walk.pages.pop_front() {
                match self.page(&entry, walk) {
                    Some(offer) => return Some(Ok(offer)),
                    None => continue,
                }
            }
            let (url, depth) = walk.sitemaps.pop_front()?;
            match self.load(&url).await {
                Ok(Sitemap::Pages(pages)) => walk.pages = pages.into(),
                Ok(Sitemap::Index(entries)) if depth < INDEX_DEPTH => {
                    entries.into_iter().for_each(|entry| self.queue(entry, depth + 1, walk));
                }
                Ok(Sitemap::Index(_)) => {
                    return Some(Ok(self.broken(url.as_str(), "is an index of sitemaps too many levels down".to_owned())));
                }
                Err(error) if depth == 0 => return Some(Err(listing_error(&url, &error))),
                Err(error) => return Some(Ok(self.broken(url.as_str(), error.to_string()))),
            }
        }
    }

    /// Part of the listing is missing.
    fn broken(&self, place: &str, reason: String) -> Offer {
        self.whole.store(false, Ordering::SeqCst);
        Offer::Unreadable { place: printable(place), reason }
    }

    /// Puts a sitemap of an index in the queue, once.
    fn queue(&self, entry: Entry, depth: usize, walk: &mut Walk) {
        match self.own_address(&entry.address) {
            Err(reason) => walk.refused.push_back((entry.address, reason)),
            Ok(_) if walk.known_sitemaps.len() >= MOST_SITEMAPS => {
                walk.refused.push_back((entry.address, format!("is left out: at most {MOST_SITEMAPS} sitemaps are read")));
            }
            Ok(url) if walk.known_sitemaps.insert(url.to_string()) => walk.sitemaps.push_back((url, depth)),
            Ok(_) => {}
        }
    }

    /// A page of a sitemap; `None` for one that was offered already.
    fn page(&self, entry: &Entry, walk: &mut Walk) -> Option<Offer> {
        let url = match self.own_address(&entry.address) {
            Ok(url) => url,
            Err(reason) => return Some(Offer::Unreadable { place: printable(&entry.address), reason }),
        };
        let offer = offer(&url, entry.modified.as_deref().and_then(|modified| version(modified, walk.today)));
        let Offer::Item(item) = &offer else { return Some(offer) };
        if walk.offered.contains(&item.id) {
            return None;
        }
        if walk.offered.len() == self.most_pages {
            walk.stop();
            let reason = format!("names more than {} pages; the rest is left out (`sources.web_max_pages`)", self.most_pages);
            return Some(self.broken(self.url.as_str(), reason));
        }
        walk.offered.insert(item.id.clone());
        Some(offer)
    }

    /// An address in a sitemap counts only on the sitemap's own site.
    fn own_address(&self, address: &str) -> Result<Url, String> {
        match Url::parse(address) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => Err("is not a web address".to_owned()),
            Ok(url) if same_site(&self.url, &url) => Ok(without_fragment(&url)),
            Ok(_) => Err("is on another site".to_owned()),
            Err(error) => Err(format!("is not an address: {error}")),
        }
    }
}

/// Where the walk through the sitemaps is.
struct Walk {
    today: NaiveDate,
    sitemaps: VecDeque<(Url, usize)>,
    known_sitemaps: HashSet<String>,
    refused: VecDeque<(String, String)>,
    pages: VecDeque<Entry>,
    offered: HashSet<DocumentId>,
}

impl Walk {
    /// Forgets what is left to look at.
    fn stop(&mut self) {
        self.sitemaps.clear();
        self.refused.clear();
        self.pages.clear();
    }
}

#[async_trait]
impl Source for SitemapSource {
    fn offers(&self) -> BoxStream<'_, Result<Offer, Error>> {
        self.whole.store(true, Ordering::SeqCst);
        let walk = Walk {
            today: DateTime::<Utc>::from(std::time::SystemTime::now()).date_naive(),
            sitemaps: VecDeque::from([(self.url.clone(), 0)]),
            known_sitemaps: HashSet::from([self.url.to_string()]),
            refused: VecDeque::new(),
            pages: VecDeque::new(),
            offered: HashSet::new(),
        };
        stream::unfold(Some(walk), move |walk| async move {
            let mut walk = walk?;
            match self.next(&mut walk).await {
                None if walk.offered.is_empty() => Some((Err(refused(self.url.as_str(), "the sitemap names no page of its site")), None)),
                None => None,
                Some(Err(error)) => Some((Err(error), None)),
                Some(Ok(offer)) => Some((Ok(offer), Some(walk))),
            }
        })
        .boxed()
    }

    async fn read(&self, item: &SourceItem, max_bytes: u64) -> Result<SourceContent, String> {
        read(&self.client, item, max_bytes, true).await
    }

    fn is_complete(&self) -> bool {
        self.whole.load(Ordering::SeqCst)
    }
}

async fn read(client: &WebClient, item: &SourceItem, max_bytes: u64, stay_on_site: bool) -> Result<SourceContent, String> {
    let Locator::Page(url) = &item.locator else { return Err(not_ours()) };
    let page = client.get(WebRequest { url, max_bytes, stay_on_site }).await.map_err(|error| match error {
        WebError::TooLarge { bytes: Some(bytes), .. } => too_large(bytes, max_bytes),
        WebError::TooLarge { .. } => format!("{error} (`ingest.max_file_bytes`)"),
        other => other.to_string(),
    })?;
    content(page, max_bytes).await
}

async fn content(page: WebPage, max_bytes: u64) -> Result<SourceContent, String> {
    let WebPage { media_type, charset, encoding, bytes, .. } = page;
    let bytes = match encoding.as_deref() {
        None => bytes,
        Some("gzip" | "x-gzip") => {
            tokio::task::spawn_blocking(move || sitemap::unpack(bytes, max_bytes)).await.map_err(|_| "cannot be unpacked".to_owned())??
        }
        Some(other) => return Err(format!("is sent as `{}`, which was not asked for", printable(other))),
    };
    Ok(SourceContent { bytes, media_type, charset, ..SourceContent::default() })
}

/// A page as a document. Its id is the address without scheme and fragment.
fn offer(url: &Url, version: Option<String>) -> Offer {
    let place = url.to_string();
    let id = url.as_str().split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    match DocumentId::new(id) {
        Ok(id) => Offer::Item(SourceItem {
            id,
            name: name(url),
            url: place.clone(),
            place,
            bytes: 0,
            version,
            locator: Locator::Page(url.clone()),
        }),
        Err(_) => Offer::Unreadable { place, reason: "has an address of more than 1024 characters".to_owned() },
    }
}

/// The last part of the path. Where its ending says no format that is read, the page is most likely HTML.
fn name(url: &Url) -> String {
    match url.path_segments().and_then(|mut parts| parts.next_back()).filter(|last| !last.is_empty()) {
        None => "index.html".to_owned(),
        Some(last) if parser_for(Path::new(last)).is_some() => last.to_owned(),
        Some(last) => format!("{last}.html"),
    }
}

/// A sitemap's date as a version. A day is no version until it is over everywhere: the page may change again before midnight.
fn version(modified: &str, today: NaiveDate) -> Option<String> {
    let is_settled = if modified.contains('T') {
        DateTime::parse_from_rfc3339(modified).is_ok()
    } else {
        let day = NaiveDate::parse_from_str(modified, "%Y-%m-%d");
        day.is_ok_and(|day| today.checked_sub_days(Days::new(2)).is_some_and(|settled| day <= settled))
    };
    is_settled.then(|| format!("lastmod {modified}"))
}

fn without_fragment(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_fragment(None);
    url
}

fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_named_after_its_address() {
        let cases = [
            ("https://e.test/", "e.test/", "index.html"),
            ("https://e.test/docs/Install", "e.test/docs/Install", "Install.html"),
            ("https://e.test/guide.md?x=1", "e.test/guide.md?x=1", "guide.md"),
            ("http://e.test:81/v/1.2", "e.test:81/v/1.2", "1.2.html"),
            ("https://e.test/a.php", "e.test/a.php", "a.php.html"),
        ];
        for (address, id, name) in cases {
            let Offer::Item(item) = offer(&Url::parse(address).unwrap(), None) else { panic!("{address}") };
            assert_eq!((item.id.as_str(), item.name.as_str(), item.url.as_str()), (id, name, address));
        }
        let long = Url::parse(&format!("https://e.test/{}", "a".repeat(1100))).unwrap();
        assert!(matches!(offer(&long, None), Offer::Unreadable { .. }));
    }

    #[test]
    fn a_date_is_a_version_when_its_day_is_over() {
        let today = NaiveDate::from_ymd_opt(2026, 11, 25).unwrap();
        assert_eq!(version("2026-11-25", today), None);
        assert_eq!(version("2026-11-24", today), None);
        assert_eq!(version("2026-11-23", today), Some("lastmod 2026-11-23".to_owned()));
        assert_eq!(version("2026-11-25T08:00:00+01:00", today), Some("lastmod 2026-11-25T08:00:00+01:00".to_owned()));
        for odd in ["yesterday", "2026", "2026-11", "2026-13-99", "T", ""] {
            assert_eq!(version(odd, today), None, "{odd}");
        }
    }
}
