//! A follow-up question to one that can be searched for by itself: rules first, a model where the rules are unsure.
//!
//! "And to Norway?" finds nothing; with the words of the question before it, it does. The rules know English and German.

use crate::words::{Language, content_words};
use async_trait::async_trait;
use groundtone_prompt::{PromptMessage, Role};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use unicode_segmentation::UnicodeSegmentation;

/// Questions before this one that are looked at.
const LOOK_BACK: usize = 6;
/// Most words that are taken over from before.
const MOST_TERMS: usize = 12;
/// Most names that are taken over from the last answer.
const MOST_NAMES: usize = 4;
/// Longest question that may be a follow-up, in bytes: a longer one says what it is about. Of longer turns before it only the beginning is read.
const MOST_BYTES: usize = 600;
/// Longest rewritten question that a model may give, in characters.
const LONGEST: usize = 400;

/// What the rules say of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// It can be searched for as it is.
    Standalone,
    /// It leans on what came before, and this is what it means.
    Rewritten(String),
    /// It may lean on what came before; if it does, this is the rules' best guess.
    Unsure(String),
}

/// A word points back where it stands for something said before. Not `sie`/`Sie` and `das` before a noun, which mostly do not.
const POINTS_BACK: &[&str] = &[
    "it", "its", "it's", "they", "them", "their", "theirs", "that", "those", "these", "this", "one", "ones", "he", "she", "him", "her",
    "there", "es", "sie", "ihn", "ihm", "er", "das", "dies", "davon", "dafür", "dagegen", "damit", "daran", "darauf", "darin", "dazu",
    "dort", "dorthin",
];

/// A question that begins like this goes on with the one before.
const GOES_ON: &[&[&str]] = &[
    &["and"],
    &["or"],
    &["but"],
    &["also"],
    &["what", "about"],
    &["how", "about"],
    &["what", "if"],
    &["same"],
    &["und"],
    &["oder"],
    &["aber"],
    &["auch"],
    &["was", "ist", "mit"],
    &["wie", "ist", "es", "mit"],
    &["wie", "sieht", "es", "mit"],
    &["wie", "sieht", "es", "bei"],
    &["sowie"],
];

/// Words that stand before the thing that a follow-up exchanges: "to Norway", "für Kettles".
const PREPOSITIONS: &[&str] = &[
    "to", "in", "for", "from", "on", "at", "with", "about", "by", "nach", "in", "für", "aus", "von", "auf", "mit", "bei", "zu", "zum",
    "zur", "ins",
];

/// Pleasantries are questions about nothing, whatever came before.
const PLEASANTRIES: &[&str] = &[
    "thanks", "thank", "thx", "ok", "okay", "great", "perfect", "hello", "hi", "hey", "bye", "goodbye", "cool", "nice", "good", "fine",
    "super", "danke", "hallo", "tschüss", "prima", "toll", "gut", "alles", "klar", "morning", "evening", "day", "morgen", "tag", "abend",
    "cheers",
];

/// What the rules see of a question.
struct Reading {
    words: Vec<String>,
    content: usize,
    goes_on: bool,
    points_back: bool,
    pleasant: bool,
}

/// Verbs that make a "that" before them stand for something, where it would else belong to a noun.
const VERBS: &[&str] = &[
    "take", "takes", "cost", "costs", "work", "works", "mean", "means", "include", "includes", "cover", "covers", "apply", "applies",
    "hold", "holds", "last", "lasts", "fit", "fits", "help", "helps", "happen", "happens", "count", "counts",
];

/// Whether the word at `at` stands for something said before.
fn points_back(original: &[&str], words: &[String], at: usize, language: Language) -> bool {
    let (word, next) = (words[at].as_str(), words.get(at + 1));
    if !POINTS_BACK.contains(&word) {
        return false;
    }
    let names_thing = next.is_some_and(|next| !language.is_function_word(next) && !VERBS.contains(&next.as_str()));
    // Telling words before it in the question itself: it may well stand for those.
    let before = words[..at].iter().filter(|word| !language.is_function_word(word)).count();
    match word {
        // "that kettle", "this order" name their thing; so do "those" and "these", and German's capitalised nouns after an article.
        "that" | "this" | "these" | "those" if language == Language::English => !names_thing,
        "das" | "dies" => !original.get(at + 1).is_some_and(|next| next.chars().next().is_some_and(char::is_uppercase)),
        // "Is it possible to ...", "how long does it take to ...": nothing is meant by it where a long question follows.
        "they" | "them" | "their" => before < 2,
        "it" | "es" => {
            before < 3 && !words.iter().any(|word| matches!(word.as_str(), "possible" | "gibt" | "möglich" | "true" | "okay" | "geht"))
        }
        // "Is there", "are there".
        "there" => {
            let exists = |word: Option<&String>, verbs: &[&str]| word.is_some_and(|word| verbs.contains(&word.as_str()));
            let behind = exists(at.checked_sub(1).and_then(|at| words.get(at)), &["is", "are", "was", "were"]);
            !behind && !exists(next, &["is", "are", "any", "a"])
        }
        // "Haben Sie": the customer's word for us.
        "sie" => original[at].starts_with('s'),
        _ => true,
    }
}

