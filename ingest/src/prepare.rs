//! Offers to documents ready for the embedder: read, decoded, parsed, cut. Each within its limits, several at once, in the order of the offers.

use crate::chunk::{Cut, Origin, chunk_document};
use crate::extract::Extractor;
use crate::flags::{self, Flag};
use crate::parse::Shape;
use crate::plan::{Decision, Known, decide};
use crate::report::Rejection;
use crate::run::IngestSettings;
use crate::source::{Offer, Source, SourceContent, SourceItem, url_path};
use groundtone_catalog::{Catalog, DocumentRecord};
use groundtone_prompt::CountTokens;
use groundtone_types::{ContentHash, DocumentId, Metadata};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use uuid::Uuid;

/// A document on its way to the store.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) id: DocumentId,
    pub(crate) place: String,
    pub(crate) hash: ContentHash,
    pub(crate) version: Option<String>,
    pub(crate) title: String,
    pub(crate) url: String,
    pub(crate) bytes: u64,
    pub(crate) decision: Decision,
    /// Until they become points; empty afterwards.
    pub(crate) cuts: Vec<Cut>,
    /// Id and tokens of each chunk, once they are points.
    pub(crate) stored: Vec<(Uuid, usize)>,
    pub(crate) metadata: Metadata,
    pub(crate) flags: Vec<Flag>,
}

impl Prepared {
    /// Tokens of each chunk.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = usize> {
        self.cuts.iter().map(|cut| cut.tokens).chain(self.stored.iter().map(|(_, tokens)| *tokens))
    }
}

/// What cutting gives.
struct Pieces {
    title: String,
    cuts: Vec<Cut>,
    flags: Vec<Flag>,
}

/// What became of an offer.
#[derive(Debug)]
pub(crate) enum Step {
    Ready(Box<Prepared>),
    /// Nothing to do; the new version name, where only that changed.
    Unchanged {
        id: DocumentId,
        bytes: u64,
        version: Option<String>,
    },
    Rejected {
        rejection: Rejection,
        bytes: u64,
    },
    /// A file was offered to its end, in so many parts; 0 for one that was offered whole.
    Parts {
        id: DocumentId,
        count: u32,
    },
    Ignored,
}

/// Seconds of one offer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) read: Duration,
    pub(crate) parse: Duration,
}

/// What every offer is prepared with.
pub(crate) struct Preparer {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) extractor: Arc<Extractor>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) settings: IngestSettings,
    pub(crate) tokens: Arc<dyn CountTokens>,
    pub(crate) fingerprint: String,
    /// Nothing was published before this run, so there is nothing to look up.
    pub(crate) first: bool,
}

impl Preparer {
    /// One offer to its end, on a task of its own: while the later stages hold the pipeline up, what has begun goes on, and neither a connection of the ledger nor a download is kept waiting.
    pub(crate) async fn on_a_task(self: Arc<Self>, offer: Offer) -> Result<(Step, Spent), crate::Error> {
        let work = async move { self.prepare(offer).await }.in_current_span();
        AbortOnDropHandle::new(tokio::spawn(work)).await.map_err(|_| crate::Error::Pipeline("preparing"))?.map_err(Into::into)
    }

    /// Only the ledger can fail; everything else costs this document only.
    async fn prepare(&self, offer: Offer) -> Result<(Step, Spent), groundtone_catalog::Error> {
        let item = match offer {
            Offer::Item(item) => item,
            Offer::Ignored => return Ok((Step::Ignored, Spent::default())),
            Offer::Parts { id, count } => return Ok((Step::Parts { id, count }, Spent::default())),
            Offer::Unreadable { place, reason } => {
                let rejection = Rejection { path: place, reason, document: None };
                return Ok((Step::Rejected { rejection, bytes: 0 }, Spent::default()));
            }
        };
        let stored = match self.first {
            true => None,
            false => self.catalog.document(&self.settings.tenant, &self.settings.collection, &item.id).await?,
        };
        let mut spent = Spent::default();
        let step = match self.take(&item, stored.as_ref(), &mut spent).await {
            Ok(step) => step,
            Err(reason) => {
                let rejection = Rejection { path: item.place.clone(), reason, document: Some(item.id.clone()) };
                Step::Rejected { rejection, bytes: item.bytes }
            }
        };
        Ok((step, spent))
    }

