//! What a training leaves on the disk, so that it can go on after a kill as if nothing had been.

use super::adapter::{Layout, write_gguf};
use super::optimizer::Optimizer;
use crate::{Checkpoint, Metrics, TrainError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
/// Epochs whose adapters are kept.
pub(super) const KEPT: usize = 3;
/// The head of the state file is a few kilobytes.
const LONGEST_HEAD: u64 = 16 << 20;

/// An epoch's end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Epoch {
    step: u64,
    epoch: u32,
    metrics: Metrics,
}

/// What is known beside the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    version: u32,
    /// Of everything that decides the result; see [`super::fingerprint`].
    pub(super) fingerprint: String,
    pub(super) step: u64,
    pub(super) trained_tokens: u64,
    /// Measured last.
    pub(super) metrics: Metrics,
    parameters: usize,
    epochs: Vec<Epoch>,
}

/// The folder of one training.
pub(super) struct Folder<'a> {
    path: &'a Path,
    pub(super) head: Head,
}

impl<'a> Folder<'a> {
    /// Opens a folder, and reads the state that it holds. A state of another training is an error.
    pub(super) fn open(path: &'a Path, fingerprint: String, first_values: Vec<f32>) -> Result<(Self, Optimizer), TrainError> {
        std::fs::create_dir_all(path).map_err(|error| TrainError::file(path, error))?;
        let file = path.join("state.bin");
        let parameters = first_values.len();
        match File::open(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let metrics = Metrics::default();
                let head = Head { version: VERSION, fingerprint, step: 0, trained_tokens: 0, metrics, parameters, epochs: Vec::new() };
                Ok((Self { path, head }, Optimizer::new(first_values)))
            }
            Err(error) => Err(TrainError::file(&file, error)),
            Ok(opened) => {
                let (head, optimizer) = read(BufReader::new(opened)).map_err(|reason| TrainError::State { path: file.clone(), reason })?;
                if head.fingerprint != fingerprint || optimizer.values.len() != parameters {
                    let reason = "it belongs to other files, other hyperparameters or another base model".to_owned();
                    return Err(TrainError::State { path: file, reason });
                }
                Ok((Self { path, head }, optimizer))
            }
        }
    }

    /// Puts the state on the disk; a kill leaves the old one or the new one.
    pub(super) fn save(&mut self, optimizer: &Optimizer) -> Result<(), TrainError> {
        self.head.step = optimizer.step;
        let (file, unfinished) = (self.path.join("state.bin"), self.path.join("state.part"));
        let written = write(&unfinished, &self.head, optimizer).and_then(|()| std::fs::rename(&unfinished, &file));
        written.and_then(|()| File::open(self.path)?.sync_all()).map_err(|error| TrainError::file(&file, error))
    }

    /// Keeps the adapter of an epoch's end, and drops the oldest where there are more than [`KEPT`].
    pub(super) fn save_epoch(&mut self, epoch: u32, optimizer: &Optimizer, layout: &Layout) -> Result<Checkpoint, TrainError> {
        let adapter = self.adapter_of(optimizer.step);
        if let Some(folder) = adapter.parent() {
            std::fs::create_dir_all(folder).map_err(|error| TrainError::file(folder, error))?;
        }
        write_gguf(&adapter, layout, &optimizer.values)?;
        self.head.epochs.push(Epoch { step: optimizer.step, epoch, metrics: self.head.metrics });
        let over = self.head.epochs.len().saturating_sub(KEPT);
        let dropped: Vec<Epoch> = self.head.epochs.drain(..over).collect();
        self.save(optimizer)?;
        for epoch in dropped {
            let file = self.adapter_of(epoch.step);
            let folder = file.parent().unwrap_or(&file);
            std::fs::remove_dir_all(folder).map_err(|error| TrainError::file(folder, error))?;
        }
        Ok(Checkpoint { step: optimizer.step, epoch: Some(epoch), adapter, metrics: self.head.metrics })
    }

    /// A checkpoint in the middle of an epoch.
    pub(super) fn save_between(&mut self, optimizer: &Optimizer, layout: &Layout) -> Result<Checkpoint, TrainError> {
        let adapter = self.path.join("between.gguf");
        write_gguf(&adapter, layout, &optimizer.values)?;
        self.save(optimizer)?;
        Ok(Checkpoint { step: optimizer.step, epoch: None, adapter, metrics: self.head.metrics })
    }

    /// The finished adapter.
    pub(super) fn finish(&self, optimizer: &Optimizer, layout: &Layout) -> Result<PathBuf, TrainError> {
        let adapter = self.path.join("adapter.gguf");
        write_gguf(&adapter, layout, &optimizer.values)?;
        Ok(adapter)
    }

    /// The kept epochs' ends, oldest first.
    pub(super) fn checkpoints(&self) -> Vec<Checkpoint> {
        let checkpoint =
            |end: &Epoch| Checkpoint { step: end.step, epoch: Some(end.epoch), adapter: self.adapter_of(end.step), metrics: end.metrics };
        self.head.epochs.iter().map(checkpoint).collect()
    }

    fn adapter_of(&self, step: u64) -> PathBuf {
        self.path.join("checkpoints").join(format!("step-{step}")).join("adapter.gguf")
    }
}

fn write(path: &Path, head: &Head, optimizer: &Optimizer) -> std::io::Result<()> {
    let head = serde_json::to_vec(head)?;
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(head.len() as u64).to_le_bytes())?;
    file.write_all(&head)?;
    for value in [&optimizer.values, &optimizer.first_moments, &optimizer.second_moments].into_iter().flatten() {
        file.write_all(&value.to_le_bytes())?;
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

fn read(mut file: impl Read) -> Result<(Head, Optimizer), String> {
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|error| error.to_string())?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEAD {
        return Err("its head is too long".to_owned());
    }
    let mut head = Vec::new();
    file.by_ref().take(length).read_to_end(&mut head).map_err(|error| error.to_string())?;
    let head: Head = serde_json::from_slice(&head).map_err(|error| error.to_string())?;
    if head.version != VERSION {
        return Err(format!("its version is {}, not {VERSION}", head.version));
    }
    let mut numbers = || {
        let mut bytes = Vec::new();
        let wanted = head.parameters as u64 * 4;
        file.by_ref().take(wanted).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 != wanted {
            return Err("it ends too early".to_owned());
        }
        Ok(bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
    };
    let (values, first_moments, second_moments) = (numbers()?, numbers()?, numbers()?);
    let optimizer = Optimizer { values, first_moments, second_moments, step: head.step };
    Ok((head, optimizer))
}
