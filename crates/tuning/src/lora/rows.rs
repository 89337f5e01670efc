//! Training files: OpenAI's chat rows and preference rows, one JSON object a line, read as the served model reads chats.

use crate::{Method, TrainError};
use groundtone_local::ChatTokenizer;
use groundtone_openai_api::{Content, RequestMessage};
use groundtone_prompt::{PromptMessage, Role};
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;

/// A longer line is an error, not memory.
const LONGEST_LINE: u64 = 16 << 20;

/// A chat to learn from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sequence {
    /// Up to its last answer token.
    pub(super) tokens: Vec<u32>,
    /// Answers to learn, places of their tokens.
    pub(super) answers: Vec<Range<usize>>,
    /// Whether it lost its tail.
    pub(super) cut: bool,
}

/// A row: one chat, or for DPO the preferred one and the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row(pub(super) Vec<Sequence>);

impl Row {
    pub(super) fn tokens(&self) -> usize {
        self.0.iter().map(|sequence| sequence.tokens.len()).sum()
    }
}

#[derive(Deserialize)]
struct ChatRow {
    messages: Vec<RequestMessage>,
    #[serde(default)]
    tools: Option<Value>,
    #[serde(default)]
    functions: Option<Value>,
}

#[derive(Deserialize)]
struct PreferenceRow {
    input: ChatRow,
    #[serde(alias = "preferred_completion")]
    preferred_output: Vec<RequestMessage>,
    #[serde(alias = "non_preferred_completion")]
    non_preferred_output: Vec<RequestMessage>,
}

/// How rows become tokens.
pub(super) struct Reader<'a> {
    pub(super) tokenizer: &'a ChatTokenizer,
    pub(super) method: Method,
    /// Tokens that a row keeps.
    pub(super) longest: usize,
}

impl Reader<'_> {
    /// Every row of a file.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<Row>, TrainError> {
        let mut file = BufReader::new(File::open(path).map_err(|error| TrainError::file(path, error))?);
        let (mut rows, mut number, mut line) = (Vec::new(), 0, Vec::new());
        loop {
            line.clear();
            number += 1;
            let read = file.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut line).map_err(|error| TrainError::file(path, error))?;
            if read == 0 {
                break;
            }
            let refused = |reason: String| TrainError::Row { path: path.to_owned(), line: number, reason };
            if read as u64 > LONGEST_LINE {
                return Err(refused(format!("longer than {LONGEST_LINE} bytes")));
            }
            let text = std::str::from_utf8(&line).map_err(|_| refused("not UTF-8".to_owned()))?;
            let text = text.trim_start_matches('\u{feff}').trim();
            if !text.is_empty() {
                rows.push(self.row(text).map_err(refused)?);
            }
        }
        if rows.is_empty() {
            return Err(TrainError::Empty { path: path.to_owned() });
        }
        Ok(rows)
    }

    fn row(&self, text: &str) -> Result<Row, String> {
        match self.method {
            Method::Supervised => {
                let row: ChatRow = serde_json::from_str(text).map_err(|error| error.to_string())?;
                no_tools(&row)?;
                Ok(Row(vec![self.sequence(&row.messages, false)?]))
            }
            Method::Dpo { .. } => {
                let row: PreferenceRow = serde_json::from_str(text).map_err(|error| error.to_string())?;
                no_tools(&row.input)?;
                if row.input.messages.is_empty() {
                    return Err("`input.messages` is empty".to_owned());
                }
                let whole = |output: Vec<RequestMessage>, name: &str| {
                    if output.len() != 1 || output[0].role != "assistant" {
                        return Err(format!("`{name}` must be one message of the assistant"));
                    }
                    let messages: Vec<RequestMessage> = row.input.messages.iter().cloned().chain(output).collect();
                    self.sequence(&messages, true).map_err(|reason| format!("`{name}`: {reason}"))
                };
                let sequences =
                    vec![whole(row.preferred_output, "preferred_output")?, whole(row.non_preferred_output, "non_preferred_output")?];
                Ok(Row(sequences))
            }
        }
    }

    /// Tokens of a chat, and those of its weighted answers; with `last_only` of the last answer.
    fn sequence(&self, messages: &[RequestMessage], last_only: bool) -> Result<Sequence, String> {
        if messages.last().is_none_or(|message| message.role != "assistant") {
            return Err("the last message must be the assistant's".to_owned());
        }
        let prompt = messages.iter().enumerate().map(|(at, message)| prompt_message(at, message)).collect::<Result<Vec<_>, _>>()?;
        let mut chat = self.tokenizer.chat(&prompt)?;
        let mut answers = Vec::new();
        for answer in &chat.answers {
            let learned = if last_only { answer.message + 1 == messages.len() } else { weight(answer.message, &messages[answer.message])? };
            if learned {
                answers.push(answer.tokens.clone());
            }
        }
        if answers.is_empty() {
            return Err("no message of the assistant has the weight 1".to_owned());
        }
        let cut = answers.last().is_some_and(|answer| answer.end > self.longest);
        if cut {
            answers.retain(|answer| answer.start < self.longest);
            answers.iter_mut().for_each(|answer| answer.end = answer.end.min(self.longest));
        }
        let end = answers.last().map(|answer| answer.end);
        let end = end.ok_or_else(|| format!("its {} tokens have no answer among the first {}", chat.tokens.len(), self.longest))?;
        chat.tokens.truncate(end);
        Ok(Sequence { tokens: chat.tokens, answers, cut })
    }
}

fn no_tools(row: &ChatRow) -> Result<(), String> {
    let some = |list: &Option<Value>| list.as_ref().and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if some(&row.tools) || some(&row.functions) {
        return Err("the local model's chat template has no tools; train such rows elsewhere".to_owned());
    }
    Ok(())
}

/// Whether an answer is learned: its `weight` is 1 where it says nothing.
fn weight(at: usize, message: &RequestMessage) -> Result<bool, String> {
    match message.rest.get("weight") {
        None | Some(Value::Null) => Ok(true),
        Some(weight) => match weight.as_f64() {
            Some(1.0) => Ok(true),
            Some(0.0) => Ok(false),
            _ => Err(format!("`messages[{at}].weight` must be 0 or 1")),
        },
    }
}

fn prompt_message(at: usize, message: &RequestMessage) -> Result<PromptMessage, String> {
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        role => return Err(format!("`messages[{at}].role` is `{role}`, which the local model cannot be trained on")),
    };
    let calls = ["tool_calls", "function_call"].into_iter().find(|name| message.rest.get(*name).is_some_and(|calls| !calls.is_null()));
    if let Some(name) = calls {
        return Err(format!("`messages[{at}].{name}`: the local model's chat template has no tools"));
    }
    let content = match &message.content {
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Parts(parts)) => {
            let text = |part: &groundtone_openai_api::ContentPart| part.text.clone().filter(|_| part.kind == "text");
            let texts: Option<Vec<String>> = parts.iter().map(text).collect();
            // Put together as the server does.
            texts.ok_or_else(|| format!("`messages[{at}].content` has a part that is no text"))?.join("\n")
        }
        None => match message.rest.get("refusal").and_then(Value::as_str) {
            Some(refusal) if role == Role::Assistant => refusal.to_owned(),
            _ => return Err(format!("`messages[{at}].content` is missing")),
        },
    };
    Ok(PromptMessage::new(role, content))
}
