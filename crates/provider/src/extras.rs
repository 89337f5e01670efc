use groundtone_openai_api::{Content, ContentPart, RequestMessage};
use groundtone_prompt::{CountTokens, PromptMessage};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What a picture or another part that is no text is taken to cost: OpenAI's images of ordinary size take 85 to 1,105 tokens.
const PART_TOKENS: usize = 1_000;

/// What a client's request holds beside plain text and [`crate::Sampling`]. It rides beside the rendered prompt, and never changes it.
#[derive(Debug, Clone, Default)]
pub struct ChatExtras {
    /// Fields of the request's body that a model server gets as they are: `tools`, `response_format`, `logit_bias`, and what we have never heard of.
    pub parameters: Map<String, Value>,
    /// One entry for each message of the conversation that is not the operator's, in its order; the last one belongs to the question.
    /// `Some` where the client wrote more than a role and text: parts that are no text, calls of tools, a name. Empty where no message has more.
    pub messages: Vec<Option<Arc<RequestMessage>>>,
    /// What follows the question: calls of tools and what came of them.
    pub tail: Vec<RequestMessage>,
    /// The client limited the answer by the older name, `max_tokens`; a model server gets it under the same name.
    pub older_max_tokens: bool,
}

impl ChatExtras {
    /// The answer is text and nothing but the documents may hold it: no tools, no format of its own, nothing that is no text, no tool's answer.
    pub fn is_plain(&self) -> bool {
        let asks = |name: &str| match self.parameters.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        };
        let is_text = |message: &Arc<RequestMessage>| match &message.content {
            Some(Content::Parts(parts)) => parts.iter().all(|part| part.kind == "text"),
            _ => true,
        };
        let calls_nothing = !["tools", "functions", "audio"].into_iter().any(asks);
        calls_nothing && !self.is_formatted() && self.tail.is_empty() && self.messages.iter().flatten().all(is_text)
    }

    /// The client wants a format, such as JSON, that a change of the text would break.
    pub fn is_formatted(&self) -> bool {
        let kind = self.parameters.get("response_format").and_then(|format| format.get("type"));
        kind.is_some_and(|kind| kind != "text")
    }

    /// The same for a prompt that left out the oldest `dropped` messages of the history.
    pub fn after_dropping(self: &Arc<Self>, dropped: usize) -> Arc<Self> {
        if dropped == 0 || self.messages.is_empty() {
            return self.clone();
        }
        let messages = self.messages.get(dropped..).unwrap_or_default().to_vec();
        Arc::new(Self { messages, ..Self::clone(self) })
    }

    /// Tokens that these take from the prompt's budget: an estimate, because each model writes tools in its own way.
    pub fn prompt_tokens(&self, tokens: &dyn CountTokens) -> usize {
        let json = |value: &Value| tokens.count(&value.to_string());
        let parameters = ["tools", "functions", "response_format"].iter().filter_map(|name| self.parameters.get(*name)).map(json);
        let parts = self.messages.iter().flatten().map(|message| match &message.content {
            Some(Content::Parts(parts)) => parts.iter().filter(|part| part.kind != "text").count() * PART_TOKENS,
            _ => 0,
        });
        let tail = self.tail.iter().filter_map(|message| serde_json::to_string(message).ok()).map(|text| tokens.count(&text));
        parameters.chain(parts).chain(tail).sum()
    }

    /// The rendered prompt as wire messages, with what the client wrote beside its text.
    pub fn join(&self, rendered: Vec<PromptMessage>) -> Vec<RequestMessage> {
        let (total, extra) = (rendered.len(), self.messages.len());
        let mut joined: Vec<RequestMessage> = Vec::with_capacity(total + self.tail.len());
        for (at, message) in rendered.into_iter().enumerate() {
            // Both lists end with the question; the renderer's own messages stand before the first of the client's.
            let original = (at + extra).checked_sub(total).and_then(|at| self.messages.get(at)).and_then(Option::as_deref);
            let question = at + 1 == total;
            match original {
                // The history's beginning may have been cut off: a tool's answer whose call is gone is refused by model servers.
                Some(tool) if tool.role == "tool" && !joined.last().is_some_and(calls_tools) => {}
                Some(original) if question => joined.push(with_text(original, message.content)),
                Some(original) => joined.push(original.clone()),
                None => joined.push(plain(message)),
            }
        }
        joined.extend(self.tail.iter().cloned());
        joined
    }
}

fn calls_tools(message: &RequestMessage) -> bool {
    message.role == "tool" || message.rest.get("tool_calls").is_some_and(|calls| !calls.is_null())
}

