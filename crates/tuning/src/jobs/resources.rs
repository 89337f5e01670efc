//! Whether a training fits the machine, before it begins.

use crate::Estimate;
use groundtone_catalog::JobError;
use std::path::Path;

/// Disk space that is left free whatever a job wants.
const DISK_RESERVE: u64 = 256 << 20;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Free bytes of the disk with the data directory; `None` where the system does not say.
    pub disk_bytes: Option<u64>,
    /// Free memory; `None` where the system does not say.
    pub memory_bytes: Option<u64>,
}

impl Resources {
    /// Of this machine, now.
    pub fn of_machine(folder: &Path) -> Self {
        Self { disk_bytes: fs4::available_space(folder).ok(), memory_bytes: available_memory() }
    }

    /// Refuses a training that would not fit.
    pub(crate) fn check(self, estimate: &Estimate) -> Result<(), JobError> {
        let lacking = |code: &str, what: &str, needed: u64, found: u64| JobError {
            code: code.to_owned(),
            message: format!(
                "The training needs about {} MB of {what}, but {} MB are free on this server. Free some, or train fewer or shorter rows.",
                needed.div_ceil(1 << 20),
                found >> 20
            ),
            param: None,
        };
        let needed = estimate.disk_bytes.saturating_add(DISK_RESERVE);
        match (self.disk_bytes, self.memory_bytes) {
            (Some(free), _) if free < needed => Err(lacking("insufficient_disk", "disk space", needed, free)),
            (_, Some(free)) if free < estimate.memory_bytes => Err(lacking("insufficient_memory", "memory", estimate.memory_bytes, free)),
            _ => Ok(()),
        }
    }
}

/// `MemAvailable` of Linux.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_that_does_not_fit_is_refused_with_numbers() {
        let estimate = Estimate {
            rows: 10,
            validation_rows: 0,
            tokens: 100,
            longest_row: 10,
            steps: 10,
            memory_bytes: 900 << 20,
            disk_bytes: 100 << 20,
        };
        let code = |disk: Option<u64>, memory: Option<u64>| {
            let resources = Resources { disk_bytes: disk.map(|mb| mb << 20), memory_bytes: memory.map(|mb| mb << 20) };
            resources.check(&estimate).err().map(|error| (error.code, error.message.split(". ").next().unwrap().to_owned()))
        };
        assert_eq!(code(Some(1000), Some(1000)), None);
        assert_eq!(code(None, None), None);
        let disk = "The training needs about 356 MB of disk space, but 300 MB are free on this server";
        assert_eq!(code(Some(300), Some(1000)), Some(("insufficient_disk".to_owned(), disk.to_owned())));
        let memory = "The training needs about 900 MB of memory, but 899 MB are free on this server";
        assert_eq!(code(Some(356), Some(899)), Some(("insufficient_memory".to_owned(), memory.to_owned())));
    }
}
