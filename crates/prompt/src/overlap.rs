//! Which source a sentence rests on when the model did not say.

use crate::support::Facts;
use rust_stemmers::{Algorithm, Stemmer};
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

/// Words without their endings (Snowball's English stemmer; other languages lose little by it, and both sides are treated alike). A euro sign is the word.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let stemmer = Stemmer::create(Algorithm::English);
    text.split_word_bounds()
        .map(|word| if word == "€" { "euro".to_owned() } else { word.to_lowercase() })
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .filter(|word| (word.chars().count() > 1 || word.bytes().all(|b| b.is_ascii_digit())) && !STOP_WORDS.contains(&word.as_str()))
        .map(move |word| stemmer.stem(&word).into_owned())
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
