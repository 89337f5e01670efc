//! Whether a source says what a claim says: numbers, names, quoted words, and the words themselves.
//!
//! Word overlap is not entailment: a claim that turns a source's words around passes. What it does catch is what small models get wrong: figures, names and topics that are not in the source.

use crate::cite::strip_citations;
use crate::overlap::words;
use crate::sentences::sentences;
use groundtone_types::Snippet;
use serde::Serialize;
use std::collections::HashSet;
use unicode_segmentation::UnicodeSegmentation;

/// A claim needs this share of its telling words in its sources.
const LEAST_SHARE: f32 = 0.5;
/// Where so large a share of a claim's words is capitalised, capitals do not mean names (German nouns, headings).
const MOST_CAPITALS: f32 = 0.34;
/// Words for numbers; `one` and `a` are left out of claims because they are rarely meant as numbers.
const NUMBER_WORDS: &[(&str, &str)] = &[
    ("zero", "0"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
    ("eleven", "11"),
    ("twelve", "12"),
    ("fifteen", "15"),
    ("twenty", "20"),
    ("thirty", "30"),
    ("forty", "40"),
    ("fifty", "50"),
    ("sixty", "60"),
    ("ninety", "90"),
    ("hundred", "100"),
    ("thousand", "1000"),
];

/// What a claim says that its sources do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "text", rename_all = "snake_case")]
pub enum Doubt {
    /// A number that stands in none of them.
    Number(String),
    /// A quotation that stands in none of them word for word.
    Quote(String),
    /// A capitalised word that stands in none of them, nor in the question.
    Name(String),
    /// Too few of its words stand in them. Another wording of the same thing looks like this too.
    Words,
}

/// What a text says, taken apart once.
pub(crate) struct Facts {
    pub(crate) words: HashSet<String>,
    numbers: HashSet<String>,
    plain: String,
}

impl Facts {
    pub(crate) fn of(text: &str) -> Self {
        let mut numbers: HashSet<String> = numbers(text).map(|(_, number)| number).collect();
        numbers.extend(number_words(text).map(|(_, number)| number.to_owned()));
        if text.unicode_words().any(|word| word.eq_ignore_ascii_case("one")) {
            numbers.insert("1".to_owned());
        }
        Self { words: words(text).collect(), numbers, plain: plain(text) }
    }

    pub(crate) fn of_snippet(snippet: &Snippet) -> Self {
        Self::of(&format!("{}\n{}", snippet.chunk.breadcrumb(), snippet.chunk.shown_text()))
    }

    /// The share of a sentence's telling words that stand here, from 0 to 1.
    pub(crate) fn share(&self, sentence: &str) -> f32 {
        let sentence: HashSet<String> = words(sentence).collect();
        sentence.iter().filter(|word| self.words.contains(*word)).count() as f32 / sentence.len().max(1) as f32
    }

    /// How many of the claim's telling words and numbers it holds.
    pub(crate) fn holds(&self, claim: &Claim) -> usize {
        claim.words.iter().filter(|word| self.words.contains(*word)).count()
            + claim.numbers.iter().filter(|(_, number)| self.numbers.contains(number)).count()
    }
}

/// A stretch of an answer that should rest on sources, taken apart once.
#[derive(Debug)]
pub(crate) struct Claim {
    words: HashSet<String>,
    numbers: Vec<(String, String)>,
    names: Vec<String>,
    quotes: Vec<String>,
}

impl Claim {
    /// `text` without markers.
    pub(crate) fn of(text: &str) -> Self {
        let mut numbers: Vec<(String, String)> = numbers(text).collect();
        numbers.extend(number_words(text).map(|(word, number)| (word, number.to_owned())));
        Self { words: words(text).collect(), numbers, names: names(text), quotes: quotes(text) }
    }

    /// Nothing that could be compared: "Yes, it is."
    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty() && self.numbers.is_empty() && self.quotes.is_empty()
    }

    /// What it says that `sources`, together, do not; `None` where they say it all. `question` may introduce names.
    pub(crate) fn doubt(&self, sources: &[&Facts], question: &Facts) -> Option<Doubt> {
        let missing = self.numbers.iter().find(|(_, number)| !sources.iter().any(|source| source.numbers.contains(number)));
        if let Some((shown, _)) = missing {
            return Some(Doubt::Number(shown.clone()));
        }
        if let Some(quote) = self.quotes.iter().find(|quote| !sources.iter().any(|source| source.plain.contains(&plain(quote)))) {
            return Some(Doubt::Quote(quote.clone()));
        }
        let unknown = |name: &&String| {
            words(name).any(|word| !question.words.contains(&word) && !sources.iter().any(|source| source.words.contains(&word)))
        };
        if let Some(name) = self.names.iter().find(unknown) {
            return Some(Doubt::Name(name.clone()));
        }
        (self.share(sources) < LEAST_SHARE).then_some(Doubt::Words)
    }

    /// The share of its telling words that stand in `sources`; 1 where it has none.
    pub(crate) fn share(&self, sources: &[&Facts]) -> f32 {
        if self.words.is_empty() {
            return 1.0;
        }
        let held = self.words.iter().filter(|word| sources.iter().any(|source| source.words.contains(*word))).count();
        held as f32 / self.words.len() as f32
    }
}

