//! The pipeline under an embedder that is slower than everything before it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use async_trait::async_trait;
use groundtone_catalog::{Catalog, CollectionRecord, DataDirectory, EmbeddingCache};
use groundtone_index::{Filter, MemoryIndex, VectorIndex, WordHashSparse};
use groundtone_ingest::extract::{Extractor, ExtractorSettings};
use groundtone_ingest::parse::Limits;
use groundtone_ingest::{Build, ChunkSettings, IngestSettings, Ingester, Report, SourceSettings, source};
use groundtone_prompt::{CountTokens, OpenAiTokens};
use groundtone_provider::{Batcher, CallLimits, EmbedFor, Embedder, Error, Pace};
use groundtone_types::{Collection, Tenant};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// Takes its time, and fails from a certain call on.
struct Slow {
    pause: Duration,
    calls: AtomicUsize,
    fails_from: usize,
}

#[async_trait]
impl Embedder for Slow {
    fn id(&self) -> &str {
        "slow"
    }
    fn dimensions(&self) -> usize {
        2
    }
    fn max_tokens(&self) -> usize {
        256
    }
    fn tokens(&self) -> Arc<dyn CountTokens> {
        OpenAiTokens::for_model("text-embedding-3-small")
    }
    fn limits(&self) -> CallLimits {
        CallLimits { texts: 64, tokens: usize::MAX, parallel: 1 }
    }
    async fn embed(&self, texts: &[String], _: EmbedFor) -> Result<Vec<Vec<f32>>, Error> {
        tokio::time::sleep(self.pause).await;
        if self.calls.fetch_add(1, Ordering::SeqCst) >= self.fails_from {
            return Err(Error::Model { model: "slow".to_owned(), reason: "out of power".to_owned() });
        }
        Ok(texts.iter().map(|text| vec![1.0, text.len() as f32]).collect())
    }
}

struct Parts {
    index: Arc<MemoryIndex>,
    catalog: Arc<Catalog>,
    cache: Arc<EmbeddingCache>,
    collection: Collection,
    prune: bool,
    _directory: DataDirectory,
}

impl Parts {
    async fn open(folder: &Path) -> Self {
        let directory = DataDirectory::open(folder, "test").unwrap();
        Self {
            index: Arc::default(),
            catalog: Arc::new(Catalog::open(&directory).await.unwrap()),
            cache: Arc::new(EmbeddingCache::open(&directory, 1 << 30).await.unwrap()),
            collection: Collection::new("documents").unwrap(),
            prune: true,
            _directory: directory,
        }
    }

    async fn run(&self, documents: &Path, pause: Duration, fails_from: usize) -> Result<Report, groundtone_ingest::Error> {
        let extractor = Extractor::new(ExtractorSettings {
            worker: None,
            workers: 1,
            timeout: Duration::from_secs(60),
            memory_bytes: 1 << 30,
            limits: Limits::default(),
            remote: None,
        });
        let batcher = Batcher::new(Arc::new(Slow { pause, calls: AtomicUsize::new(0), fails_from }), Pace::default());
        let (index, sparse) = (self.index.clone(), Arc::new(WordHashSparse));
        let ingester = Ingester::new(Arc::new(extractor), index, Arc::new(batcher), sparse, self.catalog.clone(), Some(self.cache.clone()));
        let settings = IngestSettings {
            run: Uuid::now_v7(),
            tenant: Tenant::default(),
            collection: self.collection.clone(),
            source: "documents".to_owned(),
            chunks: ChunkSettings { max_tokens: 100, overlap_tokens: 0, parent_tokens: 0, breadcrumb: true },
            max_file_bytes: 5_000_000,
            parse_timeout: Duration::from_secs(10),
            url_prefix: String::new(),
            prune: self.prune,
            build: Build::Live,
            dry_run: false,
            price_per_million_tokens: 0.0,
            now: 0,
        };
        let sources = SourceSettings { split_above_bytes: 1_000_000, ..SourceSettings::default() };
        let source = Arc::from(source::open(documents.to_str().unwrap(), &sources).unwrap());
        ingester.run(source, &settings, &|_| {}).await
    }
}

fn write_documents(folder: &Path, count: usize) {
    std::fs::create_dir(folder).unwrap();
    for number in 0..count {
        std::fs::write(folder.join(format!("{number}.md")), format!("# Part {number}\n\nIt costs {number} euro.\n")).unwrap();
    }
}

