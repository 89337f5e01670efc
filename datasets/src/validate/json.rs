//! One line as JSON, value by value, with the place of each: jiter's pull parser, and what its errors mean to the person who wrote the file.

use super::check::Edit;
use super::rules::Rule;
use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, Peek};
use std::borrow::Cow;
use std::ops::Range;

pub(super) type Parsed<T> = Result<T, JiterError>;

/// What a value is, before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::String => "a text",
            Self::Array => "a list",
            Self::Object => "an object",
        }
    }
}

/// The value that comes next.
#[derive(Clone, Copy)]
pub(super) struct Next {
    /// Where it begins, in bytes of the line.
    pub(super) at: usize,
    pub(super) kind: Kind,
    peek: Peek,
}

/// A place in a line.
pub(super) struct Cursor<'j> {
    jiter: Jiter<'j>,
    line: &'j [u8],
}

impl<'j> Cursor<'j> {
    pub(super) fn new(line: &'j [u8]) -> Self {
        Self { jiter: Jiter::new(line), line }
    }

    fn next_of(&mut self, peek: Peek) -> Parsed<Next> {
        let kind = match peek {
            Peek::Null => Kind::Null,
            Peek::True | Peek::False => Kind::Bool,
            Peek::String => Kind::String,
            Peek::Array => Kind::Array,
            Peek::Object => Kind::Object,
            number if number.is_num() => Kind::Number,
            other => {
                self.jiter.known_skip(other)?;
                Kind::Null
            }
        };
        Ok(Next { at: self.jiter.current_index(), kind, peek })
    }

    pub(super) fn peek(&mut self) -> Parsed<Next> {
        let peek = self.jiter.peek()?;
        self.next_of(peek)
    }

    pub(super) fn skip(&mut self, next: Next) -> Parsed<()> {
        self.jiter.known_skip(next.peek)
    }

    /// Reads a text, and gives the bytes between its quotation marks.
    pub(super) fn string(&mut self, next: Next) -> Parsed<Range<usize>> {
        self.jiter.known_bytes()?;
        Ok(next.at + 1..self.jiter.current_index() - 1)
    }

    /// One past the last value.
    pub(super) fn at(&self) -> usize {
        self.jiter.current_index()
    }

    /// The first key of an object, and where its opening quotation mark stands.
    pub(super) fn first_key(&mut self) -> Parsed<Option<Key<'j>>> {
        let length = self.jiter.next_object_bytes()?.map(<[u8]>::len);
        Ok(length.map(|length| self.key(length)))
    }

    pub(super) fn next_key(&mut self) -> Parsed<Option<Key<'j>>> {
        let length = self.jiter.next_key_bytes()?.map(<[u8]>::len);
        Ok(length.map(|length| self.key(length)))
    }

    /// The key was read up to its colon: it ends at the last quotation mark before that.
    fn key(&self, length: usize) -> Key<'j> {
        let before = &self.line[..self.jiter.current_index() - 1];
        let end = before.iter().rposition(|byte| *byte == b'"').unwrap_or(length);
        Key { at: end - length - 1, raw: &self.line[end - length..end] }
    }

    pub(super) fn first_item(&mut self) -> Parsed<Option<Next>> {
        match self.jiter.next_array()? {
            Some(peek) => self.next_of(peek).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn next_item(&mut self) -> Parsed<Option<Next>> {
        match self.jiter.array_step()? {
            Some(peek) => self.next_of(peek).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn finish(&mut self) -> Parsed<()> {
        self.jiter.finish()
    }
}

/// A key of an object.
#[derive(Clone, Copy)]
pub(super) struct Key<'j> {
    /// Where it begins, in bytes of the line.
    pub(super) at: usize,
    raw: &'j [u8],
}

impl<'j> Key<'j> {
    pub(super) fn text(&self) -> Cow<'j, str> {
        text(self.raw)
    }

    /// The bytes between its quotation marks.
    pub(super) fn range(&self) -> Range<usize> {
        self.at + 1..self.at + 1 + self.raw.len()
    }
}

/// The text between two quotation marks, its escapes undone.
pub(super) fn text(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Owned)
}

