//! Tools that a row declares, and calls of them.

use super::Target;
use super::check::{Edit, Line};
use super::json::{Kind, Next, Parsed, text};
use super::rules::Rule;
use std::ops::Range;

/// Most tools of a row.
const MOST: usize = 128;

/// Names of the functions that a row declares, as places in its line.
#[derive(Default)]
pub(super) struct Declared {
    pub(super) names: Vec<Range<usize>>,
}

/// A call of a function.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) at: usize,
    pub(super) id: Option<Range<usize>>,
    pub(super) name: Option<Range<usize>>,
}

fn is_name(name: &[u8]) -> bool {
    (1..=64).contains(&name.len()) && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

pub(super) fn is_usual_name(name: &[u8]) -> bool {
    is_name(name)
}

impl Line<'_, '_, '_> {
    pub(super) fn parallel(&mut self, next: Next) -> Parsed<()> {
        self.cursor.skip(next)?;
        if next.kind != Kind::Bool {
            self.report(Rule::ParallelType, next.at, || format!("parallel_tool_calls is {}", next.kind.name()));
        }
        Ok(())
    }

    pub(super) fn tools(&mut self, next: Next, declared: &mut Declared) -> Parsed<()> {
        // Tools of zero length are as good as none to everybody.
        self.list(next, 0, declared, |line, item, declared| line.tool(item, declared))
    }

    pub(super) fn functions(&mut self, next: Next, declared: &mut Declared) -> Parsed<()> {
        self.list(next, 1, declared, |line, item, declared| line.function(item, declared))
    }

    fn list(
        &mut self,
        next: Next,
        least: usize,
        declared: &mut Declared,
        mut each: impl FnMut(&mut Self, Next, &mut Declared) -> Parsed<()>,
    ) -> Parsed<()> {
        if next.kind != Kind::Array {
            self.cursor.skip(next)?;
            // TRL's data sets have the column in every row.
            if !(next.kind == Kind::Null && self.checker.options.target == Target::Trl) {
                self.report(Rule::ToolsType, next.at, || format!("a list is expected, {} is there", next.kind.name()));
            }
            return Ok(());
        }
        let mut count = 0;
        let mut item = self.cursor.first_item()?;
        while let Some(tool) = item {
            count += 1;
            each(self, tool, declared)?;
            item = self.cursor.next_item()?;
        }
        if !(least..=MOST).contains(&count) {
            self.report(Rule::ToolsType, next.at, || format!("the list has {count} elements"));
        }
        Ok(())
    }

    fn tool(&mut self, next: Next, declared: &mut Declared) -> Parsed<()> {
        if next.kind != Kind::Object {
            self.cursor.skip(next)?;
            self.report(Rule::ToolShape, next.at, || format!("a tool is {}", next.kind.name()));
            return Ok(());
        }
        let (mut function, mut typed, mut seen) = (false, None, Vec::new());
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            self.once(&mut seen, found);
            let value = self.cursor.peek()?;
            match &*found.text() {
                "type" if value.kind == Kind::String => {
                    let range = self.cursor.string(value)?;
                    typed = Some(self.slice(&range) == b"function");
                }
                "function" => {
                    function = true;
                    self.function(value, declared)?;
                }
                _ => self.cursor.skip(value)?,
            }
            key = self.cursor.next_key()?;
        }
        if typed != Some(true) || !function {
            self.report(Rule::ToolShape, next.at, || match (typed, function) {
                (None, _) => "the tool has no type".to_owned(),
                (Some(false), _) => "the tool's type is not function".to_owned(),
                _ => "the tool has no function".to_owned(),
            });
        }
        Ok(())
    }

    fn function(&mut self, next: Next, declared: &mut Declared) -> Parsed<()> {
        if next.kind != Kind::Object {
            self.cursor.skip(next)?;
            self.report(Rule::ToolShape, next.at, || format!("a function is {}", next.kind.name()));
            return Ok(());
        }
        let (mut name, mut seen) = (None, Vec::new());
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            self.once(&mut seen, found);
            let value = self.cursor.peek()?;
            match &*found.text() {
                "name" if value.kind == Kind::String => name = Some(self.cursor.string(value)?),
                "parameters" => {
                    let kind = value.kind;
                    self.schema(value)?;
                    if kind != Kind::Object && kind != Kind::Null {
                        self.report(Rule::ToolParameters, value.at, || format!("the parameters are {}", kind.name()));
                    }
                }
                _ => self.cursor.skip(value)?,
            }
            key = self.cursor.next_key()?;
        }
        let Some(name) = name else {
            self.report(Rule::ToolShape, next.at, || "the function has no name".to_owned());
            return Ok(());
        };
        let raw = self.slice(&name);
        if !is_name(raw) {
            self.report(Rule::ToolName, name.start - 1, || format!("`{}` is no name of a function", String::from_utf8_lossy(raw)));
        }
        if declared.names.iter().any(|other| self.slice(other) == raw) {
            self.report(Rule::ToolDuplicate, name.start - 1, || format!("`{}` is declared twice", String::from_utf8_lossy(raw)));
        }
        declared.names.push(name);
        Ok(())
    }

    /// The first level of a JSON schema.
    fn schema(&mut self, next: Next) -> Parsed<()> {
        if next.kind != Kind::Object {
            return self.cursor.skip(next);
        }
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            let value = self.cursor.peek()?;
            let name = found.text();
            if &*name == "type" && value.kind == Kind::String {
                let range = self.cursor.string(value)?;
                let raw = self.slice(&range);
                if raw != b"object" {
                    let kind = String::from_utf8_lossy(raw);
                    self.report(Rule::ToolParameters, value.at, || format!("parameters of type `{kind}`, not object"));
                }
            } else {
                let wrong = &*name == "properties" && value.kind != Kind::Object;
                self.cursor.skip(value)?;
                if wrong {
                    self.report(Rule::ToolParameters, value.at, || format!("the properties are {}", value.kind.name()));
                }
            }
            key = self.cursor.next_key()?;
        }
        Ok(())
    }

    /// Reads `tool_calls`; whether there is any.
    pub(super) fn calls(&mut self, next: Next, calls: &mut Vec<Call>) -> Parsed<bool> {
        if next.kind != Kind::Array {
            self.cursor.skip(next)?;
            self.report(Rule::ToolCallsType, next.at, || format!("tool_calls is {}", next.kind.name()));
            return Ok(true);
        }
        let before = calls.len();
        let mut item = self.cursor.first_item()?;
        while let Some(call) = item {
            let call = self.call(call)?;
            let id = call.id.clone();
            if let Some(id) = id
                .filter(|id| calls[before..].iter().filter_map(|other| other.id.as_ref()).any(|other| self.slice(other) == self.slice(id)))
            {
                self.report(Rule::ToolCallIdDuplicate, id.start - 1, || "another call of this message has the same id".to_owned());
            }
            calls.push(call);
            item = self.cursor.next_item()?;
        }
        if calls.len() == before {
            self.report(Rule::ToolCallsType, next.at, || "tool_calls is empty".to_owned());
            return Ok(false);
        }
        Ok(true)
    }

    fn call(&mut self, next: Next) -> Parsed<Call> {
        let mut call = Call { at: next.at, id: None, name: None };
        if next.kind != Kind::Object {
            self.cursor.skip(next)?;
            self.report(Rule::ToolCallShape, next.at, || format!("a call is {}", next.kind.name()));
            return Ok(call);
        }
        let (mut typed, mut function, mut seen) = (None, false, Vec::new());
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            self.once(&mut seen, found);
            let value = self.cursor.peek()?;
            match &*found.text() {
                "id" if value.kind == Kind::String => call.id = Some(self.cursor.string(value)?),
                "type" if value.kind == Kind::String => {
                    let range = self.cursor.string(value)?;
                    typed = Some(self.slice(&range) == b"function");
                }
                "function" => {
                    function = true;
                    call.name = self.called(value, false)?;
                }
                _ => self.cursor.skip(value)?,
            }
            key = self.cursor.next_key()?;
        }
        self.call_is_whole(&call, typed, function);
        Ok(call)
    }

    fn call_is_whole(&mut self, call: &Call, typed: Option<bool>, function: bool) {
        let target = self.checker.options.target;
        // Their own rows have calls without an id and without a type.
        let strict = !matches!(target, Target::Mistral | Target::Trl);
        let missing = match (call.id.is_some(), typed, function) {
            (_, _, false) => Some("the call has no function"),
            (false, ..) if strict => Some("the call has no id"),
            (_, None, _) if strict => Some("the call has no type"),
            (_, Some(false), _) => Some("the call's type is not function"),
            _ => None,
        };
        if let Some(missing) = missing {
            self.report(Rule::ToolCallShape, call.at, || missing.to_owned());
        }
        if let Some(id) = &call.id {
            self.mistral_id(id);
        }
    }

    /// Mistral's ids have nine letters and digits (mistral-common, validator).
    pub(super) fn mistral_id(&mut self, id: &std::ops::Range<usize>) {
        let raw = self.slice(id);
        let fine = raw.len() == 9 && raw.iter().all(u8::is_ascii_alphanumeric);
        if self.checker.options.target == Target::Mistral && !fine {
            self.report(Rule::ToolCallIdFormat, id.start - 1, || {
                format!("`{}` is not nine letters and digits", String::from_utf8_lossy(raw))
            });
        }
    }

    /// `{"name", "arguments"}`: of a call, or of the older function_call. Its name.
    pub(super) fn called(&mut self, next: Next, older: bool) -> Parsed<Option<Range<usize>>> {
        let rule = if older { Rule::FunctionCallShape } else { Rule::ToolCallShape };
        if next.kind != Kind::Object {
            self.cursor.skip(next)?;
            self.report(rule, next.at, || format!("the called function is {}", next.kind.name()));
            return Ok(None);
        }
        let (mut name, mut arguments, mut seen) = (None, false, Vec::new());
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            self.once(&mut seen, found);
            let value = self.cursor.peek()?;
            match &*found.text() {
                "name" if value.kind == Kind::String => name = Some(self.cursor.string(value)?),
                "arguments" => {
                    arguments = true;
                    self.arguments(value)?;
                }
                _ => self.cursor.skip(value)?,
            }
            key = self.cursor.next_key()?;
        }
        if name.as_ref().is_none_or(std::ops::Range::is_empty) || !arguments {
            self.report(rule, next.at, || match name {
                Some(_) if !arguments => "the call has no arguments".to_owned(),
                _ => "the call names no function".to_owned(),
            });
        }
        Ok(name)
    }

    fn arguments(&mut self, next: Next) -> Parsed<()> {
        if next.kind != Kind::String {
            self.cursor.skip(next)?;
            if next.kind == Kind::Object && self.checker.options.target == Target::Trl {
                return Ok(());
            }
            if self.fixing() && next.kind == Kind::Object {
                let range = next.at..self.cursor.at();
                let object = String::from_utf8_lossy(self.slice(&range)).into_owned();
                self.edit(Rule::ToolCallArguments, Edit { range, text: serde_json::Value::String(object).to_string() });
            }
            self.report(Rule::ToolCallArguments, next.at, || format!("the arguments are {}", next.kind.name()));
            return Ok(());
        }
        let range = self.cursor.string(next)?;
        let arguments = text(self.slice(&range));
        let mut inner = super::json::Cursor::new(arguments.as_bytes());
        let read = inner.peek().and_then(|value| inner.skip(value).and_then(|()| inner.finish()).map(|()| value.kind));
        if read.as_ref().is_ok_and(|kind| *kind == Kind::Object) {
            return Ok(());
        }
        self.report(Rule::ToolCallArgumentsJson, next.at, || "the arguments are no JSON object".to_owned());
        Ok(())
    }
}
