//! What one target wants that another does not.

use super::rules::{Rule, Severity};
use serde::Serialize;

/// Who is to train on the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// OpenAI, and every server with its fine-tuning API.
    #[default]
    OpenAi,
    /// Azure OpenAI.
    Azure,
    /// Together AI.
    Together,
    /// Fireworks AI.
    Fireworks,
    /// Mistral AI.
    Mistral,
    /// Hugging Face TRL.
    Trl,
}

/// How the model is to be trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Supervised: the last message is the answer to learn.
    #[default]
    Sft,
    /// Direct preference optimisation: one output is better than the other.
    Dpo,
}

const MIB: u64 = 1 << 20;

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::OpenAi, Self::Azure, Self::Together, Self::Fireworks, Self::Mistral, Self::Trl];

    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Together => "together",
            Self::Fireworks => "fireworks",
            Self::Mistral => "mistral",
            Self::Trl => "trl",
        }
    }

    /// How bad a rule's breach is here.
    pub fn severity(self, rule: Rule) -> Severity {
        match rule {
            // Only those who check each message against a closed schema refuse it.
            Rule::MessageUnknownKey if matches!(self, Self::Together | Self::Fireworks | Self::Trl) => Severity::Warning,
            // Chat templates are written for turns, but not every one insists.
            Rule::RoleUnsupported if self == Self::Trl => Severity::Warning,
            _ => rule.severity(),
        }
    }

    /// Rows below which a job is refused.
    pub fn minimum_rows(self) -> u64 {
        match self {
            Self::OpenAi | Self::Azure => 10,
            Self::Fireworks => 3,
            Self::Together | Self::Mistral | Self::Trl => 1,
        }
    }

    /// Tokens of a row that are read, where the target says so for all its models.
    pub fn max_tokens(self) -> Option<usize> {
        matches!(self, Self::OpenAi | Self::Azure).then_some(65_536)
    }

    /// Bytes of a file that one upload takes, where the target says so.
    pub fn max_bytes(self) -> Option<u64> {
        matches!(self, Self::OpenAi | Self::Azure | Self::Mistral).then_some(512 * MIB)
    }

    pub(super) fn wants_bom(self) -> bool {
        self == Self::Azure
    }

    pub(super) fn knows_weight(self) -> bool {
        self != Self::Trl
    }

    pub(super) fn knows_developer(self) -> bool {
        matches!(self, Self::OpenAi | Self::Azure | Self::Fireworks)
    }

    pub(super) fn knows_function_role(self) -> bool {
        matches!(self, Self::OpenAi | Self::Azure | Self::Fireworks)
    }

    /// User and assistant in turn, a system message only at the beginning.
    pub(super) fn wants_turns(self) -> bool {
        self == Self::Together
    }

    pub(super) fn wants_system_or_user_first(self) -> bool {
        matches!(self, Self::Together | Self::Mistral)
    }

    pub(super) fn takes_prompt_and_completion(self) -> bool {
        matches!(self, Self::Together | Self::Trl)
    }

    /// Whether unanswered calls and answers without calls make it refuse the row.
    pub(super) fn follows_tool_calls(self) -> bool {
        self != Self::Trl
    }

    pub(super) fn knows(self, method: Method) -> bool {
        !(self == Self::Mistral && method == Method::Dpo)
    }
}

impl Method {
    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Dpo => "dpo",
        }
    }
}
