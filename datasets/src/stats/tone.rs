//! How the answers sound, by what can be counted: length, emoji, punctuation, greetings, formality, lists. What nearly all answers do is a habit;
//! answers without it are where the voice slips.

use super::rows::Item;
use serde::Serialize;

/// Share of answers from which a trait is a habit.
const HABIT: f64 = 0.9;
/// Lines that are listed for a habit.
const LISTED: usize = 20;

/// One trait of the answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trait {
    /// What is counted.
    pub name: &'static str,
    /// Share of answers that have it.
    pub share: f64,
    /// Where nearly all answers agree: lines of those that do not.
    pub breaks: Vec<u64>,
}

/// How the answers sound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tone {
    /// Their traits.
    pub traits: Vec<Trait>,
    /// Lines of answers with more than three times the words of the middle one.
    pub long: Vec<u64>,
    /// 1 where every answer agrees with the majority in every trait, 0.5 where each trait is a coin's throw.
    pub consistency: f64,
}

fn is_emoji(c: char) -> bool {
    matches!(u32::from(c), 0x1F300..=0x1FAFF | 0x2600..=0x27BF | 0x1F000..=0x1F2FF | 0x2B50 | 0x2B55)
}

fn has_word(text: &str, words: &[&str]) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').any(|word| words.contains(&word))
}

type Test = fn(&str, &str) -> bool;

/// Traits by name; the second argument is the answer in lower case, with straight apostrophes.
const TRAITS: [(&str, Test); 11] = [
    ("has an emoji", |text, _| text.chars().any(is_emoji)),
    ("begins with an emoji", |text, _| text.trim_start().chars().next().is_some_and(is_emoji)),
    ("has an exclamation mark", |text, _| text.contains('!')),
    ("ends with a question", |text, _| text.trim_end().ends_with('?')),
    ("ends with punctuation", |text, _| text.trim_end().ends_with(['.', '!', '?', '…', ')', ':', '"', '”', ']'])),
    ("begins with a greeting", |_, lower| {
        ["hi", "hello", "hey", "dear", "good morning", "hallo", "guten tag"]
            .iter()
            .any(|word| lower.trim_start().strip_prefix(word).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric)))
    }),
    ("speaks as we", |_, lower| has_word(lower, &["we", "our", "us", "we're", "we'll", "we've", "wir", "unser", "unsere"])),
    ("addresses the reader", |_, lower| {
        has_word(lower, &["you", "your", "you're", "you'll", "sie", "ihr", "ihre", "ihnen", "du", "dein", "deine", "dir"])
    }),
    ("uses contractions", |_, lower| {
        ["n't", "'re", "'ll", "'ve", "it's", "i'm", "that's", "we'd", "you'd"].iter().any(|part| lower.contains(part))
    }),
    ("uses formal words", |_, lower| {
        has_word(
            lower,
            &[
                "regarding",
                "hereby",
                "kindly",
                "furthermore",
                "sincerely",
                "pursuant",
                "therefore",
                "moreover",
                "assist",
                "inquiry",
                "apologize",
                "apologise",
            ],
        )
    }),
    ("has a list or a heading", |text, _| {
        text.lines().any(|line| {
            let line = line.trim_start();
            line.starts_with("- ")
                || line.starts_with("* ")
                || line.starts_with("• ")
                || line.starts_with('#')
                || line
                    .split_once(". ")
                    .is_some_and(|(number, _)| !number.is_empty() && number.len() < 3 && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
    }),
];

/// The tone of a part's answers; `None` where there are none.
pub(super) fn tone(items: &[Item]) -> Option<Tone> {
    if items.is_empty() {
        return None;
    }
    let mut have: Vec<Vec<bool>> = vec![Vec::with_capacity(items.len()); TRAITS.len()];
    for item in items {
        let lower = item.output.to_lowercase().replace('’', "'");
        have.iter_mut().zip(TRAITS).for_each(|(have, (_, test))| have.push(test(&item.output, &lower)));
    }
    let traits: Vec<Trait> = have
        .iter()
        .zip(TRAITS)
        .map(|(have, (name, _))| {
            let share = have.iter().filter(|has| **has).count() as f64 / items.len() as f64;
            let habit = if share >= HABIT {
                Some(true)
            } else if share <= 1.0 - HABIT {
                Some(false)
            } else {
                None
            };
            let breaks = habit
                .into_iter()
                .flat_map(|habit| have.iter().zip(items).filter(move |(has, _)| **has != habit).map(|(_, item)| item.line));
            Trait { name, share, breaks: breaks.take(LISTED).collect() }
        })
        .collect();
    let words: Vec<usize> = items.iter().map(|item| item.output.split_whitespace().count()).collect();
    let mut sorted = words.clone();
    sorted.sort_unstable();
    let middle = sorted[sorted.len() / 2];
    let long = items.iter().zip(&words).filter(|(_, words)| **words > 3 * middle.max(10)).map(|(item, _)| item.line).take(LISTED).collect();
    let agreement: f64 = traits.iter().map(|found| found.share.max(1.0 - found.share)).sum();
    Some(Tone { consistency: agreement / traits.len() as f64, traits, long })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn habits_and_those_who_break_them() {
        let mut items: Vec<Item> = (1..=20)
            .map(|line| Item { line, output: format!("🎨 Perfect! Paint {line} at $10. Need primer?"), ..Item::default() })
            .collect();
        items[6].output = "Hello, kindly note that we're closed.".into();
        let tone = tone(&items).unwrap();
        let get = |name: &str| tone.traits.iter().find(|found| found.name == name).unwrap();
        assert_eq!((get("has an emoji").share, &get("has an emoji").breaks), (0.95, &vec![7]));
        assert_eq!(get("begins with a greeting").breaks, [7]);
        assert_eq!(get("uses formal words").breaks, [7]);
        assert_eq!(get("ends with a question").share, 0.95);
        assert!((0.9..1.0).contains(&tone.consistency));
        assert!(super::tone(&[]).is_none());
    }
}
