//! Files from the Hugging Face hub: asked for by HEAD first, resumed where they stopped, checked while they are written.

use crate::http::{client_builder, describe};
use futures::StreamExt;
use reqwest::{Client, Response, StatusCode, header};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence.
const IDLE: Duration = Duration::from_secs(30);
/// A connection that breaks is taken up again so often, each time from where it broke.
const ATTEMPTS: usize = 4;

/// A file of a repository on the hub.
#[derive(Debug, Clone, Copy)]
pub struct HubFile<'a> {
    /// `https://huggingface.co`, or a mirror.
    pub hub: &'a str,
    /// `owner/name`.
    pub repository: &'a str,
    /// A branch or a commit.
    pub revision: &'a str,
    /// Path in the repository.
    pub path: &'a str,
    /// Size in bytes that it must have.
    pub bytes: u64,
    /// SHA-256 that it must have, in hexadecimal.
    pub sha256: &'a str,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress {
    /// Bytes on disk.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Downloads into `part`, going on from what is there. On success `part` holds exactly the pinned bytes; the error says why not, to follow "the hub".
pub async fn download_from_hub(file: HubFile<'_>, part: &Path, progress: &(dyn Fn(DownloadProgress) + Send + Sync)) -> Result<(), String> {
    let client = client_builder().connect_timeout(CONNECT).read_timeout(IDLE).build().map_err(|error| describe(&error))?;
    let url = format!("{}/{}/resolve/{}/{}", file.hub.trim_end_matches('/'), file.repository, file.revision, file.path);
    check_head(&client, &url, file).await?;
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(250 << attempt)).await;
        }
        match fetch_rest(&client, &url, file, part, progress).await {
            Ok(()) => return verify(file, part).await,
            Err(Stop::Final(reason)) => return Err(reason),
            Err(Stop::Broken(reason)) => last = reason,
        }
    }
    Err(format!("broke off {ATTEMPTS} times: {last}"))
}

enum Stop {
    Final(String),
    Broken(String),
}

/// The hub says the SHA-256 of large files (`x-linked-etag`) and their size before it sends them: other bytes are not even fetched.
async fn check_head(client: &Client, url: &str, file: HubFile<'_>) -> Result<(), String> {
    let response = client.head(url).send().await.map_err(|error| format!("did not answer: {}", describe(&error)))?;
    if !response.status().is_success() {
        return Err(format!("answered {} for {}", response.status(), file.path));
    }
    let text = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(|value| value.trim_matches(['"', 'W', '/']).to_owned())
    };
    if text("x-linked-etag").is_some_and(|etag| etag.len() == 64 && etag != file.sha256)
        || text("x-linked-size").is_some_and(|size| size != file.bytes.to_string())
    {
        return Err(format!("has other bytes under {}", file.path));
    }
    Ok(())
}

async fn fetch_rest(
    client: &Client,
    url: &str,
    file: HubFile<'_>,
    part: &Path,
    progress: &(dyn Fn(DownloadProgress) + Send + Sync),
) -> Result<(), Stop> {
    let disk = |error: std::io::Error| Stop::Final(format!("could not be written to {}: {error}", part.display()));
    let have = tokio::fs::metadata(part).await.map_or(0, |metadata| metadata.len());
    if have == file.bytes {
        return Ok(());
    }
    let have = if have > file.bytes { 0 } else { have };
    let request = if have > 0 { client.get(url).header(header::RANGE, format!("bytes={have}-")) } else { client.get(url) };
    let response = request.send().await.map_err(|error| Stop::Broken(describe(&error)))?;
    let mut done = match response.status() {
        StatusCode::PARTIAL_CONTENT if starts_at(&response, have) => have,
        StatusCode::OK => 0,
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            return Err(Stop::Broken(format!("answered {status}")));
        }
        status => return Err(Stop::Final(format!("answered {status}"))),
    };
    let mut out =
        if done > 0 { OpenOptions::new().append(true).open(part).await.map_err(disk)? } else { File::create(part).await.map_err(disk)? };
    let mut stream = response.bytes_stream();
    let mut broken = None;
    while let Some(chunk) = stream.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                broken = Some(describe(&error));
                break;
            }
        };
        done += chunk.len() as u64;
        if done > file.bytes {
            return Err(Stop::Final(format!("sent more than the {} bytes of {}", file.bytes, file.path)));
        }
        out.write_all(&chunk).await.map_err(disk)?;
        progress(DownloadProgress { done, total: file.bytes });
    }
    out.sync_all().await.map_err(disk)?;
    match broken {
        Some(reason) => Err(Stop::Broken(reason)),
        None if done < file.bytes => Err(Stop::Broken(format!("ended after {done} of {} bytes", file.bytes))),
        None => Ok(()),
    }
}

fn starts_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    range.starts_with(&format!("bytes {offset}-"))
}

/// Wrong bytes are removed, so that the next try starts from nothing.
async fn verify(file: HubFile<'_>, part: &Path) -> Result<(), String> {
    let read = async {
        let mut source = File::open(part).await?;
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
        loop {
            match source.read(&mut buffer).await? {
                0 => return Ok::<String, std::io::Error>(hex::encode(digest.finalize())),
                count => digest.update(&buffer[..count]),
            }
        }
    };
    let found = read.await.map_err(|error| format!("could not be read back from {}: {error}", part.display()))?;
    if found == file.sha256 {
        return Ok(());
    }
    tokio::fs::remove_file(part).await.map_err(|error| format!("sent wrong bytes, and {} cannot be removed: {error}", part.display()))?;
    Err(format!("sent wrong bytes for {}: SHA-256 {found}", file.path))
}
