//! Files to text, each within its limits: in this process, in a worker process, or on an extractor's server.
//!
//! Formats whose parsers are linear and cannot crash run here. The others run in worker processes of our own binary: a parser that hangs,
//! crashes or eats memory costs its file and its worker, never the run. An extractor's server is asked only for the endings that the configuration names.
//! `Err` is a reason that follows the file's path in a sentence.

mod frame;
mod pool;
mod worker;

pub use worker::run_worker;

use crate::parse::{Limits, PARSERS, Parsed, Parser, ending_of, parse_html, parse_markdown, parse_text, parser_for};
use groundtone_provider::{DocumentExtractor, Media};
use pool::Pool;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a worker process is started; it must call [`run_worker`].
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// A server that extracts text, and what it is asked for.
#[derive(Debug, Clone)]
pub struct RemoteExtractor {
    /// Its client.
    pub client: DocumentExtractor,
    /// File endings in lower case, without the dot. They go to the server even where a parser of ours reads them.
    pub endings: Vec<String>,
}

/// What an extractor is told.
#[derive(Debug, Clone)]
pub struct ExtractorSettings {
    /// How workers are started; `None` runs every parser in this process, which only tests do.
    pub worker: Option<WorkerCommand>,
    /// Workers at the same time, at least one.
    pub workers: usize,
    /// A file that takes longer is rejected.
    pub timeout: Duration,
    /// Memory that a worker may address.
    pub memory_bytes: u64,
    /// How much a document may unfold to.
    pub limits: Limits,
    /// A server for some endings.
    pub remote: Option<RemoteExtractor>,
}

/// Files in, text out.
pub struct Extractor {
    settings: ExtractorSettings,
    pool: Option<Pool>,
}

impl Extractor {
    /// No worker is started before the first file that needs one.
    pub fn new(settings: ExtractorSettings) -> Self {
        let pool = settings.worker.clone().map(|command| Pool::new(command, &settings));
        Self { settings, pool }
    }

    /// Whether a file's ending is one that is read.
    pub fn reads(&self, path: &Path) -> bool {
        parser_for(path).is_some() || self.remote_for(path).is_some()
    }

    /// All endings that are read, for messages: `.md, .txt`.
    pub fn known_endings(&self) -> String {
        let ours = PARSERS.iter().flat_map(|parser| parser.endings).copied();
        let theirs = self.settings.remote.iter().flat_map(|remote| &remote.endings).map(String::as_str);
        let mut endings: Vec<String> = Vec::new();
        for ending in ours.chain(theirs).map(|ending| format!(".{ending}")) {
            if !endings.contains(&ending) {
                endings.push(ending);
            }
        }
        endings.join(", ")
    }

    /// Reads one file. Its name's ending says the format, its bytes have the last word.
    pub async fn extract(&self, name: &str, bytes: Vec<u8>) -> Result<Parsed, String> {
        self.extract_as(name, None, bytes).await
    }

    /// [`Self::extract`] of a file whose source says a character set. A byte order mark counts for more; a name that nobody knows is ignored.
    pub async fn extract_as(&self, name: &str, charset: Option<&str>, bytes: Vec<u8>) -> Result<Parsed, String> {
        if let Some(client) = self.remote_for(Path::new(name)) {
            return ask(client, name, bytes).await;
        }
        let parser = parser_for(Path::new(name)).ok_or_else(|| "has an ending that is not read".to_owned())?;
        match &self.pool {
            Some(pool) if parser.isolated => pool.extract(name, &bytes).await,
            _ => self.extract_here(parser, charset, bytes).await,
        }
    }

    async fn extract_here(&self, parser: &'static Parser, charset: Option<&str>, bytes: Vec<u8>) -> Result<Parsed, String> {
        let (limits, charset) = (self.settings.limits, charset.map(str::to_owned));
        let work = tokio::task::spawn_blocking(move || parser.parse(&bytes, charset.as_deref(), &limits));
        match tokio::time::timeout(self.settings.timeout, work).await {
            Err(_) => Err(too_slow(self.settings.timeout)),
            Ok(Err(_)) => Err("made its parser fail; please report it with the file".to_owned()),
            Ok(Ok(result)) => result,
        }
    }

    fn remote_for(&self, path: &Path) -> Option<&DocumentExtractor> {
        let remote = self.settings.remote.as_ref()?;
        let ending = ending_of(path)?;
        remote.endings.contains(&ending).then_some(&remote.client)
    }
}

/// Of a file whose parser panicked or died.
const CRASHED: &str = "made its extractor crash; please report it with the file";

fn too_slow(limit: Duration) -> String {
    format!("took longer than {} s to parse", limit.as_secs_f64())
}

/// What the server made of a file, read as the kind of text that it says it is.
async fn ask(client: &DocumentExtractor, name: &str, bytes: Vec<u8>) -> Result<Parsed, String> {
    let found = client.extract(name, bytes).await.map_err(|error| format!("was not extracted: {error}"))?;
    let read = move || match found.media {
        Media::Markdown => parse_markdown(&found.text),
        Media::Html => parse_html(&found.text),
        Media::Text => parse_text(&found.text),
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| "made the parser of its server's answer fail; please report it".to_owned())?
}
