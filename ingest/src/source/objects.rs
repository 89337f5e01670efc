//! Buckets of an S3-compatible store.

use super::{Endings, Locator, Offer, Source, SourceContent, SourceItem, SourceSettings, not_ours, refused, too_large};
use crate::Error;
use crate::parse::known_endings;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use groundtone_types::DocumentId;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Attribute, BackoffConfig, ClientOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use secrecy::ExposeSecret;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// A busy store is asked again for so long.
const RETRY: Duration = Duration::from_secs(60);
/// What stores say where nobody told them the type.
const NO_TYPE: &[&str] = &["application/octet-stream", "binary/octet-stream"];

/// The objects below a prefix, or the one object that it names. Keys with a part that begins with a dot are left out, as hidden files are.
pub(super) struct ObjectSource {
    store: AmazonS3,
    bucket: String,
    prefix: Path,
    endings: Endings,
    /// The prefix turned out to be one object.
    is_object: AtomicBool,
}

impl ObjectSource {
    /// `location` is `bucket/prefix`.
    pub(super) fn open(location: &str, settings: &SourceSettings) -> Result<Self, Error> {
        let place = format!("s3://{location}");
        let (bucket, prefix) = location.split_once('/').unwrap_or((location, ""));
        if bucket.is_empty() {
            return Err(refused(&place, "it names no bucket; write s3://bucket/prefix"));
        }
        let prefix = Path::parse(prefix).map_err(|error| refused(&place, &error.to_string()))?;
        let store = store(bucket, settings).map_err(|error| refused(&place, &reason(&error)))?;
        Ok(Self { store, bucket: bucket.to_owned(), prefix, endings: settings.extra_endings.clone(), is_object: AtomicBool::new(false) })
    }

    fn place(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// `None` for what is hidden, and for the empty objects that stand for folders.
    fn offer(&self, object: ObjectMeta) -> Option<Offer> {
        let key = object.location.as_ref();
        let below = match key.strip_prefix(self.prefix.as_ref()).unwrap_or(key).trim_start_matches('/') {
            "" if self.is_object.load(Ordering::SeqCst) => object.location.filename().unwrap_or_default(),
            below => below,
        };
        if below.is_empty() || below.split('/').any(|part| part.starts_with('.')) {
            return None;
        }
        if !self.endings.reads(std::path::Path::new(below)) {
            return Some(Offer::Ignored);
        }
        let place = self.place(key);
        let Ok(id) = DocumentId::new(below) else {
            let place = place.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
            return Some(Offer::Unreadable { place, reason: "has a name that is too long or holds control characters".to_owned() });
        };
        Some(Offer::Item(SourceItem {
            id,
            name: object.location.filename().unwrap_or(below).to_owned(),
            url: place.clone(),
            place,
            bytes: object.size,
            version: object.e_tag.clone().map(|tag| format!("etag {tag}")),
            locator: Locator::Object(object.location),
        }))
    }

    fn unlisted(&self, error: &object_store::Error) -> Error {
        Error::Unavailable { place: self.place(self.prefix.as_ref()), reason: reason(error) }
    }

    /// The object that has the prefix itself for its key, where there is nothing below the prefix.
    async fn single(&self) -> Result<ObjectMeta, Error> {
        let nothing = || Error::Empty { place: self.place(self.prefix.as_ref()), formats: known_endings() };
        if self.is_object.load(Ordering::SeqCst)
            || self.prefix.filename().is_none_or(|name| !self.endings.reads(std::path::Path::new(name)))
        {
            return Err(nothing());
        }
        match self.store.head(&self.prefix).await {
            Ok(object) => {
                self.is_object.store(true, Ordering::SeqCst);
                Ok(object)
            }
            Err(object_store::Error::NotFound { .. }) => Err(nothing()),
            Err(error) => Err(self.unlisted(&error)),
        }
    }

    async fn body(&self, result: GetResult, max_bytes: u64) -> Result<Vec<u8>, String> {
        let (size, mut stream) = (result.meta.size, result.into_stream());
        if size > max_bytes {
            return Err(too_large(size, max_bytes));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| format!("cannot be read: {}", reason(&error)))?);
            if bytes.len() as u64 > max_bytes {
                return Err(too_large(bytes.len() as u64, max_bytes));
            }
        }
        Ok(bytes)
    }
}

