use super::{Answered, Aspect, Metric, yes};
use crate::stats::Part;

/// Everything that the row says must stand in the answer does.
#[derive(Debug, Clone, Copy)]
pub struct Facts;

/// Whether `wanted` stands in `text`, not inside a longer number or word: `45` is not in `1450`.
fn holds(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.to_lowercase(), wanted.trim().to_lowercase());
    let edge = |neighbour: Option<char>, own: Option<char>| match (neighbour, own) {
        (Some(neighbour), Some(own)) => !(neighbour.is_alphanumeric() && own.is_alphanumeric()),
        _ => true,
    };
    text.match_indices(&wanted).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + wanted.len()..].chars().next());
        edge(before, wanted.chars().next()) && edge(after, wanted.chars().next_back())
    })
}

impl Metric for Facts {
    fn name(&self) -> String {
        "facts".to_owned()
    }
    fn meaning(&self) -> String {
        "everything that the row says the answer must contain stands in it".to_owned()
    }
    fn aspect(&self) -> Aspect {
        Aspect::Facts
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        let wanted = &answered.case.must_contain;
        if wanted.is_empty() { Vec::new() } else { yes(wanted.iter().all(|wanted| holds(&answered.reply.text, wanted))) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::value;
    use super::*;
    use crate::case::Case;

    #[test]
    fn a_fact_is_not_part_of_another_number() {
        let case = Case { must_contain: vec!["45".into(), "Graz".into()], ..Case::default() };
        for (text, expected) in [("45 days, in graz.", 1.0), ("1450 days in Graz", 0.0), ("45 days", 0.0), ("(45) Graz", 1.0), ("45", 0.0)]
        {
            assert_eq!(value(&Facts, &case, text), Some(expected), "{text}");
        }
        assert_eq!(value(&Facts, &Case::default(), "45"), None);
    }
}
