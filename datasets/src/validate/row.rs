//! One row: which shape it has, and whether its parts are there.

use super::check::Line;
use super::conversation::{Conversation, Place};
use super::json::{Key, Kind, Next, Parsed, is_blank};
use super::rules::Rule;
use super::tools::Declared;
use super::{Method, Target};
use std::ops::Range;

/// What a row is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    Messages,
    PromptAndCompletion,
    Text,
    Preference,
}

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::PromptAndCompletion => "prompt and completion",
            Self::Text => "text",
            Self::Preference => "a preference",
        }
    }
}

/// A text, or messages, where both may stand.
struct Spoken {
    at: usize,
    kind: Kind,
    blank: bool,
    range: Range<usize>,
    talk: Option<Conversation>,
}

#[derive(Default)]
struct Row {
    messages: Option<Conversation>,
    tools: Declared,
    prompt: Option<Spoken>,
    completion: Option<Spoken>,
    text: Option<Spoken>,
    input: Option<(usize, Option<Conversation>)>,
    preferred: Vec<Spoken>,
    non_preferred: Vec<Spoken>,
    /// Keys that no shape has, and those of other tools.
    unknown: Vec<(usize, String)>,
    seen: Vec<Range<usize>>,
}

/// Keys by which the row of another tool is known.
const FOREIGN: [(&str, &str); 7] = [
    ("conversations", "ShareGPT"),
    ("instruction", "Alpaca"),
    ("question", "a table of questions and answers"),
    ("custom_id", "a batch request"),
    ("body", "a batch request"),
    ("item", "an evaluation"),
    ("input", "an embedding request"),
];