/// Whether a text shows nothing. Decoding a long text for that is not worth it: blanks that go on for more than this are blank enough.
pub(super) fn is_blank(raw: &[u8]) -> bool {
    raw.len() <= 256 && (raw.is_empty() || matches!(raw[0], b' ' | b'\\' | 0x80..)) && text(raw).trim().is_empty()
}

/// A line that is no JSON.
pub(super) struct Syntax {
    pub(super) rule: Rule,
    pub(super) at: usize,
    pub(super) message: String,
    pub(super) edit: Option<Edit>,
}

/// The letters around a place.
fn word(line: &[u8], at: usize) -> Range<usize> {
    let start = line[..at].iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(0, |before| before + 1);
    let end = line[at..].iter().position(|byte| !byte.is_ascii_alphabetic()).map_or(line.len(), |length| at + length);
    start..end
}

fn shown(byte: Option<&u8>, line: &[u8], at: usize) -> String {
    match byte {
        None => "the end of the line".to_owned(),
        Some(_) => {
            let rest = String::from_utf8_lossy(&line[at..line.len().min(at + 4)]).into_owned();
            format!("`{}`", rest.chars().next().unwrap_or_default().escape_debug())
        }
    }
}

/// What a parser's error is to a person.
pub(super) fn diagnose(line: &[u8], error: &JiterError) -> Syntax {
    let at = error.index.min(line.len());
    let plain = |rule: Rule, message: String| Syntax { rule, at, message, edit: None };
    let JiterErrorType::JsonError(kind) = &error.error_type else {
        return plain(Rule::JsonSyntax, error.error_type.to_string());
    };
    let here = shown(line.get(at), line, at);
    match kind {
        JsonErrorType::EofWhileParsingList
        | JsonErrorType::EofWhileParsingObject
        | JsonErrorType::EofWhileParsingString
        | JsonErrorType::EofWhileParsingValue => match literal(line, at.min(line.len().saturating_sub(1))) {
            Some(syntax) => syntax,
            None => plain(Rule::JsonUnclosed, format!("the line ends inside {}", inside(kind))),
        },
        JsonErrorType::TrailingComma => {
            let comma = line[..at].iter().rposition(|byte| *byte == b',').unwrap_or(at);
            let edit = Some(Edit::remove(comma..comma + 1));
            Syntax { rule: Rule::JsonTrailingComma, at: comma, message: format!("a comma before {here}"), edit }
        }
        JsonErrorType::TrailingCharacters => trailing(line, at, &here),
        JsonErrorType::ControlCharacterWhileParsingString => {
            let byte = line.get(at).copied().unwrap_or_default();
            let escape = match byte {
                b'\t' => "\\t".to_owned(),
                b'\r' => "\\r".to_owned(),
                b'\n' => "\\n".to_owned(),
                other => format!("\\u{other:04x}"),
            };
            let message = format!("the byte 0x{byte:02x} must be written as {escape}");
            Syntax { rule: Rule::JsonControlCharacter, at, message, edit: Some(Edit { range: at..at + 1, text: escape }) }
        }
        JsonErrorType::InvalidEscape => {
            let backslash = line[..at.min(line.len())].iter().rposition(|byte| *byte == b'\\').unwrap_or(at);
            let rest = String::from_utf8_lossy(&line[backslash..line.len().min(backslash + 6)]).into_owned();
            let message = format!("`{}` is no escape", rest.chars().take(if rest.starts_with("\\u") { 6 } else { 2 }).collect::<String>());
            Syntax { rule: Rule::JsonEscape, at: backslash, message, edit: None }
        }
        JsonErrorType::LoneLeadingSurrogateInHexEscape | JsonErrorType::UnexpectedEndOfHexEscape => {
            let backslash = line[..at.min(line.len())].iter().rposition(|byte| *byte == b'\\').unwrap_or(at);
            Syntax { rule: Rule::JsonSurrogate, at: backslash, message: "half of a surrogate pair stands alone".to_owned(), edit: None }
        }
        JsonErrorType::ExpectedColon => plain(Rule::JsonMissingColon, format!("a colon is expected, {here} is there")),
        JsonErrorType::ExpectedListCommaOrEnd | JsonErrorType::ExpectedObjectCommaOrEnd => match line.get(at) {
            Some(b'/' | b'#') => plain(Rule::JsonComment, format!("{here} begins a comment")),
            _ => plain(Rule::JsonMissingComma, format!("a comma or the end is expected, {here} is there")),
        },
        JsonErrorType::KeyMustBeAString => match line.get(at) {
            Some(b'\'') => plain(Rule::JsonSingleQuotes, "a key in single quotation marks".to_owned()),
            Some(b'/' | b'#') => plain(Rule::JsonComment, format!("{here} begins a comment")),
            Some(byte) if byte.is_ascii_alphanumeric() || *byte == b'_' => {
                plain(Rule::JsonUnquotedKey, "a key without quotation marks".to_owned())
            }
            _ => plain(Rule::JsonSyntax, format!("a key is expected, {here} is there")),
        },
        JsonErrorType::RecursionLimitExceeded => plain(Rule::JsonDepth, "values inside each other deeper than 200 levels".to_owned()),
        JsonErrorType::InvalidNumber | JsonErrorType::NumberOutOfRange | JsonErrorType::FloatExpectingInt => {
            literal(line, at).unwrap_or_else(|| plain(Rule::JsonNumber, format!("no number at {here}")))
        }
        JsonErrorType::ExpectedSomeIdent | JsonErrorType::ExpectedSomeValue => literal(line, at).unwrap_or_else(|| match line.get(at) {
            Some(b'\'') => plain(Rule::JsonSingleQuotes, "a text in single quotation marks".to_owned()),
            Some(b'/' | b'#') => plain(Rule::JsonComment, format!("{here} begins a comment")),
            Some(b'+' | b'.' | b'0'..=b'9') => plain(Rule::JsonNumber, format!("no number begins with {here}")),
            _ => plain(Rule::JsonSyntax, format!("a value is expected, {here} is there")),
        }),
        other => plain(Rule::JsonSyntax, other.to_string()),
    }
}

