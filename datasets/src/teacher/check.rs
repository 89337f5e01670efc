//! What a teacher wrote, and whether it may be believed.

use groundtone_prompt::Support;
use groundtone_types::Chunk;
use std::collections::HashSet;

/// Least share of an answer's own words that must stand in its chunk.
const LEAST_SHARE: f32 = 0.5;

/// The questions with their answers in a reply: JSON objects, one for each line or in a list, or lines that begin with `Question:` and `Answer:`.
pub(super) fn pairs(reply: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(unfenced(reply)) {
        found.extend(list.iter().filter_map(pair));
        return found;
    }
    let mut question: Option<String> = None;
    for line in reply.lines() {
        let line = line.trim().trim_start_matches(['-', '*', ' ']).trim_end_matches(',');
        let line = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(['.', ')', ' ']);
        if line.starts_with('{') {
            found.extend(serde_json::from_str::<serde_json::Value>(line).ok().as_ref().and_then(pair));
            continue;
        }
        let plain = line.trim_matches('*');
        let after =
            |names: &[&str]| names.iter().find_map(|name| plain.strip_prefix(name)).map(|text| text.trim_matches(['*', ' ']).to_owned());
        if let Some(text) = after(&["Question:", "Q:"]) {
            question = Some(text);
        } else if let (Some(answer), Some(asked)) = (after(&["Answer:", "A:"]), question.as_ref()) {
            found.push((asked.clone(), answer));
            question = None;
        }
    }
    found
}

fn unfenced(reply: &str) -> &str {
    let text = reply.trim();
    let text = text.strip_prefix("```json").or_else(|| text.strip_prefix("```")).unwrap_or(text);
    text.strip_suffix("```").unwrap_or(text).trim()
}

fn pair(value: &serde_json::Value) -> Option<(String, String)> {
    Some((value.get("question")?.as_str()?.trim().to_owned(), value.get("answer")?.as_str()?.trim().to_owned()))
}

/// Whether the chunk answers the question with this answer, as far as words can tell; else why not.
pub(super) fn answerable(question: &str, answer: &str, chunk: &Chunk) -> Result<(), &'static str> {
    if question.is_empty() || answer.is_empty() {
        return Err("the question or the answer is empty");
    }
    if !question.contains('?') {
        return Err("the question asks nothing");
    }
    let lower = question.to_lowercase();
    if ["passage", "the text", "this document", "the document", "mentioned above", "according to the"]
        .iter()
        .any(|word| lower.contains(word))
    {
        return Err("the question speaks of the passage");
    }
    let held = format!("{}\n{}", chunk.breadcrumb(), chunk.shown_text());
    let numbers = |support: Support| support.numbers_matched == support.numbers;
    if !numbers(Support::of("", answer, &[&held])) || !numbers(Support::of("", question, &[&held])) {
        return Err("a number is not in the chunk");
    }
    let known: HashSet<String> = words(&held).map(str::to_lowercase).collect();
    if [question, answer].iter().any(|text| names(text).any(|name| !known.contains(&name.to_lowercase()))) {
        return Err("a name is not in the chunk");
    }
    let support = Support::of(question, answer, &[&held]);
    if support.words == 0 {
        return Err("the answer says nothing that the question does not");
    }
    if support.share() < LEAST_SHARE {
        return Err("too little of the answer is in the chunk");
    }
    Ok(())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Words with a capital letter that do not begin a sentence. German nouns are among them: they are in the chunk as well, or they were invented.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['.', '!', '?', ':', '\n', '"']).flat_map(|sentence| words(sentence).skip(1)).filter(|word| {
        let mut letters = word.chars();
        letters.next().is_some_and(char::is_uppercase) && word.chars().count() > 1 && letters.any(char::is_lowercase)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundtone_types::{DocumentId, Span};

    fn chunk() -> Chunk {
        let text = "The Heron kettle holds 1.2 litres and comes with a warranty of 7 years. Anna Berger designed it in Graz.";
        Chunk {
            document: DocumentId::new("products/heron.md").unwrap(),
            ordinal: 2,
            span: Span { start: 0, end: text.len() },
            heading_path: vec!["Facts".into()],
            title: "Heron".into(),
            url: "u".into(),
            text: text.into(),
            page: None,
            parent: None,
            metadata: Default::default(),
        }
    }

    fn check(question: &str, answer: &str, expect: Result<(), &str>) {
        assert_eq!(answerable(question, answer, &chunk()), expect, "{question} {answer}");
    }

    #[test]
    fn only_what_the_chunk_says_is_kept() {
        check("How much does the Heron hold?", "It holds 1.2 litres.", Ok(()));
        check("Who designed the Heron?", "Anna Berger did, in Graz.", Ok(()));
        check("How long is the warranty of the Heron?", "The warranty is 10 years.", Err("a number is not in the chunk"));
        check("Is the 2019 Heron still covered?", "The warranty is 7 years.", Err("a number is not in the chunk"));
        check("Who designed the Heron?", "Clara Moser designed it.", Err("a name is not in the chunk"));
        check("Does the Swift fit?", "It holds 1.2 litres.", Err("a name is not in the chunk"));
        check("Tell me about the Heron", "It holds 1.2 litres.", Err("the question asks nothing"));
        check("What does the passage say?", "It holds 1.2 litres.", Err("the question speaks of the passage"));
        check("Is the Heron a kettle?", "Yes, the Heron is a kettle.", Err("the answer says nothing that the question does not"));
        check(
            "Is it safe?",
            "Sure, every model passes strict checks by independent labs.",
            Err("too little of the answer is in the chunk"),
        );
        check("", "x", Err("the question or the answer is empty"));
    }

    #[test]
    fn replies_are_read_however_the_teacher_writes_them() {
        let expect = vec![("Q1?".to_owned(), "A1.".to_owned()), ("Q2?".to_owned(), "A2.".to_owned())];
        for reply in [
            "{\"question\": \"Q1?\", \"answer\": \"A1.\"}\n{\"question\": \"Q2?\", \"answer\": \"A2.\"}",
            "```json\n[{\"question\": \"Q1?\", \"answer\": \"A1.\"}, {\"question\": \"Q2?\", \"answer\": \"A2.\"}]\n```",
            "Here they are:\n1. {\"question\": \"Q1?\", \"answer\": \"A1.\"},\n2. {\"question\": \"Q2?\", \"answer\": \"A2.\"}",
            "**Question:** Q1?\nAnswer: A1.\n\nQ: Q2?\nA: A2.",
        ] {
            assert_eq!(pairs(reply), expect, "{reply}");
        }
        assert_eq!(pairs("I cannot do that. {\"question\": 1}"), []);
    }
}
