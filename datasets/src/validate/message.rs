//! One message: its role, and whether it has what that role must have.

use super::check::{Edit, Line};
use super::conversation::{Conversation, Place, Role, Turn};
use super::json::{Key, Kind, Next, Parsed, is_blank, text};
use super::rules::Rule;
use super::tools::is_usual_name;
use std::ops::Range;

/// Names of roles in other tools, by what they are here.
const ALIASES: [(&str, &str); 14] = [
    ("human", "user"),
    ("customer", "user"),
    ("client", "user"),
    ("prompter", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("bot", "assistant"),
    ("ai", "assistant"),
    ("model", "assistant"),
    ("agent", "assistant"),
    ("claude", "assistant"),
    ("bard", "assistant"),
    ("bing", "assistant"),
    ("observation", "tool"),
];

/// Keys of a server's reply that people write into training files.
const LEFTOVERS: [&str; 7] = ["annotations", "audio", "reasoning", "reasoning_content", "thinking", "logprobs", "provider_specific_fields"];

/// Pictures of a row, as OpenAI documents it.
const MOST_IMAGES: usize = 10;

const PARTS: [&str; 5] = ["text", "image_url", "input_audio", "file", "refusal"];
const TEXT: usize = 0;
const IMAGE: usize = 1;
const REFUSAL: usize = 4;

fn role(name: &str) -> Option<Role> {
    Some(match name {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        "function" => Role::Function,
        _ => return None,
    })
}

enum Content {
    Missing,
    Null,
    Text {
        blank: bool,
    },
    /// The first place of each type of part.
    Parts([Option<usize>; PARTS.len()]),
    /// Reported already.
    Broken,
}

/// What was read of a message, before its role is known.
struct Fields {
    role: Option<Role>,
    role_there: bool,
    content: Content,
    content_at: usize,
    name: bool,
    calls: bool,
    function_call: bool,
    refusal: bool,
    /// Where the key of the weight stands, its value, and where that ends.
    weight: Option<(usize, Option<bool>, usize)>,
    /// Where a key stands that only the assistant has.
    assistant_only: Option<usize>,
    seen: Vec<Range<usize>>,
}

impl<'j> Line<'_, '_, 'j> {
    pub(super) fn message(&mut self, next: Next, place: Place, talk: &mut Conversation) -> Parsed<()> {
        let calls = talk.calls.len();
        let mut turn = Turn { at: next.at, role: None, learned: true, content: 0..0, answers: None, calls: calls..calls };
        if next.kind != Kind::Object {
            self.cursor.skip(next)?;
            self.report(Rule::MessageType, next.at, || format!("a message is {}", next.kind.name()));
            talk.turns.push(turn);
            return Ok(());
        }
        let mut fields = Fields {
            role: None,
            role_there: false,
            content: Content::Missing,
            content_at: next.at,
            name: false,
            calls: false,
            function_call: false,
            refusal: false,
            weight: None,
            assistant_only: None,
            seen: Vec::with_capacity(4),
        };
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            self.once(&mut fields.seen, found);
            self.message_key(found, &mut fields, &mut turn, talk)?;
            key = self.cursor.next_key()?;
        }
        if !fields.role_there {
            self.report(Rule::RoleMissing, next.at, || "the message has no role".to_owned());
        }
        turn.role = fields.role;
        turn.calls.end = talk.calls.len();
        turn.learned = !matches!(fields.weight, Some((_, Some(false), _)));
        if let Some(role) = fields.role {
            self.by_role(role, &fields, &turn, place);
        }
        talk.turns.push(turn);
        Ok(())
    }

    fn message_key(&mut self, key: Key<'j>, fields: &mut Fields, turn: &mut Turn, talk: &mut Conversation) -> Parsed<()> {
        let next = self.cursor.peek()?;
        match &*key.text() {
            "role" => self.role(next, fields)?,
            "content" => {
                fields.content_at = next.at;
                fields.content = self.content(next)?;
                turn.content = next.at..self.cursor.at();
            }
            "name" => self.name(next, fields)?,
            "weight" => self.weight(key, next, fields)?,
            "tool_calls" | "function_call" | "refusal" if next.kind == Kind::Null => {
                self.cursor.skip(next)?;
                // The schema allows a refusal and a function_call of null, and no tool_calls of null.
                if &*key.text() == "tool_calls" {
                    let edit = Edit::remove_member(self.bytes, key.at, self.cursor.at());
                    self.edit(Rule::ToolCallsNull, edit);
                    self.report(Rule::ToolCallsNull, next.at, || "tool_calls is null".to_owned());
                }
            }
            "tool_calls" => {
                fields.assistant_only = fields.assistant_only.or(Some(key.at));
                fields.calls = self.calls(next, &mut talk.calls)?;
            }
            "function_call" => {
                fields.assistant_only = fields.assistant_only.or(Some(key.at));
                fields.function_call = true;
                let name = self.called(next, true)?;
                talk.calls.push(super::tools::Call { at: next.at, id: None, name });
            }
            "refusal" => {
                self.cursor.skip(next)?;
                fields.refusal = true;
                if next.kind != Kind::String {
                    self.report(Rule::RefusalType, next.at, || format!("the refusal is {}", next.kind.name()));
                }
            }
            "tool_call_id" if next.kind == Kind::String => turn.answers = Some(self.cursor.string(next)?),
            "tool_call_id" => {
                self.cursor.skip(next)?;
                self.report(Rule::ToolCallIdMissing, next.at, || format!("tool_call_id is {}", next.kind.name()));
                turn.answers = None;
            }
            other => {
                let leftover = LEFTOVERS.contains(&other);
                let rule = if leftover { Rule::MessageLeftover } else { Rule::MessageUnknownKey };
                self.cursor.skip(next)?;
                self.report(rule, key.at, || format!("`{other}` is no key of a message in a training file"));
            }
        }
        Ok(())
    }

    fn role(&mut self, next: Next, fields: &mut Fields) -> Parsed<()> {
        fields.role_there = true;
        if next.kind != Kind::String {
            self.cursor.skip(next)?;
            self.report(Rule::RoleType, next.at, || format!("the role is {}", next.kind.name()));
            return Ok(());
        }
        let range = self.cursor.string(next)?;
        let name = text(self.slice(&range));
        fields.role = role(&name);
        if fields.role.is_none() {
            let lower = name.trim().to_lowercase();
            let meant =
                role(&lower).map(|_| lower.as_str()).or_else(|| ALIASES.iter().find(|(alias, _)| *alias == lower).map(|(_, meant)| *meant));
            if let Some(meant) = meant {
                self.edit(Rule::RoleUnknown, Edit { range, text: meant.to_owned() });
            }
            let shown: String = name.chars().take(40).collect();
            self.report(Rule::RoleUnknown, next.at, || match meant {
                Some(meant) => format!("`{shown}` is no role; {meant} is meant"),
                None => format!("`{shown}` is no role"),
            });
        }
        Ok(())
    }

    fn name(&mut self, next: Next, fields: &mut Fields) -> Parsed<()> {
        if next.kind != Kind::String {
            self.cursor.skip(next)?;
            self.report(Rule::NameType, next.at, || format!("the name is {}", next.kind.name()));
            return Ok(());
        }
        let range = self.cursor.string(next)?;
        fields.name = !range.is_empty();
        if !is_usual_name(self.slice(&range)) {
            self.report(Rule::NameFormat, next.at, || "targets take up to 64 letters, digits, _ and -".to_owned());
        }
        Ok(())
    }

    fn weight(&mut self, key: Key<'j>, next: Next, fields: &mut Fields) -> Parsed<()> {
        self.cursor.skip(next)?;
        let range = next.at..self.cursor.at();
        let written = String::from_utf8_lossy(self.slice(&range)).into_owned();
        let number = if next.kind == Kind::Number { written.parse::<f64>().ok() } else { None };
        let value = match number {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        };
        fields.weight = Some((key.at, value, range.end));
        if value.is_none() {
            let meant = match written.as_str() {
                "true" | "\"1\"" => Some("1"),
                "false" | "\"0\"" => Some("0"),
                _ => None,
            };
            if let Some(meant) = meant {
                self.edit(Rule::WeightValue, Edit { range, text: meant.to_owned() });
            }
            let shown: String = written.chars().take(40).collect();
            self.report(Rule::WeightValue, next.at, || format!("the weight is {shown}"));
        }
        Ok(())
    }

    /// What only a known role can say.
    fn by_role(&mut self, role: Role, fields: &Fields, turn: &Turn, place: Place) {
        let target = self.checker.options.target;
        let known = match role {
            Role::Developer => target.knows_developer(),
            Role::Function => target.knows_function_role(),
            _ => true,
        };
        if !known {
            let name = if role == Role::Developer { "developer" } else { "function" };
            self.report(Rule::RoleUnsupported, turn.at, || format!("{} does not know the role {name}", target.as_str()));
        }
        if role != Role::Assistant
            && let Some(at) = fields.assistant_only
        {
            self.report(Rule::ToolCallsRole, at, || "a call in a message that is not the assistant's".to_owned());
        }
        self.weight_fits(role, fields, place);
        match role {
            Role::Assistant => self.assistant_says_something(fields, turn),
            // Templates of local models name the tool instead.
            Role::Tool
                if turn.answers.is_none() && (target.follows_tool_calls() || !fields.name) && !self.key_seen(fields, b"tool_call_id") =>
            {
                self.report(Rule::ToolCallIdMissing, turn.at, || "the tool's message has no tool_call_id".to_owned());
            }
            Role::Tool => {
                if let Some(id) = &turn.answers {
                    self.mistral_id(id);
                }
            }
            Role::Function if !fields.name => self.report(Rule::FunctionName, turn.at, || "the function's message has no name".to_owned()),
            _ => {}
        }
        if role != Role::Assistant {
            self.content_is_there(role, fields, turn);
        }
        if let Content::Parts(parts) = &fields.content {
            for (kind, at) in parts.iter().enumerate().filter_map(|(kind, at)| at.map(|at| (kind, at))) {
                let allowed = kind == TEXT || role == Role::User && kind != REFUSAL || role == Role::Assistant && kind == REFUSAL;
                if !allowed {
                    self.report(Rule::PartRole, at, || format!("a part of type {} in a message of another role", PARTS[kind]));
                }
            }
        }
    }

    fn key_seen(&self, fields: &Fields, key: &[u8]) -> bool {
        fields.seen.iter().any(|range| self.slice(range) == key)
    }

    fn weight_fits(&mut self, role: Role, fields: &Fields, place: Place) {
        let Some((key, value, end)) = fields.weight else { return };
        let remove = Edit::remove_member(self.bytes, key, end);
        if role != Role::Assistant {
            self.edit(Rule::WeightRole, remove);
            self.report(Rule::WeightRole, key, || "a weight on a message that is not the assistant's".to_owned());
        } else if !self.checker.options.target.knows_weight() || place == Place::Output {
            if value == Some(true) {
                self.edit(Rule::WeightUnsupported, remove);
            }
            self.report(Rule::WeightUnsupported, key, || "the weight is ignored".to_owned());
        }
    }

    fn assistant_says_something(&mut self, fields: &Fields, turn: &Turn) {
        let otherwise = fields.calls || fields.function_call || fields.refusal;
        let says = match &fields.content {
            Content::Missing | Content::Null => false,
            Content::Text { blank } => !blank,
            Content::Parts(_) | Content::Broken => true,
        };
        if !says && !otherwise {
            let at = if matches!(fields.content, Content::Missing) { turn.at } else { fields.content_at };
            self.report(Rule::AssistantEmpty, at, || "the assistant says nothing".to_owned());
        }
    }

    fn content_is_there(&mut self, role: Role, fields: &Fields, turn: &Turn) {
        match fields.content {
            Content::Missing => self.report(Rule::ContentMissing, turn.at, || "the message has no content".to_owned()),
            // The schema of the older function message allows it.
            Content::Null if role == Role::Function => {}
            Content::Null => self.report(Rule::ContentNull, fields.content_at, || "the content is null".to_owned()),
            Content::Text { blank: true } if !matches!(role, Role::Tool | Role::Function) => {
                self.report(Rule::ContentBlank, fields.content_at, || "the content is blank".to_owned());
            }
            Content::Text { .. } | Content::Parts(_) | Content::Broken => {}
        }
    }

    fn content(&mut self, next: Next) -> Parsed<Content> {
        match next.kind {
            Kind::String => {
                let range = self.cursor.string(next)?;
                Ok(Content::Text { blank: is_blank(self.slice(&range)) })
            }
            Kind::Null => self.cursor.skip(next).map(|()| Content::Null),
            Kind::Array => self.parts(next),
            kind => {
                self.cursor.skip(next)?;
                self.report(Rule::ContentType, next.at, || format!("the content is {}", kind.name()));
                Ok(Content::Broken)
            }
        }
    }

    fn parts(&mut self, next: Next) -> Parsed<Content> {
        let (mut parts, mut images, mut any) = ([None; PARTS.len()], 0, false);
        let mut item = self.cursor.first_item()?;
        while let Some(part) = item {
            any = true;
            if let Some(kind) = self.part(part)? {
                parts[kind] = parts[kind].or(Some(part.at));
                images += usize::from(kind == IMAGE);
            }
            item = self.cursor.next_item()?;
        }
        if images > MOST_IMAGES {
            self.report(Rule::TooManyImages, next.at, || format!("{images} pictures"));
        }
        if !any {
            self.report(Rule::ContentPartsEmpty, next.at, || "the list of parts is empty".to_owned());
            return Ok(Content::Broken);
        }
        Ok(Content::Parts(parts))
    }

    /// The type of a part; `None` where it has none that is known.
    fn part(&mut self, next: Next) -> Parsed<Option<usize>> {
        if next.kind != Kind::Object {
            self.cursor.skip(next)?;
            self.report(Rule::PartType, next.at, || format!("a part is {}", next.kind.name()));
            return Ok(None);
        }
        let (mut kind, mut has_text, mut has_refusal, mut image) = (None, false, false, false);
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            let value = self.cursor.peek()?;
            match &*found.text() {
                "type" if value.kind == Kind::String => kind = Some(self.cursor.string(value)?),
                "image_url" => {
                    image = true;
                    self.image(value)?;
                }
                name => {
                    has_text |= name == "text" && value.kind == Kind::String;
                    has_refusal |= name == "refusal" && value.kind == Kind::String;
                    self.cursor.skip(value)?;
                }
            }
            key = self.cursor.next_key()?;
        }
        let name = kind.map(|range| self.slice(&range)).unwrap_or_default();
        let Some(kind) = PARTS.iter().position(|part| part.as_bytes() == name) else {
            let shown: String = String::from_utf8_lossy(name).chars().take(40).collect();
            self.report(Rule::PartType, next.at, || format!("a part of type `{shown}`"));
            return Ok(None);
        };
        match kind {
            TEXT if !has_text => self.report(Rule::PartText, next.at, || "the part has no text".to_owned()),
            REFUSAL if !has_refusal => self.report(Rule::PartText, next.at, || "the part has no refusal".to_owned()),
            IMAGE if !image => self.report(Rule::ImageUrl, next.at, || "the part has no image_url".to_owned()),
            _ => {}
        }
        Ok(Some(kind))
    }

    fn image(&mut self, next: Next) -> Parsed<()> {
        if next.kind != Kind::Object {
            self.cursor.skip(next)?;
            self.report(Rule::ImageUrl, next.at, || format!("image_url is {}, not {{\"url\": ...}}", next.kind.name()));
            return Ok(());
        }
        let mut url = None;
        let mut key = self.cursor.first_key()?;
        while let Some(found) = key {
            let value = self.cursor.peek()?;
            match &*found.text() {
                "url" if value.kind == Kind::String => url = Some(self.cursor.string(value)?),
                "detail" => {
                    let known = if value.kind == Kind::String {
                        let range = self.cursor.string(value)?;
                        matches!(self.slice(&range), b"auto" | b"low" | b"high")
                    } else {
                        self.cursor.skip(value)?;
                        false
                    };
                    if !known {
                        self.report(Rule::ImageDetail, value.at, || "the detail is none of auto, low and high".to_owned());
                    }
                }
                _ => self.cursor.skip(value)?,
            }
            key = self.cursor.next_key()?;
        }
        let usable = url.as_ref().is_some_and(|url| {
            let raw = self.slice(url);
            let start = text(&raw[..raw.len().min(64)]).to_lowercase();
            let web = start.starts_with("https://") || start.starts_with("http://");
            let data = ["jpeg", "jpg", "png", "webp"].iter().any(|kind| start.starts_with(&format!("data:image/{kind};base64,")));
            web || data
        });
        if !usable {
            let at = url.map_or(next.at, |url| url.start - 1);
            self.report(Rule::ImageUrl, at, || "no web address, and no data URL of a JPEG, PNG or WEBP".to_owned());
        }
        Ok(())
    }
}
