//! A client's request as a question: what is said, how to write, and what rides beside.

use crate::error::ApiError;
use groundtone_answer::Question;
use groundtone_openai_api::{ChatCompletionRequest, Content, RequestMessage, Stop};
use groundtone_prompt::{PromptMessage, Role};
use groundtone_provider::{ChatExtras, Sampling};
use groundtone_types::Tenant;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Checks a request and takes out of it what an answer needs.
pub(crate) fn question(tenant: &Tenant, request: ChatCompletionRequest) -> Result<Question, ApiError> {
    in_range("temperature", request.temperature, 0.0, 2.0)?;
    in_range("top_p", request.top_p, 0.0, 1.0)?;
    in_range("presence_penalty", request.presence_penalty, -2.0, 2.0)?;
    in_range("frequency_penalty", request.frequency_penalty, -2.0, 2.0)?;
    if request.max_completion_tokens.or(request.max_tokens) == Some(0) {
        return Err(ApiError::invalid("max_tokens", "send at least 1"));
    }
    let stop = request.stop.map(Stop::into_vec).unwrap_or_default();
    if stop.len() > 4 || stop.iter().any(String::is_empty) {
        return Err(ApiError::invalid("stop", "send at most 4 strings, none of them empty"));
    }
    let sampling = Sampling {
        temperature: request.temperature,
        top_p: request.top_p,
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        stop,
        seed: request.seed.map(|seed| seed as u64),
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
    };
    let older_max_tokens = request.max_completion_tokens.is_none() && request.max_tokens.is_some();
    let mut parameters = request.rest;
    // Ours; no model server knows it.
    parameters.remove("groundtone");
    let (messages, extras) = split(request.messages, parameters, older_max_tokens)?;
    Ok(Question { sampling, extras: Arc::new(extras), ..Question::new(tenant.clone(), messages) })
}

fn in_range(param: &'static str, value: Option<f32>, least: f32, most: f32) -> Result<(), ApiError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(ApiError::invalid(param, format!("`{param}` must be between {least} and {most}")))
        }
        _ => Ok(()),
    }
}

/// The conversation up to the last question as text, and beside it what is no text and what follows the question.
fn split(
    messages: Vec<RequestMessage>,
    parameters: Map<String, Value>,
    older_max_tokens: bool,
) -> Result<(Vec<PromptMessage>, ChatExtras), ApiError> {
    let question = messages.iter().rposition(|message| message.role == "user");
    let (mut said, mut beside, mut tail) = (Vec::new(), Vec::new(), Vec::new());
    for (at, message) in messages.into_iter().enumerate() {
        let prompt = prompt_message(&message)?;
        if prompt.role == Role::System {
            // The operator's words belong before the conversation wherever they stand; the question stays last.
            let place = said.iter().rposition(|said: &PromptMessage| said.role == Role::System).map_or(0, |last| last + 1);
            said.insert(place, prompt);
        } else if question.is_some_and(|question| at > question) {
            tail.push(message);
        } else {
            beside.push(is_more_than_text(&message).then(|| Arc::new(message)));
            said.push(prompt);
        }
    }
    if tail.last().is_some_and(|last| !matches!(last.role.as_str(), "tool" | "function")) {
        return Err(ApiError::invalid("messages", "the last message must be the user's, or a tool's answer"));
    }
    if beside.iter().all(Option::is_none) {
        beside.clear();
    }
    Ok((said, ChatExtras { parameters, messages: beside, tail, older_max_tokens }))
}

fn is_more_than_text(message: &RequestMessage) -> bool {
    let other_role = matches!(message.role.as_str(), "tool" | "function");
    let other_parts = matches!(&message.content, Some(Content::Parts(parts)) if parts.iter().any(|part| part.kind != "text"));
    other_role || other_parts || message.rest.values().any(|value| !value.is_null())
}

/// A message's text. Calls of tools stand in it as JSON, so that the budget counts them; what is sent is the client's own message.
fn prompt_message(message: &RequestMessage) -> Result<PromptMessage, ApiError> {
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" | "tool" | "function" => Role::Assistant,
        other => {
            let roles = "`system`, `developer`, `user`, `assistant` or `tool`";
            return Err(ApiError::invalid("messages", format!("`{other}` is no role of a message; send {roles}")));
        }
    };
    let mut text = match &message.content {
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Parts(parts)) => {
            if let Some(part) = parts.iter().find(|part| part.kind != "text" && role == Role::System) {
                return Err(ApiError::invalid("messages", format!("a system message cannot hold a part of type `{}`", part.kind)));
            }
            let texts: Vec<&str> = parts.iter().filter(|part| part.kind == "text").filter_map(|part| part.text.as_deref()).collect();
            texts.join("\n")
        }
        None => String::new(),
    };
    if let Some(calls) = message.rest.get("tool_calls").filter(|calls| !calls.is_null()) {
        text.push_str(&calls.to_string());
    }
    Ok(PromptMessage::new(role, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn split_json(messages: Value) -> Result<(Vec<(String, String)>, ChatExtras), ApiError> {
        let messages = serde_json::from_value(messages).unwrap();
        let (said, extras) = split(messages, Map::new(), false)?;
        Ok((said.into_iter().map(|message| (message.role.as_str().to_owned(), message.content)).collect(), extras))
    }

    fn said(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn plain_conversations_have_nothing_beside_them() {
        let messages = json!([{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello.", "refusal": null},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"role": "system", "content": "Be kind."}]);
        let (text, extras) = split_json(messages).unwrap();
        assert_eq!(
            text,
            said(&[("system", "Be brief."), ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."), ("user", "a\nb")])
        );
        assert!(extras.messages.is_empty() && extras.tail.is_empty());
    }

    #[test]
    fn pictures_and_calls_of_tools_ride_beside_the_text() {
        let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c"}]});
        let result = json!({"role": "tool", "tool_call_id": "c", "content": "42"});
        let messages = json!([{"role": "system", "content": "S"}, {"role": "user", "content": "Q1"}, call, result, {"role": "assistant", "content": "42!"},
            {"role": "user", "content": [{"type": "text", "text": "Q2"}, {"type": "image_url", "image_url": {"url": "u"}}]}, call, result]);
        let (text, extras) = split_json(messages).unwrap();
        let expected = said(&[
            ("system", "S"),
            ("user", "Q1"),
            ("assistant", "[{\"id\":\"c\"}]"),
            ("assistant", "42"),
            ("assistant", "42!"),
            ("user", "Q2"),
        ]);
        assert_eq!(text, expected);
        let beside: Vec<bool> = extras.messages.iter().map(Option::is_some).collect();
        assert_eq!((beside, extras.tail.len()), (vec![false, true, true, false, true], 2));
    }

    #[test]
    fn conversations_that_end_wrongly_are_refused() {
        for (messages, words) in [
            (
                json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]),
                "the last message must be the user's, or a tool's",
            ),
            (json!([{"role": "wizard", "content": "x"}]), "`wizard` is no role"),
            (
                json!([{"role": "system", "content": [{"type": "image_url"}]}, {"role": "user", "content": "x"}]),
                "cannot hold a part of type `image_url`",
            ),
        ] {
            let error = split_json(messages).unwrap_err().body().error;
            assert!(error.message.contains(words), "{}", error.message);
            assert_eq!(error.param.as_deref(), Some("messages"));
        }
    }
}
