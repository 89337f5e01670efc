//! Rows of answers: out of every shape that people have, into the shape that a trainer wants.

use super::ExportFormat;
use crate::duplicates::hash_bytes;
use crate::validate::Target;
use serde_json::{Map, Value, json};

/// How rows are written.
pub(super) struct Style {
    pub(super) to: ExportFormat,
    /// The last reply of each row alone is learned: prompt and completion for TRL, and a history that its trainer masks for ShareGPT and Alpaca.
    pub(super) last_only: bool,
}

pub(super) type Said<T> = Result<T, String>;

pub(super) fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn is_unlearned(message: &Value) -> bool {
    message.get("weight").and_then(Value::as_f64) == Some(0.0)
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// A row's messages, whatever shape it has.
pub(super) fn messages(row: &Value) -> Said<Vec<Value>> {
    let text = |key: &str| row.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    if let Some(messages) = row.get("messages") {
        return messages.as_array().cloned().ok_or_else(|| "its messages are no list".to_owned());
    }
    if let Some(turns) = row.get("conversations").and_then(Value::as_array) {
        let system = text("system").map(|text| message("system", text));
        let turns = turns.iter().map(|turn| {
            let said = |key: &str| turn.get(key).and_then(Value::as_str);
            let role = match said("from").unwrap_or_default() {
                "system" => "system",
                "human" | "user" => "user",
                "gpt" | "assistant" | "chatgpt" | "model" | "bot" => "assistant",
                other => return Err(format!("`{other}` is no role that can be converted")),
            };
            Ok(message(role, said("value").ok_or_else(|| "a turn has no value".to_owned())?))
        });
        return system.into_iter().map(Ok).chain(turns).collect();
    }
    if let (Some(instruction), Some(output)) = (text("instruction"), text("output")) {
        let question = text("input").map_or_else(|| instruction.to_owned(), |input| format!("{instruction}\n\n{input}"));
        let mut messages: Vec<Value> = text("system").map(|text| message("system", text)).into_iter().collect();
        for pair in row.get("history").and_then(Value::as_array).into_iter().flatten() {
            let (Some(asked), Some(said)) = (pair.get(0).and_then(Value::as_str), pair.get(1).and_then(Value::as_str)) else {
                return Err("its history is no list of pairs".to_owned());
            };
            messages.extend([message("user", asked), message("assistant", said)]);
        }
        messages.extend([message("user", &question), message("assistant", output)]);
        return Ok(messages);
    }
    match (text("prompt"), text("completion")) {
        (Some(prompt), Some(completion)) => Ok(vec![message("user", prompt), message("assistant", completion)]),
        _ => Err("has neither messages nor another shape that is known".to_owned()),
    }
}

/// Writes a row of answers.
pub(super) fn write(row: &Value, style: &Style) -> Said<Value> {
    let messages = messages(row)?;
    if messages.last().map(role) != Some("assistant") {
        return Err("does not end with the assistant".to_owned());
    }
    if style.last_only {
        last_reply_only(&messages)?;
    }
    match style.to {
        ExportFormat::ShareGpt => share_gpt(row, &messages),
        ExportFormat::Alpaca => alpaca(row, &messages),
        ExportFormat::For(target) => {
            let mut written = Map::new();
            let adapted = adapt(messages, target)?;
            if style.last_only {
                let (prompt, completion) = adapted.split_at(adapted.len() - 1);
                written.insert("prompt".into(), plain(prompt).into());
                written.insert("completion".into(), plain(completion).into());
            } else {
                let list = if target == Target::Trl { plain(&adapted) } else { adapted };
                written.insert("messages".into(), list.into());
            }
            for key in ["tools", "parallel_tool_calls", "functions"] {
                if let Some(value) =
                    row.get(key).filter(|_| key == "tools" || matches!(target, Target::OpenAi | Target::Azure | Target::Fireworks))
                {
                    written.insert(key.into(), value.clone());
                }
            }
            Ok(written.into())
        }
    }
}

/// Whether the last reply is learned and no other: what a shape without weights can say, once for a whole file.
fn last_reply_only(messages: &[Value]) -> Said<()> {
    let Some((last, before)) = messages.split_last() else { return Ok(()) };
    if before.iter().any(|message| role(message) == "assistant" && !is_unlearned(message)) {
        return Err("several replies are learned, and some replies of the file are not, which this shape cannot say".to_owned());
    }
    if is_unlearned(last) {
        return Err("its last reply is not learned, which this shape cannot say".to_owned());
    }
    Ok(())
}

/// Without weights.
pub(super) fn plain(messages: &[Value]) -> Vec<Value> {
    let mut messages = messages.to_vec();
    for object in messages.iter_mut().filter_map(Value::as_object_mut) {
        object.shift_remove("weight");
    }
    messages
}

/// Messages as a target wants them.
pub(super) fn adapt(mut messages: Vec<Value>, target: Target) -> Said<Vec<Value>> {
    if matches!(target, Target::OpenAi | Target::Azure | Target::Fireworks) {
        return Ok(messages);
    }
    for message in &mut messages {
        if role(message) == "function" || message.get("function_call").is_some_and(|call| !call.is_null()) {
            return Err("has the older functions, which this target does not know".to_owned());
        }
        if role(message) == "developer" {
            message["role"] = "system".into();
        }
        match target {
            Target::Mistral => mistral_ids(message),
            Target::Trl => parsed_arguments(message)?,
            _ => {}
        }
    }
    if target == Target::Together {
        in_turn(&messages)?;
    }
    Ok(messages)
}

/// User and assistant in turn, behind at most one system message.
fn in_turn(messages: &[Value]) -> Said<()> {
    let turns: Vec<&str> = messages.iter().map(role).skip_while(|role| *role == "system").filter(|role| *role != "tool").collect();
    let systems = messages.iter().filter(|message| role(message) == "system").count();
    if systems > 1 || turns.contains(&"system") {
        return Err("has a system message behind the beginning".to_owned());
    }
    let calls = messages.iter().any(|message| message.get("tool_calls").is_some());
    match turns.first() {
        Some(&"user") if calls || turns.windows(2).all(|pair| pair[0] != pair[1]) => Ok(()),
        Some(&"user") => Err("user and assistant do not speak in turn".to_owned()),
        _ => Err("the user does not speak first".to_owned()),
    }
}

/// Nine letters and digits, the same for the same id.
fn mistral_id(id: &str) -> String {
    if id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    format!("{:016x}", hash_bytes(id.as_bytes())).chars().take(9).collect()
}

fn mistral_ids(message: &mut Value) {
    let convert = |value: &mut Value| {
        if let Some(id) = value.as_str() {
            *value = mistral_id(id).into();
        }
    };
    if let Some(id) = message.get_mut("tool_call_id") {
        convert(id);
    }
    for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(id) = call.get_mut("id") {
            convert(id);
        }
    }
}

