//! Following a folder: something changed, have a look. What changed is found by an ordinary run, so a tick too many costs little and a tick too few is made up for.

use super::{SourceSettings, file_address, glob, plain, refused, shown};
use crate::Error;
use futures::stream::{self, BoxStream, StreamExt};
use notify::event::{EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Ticks without end: each says that something may have changed.
pub type Changes = BoxStream<'static, ()>;

/// How often it is checked whether the folder is still the one that is watched.
const CHECK: Duration = Duration::from_secs(1);
/// Changes that never pause are reported after so many times the debounce interval.
const PATIENCE: u32 = 20;

/// Follows a location. Folders, files and patterns are watched by the operating system; everything else is only looked through at an interval.
/// Begin to follow before the first run, so that no change falls between the two. The folder may disappear and come back.
pub fn watch(location: &str, settings: &SourceSettings) -> Result<Changes, Error> {
    if location == "-" {
        return Err(refused(location, "standard input cannot be followed"));
    }
    let path = match file_address(location) {
        Some(path) => path?,
        None if location.contains("://") || location.starts_with("sitemap:") => return Ok(at_an_interval(settings.watch_rescan)),
        None => PathBuf::from(location),
    };
    Ok(Follower::new(Target::of(&path)?, settings).into_stream())
}

/// What is followed.
#[derive(Debug, Clone)]
struct Target {
    folder: PathBuf,
    /// The one file of the folder that counts. An editor replaces it by another of the same name: only the folder knows.
    file: Option<OsString>,
}

impl Target {
    fn of(path: &Path) -> Result<Self, Error> {
        match (std::fs::metadata(path), glob::split(path)) {
            (Ok(metadata), _) if metadata.is_file() => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Ok(Self { folder: parent.to_owned(), file: path.file_name().map(OsStr::to_owned) })
            }
            (Ok(_), _) => Ok(Self { folder: path.to_owned(), file: None }),
            (Err(_), Some(pattern)) => Ok(Self { folder: pattern.root, file: None }),
            (Err(error), None) => Err(refused(&shown(path), &plain(&error))),
        }
    }

    /// A hidden file does not count, and neither does another file than the one that is followed.
    fn means(&self, path: &Path) -> bool {
        match &self.file {
            Some(name) => path.file_name() == Some(name),
            None => {
                let below = path.strip_prefix(&self.folder).unwrap_or(path);
                !below.iter().any(|part| part != "." && part.as_encoded_bytes().starts_with(b"."))
            }
        }
    }
}

fn at_an_interval(rescan: Duration) -> Changes {
    stream::unfold((), move |()| async move {
        tokio::time::sleep(rescan).await;
        Some(((), ()))
    })
    .boxed()
}

/// Which folder it is, beyond its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    device_and_inode: (u64, u64),
    /// Not every file system knows.
    created: Option<SystemTime>,
}

impl Identity {
    /// `None` where nothing is there.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let device_and_inode = (std::os::unix::fs::MetadataExt::dev(&metadata), std::os::unix::fs::MetadataExt::ino(&metadata));
        #[cfg(not(unix))]
        let device_and_inode = (0, 0);
        Some(Self { device_and_inode, created: metadata.created().ok() })
    }
}

/// What the watcher's own thread tells.
#[derive(Default)]
struct Signal {
    changed: Notify,
    /// The root itself was removed or renamed: the watch is on something else now.
    detached: AtomicBool,
}

/// A watch on a folder, or the lack of one where there is no folder.
#[derive(Default)]
struct Attached {
    identity: Option<Identity>,
    signal: Arc<Signal>,
    /// Dropping it ends the watch. `None` where watching failed: then the rescans remain.
    _watcher: Option<RecommendedWatcher>,
}

impl Attached {
    /// Watches what is there now, all of it: this walks the whole folder.
    fn to(target: &Target) -> Self {
        let Some(identity) = Identity::of(&target.folder) else { return Self::default() };
        let signal = Arc::new(Signal::default());
        let (teller, meant) = (signal.clone(), target.clone());
        let mode = if target.file.is_some() { RecursiveMode::NonRecursive } else { RecursiveMode::Recursive };
        let made =
            notify::recommended_watcher(move |event: notify::Result<Event>| heard(&teller, &meant, event)).and_then(|mut watcher| {
                watcher.watch(&target.folder, mode)?;
                Ok(watcher)
            });
        let place = target.folder.display();
        let failed =
            |error: &notify::Error| tracing::warn!(%place, %error, "the folder cannot be watched; it is looked through at an interval");
        Self { identity: Some(identity), signal, _watcher: made.inspect_err(failed).ok() }
    }
}

struct Follower {
    target: Target,
    debounce: Duration,
    rescan: Duration,
    attached: Attached,
    next_rescan: Instant,
}

impl Follower {
    fn new(target: Target, settings: &SourceSettings) -> Self {
        let (debounce, rescan) = (settings.watch_debounce, settings.watch_rescan);
        Self { attached: Attached::to(&target), target, debounce, rescan, next_rescan: Instant::now() + rescan }
    }

    fn into_stream(self) -> Changes {
        stream::unfold(self, |mut follower| async move {
            follower.wait().await;
            follower.next_rescan = Instant::now() + follower.rescan;
            Some(((), follower))
        })
        .boxed()
    }

    /// Returns when it is time to have a look.
    async fn wait(&mut self) {
        loop {
            let until = self.next_rescan.min(Instant::now() + CHECK);
            let heard = tokio::time::timeout_at(until, self.attached.signal.changed.notified()).await.is_ok();
            let detached =
                self.attached.signal.detached.load(Ordering::SeqCst) || Identity::of(&self.target.folder) != self.attached.identity;
            if detached {
                self.attach_again().await;
            }
            if detached && self.attached.identity.is_some() {
                return;
            }
            if heard && !detached {
                return self.settle().await;
            }
            if Instant::now() >= self.next_rescan {
                return;
            }
        }
    }

    async fn attach_again(&mut self) {
        let target = self.target.clone();
        let attached = tokio::task::spawn_blocking(move || Attached::to(&target)).await;
        self.attached = attached.unwrap_or_else(|error| {
            tracing::error!(%error, "watching a folder");
            Attached::default()
        });
    }

    /// Waits until nothing has changed for a while.
    async fn settle(&self) {
        let patience = Instant::now() + self.debounce * PATIENCE;
        while Instant::now() < patience {
            let quiet = patience.min(Instant::now() + self.debounce);
            if tokio::time::timeout_at(quiet, self.attached.signal.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

/// Reading a file is no change: the run itself reads.
fn heard(signal: &Signal, target: &Target, event: notify::Result<Event>) {
    match event {
        Ok(event) => {
            let left = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
            if left && event.paths.contains(&target.folder) {
                signal.detached.store(true, Ordering::SeqCst);
            }
            let meant = event.paths.is_empty() || event.paths.iter().any(|path| *path == target.folder || target.means(path));
            if event.need_rescan() || (meant && !event.kind.is_access()) {
                signal.changed.notify_one();
            }
        }
        Err(error) => {
            tracing::warn!(place = %target.folder.display(), %error, "watching a folder");
            signal.changed.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
