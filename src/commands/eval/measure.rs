use crate::Global;
use crate::assemble::{Library, data_directory_at, embedder, index, settings};
use crate::commands::models::pull;
use crate::output::{hint, json, line, watched};
use crate::ranking;
use groundtone_catalog::EmbeddingCache;
use groundtone_config::{Config, Engine};
use groundtone_evals::{Arm, Calibration, Corpus, CorpusProgress, Dataset, Difference, Estimate, Quality, RetrievalReport, Row};
use groundtone_index::SparseEmbedder;
use groundtone_index_edge::Bm25;
use groundtone_provider::{Batcher, Embedder, Pace};
use groundtone_retrieval::{Mode, Request, Retriever, Settings};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The deepest cut of a metric: an arm must be able to give so many documents.
const DEPTH: usize = 20;

/// Flags of `groundtone eval retrieval`.
#[derive(clap::Args)]
pub(crate) struct RetrievalArgs {
    /// The folder
    folder: PathBuf,
    /// Draws of the bootstrap
    #[arg(long, default_value_t = 10_000)]
    resamples: usize,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Flags of `groundtone eval calibrate`.
#[derive(clap::Args)]
pub(crate) struct CalibrateArgs {
    /// A JSONL file of {"question", "answerable"} asked of your collection, or a folder in BEIR's layout (each question is asked with and without its document)
    #[arg(long, value_name = "PATH", required = true)]
    set: Vec<PathBuf>,
    /// Share of the answerable questions that the gate must let through
    #[arg(long, default_value_t = 0.98)]
    keep: f64,
}

async fn ready(global: &Global) -> anyhow::Result<Config> {
    let config = settings(global, &[])?;
    if config.embedder.kind == Engine::Local {
        pull(&config, std::slice::from_ref(&config.embedder.model)).await?;
    }
    Ok(config)
}

pub(crate) async fn measure_retrieval(global: &Global, args: RetrievalArgs) -> anyhow::Result<()> {
    let report = retrieval(&ready(global).await?, &args.folder, args.resamples.max(1), args.seed).await?;
    if global.json { json(&report) } else { show(&report) }
}

pub(crate) async fn fit_gate(global: &Global, args: CalibrateArgs) -> anyhow::Result<()> {
    if !(0.5..=1.0).contains(&args.keep) {
        return Err(hint("--keep must be between 0.5 and 1", "0.98 turns away at most two of a hundred answerable questions"));
    }
    let calibration = calibrate(&ready(global).await?, &args.set, args.keep).await?;
    if global.json { json(&calibration) } else { snippet(&calibration, &args.set) }
}

/// A progress bar that is there only where a person watches.
fn bar(what: &'static str) -> impl Fn(CorpusProgress) + Send + Sync {
    let bar = watched().then(|| {
        let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(0).with_style(style).with_message(what)
    });
    move |progress: CorpusProgress| {
        if let Some(bar) = &bar {
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
            if progress.done == progress.total {
                bar.finish_and_clear();
            }
        }
    }
}

/// A data set, indexed in a data directory of its own below the configured one, and the embedder that knows its questions.
struct Prepared {
    dataset: Dataset,
    corpus: Corpus,
    embedder: Arc<dyn Embedder>,
    sparse: Arc<dyn SparseEmbedder>,
}

async fn prepare(config: &Config, folder: &Path) -> anyhow::Result<Prepared> {
    let read = folder.to_owned();
    let dataset = tokio::task::spawn_blocking(move || Dataset::read(&read)).await?;
    let dataset = dataset.map_err(|error| hint(error, "a folder in BEIR's layout has corpus.jsonl, queries.jsonl and qrels/*.tsv"))?;
    let directory = data_directory_at(&config.data.directory.join("evals").join(&dataset.corpus_digest[..16]), "groundtone eval")?;
    let cache = EmbeddingCache::open(&directory, 1 << 40).await?;
    let language = &config.store.bm25_language;
    let counter = Bm25::new(language, config.store.bm25_average_length)?;
    // BM25 is normalised by this corpus' own mean length, not by the one that the settings say for a collection of chunks.
    let length: usize = dataset.documents.iter().map(|document| counter.length(&document.embedded())).sum();
    let mean = (length as f64 / dataset.documents.len() as f64 * 10.0).round() / 10.0;
    let sparse: Arc<dyn SparseEmbedder> = Arc::new(Bm25::new(language, mean.max(1.0))?);
    let index = index(config, &directory).await?;
    let batcher = Batcher::new(embedder(config).await?, Pace::default());
    let corpus = Corpus::new(index, batcher, sparse.clone(), cache, &dataset)?;
    corpus.fill(&dataset, &bar("documents")).await?;
    let texts: Vec<String> = dataset.questions.iter().map(|question| question.text.clone()).collect();
    let embedder: Arc<dyn Embedder> = Arc::new(corpus.questions(&texts).await?);
    Ok(Prepared { dataset, corpus, embedder, sparse })
}

impl Prepared {
    fn retriever(&self, config: &Config, mode: Mode, top_k: usize) -> Retriever {
        let settings = Settings { mode, top_k, candidates: config.retrieval.candidates.max(top_k) };
        Retriever::new(self.corpus.index.clone(), self.embedder.clone(), self.sparse.clone(), settings)
    }
}

async fn retrieval(config: &Config, folder: &Path, resamples: usize, seed: u64) -> anyhow::Result<RetrievalReport> {
    let prepared = prepare(config, folder).await?;
    let plain = |name: &str, mode| Arm { name: name.to_owned(), retriever: prepared.retriever(config, mode, DEPTH) };
    let hybrid = || {
        let retriever = prepared.retriever(config, Mode::Hybrid, DEPTH);
        retriever.fused(ranking::fusion(config)).refined(ranking::refinement(config))
    };
    let mut arms = vec![plain("bm25", Mode::Bm25), plain("dense", Mode::Dense), Arm { name: "hybrid".to_owned(), retriever: hybrid() }];
    let mut left_out = std::collections::BTreeMap::new();
    match ranking::reranker(config)? {
        Some(model) => {
            let retriever = hybrid().reranked(model, config.reranker.candidates.max(DEPTH));
            arms.push(Arm { name: "hybrid-rerank".to_owned(), retriever });
        }
        None => {
            left_out.insert("hybrid-rerank".to_owned(), "no reranker is configured (`reranker.kind`)".to_owned());
        }
    }
    let measured = groundtone_evals::evaluate(&prepared.dataset, &prepared.corpus, &arms, resamples, seed, &bar("questions")).await?;
    let (arms, pairs) = measured;
    Ok(RetrievalReport {
        documents: prepared.dataset.documents.len(),
        questions: prepared.dataset.questions.len(),
        embedder: prepared.embedder.id().to_owned(),
        sparse: prepared.sparse.id(),
        resamples,
        seed,
        arms,
        pairs,
        left_out,
    })
}

fn show(report: &RetrievalReport) -> anyhow::Result<()> {
    let RetrievalReport { documents, questions, embedder, sparse, resamples, seed, .. } = report;
    line(format!(
        "{questions} questions, {documents} documents; {embedder}, {sparse}; 95 % intervals of {resamples} draws, seed {seed}\n"
    ))?;
    line(format!("{:<15}{:<27}{:<27}{}", "arm", "nDCG@10", "recall@20", "MRR@10"))?;
    let estimate = |value: &Estimate| format!("{:.4} ({:.4} to {:.4})", value.value, value.low, value.high);
    for (name, arm) in &report.arms {
        let [ndcg, recall, mrr] = [&arm.ndcg_at_10, &arm.recall_at_20, &arm.mrr_at_10].map(estimate);
        line(format!("{name:<15}{ndcg:<27}{recall:<27}{mrr}"))?;
    }
    for (name, reason) in &report.left_out {
        line(format!("{name:<15}{reason}"))?;
    }
    let difference =
        |d: &Difference| format!("{:+.4} ({:+.4} to {:+.4}), p = {:.4}", d.estimate.value, d.estimate.low, d.estimate.high, d.p);
    for pair in &report.pairs {
        line(format!("\n{} above {}", pair.a, pair.b))?;
        for (metric, value) in [("nDCG@10", &pair.ndcg_at_10), ("recall@20", &pair.recall_at_20), ("MRR@10", &pair.mrr_at_10)] {
            line(format!("  {metric:<10} {}", difference(value)))?;
        }
    }
    Ok(())
}

async fn calibrate(config: &Config, sets: &[PathBuf], keep: f64) -> anyhow::Result<Calibration> {
    let mut rows: Vec<Row> = Vec::new();
    for set in sets {
        let first = rows.iter().map(|row| row.group + 1).max().unwrap_or(0);
        let found = if set.is_dir() { of_folder(config, set).await? } else { of_file(config, set).await? };
        rows.extend(found.into_iter().map(|row| Row { group: row.group + first, ..row }));
    }
    Ok(groundtone_evals::calibrate(&rows, &config.embedder.model, keep, &ranking::gate(config))?)
}

async fn of_folder(config: &Config, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let prepared = prepare(config, folder).await?;
    let retriever = prepared.retriever(config, Mode::Hybrid, config.retrieval.top_k);
    let retriever = ranking::ranked(retriever, config)?;
    Ok(groundtone_evals::held_out(&prepared.dataset, &prepared.corpus, &retriever).await?)
}

async fn of_file(config: &Config, file: &Path) -> anyhow::Result<Vec<Row>> {
    let questions = groundtone_evals::read_labelled(file)
        .map_err(|error| hint(error, "each line is a question and its label: {\"question\": \"...\", \"answerable\": true}"))?;
    let library = Library::open(config, "groundtone eval").await?;
    let retriever = library.retriever(config).await?;
    let progress = bar("questions");
    let mut rows = Vec::new();
    for (group, labelled) in questions.iter().enumerate() {
        let found = retriever.search(&library.tenant, &config.assistant.collection, &Request::new(&labelled.question)).await?;
        rows.push(Row { evidence: found.evidence, answerable: labelled.answerable, group });
        progress(CorpusProgress { done: group + 1, total: questions.len() });
    }
    Ok(rows)
}

/// The settings, with what they are worth as comments: it can be pasted as it is.
fn snippet(calibration: &Calibration, sets: &[PathBuf]) -> anyhow::Result<()> {
    let Calibration { gate, quality, configured, answerable, unanswerable } = calibration;
    let sets: Vec<String> = sets.iter().map(|set| set.display().to_string()).collect();
    line(format!("# fitted on {answerable} answerable and {unanswerable} unanswerable questions of {}", sets.join(", ")))?;
    line(format!("# five-fold cross-validation: AUC {:.3}, Brier score {:.3}; at this threshold", quality.auc, quality.brier))?;
    worth(quality)?;
    if let Some(now) = configured {
        line(format!("# the gate that is configured now, on the same questions: AUC {:.3}, Brier score {:.3}", now.auc, now.brier))?;
        worth(now)?;
    }
    let [dense, bm25, margin, coverage] = gate.weights;
    line(format!("[gate]\nembedder = \"{}\"\nthreshold = {:.4}\nintercept = {:.4}", gate.embedder, gate.threshold, gate.intercept))?;
    line(format!("dense = {dense:.4}\nbm25 = {bm25:.4}\nmargin = {margin:.4}\ncoverage = {coverage:.4}"))
}

/// What a gate does, as comments of the settings file.
fn worth(quality: &Quality) -> anyhow::Result<()> {
    for (what, share) in [
        ("of what it turns away could not be answered", quality.abstention_precision),
        ("of what could not be answered is turned away", quality.abstention_recall),
        ("of what could be answered is let through", quality.answerable_kept),
    ] {
        line(format!("#   {:.3} ({:.3} to {:.3}) {what}, of {}", share.value, share.low, share.high, share.of))?;
    }
    Ok(())
}
