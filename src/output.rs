//! The one place that prints: data on standard output, talk on standard error.

use anyhow::Context;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// An error with the way out.
#[derive(Debug)]
pub(crate) struct Hint {
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hint {}

/// Adds what to do next to an error.
pub(crate) fn hint(error: impl std::fmt::Display, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hint { message: error.to_string(), hint: hint.into() })
}

/// An error that the command's own output has told already.
#[derive(Debug)]
struct Told;

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("see above")
    }
}

impl std::error::Error for Told {}

/// Ends the command with exit code 1 and says nothing more.
pub(crate) fn told() -> anyhow::Error {
    anyhow::Error::new(Told)
}

/// Writes a line of data. A reader that has gone away (`| head`) ends the command quietly.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    write(&format!("{text}\n"))
}

/// Writes data without a line end and shows it at once.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.context("standard output cannot be written"),
    }
}

/// Writes one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value).context("the result cannot be written as JSON")?)
}

/// Says something that is not data. Standard error may be closed; then nobody wants to hear it.
pub(crate) fn say(text: impl std::fmt::Display) {
    if writeln!(std::io::stderr().lock(), "{text}").is_err() {
        tracing::trace!("standard error is closed");
    }
}

/// Whether a person watches.
pub(crate) fn watched() -> bool {
    std::io::stderr().is_terminal()
}

/// One sentence, its causes, what to do; exit code 1.
pub(crate) fn fail(error: &anyhow::Error, as_json: bool) -> ExitCode {
    if error.is::<Told>() {
        return ExitCode::FAILURE;
    }
    let mut message = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Wrappers repeat their cause; each thing is said once.
        if !message.contains(&text) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&text);
        }
    }
    let hint = error.chain().find_map(|cause| cause.downcast_ref::<Hint>()).map(|hint| hint.hint.clone());
    if as_json && let Err(problem) = json(&serde_json::json!({"error": message, "hint": hint})) {
        say(format!("error: {problem}"));
    }
    say(format!("error: {message}"));
    if let Some(hint) = hint {
        say(format!("hint: {hint}"));
    }
    ExitCode::FAILURE
}
