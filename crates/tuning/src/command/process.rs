//! The program as a process group: started without our environment, heard line by line, ended with everything that it started.

use super::{CommandSettings, ended};
use crate::TrainError;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Names the process while it runs, for the next start after a crash.
const RUNNING: &str = "process.json";
/// Longest line; the rest of a longer one is a line of its own.
const LINE_BYTES: u64 = 64 << 10;
/// Lines that are read ahead. A program that says more waits.
const AHEAD: usize = 64;
/// What is kept of the end of standard error.
const TAIL_BYTES: usize = 4 << 10;
/// How often the commands are looked at while nothing is said.
const TICK: Duration = Duration::from_millis(50);
/// How long is waited for what a process has still to say after its end, and for one that was killed to be gone.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What was heard.
pub(super) enum Heard {
    /// A line, without its end.
    Line(Vec<u8>),
    /// Nothing for a moment.
    Nothing,
    /// It has ended, and has nothing more to say.
    End(ExitStatus),
}

/// A running program. Dropping it ends it.
pub(super) struct Process {
    child: Child,
    lines: Receiver<Vec<u8>>,
    said: Arc<AtomicU64>,
    tail: Arc<Mutex<Vec<u8>>>,
    /// When it ended, with what.
    ended: Option<(ExitStatus, Instant)>,
    /// It and what it started were killed.
    gone: bool,
    note: std::path::PathBuf,
}

/// A process that is known by its number and by the moment it began, because numbers are used again.
#[derive(Debug, Serialize, Deserialize)]
struct Running {
    group: u32,
    began: String,
}

/// When a process began, in the system's own count, if it runs.
fn began(process: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? != "Z").then(|| fields.get(19).map(|field| (*field).to_owned()))?
}

/// Sends a signal to a process group. The shell knows how, and nothing else here does without `unsafe`.
fn signal(group: u32, name: &str) {
    let sent = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" -- \"-$2\" 2>/dev/null", "sh", name, &group.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if let Err(error) = sent {
        tracing::error!(%error, group, "a training program cannot be told to end");
    }
}

/// Ends what a process of ours that was killed has left running in this folder.
pub(super) fn end_leftover(folder: &Path) {
    let note = folder.join(RUNNING);
    let Ok(bytes) = std::fs::read(&note) else { return };
    if let Ok(running) = serde_json::from_slice::<Running>(&bytes)
        && began(running.group).is_some_and(|began| began == running.began)
    {
        tracing::warn!(group = running.group, "ending a training program that the last process left running");
        signal(running.group, "KILL");
        let asked = Instant::now();
        while began(running.group).is_some_and(|began| began == running.began) && asked.elapsed() < LAST_WORDS {
            std::thread::sleep(TICK);
        }
    }
    if let Err(error) = std::fs::remove_file(&note) {
        tracing::debug!(%error, "the note of a process could not be removed");
    }
}

impl Process {
    pub(super) fn start(settings: &CommandSettings, request: &Path, folder: &Path) -> Result<Self, TrainError> {
        let mut command = Command::new(&settings.program);
        command
            .args(&settings.arguments)
            .arg(request)
            .env_clear()
            .envs(settings.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(|error| ended(format!("cannot be started: {error}")))?;
        let (sender, lines) = sync_channel(AHEAD);
        let (said, tail) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let streams = child.stdout.take().zip(child.stderr.take());
        let mut process =
            Self { child, lines, said: said.clone(), tail: tail.clone(), ended: None, gone: false, note: folder.join(RUNNING) };
        let Some((stdout, stderr)) = streams else { return Err(ended("has no output")) };
        let counted = said.clone();
        std::thread::spawn(move || read_lines(stdout, &sender, &counted));
        std::thread::spawn(move || keep_tail(stderr, &tail, &said));
        if let Some(began) = began(process.group()) {
            let running = Running { group: process.group(), began };
            let bytes = serde_json::to_vec(&running).map_err(|error| TrainError::Compute(error.to_string()))?;
            if let Err(error) = std::fs::write(&process.note, bytes) {
                process.kill();
                return Err(TrainError::file(&process.note, error));
            }
        }
        Ok(process)
    }

    fn group(&self) -> u32 {
        self.child.id()
    }

    /// Bytes that it has said so far.
    pub(super) fn said_bytes(&self) -> u64 {
        self.said.load(Ordering::Relaxed)
    }

    /// The next line, if it comes within a moment.
    pub(super) fn hear(&mut self) -> Result<Heard, TrainError> {
        let silence = match self.lines.recv_timeout(TICK) {
            Ok(line) => return Ok(Heard::Line(line)),
            Err(silence) => silence,
        };
        if self.ended.is_none() {
            let status = self.child.try_wait().map_err(|error| ended(format!("cannot be waited for: {error}")))?;
            self.ended = status.map(|status| (status, Instant::now()));
        }
        match (self.ended, silence) {
            (Some((status, _)), RecvTimeoutError::Disconnected) => Ok(Heard::End(status)),
            // Something that it started still holds its output.
            (Some((status, at)), _) if at.elapsed() > LAST_WORDS => Ok(Heard::End(status)),
            (None, RecvTimeoutError::Disconnected) => {
                std::thread::sleep(TICK);
                Ok(Heard::Nothing)
            }
            _ => Ok(Heard::Nothing),
        }
    }

    /// Tells it to end, and kills what has not ended after a while.
    pub(super) fn stop_gently(&mut self, grace: Duration) {
        signal(self.group(), "TERM");
        let asked = Instant::now();
        while asked.elapsed() < grace && matches!(self.child.try_wait(), Ok(None)) {
            // What it says in the meantime is not needed, but it must be able to say it.
            while self.lines.try_recv().is_ok() {}
            std::thread::sleep(TICK);
        }
        self.kill();
    }

    /// Kills it and everything that it started.
    pub(super) fn kill(&mut self) {
        if self.gone {
            return;
        }
        self.gone = true;
        signal(self.group(), "KILL");
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "a training program cannot be waited for");
        }
    }

    /// Ends whatever is left of it, and gives the end of what it said on standard error.
    pub(super) fn finish(mut self) -> String {
        self.kill();
        if let Err(error) = std::fs::remove_file(&self.note) {
            tracing::debug!(%error, "the note of a process could not be removed");
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_lines(stdout: impl Read, lines: &SyncSender<Vec<u8>>, said: &AtomicU64) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                said.fetch_add(read as u64, Ordering::Relaxed);
            }
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if lines.send(line).is_err() {
            return;
        }
    }
}

fn keep_tail(mut stderr: impl Read, tail: &Mutex<Vec<u8>>, said: &AtomicU64) {
    let mut buffer = [0; 4 << 10];
    while let Ok(read @ 1..) = stderr.read(&mut buffer) {
        said.fetch_add(read as u64, Ordering::Relaxed);
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&buffer[..read]);
        let over = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..over);
    }
}
