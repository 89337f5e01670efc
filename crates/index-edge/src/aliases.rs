//! Aliases as files: `documents.alias` holds the name of the collection that it stands for, and is replaced by renaming, so a crash leaves the old target or the new one.

use groundtone_index::Error;
use groundtone_types::Collection;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;

const ENDING: &str = "alias";

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::Unavailable { place: path.display().to_string(), reason: error.to_string() }
}

fn names(root: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let entries = fs::read_dir(root).map_err(failed(root))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed(root))).collect()
}

/// Every alias below `root`.
pub(crate) fn read(root: &Path) -> Result<HashMap<Collection, Collection>, Error> {
    let mut found = HashMap::new();
    for path in names(root)?.iter().filter(|path| path.extension().is_some_and(|ending| ending == ENDING)) {
        let broken = |reason: String| Error::Failed { place: path.display().to_string(), reason };
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let alias = Collection::new(stem).map_err(|error| broken(error.to_string()))?;
        let target = fs::read_to_string(path).map_err(failed(path))?;
        found.insert(alias, Collection::new(target.trim()).map_err(|error| broken(error.to_string()))?);
    }
    Ok(found)
}

/// Lets `alias` stand for `target`, durably.
pub(crate) fn write(root: &Path, alias: &Collection, target: &Collection) -> Result<(), Error> {
    let (path, part) = (root.join(format!("{alias}.{ENDING}")), root.join(format!("{alias}.{ENDING}.part")));
    let replace = || -> std::io::Result<()> {
        let mut file = fs::File::create(&part)?;
        file.write_all(target.as_str().as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        fs::File::open(root)?.sync_all()
    };
    replace().map_err(failed(&path))
}

/// The collections that have a folder of their own.
pub(crate) fn collections(root: &Path) -> Result<Vec<Collection>, Error> {
    let folders = names(root)?.into_iter().filter(|path| path.join("edge_config.json").exists());
    let mut found: Vec<Collection> =
        folders.filter_map(|path| path.file_name().and_then(|name| name.to_str()).and_then(|name| Collection::new(name).ok())).collect();
    found.sort();
    Ok(found)
}
