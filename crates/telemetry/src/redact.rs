//! Personal data and secrets, replaced by the name of their kind before anything is written.
//!
//! Found by pattern and, where there is one, by checksum: Luhn for cards (ISO/IEC 7812-1), modulo 97 for IBANs (ISO 13616). Names and postal addresses have no pattern and stay.

use regex::{Captures, Regex};
use std::borrow::Cow;
use std::ops::Range;

/// A kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `ann@example.org`.
    Email,
    /// International numbers, and national ones with separators.
    Phone,
    /// 13 to 19 digits with a right Luhn digit.
    Card,
    /// An IBAN with right check digits.
    Iban,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Email, Self::Phone, Self::Card, Self::Iban];

    /// Its name in the settings and in the text that takes its place.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Card => "card",
            Self::Iban => "iban",
        }
    }

    fn pattern(self) -> &'static str {
        match self {
            Self::Email => r"[\p{L}\p{N}._%+\-]+@[\p{L}\p{N}\-]+(?:\.[\p{L}\p{N}\-]+)*\.\p{L}{2,}",
            Self::Phone => {
                r"(?:\+|\b00)[1-9]\d{0,2}(?:[\s./()\-]{0,3}\d){6,12}\b|\b0\d{1,5}[\s/.\-]{1,3}\d(?:[\s/.\-]{0,2}\d){4,9}\b|\(\d{3}\)[\s.\-]?\d{3}[\s.\-]\d{4}\b|\b\d{3}[.\-]\d{3}[.\-]\d{4}\b"
            }
            Self::Card => r"\b\d(?:[ \-]?\d){12,18}\b",
            Self::Iban => r"(?i)\b[a-z]{2}\d{2}(?:[ \-]?[a-z0-9]){11,30}\b",
        }
    }

    /// The part of a match that is one. Neighbouring numbers and words may be in the match too.
    fn part(self, found: &str) -> Option<Range<usize>> {
        match self {
            Self::Email | Self::Phone => Some(0..found.len()),
            Self::Card => longest_run(found, is_card),
            Self::Iban => longest_run(found, is_iban),
        }
    }
}

/// The longest run of whole groups that passes the check.
fn longest_run(text: &str, is: impl Fn(&str) -> bool) -> Option<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate() {
        if matches!(byte, b' ' | b'-') {
            groups.push(start..at);
            start = at + 1;
        }
    }
    groups.push(start..text.len());
    let runs = (0..groups.len()).flat_map(|first| (first..groups.len()).map(move |last| (first, last)));
    let runs = runs.map(|(first, last)| groups[first].start..groups[last].end).filter(|run| is(&text[run.clone()]));
    runs.max_by_key(ExactSizeIterator::len)
}

/// Luhn's check digit.
fn is_card(text: &str) -> bool {
    let digits = text.bytes().rev().filter(u8::is_ascii_digit).map(|digit| u32::from(digit - b'0'));
    let sum: u32 = digits
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    (13..=19).contains(&digits) && sum.is_multiple_of(10) && text.bytes().any(|digit| (b'1'..=b'9').contains(&digit))
}

/// The first four characters behind the rest, letters as 10 to 35, are 1 modulo 97.
fn is_iban(text: &str) -> bool {
    let text: Vec<u8> = text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_uppercase()).collect();
    let begins = text.len() > 4 && text[..2].iter().all(u8::is_ascii_alphabetic) && text[2..4].iter().all(u8::is_ascii_digit);
    if !begins || !(15..=34).contains(&text.len()) {
        return false;
    }
    let rest = text[4..].iter().chain(&text[..4]).fold(0u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
    });
    rest == 1
}

