//! Which words of a question tell something: English and German by their own function words and stemmer, other languages as they are written.

use rust_stemmers::{Algorithm, Stemmer};
use std::collections::HashSet;
use unicode_segmentation::UnicodeSegmentation;

/// The languages whose function words are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// German.
    German,
    /// Any other: nothing is left out and nothing is stemmed.
    Other,
}

/// English words that tell nothing about what a question is about.
const ENGLISH: &[&str] = &[
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because", "been", "before", "being",
    "but", "by", "can", "could", "did", "do", "does", "doing", "don't", "else", "for", "from", "get", "give", "go", "had", "has", "have",
    "having", "he", "hello", "her", "here", "hers", "hey", "hi", "him", "his", "how", "i", "if", "in", "instead", "into", "is", "it",
    "it's", "its", "just", "know", "let", "like", "long", "many", "may", "me", "might", "more", "most", "much", "must", "my", "need", "no",
    "not", "now", "of", "off", "often", "ok", "okay", "on", "once", "one", "ones", "only", "or", "other", "our", "out", "over", "please",
    "same", "shall", "she", "should", "so", "some", "still", "such", "tell", "than", "thank", "thanks", "that", "that's", "the", "their",
    "them", "then", "there", "these", "they", "this", "those", "to", "too", "under", "until", "up", "us", "use", "very", "want", "was",
    "we", "were", "what", "what's", "when", "where", "which", "while", "who", "whom", "whose", "why", "will", "with", "within", "without",
    "would", "yes", "you", "your", "yours",
];

/// The same in German.
const GERMAN: &[&str] = &[
    "ab", "aber", "alle", "allem", "allen", "aller", "alles", "als", "also", "am", "an", "andere", "anderen", "auch", "auf", "aus", "bei",
    "beim", "bin", "bis", "bist", "bitte", "da", "dabei", "dafür", "dagegen", "daher", "damit", "danke", "dann", "daran", "darauf", "darf",
    "darin", "das", "dass", "davon", "dazu", "dein", "deine", "dem", "den", "denn", "der", "des", "dich", "die", "dies", "diese", "diesem",
    "diesen", "dieser", "dieses", "dir", "doch", "dort", "du", "durch", "dürfen", "ein", "eine", "einem", "einen", "einer", "eines", "er",
    "es", "etwas", "euch", "euer", "eure", "für", "gegen", "geht", "genau", "gibt", "hab", "habe", "haben", "hallo", "hat", "hatte", "ich",
    "ihm", "ihn", "ihnen", "ihr", "ihre", "ihrem", "ihren", "ihrer", "im", "in", "ins", "ist", "ja", "jede", "jeden", "jeder", "jetzt",
    "kann", "kein", "keine", "keinen", "können", "könnte", "lange", "man", "mehr", "mein", "meine", "meinem", "meinen", "meiner", "mich",
    "mir", "mit", "muss", "müssen", "nach", "nein", "nicht", "nichts", "noch", "nun", "nur", "ob", "oder", "ohne", "oft", "schon", "sehr",
    "sein", "seine", "seinen", "sich", "sie", "sind", "so", "soll", "sollte", "statt", "über", "um", "und", "uns", "unser", "unsere",
    "unter", "viel", "viele", "vom", "von", "vor", "war", "waren", "warum", "was", "weil", "welche", "welchem", "welchen", "welcher",
    "welches", "wenn", "wer", "werde", "werden", "wie", "wieder", "will", "wir", "wird", "wo", "woher", "wohin", "wurde", "wurden",
    "würde", "zu", "zum", "zur", "zwischen",
];

impl Language {
    /// Guesses by function words; English where nothing speaks for another, because its rules do the least harm.
    pub fn of(text: &str) -> Self {
        let (mut english, mut german, mut letters, mut latin) = (0usize, 0usize, 0usize, 0usize);
        for word in text.unicode_words() {
            let word = word.to_lowercase();
            english += usize::from(ENGLISH.contains(&word.as_str()));
            german += usize::from(GERMAN.contains(&word.as_str()) || word.contains(['ä', 'ö', 'ü', 'ß']));
            letters += word.chars().filter(|c| c.is_alphabetic()).count();
            latin += word.chars().filter(|c| c.is_alphabetic() && *c < '\u{250}').count();
        }
        match (english, german) {
            _ if latin * 2 < letters => Self::Other,
            (english, german) if german > english => Self::German,
            _ => Self::English,
        }
    }

    /// Whether the lower-cased word tells nothing by itself.
    pub fn is_function_word(self, word: &str) -> bool {
        match self {
            Self::English => ENGLISH.contains(&word),
            Self::German => GERMAN.contains(&word),
            Self::Other => false,
        }
    }

    /// The word without its ending (Snowball).
    pub fn stem(self, word: &str) -> String {
        let algorithm = match self {
            Self::English => Algorithm::English,
            Self::German => Algorithm::German,
            Self::Other => return word.to_lowercase(),
        };
        Stemmer::create(algorithm).stem(&word.to_lowercase()).into_owned()
    }
}

/// The telling words of a text in its order, as they are written; single letters are none.
pub fn content_words(text: &str, language: Language) -> Vec<&str> {
    let tells = |word: &&str| {
        let lower = word.to_lowercase();
        let long = lower.chars().count() > 1 || lower.chars().any(|c| c.is_numeric() || !c.is_ascii());
        long && !language.is_function_word(&lower)
    };
    text.unicode_words().filter(tells).collect()
}

/// The telling words of a text without their endings.
pub fn stems(text: &str, language: Language) -> HashSet<String> {
    content_words(text, language).into_iter().map(|word| language.stem(word)).collect()
}

/// Share of the question's telling words that stand in one of the texts, 0 to 1; 1 where the question has none.
pub fn coverage<'a>(question: &str, texts: impl IntoIterator<Item = &'a str>) -> f32 {
    let language = Language::of(question);
    let wanted = stems(question, language);
    if wanted.is_empty() {
        return 1.0;
    }
    let found: HashSet<String> = texts.into_iter().flat_map(|text| stems(text, language)).collect();
    wanted.iter().filter(|word| found.contains(*word)).count() as f32 / wanted.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_told_by_its_function_words() {
        for (text, language) in [
            ("How long do I have to send it back?", Language::English),
            ("Wie lange habe ich Zeit für die Rückgabe?", Language::German),
            ("Lieferung Schweiz?", Language::English),
            ("Was kostet die Lieferung?", Language::German),
            ("返品の期間は?", Language::Other),
            ("", Language::English),
        ] {
            assert_eq!(Language::of(text), language, "{text}");
        }
    }

    #[test]
    fn function_words_tell_nothing() {
        assert_eq!(content_words("How much is the delivery to Switzerland?", Language::English), ["delivery", "Switzerland"]);
        assert_eq!(content_words("Und was kostet das in der Schweiz?", Language::German), ["kostet", "Schweiz"]);
        assert_eq!(content_words("Is E3 a 5 or a b?", Language::English), ["E3", "5"]);
    }

    #[test]
    fn coverage_is_a_share_of_the_questions_words() {
        assert_eq!(coverage("Are kettles covered?", ["The kettle is blue.", "It covers all."]), 1.0);
        assert_eq!(coverage("Are kettles covered?", ["The kettle is blue."]), 0.5);
        assert_eq!(coverage("Are kettles covered?", []), 0.0);
        assert_eq!(coverage("And?", ["x"]), 1.0);
    }
}
