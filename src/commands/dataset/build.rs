use super::made::{judged_answers, write_examples};
use super::read::ReadArgs;
use super::site::Site;
use crate::Global;
use crate::assemble::settings;
use crate::output::{hint, json, line, say, watched};
use anyhow::Context;
use clap::ValueEnum;
use groundtone_datasets::teacher::TeacherReport;
use groundtone_datasets::{
    AnswerStyle, BuildReport, BuildSettings, CitationStyle, Controls, Entry, Error, Format, Missed, Order, RowKind, TracesReport, Turns,
};
use groundtone_types::Tenant;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Problems that are said one by one; the rows file has them all.
const NAMED_PROBLEMS: usize = 20;

/// Flags of `groundtone dataset build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Questions and answers: CSV, JSONL, chat logs (OpenAI, ShareGPT, Alpaca), an existing fine-tuning file, exported traces
    #[arg(required_unless_present_any = ["from_documents", "from_traces"], conflicts_with_all = ["from_documents", "from_traces"])]
    examples: Option<PathBuf>,
    /// Take the stored answers that people corrected or liked; they are kept beside the rows
    #[arg(long, conflicts_with = "from_documents")]
    from_traces: bool,
    /// Whose documents are searched, and whose stored answers are taken
    #[arg(long, value_name = "NAME", default_value_t)]
    pub(super) tenant: Tenant,
    /// The file of rows; its manifest and its rows file stand beside it
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    pub(super) out: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    pub(super) teacher: TeacherArgs,
    /// Seed of every choice; the same seed gives the same file
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Take the first so many examples only
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Rows in the making at the same time
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) concurrency: u16,
    /// Retrieve, render and count, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace a dataset that is there, or one that was begun with other examples or flags
    #[arg(long)]
    pub(super) overwrite: bool,
}

/// What rows are asked for.
#[derive(clap::Args)]
struct RowArgs {
    /// Snippets in a row (retrieval.top_k, which is what serving shows)
    #[arg(long, value_name = "N")]
    snippets: Option<usize>,
    /// Share of rows that surely show a chunk with the answer (RAFT's P); the others show near misses only and keep the answer.
    /// Without it rows show what serving would
    #[arg(long, value_name = "SHARE")]
    oracle_share: Option<f64>,
    /// Share of rows that show near misses only, and whose answer is the abstain text
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    no_answer_share: f64,
    /// Share of rows without retrieval: the brand's text, the question, the answer
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    plain_share: f64,
    /// A row that shows what serving would, where that does not hold the answer
    #[arg(long, value_enum, default_value_t = MissedArg::Keep)]
    missed: MissedArg,
    /// Order of the snippets
    #[arg(long, value_enum, default_value_t = OrderArg::Ranked)]
    order: OrderArg,
    /// Markers in the answers
    #[arg(long, value_enum, default_value_t = CitationsArg::Write)]
    citations: CitationsArg,
    /// Begin each answer with the sentences of the sources that it rests on
    #[arg(long)]
    quotes: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum MissedArg {
    /// It stays, and is counted
    Keep,
    /// Its answer becomes the abstain text
    Abstain,
    /// It is left out, and named
    Drop,
}

#[derive(Clone, Copy, ValueEnum)]
enum OrderArg {
    /// As retrieval ranks them, which is what serving does
    Ranked,
    /// At random
    Shuffled,
}

#[derive(Clone, Copy, ValueEnum)]
enum CitationsArg {
    /// The source's number behind each sentence that rests on one
    Write,
    /// The answer as it is
    Keep,
}

/// Who writes the examples where only documents are there.
#[derive(clap::Args)]
pub(super) struct TeacherArgs {
    /// Let a teacher model write the examples from the collection's chunks; they are kept beside the rows
    #[arg(long)]
    pub(super) from_documents: bool,
    /// Base URL of the teacher's OpenAI-compatible server; the configured chat model where not given
    #[arg(long, value_name = "URL", requires = "from_documents", requires = "teacher_model")]
    pub(super) teacher_url: Option<String>,
    /// The teacher's name there
    #[arg(long, value_name = "NAME", requires = "teacher_url")]
    pub(super) teacher_model: Option<String>,
    /// Environment variable with the teacher's key
    #[arg(long, value_name = "VARIABLE", requires = "teacher_url", default_value = "")]
    pub(super) teacher_key_env: String,
    /// Tokens that the teacher reads and writes together
    #[arg(long, value_name = "N", requires = "teacher_url", default_value_t = 8192)]
    pub(super) teacher_context_tokens: usize,
    /// Questions to ask for, for each chunk
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub(super) questions: u8,
    /// Ask about the first so many chunks only
    #[arg(long, value_name = "N")]
    pub(super) chunks: Option<u64>,
}

impl RowArgs {
    fn controls(&self) -> Controls {
        Controls {
            snippets: self.snippets,
            oracle_share: self.oracle_share,
            no_answer_share: self.no_answer_share,
            plain_share: self.plain_share,
            missed: match self.missed {
                MissedArg::Keep => Missed::Keep,
                MissedArg::Abstain => Missed::Abstain,
                MissedArg::Drop => Missed::Drop,
            },
            order: match self.order {
                OrderArg::Ranked => Order::Ranked,
                OrderArg::Shuffled => Order::Shuffled,
            },
            citations: match self.citations {
                CitationsArg::Write => CitationStyle::Write,
                CitationsArg::Keep => CitationStyle::Keep,
            },
            style: if self.quotes { AnswerStyle::QuoteThenAnswer } else { AnswerStyle::Answer },
        }
    }
}

/// The last line with `--json`.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    build: BuildReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    traces: Option<TracesReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    teacher: Option<TeacherReport>,
    seconds: f64,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let controls = args.rows.controls();
    controls.check()?;
    let config = settings(global, &[])?;
    let started = Instant::now();
    let site = Site::open(&config, args.teacher.from_documents).await?;
    let mut read = args.read.options(&config);
    let (mut teacher, mut traces) = (None, None);
    let source = if let Some(examples) = &args.examples {
        examples.clone()
    } else if args.from_traces {
        read.format = Format::Traces;
        let examples = args.beside()?.with_extension("examples.jsonl");
        traces = judged_answers(&config, &site, &args, &examples).await?;
        examples
    } else {
        read.turns = Turns::Last;
        let examples = args.beside()?.with_extension("examples.jsonl");
        teacher = Some(write_examples(&config, &site, &args, &examples).await?);
        examples
    };
    let build = BuildSettings {
        source,
        read,
        out: args.out.clone().filter(|_| !args.dry_run),
        overwrite: args.overwrite,
        limit: args.limit,
        controls,
        seed: args.seed,
        concurrency: usize::from(args.concurrency),
    };
    let bytes = std::fs::metadata(&build.source).map_or(0, |file| file.len());
    let bar = bar(bytes, "{bar:30} {percent}% {msg} eta {eta}");
    let progress = |read: u64, rows: u64| {
        bar.set_position(read);
        bar.set_message(format!("{rows} rows, {:.0} rows/s", rows as f64 / started.elapsed().as_secs_f64().max(1e-3)));
    };
    let result = site.build(&config, &args.tenant, &build, &progress).await;
    bar.finish_and_clear();
    if args.dry_run && args.from_traces {
        std::fs::remove_file(&build.source).with_context(|| build.source.display().to_string())?;
    }
    show(&Report { build: result?, traces, teacher, seconds: started.elapsed().as_secs_f64() }, global.json)
}

