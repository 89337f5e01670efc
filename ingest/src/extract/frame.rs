//! What goes over the socket between a run and its worker: a length of four bytes, then so many bytes.
//!
//! First the orders, once; then for each file its name and its bytes, answered by what was found.

use crate::parse::{Limits, Parsed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind, Read, Result, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Largest frame. JSON may need six bytes for one of text; documents are smaller than that by far.
const FRAME_BYTES: u32 = 1 << 30;

/// The first frame that a worker gets.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) memory_bytes: u64,
    pub(super) limits: Limits,
}

impl Orders {
    pub(super) fn too_large(&self) -> String {
        format!("needs more than {} MB to extract", self.memory_bytes >> 20)
    }
}

/// What came of one file.
pub(super) type Found = std::result::Result<Parsed, String>;

/// What a worker says of one file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) found: Found,
    /// Where the parser panicked (`calamine-0.36.0/src/xls.rs:1021`). The worker then ends: what it has in memory is not to be trusted with the next file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) panicked: Option<String>,
}

fn length(bytes: &[u8]) -> Result<u32> {
    u32::try_from(bytes.len()).ok().filter(|length| *length <= FRAME_BYTES).ok_or_else(|| Error::other("the frame is too long"))
}

/// The worker's side: `None` when the other side has hung up between two frames.
pub(super) fn read(from: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_le_bytes(length);
    if length > FRAME_BYTES {
        return Err(Error::other("the frame is too long"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// The worker's side.
pub(super) fn write(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    to.write_all(&length(bytes)?.to_le_bytes())?;
    to.write_all(bytes)
}

/// The run's side.
pub(super) async fn send(to: &mut UnixStream, bytes: &[u8]) -> Result<()> {
    to.write_all(&length(bytes)?.to_le_bytes()).await?;
    to.write_all(bytes).await
}

/// The run's side. A worker that was taken over by its file cannot make the run allocate more than it sends.
pub(super) async fn receive(from: &mut UnixStream) -> Result<Vec<u8>> {
    let length = from.read_u32_le().await?;
    if length > FRAME_BYTES {
        return Err(Error::other("the frame is too long"));
    }
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if bytes.len() < length as usize { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(bytes)?)
}
