use crate::Error;
use crate::parse::{known_endings, parser_for};
use ignore::WalkBuilder;
use std::path::{Path, PathBuf};

/// A file that will be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the folder that was named, with `/`; the document's id.
    pub id: String,
    /// Its size.
    pub bytes: u64,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// Files that are read, in the order of their ids.
    pub files: Vec<SourceFile>,
    /// Entries that could not be looked at, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Files passed over because of their ending.
    pub ignored: usize,
}

/// Lists a folder (below it, hidden files left out, symbolic links not followed) or a single file.
/// A path that is not there, or a folder without a single readable document, is an error.
pub fn list_files(root: &Path) -> Result<Listing, Error> {
    let source_error = |reason: String| Error::Source { path: root.to_owned(), reason };
    let metadata = std::fs::metadata(root).map_err(|error| source_error(plain(&error)))?;
    let mut listing = Listing::default();
    if metadata.is_file() {
        let name = root.file_name().and_then(|name| name.to_str()).ok_or_else(|| source_error("its name is not UTF-8".to_owned()))?;
        listing.files.push(SourceFile { path: root.to_owned(), id: name.to_owned(), bytes: metadata.len() });
    } else {
        for entry in WalkBuilder::new(root).standard_filters(false).hidden(true).follow_links(false).build() {
            match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                    listing.take(root, entry.path(), entry.metadata().map_or(0, |m| m.len()));
                }
                Ok(_) => {}
                Err(error) => listing.unreadable.push((root.to_owned(), error.to_string())),
            }
        }
        listing.files.sort_by(|a, b| a.id.cmp(&b.id));
    }
    if listing.files.is_empty() && listing.unreadable.is_empty() {
        return Err(Error::Empty { path: root.to_owned(), formats: known_endings() });
    }
    Ok(listing)
}

impl Listing {
    fn take(&mut self, root: &Path, path: &Path, bytes: u64) {
        if parser_for(path).is_none() {
            self.ignored += 1;
            return;
        }
        let parts: Option<Vec<&str>> =
            path.strip_prefix(root).ok().map(|below| below.iter().map(|part| part.to_str()).collect()).unwrap_or_default();
        match parts {
            Some(parts) => self.files.push(SourceFile { path: path.to_owned(), id: parts.join("/"), bytes }),
            None => self.unreadable.push((path.to_owned(), "has a name that is not UTF-8".to_owned())),
        }
    }
}

/// `No such file or directory` without the number that follows it.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