/// The ledger has four connections. A stage that is held up must not keep one of them: 3,000 documents wait here for an embedder that takes five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_embedder_holds_the_pipeline_up_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let documents = folder.path().join("documents");
    write_documents(&documents, 3_000);
    let parts = Parts::open(&folder.path().join("data")).await;
    let run = parts.run(&documents, Duration::from_millis(100), usize::MAX);
    // Long before a connection is given up on (30 s), and long after a run that goes well.
    let report = tokio::time::timeout(Duration::from_secs(25), run).await.expect("the pipeline stands still").unwrap();
    assert_eq!(report.new, 3_000);
    assert!(report.embed_calls <= 3_000 / 64 + 2, "{} calls", report.embed_calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedder_that_fails_half_way_costs_no_second_call_for_what_it_gave() {
    let folder = tempfile::tempdir().unwrap();
    let documents = folder.path().join("documents");
    write_documents(&documents, 1_500);
    let parts = Parts::open(&folder.path().join("data")).await;
    let error = parts.run(&documents, Duration::ZERO, 13).await.unwrap_err();
    assert!(error.to_string().contains("out of power"), "{error}");
    let report = parts.run(&documents, Duration::ZERO, usize::MAX).await.unwrap();
    assert_eq!(report.new + report.unchanged, 1_500);
    // 24 batches in all; 13 of them were there, the one that is cut where two runs meet may be two.
    assert!(report.embed_calls <= 24 - 13 + 2, "{} calls", report.embed_calls);
    let again = parts.run(&documents, Duration::ZERO, usize::MAX).await.unwrap();
    assert_eq!((again.unchanged, again.embed_calls), (1_500, 0));
    let live = parts.index.resolve(&parts.collection).await.unwrap().unwrap();
    assert_eq!(parts.index.count(&Tenant::default(), &live, &Filter::default()).await.unwrap(), 1_500);
}

#[tokio::test]
async fn a_first_run_that_was_cut_off_does_not_let_other_vectors_in() {
    let folder = tempfile::tempdir().unwrap();
    let documents = folder.path().join("documents");
    write_documents(&documents, 2);
    let parts = Parts::open(&folder.path().join("data")).await;
    // Noted, and killed before it answered: there is no alias yet.
    let name = parts.collection.generation(1);
    let record = CollectionRecord { name, fingerprint: "another model".to_owned(), dimensions: 2, created_at: 0, completed_at: None };
    parts.catalog.put_collection(&record).await.unwrap();
    let error = parts.run(&documents, Duration::ZERO, usize::MAX).await.unwrap_err();
    assert!(matches!(error, groundtone_ingest::Error::OtherVectors { .. }), "{error}");
}

fn paragraphs(from: usize, to: usize) -> String {
    (from..to).map(|n| format!("Paragraph {n} speaks of {} and {}, at some length.\n\n", n * 7919 % 1013, n * 104_729 % 997)).collect()
}

/// A large file is several documents; when it grows, changes, shrinks and is small again, exactly what it holds is stored, without `prune`.
#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_large_file_follow_it() {
    let folder = tempfile::tempdir().unwrap();
    let documents = folder.path().join("documents");
    write_documents(&documents, 2);
    let parts = Parts { prune: false, ..Parts::open(&folder.path().join("data")).await };
    let text = paragraphs(0, 60_000);
    let file = documents.join("big.txt");
    let stored = async || {
        let live = parts.index.resolve(&parts.collection).await.unwrap().unwrap();
        let (tenant, mut ids) = (Tenant::default(), Vec::new());
        for record in parts.catalog.documents(&tenant, &live, None, 100).await.unwrap() {
            let points = parts.catalog.points(&tenant, &live, &record.id).await.unwrap().len();
            let filter = Filter::document(record.id.clone());
            assert_eq!(parts.index.count(&tenant, &live, &filter).await.unwrap(), points, "{}", record.id);
            assert!(!record.id.as_str().starts_with("big") || record.title == "Big" && record.url.ends_with("/big.txt"), "{record:?}");
            ids.push(record.id.to_string());
        }
        ids
    };
    let run = async |text: &str, single: bool| {
        std::fs::write(&file, text).unwrap();
        parts.run(if single { &file } else { &documents }, Duration::ZERO, usize::MAX).await.unwrap()
    };
    let first = run(&text, false).await;
    let names = stored().await;
    let count = names.len() - 2;
    assert!(count >= 3 && first.new == names.len() && names[2] == "big.txt#part-00001", "{names:?}");
    let again = run(&text, false).await;
    assert_eq!((again.unchanged, again.embed_calls, again.bytes > 3_000_000), (count + 2, 0, true));
    let changed = run(&text.replacen("Paragraph 7 ", "Paragraph seven ", 1), false).await;
    assert_eq!((changed.changed, changed.unchanged, changed.removed), (1, count + 1, 0));
    assert!(changed.embedded <= 2, "{} texts", changed.embedded);
    let shorter = run(&text[..text.len() / 2], true).await;
    assert_eq!((shorter.removed + shorter.found, shorter.embedded <= 2), (count, true), "the parts that are no more are gone");
    let small = run(&paragraphs(0, 50), false).await;
    assert_eq!((small.new, small.removed), (1, shorter.found));
    assert_eq!(stored().await, ["0.md", "1.md", "big.txt"]);
    let large = run(&text, true).await;
    assert_eq!((large.new, large.removed), (count, 1));
    assert_eq!(stored().await, names);
}
