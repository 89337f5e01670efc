//! The events of a streamed response, in the order of OpenAI's reference.

use super::output::{Head, annotations, call_items, ending, text_part};
use crate::api::beside::Gathered;
use crate::error::ApiError;
use axum::response::sse::Event;
use groundtone_answer::Summary;
use groundtone_provider::Beside;
use serde_json::{Value, json};

/// Writes events and counts them.
pub(super) struct EventWriter {
    pub(super) head: Head,
    sequence: u64,
    /// Where the next output item stands.
    index: usize,
    /// Everything written so far of the message.
    pub(super) text: String,
    beside: Vec<Beside>,
    message_open: bool,
}

impl EventWriter {
    pub(super) fn new(head: Head) -> Self {
        Self { head, sequence: 0, index: 0, text: String::new(), beside: Vec::new(), message_open: false }
    }

    fn event(&mut self, kind: &str, mut fields: Value) -> Event {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Event::default().event(kind).json_data(fields).unwrap_or_else(|_| Event::default().comment("an event could not be written"))
    }

    /// The response begins, and its search has been done when the first piece of the answer is there.
    pub(super) fn opening(&mut self) -> Vec<Event> {
        let response = self.head.response("in_progress", Vec::new());
        let mut events = vec![
            self.event("response.created", json!({"response": response})),
            self.event("response.in_progress", json!({"response": response})),
        ];
        if self.head.search.is_some() {
            let item = self.head.search_item("in_progress", None);
            let place = json!({"output_index": 0, "item_id": self.head.search_id});
            events.push(self.event("response.output_item.added", json!({"output_index": 0, "item": item})));
            events.push(self.event("response.file_search_call.in_progress", place.clone()));
            events.push(self.event("response.file_search_call.searching", place.clone()));
            events.push(self.event("response.file_search_call.completed", place));
            if !self.head.include_results {
                let item = self.head.search_item("completed", None);
                events.push(self.event("response.output_item.done", json!({"output_index": 0, "item": item})));
            }
            self.index = 1;
        }
        events
    }

    fn place(&self) -> Value {
        json!({"item_id": self.head.message_id, "output_index": self.index, "content_index": 0})
    }

    fn placed(&self, fields: Value) -> Value {
        let mut all = self.place();
        if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields) {
            all.extend(fields);
        }
        all
    }

    fn open_message(&mut self) -> Vec<Event> {
        if std::mem::replace(&mut self.message_open, true) {
            return Vec::new();
        }
        let item = self.head.message_item("in_progress", &[]);
        let part = self.placed(json!({"part": text_part("", &[], None)}));
        vec![
            self.event("response.output_item.added", json!({"output_index": self.index, "item": item})),
            self.event("response.content_part.added", part),
        ]
    }

    /// More text.
    pub(super) fn delta(&mut self, text: &str) -> Vec<Event> {
        let mut events = self.open_message();
        self.text.push_str(text);
        let fields = self.placed(json!({"delta": text, "logprobs": []}));
        events.push(self.event("response.output_text.delta", fields));
        events
    }

    /// Something beside text; it becomes events when the answer is complete.
    pub(super) fn beside(&mut self, beside: Beside) {
        self.beside.push(beside);
    }

    /// The end: what was gathered, every item, and the whole response, which is given back as well.
    pub(super) fn closing(&mut self, summary: &Summary) -> (Vec<Event>, Value, Gathered) {
        let beside = Gathered::of(std::mem::take(&mut self.beside));
        let calls = call_items(&beside);
        let (mut events, mut output) = (Vec::new(), Vec::new());
        if self.head.search.is_some() {
            let item = self.head.search_item("completed", Some(summary));
            if self.head.include_results {
                events.push(self.event("response.output_item.done", json!({"output_index": 0, "item": item})));
            }
            output.push(item);
        }
        if !self.text.is_empty() || calls.is_empty() {
            events.extend(self.open_message());
            output.push(self.close_message(summary, &beside, &mut events));
        }
        for item in calls {
            events.extend(self.call(&item));
            output.push(item);
        }
        let response = self.head.finished(output, summary);
        let kind = format!("response.{}", ending(summary.finish).0);
        events.push(self.event(&kind, json!({"response": response})));
        (events, response, beside)
    }

    fn close_message(&mut self, summary: &Summary, beside: &Gathered, events: &mut Vec<Event>) -> Value {
        let annotations = annotations(summary);
        for (at, annotation) in annotations.iter().enumerate() {
            let fields = self.placed(json!({"annotation_index": at, "annotation": annotation}));
            events.push(self.event("response.output_text.annotation.added", fields));
        }
        let part = text_part(&self.text, &annotations, beside.logprobs.as_ref());
        let done = self.placed(json!({"text": self.text, "logprobs": part["logprobs"]}));
        events.push(self.event("response.output_text.done", done));
        let fields = self.placed(json!({"part": part}));
        events.push(self.event("response.content_part.done", fields));
        let item = self.head.message_item(ending(summary.finish).0, &[part]);
        events.push(self.event("response.output_item.done", json!({"output_index": self.index, "item": item})));
        self.index += 1;
        item
    }

    fn call(&mut self, item: &Value) -> Vec<Event> {
        let index = self.index;
        self.index += 1;
        let mut begun = item.clone();
        begun["status"] = json!("in_progress");
        begun["arguments"] = json!("");
        let place = |fields: Value| {
            let mut all = json!({"item_id": item["id"], "output_index": index});
            if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields) {
                all.extend(fields);
            }
            all
        };
        vec![
            self.event("response.output_item.added", json!({"output_index": index, "item": begun})),
            self.event("response.function_call_arguments.delta", place(json!({"delta": item["arguments"]}))),
            self.event("response.function_call_arguments.done", place(json!({"arguments": item["arguments"], "name": item["name"]}))),
            self.event("response.output_item.done", json!({"output_index": index, "item": item})),
        ]
    }

    /// A failure behind the opening.
    pub(super) fn failure(&mut self, error: &ApiError) -> Vec<Event> {
        let error = error.body().error;
        let mut response = self.head.response("failed", Vec::new());
        response["error"] = json!({"code": if error.kind == "rate_limit_error" { "rate_limit_exceeded" } else { "server_error" }, "message": error.message});
        vec![self.event("response.failed", json!({"response": response}))]
    }
}
