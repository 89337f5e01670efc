//! Trace set-up, and the spans that every request leaves.
//!
//! The spans are the diagram: `request` (with `request_id`, which is also the response's `x-request-id`) > `answer` > `answer.retrieve` > `search` > `embed`,
//! `answer.render`, `answer.generate` > `answer.cite`; `ingest.prepare`, `ingest.embed` > `embed`, `ingest.store`. Their fields are numbers and names, never the text of a
//! prompt or a document. They are written to the log, and sent to an OpenTelemetry collector where there is one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod conventions;
mod metrics;
mod otlp;
mod redact;

pub use metrics::{AnswerMeasure, CONTENT_TYPE, Metrics};
pub use opentelemetry_http::HttpClient;
pub use otlp::{Collector, Spans, continue_trace};
pub use redact::{PatternError, Redactor};

use std::io::Write;
use std::sync::Arc;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why nothing can be logged or sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read, or there is a subscriber already.
    #[error("`log.level` = `{level}` cannot be used: {reason}")]
    Log {
        /// The filter.
        level: String,
        /// What is wrong.
        reason: String,
    },
    /// Spans cannot be sent there.
    #[error("`telemetry.otlp_url` cannot be used: {0}")]
    Collector(String),
}

/// A writer whose lines are redacted before they are written. The subscriber writes each line in one piece.
#[derive(Debug, Clone)]
struct Redacting<W> {
    redactor: Arc<Redactor>,
    writer: W,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Redacting<W> {
    type Writer = Redacting<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Redacting { redactor: self.redactor.clone(), writer: self.writer.make_writer() }
    }
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.writer.write_all(self.redactor.redact(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

/// What is written to `writer`: events, and each span with its duration when it ends, each line redacted.
fn lines<W>(format: Format, level: &str, redactor: Arc<Redactor>, writer: W) -> Result<Box<dyn Layer<Registry> + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(level).map_err(|error| Error::Log { level: level.to_owned(), reason: error.to_string() })?;
    let layer = tracing_subscriber::fmt::layer::<Registry>().with_span_events(FmtSpan::CLOSE).with_writer(Redacting { redactor, writer });
    Ok(match format {
        Format::Text => layer.with_ansi(false).with_filter(filter).boxed(),
        Format::Json => layer.json().with_filter(filter).boxed(),
    })
}

/// A subscriber that writes events, and each span with its duration when it ends, to `writer`, each line redacted.
pub fn subscriber<W>(
    format: Format,
    level: &str,
    redactor: Redactor,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Ok(Box::new(tracing_subscriber::registry().with(lines(format, level, Arc::new(redactor), writer)?)))
}

/// Installs a subscriber that writes to standard error, for the whole process, and sends our own spans to a collector where there is one, whatever the level of the log.
/// [`Spans::shut_down`] at the end, or the last ones are lost.
pub fn init<C: HttpClient + 'static>(
    format: Format,
    level: &str,
    redactor: Redactor,
    collector: Option<Collector<C>>,
) -> Result<Option<Spans>, Error> {
    let redactor = Arc::new(redactor);
    let mut layers = vec![lines(format, level, redactor.clone(), std::io::stderr)?];
    let mut spans = None;
    if let Some(collector) = collector {
        let (layer, ours) = otlp::layer(collector, redactor).map_err(Error::Collector)?;
        layers.push(layer);
        spans = Some(ours);
    }
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layers))
        .map_err(|error| Error::Log { level: level.to_owned(), reason: error.to_string() })?;
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_json_carries_the_fields_of_its_spans() -> Result<(), Error> {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber =
            subscriber(Format::Json, "info", Redactor::new(groundtone_types::PersonalKind::ALL.to_vec(), &[]).unwrap(), move || {
                writer.clone()
            })?;
        tracing::subscriber::with_default(subscriber, || {
            let _request = tracing::info_span!("request", request_id = "r-1").entered();
            let _answer = tracing::info_span!("answer", model = "m").entered();
            tracing::info!(snippets = 4, "found for ann@example.org");
        });
        let text = String::from_utf8_lossy(&kept.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
        let first = text.lines().next().unwrap_or_default();
        for part in ["\"request_id\":\"r-1\"", "\"model\":\"m\"", "\"snippets\":4"] {
            assert!(first.contains(part), "{part} is not in {first}");
        }
        assert!(first.contains("found for [email]") && !text.contains("ann@"), "{text}");
        assert_eq!(
            text.lines().filter(|line| line.contains("\"message\":\"close\"")).count(),
            2,
            "each span ends with its duration: {text}"
        );
        Ok(())
    }

    #[test]
    fn a_wrong_filter_is_a_sentence() {
        let error =
            subscriber(Format::Text, "groundtone=loud", Redactor::none(), std::io::stderr).map(|_| ()).map_err(|error| error.to_string());
        assert!(error.is_err_and(|text| text.starts_with("`log.level` = `groundtone=loud` cannot be used")));
    }
}
