//! Which variant answers a question. Pure: the same release, pin, conversation and health give the same decision.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What answers now. Replaced as a whole, never changed in place: an answer that has begun keeps the one it began with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The release; `None` before anything was released: then the configuration says which variant answers.
    pub release: Option<String>,
    /// Its variant.
    pub variant: String,
    /// A release that is tried on some of the conversations.
    pub canary: Option<Canary>,
    /// A variant that gets a copy of every question, whose answers nobody is shown.
    pub shadow: Option<String>,
    /// Variants that answer, in this order, where the ones before them fail before their first token.
    pub fallbacks: Vec<String>,
}

/// A release on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// The release.
    pub release: String,
    /// Its variant.
    pub variant: String,
    /// Percent of the conversations, 0 to 100.
    pub percent: u8,
}

/// Who answers one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The variant that is asked first.
    pub primary: String,
    /// The release that it is asked for; `None` for a pinned variant and before anything was released.
    pub release: Option<String>,
    /// Whether that release is the canary.
    pub canary: bool,
    /// Variants to ask where it fails before its first token, in order.
    pub fallbacks: Vec<String>,
    /// The variant that gets a copy.
    pub shadow: Option<String>,
}

/// Decides who answers.
///
/// `pin` is the variant that the client names: it answers, and nobody else. `conversation` is whatever stays the same from turn to turn; a share of them, always the same ones,
/// belongs to the canary. A variant that is not `healthy` gives way to the first one behind it that is.
pub fn route(live: &Live, pin: Option<&str>, conversation: &str, healthy: &dyn Fn(&str) -> bool) -> Decision {
    if let Some(pin) = pin {
        return Decision { primary: pin.to_owned(), release: None, canary: false, fallbacks: Vec::new(), shadow: None };
    }
    let canary = live.canary.as_ref().filter(|canary| falls_to(canary, conversation));
    let (release, variant) = match canary {
        Some(canary) => (Some(canary.release.clone()), &canary.variant),
        None => (live.release.clone(), &live.variant),
    };
    // A canary that fails is covered for by what answers everybody else.
    let stable = canary.map(|_| &live.variant);
    let mut order: Vec<&String> = Vec::new();
    for name in std::iter::once(variant).chain(stable).chain(&live.fallbacks) {
        if !order.contains(&name) {
            order.push(name);
        }
    }
    if let Some(first) = order.iter().position(|name| healthy(name)) {
        order[..=first].rotate_right(1);
    }
    let shadow = live.shadow.clone().filter(|shadow| Some(shadow) != order.first().copied());
    let mut order = order.into_iter().cloned();
    Decision { primary: order.next().unwrap_or_default(), release, canary: canary.is_some(), fallbacks: order.collect(), shadow }
}

/// Whether a conversation is among the canary's: each release has other ones, and a higher percentage only adds some.
fn falls_to(canary: &Canary, conversation: &str) -> bool {
    let mut digest = Sha256::new();
    digest.update(canary.release.as_bytes());
    digest.update([0]);
    digest.update(conversation.as_bytes());
    let hash = digest.finalize();
    let number = u64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
    number % 10_000 < u64::from(canary.percent) * 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn live(percent: u8, fallbacks: &[&str]) -> Live {
        Live {
            release: Some("rel_1".into()),
            variant: "rag".into(),
            canary: Some(Canary { release: "rel_2".into(), variant: "tuned-rag".into(), percent }),
            shadow: Some("tuned".into()),
            fallbacks: fallbacks.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_share_of_the_conversations_belongs_to_the_canary() {
        for percent in [0, 1, 10, 50, 100] {
            let live = live(percent, &[]);
            let hits = (0..20_000).filter(|n| route(&live, None, &format!("conversation {n}"), &|_| true).canary).count();
            let wanted = 200.0 * f64::from(percent);
            // Four standard deviations of a binomial.
            let room = 4.0 * (wanted * (1.0 - f64::from(percent) / 100.0)).sqrt();
            assert!((hits as f64 - wanted).abs() <= room, "{percent} %: {hits} of 20000");
        }
    }

    #[test]
    fn who_fails_is_covered_for() {
        let live = live(100, &["prompted", "rag"]);
        let decided = route(&live, None, "c", &|_| true);
        assert_eq!((decided.primary.as_str(), decided.release.as_deref(), decided.canary), ("tuned-rag", Some("rel_2"), true));
        assert_eq!((decided.fallbacks, decided.shadow), (vec!["rag".to_owned(), "prompted".to_owned()], Some("tuned".to_owned())));
        let decided = route(&live, None, "c", &|name| name == "prompted");
        assert_eq!((decided.primary.as_str(), decided.fallbacks), ("prompted", vec!["tuned-rag".to_owned(), "rag".to_owned()]));
        // Nobody is well: they are asked in their order all the same.
        assert_eq!(route(&live, None, "c", &|_| false).primary, "tuned-rag");
    }

    proptest! {
        #[test]
        fn a_decision_is_steady_and_whole(
            conversation in ".{0,40}", percent in 0u8..=100, more in 0u8..=100, ill in proptest::collection::vec("rag|tuned|tuned-rag|prompted", 0..4),
            fallbacks in proptest::collection::vec("rag|tuned|tuned-rag|prompted", 0..5), pin in proptest::option::of("rag|tuned"),
        ) {
            let names: Vec<&str> = fallbacks.iter().map(String::as_str).collect();
            let live = live(percent, &names);
            let healthy = |name: &str| !ill.iter().any(|ill| ill == name);
            let decided = route(&live, pin.as_deref(), &conversation, &healthy);
            prop_assert_eq!(&decided, &route(&live, pin.as_deref(), &conversation, &healthy));
            if let Some(pin) = pin {
                prop_assert!(decided.primary == pin && decided.fallbacks.is_empty() && decided.shadow.is_none() && !decided.canary);
                return Ok(());
            }
            let mut all = vec![decided.primary.clone()];
            all.extend(decided.fallbacks.clone());
            let mut unique = all.clone();
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), all.len());
            prop_assert!(all.contains(&live.variant) && names.iter().all(|name| all.iter().any(|known| known == name)));
            prop_assert!(healthy(&decided.primary) || !all.iter().any(|name| healthy(name)));
            prop_assert_ne!(decided.shadow.as_ref(), Some(&decided.primary));
            // More percent takes nobody out of the canary.
            let raised = Live { canary: live.canary.clone().map(|canary| Canary { percent: percent.max(more), ..canary }), ..live };
            prop_assert!(!decided.canary || route(&raised, None, &conversation, &healthy).canary);
        }
    }
}
