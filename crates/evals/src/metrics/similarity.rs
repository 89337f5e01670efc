use super::{Answered, Aspect, Metric};
use crate::stats::Part;
use std::collections::HashMap;

/// How much an answer is written like the brand's own: the cosine of character trigrams, which carry spelling, punctuation and short words, the marks of a style rather than of a
/// subject (Kešelj et al., PACLING 2003). Trigrams of all examples together make the profile; each counts by the root of how often it occurs.
#[derive(Debug, Clone, Default)]
pub struct VoiceSimilarity {
    profile: HashMap<[char; 3], f64>,
}

fn trigrams(text: &str) -> HashMap<[char; 3], f64> {
    let mut chars: Vec<char> = vec![' '];
    for c in text.trim().chars() {
        match c {
            c if c.is_whitespace() => {
                if chars.last() != Some(&' ') {
                    chars.push(' ');
                }
            }
            // Which figure stands there is a fact, not a style.
            c if c.is_ascii_digit() => chars.push('0'),
            c => chars.push(c),
        }
    }
    chars.push(' ');
    let mut found: HashMap<[char; 3], f64> = HashMap::new();
    for window in chars.windows(3) {
        if let [a, b, c] = window {
            *found.entry([*a, *b, *c]).or_default() += 1.0;
        }
    }
    found.values_mut().for_each(|count| *count = count.sqrt());
    found
}

impl VoiceSimilarity {
    /// A profile of texts in the brand's voice.
    pub fn of<T: AsRef<str>>(examples: &[T]) -> Self {
        let joined: Vec<&str> = examples.iter().map(AsRef::as_ref).collect();
        Self { profile: if joined.is_empty() { HashMap::new() } else { trigrams(&joined.join("\n")) } }
    }

    /// From 0 (no trigram in common) to 1.
    pub fn with(&self, text: &str) -> f64 {
        let text = trigrams(text);
        let length = |weights: &HashMap<[char; 3], f64>| weights.values().map(|weight| weight * weight).sum::<f64>().sqrt();
        let product: f64 = text.iter().filter_map(|(trigram, weight)| Some(weight * self.profile.get(trigram)?)).sum();
        let lengths = length(&text) * length(&self.profile);
        if lengths > 0.0 { (product / lengths).min(1.0) } else { 0.0 }
    }
}

impl Metric for VoiceSimilarity {
    fn name(&self) -> String {
        "voice_similarity".to_owned()
    }
    fn meaning(&self) -> String {
        "the answer's character trigrams are those of the brand's examples; compare arms with it, not with 1".to_owned()
    }
    fn aspect(&self) -> Aspect {
        Aspect::Form
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        if self.profile.is_empty() {
            Vec::new()
        } else {
            vec![Part::of(self.with(&groundtone_prompt::strip_citations(&answered.reply.text)))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_voice_is_closer_than_another() {
        let calm = [
            "You have 45 days. Print the label at our site.",
            "We mend it for 38 euro. Bring it to the workshop.",
            "Yes, it can come back. Write to us.",
        ];
        let voice = VoiceSimilarity::of(&calm);
        let (own, other) = (
            voice.with("You have 30 days. Write to the workshop."),
            voice.with("WOW!!! Amazing deal, check out our totally awesome kettles!!!"),
        );
        assert!(own > other + 0.15, "{own} {other}");
        assert!((voice.with(&calm.join("\n")) - 1.0).abs() < 1e-9);
        assert_eq!(voice.with(""), 0.0);
        assert_eq!(VoiceSimilarity::of(&[] as &[&str]).with("x"), 0.0);
    }
}
