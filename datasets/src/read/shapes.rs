//! One JSON record into examples, by its keys or as it was said.

use super::columns::{Field, documents};
use super::{Format, ReadOptions, Turns};
use crate::Example;
use groundtone_prompt::{PromptMessage, Role};
use serde_json::{Map, Value};

/// The examples of a record; never none.
pub(super) fn examples(record: &[u8], line: u64, options: &ReadOptions) -> Result<Vec<Example>, String> {
    let value: Value = serde_json::from_slice(record).map_err(|error| format!("is no JSON: {}", without_place(&error)))?;
    let Value::Object(object) = value else { return Err("is no JSON object".to_owned()) };
    // Evaluation files wrap each record: {"item": {...}}.
    let object = match object.get("item") {
        Some(Value::Object(inner)) if object.len() == 1 => inner.clone(),
        _ => object,
    };
    let format = match options.format {
        Format::Auto => shape(&object),
        other => other,
    };
    let common = Common { id: text(&object, "id").unwrap_or_else(|| format!("line-{line}")), object: &object, options };
    match format {
        Format::Messages => common.conversation("messages", "role", "content"),
        Format::ShareGpt => common.conversation("conversations", "from", "value"),
        Format::Alpaca => common.alpaca(),
        Format::Traces => common.trace(),
        Format::Auto | Format::Csv | Format::Qa => common.question_and_answer(),
    }
}

/// serde_json's message without its line and column: they count from the beginning of the record.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned() + &format!(" at column {}", error.column())
}

fn shape(object: &Map<String, Value>) -> Format {
    let has = |key: &str| object.contains_key(key);
    if has("messages") {
        Format::Messages
    } else if has("conversations") {
        Format::ShareGpt
    } else if has("instruction") && has("output") {
        Format::Alpaca
    } else if has("trace_id") || has("correction") || has("thumb") {
        Format::Traces
    } else {
        Format::Qa
    }
}

/// Checks what every example must have, and takes the blanks off its ends.
pub(super) fn finish(mut example: Example) -> Result<Example, String> {
    example.question = example.question.trim().to_owned();
    example.answer = example.answer.trim().to_owned();
    match (example.question.is_empty(), example.answer.is_empty()) {
        (true, _) => Err("the question is empty".to_owned()),
        (_, true) => Err("the answer is empty".to_owned()),
        _ => Ok(example),
    }
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    match object.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

struct Common<'a> {
    id: String,
    object: &'a Map<String, Value>,
    options: &'a ReadOptions,
}

struct Turn {
    role: Role,
    text: String,
    /// OpenAI's `weight: 0`: read, not learned.
    learned: bool,
}

