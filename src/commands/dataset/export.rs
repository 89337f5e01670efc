use super::build::explain;
use super::validate::TargetArg;
use crate::Global;
use crate::assemble::settings;
use crate::output::{json, line, say};
use clap::ValueEnum;
use groundtone_datasets::export::{ExportFormat, ExportReport, ExportSettings, export};
use std::path::{Path, PathBuf};

/// Left out rows that are said one by one.
const NAMED: usize = 20;

/// Flags of `groundtone dataset export`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A file of rows: messages, prompt and completion, ShareGPT, Alpaca, or preferences
    data: PathBuf,
    /// For whom
    #[arg(long, value_enum)]
    to: FormatArg,
    /// The new file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write pairs of preferred and turned down answers: of preference rows, and of rows built from corrections
    #[arg(long)]
    dpo: bool,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArg {
    /// OpenAI, and servers with its fine-tuning API
    Openai,
    /// Azure OpenAI: with a byte order mark
    Azure,
    /// Together AI
    Together,
    /// Fireworks AI
    Fireworks,
    /// Mistral AI
    Mistral,
    /// Hugging Face TRL
    Trl,
    /// `conversations` with `from` and `value`
    Sharegpt,
    /// `instruction`, `input`, `output`, `history`
    Alpaca,
}

impl FormatArg {
    /// Whether its trainers learn every reply where nothing else is set.
    fn needs_masking(self) -> bool {
        matches!(self, Self::Sharegpt | Self::Alpaca)
    }

    fn format(self) -> ExportFormat {
        let target = match self {
            Self::Openai => TargetArg::Openai,
            Self::Azure => TargetArg::Azure,
            Self::Together => TargetArg::Together,
            Self::Fireworks => TargetArg::Fireworks,
            Self::Mistral => TargetArg::Mistral,
            Self::Trl => TargetArg::Trl,
            Self::Sharegpt => return ExportFormat::ShareGpt,
            Self::Alpaca => return ExportFormat::Alpaca,
        };
        ExportFormat::For(target.target())
    }
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let export_settings = ExportSettings {
        data: args.data,
        out: args.out.clone(),
        to: args.to.format(),
        preferences: args.dpo,
        max_line_bytes: config.sources.record_max_bytes,
        overwrite: args.overwrite,
    };
    let report = tokio::task::spawn_blocking(move || export(&export_settings)).await?.map_err(explain)?;
    show(&report, args.to, &args.out, global.json)
}

fn show(report: &ExportReport, to: FormatArg, out: &Path, as_json: bool) -> anyhow::Result<()> {
    for (line, reason) in report.named.iter().take(NAMED) {
        say(format!("left out: line {line} {reason}"));
    }
    if report.left_out > NAMED as u64 {
        report.reasons.iter().for_each(|(reason, count)| say(format!("  {count:>6}  {reason}")));
    }
    if report.last_reply_only && to.needs_masking() {
        say(
            "this shape cannot say that only the last reply of each row is to be learned: tell the trainer (LLaMA-Factory: mask_history: true)",
        );
    }
    if as_json {
        return json(report);
    }
    line(format!("{} of {} rows written, {} left out: {}", report.written, report.rows, report.left_out, out.display()))
}