fn inside(kind: &JsonErrorType) -> &'static str {
    match kind {
        JsonErrorType::EofWhileParsingList => "a list",
        JsonErrorType::EofWhileParsingString => "a text",
        _ => "an object",
    }
}

/// A word where a value is expected: Python's literals, JavaScript's and the numbers that are none.
fn literal(line: &[u8], at: usize) -> Option<Syntax> {
    let range = word(line, at);
    let (rule, replacement) = match &line[range.clone()] {
        b"None" => (Rule::JsonPythonLiteral, Some("null")),
        b"True" => (Rule::JsonPythonLiteral, Some("true")),
        b"False" => (Rule::JsonPythonLiteral, Some("false")),
        b"NaN" | b"nan" | b"Infinity" | b"inf" | b"undefined" => (Rule::JsonNan, None),
        _ => return None,
    };
    let message = format!("{} is no JSON", String::from_utf8_lossy(&line[range.clone()]));
    let edit = replacement.map(|text| Edit { range: range.clone(), text: text.to_owned() });
    Some(Syntax { rule, at: range.start, message, edit })
}

fn trailing(line: &[u8], at: usize, here: &str) -> Syntax {
    let rest = &line[at..];
    let behind_comma = rest.iter().position(|byte| *byte != b',' && !byte.is_ascii_whitespace());
    if let Some(next) = behind_comma.filter(|next| rest[*next] == b'{') {
        let edit = Some(Edit { range: at..at + next, text: "\n".to_owned() });
        return Syntax { rule: Rule::JsonTwoValues, at, message: "another row follows in the same line".to_owned(), edit };
    }
    let rule = if matches!(rest.first(), Some(b'/' | b'#')) { Rule::JsonComment } else { Rule::JsonTrailingCharacters };
    Syntax { rule, at, message: format!("{here} follows the row"), edit: behind_comma.is_none().then(|| Edit::remove(at..line.len())) }
}