fn read(question: &str) -> Reading {
    let language = Language::of(question);
    let original: Vec<&str> = question.unicode_words().collect();
    let words: Vec<String> = original.iter().map(|word| word.to_lowercase()).collect();
    let goes_on = GOES_ON
        .iter()
        .any(|begin| words.len() > begin.len() && words.iter().zip(*begin).take_while(|(a, b)| a == b).count() == begin.len());
    let points = (0..words.len()).any(|at| points_back(&original, &words, at, language));
    let telling = content_words(question, language);
    let pleasant = telling.iter().all(|word| PLEASANTRIES.contains(&word.to_lowercase().as_str()))
        && words.iter().any(|word| PLEASANTRIES.contains(&word.as_str()));
    Reading { content: telling.len(), goes_on, points_back: points, pleasant, words }
}

/// Whether this is a greeting or thanks: there is nothing to search for.
pub fn is_pleasantry(text: &str) -> bool {
    text.len() <= MOST_BYTES && read(text).pleasant
}

/// The question without the words that only join it to the one before.
fn without_joint<'a>(question: &'a str, words: &[String]) -> &'a str {
    let joint = GOES_ON
        .iter()
        .filter(|begin| words.iter().zip(**begin).take_while(|(a, b)| a == b).count() == begin.len())
        .map(|begin| begin.len())
        .max();
    let starts: Vec<usize> = question.unicode_word_indices().map(|(start, _)| start).collect();
    starts.get(joint.unwrap_or(0)).map_or(question, |start| &question[*start..]).trim()
}

/// What `before` says in the place that the follow-up fills anew: the words behind the same preposition, up to the next function word.
fn exchanged(before: &str, follow_up: &[String]) -> Vec<String> {
    let language = Language::of(before);
    let words: Vec<&str> = before.unicode_words().collect();
    let mut gone = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let word = word.to_lowercase();
        if PREPOSITIONS.contains(&word.as_str()) && follow_up.contains(&word) {
            let behind = words[at + 1..].iter().map(|word| word.to_lowercase());
            // An article may stand between.
            let behind = behind.skip_while(|word| language.is_function_word(word));
            gone.extend(behind.take_while(|word| !language.is_function_word(word)));
        }
    }
    gone
}

/// Names in an answer: capitalised words that do not begin a sentence.
fn names(answer: &str) -> Vec<&str> {
    let language = Language::of(answer);
    let mut found: Vec<&str> = Vec::new();
    let mut previous_end = true;
    for word in answer.split_word_bounds() {
        let is_word = word.chars().any(char::is_alphanumeric);
        let capital = word.chars().next().is_some_and(char::is_uppercase);
        if is_word {
            if capital
                && !previous_end
                && word.chars().count() > 1
                && !language.is_function_word(&word.to_lowercase())
                && !found.contains(&word)
            {
                found.push(word);
            }
            previous_end = false;
        } else if word.contains(['.', '!', '?', '\n', ':']) {
            previous_end = true;
        }
    }
    found.truncate(MOST_NAMES);
    found
}

/// The follow-up with the telling words of what came before, each once.
fn combine(question: &str, reading: &Reading, before: &str, answer: &str) -> String {
    let own: Vec<&String> = reading.words.iter().collect();
    let gone = exchanged(before, &reading.words);
    let mut terms: Vec<&str> = Vec::new();
    let taken_over = content_words(before, Language::of(before)).into_iter();
    let named = names(answer).into_iter().filter(|_| reading.points_back);
    for term in taken_over.chain(named) {
        let lower = term.to_lowercase();
        let known = own.contains(&&lower) || terms.iter().any(|known| known.eq_ignore_ascii_case(term));
        if !known && !gone.contains(&lower) && !PLEASANTRIES.contains(&lower.as_str()) && terms.len() < MOST_TERMS {
            terms.push(term);
        }
    }
    let question = without_joint(question, &reading.words);
    if terms.is_empty() { question.to_owned() } else { format!("{question} ({})", terms.join(" ")) }
}

