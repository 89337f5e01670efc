use super::{Answered, Aspect, Metric, normalised};
use crate::stats::Part;
use std::collections::HashMap;

/// Overlap of the answer's words with the reference's: the harmonic mean of precision and recall over words, as SQuAD has it.
#[derive(Debug, Clone, Copy)]
pub struct TokenF1;

impl Metric for TokenF1 {
    fn name(&self) -> String {
        "token_f1".to_owned()
    }
    fn meaning(&self) -> String {
        "the answer has the words of the reference, and no others".to_owned()
    }
    fn aspect(&self) -> Aspect {
        Aspect::Facts
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        let Some(reference) = &answered.case.answer else { return Vec::new() };
        let (reference, answer) = (normalised(reference), normalised(&answered.reply.text));
        let (wanted, written) = (reference.split_whitespace().count(), answer.split_whitespace().count());
        if wanted == 0 || written == 0 {
            return vec![Part::of(f64::from(u8::from(wanted == written)))];
        }
        let mut left: HashMap<&str, usize> = HashMap::new();
        reference.split_whitespace().for_each(|word| *left.entry(word).or_default() += 1);
        let mut common = 0;
        for word in answer.split_whitespace() {
            if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
                *count -= 1;
                common += 1;
            }
        }
        vec![Part::of(2.0 * f64::from(common) / (wanted + written) as f64)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::value;
    use super::*;
    use crate::case::Case;

    #[test]
    fn by_hand() {
        let case = Case { answer: Some("45 days from delivery".into()), ..Case::default() };
        // "45 days days": 2 common of 3 and 4 words.
        assert!((value(&TokenF1, &case, "The 45 days, days.").unwrap() - 4.0 / 7.0).abs() < 1e-12);
        assert_eq!(value(&TokenF1, &case, "45 days from delivery"), Some(1.0));
        assert_eq!(value(&TokenF1, &case, ""), Some(0.0));
    }
}
