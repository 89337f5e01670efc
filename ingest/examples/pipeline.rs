//! Measures the ingest pipeline by itself; `./gt bench ingest` runs it and says what the figures mean.
//!
//!     pipeline null FOLDER            an instant embedder and a store that keeps nothing: what reading, parsing and cutting cost
//!     pipeline big MEGABYTES          the same for one text file of so many MB, made for the purpose: how much memory it takes
//!     pipeline latency FOLDER MS      a remote embedder that takes MS milliseconds a call: how near its ceiling the batches keep it
//!     pipeline local FOLDER           the local embedder: what the pipeline adds to the engine's own time
//!
//! The last line is a JSON object.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that cannot run must say so and stop"
)]

use async_trait::async_trait;
use groundtone_catalog::{Catalog, DataDirectory};
use groundtone_index::{CollectionSpec, Error, Filter, IdPage, Point, Query, VectorIndex};
use groundtone_index_edge::Bm25;
use groundtone_ingest::extract::{Extractor, ExtractorSettings};
use groundtone_ingest::parse::Limits;
use groundtone_ingest::{Build, ChunkSettings, IngestSettings, Ingester, SourceSettings, source};
use groundtone_local::{LocalEmbedder, ModelStore, available_threads};
use groundtone_prompt::{CountTokens, OpenAiTokens};
use groundtone_provider::{Batcher, CallLimits, EmbedFor, Embedder, Endpoint, OpenAiEmbeddings, Pace};
use groundtone_testkit::{EmbedRules, ScriptedServer};
use groundtone_types::{Chunk, Collection, Snippet, Tenant};
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The binary's own.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const BATCH: usize = 64;
const PARALLEL: usize = 4;

/// Takes everything and keeps nothing.
struct NullIndex;

#[async_trait]
impl VectorIndex for NullIndex {
    async fn ensure(&self, _: &CollectionSpec) -> Result<(), Error> {
        Ok(())
    }
    async fn remove(&self, _: &Collection) -> Result<(), Error> {
        Ok(())
    }
    async fn upsert(&self, _: &Tenant, _: &Collection, _: Vec<Point>) -> Result<(), Error> {
        Ok(())
    }
    async fn delete(&self, _: &Tenant, _: &Collection, _: &[Uuid]) -> Result<(), Error> {
        Ok(())
    }
    async fn query(&self, _: &Tenant, _: &Collection, _: Query) -> Result<Vec<Snippet>, Error> {
        Ok(Vec::new())
    }
    async fn ids(&self, _: &Tenant, _: &Collection, _: &Filter, _: Option<Uuid>, _: usize) -> Result<IdPage, Error> {
        Ok(IdPage::default())
    }
    async fn vectors(&self, _: &Tenant, _: &Collection, ids: &[Uuid]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        Ok(vec![None; ids.len()])
    }
    async fn missing(&self, _: &Tenant, _: &Collection, _: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        Ok(Vec::new())
    }
    async fn chunks(&self, _: &Tenant, _: &Collection, _: &[Uuid]) -> Result<Vec<Chunk>, Error> {
        Ok(Vec::new())
    }
    async fn count(&self, _: &Tenant, _: &Collection, _: &Filter) -> Result<usize, Error> {
        Ok(0)
    }
    async fn set_alias(&self, _: &Collection, _: &Collection) -> Result<(), Error> {
        Ok(())
    }
    async fn resolve(&self, _: &Collection) -> Result<Option<Collection>, Error> {
        Ok(None)
    }
    async fn collections(&self) -> Result<Vec<Collection>, Error> {
        Ok(Vec::new())
    }
    async fn settle(&self, _: &Collection) -> Result<(), Error> {
        Ok(())
    }
    async fn ready(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Answers at once with the same vector, or passes on to a real one; keeps the texts if told to.
struct Probe {
    inner: Option<Arc<dyn Embedder>>,
    texts: Mutex<Vec<String>>,
}

#[async_trait]
impl Embedder for Probe {
    fn id(&self) -> &str {
        "probe"
    }
    fn dimensions(&self) -> usize {
        self.inner.as_ref().map_or(4, |inner| inner.dimensions())
    }
    fn max_tokens(&self) -> usize {
        256
    }
    fn tokens(&self) -> Arc<dyn CountTokens> {
        self.inner
            .as_ref()
            .map_or_else(|| OpenAiTokens::for_model("text-embedding-3-small") as Arc<dyn CountTokens>, |inner| inner.tokens())
    }
    fn limits(&self) -> CallLimits {
        self.inner.as_ref().map_or(CallLimits { texts: 512, tokens: usize::MAX, parallel: 1 }, |inner| inner.limits())
    }
    async fn embed(&self, texts: &[String], purpose: EmbedFor) -> Result<Vec<Vec<f32>>, groundtone_provider::Error> {
        match &self.inner {
            None => Ok(vec![vec![1.0, 0.0, 0.0, 0.0]; texts.len()]),
            Some(inner) => {
                self.texts.lock().unwrap().extend_from_slice(texts);
                inner.embed(texts, purpose).await
            }
        }
    }
}

/// One run over the folder into a data directory of its own.
async fn ingest(folder: &str, embedder: Arc<dyn Embedder>, max_tokens: usize) -> groundtone_ingest::Report {
    let data = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(data.path(), "bench").unwrap();
    let catalog = Arc::new(Catalog::open(&directory).await.unwrap());
    let extractor = Extractor::new(ExtractorSettings {
        worker: None,
        workers: 1,
        timeout: Duration::from_secs(60),
        memory_bytes: 1 << 30,
        limits: Limits::default(),
        remote: None,
    });
    let batcher = Arc::new(Batcher::new(embedder, Pace::default()));
    let ingester =
        Ingester::new(Arc::new(extractor), Arc::new(NullIndex), batcher, Arc::new(Bm25::new("english", 60.0).unwrap()), catalog, None);
    let settings = IngestSettings {
        run: Uuid::now_v7(),
        tenant: Tenant::default(),
        collection: Collection::new("bench").unwrap(),
        source: folder.to_owned(),
        chunks: ChunkSettings { max_tokens, overlap_tokens: 0, parent_tokens: 0, breadcrumb: true },
        max_file_bytes: 4_000_000_000,
        parse_timeout: Duration::from_secs(600),
        url_prefix: String::new(),
        prune: false,
        build: Build::Live,
        dry_run: false,
        price_per_million_tokens: 0.0,
        now: 0,
    };
    let source = Arc::from(source::open(folder, &SourceSettings::default()).unwrap());
    ingester.run(source, &settings, &|_| {}).await.unwrap()
}

/// Paragraphs of made-up words, no two of them equal.
fn write_big(file: &std::path::Path, megabytes: usize) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    let (mut state, mut written) = (1u64, 0);
    while written < megabytes * 1_000_000 {
        let mut paragraph = String::new();
        for word in 0..80 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (stem, ending) = ((state >> 33) % 4_000, ["", "s", "ing", "ed", "er"][(state >> 60) as usize % 5]);
            write!(paragraph, "{}{stem}{ending}{}", if word == 0 { "Word" } else { "w" }, if word % 16 == 15 { ". " } else { " " })
                .unwrap();
        }
        paragraph.push_str("\n\n");
        written += paragraph.len();
        out.write_all(paragraph.as_bytes()).unwrap();
    }
    out.flush().unwrap();
}

