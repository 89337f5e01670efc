use std::process::ExitCode;

/// Loads no settings and starts no runtime: the worker has only the memory that its first frame allows.
pub(crate) fn run() -> ExitCode {
    match groundtone_ingest::extract::run_worker() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
