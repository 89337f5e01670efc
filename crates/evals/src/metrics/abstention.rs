use super::{Answered, Aspect, Metric, normalised, yes};
use crate::case::Reply;
use crate::stats::Part;

/// Saying that one does not know, against whether one could know. Only rows that say whether they can be answered count, and a set needs both kinds.
#[derive(Debug, Clone, Copy)]
pub enum Abstention {
    /// Of the answers that say so, how many could not have been given.
    Precision,
    /// Of the questions that cannot be answered, how many are not.
    Recall,
}

/// Whether an answer says that it does not know: the server's word, else one of the phrases at its beginning (the abstain text, or what a brand says instead).
pub fn says_that_it_does_not_know(reply: &Reply, phrases: &[String]) -> bool {
    let text = normalised(&reply.text);
    let begins = |phrase: &String| {
        let phrase = normalised(phrase);
        !phrase.is_empty() && text.starts_with(&phrase)
    };
    reply.abstained == Some(true) || phrases.iter().any(begins)
}

impl Metric for Abstention {
    fn name(&self) -> String {
        match self {
            Self::Precision => "abstention_precision".to_owned(),
            Self::Recall => "abstention_recall".to_owned(),
        }
    }
    fn meaning(&self) -> String {
        match self {
            Self::Precision => "it says that it does not know only where the documents do not hold the answer".to_owned(),
            Self::Recall => "where the documents do not hold the answer it says so".to_owned(),
        }
    }
    fn aspect(&self) -> Aspect {
        Aspect::Facts
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        match (self, answered.case.answerable) {
            (Self::Precision, Some(answerable)) if answered.abstained => yes(!answerable),
            (Self::Recall, Some(false)) => yes(answered.abstained),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::value;
    use super::*;
    use crate::case::Case;

    #[test]
    fn precision_is_of_what_is_said_and_recall_of_what_cannot_be_answered() {
        let case = |answerable| Case { answerable, ..Case::default() };
        let (no, yes) = ("I don’t have that in our guides. Ring us.", "45 days.");
        for (answerable, text, precision, recall) in [
            (Some(false), no, Some(1.0), Some(1.0)),
            (Some(false), yes, None, Some(0.0)),
            (Some(true), no, Some(0.0), None),
            (Some(true), yes, None, None),
            (None, no, None, None),
        ] {
            assert_eq!(value(&Abstention::Precision, &case(answerable), text), precision);
            assert_eq!(value(&Abstention::Recall, &case(answerable), text), recall);
        }
    }
}
