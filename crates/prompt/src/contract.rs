use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// Which template files are used. A new prompt is a new version; old ones stay, because models were trained on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateVersion {
    /// Numbered sources before the question, in the last user message.
    #[default]
    V1,
}

/// The template texts of one version. Placeholders are `{{name}}`; they are filled in one pass, so text that looks like a placeholder stays text.
pub(crate) struct Templates {
    pub(crate) system: &'static str,
    pub(crate) user: &'static str,
    pub(crate) source: &'static str,
    /// One worked example, as earlier turns: what a small model needs to cite at all. It stays in the KV cache.
    pub(crate) example: [&'static str; 2],
}

impl TemplateVersion {
    pub(crate) fn templates(self) -> Templates {
        match self {
            Self::V1 => Templates {
                system: include_str!("../templates/v1.system.txt"),
                user: include_str!("../templates/v1.user.txt"),
                source: include_str!("../templates/v1.source.txt"),
                example: [include_str!("../templates/v1.example.user.txt"), include_str!("../templates/v1.example.assistant.txt")],
            },
        }
    }
}

impl TemplateVersion {
    /// Strings that never stand in an answer: a small model that meets the end of its answer goes on with another source or question.
    pub fn stops(self) -> &'static [&'static str] {
        match self {
            Self::V1 => &["\n\n[", "\nQuestion:", "\nSources:"],
        }
    }
}

/// Everything that decides what a model reads: template, brand text, abstain text, packing budget and the tokenizer that measures it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptContract {
    /// Which templates.
    pub template: TemplateVersion,
    /// The brand's own system text.
    pub system: String,
    /// What the model says when the sources do not hold the answer.
    pub abstain: String,
    /// Most tokens that the sources may take, together.
    pub context_tokens: usize,
    /// [`CountTokens::id`](crate::CountTokens::id) of the tokenizer that measures.
    pub tokenizer: String,
}

/// SHA-256 of a [`PromptContract`], in hexadecimal. Datasets, tuned models and releases carry it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        Self(hex::encode(digest.finalize()))
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Changed whenever the packing rules in `render.rs` change.
const PACKING_RULES: &str = "packing-1";
/// The same for prompts without sources.
const PLAIN_RULES: &str = "plain-1";

impl PromptContract {
    /// Two contracts have the same fingerprint exactly when they render the same bytes for the same input.
    pub fn fingerprint(&self) -> Fingerprint {
        let templates = self.template.templates();
        let budget = self.context_tokens.to_string();
        Fingerprint::of([
            templates.system,
            templates.user,
            templates.source,
            templates.example[0],
            templates.example[1],
            PACKING_RULES,
            &self.system,
            &self.abstain,
            &budget,
            &self.tokenizer,
        ])
    }

    /// The same for [`Self::render_plain`], whose bytes depend on the brand's own text only.
    pub fn plain_fingerprint(&self) -> Fingerprint {
        Fingerprint::of([PLAIN_RULES, self.system.trim()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_contract_is_in_the_fingerprint() {
        let contract = PromptContract {
            template: TemplateVersion::V1,
            system: "a".into(),
            abstain: "b".into(),
            context_tokens: 700,
            tokenizer: "o200k_base".into(),
        };
        let changed = [
            PromptContract { system: "ab".into(), abstain: String::new(), ..contract.clone() },
            PromptContract { abstain: "c".into(), ..contract.clone() },
            PromptContract { context_tokens: 701, ..contract.clone() },
            PromptContract { tokenizer: "cl100k_base".into(), ..contract.clone() },
        ];
        for other in changed {
            assert_ne!(contract.fingerprint(), other.fingerprint(), "{other:?}");
        }
        assert_ne!(contract.fingerprint(), contract.plain_fingerprint());
        assert_ne!(contract.plain_fingerprint(), PromptContract { system: "b".into(), ..contract.clone() }.plain_fingerprint());
        assert_eq!(contract.plain_fingerprint(), PromptContract { abstain: "c".into(), ..contract.clone() }.plain_fingerprint());
        // A change of a template file is a new version, not an edit: models were trained on these bytes.
        insta::assert_snapshot!(contract.fingerprint(), @"1c6d8c946c413cf1a413c31c878372620c0dd24ba30893aa966a9928b50e3ec4");
    }
}
