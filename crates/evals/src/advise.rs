//! Before any training: should one? The guide's when-to and when-not-to, each as a check with what was measured beside it.

use crate::metrics::normalised;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Tokens of a prompt from which it counts as ballooned; the guide's scenario had 2,000.
const LONG_PROMPT: usize = 1_000;
/// Answers a day from which a short prompt or a small model pays.
const HIGH_VOLUME: f64 = 1_000.0;
/// Distinct answers that a task may have to count as naming a label.
const MOST_LABELS: usize = 100;
/// Share of the answers that a small set of answers must cover.
const LABEL_SHARE: f64 = 0.95;
/// Clean examples below which training teaches little.
const FEW_EXAMPLES: usize = 50;
/// Share of near-identical questions with different answers from which examples teach noise.
const MOST_CONFLICTS: f64 = 0.1;
/// Share of the documents that change in a month from which facts count as changing often.
const OFTEN_CHANGED: f64 = 0.1;
/// Share of answers with figures or links from which they count as resting on documents.
const FACTUAL: f64 = 0.3;
/// Share of the answers of one shape from which an output counts as structured.
const ONE_SHAPE: f64 = 0.5;
/// Share of structured answers that leave the shape from which it counts as drifting.
const DRIFTING: f64 = 0.02;
/// Share of answers that break a rule of the voice from which the tone does not hold.
const OFF_VOICE: f64 = 0.05;

/// A question that was answered, and when.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logged {
    /// What was asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
    /// Unix seconds.
    pub at: Option<i64>,
}

/// What there is before training.
#[derive(Debug, Clone, Default)]
pub struct Material {
    /// The prompt in use, and its tokens.
    pub prompt: Option<(String, usize)>,
    /// What was asked and answered.
    pub log: Vec<Logged>,
    /// Answers of the log that break a rule of the voice, where there are rules.
    pub off_voice: Option<usize>,
    /// Examples to train on.
    pub examples: Vec<(String, String)>,
    /// For each example the first one whose question is nearly the same.
    pub groups: Vec<usize>,
    /// When each document changed last, Unix seconds.
    pub documents: Vec<i64>,
    /// Unix seconds.
    pub now: i64,
    /// The best untuned arm of an evaluation, the metric, its value, and whether a target was met.
    pub baseline: Option<(String, String, f64, Option<bool>)>,
}

/// Which way a check points where it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Points {
    /// Fine-tune.
    ToTuning,
    /// Do not fine-tune, or not yet.
    AgainstTuning,
    /// Retrieve.
    ToRetrieval,
}

/// One line of the guide.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What is checked.
    pub check: &'static str,
    /// Where it points if it holds.
    pub points: Points,
    /// Whether it holds; `None` where there is nothing to measure it on.
    pub holds: Option<bool>,
    /// What was measured, in words.
    pub measured: String,
    /// The figure that decides, where there is one.
    pub value: Option<f64>,
    /// What it is held against.
    pub threshold: f64,
}

/// The checks and what they come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// `tune`, `retrieve`, `both`, `not_yet`, `neither`.
    pub advice: &'static str,
    /// One sentence.
    pub reason: String,
    /// Each line of the guide.
    pub checks: Vec<Check>,
}

fn share(part: usize, of: usize) -> f64 {
    part as f64 / of.max(1) as f64
}

fn percent(value: f64) -> String {
    format!("{:.0} %", value * 100.0)
}

/// Examples that a prompt shows: lines that begin like a turn of a dialogue or a numbered example.
fn examples_in(prompt: &str) -> usize {
    const BEGIN: &[&str] = &["q:", "user:", "customer:", "question:", "input:", "example", "ticket:", "message:"];
    let begins = |line: &&str| {
        let line = line
            .trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '*' | '#' | '>' | '.') || c.is_ascii_digit())
            .to_lowercase();
        BEGIN.iter().any(|begin| line.starts_with(begin)) && line.len() > 8
    };
    prompt.lines().filter(begins).count()
}

/// What an answer is shaped like: JSON by its keys, `key: value` lines by their keys, else a sentence or several.
fn shape(answer: &str) -> String {
    let answer = answer.trim();
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_str(answer) {
        let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
        keys.sort_unstable();
        return format!("JSON with {}", keys.join(", "));
    }
    let key =
        |line: &str| line.split_once(": ").map(|(key, _)| key.trim().to_owned()).filter(|key| key.len() < 30 && !key.contains(['.', '?']));
    let keys: Vec<String> = answer.lines().filter(|line| !line.trim().is_empty()).filter_map(key).collect();
    match keys.len() {
        lines if lines > 1 => format!("lines of {}", keys.join(", ")),
        _ if answer.split_whitespace().count() <= 4 => "a few words".to_owned(),
        _ => "free text".to_owned(),
    }
}

