//! Preference pairs: what people corrected or turned down, beside what they wanted.

use super::ExportFormat;
use super::shapes::{Said, Style, adapt, alpaca_prompt, plain, role, share_gpt_turns, text};
use crate::validate::Target;
use serde_json::{Map, Value, json};

/// One pair.
pub(super) struct Pair {
    input: Vec<Value>,
    preferred: Value,
    rejected: Value,
    tools: Option<Value>,
}

fn one(row: &Value, key: &str) -> Said<Option<Value>> {
    let older = key.replace("_output", "_completion");
    match row.get(key).or_else(|| row.get(&older)) {
        None => Ok(None),
        Some(Value::Array(list)) if list.len() == 1 => Ok(Some(list[0].clone())),
        Some(_) => Err(format!("its {key} is no list of one message")),
    }
}

/// The pair of a row: the row's own, or its answer against one that was turned down.
pub(super) fn pair(row: &Value, turned_down: Option<&String>) -> Said<Pair> {
    if let (Some(preferred), Some(rejected)) = (one(row, "preferred_output")?, one(row, "non_preferred_output")?) {
        let input = row.pointer("/input/messages").and_then(Value::as_array).ok_or("its input has no messages")?;
        return Ok(Pair { input: plain(input), preferred, rejected, tools: row.pointer("/input/tools").cloned() });
    }
    let Some(turned_down) = turned_down else { return Err("nobody turned down another answer to it".to_owned()) };
    let messages = super::shapes::messages(row)?;
    let Some((answer, input)) = messages.split_last().filter(|(answer, _)| role(answer) == "assistant") else {
        return Err("does not end with the assistant".to_owned());
    };
    let mut preferred = answer.clone();
    if let Some(object) = preferred.as_object_mut() {
        object.shift_remove("weight");
    }
    if text(&preferred).is_ok_and(|preferred| preferred.trim() == turned_down.trim()) {
        return Err("the answer that was turned down is the answer itself".to_owned());
    }
    let rejected = json!({"role": "assistant", "content": turned_down});
    Ok(Pair { input: plain(input), preferred, rejected, tools: row.get("tools").cloned() })
}

pub(super) fn write(pair: &Pair, style: &Style) -> Said<Value> {
    let tools = |mut object: Map<String, Value>| {
        if let Some(tools) = &pair.tools {
            object.insert("tools".into(), tools.clone());
        }
        object
    };
    match style.to {
        ExportFormat::For(Target::Trl) => {
            let adapted = |messages: Vec<Value>| adapt(messages, Target::Trl);
            let mut row = Map::new();
            row.insert("prompt".into(), adapted(pair.input.clone())?.into());
            row.insert("chosen".into(), adapted(vec![pair.preferred.clone()])?.into());
            row.insert("rejected".into(), adapted(vec![pair.rejected.clone()])?.into());
            Ok(tools(row).into())
        }
        ExportFormat::For(target) => {
            let mut input = Map::new();
            input.insert("messages".into(), adapt(pair.input.clone(), target)?.into());
            Ok(json!({"input": tools(input), "preferred_output": [pair.preferred], "non_preferred_output": [pair.rejected]}))
        }
        _ if pair.tools.is_some() => Err("has tools, which this shape cannot say".to_owned()),
        ExportFormat::ShareGpt => {
            let answer = |message: &Value| Ok::<_, String>(json!({"from": "gpt", "value": text(message)?}));
            Ok(
                json!({"conversations": share_gpt_turns(&pair.input)?, "chosen": answer(&pair.preferred)?, "rejected": answer(&pair.rejected)?}),
            )
        }
        ExportFormat::Alpaca => {
            let mut row = alpaca_prompt(&pair.input)?;
            row.insert("chosen".into(), text(&pair.preferred)?.into());
            row.insert("rejected".into(), text(&pair.rejected)?.into());
            Ok(row.into())
        }
    }
}