/// Chat templates want a call's arguments as an object.
fn parsed_arguments(message: &mut Value) -> Said<()> {
    for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        if let Some(text) = arguments.as_str() {
            let parsed: Value = serde_json::from_str(text).map_err(|_| "a call's arguments are no JSON".to_owned())?;
            *arguments = parsed;
        }
    }
    Ok(())
}

/// A message that is nothing but a text.
pub(super) fn text(message: &Value) -> Said<String> {
    match message.get("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text").and_then(Value::as_str)).collect();
            texts.map(|texts| texts.join("\n")).ok_or_else(|| "has something other than text".to_owned())
        }
        _ => Err("has a message without text".to_owned()),
    }
}

fn only_text(row: &Value, messages: &[Value]) -> Said<()> {
    if row.get("tools").is_some()
        || row.get("functions").is_some()
        || messages.iter().any(|message| matches!(role(message), "tool" | "function"))
    {
        return Err("has tools, which this shape cannot say".to_owned());
    }
    Ok(())
}

pub(super) fn share_gpt_turns(messages: &[Value]) -> Said<Vec<Value>> {
    let turns = messages.iter().map(|message| {
        let from = match role(message) {
            "system" | "developer" => "system",
            "user" => "human",
            "assistant" => "gpt",
            other => return Err(format!("has a message of `{other}`, which this shape cannot say")),
        };
        Ok(json!({"from": from, "value": text(message)?}))
    });
    turns.collect()
}

fn share_gpt(row: &Value, messages: &[Value]) -> Said<Value> {
    only_text(row, messages)?;
    Ok(json!({"conversations": share_gpt_turns(messages)?}))
}

/// System text, earlier pairs and the question of messages that end with the user.
pub(super) fn alpaca_prompt(messages: &[Value]) -> Said<Map<String, Value>> {
    let (system, talk): (Vec<&Value>, Vec<&Value>) = messages.iter().partition(|message| matches!(role(message), "system" | "developer"));
    let in_turn = talk.iter().enumerate().all(|(at, message)| role(message) == if at % 2 == 0 { "user" } else { "assistant" });
    let (Some((question, before)), true) = (talk.split_last(), in_turn && talk.len() % 2 == 1) else {
        return Err("user and assistant do not speak in turn".to_owned());
    };
    let texts = |messages: &[&Value]| messages.iter().map(|message| text(message)).collect::<Said<Vec<String>>>();
    let mut row = Map::new();
    row.insert("instruction".into(), text(question)?.into());
    row.insert("input".into(), "".into());
    if !system.is_empty() {
        row.insert("system".into(), texts(&system)?.join("\n\n").into());
    }
    if !before.is_empty() {
        let pairs: Vec<Value> = texts(before)?.chunks(2).map(|pair| json!(pair)).collect();
        row.insert("history".into(), pairs.into());
    }
    Ok(row)
}

fn alpaca(row: &Value, messages: &[Value]) -> Said<Value> {
    only_text(row, messages)?;
    let (answer, before) = messages.split_last().ok_or("has no messages")?;
    let mut written = alpaca_prompt(before)?;
    written.insert("output".into(), text(answer)?.into());
    Ok(written.into())
}