impl Material {
    fn prompt_size(&self) -> Check {
        let (holds, measured, value) = match &self.prompt {
            None => (None, "no prompt was given (--prompt)".to_owned(), None),
            Some((text, tokens)) => {
                (Some(*tokens >= LONG_PROMPT), format!("{tokens} tokens, {} examples in it", examples_in(text)), Some(*tokens as f64))
            }
        };
        Check { check: "the prompt has ballooned", points: Points::ToTuning, holds, measured, value, threshold: LONG_PROMPT as f64 }
    }

    fn volume(&self) -> Check {
        let times: Vec<i64> = self.log.iter().filter_map(|row| row.at).collect();
        let days = times.iter().max().zip(times.iter().min()).map(|(last, first)| ((last - first) as f64 / 86_400.0).max(1.0));
        let (holds, measured, value) = match days {
            None => (None, format!("{} answers without times", self.log.len()), None),
            Some(days) => {
                let daily = times.len() as f64 / days;
                (Some(daily >= HIGH_VOLUME), format!("{daily:.0} answers a day over {days:.0} days"), Some(daily))
            }
        };
        Check { check: "the volume is high", points: Points::ToTuning, holds, measured, value, threshold: HIGH_VOLUME }
    }

    fn label_set(&self) -> Check {
        let answers: Vec<String> = self.answers().map(normalised).collect();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        answers.iter().for_each(|answer| *counts.entry(answer).or_default() += 1);
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let covered: usize = counts.iter().take(MOST_LABELS).sum();
        let held = share(covered, answers.len());
        // Distinct answers can only be few where there are many more answers than that.
        let repeated = counts.len() * 3 <= answers.len();
        let holds = (answers.len() >= 20).then_some(held >= LABEL_SHARE && repeated);
        let measured =
            format!("{} different answers among {}; the {MOST_LABELS} commonest are {}", counts.len(), answers.len(), percent(held));
        Check {
            check: "the task is to name one of a few labels",
            points: Points::ToTuning,
            holds,
            measured,
            value: holds.map(|_| held),
            threshold: LABEL_SHARE,
        }
    }

    fn answers(&self) -> impl Iterator<Item = &str> {
        let from_log = self.log.iter().map(|row| row.answer.as_str());
        from_log.chain(self.examples.iter().filter(|_| self.log.is_empty()).map(|(_, answer)| answer.as_str()))
    }

    fn drift(&self) -> Check {
        let mut shapes: BTreeMap<String, usize> = BTreeMap::new();
        let mut all = 0;
        for answer in self.log.iter().map(|row| &row.answer) {
            *shapes.entry(shape(answer)).or_default() += 1;
            all += 1;
        }
        let common = shapes.iter().max_by_key(|(_, count)| **count);
        let structured = common.filter(|(shape, count)| *shape != "free text" && share(**count, all) >= ONE_SHAPE);
        let (holds, measured, value) = match structured {
            _ if all < 20 => (None, format!("{all} logged answers are too few (--log)"), None),
            None => (Some(false), "most answers are free text".to_owned(), Some(0.0)),
            Some((shape, count)) => {
                let other = 1.0 - share(*count, all);
                (Some(other >= DRIFTING), format!("{} of {all} answers are {shape}, {} are not", count, percent(other)), Some(other))
            }
        };
        Check { check: "the output's format keeps drifting", points: Points::ToTuning, holds, measured, value, threshold: DRIFTING }
    }

    fn tone(&self) -> Check {
        let broken = self.off_voice.filter(|_| !self.log.is_empty()).map(|count| share(count, self.log.len()));
        let measured = broken.map_or_else(
            || "no rules of a voice were given (--voice with --log)".to_owned(),
            |broken| format!("{} of {} logged answers break a rule", percent(broken), self.log.len()),
        );
        Check {
            check: "the tone does not hold",
            points: Points::ToTuning,
            holds: broken.map(|broken| broken >= OFF_VOICE),
            measured,
            value: broken,
            threshold: OFF_VOICE,
        }
    }

    fn facts_change(&self) -> Check {
        const MONTH: i64 = 30 * 86_400;
        let recent = self.documents.iter().filter(|changed| self.now - **changed <= MONTH).count();
        let value = (!self.documents.is_empty()).then(|| share(recent, self.documents.len()));
        let measured = value.map_or_else(
            || "no documents were given (--documents)".to_owned(),
            |value| format!("{recent} of {} documents ({}) changed in the last 30 days", self.documents.len(), percent(value)),
        );
        Check {
            check: "facts change often",
            points: Points::ToRetrieval,
            holds: value.map(|value| value >= OFTEN_CHANGED),
            measured,
            value,
            threshold: OFTEN_CHANGED,
        }
    }

