//! Which source a sentence rests on when the model did not say, and how far a text supports an answer.

use crate::support::{Facts, one_form};
use rust_stemmers::{Algorithm, Stemmer};
use serde::Serialize;
use std::collections::HashSet;
use unicode_segmentation::UnicodeSegmentation;

/// A sentence rests on a source when this share of its telling words, weighted by how few sources hold them, stands in it.
const LEAST_SHARE: f32 = 0.55;
/// What a word counts that stands in no source: it may be a paraphrase. A number that stands nowhere counts in full.
const UNKNOWN_WORD: f32 = 0.5;
/// And at least so many different words do.
const LEAST_WORDS: usize = 2;

/// English words that tell nothing about a source. Other languages do without: their function words are in every source and weigh little.
const STOP_WORDS: &[&str] = &[
    "the", "and", "for", "you", "your", "our", "are", "with", "that", "this", "can", "will", "have", "has", "not", "but", "from", "they",
    "their", "its", "was", "were", "any", "all", "may", "would", "should", "could", "there", "here", "then", "than", "when", "what",
    "which", "who", "how", "why", "also", "just", "into", "within", "about", "source", "sources", "answer", "question", "please", "yes",
    "we", "is", "it", "to", "of", "in", "on", "at", "by", "be", "or", "as", "an", "if", "do", "does", "so", "us", "my", "me",
];

/// How far sources support an answer, by words: what both the citation reader and the dataset builder know about meaning.
///
/// The question's own words tell nothing: an answer that repeats them is supported by no source for it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Support {
    /// Telling words of the answer that do not stand in the question.
    pub words: usize,
    /// How many of them stand in the sources, numbers included.
    pub matched: usize,
    /// How many of the words are numbers.
    pub numbers: usize,
    /// How many of the numbers stand in the sources.
    pub numbers_matched: usize,
}

impl Support {
    /// Words of `answer` that stand in any of `texts`, less what `question` says itself.
    pub fn of(question: &str, answer: &str, texts: &[&str]) -> Self {
        let asked: HashSet<String> = words(question).collect();
        let held: HashSet<String> = texts.iter().flat_map(|text| words(text)).collect();
        let telling: HashSet<String> = words(answer).filter(|word| !asked.contains(word)).collect();
        let number = |word: &&String| word.starts_with(|c: char| c.is_ascii_digit());
        Self {
            words: telling.len(),
            matched: telling.iter().filter(|word| held.contains(*word)).count(),
            numbers: telling.iter().filter(number).count(),
            numbers_matched: telling.iter().filter(number).filter(|word| held.contains(*word)).count(),
        }
    }

    /// The share of the words that stand in the sources, from 0 to 1; 0 where the answer has no words of its own.
    pub fn share(&self) -> f32 {
        self.matched as f32 / self.words.max(1) as f32
    }
}

/// Words without their endings (Snowball's English stemmer; other languages lose little by it, and both sides are treated alike). A euro sign is the word.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let stemmer = Stemmer::create(Algorithm::English);
    text.split_word_bounds()
        .map(|word| if word == "€" { "euro".to_owned() } else { word.to_lowercase() })
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .filter(|word| (word.chars().count() > 1 || word.bytes().all(|b| b.is_ascii_digit())) && !STOP_WORDS.contains(&word.as_str()))
        .map(move |word| if word.starts_with(|c: char| c.is_ascii_digit()) { one_form(&word) } else { stemmer.stem(&word).into_owned() })
}

/// The source that holds most of the sentence's telling words; the earlier one where two hold the same; none where the share is too small.
pub(crate) fn best_source(sentence: &str, sources: &[Facts]) -> Option<usize> {
    let sentence: HashSet<String> = words(sentence).collect();
    let mut scores = vec![(0f32, 0usize); sources.len()];
    let mut total = 0f32;
    for word in &sentence {
        let holders: Vec<usize> = (0..sources.len()).filter(|&i| sources[i].words.contains(word)).collect();
        let weight = match holders.len() {
            0 if word.starts_with(|c: char| c.is_ascii_digit()) => 1.0,
            0 => UNKNOWN_WORD,
            count => 1.0 / count as f32,
        };
        total += weight;
        for holder in holders {
            scores[holder].0 += weight;
            scores[holder].1 += 1;
        }
    }
    let mut best: Option<(usize, f32)> = None;
    for (source, &(score, matched)) in scores.iter().enumerate() {
        if matched >= LEAST_WORDS && score / total >= LEAST_SHARE && best.is_none_or(|(_, most)| score > most) {
            best = Some((source, score));
        }
    }
    best.map(|(source, _)| source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_word_however_it_is_written() {
        let plain: Vec<String> = words("$44.00 is 44, 1,000 is 1000, 4.90 is 4.9, and 10.000 or 4,90 or 3.x or 16oz").collect();
        assert_eq!(plain, ["44", "44", "1000", "1000", "4.9", "4.9", "10000", "4.9", "3", "16oz"].map(str::to_owned));
    }

    #[test]
    fn an_answer_is_supported_by_what_it_adds_to_the_question() {
        let support = |texts: &[&str]| Support::of("How long is the return window?", "The return window is 45 days from delivery.", texts);
        let held = support(&["You can send it back within 45 days of delivery."]);
        assert_eq!((held.words, held.matched, held.numbers, held.numbers_matched), (3, 3, 1, 1));
        let near = support(&["The return window is printed on the label."]);
        assert_eq!((near.matched, near.numbers_matched, near.share()), (0, 0, 0.0));
    }
}
