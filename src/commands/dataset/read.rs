//! Flags that say how a file of examples is read.

use clap::ValueEnum;
use groundtone_config::Config;
use groundtone_datasets::{Columns, Format, ReadOptions, Turns};

/// How examples are read.
#[derive(clap::Args)]
pub(super) struct ReadArgs {
    /// What the records look like; by the file's ending and each record's keys where not given
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Column or key of the question (`item.question` goes into objects)
    #[arg(long, value_name = "NAME")]
    question_column: Option<String>,
    /// Column or key of the answer
    #[arg(long, value_name = "NAME")]
    answer_column: Option<String>,
    /// Column or key of the example's name
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    /// Column or key of the documents that hold the answer
    #[arg(long, value_name = "NAME")]
    documents_column: Option<String>,
    /// Column or key of the label
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Column or key of what must stay in one split
    #[arg(long, value_name = "NAME")]
    group_column: Option<String>,
    /// Make an example of every reply of a conversation, not of the last one only
    #[arg(long)]
    every_turn: bool,
    /// Keep the system messages of logs, behind the brand's own text
    #[arg(long)]
    keep_system: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArg {
    /// A table with a header line
    Csv,
    /// Objects with a question and an answer
    Qa,
    /// OpenAI's chat format, and existing fine-tuning files
    Messages,
    /// `conversations` with `from` and `value`
    Sharegpt,
    /// `instruction`, `input`, `output`
    Alpaca,
    /// Stored answers with `correction` and `thumb`
    Traces,
}

impl ReadArgs {
    pub(super) fn options(&self, config: &Config) -> ReadOptions {
        let format = match self.format {
            None => Format::Auto,
            Some(FormatArg::Csv) => Format::Csv,
            Some(FormatArg::Qa) => Format::Qa,
            Some(FormatArg::Messages) => Format::Messages,
            Some(FormatArg::Sharegpt) => Format::ShareGpt,
            Some(FormatArg::Alpaca) => Format::Alpaca,
            Some(FormatArg::Traces) => Format::Traces,
        };
        let columns = Columns {
            question: self.question_column.clone(),
            answer: self.answer_column.clone(),
            id: self.id_column.clone(),
            documents: self.documents_column.clone(),
            label: self.label_column.clone(),
            group: self.group_column.clone(),
        };
        let turns = if self.every_turn { Turns::Every } else { Turns::Last };
        ReadOptions { format, columns, turns, keep_system: self.keep_system, max_record_bytes: config.sources.record_max_bytes }
    }
}
