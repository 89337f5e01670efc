use super::build::explain;
use crate::Global;
use crate::assemble::settings;
use crate::output::{json, line, say};
use clap::ValueEnum;
use groundtone_datasets::split::{GroupBy, SplitReport, SplitSettings, split};
use std::path::PathBuf;

/// A part that misses its share by more than this many hundredths is said.
const TOLD: f64 = 0.02;

/// Flags of `groundtone dataset split`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A file of rows
    data: PathBuf,
    /// The folder of train.jsonl, validation.jsonl and test.jsonl; the dataset's name without its ending where not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Share of rows to train on
    #[arg(long, default_value_t = 0.8, value_name = "SHARE")]
    train: f64,
    /// Share of rows that a trainer watches
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    validation: f64,
    /// Share of rows that nobody sees before the evaluation
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    test: f64,
    /// What must not be parted
    #[arg(long, value_enum, default_value_t = ByArg::Document)]
    by: ByArg,
    /// Seed of every choice; the same seed gives the same parts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Replace parts that are there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ByArg {
    /// Rows whose answers come from the same document, and rows of one group
    Document,
    /// Rows of one group
    Group,
    /// Near duplicates only
    Row,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    settings(global, &[])?;
    let split_settings = SplitSettings {
        out: args.out.unwrap_or_else(|| args.data.with_extension("")),
        data: args.data,
        parts: vec![("train".to_owned(), args.train), ("validation".to_owned(), args.validation), ("test".to_owned(), args.test)],
        by: match args.by {
            ByArg::Document => GroupBy::Document,
            ByArg::Group => GroupBy::Group,
            ByArg::Row => GroupBy::Row,
        },
        seed: args.seed,
        overwrite: args.overwrite,
    };
    let report = tokio::task::spawn_blocking(move || split(&split_settings)).await?.map_err(explain)?;
    show(&report, global.json)
}

fn show(report: &SplitReport, as_json: bool) -> anyhow::Result<()> {
    if report.parts.iter().any(|part| (part.got - part.wanted).abs() > TOLD) {
        say(format!(
            "the shares cannot be met closer: {} rows are in {} groups that stay whole, the largest of {} rows",
            report.rows, report.groups, report.largest_group
        ));
    }
    if as_json {
        return json(report);
    }
    for part in &report.parts {
        let (got, wanted) = (part.got * 100.0, part.wanted * 100.0);
        line(format!("{:<10} {:>6} rows, {got:.1} % ({wanted:.1} % wanted)  {}", part.name, part.rows, part.path.display()))?;
    }
    line(format!("{} rows in {} groups; {} rows have no document and no group", report.rows, report.groups, report.ungrouped))
}