    fn rests_on_facts(&self) -> Check {
        let all: Vec<&str> = self.answers().collect();
        let factual = |answer: &&&str| answer.contains("http") || answer.bytes().filter(u8::is_ascii_digit).count() >= 2;
        let value = (all.len() >= 20).then(|| share(all.iter().filter(factual).count(), all.len()));
        let measured = value.map_or_else(
            || format!("{} answers are too few", all.len()),
            |value| format!("{} of {} answers hold figures or links", percent(value), all.len()),
        );
        Check {
            check: "answers depend on documents, prices or policies",
            points: Points::ToRetrieval,
            holds: value.map(|value| value >= FACTUAL),
            measured,
            value,
            threshold: FACTUAL,
        }
    }

    fn citations(&self) -> Check {
        let asked = self.prompt.as_ref().map(|(prompt, _)| {
            let prompt = prompt.to_lowercase();
            ["cite", "citation", "source", "reference", "quote", "link to"]
                .into_iter()
                .filter(|word| prompt.contains(word))
                .collect::<Vec<_>>()
        });
        let measured = match &asked {
            None => "no prompt was given (--prompt)".to_owned(),
            Some(words) if words.is_empty() => "the prompt does not ask for them".to_owned(),
            Some(words) => format!("the prompt says \"{}\"", words.join("\", \"")),
        };
        let holds = asked.map(|words| !words.is_empty());
        Check { check: "citations are needed", points: Points::ToRetrieval, holds, measured, value: None, threshold: 0.0 }
    }

    /// Distinct questions; of near duplicates one.
    fn clean(&self) -> usize {
        self.groups.iter().copied().collect::<HashSet<usize>>().len()
    }

    fn few_examples(&self) -> Check {
        let clean = self.clean();
        let (holds, measured, value) = match self.examples.len() {
            0 => (None, "no examples were given (--examples)".to_owned(), None),
            all => (Some(clean < FEW_EXAMPLES), format!("{all} examples, {clean} of them with a question of its own"), Some(clean as f64)),
        };
        Check {
            check: "there are fewer than a few dozen clean examples",
            points: Points::AgainstTuning,
            holds,
            measured,
            value,
            threshold: FEW_EXAMPLES as f64,
        }
    }

    fn undefined(&self) -> Check {
        let mut answers: HashMap<usize, HashSet<String>> = HashMap::new();
        let mut sizes: HashMap<usize, usize> = HashMap::new();
        for (group, (_, answer)) in self.groups.iter().zip(&self.examples) {
            answers.entry(*group).or_default().insert(normalised(answer));
            *sizes.entry(*group).or_default() += 1;
        }
        let repeated: Vec<usize> = sizes.into_iter().filter(|(_, size)| *size > 1).map(|(group, _)| group).collect();
        let conflicting = repeated.iter().filter(|group| answers.get(group).is_some_and(|answers| answers.len() > 1)).count();
        let value = (!repeated.is_empty()).then(|| share(conflicting, repeated.len()));
        let measured = value.map_or_else(
            || "no two questions are nearly the same".to_owned(),
            |_| format!("{conflicting} of {} questions that were asked more than once have different answers", repeated.len()),
        );
        let holds = if self.examples.is_empty() { None } else { Some(value.is_some_and(|value| value >= MOST_CONFLICTS)) };
        Check { check: "the task is still being defined", points: Points::AgainstTuning, holds, measured, value, threshold: MOST_CONFLICTS }
    }

    fn already_good(&self) -> Check {
        let (holds, measured, value) = match &self.baseline {
            None => (None, "nothing was evaluated (groundtone eval run)".to_owned(), None),
            Some((arm, metric, value, met)) => {
                let target = match met {
                    Some(true) => ", which meets the target",
                    Some(false) => ", which misses the target",
                    None => "; no target was named (--target)",
                };
                (*met, format!("`{arm}` reaches {} in {metric}{target}", percent(*value)), Some(*value))
            }
        };
        Check {
            check: "a good prompt already meets quality, cost and latency",
            points: Points::AgainstTuning,
            holds,
            measured,
            value,
            threshold: 0.0,
        }
    }

