use crate::Global;
use crate::output::{hint, json, line, say, told, watched};
use clap::ValueEnum;
use groundtone_datasets::validate::{Fixed, Method, Options, Report, Severity, Target, fix, rule_table, validate};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Flags of `groundtone dataset validate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A file of rows
    #[arg(required_unless_present = "rules")]
    data: Option<PathBuf>,
    /// Who is to train on it
    #[arg(long, value_enum, default_value_t = TargetArg::Openai)]
    target: TargetArg,
    /// How
    #[arg(long, value_enum, default_value_t = MethodArg::Sft)]
    method: MethodArg,
    /// Repair what is mechanical into this file, and check that one; the rest is copied as it is
    #[arg(long, value_name = "OUT")]
    fix: Option<PathBuf>,
    /// Tokens of a row that the model reads; the target's own limit where not given
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Problems that are listed; all are counted
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max_problems: usize,
    /// Replace the file of --fix where it is there
    #[arg(long, requires = "fix")]
    overwrite: bool,
    /// Print the rules as a table and end
    #[arg(long)]
    rules: bool,
}

/// Targets, as flags know them.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum TargetArg {
    /// OpenAI, and servers with its fine-tuning API
    Openai,
    /// Azure OpenAI
    Azure,
    /// Together AI
    Together,
    /// Fireworks AI
    Fireworks,
    /// Mistral AI
    Mistral,
    /// Hugging Face TRL
    Trl,
}

#[derive(Clone, Copy, ValueEnum)]
enum MethodArg {
    /// Supervised
    Sft,
    /// Preferences
    Dpo,
}

impl TargetArg {
    pub(super) fn target(self) -> Target {
        match self {
            Self::Openai => Target::OpenAi,
            Self::Azure => Target::Azure,
            Self::Together => Target::Together,
            Self::Fireworks => Target::Fireworks,
            Self::Mistral => Target::Mistral,
            Self::Trl => Target::Trl,
        }
    }
}

#[derive(Serialize)]
struct Output<'a> {
    file: &'a Path,
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<&'a Fixed>,
    seconds: f64,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let options = Options {
        target: args.target.target(),
        method: match args.method {
            MethodArg::Sft => Method::Sft,
            MethodArg::Dpo => Method::Dpo,
        },
        max_tokens: args.max_tokens,
        max_problems: args.max_problems,
        ..Options::default()
    };
    let Some(data) = args.data.clone().filter(|_| !args.rules) else { return line(rule_table().trim_end()) };
    let as_json = global.json;
    tokio::task::spawn_blocking(move || check(&data, &args, &options, as_json)).await?
}

fn open(path: &Path) -> anyhow::Result<(File, ProgressBar)> {
    let file = File::open(path).map_err(|error| hint(format!("{}: {error}", path.display()), "name a file of rows"))?;
    let bytes = file.metadata().map_or(0, |file| file.len());
    let bar = if watched() { ProgressBar::new(bytes) } else { ProgressBar::hidden() };
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent}% {binary_bytes_per_sec} eta {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    Ok((file, bar))
}

fn check(data: &Path, args: &Args, options: &Options, as_json: bool) -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let fixed = match &args.fix {
        Some(out) => Some(repair(data, out, args.overwrite, options)?),
        None => None,
    };
    let path = args.fix.as_deref().unwrap_or(data);
    let (file, bar) = open(path)?;
    let report =
        validate(bar.wrap_read(file), options).map_err(|error| hint(format!("{}: {error}", path.display()), "name a file of rows"))?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    if as_json {
        json(&Output { file: path, report: &report, fixed: fixed.as_ref(), seconds })?;
    } else {
        show(path, &report, fixed.as_ref(), seconds)?;
    }
    if report.is_valid() { Ok(()) } else { Err(told()) }
}

fn repair(data: &Path, out: &Path, overwrite: bool, options: &Options) -> anyhow::Result<Fixed> {
    if out.exists() && (!overwrite || same_file(data, out)) {
        return Err(hint(format!("{} is there already", out.display()), "name another file with --fix; the original stays as it is"));
    }
    let (source, bar) = open(data)?;
    let part = out.with_added_extension("part");
    let failed = |error: std::io::Error| hint(format!("{}: {error}", out.display()), "name a file that can be written");
    let target = File::create(&part).map_err(failed)?;
    let fixed = fix(bar.wrap_read(source), BufWriter::new(target), options).map_err(failed)?;
    bar.finish_and_clear();
    std::fs::rename(&part, out).map_err(failed)?;
    Ok(fixed)
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn show(path: &Path, report: &Report, fixed: Option<&Fixed>, seconds: f64) -> anyhow::Result<()> {
    for (rule, count) in fixed.iter().flat_map(|fixed| &fixed.repaired) {
        say(format!("repaired: {count} x {rule}"));
    }
    let mut explained = BTreeSet::new();
    for problem in &report.problems {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        line(format!("{}:{}:{}: {severity} {}: {}", path.display(), problem.line, problem.column, problem.rule, problem.message))?;
        // A rule is explained where it is met first.
        if explained.insert(problem.rule) {
            line(format!("    {}; {}", problem.why, problem.fix))?;
        }
    }
    if report.unlisted > 0 {
        say(format!("{} more problems are not listed (--max-problems)", report.unlisted));
    }
    for (rule, count) in &report.counts {
        say(format!("{count:>8}  {rule}"));
    }
    let speed = report.bytes as f64 / 1e6 / seconds.max(1e-6);
    line(format!(
        "{} rows for {} ({}): {} errors, {} warnings; {:.1} MB in {seconds:.2} s, {speed:.0} MB/s",
        report.rows,
        report.target.as_str(),
        report.method.as_str(),
        report.errors,
        report.warnings,
        report.bytes as f64 / 1e6,
    ))
}