impl Args {
    /// The rows that made examples stand beside.
    fn beside(&self) -> anyhow::Result<&Path> {
        self.out.as_deref().context("the examples are kept beside the rows: name them with --out")
    }
}

pub(super) fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = if watched() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// What to do about an error.
pub(super) fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::OtherBuild { .. } => hint(&error, "name another file with --out, or replace it with --overwrite"),
        Error::Exists { .. } => hint(&error, "name another one with --out, or replace it with --overwrite"),
        Error::Header { .. } => hint(&error, "say which column is which: --question-column NAME --answer-column NAME"),
        Error::Teacher { .. } | Error::Example { .. } | Error::Index(_) | Error::Retrieval(_) => {
            hint(&error, "what was built stays; the same command goes on from there")
        }
        _ => error.into(),
    }
}

fn show(report: &Report, as_json: bool) -> anyhow::Result<()> {
    let (counts, problems) = (&report.build.counts, &report.build.problems);
    for problem in problems.iter().take(NAMED_PROBLEMS) {
        match problem {
            Entry::Row(_) => {}
            Entry::Dropped { line, example, reason } => say(format!("dropped: line {line}, example {example}: {reason}")),
            Entry::Rejected { line, reason } => say(format!("rejected: line {line}: {reason}")),
        }
    }
    if counts.dropped + counts.rejected > NAMED_PROBLEMS as u64 {
        say("by reason:");
        counts.reasons.iter().for_each(|(reason, count)| say(format!("  {count:>6}  {reason}")));
    }
    for (change, count) in &counts.changed {
        say(format!("{count} rows are not what they were to be: {change}"));
    }
    if counts.missed > 0 {
        let served = counts.kinds.get(RowKind::Served.as_str()).copied().unwrap_or_default();
        say(format!(
            "{} of {served} served rows show no snippet that is known to hold the answer: a model learns from them to answer without a source (--missed)",
            counts.missed
        ));
    }
    if as_json {
        return json(report);
    }
    if let Some(traces) = &report.traces {
        line(format!(
            "stored answers: {} judged ({} corrected, {} liked, {} turned down), {} of the liked ones beside one that was turned down",
            traces.judged, traces.corrected, traces.liked, traces.turned_down, traces.paired
        ))?;
    }
    if let Some(teacher) = &report.teacher {
        line(format!("teacher: {} chunks, {} questions written, {} kept", teacher.chunks, teacher.written, teacher.kept))?;
        teacher.dropped.iter().chain(&teacher.passed_over).try_for_each(|(reason, count)| line(format!("  {count:>6}  {reason}")))?;
    }
    let kinds: Vec<String> = counts.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let resumed = if report.build.resumed > 0 { format!(", {} of them from before", report.build.resumed) } else { String::new() };
    line(format!(
        "{} rows ({}){resumed}; {} dropped, {} rejected; {} show the answer's source, {} cite one; {:.1} s",
        counts.rows,
        kinds.join(", "),
        counts.dropped,
        counts.rejected,
        counts.with_oracle,
        counts.cited,
        report.seconds
    ))?;
    report.build.out.as_ref().map_or(Ok(()), |out| line(out.display()))
}
