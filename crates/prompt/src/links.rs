//! Links and pictures in an answer: a retrieved text can make a model write one that carries data away (Greshake et al., 2023), so only known addresses stay.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// A link that is longer than this is taken apart without waiting for its end, in bytes.
pub(crate) const LONGEST_LINK: usize = 2048;

/// Which links an answer may hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkRule {
    /// Links to the cited sources' own addresses and to these hosts (and their subdomains); others lose their address and keep their text.
    Known(Vec<String>),
    /// All.
    #[default]
    Any,
}

/// The rule with one answer's sources.
pub(crate) struct AllowedLinks {
    rule: LinkRule,
    urls: HashSet<String>,
}

impl AllowedLinks {
    pub(crate) fn new(rule: LinkRule, sources: impl Iterator<Item = String>) -> Self {
        Self { rule, urls: sources.collect() }
    }

    pub(crate) fn all(&self) -> bool {
        self.rule == LinkRule::Any
    }

    fn allows(&self, url: &str) -> bool {
        let LinkRule::Known(hosts) = &self.rule else { return true };
        if self.urls.contains(url) || url.starts_with('#') {
            return true;
        }
        let Some(host) = host(url) else { return false };
        hosts.iter().any(|known| {
            host.eq_ignore_ascii_case(known) || host.to_ascii_lowercase().ends_with(&format!(".{}", known.to_ascii_lowercase()))
        })
    }
}

/// The host of an `http`, `https` or scheme-less (`//host`) address; `None` for anything else, which is then not allowed.
fn host(url: &str) -> Option<&str> {
    let lower = url.get(..8).unwrap_or(url).to_ascii_lowercase();
    let rest = match lower {
        ref scheme if scheme.starts_with("https://") => &url[8..],
        ref scheme if scheme.starts_with("http://") => &url[7..],
        ref scheme if scheme.starts_with("//") => &url[2..],
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit('@').next()?;
    Some(host.split(':').next().unwrap_or(host)).filter(|host| !host.is_empty())
}

/// What stands at the beginning of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing that links.
    Nothing,
    /// It cannot be told before more of the text is there.
    NeedMore,
    /// So many bytes are a link; this takes their place, and the flag says that an address was taken out.
    Link(usize, String, bool),
}

/// Looks for a Markdown link, picture, reference definition, HTML tag with an address, or `<address>` at the beginning of `text`; `ended` says that nothing follows `text`.
pub(crate) fn link_at(text: &str, ended: bool, allowed: &AllowedLinks) -> Found {
    if allowed.all() {
        return Found::Nothing;
    }
    // Only a window is looked at, so that what is found does not depend on how much of the text is there already.
    let ended = ended || text.len() > LONGEST_LINK;
    let text = &text[..text.floor_char_boundary(LONGEST_LINK)];
    let more = if ended { Found::Nothing } else { Found::NeedMore };
    if text.starts_with('<') {
        return tag_at(text, ended, allowed);
    }
    let bang = usize::from(text.starts_with('!'));
    if bang == 1 && text.len() == 1 {
        return more;
    }
    if !text[bang..].starts_with('[') {
        return Found::Nothing;
    }
    let paragraph = text.find("\n\n");
    let Some(close) = closing_bracket(&text[bang..paragraph.unwrap_or(text.len())]).map(|at| at + bang) else {
        return if paragraph.is_some() { Found::Nothing } else { more };
    };
    let label = &text[bang + 1..close];
    let after = &text[close + 1..];
    match after.chars().next() {
        None => more,
        Some('(') => match after.find([')', '\n']) {
            Some(end) => {
                let url = after[1..end].split_whitespace().next().unwrap_or_default().trim_matches(['<', '>']);
                let length = close + 1 + end + usize::from(after[end..].starts_with(')'));
                if allowed.allows(url) {
                    Found::Link(length, text[..length].to_owned(), false)
                } else {
                    Found::Link(length, label.to_owned(), true)
                }
            }
            // An address without an end is not shown either.
            None if ended => Found::Link(text.len(), label.to_owned(), true),
            None => Found::NeedMore,
        },
        Some(':') => match after[1..].trim_start_matches([' ', '\t']) {
            "" => more,
            address if host(address).is_some() || "https://".starts_with(address) || "http://".starts_with(address) => {
                let end = after.find('\n').unwrap_or(after.len());
                if end == after.len() && !ended {
                    return Found::NeedMore;
                }
                let url = after[1..end].split_whitespace().next().unwrap_or_default();
                let length = close + 1 + end;
                if allowed.allows(url) {
                    Found::Link(length, text[..length].to_owned(), false)
                } else {
                    Found::Link(length, String::new(), true)
                }
            }
            _ => Found::Nothing,
        },
        Some(_) => Found::Nothing,
    }
}

/// The bracket that closes the one at the beginning, within one paragraph.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn tag_at(text: &str, ended: bool, allowed: &AllowedLinks) -> Found {
    let Some(second) = text[1..].chars().next() else { return if ended { Found::Nothing } else { Found::NeedMore } };
    if !second.is_ascii_alphabetic() {
        return Found::Nothing;
    }
    let Some(end) = text.find('>') else {
        return if !ended {
            Found::NeedMore
        } else if carries_address(text) {
            Found::Link(text.len(), String::new(), true)
        } else {
            Found::Nothing
        };
    };
    let tag = &text[..=end];
    let inside = &text[1..end];
    if host(inside).is_some() {
        return if allowed.allows(inside) {
            Found::Link(tag.len(), tag.to_owned(), false)
        } else {
            Found::Link(tag.len(), String::new(), true)
        };
    }
    if carries_address(tag) { Found::Link(tag.len(), String::new(), true) } else { Found::Nothing }
}

fn carries_address(tag: &str) -> bool {
    let lower = tag.to_ascii_lowercase();
    ["src", "href", "srcset", "action", "data", "poster", "background", "url("].iter().any(|name| lower.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Found {
        let rule = LinkRule::Known(vec!["example.test".into()]);
        link_at(text, true, &AllowedLinks::new(rule, ["https://docs.test/returns".to_owned()].into_iter()))
    }

    #[test]
    fn only_known_addresses_stay() {
        let kept = |text: &str| Found::Link(text.len(), text.to_owned(), false);
        let cut = |length: usize, text: &str| Found::Link(length, text.to_owned(), true);
        for good in [
            "[a](https://example.test/x)",
            "[a](//shop.example.test)",
            "[a](https://docs.test/returns \"t\")",
            "![](#top)",
            "<https://example.test/a>",
        ] {
            assert_eq!(at(good), kept(good), "{good}");
        }
        for (bad, shown) in [
            ("[click](https://evil.test/?q=1)", "click"),
            ("![x](https://evil.test/p.png?secret)", "x"),
            ("[a](javascript:alert(1)", "a"),
            ("[a](https://example.test@evil.test/)", "a"),
            ("[a](https://evilexample.test/)", "a"),
            ("[a](https://docs.test/returns?leak=1)", "a"),
            ("[a](/relative)", "a"),
            ("[open](https://evil.test/", "open"),
            ("[[x]](http://evil.test)", "[x]"),
            ("[r]: https://evil.test/x", ""),
            ("<img src=x>", ""),
            ("<a href='https://evil.test'>", ""),
            ("<https://evil.test>", ""),
        ] {
            assert_eq!(at(bad), cut(bad.len(), shown), "{bad}");
        }
        for text in ["[1]", "[a] b", "![no", "a < b", "<b>", "< 3", "[x]: a definition"] {
            assert_eq!(at(text), Found::Nothing, "{text}");
        }
    }
}
