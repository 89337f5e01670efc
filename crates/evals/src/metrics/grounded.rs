use super::{Answered, Aspect, Metric};
use crate::stats::Part;
use groundtone_prompt::Groundedness;

/// Numbers, names, quotations and enough of the words of an answer stand in the texts that it may rest on. Word overlap is not entailment; what it does catch is what small
/// models get wrong.
#[derive(Debug, Clone, Copy)]
pub struct Grounded;

impl Metric for Grounded {
    fn name(&self) -> String {
        "groundedness".to_owned()
    }
    fn meaning(&self) -> String {
        "every sentence's numbers, names, quotations and most of its words stand in a source".to_owned()
    }
    fn aspect(&self) -> Aspect {
        Aspect::Facts
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        // An abstention claims nothing, and where there is no text to rest on nothing can be said.
        if answered.abstained || answered.evidence.is_empty() {
            return Vec::new();
        }
        let found = Groundedness::of(&answered.case.question, &answered.reply.text, answered.evidence);
        if found.claims == 0 {
            return Vec::new();
        }
        vec![Part { class: 0, gained: (found.claims - found.doubts.len()) as f64, possible: found.claims as f64 }]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::value_of;
    use super::*;
    use crate::case::{Case, Reply};

    #[test]
    fn a_number_that_stands_nowhere_costs_its_sentence() {
        let case = Case { question: "How long?".into(), ..Case::default() };
        let score = |text: &str, evidence: &[&str]| value_of(&Grounded, &case, &Reply { text: text.into(), ..Reply::default() }, evidence);
        let source = ["Returns are accepted within 45 days. The motor is covered for 4 years."];
        assert_eq!(score("Returns are accepted within 45 days. The motor is covered for 5 years.", &source), Some(0.5));
        assert_eq!(score("I don't have that in our guides.", &source), None);
        assert_eq!(score("Returns are accepted within 45 days.", &[]), None);
        assert_eq!(score("", &source), None);
    }
}