/// What the rules make of one question after another one that stands for itself.
fn follow(question: &str, before: &str, answer: &str) -> Rewrite {
    if question.len() > MOST_BYTES {
        return Rewrite::Standalone;
    }
    let reading = read(question);
    if reading.pleasant || before.trim().is_empty() || reading.words.is_empty() {
        return Rewrite::Standalone;
    }
    let meant = || combine(question, &reading, before, answer);
    match (reading.goes_on, reading.points_back, reading.content) {
        // "How much?", "And to Norway?", "Is it covered?"
        (_, _, 0 | 1) | (true, _, 2 | 3) | (false, true, 2 | 3) => Rewrite::Rewritten(meant()),
        (true, true, _) | (_, true, 4 | 5) => Rewrite::Unsure(meant()),
        _ => Rewrite::Standalone,
    }
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(MOST_BYTES)]
}

/// What the rules make of the last question of a conversation. `history` is everything before it, oldest first.
///
/// Earlier follow-ups are resolved first, so a chain of them keeps its subject.
pub fn rewrite(question: &str, history: &[PromptMessage]) -> Rewrite {
    let (mut before, mut answer) = (String::new(), "");
    let asked = history.iter().filter(|turn| turn.role == Role::User).count();
    let mut seen = 0;
    for turn in history {
        match turn.role {
            Role::User => {
                seen += 1;
                if seen + LOOK_BACK > asked {
                    let asked = beginning(&turn.content);
                    match follow(asked, &before, answer) {
                        Rewrite::Rewritten(meant) | Rewrite::Unsure(meant) => before = meant,
                        // A "thanks" in between does not end the subject.
                        Rewrite::Standalone if !read(asked).pleasant => asked.clone_into(&mut before),
                        Rewrite::Standalone => {}
                    }
                }
                answer = "";
            }
            Role::Assistant => answer = beginning(&turn.content),
            Role::System => {}
        }
    }
    follow(question, &before, answer)
}

/// A model that rewrites where the rules are unsure. The caller makes its prompt.
#[async_trait]
pub trait Condense: Send + Sync {
    /// The question so that it can be understood without the conversation, in at most `max_tokens`; an error where there is none.
    async fn condense(&self, question: &str, history: &[PromptMessage], max_tokens: u32) -> Result<String, String>;
}

/// How much a model may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CondenseLimits {
    /// Longest wait; then the rules' guess is taken.
    pub timeout: Duration,
    /// Most tokens that it may write.
    pub max_tokens: u32,
}

impl Default for CondenseLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(3), max_tokens: 48 }
    }
}

/// Who made the question that is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The customer: it is searched for as it was asked.
    Asked,
    /// The rules.
    Rule,
    /// A model.
    Model,
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The question.
    pub question: String,
    /// Who made it.
    pub basis: Basis,
}

/// Rewrites by rule, and asks the model at most once, where the rules are unsure. Whatever goes wrong with the model, the rules' guess is there.
pub async fn resolve(question: &str, history: &[PromptMessage], model: Option<&dyn Condense>, limits: CondenseLimits) -> Resolved {
    let guess = match rewrite(question, history) {
        Rewrite::Standalone => return Resolved { question: question.to_owned(), basis: Basis::Asked },
        Rewrite::Rewritten(question) => return Resolved { question, basis: Basis::Rule },
        Rewrite::Unsure(guess) => guess,
    };
    let by_rule = Resolved { question: guess, basis: Basis::Rule };
    let Some(model) = model else { return by_rule };
    let answer = match tokio::time::timeout(limits.timeout, model.condense(question, history, limits.max_tokens)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} ms", limits.timeout.as_millis())),
    };
    match answer {
        Ok(text) if is_question(&text) => Resolved { question: text.trim().to_owned(), basis: Basis::Model },
        Ok(_) => by_rule,
        Err(reason) => {
            tracing::warn!(reason, "the follow-up was not rewritten by the model");
            by_rule
        }
    }
}

/// One line of a sensible length.
fn is_question(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && !text.contains('\n') && text.chars().count() <= LONGEST
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
