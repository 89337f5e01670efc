use super::{Answered, Aspect, Metric, yes};
use crate::stats::Part;

/// The answer is the reference answer, but for case, punctuation and articles.
#[derive(Debug, Clone, Copy)]
pub struct ExactMatch;

/// Lower case, letters and digits only, one space between words, without English articles: SQuAD's normalisation (Rajpurkar et al. 2016).
pub fn normalised(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        let word = word.to_lowercase();
        if !word.is_empty() && !matches!(word.as_str(), "a" | "an" | "the") {
            words.push(word);
        }
    }
    words.join(" ")
}

impl Metric for ExactMatch {
    fn name(&self) -> String {
        "exact_match".to_owned()
    }
    fn meaning(&self) -> String {
        "the answer is the reference, but for case, punctuation and articles".to_owned()
    }
    fn aspect(&self) -> Aspect {
        Aspect::Facts
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        match &answered.case.answer {
            Some(answer) => yes(normalised(answer) == normalised(&answered.reply.text)),
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::value;
    use super::*;
    use crate::case::Case;

    #[test]
    fn case_punctuation_and_articles_do_not_count() {
        let case = Case { answer: Some("The 45 days.".into()), ..Case::default() };
        assert_eq!(value(&ExactMatch, &case, "45 Days"), Some(1.0));
        assert_eq!(value(&ExactMatch, &case, "46 days"), Some(0.0));
        assert_eq!(value(&ExactMatch, &Case::default(), "x"), None);
    }
}