fn plain(message: PromptMessage) -> RequestMessage {
    RequestMessage { role: message.role.as_str().to_owned(), content: Some(Content::Text(message.content)), rest: Map::new() }
}

/// The client's message with the rendered text in the place of its own text; everything else stays.
fn with_text(original: &RequestMessage, text: String) -> RequestMessage {
    let content = match &original.content {
        Some(Content::Parts(parts)) => {
            let own = ContentPart { kind: "text".to_owned(), text: Some(text), rest: Map::new() };
            Content::Parts(std::iter::once(own).chain(parts.iter().filter(|part| part.kind != "text").cloned()).collect())
        }
        _ => Content::Text(text),
    };
    RequestMessage { content: Some(content), ..original.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundtone_prompt::Role;
    use serde_json::json;

    fn wire(value: Value) -> Option<Arc<RequestMessage>> {
        Some(Arc::new(serde_json::from_value(value).unwrap()))
    }

    fn joined(extras: &ChatExtras, rendered: &[(Role, &str)]) -> Value {
        let rendered = rendered.iter().map(|(role, text)| PromptMessage::new(*role, *text)).collect();
        serde_json::to_value(extras.join(rendered)).unwrap()
    }

    const RENDERED: [(Role, &str); 3] = [(Role::System, "S"), (Role::User, "an example"), (Role::User, "Sources: ... Question: what?")];

    #[test]
    fn without_extras_the_prompt_is_what_was_rendered() {
        let expected = json!([{"role": "system", "content": "S"}, {"role": "user", "content": "an example"}, {"role": "user", "content": "Sources: ... Question: what?"}]);
        assert_eq!(joined(&ChatExtras::default(), &RENDERED), expected);
        assert_eq!(joined(&ChatExtras { messages: vec![None], ..ChatExtras::default() }, &RENDERED), expected);
    }

    #[test]
    fn the_rendered_text_takes_the_place_of_the_text_and_pictures_stay() {
        let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}});
        let question = wire(
            json!({"role": "user", "name": "ann", "content": [{"type": "text", "text": "what?"}, image, {"type": "text", "text": "!"}]}),
        );
        let sent = joined(&ChatExtras { messages: vec![question], ..ChatExtras::default() }, &RENDERED);
        assert_eq!(
            sent[2],
            json!({"role": "user", "content": [{"type": "text", "text": "Sources: ... Question: what?"}, image], "name": "ann"})
        );
        assert_eq!(sent[1], json!({"role": "user", "content": "an example"}));
    }

    #[test]
    fn a_request_is_plain_where_only_documents_can_answer_it() {
        let with = |parameters: Value| ChatExtras { parameters: parameters.as_object().cloned().unwrap(), ..ChatExtras::default() };
        for plain in
            [json!({}), json!({"tools": [], "user": "ann"}), json!({"response_format": {"type": "text"}}), json!({"logprobs": true})]
        {
            assert!(with(plain.clone()).is_plain(), "{plain}");
        }
        for other in
            [json!({"tools": [{"type": "function"}]}), json!({"functions": [{}]}), json!({"response_format": {"type": "json_object"}})]
        {
            assert!(!with(other.clone()).is_plain(), "{other}");
        }
        let text = json!({"role": "user", "name": "ann", "content": [{"type": "text", "text": "x"}]});
        assert!(ChatExtras { messages: vec![wire(text.clone()), None], ..ChatExtras::default() }.is_plain());
        let picture = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]});
        assert!(!ChatExtras { messages: vec![None, wire(picture)], ..ChatExtras::default() }.is_plain());
        assert!(!ChatExtras { tail: vec![serde_json::from_value(text).unwrap()], ..ChatExtras::default() }.is_plain());
    }

    #[test]
    fn calls_of_tools_stay_with_their_answers() {
        let call = wire(
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}),
        );
        let result = wire(json!({"role": "tool", "tool_call_id": "c1", "content": "42"}));
        let extras = Arc::new(ChatExtras { messages: vec![call, result, None, None], ..ChatExtras::default() });
        let whole =
            [(Role::System, "S"), (Role::Assistant, ""), (Role::Assistant, "42"), (Role::Assistant, "It is 42."), (Role::User, "Q")];
        let sent = joined(&extras, &whole);
        assert_eq!((&sent[1]["tool_calls"][0]["id"], &sent[2]["role"]), (&json!("c1"), &json!("tool")));
        // The budget cut the call off: its answer goes too.
        let sent = joined(
            &extras.after_dropping(1),
            &[(Role::System, "S"), (Role::Assistant, "42"), (Role::Assistant, "It is 42."), (Role::User, "Q")],
        );
        let roles: Vec<&str> = sent.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "assistant", "user"]);
    }
}