    /// Every check, and what they come to.
    pub fn advise(&self) -> Advice {
        let checks = vec![
            self.drift(),
            self.label_set(),
            self.volume(),
            self.prompt_size(),
            self.tone(),
            self.facts_change(),
            self.rests_on_facts(),
            self.citations(),
            self.few_examples(),
            self.undefined(),
            self.already_good(),
        ];
        let holding = |points: Points| {
            checks.iter().filter(|check| check.points == points && check.holds == Some(true)).map(|check| check.check).collect::<Vec<_>>()
        };
        let (tune, against, retrieve) = (holding(Points::ToTuning), holding(Points::AgainstTuning), holding(Points::ToRetrieval));
        let list = |checks: &[&str]| checks.join("; ");
        let (advice, reason) = match (tune.is_empty(), against.is_empty(), retrieve.is_empty()) {
            (false, true, false) => ("both", format!("Tune for form and retrieve for facts: {}; {}.", list(&tune), list(&retrieve))),
            (false, true, true) => {
                ("tune", format!("Fine-tuning may pay: {}. Hold out rows and compare with the prompt first.", list(&tune)))
            }
            (false, false, false) => ("retrieve", format!("Retrieve ({}), and do not tune yet: {}.", list(&retrieve), list(&against))),
            (_, false, true) => ("not_yet", format!("Do not tune yet: {}.", list(&against))),
            (true, _, false) => ("retrieve", format!("Retrieve: {}. Nothing measured asks for tuning.", list(&retrieve))),
            (true, true, true) => {
                ("neither", "Nothing that was measured asks for tuning or for retrieval; a prompt may be enough.".to_owned())
            }
        };
        Advice { advice, reason, checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(material: &Material, check: &str) -> Option<bool> {
        material.advise().checks.iter().find(|found| found.check == check).unwrap().holds
    }

    fn log(answers: impl Iterator<Item = String>) -> Vec<Logged> {
        answers.enumerate().map(|(at, answer)| Logged { question: format!("q{at}"), answer, at: Some(at as i64 * 20) }).collect()
    }

    #[test]
    fn a_triage_prompt_that_ballooned_asks_for_tuning() {
        let labels = ["billing", "repair", "returns", "other"];
        let material = Material {
            prompt: Some((format!("Sort tickets.\n{}", "Ticket: my kettle leaks -> repair\n".repeat(15)), 2_100)),
            log: log((0..9_000).map(|at| labels[at % 4].to_owned())),
            examples: (0..300).map(|at| (format!("q{at}"), labels[at % 4].to_owned())).collect(),
            groups: (0..300).collect(),
            ..Material::default()
        };
        let advice = material.advise();
        assert_eq!(advice.advice, "tune", "{advice:?}");
        let measured: Vec<&str> =
            advice.checks.iter().filter(|check| check.holds == Some(true)).map(|check| check.measured.as_str()).collect();
        assert_eq!(
            measured,
            [
                "4 different answers among 9000; the 100 commonest are 100 %",
                "4320 answers a day over 2 days",
                "2100 tokens, 15 examples in it"
            ]
        );
    }

    #[test]
    fn changing_prices_with_sources_ask_for_retrieval_and_few_rows_forbid_tuning() {
        let material = Material {
            prompt: Some(("Answer and cite your sources.".into(), 30)),
            log: log((0..40).map(|at| format!("It costs {} euro, see page {at}.", 100 + at))),
            documents: vec![0, 95 * 86_400, 99 * 86_400],
            now: 100 * 86_400,
            examples: vec![("a".into(), "1".into()), ("a!".into(), "2".into()), ("b".into(), "3".into())],
            groups: vec![0, 0, 2],
            off_voice: Some(10),
            ..Material::default()
        };
        assert_eq!(holds(&material, "facts change often"), Some(true));
        assert_eq!(holds(&material, "answers depend on documents, prices or policies"), Some(true));
        assert_eq!(holds(&material, "citations are needed"), Some(true));
        assert_eq!(holds(&material, "there are fewer than a few dozen clean examples"), Some(true));
        assert_eq!(holds(&material, "the task is still being defined"), Some(true));
        assert_eq!(holds(&material, "the tone does not hold"), Some(true));
        assert_eq!(holds(&material, "the output's format keeps drifting"), Some(false));
        assert_eq!(material.advise().advice, "retrieve");
    }

    #[test]
    fn a_format_drifts_and_what_is_not_known_is_not_guessed() {
        let answer =
            |at: usize| if at.is_multiple_of(10) { "Sure! {\"queue\": 1}".to_owned() } else { "{\"queue\": 1, \"why\": \"x\"}".to_owned() };
        let drifting = Material { log: log((0..50).map(answer)), ..Material::default() };
        assert_eq!(holds(&drifting, "the output's format keeps drifting"), Some(true));
        let nothing = Material::default().advise();
        assert!(nothing.checks.iter().all(|check| check.holds.is_none()), "{nothing:?}");
        assert_eq!(nothing.advice, "neither");
    }
}
