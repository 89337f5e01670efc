//! A request of the Responses API as one of chat completions, and what is left over.

use crate::error::ApiError;
use groundtone_openai_api::{ChatCompletionRequest, Content, ContentPart, RequestMessage, ResponseRequest};
use serde_json::{Map, Value, json};

/// Fields that go on to a model server under the same name.
const PASSED_ON: &[&str] =
    &["user", "safety_identifier", "service_tier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls", "top_logprobs"];
/// Fields that ask for nothing that an answer shows.
const HARMLESS: &[&str] = &["truncation", "max_tool_calls", "stream_options", "background"];
/// What `include` may name without effect.
const HARMLESS_INCLUDES: &[&str] = &["reasoning.encrypted_content"];
pub(super) const INCLUDE_RESULTS: &str = "file_search_call.results";
const INCLUDE_LOGPROBS: &str = "message.output_text.logprobs";

/// A file search that the client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSearch {
    pub(super) stores: Vec<String>,
    pub(super) most: Option<usize>,
}

/// What a request asks for.
#[derive(Debug)]
pub(super) struct Asked {
    /// The same as a chat: instructions, what was said before, and the input.
    pub(super) chat: ChatCompletionRequest,
    /// The input as messages: what a stored response adds to its conversation.
    pub(super) input: Vec<RequestMessage>,
    pub(super) search: Option<FileSearch>,
    pub(super) include_results: bool,
}

fn unsupported(param: &str, what: &str) -> ApiError {
    ApiError::invalid(param, format!("{what} is not supported by this server")).code("unsupported_parameter")
}

/// Reads a request; `before` is the conversation of the response that it goes on from.
pub(super) fn read(request: ResponseRequest, before: &[RequestMessage]) -> Result<Asked, ApiError> {
    let mut parameters = Map::new();
    for (name, value) in request.rest {
        let asks = !matches!(value, Value::Null | Value::Bool(false));
        if PASSED_ON.contains(&name.as_str()) {
            parameters.insert(name, value);
        } else if asks && (!HARMLESS.contains(&name.as_str()) || name == "background") {
            return Err(unsupported(&name, &format!("`{name}`")));
        }
    }
    let mut include_results = false;
    for wanted in request.include.unwrap_or_default() {
        match wanted.as_str() {
            INCLUDE_RESULTS => include_results = true,
            INCLUDE_LOGPROBS => drop(parameters.insert("logprobs".to_owned(), Value::Bool(true))),
            other if HARMLESS_INCLUDES.contains(&other) => {}
            other => return Err(unsupported("include", &format!("`{other}`"))),
        }
    }
    let search = read_tools(request.tools.unwrap_or_default(), &mut parameters)?;
    if let Some(choice) = request.tool_choice.and_then(tool_choice)
        && parameters.contains_key("tools")
    {
        parameters.insert("tool_choice".to_owned(), choice);
    }
    read_text(request.text.unwrap_or_default(), &mut parameters)?;
    if let Some(effort) = request.reasoning.unwrap_or_default().remove("effort").filter(|effort| !effort.is_null()) {
        parameters.insert("reasoning_effort".to_owned(), effort);
    }
    let input = read_input(request.input)?;
    let instructions = request.instructions.map(|text| message("system", Content::Text(text)));
    let chat = ChatCompletionRequest {
        model: request.model,
        messages: instructions.into_iter().chain(before.iter().cloned()).chain(input.iter().cloned()).collect(),
        temperature: request.temperature,
        top_p: request.top_p,
        max_completion_tokens: request.max_output_tokens,
        rest: parameters,
        ..ChatCompletionRequest::default()
    };
    Ok(Asked { chat, input, search, include_results })
}

