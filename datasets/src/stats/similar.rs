//! Rows that say the same, rows that contradict each other, and rows that stand in two parts.

use super::rows::Item;
use crate::RowKind;
use crate::duplicates::{NEAR_DUPLICATE_SIMILARITY, jaccard, near_duplicate_groups, normalised};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Members of a group that are compared with each other.
const COMPARED: usize = 200;
/// Words up to which an answer is a label: any other one is another answer.
const LABEL_WORDS: usize = 3;
/// Similarity of answers below which they say different things.
const SAME_ANSWER: f64 = 0.5;

/// Rows of one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Rows beyond the first of each group.
    pub rows: u64,
    /// Groups of more than one row.
    pub groups: u64,
    /// The first groups, by their lines.
    pub lines: Vec<Vec<u64>>,
}

/// Rows that ask nearly the same and answer differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflicts {
    /// Groups of rows that contradict each other.
    pub groups: u64,
    /// Rows in them that give another answer than the first.
    pub rows: u64,
    /// The first groups.
    pub examples: Vec<Conflict>,
}

/// One question with several answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// A row for each answer.
    pub lines: Vec<u64>,
    /// What they ask.
    pub inputs: Vec<String>,
    /// What they answer.
    pub outputs: Vec<String>,
}

/// What another part shares with the training rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leakage {
    /// The part.
    pub part: String,
    /// Its rows whose question stands in the training rows too.
    pub by_text: u64,
    /// Its rows whose answer comes from a document that training rows answer from.
    pub by_document: u64,
    /// The first ones: line there, line in the training rows.
    pub lines: Vec<(u64, u64)>,
    /// Documents in both.
    pub documents: Vec<String>,
}

fn numbers(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = text
        .split(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')
        .map(|number| number.trim_matches(['.', ',']))
        .filter(|number| !number.is_empty())
        .collect();
    found.sort_unstable();
    found
}

fn negations(text: &str) -> usize {
    const WORDS: [&str; 10] = ["no", "not", "never", "cannot", "none", "nicht", "kein", "keine", "nein", "nie"];
    let lower = text.to_lowercase().replace("n't", " not");
    lower.split(|c: char| !c.is_alphanumeric()).filter(|word| WORDS.contains(word)).count()
}

/// Whether two answers to one question say different things.
fn differ(one: &str, other: &str) -> bool {
    if normalised(one) == normalised(other) {
        return false;
    }
    let short = |text: &str| text.split_whitespace().count() <= LABEL_WORDS;
    short(one) || short(other) || numbers(one) != numbers(other) || negations(one) != negations(other) || jaccard(one, other) < SAME_ANSWER
}

/// Rows by their groups, in the order of their first rows; groups of one row are left out.
fn grouped(groups: &[usize]) -> Vec<Vec<usize>> {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, group) in groups.iter().enumerate() {
        members.entry(*group).or_default().push(at);
    }
    members.into_values().filter(|rows| rows.len() > 1).collect()
}

fn duplicates(items: &[Item], groups: &[Vec<usize>], listed: usize) -> Duplicates {
    Duplicates {
        rows: groups.iter().map(|rows| rows.len() as u64 - 1).sum(),
        groups: groups.len() as u64,
        lines: groups.iter().take(listed).map(|rows| rows.iter().map(|at| items[*at].line).collect()).collect(),
    }
}

/// Rows that are the same, byte for byte, in what is asked and what is answered.
pub(super) fn exact(items: &[Item], listed: usize) -> Duplicates {
    let mut first: HashMap<(&str, &str), usize> = HashMap::with_capacity(items.len());
    let groups: Vec<usize> = items.iter().enumerate().map(|(at, item)| *first.entry((&item.input, &item.output)).or_insert(at)).collect();
    duplicates(items, &grouped(&groups), listed)
}

/// Rows that ask nearly the same, and those of them that answer differently.
pub(super) fn near(items: &[Item], listed: usize) -> (Duplicates, Conflicts) {
    let inputs: Vec<&str> = items.iter().map(|item| item.input.as_str()).collect();
    let mut parts: Vec<Vec<usize>> = Vec::new();
    for rows in grouped(&near_duplicate_groups(&inputs)) {
        // "Size 41" and "size 42" are written alike and are two questions; so is a question whose answer is withheld on purpose.
        let mut by_meaning: BTreeMap<(Vec<&str>, bool), Vec<usize>> = BTreeMap::new();
        for at in rows {
            let withheld = items[at].kind == Some(RowKind::NoAnswer);
            by_meaning.entry((numbers(&items[at].input), withheld)).or_default().push(at);
        }
        parts.extend(by_meaning.into_values().filter(|rows| rows.len() > 1));
    }
    parts.sort_unstable();
    (duplicates(items, &parts, listed), conflicts(items, &parts, listed))
}

