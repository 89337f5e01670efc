use crate::Error;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The layout that this version writes.
const LAYOUT: u32 = 1;

/// Who has a data directory open.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its subcommand: `groundtone serve`.
    pub command: String,
    /// Where it listens: `http://127.0.0.1:8080`.
    #[serde(default)]
    pub address: Option<String>,
    /// What a command shows to the server there to prove that it can read this directory: 122 random bits, new with each process.
    #[serde(default)]
    pub owner_key: Option<String>,
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, command, address, owner_key: _ } = self;
        f.debug_struct("Holder").field("pid", pid).field("command", command).field("address", address).finish_non_exhaustive()
    }
}

/// Everything an installation keeps, opened by one process at a time. The lock belongs to the process: `kill -9` releases it.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    holder: Holder,
    _lock: File,
}

fn file_error(path: &Path, error: &std::io::Error) -> Error {
    Error::File { path: path.to_owned(), reason: error.to_string() }
}

impl DataDirectory {
    /// Opens `path`, making it if it is not there, readable by its owner only. [`Error::Held`] names the process that has it open.
    pub fn open(path: &Path, command: &str) -> Result<Self, Error> {
        create_private(path)?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(|error| file_error(&lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let unknown = Holder { pid: 0, command: "an unknown command".to_owned(), address: None, owner_key: None };
                let holder = read_holder(path)?.unwrap_or(unknown);
                return Err(Error::Held { directory: path.to_owned(), pid: holder.pid, command: holder.command, address: holder.address });
            }
            Err(TryLockError::Error(error)) => return Err(file_error(&lock_path, &error)),
        }
        let directory = Self {
            path: path.to_owned(),
            holder: Holder { pid: std::process::id(), command: command.to_owned(), address: None, owner_key: None },
            _lock: lock,
        };
        directory.check_layout()?;
        directory.write_holder()?;
        Ok(directory)
    }

    /// Who has `path` open now; `None` if nobody has. A file that a dead process left behind names nobody.
    pub fn holder(path: &Path) -> Result<Option<Holder>, Error> {
        let lock_path = path.join("lock");
        let lock = match OpenOptions::new().read(true).write(true).open(&lock_path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_error(&lock_path, &error)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => read_holder(path),
            Err(TryLockError::Error(error)) => Err(file_error(&lock_path, &error)),
        }
    }

    /// Tells other processes where this one listens, and with which key commands of the same owner may steer it.
    pub fn set_address(&mut self, address: String, owner_key: String) -> Result<(), Error> {
        self.holder.address = Some(address);
        self.holder.owner_key = Some(owner_key);
        self.write_holder()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the embedded index keeps its collections.
    pub fn vectors(&self) -> PathBuf {
        self.path.join("vectors")
    }

    /// The SQLite database.
    pub fn catalog_file(&self) -> PathBuf {
        self.path.join("catalog.sqlite")
    }

    fn check_layout(&self) -> Result<(), Error> {
        let path = self.path.join("layout");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let found: u32 =
                    text.trim().parse().map_err(|_| Error::File { path: path.clone(), reason: "is not a layout number".to_owned() })?;
                if found > LAYOUT { Err(Error::NewerLayout { directory: self.path.clone(), found, known: LAYOUT }) } else { Ok(()) }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => write_atomically(&path, LAYOUT.to_string().as_bytes()),
            Err(error) => Err(file_error(&path, &error)),
        }
    }

    fn write_holder(&self) -> Result<(), Error> {
        let path = self.path.join("holder.json");
        let json = serde_json::to_vec(&self.holder).map_err(|error| Error::File { path: path.clone(), reason: error.to_string() })?;
        write_atomically(&path, &json)
    }
}

/// The file may be missing or half of another version's: then nothing is known of the holder.
fn read_holder(directory: &Path) -> Result<Option<Holder>, Error> {
    let path = directory.join("holder.json");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::File { path, reason: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(&path, &error)),
    }
}

fn create_private(path: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| file_error(path, &error))
}

fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| file_error(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_and_says_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        assert_eq!(DataDirectory::holder(&path).unwrap(), None);
        let mut first = DataDirectory::open(&path, "groundtone serve").unwrap();
        first.set_address("http://127.0.0.1:8080".into(), "key".into()).unwrap();
        let refused = DataDirectory::open(&path, "groundtone ingest").unwrap_err();
        let expect = format!(
            "the data directory {} is in use by process {} (groundtone serve) at http://127.0.0.1:8080",
            path.display(),
            std::process::id()
        );
        assert_eq!(refused.to_string(), expect);
        let holder = DataDirectory::holder(&path).unwrap().unwrap();
        assert_eq!((holder.command.as_str(), holder.owner_key.as_deref()), ("groundtone serve", Some("key")));
        assert!(!format!("{holder:?}").contains("key\""), "a key is not printed");
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let (folder, file) = (fs::metadata(&path).unwrap(), fs::metadata(path.join("holder.json")).unwrap());
            assert_eq!((folder.mode() & 0o077, file.mode() & 0o077), (0, 0), "nobody else may read the key");
        }
        drop(first);
        assert_eq!(DataDirectory::holder(&path).unwrap(), None, "the file of a process that is gone names nobody");
        DataDirectory::open(&path, "groundtone ingest").unwrap();
    }

    #[test]
    fn a_newer_layout_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("layout"), "99").unwrap();
        let refused = DataDirectory::open(folder.path(), "x").unwrap_err().to_string();
        assert!(refused.contains("has layout 99, but this version knows layouts up to 1"), "{refused}");
    }
}
