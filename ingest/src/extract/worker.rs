use super::frame::{self, Found, Orders};
use crate::parse::{OUT_OF_MEMORY, parser_for};
use rlimit::Resource;
use std::io::{BufReader, Error, Result, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::Duration;

/// How often a worker looks whether its run is still there.
const ORPHAN_CHECK: Duration = Duration::from_secs(1);

/// Reads files until the run hangs up. Standard input is the socket to it; standard output belongs to whatever the parsers print.
///
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
    while let Some(name) = frame::read(&mut files)? {
        let bytes = frame::read(&mut files)?.ok_or_else(|| Error::other("a name without its file"))?;
        let found = read_file(&String::from_utf8_lossy(&name), &bytes, &orders);
        frame::write(&mut answers, &frame::to_json(&found)?)?;
        answers.flush()?;
    }
    Ok(())
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
    parser.parse(bytes, &orders.limits).map_err(|reason| if reason == OUT_OF_MEMORY { orders.too_large() } else { reason })
}