fn conflicts(items: &[Item], groups: &[Vec<usize>], listed: usize) -> Conflicts {
    let mut conflicts = Conflicts { groups: 0, rows: 0, examples: Vec::new() };
    for rows in groups {
        // One row for each answer; a row is compared with those only.
        let (mut answers, mut others): (Vec<usize>, u64) = (Vec::new(), 0);
        for at in rows.iter().take(COMPARED) {
            match answers.iter().position(|answer| !differ(&items[*answer].output, &items[*at].output)) {
                Some(0) => {}
                Some(_) => others += 1,
                None => {
                    others += u64::from(!answers.is_empty());
                    answers.push(*at);
                }
            }
        }
        if answers.len() < 2 {
            continue;
        }
        conflicts.groups += 1;
        conflicts.rows += others;
        if conflicts.examples.len() < listed {
            let short = |text: &str| text.chars().take(300).collect::<String>();
            conflicts.examples.push(Conflict {
                lines: answers.iter().map(|at| items[*at].line).collect(),
                inputs: answers.iter().map(|at| short(&items[*at].input)).collect(),
                outputs: answers.iter().map(|at| short(&items[*at].output)).collect(),
            });
        }
    }
    conflicts
}

/// What a part shares with the training rows.
pub(super) fn leakage(part: &str, train: &[Item], other: &[Item], listed: usize) -> Leakage {
    let inputs: Vec<&str> = train.iter().chain(other).map(|item| item.input.as_str()).collect();
    let (mut lines, mut by_text) = (Vec::new(), 0);
    for rows in grouped(&near_duplicate_groups(&inputs)) {
        let (trained, rest): (Vec<usize>, Vec<usize>) = rows.iter().partition(|at| **at < train.len());
        for at in rest {
            let close = |known: &&usize| jaccard(inputs[**known], inputs[at]) >= NEAR_DUPLICATE_SIMILARITY;
            if let Some(known) = trained.iter().take(COMPARED).find(close) {
                by_text += 1;
                lines.push((other[at - train.len()].line, train[*known].line));
            }
        }
    }
    lines.sort_unstable();
    lines.truncate(listed);
    let known: BTreeSet<&String> = train.iter().flat_map(|item| &item.documents).collect();
    let shared = |item: &&Item| item.documents.iter().any(|document| known.contains(document));
    let documents: BTreeSet<&String> = other.iter().flat_map(|item| &item.documents).filter(|document| known.contains(document)).collect();
    Leakage {
        part: part.to_owned(),
        by_text,
        by_document: other.iter().filter(shared).count() as u64,
        lines,
        documents: documents.into_iter().take(listed).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(rows: &[(&str, &str)]) -> Vec<Item> {
        let item = |(at, (input, output)): (usize, &(&str, &str))| Item {
            line: at as u64 + 1,
            input: (*input).to_owned(),
            output: (*output).to_owned(),
            ..Item::default()
        };
        rows.iter().enumerate().map(item).collect()
    }

    #[test]
    fn questions_asked_alike_with_other_answers_are_conflicts() {
        let rows = items(&[
            ("How long can I return my new kettle to you?", "You have 30 days to send it back."),
            ("how long can I return my new kettle to you", "You have 60 days to send it back."),
            ("How long can I return my new kettle to you??", "You have 30 days to send it back!"),
            ("Do you deliver spare parts to Northern Ireland?", "Yes, we do, within a week."),
            ("Do you deliver spare parts to Northern Ireland", "Yes, within a week, we do."),
            ("Is the filter of the Alder 41 washable by hand?", "Yes."),
            ("Is the filter of the Alder 42 washable by hand?", "No."),
        ]);
        let (near, conflicts) = near(&rows, 9);
        assert_eq!(near.lines, [vec![1, 2, 3], vec![4, 5]]);
        assert_eq!((conflicts.groups, conflicts.rows, &conflicts.examples[0].lines), (1, 1, &vec![1, 2]));
    }

    #[test]
    fn any_other_label_is_another_answer() {
        let rows = items(&[
            ("my card was stolen in the metro", "lost_card"),
            ("My card was stolen in the metro!", "card_stolen"),
            ("x", "Lost_card"),
        ]);
        assert_eq!(near(&rows, 9).1.groups, 1);
        assert!(!differ("lost_card", "Lost card."));
        assert!(differ("We do ship there.", "We don't ship there."));
    }

    #[test]
    fn what_stands_in_two_parts_leaks() {
        let mut train = items(&[("What does the Birch grinder cost?", "249 euro"), ("Who is Resi?", "An aunt.")]);
        let mut test = items(&[("what does the Birch grinder cost", "249"), ("Where are you?", "In Graz.")]);
        train[1].documents = vec!["about.md".into()];
        test[1].documents = vec!["about.md".into(), "map.md".into()];
        let leak = leakage("test", &train, &test, 9);
        assert_eq!((leak.by_text, leak.by_document, leak.lines), (1, 1, vec![(1, 1)]));
        assert_eq!(leak.documents, ["about.md"]);
    }
}
