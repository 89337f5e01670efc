use serde::{Deserialize, Serialize};

/// Which column of a table, or which key of an object, holds what. `None` is found by its name; a dotted name (`item.question`) goes into objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// The customer's question.
    pub question: Option<String>,
    /// The answer to learn.
    pub answer: Option<String>,
    /// The example's name.
    pub id: Option<String>,
    /// Documents that hold the answer; several in one cell are parted by `;`.
    pub documents: Option<String>,
    /// Intent or topic.
    pub label: Option<String>,
    /// What must stay in one split.
    pub group: Option<String>,
}

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Question,
    Answer,
    Id,
    Documents,
    Label,
    Group,
}

impl Field {
    /// Names that mean this, the most telling first. A file of labelled texts is a file of questions whose answer is the label.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Question => &["question", "query", "prompt", "instruction", "utterance", "text", "user", "input", "message", "title"],
            Self::Answer => {
                &["answer", "ground_truth", "completion", "output", "target", "response", "reply", "label", "category", "intent", "class"]
            }
            Self::Id => &["id", "uuid", "key"],
            Self::Documents => &["documents", "document", "sources", "source_document", "source"],
            Self::Label => &["label", "category", "topic", "intent", "class"],
            Self::Group => &["group", "customer", "ticket", "conversation_id"],
        }
    }
}

impl Columns {
    fn explicit(&self, field: Field) -> Option<&str> {
        match field {
            Field::Question => &self.question,
            Field::Answer => &self.answer,
            Field::Id => &self.id,
            Field::Documents => &self.documents,
            Field::Label => &self.label,
            Field::Group => &self.group,
        }
        .as_deref()
    }

    /// The name among `there` that holds `field`; a name that was given counts even if it is not there, so that its absence is told.
    pub(super) fn find<'a>(&'a self, field: Field, there: &'a [&'a str]) -> Option<&'a str> {
        if let Some(name) = self.explicit(field) {
            return Some(name);
        }
        field.names().iter().find_map(|name| there.iter().copied().find(|column| column.trim().eq_ignore_ascii_case(name)))
    }
}

/// Several documents in one cell.
pub(super) fn documents(cell: &str) -> Vec<String> {
    cell.split(';').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
