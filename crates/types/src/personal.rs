//! Personal data and secrets in a text, by their shape: for reports on training rows, and for what is kept of answers.
//!
//! Shapes with check digits are checked (Luhn for cards, ISO/IEC 7812-1; modulo 97 for IBANs, ISO 13616). Names and postal addresses have no shape, and are not found.

use crate::Span;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

/// What kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonalKind {
    /// A key or a password of a service.
    Secret,
    /// An address of electronic mail.
    Email,
    /// An international bank account number.
    Iban,
    /// A payment card's number.
    Card,
    /// A social security number of the United States.
    SocialSecurity,
    /// An address of the internet protocol, version 4.
    IpAddress,
    /// A telephone number: international, or a national one with separators.
    Phone,
}

impl PersonalKind {
    /// Every kind, the most telling first: an IBAN holds what looks like a card, and a card what looks like a telephone number.
    pub const ALL: [Self; 7] = [Self::Secret, Self::Email, Self::Iban, Self::Card, Self::SocialSecurity, Self::IpAddress, Self::Phone];

    /// Its name in settings, in reports and in place of what was redacted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Email => "email",
            Self::Iban => "iban",
            Self::Card => "card",
            Self::SocialSecurity => "social_security",
            Self::IpAddress => "ip_address",
            Self::Phone => "phone",
        }
    }

    fn shape(self) -> &'static str {
        match self {
            // Keys of ours and of the best-known services, tokens of the web (RFC 7519, RFC 6750).
            Self::Secret => concat!(
                r"\bgt-[0-9a-f]{12}-[0-9a-f]{64}\b|\bgtp-[A-Za-z0-9_.\-]{40,}|\b(?:sk|rk|pk)-[A-Za-z0-9_\-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b",
                r"|\bxox[abprs]-[A-Za-z0-9\-]{10,}|\bAIza[0-9A-Za-z_\-]{35}|\beyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}",
                r"|(?i:\bbearer )[A-Za-z0-9_.~+/\-]{16,}=*",
            ),
            Self::Email => r"[\p{L}\p{N}._%+\-]{1,64}@[\p{L}\p{N}\-]{1,63}(?:\.[\p{L}\p{N}\-]{1,63})*\.\p{L}{2,24}",
            Self::Iban => r"(?i)\b[a-z]{2}\d{2}(?:[ \-]?[a-z0-9]){11,30}\b",
            Self::Card => r"\b\d(?:[ \-]?\d){12,18}\b",
            Self::SocialSecurity => r"\b\d{3}-\d{2}-\d{4}\b",
            Self::IpAddress => r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
            Self::Phone => concat!(
                r"(?:\+|\b00)[1-9]\d{0,2}(?:[\s./()\-]{0,3}\d){6,12}\b|\b0\d{1,5}[\s/.\-]{1,3}\d(?:[\s/.\-]{0,2}\d){4,9}\b",
                r"|\(\d{3}\)[\s.\-]?\d{3}[\s.\-]\d{4}\b|\b\d{3}[.\- ]\d{3}[.\-]\d{4}\b",
            ),
        }
    }

    /// The part of a match that is one. Neighbouring numbers and words may be in the match too.
    fn part(self, found: &str) -> Option<Range<usize>> {
        match self {
            Self::Card => longest_run(found, is_card),
            Self::Iban => longest_run(found, is_iban),
            Self::IpAddress => is_address(found).then_some(0..found.len()),
            // `0000 0000 0000` holds a place.
            Self::Phone => found.bytes().any(|byte| (b'1'..=b'9').contains(&byte)).then_some(0..found.len()),
            Self::Secret | Self::Email | Self::SocialSecurity => Some(0..found.len()),
        }
    }
}

/// One finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PersonalData {
    /// What kind.
    pub kind: PersonalKind,
    /// Where, in bytes of the text.
    pub span: Span,
}

/// The shapes, in the order of [`PersonalKind::ALL`].
static SHAPES: LazyLock<[Option<Regex>; PersonalKind::ALL.len()]> =
    LazyLock::new(|| PersonalKind::ALL.map(|kind| Regex::new(kind.shape()).ok()));

/// The longest run of whole groups that passes the check; groups are parted by spaces and hyphens.
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

/// An address that says something about somebody: not the machine itself, not everybody.
fn is_address(text: &str) -> bool {
    text.split('.').all(|part| part.parse::<u8>().is_ok()) && !matches!(text, "127.0.0.1" | "0.0.0.0" | "255.255.255.255")
}

