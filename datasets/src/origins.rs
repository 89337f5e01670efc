//! Which documents stand in a dataset's rows: what a model that is trained on them goes back to.

use crate::Error;
use crate::manifest::{DatasetPaths, Entry, Manifest, read_entries};
use groundtone_catalog::{DatasetDocument, DatasetSnippet};
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;

/// A snippet by its place and its text.
type Key = (u32, Uuid, String);

/// The documents of a dataset, in the order of their ids; `None` where the rows have no manifest beside them.
///
/// # Errors
/// A manifest that is not that of these rows, or files that cannot be read.
pub fn origins(data: &Path) -> Result<Option<(Manifest, Vec<DatasetDocument>)>, Error> {
    let Some(manifest) = Manifest::read(data)? else { return Ok(None) };
    manifest.verify(data)?;
    let mut documents: BTreeMap<(String, Option<String>), BTreeMap<Key, u64>> = BTreeMap::new();
    for entry in read_entries(&DatasetPaths::of(data).rows)? {
        let Entry::Row(row) = entry? else { continue };
        for snippet in row.snippets {
            let snippets = documents.entry((snippet.document, snippet.document_sha256)).or_default();
            *snippets.entry((snippet.ordinal, snippet.id, snippet.chunk_sha256)).or_default() += 1;
        }
    }
    let snippet = |((ordinal, id, sha256), rows): (Key, u64)| DatasetSnippet { id, ordinal, sha256, rows };
    let document = |((document, sha256), snippets): ((String, Option<String>), BTreeMap<Key, u64>)| DatasetDocument {
        document,
        sha256,
        snippets: snippets.into_iter().map(snippet).collect(),
    };
    Ok(Some((manifest, documents.into_iter().map(document).collect())))
}