/// Functions go on in the shape of chat completions; the file search is ours.
fn read_tools(tools: Vec<Value>, parameters: &mut Map<String, Value>) -> Result<Option<FileSearch>, ApiError> {
    let (mut search, mut functions) = (None, Vec::new());
    for mut tool in tools {
        match tool["type"].as_str().unwrap_or_default() {
            "function" => {
                let mut function = tool.as_object_mut().map(std::mem::take).unwrap_or_default();
                function.remove("type");
                functions.push(json!({"type": "function", "function": function}));
            }
            "file_search" => {
                let filters = tool.get("filters").is_some_and(|filters| !filters.is_null());
                if filters || tool["ranking_options"]["score_threshold"].as_f64().is_some_and(|threshold| threshold > 0.0) {
                    return Err(unsupported("tools", "a file search with `filters` or a `score_threshold`"));
                }
                let ids = tool["vector_store_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let stores: Vec<String> = ids.map(str::to_owned).collect();
                let most = tool["max_num_results"].as_u64().map(|most| usize::try_from(most).unwrap_or(usize::MAX));
                if stores.is_empty() || most.is_some_and(|most| !(1..=50).contains(&most)) {
                    return Err(ApiError::invalid(
                        "tools",
                        "a file search needs `vector_store_ids`, and a `max_num_results` between 1 and 50",
                    ));
                }
                search = Some(FileSearch { stores, most });
            }
            other => return Err(unsupported("tools", &format!("a tool of type `{other}`"))),
        }
    }
    if !functions.is_empty() {
        parameters.insert("tools".to_owned(), Value::Array(functions));
    }
    Ok(search)
}

fn tool_choice(choice: Value) -> Option<Value> {
    match &choice {
        Value::Null => None,
        Value::String(_) => Some(choice),
        // The file search is always done, so nothing has to be chosen.
        _ if choice["type"] == "function" => Some(json!({"type": "function", "function": {"name": choice["name"]}})),
        _ => None,
    }
}

fn read_text(mut text: Map<String, Value>, parameters: &mut Map<String, Value>) -> Result<(), ApiError> {
    if let Some(verbosity) = text.remove("verbosity").filter(|verbosity| !verbosity.is_null()) {
        parameters.insert("verbosity".to_owned(), verbosity);
    }
    let Some(Value::Object(mut format)) = text.remove("format") else { return Ok(()) };
    let kind = format.remove("type").unwrap_or_default();
    let wanted = match kind.as_str() {
        Some("text") => return Ok(()),
        Some("json_object") => json!({"type": "json_object"}),
        Some("json_schema") => json!({"type": "json_schema", "json_schema": format}),
        _ => return Err(unsupported("text", "this `format`")),
    };
    parameters.insert("response_format".to_owned(), wanted);
    Ok(())
}

fn message(role: &str, content: Content) -> RequestMessage {
    RequestMessage { role: role.to_owned(), content: Some(content), rest: Map::new() }
}

fn read_input(input: Value) -> Result<Vec<RequestMessage>, ApiError> {
    let items = match input {
        Value::String(text) => return Ok(vec![message("user", Content::Text(text))]),
        Value::Array(items) => items,
        _ => return Err(ApiError::invalid("input", "send a text or a list of items")),
    };
    let mut messages: Vec<RequestMessage> = Vec::new();
    for item in items {
        match item["type"].as_str().unwrap_or("message") {
            "message" => messages.push(read_message(item)?),
            "function_call" => {
                let call =
                    json!({"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}});
                // Calls of one turn belong into one message.
                match messages.last_mut().and_then(|last| last.rest.get_mut("tool_calls")).and_then(Value::as_array_mut) {
                    Some(calls) => calls.push(call),
                    None => {
                        let rest = [("tool_calls".to_owned(), json!([call]))].into_iter().collect();
                        messages.push(RequestMessage { role: "assistant".to_owned(), content: None, rest });
                    }
                }
            }
            "function_call_output" => {
                let text = item["output"].as_str().map_or_else(|| item["output"].to_string(), str::to_owned);
                let rest = [("tool_call_id".to_owned(), item["call_id"].clone())].into_iter().collect();
                messages.push(RequestMessage { role: "tool".to_owned(), content: Some(Content::Text(text)), rest });
            }
            // Of an earlier turn; what was found is searched for anew.
            "file_search_call" | "reasoning" => {}
            other => return Err(unsupported("input", &format!("an item of type `{other}`"))),
        }
    }
    Ok(messages)
}

fn read_message(mut item: Value) -> Result<RequestMessage, ApiError> {
    let role = item["role"].as_str().unwrap_or_default().to_owned();
    let parts = match item["content"].take() {
        Value::String(text) => return Ok(message(&role, Content::Text(text))),
        Value::Array(parts) => parts,
        _ => return Err(ApiError::invalid("input", "a message needs `content`: a text or a list of parts")),
    };
    let part = |part: Value| match part["type"].as_str().unwrap_or_default() {
        "input_text" | "output_text" | "text" => Ok(text_part(part["text"].as_str().unwrap_or_default())),
        "refusal" => Ok(text_part(part["refusal"].as_str().unwrap_or_default())),
        "input_image" if part["image_url"].is_string() => {
            let mut image = json!({"url": part["image_url"]});
            if !part["detail"].is_null() {
                image["detail"] = part["detail"].clone();
            }
            let rest = [("image_url".to_owned(), image)].into_iter().collect();
            Ok(ContentPart { kind: "image_url".to_owned(), text: None, rest })
        }
        other => Err(unsupported("input", &format!("a part of type `{other}` as it is sent here"))),
    };
    Ok(message(&role, Content::Parts(parts.into_iter().map(part).collect::<Result<_, _>>()?)))
}

fn text_part(text: &str) -> ContentPart {
    ContentPart { kind: "text".to_owned(), text: Some(text.to_owned()), rest: Map::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: Value) -> Value {
        let asked = read(serde_json::from_value(body).unwrap(), &[]).unwrap();
        serde_json::to_value(asked.chat).unwrap()
    }

    #[test]
    fn a_request_becomes_a_chat() {
        let sent = chat(json!({
            "model": "m", "instructions": "Be brief.", "max_output_tokens": 9, "temperature": 0, "user": "ann", "truncation": "auto",
            "include": ["message.output_text.logprobs"], "reasoning": {"effort": "low", "summary": null},
            "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": true}, "verbosity": "low"},
            "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "file_search", "vector_store_ids": ["vs_1"]}],
            "tool_choice": {"type": "function", "name": "f"},
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Q"}, {"type": "input_image", "image_url": "u", "detail": "low"}]},
                {"type": "file_search_call", "id": "fs_1"},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "42"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A", "annotations": []}]},
            ],
        }));
        let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
        assert_eq!(
            sent,
            json!({
                "model": "m", "temperature": 0.0, "max_completion_tokens": 9, "user": "ann", "logprobs": true,
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
                "tool_choice": {"type": "function", "function": {"name": "f"}}, "verbosity": "low", "reasoning_effort": "low",
                "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": true}},
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]},
                    {"role": "assistant", "content": null, "tool_calls": [call("c1"), call("c2")]},
                    {"role": "tool", "content": "42", "tool_call_id": "c1"},
                    {"role": "assistant", "content": [{"type": "text", "text": "A"}]},
                ],
            })
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (extra, param) in [
            (json!({"background": true}), "background"),
            (json!({"conversation": "c"}), "conversation"),
            (json!({"prompt": {"id": "p"}}), "prompt"),
            (json!({"tools": [{"type": "web_search"}]}), "tools"),
            (json!({"tools": [{"type": "file_search", "vector_store_ids": []}]}), "tools"),
            (json!({"tools": [{"type": "file_search", "vector_store_ids": ["a"], "filters": {"type": "eq"}}]}), "tools"),
            (json!({"include": ["computer_call_output.output.image_url"]}), "include"),
            (json!({"text": {"format": {"type": "grammar"}}}), "text"),
            (json!({"input": 7}), "input"),
            (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input"),
            (json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}), "input"),
        ] {
            let mut body = json!({"model": "m", "input": "Q"});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let error = read(serde_json::from_value(body).unwrap(), &[]).unwrap_err().body().error;
            assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
        }
    }
}
