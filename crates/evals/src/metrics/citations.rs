use super::{Answered, Aspect, Metric};
use crate::stats::Part;
use std::collections::BTreeSet;

/// Which documents an answer cites, against those that the row says hold it.
#[derive(Debug, Clone, Copy)]
pub enum Citations {
    /// Of the documents that are cited, how many hold the answer. Numbers that name no source count as wrong ones.
    Precision,
    /// Of the documents that hold the answer, how many are cited.
    Recall,
}

impl Metric for Citations {
    fn name(&self) -> String {
        match self {
            Self::Precision => "citation_precision".to_owned(),
            Self::Recall => "citation_recall".to_owned(),
        }
    }
    fn meaning(&self) -> String {
        match self {
            Self::Precision => "every document that is cited holds the answer".to_owned(),
            Self::Recall => "every document that holds the answer is cited".to_owned(),
        }
    }
    fn aspect(&self) -> Aspect {
        Aspect::Facts
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        let right: BTreeSet<&str> = answered.case.documents.iter().map(String::as_str).collect();
        if right.is_empty() || answered.case.answerable == Some(false) {
            return Vec::new();
        }
        let cited: BTreeSet<&str> = answered.reply.cited.iter().map(|cited| cited.document.as_str()).collect();
        let found = cited.intersection(&right).count() as f64;
        let possible = match self {
            Self::Precision => cited.len() + answered.reply.unresolved,
            Self::Recall => right.len(),
        };
        if possible == 0 { Vec::new() } else { vec![Part { class: 0, gained: found, possible: possible as f64 }] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::value_of;
    use super::*;
    use crate::case::{Case, Cited, Reply};

    #[test]
    fn by_hand() {
        let case = Case { documents: vec!["a".into(), "b".into()], ..Case::default() };
        let cited = |documents: &[&str], unresolved| Reply {
            cited: documents.iter().map(|document| Cited { document: (*document).into(), supported: None }).collect(),
            unresolved,
            ..Reply::default()
        };
        for (reply, precision, recall) in [
            (cited(&["a", "a", "c"], 0), Some(0.5), Some(0.5)),
            (cited(&["a", "b"], 1), Some(2.0 / 3.0), Some(1.0)),
            (cited(&[], 0), None, Some(0.0)),
        ] {
            assert_eq!(value_of(&Citations::Precision, &case, &reply, &[]), precision);
            assert_eq!(value_of(&Citations::Recall, &case, &reply, &[]), recall);
        }
        assert_eq!(value_of(&Citations::Recall, &Case::default(), &cited(&["a"], 0), &[]), None);
    }
}