/// How much of an answer stands in the texts that it should rest on, sentence by sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Groundedness {
    /// Sentences that say something: with a telling word, a number or a quotation.
    pub claims: usize,
    /// What the others say that no text does; a claim without a doubt is supported.
    pub doubts: Vec<Doubt>,
}

impl Groundedness {
    /// Checks each sentence of `answer`, markers left out, against all of `texts` together; names may come from the `question`.
    pub fn of(question: &str, answer: &str, texts: &[&str]) -> Self {
        let (asked, sources) = (Facts::of(question), texts.iter().map(|text| Facts::of(text)).collect::<Vec<_>>());
        let sources: Vec<&Facts> = sources.iter().collect();
        let plain = strip_citations(answer);
        let mut found = Self::default();
        for (start, end) in sentences(&plain, &[]) {
            let claim = Claim::of(&plain[start..end]);
            if !claim.is_empty() {
                found.claims += 1;
                found.doubts.extend(claim.doubt(&sources, &asked));
            }
        }
        found
    }
}

/// Numbers as written and in one form: `4.90` and `4,9` are the same, `1,000` and `1000` too.
fn numbers(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ','))
        .map(|piece| piece.trim_matches(['.', ',']))
        .filter(|piece| piece.bytes().any(|b| b.is_ascii_digit()))
        .map(|piece| (piece.to_owned(), one_form(piece)))
}

/// One way to write a number: `1,000` and `1.000` are `1000`, `44.0` is `44`, `4,90` is `4.9`. A word that only begins with a digit stays as it is.
pub(crate) fn one_form(number: &str) -> String {
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b',') {
        return number.to_owned();
    }
    let groups: Vec<&str> = number.split(['.', ',']).collect();
    let (whole, fraction) = match groups.split_last() {
        Some((last, [])) => (last.to_string(), ""),
        // Groups of three after one to three digits are thousands: 1,000 or 1.000.000.
        Some((last, front)) if last.len() == 3 && !front[0].is_empty() && front[0] != "0" && front[0].len() <= 3 => {
            (front.concat() + last, "")
        }
        Some((last, front)) => (front.concat(), *last),
        None => (String::new(), ""),
    };
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

fn number_words(text: &str) -> impl Iterator<Item = (String, &'static str)> + '_ {
    text.unicode_words().filter_map(|word| {
        let number = NUMBER_WORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name))?.1;
        Some((word.to_owned(), number))
    })
}

