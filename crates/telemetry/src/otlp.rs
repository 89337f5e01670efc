//! Spans to a collector, by OTLP over HTTP.
//!
//! Nothing waits for it: ended spans go into a bounded queue, and one thread sends them in batches. What does not fit, or is not taken in time, is lost, counted and logged.

use crate::{Redactor, conventions};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, info, trace, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::Filter;
use tracing_subscriber::{Layer, Registry, layer};

/// Most spans in one request.
const BATCH: usize = 512;
/// How long a span waits for others to go with it.
const GATHER: Duration = Duration::from_secs(2);

/// Where spans go.
#[derive(Debug)]
pub struct Collector<C> {
    /// Its traces' address, whole: `http://127.0.0.1:4318/v1/traces`.
    pub address: String,
    /// Share of the traces that are sent, 0 to 1. A request that says whether its trace is wanted is believed.
    pub share: f64,
    /// Longest wait for a batch to be taken, and for the last ones at the end.
    pub timeout: Duration,
    /// Most spans that wait or are on their way; what comes on top is lost.
    pub queue: usize,
    /// Sends them, within `timeout` each time. It is called on a thread of its own, where no async runtime runs.
    pub client: C,
}

/// Spans on their way to a collector.
#[derive(Debug, Clone)]
pub struct Spans {
    provider: SdkTracerProvider,
    tally: Arc<Tally>,
    timeout: Duration,
}

impl Spans {
    /// Sends what is left; spans that end later are dropped. Blocks, but no longer than a batch may take.
    pub fn shut_down(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(self.timeout) {
            let spans = self.tally.waiting.load(Ordering::Relaxed);
            self.tally.lost.inc_by(spans as u64);
            warn!(spans, %error, "the last spans were not sent in time");
        }
    }

    /// How many were lost so far.
    pub(crate) fn lost(&self) -> Counter {
        self.tally.lost.clone()
    }
}

/// How many spans wait, and how many were lost.
#[derive(Debug, Default)]
struct Tally {
    /// In the queue or on their way.
    waiting: AtomicUsize,
    lost: Counter,
    /// Lost because too many waited, since that was logged.
    crowded_out: AtomicU64,
    /// The last batch was not taken.
    away: AtomicBool,
}

impl Tally {
    /// Whether there is room for one more.
    fn admits(&self, most: usize) -> bool {
        let admitted =
            self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| (waiting < most).then_some(waiting + 1)).is_ok();
        if !admitted {
            self.lost.inc();
            self.crowded_out.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// A batch was taken, or was not. A collector that is away is logged once, not for each batch.
    fn sent(&self, spans: usize, result: &OTelSdkResult) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        match result {
            Ok(()) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    info!("the collector takes spans again");
                }
            }
            Err(error) => {
                self.lost.inc_by(spans as u64);
                if !self.away.swap(true, Ordering::Relaxed) {
                    warn!(spans, %error, "the collector does not take spans: they are lost until it does");
                }
            }
        }
        let spans = self.crowded_out.swap(0, Ordering::Relaxed);
        if spans > 0 {
            warn!(spans, "spans were lost: too many waited for the collector");
        }
    }
}

/// A layer whose spans go to the collector.
pub(crate) fn layer<C: HttpClient + 'static>(
    collector: Collector<C>,
    redactor: Arc<Redactor>,
) -> Result<(Box<dyn Layer<Registry> + Send + Sync>, Spans), String> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(collector.client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(collector.address)
        .with_timeout(collector.timeout)
        .build()
        .map_err(|error| error.to_string())?;
    let tally = Arc::new(Tally::default());
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(collector.queue)
        .with_max_export_batch_size(BATCH.min(collector.queue))
        .with_scheduled_delay(GATHER)
        .build();
    let exporter = Translated { exporter, redactor, tally: tally.clone() };
    let queue = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let resource = Resource::builder()
        .with_service_name("groundtone")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Bounded { queue, tally: tally.clone(), most: collector.queue })
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(collector.share))))
        .with_resource(resource)
        .build();
    let layer = tracing_opentelemetry::layer::<Registry>()
        .with_tracer(provider.tracer("groundtone"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(OurSpans)
        .boxed();
    Ok((layer, Spans { provider, tally, timeout: collector.timeout }))
}

/// Spans of our own crates. Events stay in the log: their texts are for people. The libraries that send spans are not watched, or they would send spans about sending.
struct OurSpans;

impl OurSpans {
    fn is_one(metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target().starts_with("groundtone")
    }
}

impl<S> Filter<S> for OurSpans {
    fn enabled(&self, metadata: &Metadata<'_>, _: &layer::Context<'_, S>) -> bool {
        Self::is_one(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::is_one(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }
}

/// A queue that counts what it has no room for.
#[derive(Debug)]
struct Bounded {
    queue: BatchSpanProcessor,
    tally: Arc<Tally>,
    most: usize,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.tally.admits(self.most) {
            self.queue.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// Sends spans under the names that others know.
#[derive(Debug)]
struct Translated<E> {
    exporter: E,
    redactor: Arc<Redactor>,
    tally: Arc<Tally>,
}

impl<E: SpanExporter> SpanExporter for Translated<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        batch.iter_mut().for_each(|span| conventions::translate(span, &self.redactor));
        let result = self.exporter.export(batch).await;
        self.tally.sent(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Makes a span part of the trace that its request belongs to (W3C Trace Context); to be called before it is entered. Where spans are not sent, or the header is none, nothing happens.
pub fn continue_trace(span: &tracing::Span, traceparent: &str, tracestate: Option<&str>) {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers { traceparent, tracestate });
    let valid = context.span().span_context().is_valid();
    if valid && let Err(error) = span.set_parent(context) {
        trace!(%error, "the trace of a request is not continued");
    }
}

struct Headers<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use opentelemetry_http::{Bytes, HttpError, Request, Response};
    use tracing::info_span;
    use tracing_subscriber::layer::SubscriberExt;

    /// Answers every batch with this status.
    #[derive(Debug)]
    struct Answers(u16);

    #[async_trait]
    impl HttpClient for Answers {
        async fn send_bytes(&self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            Ok(Response::builder().status(self.0).body(Bytes::new())?)
        }
    }

    /// Ends three spans, the last of a library's; gives how many were lost.
    fn lost(status: u16, queue: usize) -> u64 {
        let collector = Collector {
            address: "http://collector.example/v1/traces".to_owned(),
            share: 1.0,
            timeout: Duration::from_secs(5),
            queue,
            client: Answers(status),
        };
        let (layer, spans) = layer(collector, Arc::new(Redactor::none())).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(vec![layer]), || {
            for _ in 0..2 {
                let span = info_span!("answer");
                continue_trace(&span, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
                continue_trace(&span, "nonsense", None);
                span.in_scope(|| warn!("an event"));
            }
            info_span!(target: "hyper", "call").in_scope(|| {});
        });
        spans.shut_down();
        spans.lost().get()
    }

    #[test]
    fn what_a_collector_does_not_take_is_counted() {
        assert_eq!(lost(200, 100), 0);
        assert_eq!(lost(400, 100), 2);
    }

    #[test]
    fn a_full_queue_loses_the_newest_and_waits_for_nobody() {
        let tally = Tally::default();
        assert_eq!([(); 3].map(|()| tally.admits(2)), [true, true, false]);
        tally.sent(2, &Ok(()));
        assert!(tally.admits(2));
        assert_eq!(tally.lost.get(), 1);
    }
}