impl<'j> Line<'_, '_, 'j> {
    pub(super) fn row(&mut self) -> Parsed<Option<Shape>> {
        let next = self.cursor.peek()?;
        if next.kind != Kind::Object {
            self.cursor.skip(next)?;
            self.cursor.finish()?;
            self.report(Rule::RowNotObject, next.at, || format!("the line is {}", next.kind.name()));
            return Ok(None);
        }
        let mut row = Row::default();
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            self.once(&mut row.seen, found);
            self.row_key(&mut row, found)?;
            key = self.cursor.next_key()?;
        }
        self.cursor.finish()?;
        let shape = match self.checker.options.method {
            Method::Sft => self.supervised(&row, next.at),
            Method::Dpo => self.preference(&row, next.at),
        };
        self.calls_are_declared(&row);
        self.length(&row);
        Ok(shape)
    }

    /// Reports a key that stands in its object for the second time.
    pub(super) fn once(&mut self, seen: &mut Vec<Range<usize>>, key: Key<'j>) {
        let range = key.range();
        if seen.iter().any(|other| self.slice(other) == self.slice(&range)) {
            self.report(Rule::DuplicateKey, key.at, || format!("`{}` stands here for the second time", key.text()));
        } else {
            seen.push(range);
        }
    }

    fn row_key(&mut self, row: &mut Row, key: Key<'j>) -> Parsed<()> {
        let (method, target) = (self.checker.options.method, self.checker.options.target);
        let next = self.cursor.peek()?;
        match &*key.text() {
            "messages" if method == Method::Sft => row.messages = self.messages(next, Place::Row)?,
            "messages" => {
                self.cursor.skip(next)?;
                row.messages = Some(Conversation::unread(next.at));
            }
            "tools" => self.tools(next, &mut row.tools)?,
            "functions" => self.functions(next, &mut row.tools)?,
            "parallel_tool_calls" => self.parallel(next)?,
            "prompt" => row.prompt = Some(self.spoken(next, target == Target::Trl, Place::Input)?),
            "completion" => row.completion = Some(self.spoken(next, target == Target::Trl, Place::Output)?),
            "text" if target.takes_prompt_and_completion() => row.text = Some(self.spoken(next, false, Place::Row)?),
            "input" if method == Method::Dpo && target != Target::Trl => row.input = Some((next.at, self.input(next, &mut row.tools)?)),
            "input" if next.kind == Kind::Object => {
                self.cursor.skip(next)?;
                row.input = Some((next.at, None));
            }
            "preferred_output" | "preferred_completion" => row.preferred.push(self.output(next)?),
            "non_preferred_output" | "non_preferred_completion" => row.non_preferred.push(self.output(next)?),
            "chosen" if target == Target::Trl => row.preferred.push(self.spoken(next, true, Place::Output)?),
            "rejected" if target == Target::Trl => row.non_preferred.push(self.spoken(next, true, Place::Output)?),
            other => {
                row.unknown.push((key.at, other.to_owned()));
                self.cursor.skip(next)?;
            }
        }
        Ok(())
    }

    /// A text; where `or_messages`, also a list of messages.
    fn spoken(&mut self, next: Next, or_messages: bool, place: Place) -> Parsed<Spoken> {
        let mut spoken = Spoken { at: next.at, kind: next.kind, blank: false, range: next.at..next.at, talk: None };
        match next.kind {
            Kind::String => {
                let range = self.cursor.string(next)?;
                spoken.blank = is_blank(self.slice(&range));
            }
            Kind::Array if or_messages => spoken.talk = self.messages(next, place)?,
            _ => self.cursor.skip(next)?,
        }
        spoken.range = next.at..self.cursor.at();
        Ok(spoken)
    }

    /// A preference row's output: a list of one message.
    fn output(&mut self, next: Next) -> Parsed<Spoken> {
        let mut spoken = Spoken { at: next.at, kind: next.kind, blank: false, range: next.at..next.at, talk: None };
        if next.kind == Kind::Array && self.checker.options.method == Method::Dpo {
            spoken.talk = self.messages(next, Place::Output)?;
        } else {
            self.cursor.skip(next)?;
        }
        spoken.range = next.at..self.cursor.at();
        Ok(spoken)
    }

    fn input(&mut self, next: Next, tools: &mut Declared) -> Parsed<Option<Conversation>> {
        if next.kind != Kind::Object {
            self.cursor.skip(next)?;
            self.report(Rule::InputType, next.at, || format!("the input is {}", next.kind.name()));
            return Ok(Some(Conversation::unread(next.at)));
        }
        let (mut talk, mut seen) = (None, Vec::new());
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            self.once(&mut seen, found);
            let value = self.cursor.peek()?;
            match &*found.text() {
                "messages" => talk = self.messages(value, Place::Input)?.or(Some(Conversation::unread(value.at))),
                "tools" => self.tools(value, tools)?,
                "parallel_tool_calls" => self.parallel(value)?,
                other => {
                    self.report(Rule::UnknownKey, found.at, || format!("`{other}` is no key of an input"));
                    self.cursor.skip(value)?;
                }
            }
            key = self.cursor.next_key()?;
        }
        if talk.is_none() {
            self.report(Rule::MessagesMissing, next.at, || "the input has no messages".to_owned());
            return Ok(Some(Conversation::unread(next.at)));
        }
        Ok(talk)
    }

    fn supervised(&mut self, row: &Row, at: usize) -> Option<Shape> {
        let target = self.checker.options.target;
        if row.messages.is_none() && (row.input.is_some() || !row.preferred.is_empty()) {
            self.report(Rule::WrongMethod, at, || "this is a row of preferences; --method dpo checks it".to_owned());
            return None;
        }
        let prompted = row.prompt.is_some() || row.completion.is_some();
        if let Some(talk) = &row.messages {
            self.conversation(talk, Place::Row);
            self.unknown_keys(row, prompted);
            return Some(Shape::Messages);
        }
        if prompted && target.takes_prompt_and_completion() {
            for (value, name) in [(&row.prompt, "prompt"), (&row.completion, "completion")] {
                self.words(value.as_ref(), name, at);
            }
            self.unknown_keys(row, false);
            return Some(Shape::PromptAndCompletion);
        }
        if let Some(text) = &row.text {
            self.words(Some(text), "text", at);
            self.unknown_keys(row, prompted);
            return Some(Shape::Text);
        }
        self.no_messages(row, at, prompted);
        None
    }

    fn words(&mut self, value: Option<&Spoken>, name: &str, at: usize) {
        match value {
            None => self.report(Rule::PromptMissing, at, || format!("the row has no {name}")),
            Some(value) if value.blank => self.report(Rule::PromptMissing, value.at, || format!("the {name} is blank")),
            Some(value) if value.kind == Kind::String => {}
            Some(Spoken { talk: Some(_), .. }) => {}
            Some(value) => self.report(Rule::PromptType, value.at, || format!("the {name} is {}", value.kind.name())),
        }
    }

    fn unknown_keys(&mut self, row: &Row, prompted: bool) {
        if prompted {
            let at = row.prompt.as_ref().or(row.completion.as_ref()).map_or(0, |value| value.at);
            self.report(Rule::UnknownKey, at, || "the row has messages, and prompt or completion as well".to_owned());
        }
        for (at, name) in &row.unknown {
            self.report(Rule::UnknownKey, *at, || format!("`{name}` is no key of a training row"));
        }
    }

    fn no_messages(&mut self, row: &Row, at: usize, prompted: bool) {
        let has = |name: &str| row.unknown.iter().any(|(_, key)| key == name);
        let foreign = FOREIGN.iter().find(|(key, _)| has(key)).map(|(_, tool)| *tool);
        if let Some(tool) = foreign.or(prompted.then_some("prompt and completion")) {
            self.report(Rule::OtherFormat, at, || format!("the row has the shape of {tool}"));
            return;
        }
        let keys: Vec<&str> = row.unknown.iter().map(|(_, key)| key.as_str()).take(8).collect();
        self.report(Rule::MessagesMissing, at, || match keys.as_slice() {
            [] => "the row has no `messages`".to_owned(),
            keys => format!("the row has no `messages`; its keys are: {}", keys.join(", ")),
        });
    }

    fn preference(&mut self, row: &Row, at: usize) -> Option<Shape> {
        let target = self.checker.options.target;
        if row.input.is_none() && row.preferred.is_empty() && row.non_preferred.is_empty() {
            let supervised = row.messages.is_some() || row.completion.is_some();
            let rule = if supervised { Rule::WrongMethod } else { Rule::InputMissing };
            self.report(rule, at, || match supervised {
                true => "this is a row of answers; --method sft checks it".to_owned(),
                false => "the row has no input and no outputs".to_owned(),
            });
            return None;
        }
        if target == Target::Trl {
            let openai = row.input.is_some();
            if openai {
                self.report(Rule::OtherFormat, at, || "TRL wants prompt, chosen and rejected".to_owned());
            }
            if let Some(prompt) = &row.prompt {
                self.words(Some(prompt), "prompt", at);
            }
        } else {
            match &row.input {
                None => self.report(Rule::InputMissing, at, || "the row has no `input`".to_owned()),
                Some((_, Some(talk))) => self.conversation(talk, Place::Input),
                Some(_) => {}
            }
        }
        for (outputs, rule, name) in
            [(&row.preferred, Rule::PreferredMissing, "preferred"), (&row.non_preferred, Rule::NonPreferredMissing, "non-preferred")]
        {
            match outputs.as_slice() {
                [] => self.report(rule, at, || format!("the row has no {name} output")),
                [output] => self.one_output(output),
                [_, second, ..] => {
                    self.report(Rule::OutputTwice, second.at, || format!("the {name} output stands here for the second time"));
                }
            }
        }
        if let ([one], [other]) = (row.preferred.as_slice(), row.non_preferred.as_slice())
            && self.same(one, other)
        {
            self.report(Rule::OutputsEqual, other.at, || "both outputs say the same".to_owned());
        }
        for (at, name) in &row.unknown {
            self.report(Rule::UnknownKey, *at, || format!("`{name}` is no key of a preference row"));
        }
        Some(Shape::Preference)
    }

    fn one_output(&mut self, output: &Spoken) {
        let trl = self.checker.options.target == Target::Trl;
        match (&output.talk, output.kind) {
            (None, Kind::String) if trl => self.words(Some(output), "output", output.at),
            (Some(talk), _) if trl || talk.turns.len() == 1 => self.conversation(talk, Place::Output),
            (Some(talk), _) => {
                let count = talk.turns.len();
                self.report(Rule::OutputType, output.at, || format!("the output has {count} messages"));
            }
            // A list that could not be read has said so itself.
            (None, Kind::Array) => {}
            (None, kind) => self.report(Rule::OutputType, output.at, || format!("the output is {}", kind.name())),
        }
    }

    fn same(&self, one: &Spoken, other: &Spoken) -> bool {
        let plain = |spoken: &Spoken| match &spoken.talk {
            Some(talk) if talk.calls.is_empty() && talk.turns.len() == 1 => Some(talk.turns[0].content.clone()),
            _ => None,
        };
        match (plain(one), plain(other)) {
            (Some(one), Some(other)) => self.slice(&one) == self.slice(&other),
            _ => self.slice(&one.range) == self.slice(&other.range),
        }
    }

    fn calls_are_declared(&mut self, row: &Row) {
        let talks = [row.messages.as_ref(), row.input.as_ref().and_then(|(_, talk)| talk.as_ref())];
        let outputs = row.preferred.iter().chain(&row.non_preferred).filter_map(|spoken| spoken.talk.as_ref());
        for call in talks.into_iter().flatten().chain(outputs).flat_map(|talk| &talk.calls) {
            let Some(name) = &call.name else { continue };
            if !row.tools.names.iter().any(|declared| self.slice(declared) == self.slice(name)) {
                let text = String::from_utf8_lossy(self.slice(name));
                self.report(Rule::ToolUndeclared, name.start - 1, || format!("`{text}` is not among the row's tools"));
            }
        }
    }

    /// Tokens are at most as many as bytes, so most rows need no counting.
    fn length(&mut self, row: &Row) {
        let Some(limit) = self.checker.options.max_tokens() else { return };
        if self.bytes.len() <= limit {
            return;
        }
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(self.bytes) else { return };
        let tokens = crate::tokens::row_tokens(&value, &*self.checker.options.tokens, &crate::Frame::OPENAI);
        if tokens.total() <= limit {
            return;
        }
        let last = row.messages.as_ref().and_then(|talk| talk.turns.last());
        let at = last.map_or(0, |turn| turn.at);
        if tokens.before_reply >= limit && last.is_some() {
            let before = tokens.before_reply;
            self.report(Rule::ReplyCutOff, at, || format!("{before} tokens stand before the last reply; {limit} are read"));
        } else {
            self.report(Rule::RowTooLong, at, || format!("{} tokens; {limit} are read", tokens.total()));
        }
    }
}
