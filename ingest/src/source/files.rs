use super::{Offer, Source, SourceContent, SourceItem};
use crate::Error;
use crate::parse::{known_endings, parser_for};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use groundtone_types::DocumentId;
use ignore::WalkBuilder;
use std::path::{Path, PathBuf};

/// A folder (hidden files left out, symbolic links not followed), or a single file.
pub struct FileSource {
    root: PathBuf,
    is_file: bool,
}

impl FileSource {
    /// A path that is not there is an error.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(root).map_err(|error| Error::Source { path: root.to_owned(), reason: plain(&error) })?;
        Ok(Self { root: root.to_owned(), is_file: metadata.is_file() })
    }

    fn list(&self) -> Vec<Result<Offer, Error>> {
        if self.is_file {
            let name = self.root.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            return vec![Ok(offer(&self.root, name))];
        }
        let mut offers = Vec::new();
        for entry in
            WalkBuilder::new(&self.root).standard_filters(false).hidden(true).follow_links(false).sort_by_file_path(Path::cmp).build()
        {
            match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                    let below = entry.path().strip_prefix(&self.root).unwrap_or(entry.path());
                    let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
                    offers.push(Ok(match parts {
                        Some(parts) => offer(entry.path(), &parts.join("/")),
                        None => Offer::Unreadable {
                            place: entry.path().display().to_string(),
                            reason: "has a name that is not UTF-8".to_owned(),
                        },
                    }));
                }
                Ok(_) => {}
                Err(error) => {
                    offers.push(Ok(Offer::Unreadable { place: self.root.display().to_string(), reason: error.to_string() }));
                }
            }
        }
        if offers.iter().all(|offer| matches!(offer, Ok(Offer::Ignored))) {
            offers.push(Err(Error::Empty { path: self.root.clone(), formats: known_endings() }));
        }
        offers
    }
}

fn offer(path: &Path, id: &str) -> Offer {
    if parser_for(path).is_none() {
        return Offer::Ignored;
    }
    let place = path.display().to_string();
    match DocumentId::new(id) {
        Ok(id) => Offer::Item(SourceItem {
            name: id.as_str().rsplit('/').next().unwrap_or_default().to_owned(),
            id,
            place,
            url: String::new(),
            bytes: path.metadata().map_or(0, |metadata| metadata.len()),
            version: None,
        }),
        Err(error) => Offer::Unreadable { place, reason: format!("has an unusable name: {error}") },
    }
}

#[async_trait]
impl Source for FileSource {
    fn offers(&self) -> BoxStream<'_, Result<Offer, Error>> {
        stream::iter(self.list()).boxed()
    }

    async fn read(&self, item: &SourceItem, max_bytes: u64) -> Result<SourceContent, String> {
        let path = PathBuf::from(&item.place);
        if item.bytes > max_bytes {
            return Err(format!("has {} bytes; at most {max_bytes} are read (`ingest.max_file_bytes`)", item.bytes));
        }
        let work = move || std::fs::read(path).map_err(|error| format!("cannot be read: {}", plain(&error)));
        let bytes = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())??;
        Ok(SourceContent { bytes, ..SourceContent::default() })
    }

    fn is_complete(&self) -> bool {
        !self.is_file
    }
}

/// `No such file or directory` without the number that follows it.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