    async fn take(&self, item: &SourceItem, stored: Option<&DocumentRecord>, spent: &mut Spent) -> Result<Step, String> {
        if let Some(record) = stored.filter(|record| record.source != self.settings.source) {
            return Err(format!(
                "has the id of a document that came from {}; name that source with --source to replace it, or another collection with --collection",
                record.source
            ));
        }
        let known = stored.map(|record| Known::new(record, &self.fingerprint));
        let url = self.address(item);
        if known.as_ref().is_some_and(|known| known.has_version(item.version.as_deref(), &url)) {
            return Ok(Step::Unchanged { id: item.id.clone(), bytes: item.bytes, version: None });
        }
        let began = Instant::now();
        let content = self.source.read(item, self.settings.max_file_bytes).await?;
        spent.read = began.elapsed();
        let began = Instant::now();
        let hash = content.hash();
        let bytes = content.bytes.len() as u64;
        let decision = decide(known.as_ref(), &hash, &url);
        if decision == Decision::Unchanged {
            return Ok(Step::Unchanged { id: item.id.clone(), bytes, version: item.version.clone() });
        }
        let metadata = content.metadata.clone();
        let Pieces { title, cuts, flags } = self.cut(item, content, url.clone()).await?;
        spent.parse = began.elapsed();
        let prepared = Prepared {
            id: item.id.clone(),
            place: item.place.clone(),
            hash,
            version: item.version.clone(),
            title,
            url,
            bytes,
            decision,
            stored: Vec::with_capacity(cuts.len()),
            cuts,
            metadata,
            flags,
        };
        Ok(Step::Ready(Box::new(prepared)))
    }

    /// Text out of the bytes, and chunks out of the text. Whatever happens in there costs this document only.
    async fn cut(&self, item: &SourceItem, content: SourceContent, url: String) -> Result<Pieces, String> {
        // What the source says it is counts for more than its name.
        let name = content.media_type.as_deref().and_then(name_of_media_type).unwrap_or(&item.name);
        let mut flags = flags::of_source(name, &content.bytes);
        let parsed = self.extractor.extract_as(name, content.charset.as_deref(), content.bytes).await?;
        if parsed.text.trim().is_empty() {
            return Err("holds no text".to_owned());
        }
        let title = content.title.or_else(|| parsed.title.clone()).unwrap_or_else(|| title_from_name(&item.name, parsed.shape));
        let (id, metadata, settings, tokens) = (item.id.clone(), content.metadata, self.settings.chunks, self.tokens.clone());
        let work = move || {
            flags::add_of_text(&mut flags, &parsed);
            let cuts = chunk_document(Origin { document: &id, title: &title, url: &url, metadata: &metadata }, &parsed, settings, &*tokens);
            Pieces { title, cuts, flags }
        };
        let limit = self.settings.parse_timeout;
        match tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await {
            Err(_) => Err(format!("was not cut into chunks within {} s", limit.as_secs())),
            Ok(Err(_)) => Err("could not be cut into chunks; please report it with the file".to_owned()),
            Ok(Ok(pieces)) if pieces.cuts.is_empty() => Err("holds headings but no text".to_owned()),
            Ok(Ok(pieces)) => Ok(pieces),
        }
    }

    /// The source's own address. A file's own tells only this machine where it is, so the prefix and the id go before it; what has neither is cited by its id.
    fn address(&self, item: &SourceItem) -> String {
        let prefix = self.settings.url_prefix.trim_end_matches('/');
        let own = &item.url;
        match (own.is_empty(), own.starts_with("file://"), prefix.is_empty()) {
            (true, _, true) => item.id.to_string(),
            (true, _, false) | (_, true, false) => format!("{prefix}/{}", url_path(item.id.as_str())),
            _ => own.clone(),
        }
    }
}

/// A name with the ending of a media type that is read.
fn name_of_media_type(media_type: &str) -> Option<&'static str> {
    match media_type {
        "text/html" | "application/xhtml+xml" => Some("page.html"),
        "text/markdown" => Some("page.md"),
        "text/csv" => Some("page.csv"),
        "application/pdf" => Some("page.pdf"),
        _ => None,
    }
}

/// `price-list.csv` -> `Price list`; a source file keeps its name.
pub(crate) fn title_from_name(name: &str, shape: Shape) -> String {
    if matches!(shape, Shape::Code(_)) {
        return name.to_owned();
    }
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem).replace(['-', '_'], " ");
    let mut chars = stem.chars();
    chars.next().map_or_else(|| name.to_owned(), |first| first.to_uppercase().chain(chars).collect())
}