/// Capitalised words that are not the first of their sentence.
fn names(text: &str) -> Vec<String> {
    let (mut found, mut all, mut capitals) = (Vec::new(), 0, 0);
    for sentence in text.unicode_sentences() {
        for (at, word) in sentence.unicode_words().enumerate() {
            if at == 0 || !word.starts_with(char::is_alphabetic) {
                continue;
            }
            all += 1;
            if word.starts_with(char::is_uppercase) && word.chars().count() > 1 {
                capitals += 1;
                found.push(word.to_owned());
            }
        }
    }
    if all >= 6 && capitals as f32 > all as f32 * MOST_CAPITALS { Vec::new() } else { found }
}

/// Quotations of at least two words.
fn quotes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['"', '“', '„', '«']) {
        let mut after = rest[open..].chars();
        let opening = after.next();
        let body = after.as_str();
        let closing: &[char] = match opening {
            Some('“') => &['”'],
            Some('„') => &['“', '”'],
            Some('«') => &['»'],
            _ => &['"'],
        };
        let Some(close) = body.find(closing) else { break };
        if body[..close].unicode_words().nth(1).is_some() {
            found.push(body[..close].to_owned());
        }
        rest = body[close..].trim_start_matches(closing);
    }
    found
}

/// Words in lower case with one blank between them: what is left of a text when punctuation does not count.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(' ');
    for word in text.unicode_words() {
        out.push_str(&word.to_lowercase());
        out.push(' ');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt(claim: &str, source: &str) -> Option<Doubt> {
        Claim::of(claim).doubt(&[&Facts::of(source)], &Facts::of("Does Hario make it?"))
    }

    #[test]
    fn a_source_says_what_a_claim_says_or_what_it_does_not_say_is_named() {
        let returns = "You have 45 days to send your grinder back. Postage costs 4.90 euro within Austria. Orders over 1,000 euro are free. \"Free of charge\" means three months.";
        let number = |text: &str| Some(Doubt::Number(text.to_owned()));
        for (claim, expected) in [
            ("You have 45 days to send it back", None),
            ("You have 30 days to send it back", number("30")),
            ("Postage is 4,9 € within Austria", None),
            ("Postage is 4.95 € within Austria", number("4.95")),
            ("Orders over 1000 euro are free", None),
            ("It is free for 3 months", None),
            ("It is free for two months", number("two")),
            ("Postage within Austria is “free of charge”", None),
            ("Postage within Austria is “free for everyone”", Some(Doubt::Quote("free for everyone".into()))),
            ("Postage for the Hario grinder within Austria", None),
            ("Postage for grinder orders within Germany", Some(Doubt::Name("Germany".into()))),
            ("The workshop repairs lamps and bicycles", Some(Doubt::Words)),
            ("Yes", None),
        ] {
            assert_eq!(doubt(claim, returns), expected, "{claim}");
        }
    }

    #[test]
    fn an_answer_is_grounded_sentence_by_sentence() {
        let texts = ["Returns are free within 45 days.", "The workshop is in Graz."];
        let found = Groundedness::of(
            "Can I send it back?",
            "Yes. You have 45 days for free returns [1]. The workshop in Graz opens at 9 [2].",
            &texts,
        );
        assert_eq!(found, Groundedness { claims: 2, doubts: vec![Doubt::Number("9".to_owned())] });
        assert_eq!(Groundedness::of("?", "", &texts), Groundedness::default());
    }

    #[test]
    fn numbers_have_one_form() {
        for (written, form) in [
            ("4.90", "4.9"),
            ("4,9", "4.9"),
            ("1,000", "1000"),
            ("1.000.000", "1000000"),
            ("0.125", "0.125"),
            ("007", "7"),
            ("10.0", "10"),
            ("12,50", "12.5"),
            ("0", "0"),
        ] {
            assert_eq!(one_form(written), form, "{written}");
        }
    }

    #[test]
    fn german_nouns_are_no_names() {
        assert_eq!(names("Wir senden die Ware nach Österreich und die Schweiz ohne Kosten für Kunden"), Vec::<String>::new());
        assert_eq!(names("We ship the goods to Austria and to Switzerland without any costs for anybody"), ["Austria", "Switzerland"]);
    }
}
