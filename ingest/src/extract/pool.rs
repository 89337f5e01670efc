//! Worker processes, started when they are needed, used for many files, replaced when one of them costs them their life.

use super::frame::{self, Answer, Orders};
use super::{CRASHED, ExtractorSettings, WorkerCommand, too_slow};
use crate::parse::Parsed;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What is kept of a worker's standard error: enough for the line in which Rust says why it aborts.
const LAST_WORDS: usize = 4096;

/// How long a worker that has been given up may take to end, and to say why.
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) struct Pool {
    command: WorkerCommand,
    orders: Orders,
    timeout: Duration,
    /// One permit for each worker that may run.
    permits: Semaphore,
    idle: Mutex<Vec<Worker>>,
}

/// How a worker ended that did not simply answer.
enum Fate {
    Panicked(super::frame::Found, String),
    Died(std::io::Error),
}

struct Worker {
    child: Child,
    socket: UnixStream,
    last_words: JoinHandle<Vec<u8>>,
    /// Whether it has read a file before.
    used: bool,
}

impl Pool {
    pub(super) fn new(command: WorkerCommand, settings: &ExtractorSettings) -> Self {
        Self {
            command,
            orders: Orders { memory_bytes: settings.memory_bytes, limits: settings.limits },
            timeout: settings.timeout,
            permits: Semaphore::new(settings.workers.max(1)),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Dropping the future kills the worker that has the file.
    pub(super) async fn extract(&self, name: &str, bytes: &[u8]) -> Result<Parsed, String> {
        let _permit = self.permits.acquire().await.map_err(|_| "was not extracted: the workers are gone".to_owned())?;
        let mut fresh = false;
        loop {
            let idle = if fresh { None } else { self.idle().pop() };
            let mut worker = match idle {
                Some(worker) => worker,
                None => self.start().await.map_err(|error| format!("was not extracted: no worker could be started: {error}"))?,
            };
            let fate = match tokio::time::timeout(self.timeout, worker.read(name, bytes)).await {
                Err(_) => {
                    worker.stop().await;
                    return Err(too_slow(self.timeout));
                }
                Ok(Ok(Answer { found, panicked: None })) => {
                    worker.used = true;
                    self.idle().push(worker);
                    return found;
                }
                Ok(Ok(Answer { found, panicked: Some(place) })) => Fate::Panicked(found, place),
                Ok(Err(error)) => Fate::Died(error),
            };
            // A worker that has read other files may have failed for what they left behind: a fresh one has the last word.
            let used = worker.used;
            fresh = true;
            let last_words = worker.stop().await;
            let reason = match fate {
                Fate::Panicked(found, place) => {
                    tracing::debug!(place, used, "an extractor panicked");
                    found.err().unwrap_or_else(|| CRASHED.to_owned())
                }
                Fate::Died(error) => {
                    tracing::debug!(%error, used, "an extract worker died");
                    self.reason(&last_words, &error)
                }
            };
            if !used {
                return Err(reason);
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start(&self) -> std::io::Result<Worker> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = Command::new(&self.command.program)
            .args(&self.command.args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = child.stderr.take();
        let last_words = tokio::spawn(async move {
            let mut kept = Vec::new();
            let Some(mut stderr) = stderr else { return kept };
            let mut piece = [0; 1024];
            while let Ok(read @ 1..) = stderr.read(&mut piece).await {
                kept.extend_from_slice(&piece[..read]);
                kept.drain(..kept.len().saturating_sub(LAST_WORDS));
            }
            kept
        });
        let mut worker = Worker { child, socket: UnixStream::from_std(ours)?, last_words, used: false };
        match frame::send(&mut worker.socket, &frame::to_json(&self.orders)?).await {
            // It started and is dead already: the file that is read next says how.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => Ok(worker),
        }
    }

    /// Why a worker died, from the line that Rust writes before it aborts.
    fn reason(&self, last_words: &str, error: &std::io::Error) -> String {
        if last_words.contains("memory allocation of") || last_words.contains("capacity overflow") {
            self.orders.too_large()
        } else if last_words.contains("overflowed its stack") {
            "nests too deeply to extract".to_owned()
        } else if error.kind() == ErrorKind::InvalidData {
            "made its extractor answer nonsense; please report it with the file".to_owned()
        } else {
            CRASHED.to_owned()
        }
    }
}

impl Worker {
    async fn read(&mut self, name: &str, bytes: &[u8]) -> std::io::Result<Answer> {
        frame::send(&mut self.socket, name.as_bytes()).await?;
        frame::send(&mut self.socket, bytes).await?;
        frame::from_json(&frame::receive(&mut self.socket).await?)
    }

    /// Ends it, if it has not ended, and gives what it said last.
    async fn stop(mut self) -> String {
        // It hangs up on a worker that waits, and lets one that is aborting write its last line.
        drop(self.socket);
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err()
            && let Err(error) = self.child.kill().await
        {
            tracing::debug!(%error, "a worker could not be killed");
        }
        let words = tokio::time::timeout(PATIENCE, &mut self.last_words).await;
        self.last_words.abort();
        match words {
            Ok(Ok(words)) => String::from_utf8_lossy(&words).into_owned(),
            // Something else holds its standard error open.
            Ok(Err(_)) | Err(_) => String::new(),
        }
    }
}