/// What a text holds of these kinds, in its order. Findings do not overlap: of two, the kind that is first in [`PersonalKind::ALL`] stays.
pub fn find_personal_data(text: &str, kinds: &[PersonalKind]) -> Vec<PersonalData> {
    let mut found: Vec<PersonalData> = Vec::new();
    for (kind, shape) in PersonalKind::ALL.into_iter().zip(&*SHAPES) {
        let Some(shape) = shape.as_ref().filter(|_| kinds.contains(&kind)) else { continue };
        let known = found.len();
        for whole in shape.find_iter(text) {
            let Some(part) = kind.part(whole.as_str()) else { continue };
            let span = Span { start: whole.start() + part.start, end: whole.start() + part.end };
            // Those known are in the order of the text and apart from each other.
            let before = found[..known].partition_point(|other| other.span.end <= span.start);
            if found[..known].get(before).is_none_or(|other| other.span.start >= span.end) {
                found.push(PersonalData { kind, span });
            }
        }
        found.sort_unstable_by_key(|finding| finding.span.start);
    }
    found
}

/// The text with `[kind]` in place of each finding of these kinds.
pub fn redact_personal_data<'a>(text: &'a str, kinds: &[PersonalKind]) -> Cow<'a, str> {
    let found = find_personal_data(text, kinds);
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut redacted, mut from) = (String::with_capacity(text.len()), 0);
    for finding in found {
        redacted.push_str(&text[from..finding.span.start]);
        redacted.push('[');
        redacted.push_str(finding.kind.as_str());
        redacted.push(']');
        from = finding.span.end;
    }
    redacted.push_str(&text[from..]);
    Cow::Owned(redacted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redact(text: &str) -> Cow<'_, str> {
        redact_personal_data(text, &PersonalKind::ALL)
    }

    #[test]
    fn what_has_a_shape_is_found_and_replaced() {
        for (text, redacted) in [
            ("Write to ann.lee+shop@mail.example.org, please.", "Write to [email], please."),
            ("jürgen@bücher.example and <a@b.io>", "[email] and <[email]>"),
            ("Call +49 (0)170 1234567 or (555) 123-4567.", "Call [phone] or [phone]."),
            ("Call +43 660 123 45 67 or 0043 (660) 1234567.", "Call [phone] or [phone]."),
            ("0316/873-1234, (415) 555-2671, 415-555-2671", "[phone], [phone], [phone]"),
            ("IBAN DE89 3704 0044 0532 0130 00 now", "IBAN [iban] now"),
            ("IBAN AT61 1904 3002 3457 3201.", "IBAN [iban]."),
            ("de89370400440532013000", "[iban]"),
            ("card 4111 1111 1111 1111 exp 12/29!", "card [card] exp 12/29!"),
            ("5500-0000-0000-0004/378282246310005", "[card]/[card]"),
            ("Order 12 4111 1111 1111 1111 4 pieces, AT61 1904 3002 3457 3201 as well", "Order 12 [card] 4 pieces, [iban] as well"),
            ("SSN 078-05-1120", "SSN [social_security]"),
            ("from 203.0.113.7:443", "from [ip_address]:443"),
            ("key sk-proj-abcdefghijklmnopqrstuvwx", "key [secret]"),
            (concat!("key gt-0123456789ab", "-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef!"), "key [secret]!"),
            ("Authorization: Bearer abcdefghijklmnop.qrst", "Authorization: [secret]"),
            ("mail a@b.de and c@d.org", "mail [email] and [email]"),
        ] {
            assert_eq!(redact(text), redacted);
        }
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for text in [
            "",
            "Order 4111 1111 1111 1112 has a wrong check digit",
            "DE00 3704 1144 1532 1130 11",
            "AT62 1904 3002 3457 3202 is no IBAN",
            "999.1.1.1 and version 1.2.3",
            "SKU PFIP000002, $44.00, 350 to 400 square feet",
            "0000 0000 0000 0000",
            "@home at 10.30-11.45, 2024-05-17",
            "Grüße an alle 🚲 @ 5 pm",
            "The grinder costs 249 euro, has 40 mm burrs and came out on 2026-11-27.",
            "12345, 1 000 000 and 3.14159265",
            "0190a1b2-7c3d-7000-8000-0123456789ab",
            "2026-11-27T06:27:07.123456Z time.busy=1.23ms port=8080 0.0571234",
            "a @ b, user@localhost",
        ] {
            assert_eq!(find_personal_data(text, &PersonalKind::ALL), [], "{text}");
        }
    }

    #[test]
    fn only_the_kinds_asked_for_are_found() {
        let text = "a@b.io, +43 660 123 45 67";
        assert_eq!(redact_personal_data(text, &[PersonalKind::Phone]), "a@b.io, [phone]");
        assert_eq!(redact_personal_data(text, &[]), text);
    }

    proptest! {
        #[test]
        fn findings_are_in_order_apart_and_inside_the_text(text in "([0-9 +@.a-zA-Zü-]|4111 1111 1111 1111|a@b\\.io|DE89 3704 0044 0532 0130 00|203\\.0\\.113\\.7){0,60}") {
            let found = find_personal_data(&text, &PersonalKind::ALL);
            let mut from = 0;
            for finding in found {
                prop_assert!(finding.span.start >= from && finding.span.end > finding.span.start);
                prop_assert!(text.get(finding.span.start..finding.span.end).is_some());
                from = finding.span.end;
            }
        }
    }
}
