use groundtone_prompt::PromptMessage;
use groundtone_types::Span;
use serde::{Deserialize, Serialize};

/// A question and how it should be answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Its name in the file.
    pub id: String,
    /// What a customer asks.
    pub question: String,
    /// The right answer, in the brand's voice.
    pub answer: String,
    /// Documents that hold the answer; empty where none does, or nobody said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<String>,
    /// Where in its one document the answer stands, in bytes of the extracted text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// The conversation before the question, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PromptMessage>,
    /// What kind of question it is: an intent, a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Examples of one group stay in one split: a customer, a ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// An answer that a person turned down: the other half of a preference pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
}
