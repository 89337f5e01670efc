use super::{Answered, Aspect, Metric, yes};
use crate::Error;
use crate::stats::Part;
use regex::Regex;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use unicode_segmentation::UnicodeSegmentation;

/// Rules of a file at most.
const MOST_RULES: usize = 200;

/// A brand's voice as rules that a program can check.
#[derive(Debug, Clone)]
pub struct VoiceRules {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "rule")]
    rules: Vec<RuleLine>,
}

/// One `[[rule]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleLine {
    name: String,
    #[serde(default)]
    must_match: Option<String>,
    #[serde(default)]
    must_not_match: Option<String>,
    #[serde(default)]
    must_contain: Vec<String>,
    #[serde(default)]
    must_not_contain: Vec<String>,
    #[serde(default)]
    min_words: Option<usize>,
    #[serde(default)]
    max_words: Option<usize>,
    #[serde(default)]
    max_sentences: Option<usize>,
}

#[derive(Debug, Clone)]
struct Rule {
    name: String,
    must: Option<Regex>,
    must_not: Option<Regex>,
    contains: Vec<String>,
    contains_not: Vec<String>,
    words: (usize, usize),
    sentences: usize,
}

impl Rule {
    fn new(line: RuleLine) -> Result<Self, String> {
        let compile = |pattern: &Option<String>| match pattern {
            None => Ok(None),
            Some(pattern) => Regex::new(pattern).map(Some).map_err(|error| format!("rule `{}`: {error}", line.name)),
        };
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_lowercase()).collect();
        let rule = Self {
            must: compile(&line.must_match)?,
            must_not: compile(&line.must_not_match)?,
            contains: lower(&line.must_contain),
            contains_not: lower(&line.must_not_contain),
            words: (line.min_words.unwrap_or(0), line.max_words.unwrap_or(usize::MAX)),
            sentences: line.max_sentences.unwrap_or(usize::MAX),
            name: line.name,
        };
        let empty = rule.must.is_none() && rule.must_not.is_none() && rule.contains.is_empty() && rule.contains_not.is_empty();
        if empty && rule.words == (0, usize::MAX) && rule.sentences == usize::MAX {
            return Err(format!("rule `{}` asks for nothing", rule.name));
        }
        Ok(rule)
    }

    fn kept(&self, text: &str) -> bool {
        let lower = text.to_lowercase();
        let words = text.unicode_words().count();
        let sentences = || text.unicode_sentences().filter(|sentence| sentence.chars().any(char::is_alphanumeric)).count();
        self.must.as_ref().is_none_or(|pattern| pattern.is_match(text))
            && !self.must_not.as_ref().is_some_and(|pattern| pattern.is_match(text))
            && (self.contains.is_empty() || self.contains.iter().any(|wanted| lower.contains(wanted)))
            && !self.contains_not.iter().any(|unwanted| lower.contains(unwanted))
            && (self.words.0..=self.words.1).contains(&words)
            && (self.sentences == usize::MAX || sentences() <= self.sentences)
    }
}

impl VoiceRules {
    /// Reads a rule file: `[[rule]]` with `name` and at least one of `must_match`, `must_not_match` (regular expressions), `must_contain` (one of them), `must_not_contain` (none of
    /// them; case does not count), `min_words`, `max_words`, `max_sentences`.
    pub fn read(path: &Path) -> Result<Arc<Self>, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?;
        Self::parse(&text).map(Arc::new).map_err(|reason| Error::Rules { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        if file.rules.is_empty() || file.rules.len() > MOST_RULES {
            return Err(format!("has {} rules; between 1 and {MOST_RULES} can be checked", file.rules.len()));
        }
        Ok(Self { rules: file.rules.into_iter().map(Rule::new).collect::<Result<_, _>>()? })
    }

    /// Names of the rules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }
}

/// The voice's rules: all of them, or one.
#[derive(Debug, Clone)]
pub struct Voice {
    /// The rules.
    pub rules: Arc<VoiceRules>,
    /// One of them, by its place; all where `None`.
    pub only: Option<usize>,
}

impl Metric for Voice {
    fn name(&self) -> String {
        match self.only.and_then(|at| self.rules.rules.get(at)) {
            Some(rule) => format!("voice_rule:{}", rule.name),
            None => "voice_rules".to_owned(),
        }
    }
    fn meaning(&self) -> String {
        "the answer keeps every rule of the voice".to_owned()
    }
    fn aspect(&self) -> Aspect {
        Aspect::Form
    }
    fn is_detail(&self) -> bool {
        self.only.is_some()
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        let text = groundtone_prompt::strip_citations(&answered.reply.text);
        let text = text.trim();
        let one = self.only.and_then(|at| self.rules.rules.get(at));
        // No answer keeps no rule.
        yes(!text.is_empty() && one.map_or_else(|| self.rules.rules.iter().all(|rule| rule.kept(text)), |rule| rule.kept(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::value;
    use super::*;
    use crate::case::Case;

    #[test]
    fn rules_are_kept_or_broken() {
        let text = r#"
            [[rule]]
            name = "calm"
            must_not_match = "!"
            must_not_contain = ["Unfortunately", "kindly"]
            [[rule]]
            name = "asks back"
            must_match = '\?$'
            [[rule]]
            name = "short"
            max_sentences = 2
            max_words = 12
        "#;
        let rules = Arc::new(VoiceRules::parse(text).unwrap());
        let all = Voice { rules: rules.clone(), only: None };
        let score = |text: &str| value(&all, &Case::default(), text).unwrap();
        assert_eq!(score("You have 45 days [1]. Shall we send a label?"), 1.0);
        for broken in [
            "You have 45 days! Shall we?",
            "Unfortunately no. Shall we?",
            "You have 45 days.",
            "One. Two. Three?",
            "",
            "a b c d e f g h i j k l m?",
        ] {
            assert_eq!(score(broken), 0.0, "{broken}");
        }
        assert_eq!(value(&Voice { rules: rules.clone(), only: Some(0) }, &Case::default(), "No."), Some(1.0));
        assert_eq!(rules.names().collect::<Vec<_>>(), ["calm", "asks back", "short"]);
        insta::assert_snapshot!(VoiceRules::parse("[[rule]]\nname = \"x\"\n").unwrap_err(), @"rule `x` asks for nothing");
        assert!(VoiceRules::parse("[[rule]]\nname = \"x\"\nmax_word = 3\n").unwrap_err().contains("max_word"));
        assert!(VoiceRules::parse("[[rule]]\nname = \"x\"\nmust_match = \"(\"\n").unwrap_err().starts_with("rule `x`: regex"));
    }
}
