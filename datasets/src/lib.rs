//! Examples: question and answer in, training rows out.
//!
//! [`Records`] reads examples, [`Builder`] makes rows of them, [`Manifest`] says what each row was made of, [`split`] parts them,
//! [`validate`] checks what is to be trained on, [`stats`] says what is wrong with it that no target would say, [`export`] writes it for other trainers.
//! A served row's messages come from the path that serving takes, so the bytes a model is trained on are the bytes it is served.
//! This room never renders a prompt itself and never holds a citation marker: `groundtone-prompt` does.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod build;
mod duplicates;
mod error;
mod example;
pub mod export;
mod manifest;
mod origins;
mod random;
mod read;
pub mod split;
pub mod stats;
pub mod teacher;
mod tokens;
mod traces;
pub mod validate;

pub use build::{AnswerStyle, BuildEvent, BuildReport, BuildSettings, Builder, CitationStyle, Controls, Missed, Order, RowKind};
pub use duplicates::{NEAR_DUPLICATE_SIMILARITY, near_duplicate_groups};
pub use error::Error;
pub use example::Example;
pub use manifest::{
    BuildRecord, Counts, DatasetPaths, Entry, FileRecord, MANIFEST_FORMAT, Manifest, RowRecord, SnippetRecord, SourceRecord, describe,
    read_entries,
};
pub use origins::origins;
pub use read::{Columns, Format, ReadOptions, Record, Records, Turns};
pub use tokens::{Frame, RowTokens, row_tokens};
pub use traces::{TraceExamples, TracesReport};

use groundtone_prompt::{PromptMessage, Role};
use serde::{Deserialize, Serialize};

/// A training row in OpenAI's supervised format: the last message is the answer to learn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What the model reads, and then what it should write.
    pub messages: Vec<RowMessage>,
}

/// A message of a training row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowMessage {
    /// What is said, and by whom.
    #[serde(flatten)]
    pub message: PromptMessage,
    /// OpenAI's `weight`: 0 at a reply that is read and not learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u8>,
}

impl Row {
    /// A row whose answer alone is learned. The replies of the prompt (its worked example, the earlier turns) have weight 0: the same in every row, the example's answer
    /// would be learned best of all, and said where nobody asked for it.
    pub fn new(prompt: Vec<PromptMessage>, answer: impl Into<String>) -> Self {
        let read = |message: PromptMessage| {
            let weight = (message.role == Role::Assistant).then_some(0);
            RowMessage { message, weight }
        };
        let learned = RowMessage { message: PromptMessage::new(Role::Assistant, answer), weight: None };
        Self { messages: prompt.into_iter().map(read).chain([learned]).collect() }
    }
}