/// Keys of ours and of the best-known servers; always replaced.
const SECRETS: &str = r"\bgt-[0-9a-f]{12}-[0-9a-f]{64}\b|\bgtp-[A-Za-z0-9_.\-]{40,}|\b(?:sk|rk|pk)-[A-Za-z0-9_\-]{20,}|(?i:\bbearer )[A-Za-z0-9_.~+/\-]{16,}=*";

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` cannot be used: {reason}")]
pub struct PatternError {
    entry: String,
    reason: String,
}

/// Replaces what it knows.
#[derive(Debug, Clone)]
pub struct Redactor {
    secrets: Option<Regex>,
    kinds: Vec<(Kind, Regex)>,
    own: Vec<(String, Regex)>,
}

impl Redactor {
    /// Secrets, these kinds, and patterns of an installation's own: `NAME=REGEX`.
    pub fn new(kinds: &[Kind], own: &[String]) -> Result<Self, PatternError> {
        let compile = |entry: &str, pattern: &str| {
            let reason = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            Regex::new(pattern).map_err(|error| PatternError { entry: entry.to_owned(), reason: reason(error) })
        };
        // An IBAN holds what looks like a card, and a card what looks like a telephone number.
        let order = [Kind::Email, Kind::Iban, Kind::Card, Kind::Phone];
        let kinds = order.into_iter().filter(|kind| kinds.contains(kind));
        let kinds = kinds.map(|kind| Ok((kind, compile(kind.as_str(), kind.pattern())?))).collect::<Result<_, _>>()?;
        let own = own.iter().map(|entry| match entry.split_once('=') {
            Some((name, pattern)) if !name.is_empty() && !pattern.is_empty() => Ok((format!("[{name}]"), compile(entry, pattern)?)),
            _ => Err(PatternError { entry: entry.clone(), reason: "write it as NAME=REGEX".to_owned() }),
        });
        Ok(Self { secrets: Some(compile("secrets", SECRETS)?), kinds, own: own.collect::<Result<_, _>>()? })
    }

    /// Replaces nothing.
    pub fn none() -> Self {
        Self { secrets: None, kinds: Vec::new(), own: Vec::new() }
    }

    /// The text with everything that was found replaced by `[email]`, `[card]`, `[key]`, ...
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if let Some(secrets) = &self.secrets {
            replace(&mut text, secrets, "[key]", |found| Some(0..found.len()));
        }
        for (name, pattern) in &self.own {
            replace(&mut text, pattern, name, |found| Some(0..found.len()));
        }
        for (kind, pattern) in &self.kinds {
            replace(&mut text, pattern, &format!("[{}]", kind.as_str()), |found| kind.part(found));
        }
        text
    }
}

fn replace(text: &mut Cow<'_, str>, pattern: &Regex, name: &str, part: impl Fn(&str) -> Option<Range<usize>>) {
    let replaced = match pattern.replace_all(text, |found: &Captures<'_>| {
        let found = &found[0];
        match part(found) {
            Some(part) => format!("{}{name}{}", &found[..part.start], &found[part.end..]),
            None => found.to_owned(),
        }
    }) {
        Cow::Borrowed(_) => return,
        Cow::Owned(replaced) => replaced,
    };
    *text = Cow::Owned(replaced);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Redactor {
        Redactor::new(&Kind::ALL, &["order=ORD-[0-9]{6}".to_owned()]).unwrap()
    }

    #[test]
    fn personal_data_is_replaced_by_its_kind() {
        let redactor = all();
        for (text, expected) in [
            ("Write to ann.lee+shop@mail.example.co.uk, please.", "Write to [email], please."),
            ("jürgen@bücher.example and <a@b.io>", "[email] and <[email]>"),
            ("Call +43 660 123 45 67 or 0043 (660) 1234567.", "Call [phone] or [phone]."),
            ("0316/873-1234, (415) 555-2671, 415-555-2671", "[phone], [phone], [phone]"),
            ("card 4111 1111 1111 1111 exp 12/29", "card [card] exp 12/29"),
            ("5500-0000-0000-0004/378282246310005", "[card]/[card]"),
            ("IBAN AT61 1904 3002 3457 3201.", "IBAN [iban]."),
            ("de89370400440532013000", "[iban]"),
            ("Order 12 4111 1111 1111 1111 4 pieces, AT61 1904 3002 3457 3201 as well", "Order 12 [card] 4 pieces, [iban] as well"),
            ("about ORD-123456", "about [order]"),
            (concat!("key gt-0123456789ab", "-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef!"), "key [key]!"),
            ("Authorization: Bearer abcdefghijklmnop.qrst", "Authorization: [key]"),
        ] {
            assert_eq!(redactor.redact(text), expected);
        }
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        let redactor = all();
        for text in [
            "4111 1111 1111 1112 is no card: its check digit is wrong",
            "AT62 1904 3002 3457 3202 is no IBAN",
            "The grinder costs 249 euro, has 40 mm burrs and came out on 2026-11-27.",
            "12345, 1 000 000 and 3.14159265",
            "0190a1b2-7c3d-7000-8000-0123456789ab",
            "2026-11-27T06:27:07.123456Z time.busy=1.23ms port=8080 0.0571234",
            "a @ b, user@localhost",
            "",
        ] {
            assert_eq!(redactor.redact(text), text);
        }
        assert_eq!(Redactor::none().redact("a@b.io"), "a@b.io");
    }

    #[test]
    fn a_wrong_pattern_is_a_sentence() {
        let error = |entry: &str| Redactor::new(&[], &[entry.to_owned()]).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error("order"), "`order` cannot be used: write it as NAME=REGEX");
        assert!(error("order=(").starts_with("`order=(` cannot be used: error: unclosed group"), "{}", error("order=("));
    }
}