/// Peak resident memory of this process, in MB.
fn peak_rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: pipeline null|latency|local FOLDER [MS], or pipeline big MEGABYTES";
    let (mode, folder) = (arguments.first().expect(usage).as_str(), arguments.get(1).expect(usage));
    // The tokenizer's table is part of the embedder, and is read once in the life of a process.
    OpenAiTokens::for_model("text-embedding-3-small").count("warm");
    let before = peak_rss();
    let result = match mode {
        "null" => {
            let report = ingest(folder, Arc::new(Probe { inner: None, texts: Mutex::default() }), 400).await;
            json!({"mb_per_second": report.bytes as f64 / 1e6 / report.seconds, "report": report})
        }
        "big" => {
            let place = tempfile::tempdir().unwrap();
            let file = place.path().join("big.txt");
            write_big(&file, folder.parse().expect("megabytes"));
            let report = ingest(file.to_str().unwrap(), Arc::new(Probe { inner: None, texts: Mutex::default() }), 400).await;
            json!({"mb_per_second": report.bytes as f64 / 1e6 / report.seconds, "report": report})
        }
        "latency" => {
            let delay = Duration::from_millis(arguments.get(2).expect(usage).parse().expect("milliseconds"));
            let server = ScriptedServer::start_embedder(EmbedRules { delay, ..EmbedRules::default() }).await;
            let limit = Duration::from_secs(30);
            let endpoint = Endpoint::new(&server.base_url, None, limit, limit, limit).unwrap();
            let limits = CallLimits { texts: BATCH, tokens: usize::MAX, parallel: PARALLEL };
            let report = ingest(folder, Arc::new(OpenAiEmbeddings::new(endpoint, "m", 4, 8191, limits)), 180).await;
            let ceiling = (BATCH * PARALLEL) as f64 / delay.as_secs_f64();
            let reached = report.embedded as f64 / report.seconds;
            json!({"texts_per_second": reached, "ceiling": ceiling, "share": reached / ceiling, "report": report})
        }
        "local" => {
            let folder_of_models =
                std::env::var("GROUNDTONE_MODELS_DIRECTORY").expect("GROUNDTONE_MODELS_DIRECTORY names the model folder");
            let paths = ModelStore::new(folder_of_models).paths("all-minilm-l6-v2-int8").unwrap();
            let local: Arc<dyn Embedder> =
                Arc::new(LocalEmbedder::load("all-minilm-l6-v2-int8", &paths[0], &paths[1], available_threads()).unwrap());
            let probe = Arc::new(Probe { inner: Some(local.clone()), texts: Mutex::default() });
            let report = ingest(folder, probe.clone(), 180).await;
            let texts = std::mem::take(&mut *probe.texts.lock().unwrap());
            let began = Instant::now();
            local.embed(&texts, EmbedFor::Document).await.unwrap();
            let alone = began.elapsed().as_secs_f64();
            json!({"seconds": report.seconds, "engine_seconds": alone, "share": alone / report.seconds, "report": report})
        }
        other => panic!("{usage}; `{other}` is none of them"),
    };
    let mut result = result;
    result["peak_rss_mb"] = json!(peak_rss());
    result["rss_before_mb"] = json!(before);
    println!("{result}");
}