fn store(bucket: &str, settings: &SourceSettings) -> object_store::Result<AmazonS3> {
    groundtone_provider::install_tls();
    let options = ClientOptions::new().with_timeout(TIMEOUT).with_connect_timeout(CONNECT).with_allow_http(settings.s3_allow_http);
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: 10, retry_timeout: RETRY };
    let mut builder =
        AmazonS3Builder::new().with_bucket_name(bucket).with_region(&settings.s3_region).with_client_options(options).with_retry(retry);
    if !settings.s3_endpoint.is_empty() {
        builder = builder.with_endpoint(settings.s3_endpoint.trim_end_matches('/'));
    }
    builder = match (&settings.s3_access_key, &settings.s3_secret_key) {
        (Some(access), Some(secret)) => builder.with_access_key_id(access.expose_secret()).with_secret_access_key(secret.expose_secret()),
        _ => builder.with_skip_signature(true),
    };
    builder.build()
}

#[async_trait]
impl Source for ObjectSource {
    /// In the order of the keys, a page of the store's listing at a time.
    fn offers(&self) -> BoxStream<'_, Result<Offer, Error>> {
        self.is_object.store(false, Ordering::SeqCst);
        let listing = self.store.list(Some(&self.prefix)).fuse();
        stream::unfold(Some((listing, false)), move |state| async move {
            let (mut listing, mut found) = state?;
            loop {
                let object = match listing.next().await {
                    None if found => return None,
                    None => self.single().await,
                    Some(object) => object.map_err(|error| self.unlisted(&error)),
                };
                match object.map(|object| self.offer(object)) {
                    Err(error) => return Some((Err(error), None)),
                    Ok(None) => {}
                    Ok(Some(offer)) => {
                        found |= !matches!(offer, Offer::Ignored) || self.is_object.load(Ordering::SeqCst);
                        return Some((Ok(offer), Some((listing, found))));
                    }
                }
            }
        })
        .boxed()
    }

    async fn read(&self, item: &SourceItem, max_bytes: u64) -> Result<SourceContent, String> {
        let Locator::Object(path) = &item.locator else { return Err(not_ours()) };
        let result = self.store.get(path).await.map_err(|error| format!("cannot be read: {}", reason(&error)))?;
        let stated = result.attributes.get(&Attribute::ContentType).map(|value| value.to_lowercase());
        let media_type = stated.and_then(|value| value.split(';').next().map(|essence| essence.trim().to_owned()));
        let bytes = self.body(result, max_bytes).await?;
        Ok(SourceContent { bytes, media_type: media_type.filter(|name| !NO_TYPE.contains(&name.as_str())), ..SourceContent::default() })
    }

    fn is_complete(&self) -> bool {
        !self.is_object.load(Ordering::SeqCst)
    }
}

/// What went wrong, without the address (the caller names it) and without the library's retry diary.
fn reason(error: &object_store::Error) -> String {
    match error {
        object_store::Error::NotFound { .. } => "it is not there".to_owned(),
        object_store::Error::PermissionDenied { .. } => {
            "the store does not allow it; check `sources.s3_access_key_env` and its rights".to_owned()
        }
        object_store::Error::Unauthenticated { .. } => "the store does not accept the key in `sources.s3_access_key_env`".to_owned(),
        other => {
            let mut cause: &dyn std::error::Error = other;
            while let Some(next) = cause.source() {
                cause = next;
            }
            cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
        }
    }
}
