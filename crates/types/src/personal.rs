//! Personal data and secrets in a text, by their shape: for reports on training rows, and for what is kept of answers.
//!
//! Shapes with a check digit are checked (Luhn for cards, ISO 7064 for IBANs). Names and addresses have no shape, and are not found.

use crate::Span;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// What kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonalKind {
    /// An address of electronic mail.
    Email,
    /// A telephone number.
    Phone,
    /// An international bank account number.
    Iban,
    /// A payment card's number.
    Card,
    /// A social security number of the United States.
    SocialSecurity,
    /// An address of the internet protocol, version 4.
    IpAddress,
    /// A key or a password of a service.
    Secret,
}

impl PersonalKind {
    /// Its name in reports and in place of what was redacted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Iban => "iban",
            Self::Card => "card",
            Self::SocialSecurity => "social_security",
            Self::IpAddress => "ip_address",
            Self::Secret => "secret",
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

/// One alternative for each kind, the most telling first; the name of the group is the kind.
static SHAPES: LazyLock<Result<Regex, regex::Error>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?-u)(?P<email>[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24})",
        r"|(?P<secret>\b(?:sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}))",
        r"|(?P<iban>\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b)",
        r"|(?P<card>\b\d(?:[ -]?\d){12,18}\b)",
        r"|(?P<social_security>\b\d{3}-\d{2}-\d{4}\b)",
        r"|(?P<ip_address>\b(?:\d{1,3}\.){3}\d{1,3}\b)",
        r"|(?P<phone>\+\d{1,3}[ ()./-]{0,2}\d(?:[ ()./-]{0,2}\d){6,12}\b|\(\d{3}\) ?\d{3}[-. ]\d{4}\b|\b\d{3}[-. ]\d{3}[-. ]\d{4}\b|\b0\d{2,4}[ /-]\d{5,8}\b)",
    ))
});

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// Luhn's check digit (ISO/IEC 7812-1).
fn is_card(text: &str) -> bool {
    let digits = digits(text);
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, twice) if twice > 9 => twice - 9,
            (_, twice) => twice,
        })
        .sum();
    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != digits[0])
}

/// The check digits of an IBAN (ISO 13616, ISO 7064 MOD 97-10).
fn is_iban(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| *c != ' ').collect();
    if !(15..=34).contains(&plain.len()) {
        return false;
    }
    let rest = plain.chars().skip(4).chain(plain.chars().take(4)).try_fold(0u32, |rest, c| {
        let value = c.to_digit(36)?;
        Some(if value > 9 { rest * 100 + value } else { rest * 10 + value } % 97)
    });
    rest == Some(1)
}

fn is_address(text: &str) -> bool {
    text.split('.').all(|part| part.parse::<u8>().is_ok()) && !matches!(text, "127.0.0.1" | "0.0.0.0" | "255.255.255.255")
}

/// What a text holds of personal data and secrets, in its order; findings do not overlap. Linear in the length of the text.
pub fn find_personal_data(text: &str) -> Vec<PersonalData> {
    use PersonalKind::{Card, Email, Iban, IpAddress, Phone, Secret, SocialSecurity};
    let Ok(shapes) = &*SHAPES else { return Vec::new() };
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(groups) = shapes.captures_at(text, from) {
        let Some(whole) = groups.get(0) else { break };
        let kinds = [Email, Secret, Iban, Card, SocialSecurity, IpAddress, Phone];
        let kind = kinds.into_iter().find(|kind| groups.name(kind.as_str()).is_some());
        let right = match kind {
            Some(Card) => is_card(whole.as_str()),
            Some(Iban) => is_iban(whole.as_str()),
            Some(IpAddress) => is_address(whole.as_str()),
            Some(_) => true,
            None => false,
        };
        if let (Some(kind), true) = (kind, right) {
            found.push(PersonalData { kind, span: Span { start: whole.start(), end: whole.end() } });
        }
        from = whole.end();
    }
    found
}

/// The text with `[kind]` in place of each finding.
pub fn redact_personal_data(text: &str) -> std::borrow::Cow<'_, str> {
    let found = find_personal_data(text);
    if found.is_empty() {
        return std::borrow::Cow::Borrowed(text);
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
    std::borrow::Cow::Owned(redacted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_shape_is_found_and_replaced() {
        for (text, redacted) in [
            ("Write to ann.lee+shop@mail.example.org, please.", "Write to [email], please."),
            ("Call +49 (0)170 1234567 or (555) 123-4567.", "Call [phone] or [phone]."),
            ("IBAN DE89 3704 0044 0532 0130 00 now", "IBAN [iban] now"),
            ("card 4111 1111 1111 1111!", "card [card]!"),
            ("SSN 078-05-1120", "SSN [social_security]"),
            ("from 203.0.113.7:443", "from [ip_address]:443"),
            ("key sk-proj-abcdefghijklmnopqrstuvwx", "key [secret]"),
            ("mail a@b.de and c@d.org", "mail [email] and [email]"),
        ] {
            assert_eq!(redact_personal_data(text), redacted);
        }
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for text in [
            "",
            "Order 4111 1111 1111 1112 has a wrong check digit",
            "DE00 3704 0044 0532 0130 00",
            "999.1.1.1 and version 1.2.3",
            "SKU PFIP000002, $44.00, 350 to 400 square feet",
            "0000 0000 0000 0000",
            "@home at 10.30-11.45, 2024-05-17",
            "Grüße an alle 🚲 @ 5 pm",
        ] {
            assert_eq!(find_personal_data(text), [], "{text}");
        }
    }
}
