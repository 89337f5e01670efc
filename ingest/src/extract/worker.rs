use super::CRASHED;
use super::frame::{self, Answer, Found, Orders};
use crate::parse::{OUT_OF_MEMORY, parser_for};
use rlimit::Resource;
use std::io::{BufReader, Error, Result, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a worker looks whether its run is still there.
const ORPHAN_CHECK: Duration = Duration::from_secs(1);

/// Reads files until the run hangs up. Standard input is the socket to it; standard output belongs to whatever the parsers print.
///
/// A parser that panics costs its file a reason; the worker ends after that answer, for what it has in memory is not to be trusted.
/// The worker gives itself the memory limit that its first frame names, before it sees any file. It reads no settings.
pub fn run_worker() -> Result<()> {
    end_with_parent();
    let mut answers = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut files = BufReader::new(answers.try_clone()?);
    let Some(orders) = frame::read(&mut files)? else { return Ok(()) };
    let orders: Orders = frame::from_json(&orders)?;
    let (_, most) = Resource::AS.get()?;
    let limit = orders.memory_bytes.min(most);
    Resource::AS.set(limit, limit)?;
    let place = note_panics();
    while let Some(name) = frame::read(&mut files)? {
        let bytes = frame::read(&mut files)?.ok_or_else(|| Error::other("a name without its file"))?;
        let work = || read_file(&String::from_utf8_lossy(&name), &bytes, &orders);
        let answer = match panic::catch_unwind(AssertUnwindSafe(work)) {
            Ok(found) => Answer { found, panicked: None },
            Err(_) => {
                let (place, message) = place.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
                // A vector that would need more than there is.
                let reason = if message.contains("capacity overflow") { orders.too_large() } else { CRASHED.to_owned() };
                Answer { found: Err(reason), panicked: Some(place) }
            }
        };
        frame::write(&mut answers, &frame::to_json(&answer)?)?;
        answers.flush()?;
        if answer.panicked.is_some() {
            break;
        }
    }
    Ok(())
}

/// Where the last panic was, and what it said. Nothing is printed: the answer says it.
type LastPanic = Arc<Mutex<Option<(String, String)>>>;

fn note_panics() -> LastPanic {
    let last = LastPanic::default();
    let noted = last.clone();
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(|at| format!("{}:{}", crate_path(at.file()), at.line())).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or_default().to_owned();
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some((place, message));
    }));
    last
}

/// `calamine-0.36.0/src/xls.rs` of a path in a registry: the rest only says on which machine it was compiled.
fn crate_path(file: &str) -> String {
    let parts: Vec<&str> = file.split('/').collect();
    let from = parts.iter().rposition(|part| *part == "src").map_or(0, |at| at.saturating_sub(1));
    parts[from..].join("/")
}

/// A worker whose run was killed in the middle of a file would read on for nobody.
fn end_with_parent() {
    let parent = parent_id();
    std::thread::spawn(move || {
        while parent_id() == parent {
            std::thread::sleep(ORPHAN_CHECK);
        }
        std::process::exit(1);
    });
}

fn read_file(name: &str, bytes: &[u8], orders: &Orders) -> Found {
    let parser = parser_for(Path::new(name)).ok_or_else(|| "has an ending that is not read".to_owned())?;
    parser.parse(bytes, None, &orders.limits).map_err(|reason| if reason == OUT_OF_MEMORY { orders.too_large() } else { reason })
}