impl Common<'_> {
    /// The value of a key; a dotted name goes into objects.
    fn at(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.object.get(name) {
            return Some(value);
        }
        let mut parts = name.split('.');
        parts.next().and_then(|first| self.object.get(first)).and_then(|value| parts.try_fold(value, |value, part| value.get(part)))
    }

    fn field(&self, field: Field) -> Option<&Value> {
        let there: Vec<&str> = self.object.keys().map(String::as_str).collect();
        self.options.columns.find(field, &there).and_then(|name| self.at(name))
    }

    fn said(&self, field: Field) -> Option<String> {
        match self.field(field)? {
            Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn required(&self, field: Field, what: &str) -> Result<String, String> {
        match self.field(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(format!("its {what} is no text")),
            None => Err(format!("has no {what}; its keys are: {}", self.object.keys().cloned().collect::<Vec<_>>().join(", "))),
        }
    }

    /// An example with everything but question and answer.
    fn base(&self) -> Result<Example, String> {
        let names = match self.field(Field::Documents) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => documents(text),
            Some(Value::Array(list)) => list
                .iter()
                .map(|name| name.as_str().map(str::to_owned).ok_or_else(|| "its documents are not all texts".to_owned()))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err("its documents are neither a text nor a list".to_owned()),
        };
        let parsed = |key: &str| self.object.get(key).filter(|value| !value.is_null()).cloned();
        let span = parsed("span").map(serde_json::from_value).transpose().map_err(|error| format!("its span is wrong: {error}"))?;
        let history = parsed("history").filter(|value| value.as_array().is_none_or(|list| list.iter().all(Value::is_object)));
        let history = history.map(serde_json::from_value).transpose().map_err(|error| format!("its history is wrong: {error}"))?;
        Ok(Example {
            id: self.said(Field::Id).unwrap_or_else(|| self.id.clone()),
            documents: names,
            span,
            history: history.unwrap_or_default(),
            label: self.said(Field::Label),
            group: self.said(Field::Group),
            rejected: text(self.object, "rejected").filter(|text| !text.trim().is_empty()),
            ..Example::default()
        })
    }

    fn question_and_answer(&self) -> Result<Vec<Example>, String> {
        let (question, answer) = (self.required(Field::Question, "question")?, self.required(Field::Answer, "answer")?);
        Ok(vec![finish(Example { question, answer, ..self.base()? })?])
    }

    fn trace(&self) -> Result<Vec<Example>, String> {
        let (question, answer) = (self.required(Field::Question, "question")?, self.required(Field::Answer, "answer")?);
        let base = Example { question, id: text(self.object, "trace_id").unwrap_or_else(|| self.id.clone()), ..self.base()? };
        if self.object.get("redacted") == Some(&Value::Bool(true)) {
            return Err("personal data was taken out of its answer: a model would learn to write what stands there now".to_owned());
        }
        let correction = text(self.object, "correction").filter(|text| !text.trim().is_empty());
        let up = match self.object.get("thumb") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(up)) => Some(*up),
            Some(Value::Number(number)) if number.as_i64() == Some(1) => Some(true),
            Some(Value::Number(number)) if matches!(number.as_i64(), Some(-1 | 0)) => Some(false),
            Some(Value::String(word)) if word.eq_ignore_ascii_case("up") => Some(true),
            Some(Value::String(word)) if word.eq_ignore_ascii_case("down") => Some(false),
            Some(other) => return Err(format!("its thumb is `{other}`, neither \"up\" nor \"down\"")),
        };
        let example = match (correction, up) {
            (Some(correction), _) if correction.trim() == answer.trim() => Example { answer, ..base },
            (Some(correction), _) => Example { answer: correction, rejected: Some(answer), ..base },
            (None, Some(true)) => Example { answer, ..base },
            (None, Some(false)) => return Err("was turned down and has no correction: there is nothing to learn from it".to_owned()),
            (None, None) => return Err("nobody judged it: it has neither a thumb nor a correction".to_owned()),
        };
        Ok(vec![finish(example)?])
    }

    fn alpaca(&self) -> Result<Vec<Example>, String> {
        let part = |key: &str| text(self.object, key).filter(|text| !text.trim().is_empty());
        let instruction = part("instruction").ok_or("its instruction is empty")?;
        let answer = part("output").ok_or("its output is empty")?;
        let question = match part("input") {
            Some(input) => format!("{}\n\n{}", instruction.trim(), input.trim()),
            None => instruction,
        };
        let mut history = Vec::new();
        if let Some(Value::Array(pairs)) = self.object.get("history") {
            for pair in pairs {
                let (Some(asked), Some(said)) = (pair.get(0).and_then(Value::as_str), pair.get(1).and_then(Value::as_str)) else {
                    return Err("its history is no list of pairs of texts".to_owned());
                };
                history.extend([PromptMessage::new(Role::User, asked), PromptMessage::new(Role::Assistant, said)]);
            }
        }
        if let (true, Some(system)) = (self.options.keep_system, part("system")) {
            history.insert(0, PromptMessage::new(Role::System, system));
        }
        Ok(vec![finish(Example { question, answer, history, ..self.base()? })?])
    }

    fn conversation(&self, list: &str, role: &str, content: &str) -> Result<Vec<Example>, String> {
        let Some(Value::Array(messages)) = self.object.get(list) else { return Err(format!("its `{list}` is no list")) };
        let turns = messages
            .iter()
            .enumerate()
            .map(|(at, message)| turn(message, role, content).map_err(|reason| format!("message {}: {reason}", at + 1)));
        let turns = turns.collect::<Result<Vec<Turn>, String>>()?;
        let replies: Vec<usize> = (0..turns.len()).filter(|&at| turns[at].role == Role::Assistant && turns[at].learned).collect();
        let Some(&last) = replies.last() else { return Err("has no reply of the assistant that is to be learned".to_owned()) };
        let chosen = if self.options.turns == Turns::Every { replies } else { vec![last] };
        let several = chosen.len() > 1;
        chosen.into_iter().enumerate().map(|(number, at)| self.reply(&turns[..=at], several.then_some(number + 1))).collect()
    }

    /// The example of a conversation's last turn.
    fn reply(&self, turns: &[Turn], number: Option<usize>) -> Result<Example, String> {
        let [before @ .., question, answer] = turns else { return Err("the assistant speaks first".to_owned()) };
        if question.role != Role::User {
            return Err("a reply of the assistant does not follow a message of the user".to_owned());
        }
        let kept = before.iter().filter(|turn| turn.role != Role::System || self.options.keep_system);
        let base = self.base()?;
        let id = number.map_or_else(|| base.id.clone(), |number| format!("{}#{number}", base.id));
        // Replies of one conversation stay together.
        let group = base.group.clone().or_else(|| number.map(|_| base.id.clone()));
        finish(Example {
            id,
            group,
            question: question.text.clone(),
            answer: answer.text.clone(),
            history: kept.map(|turn| PromptMessage::new(turn.role, turn.text.clone())).collect(),
            ..base
        })
    }
}

fn turn(message: &Value, role_key: &str, content_key: &str) -> Result<Turn, String> {
    let who = message.get(role_key).and_then(Value::as_str).ok_or_else(|| format!("has no `{role_key}`"))?;
    let role = match who.to_lowercase().as_str() {
        "system" | "developer" => Role::System,
        "user" | "human" => Role::User,
        "assistant" | "gpt" | "chatgpt" | "bard" | "bing" | "model" | "bot" => Role::Assistant,
        "tool" | "function" => return Err("is a tool's; conversations with tools are not trained on".to_owned()),
        other => return Err(format!("`{other}` is no role")),
    };
    let text = match message.get(content_key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let part = |part: &Value| part.get("text").and_then(Value::as_str).map(str::to_owned);
            let texts: Option<Vec<String>> = parts.iter().map(part).collect();
            texts.ok_or_else(|| "holds something other than text".to_owned())?.join("\n")
        }
        _ if message.get("tool_calls").is_some() => return Err("calls a tool; conversations with tools are not trained on".to_owned()),
        _ => return Err(format!("its `{content_key}` is no text")),
    };
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    let learned = message.get("weight").and_then(Value::as_f64) != Some(0.0);
    Ok(Turn { role, text, learned })
}
