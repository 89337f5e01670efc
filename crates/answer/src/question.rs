use crate::Error;
use groundtone_prompt::{PromptMessage, Role};
use groundtone_provider::{ChatExtras, Sampling};
use groundtone_types::{Collection, Tenant};
use std::sync::Arc;

/// One turn of a conversation.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whose documents.
    pub tenant: Tenant,
    /// The client's messages, oldest first; the last one is the user's.
    pub messages: Vec<PromptMessage>,
    /// What the client wants of the sampler; the assistant's own where `None`.
    pub sampling: Sampling,
    /// What the client sent beside text.
    pub extras: Arc<ChatExtras>,
    /// What is searched; the assistant's own collection where it is empty.
    pub collections: Vec<Collection>,
    /// How many snippets are searched for; the retriever's own number where `None`.
    pub most_snippets: Option<usize>,
    /// The variant that the client pins; what is released where `None`.
    pub variant: Option<String>,
    /// What stays the same in all turns of the conversation; its first question where `None`. Decides which conversations a canary gets.
    pub conversation: Option<String>,
}

impl Question {
    /// A question with the assistant's own sampling and collection.
    pub fn new(tenant: Tenant, messages: Vec<PromptMessage>) -> Self {
        Self {
            tenant,
            messages,
            sampling: Sampling::default(),
            extras: Arc::default(),
            collections: Vec::new(),
            most_snippets: None,
            variant: None,
            conversation: None,
        }
    }

    /// What stays the same from turn to turn, of this tenant.
    pub(crate) fn conversation_key(&self) -> String {
        let first = || self.messages.iter().find(|message| message.role == Role::User).map(|message| message.content.clone());
        format!("{}\n{}", self.tenant, self.conversation.clone().or_else(first).unwrap_or_default())
    }

    /// The question itself, and the conversation before it.
    pub(crate) fn split(&self) -> Result<(&str, &[PromptMessage]), Error> {
        match self.messages.split_last() {
            Some((last, history)) if last.role == Role::User && !last.content.trim().is_empty() => Ok((last.content.as_str(), history)),
            Some((last, _)) if last.role == Role::User => Err(Error::Conversation("the last message is empty")),
            Some(_) => Err(Error::Conversation("the last message must be the user's")),
            None => Err(Error::Conversation("there are no messages")),
        }
    }
}

/// The client's wishes, the assistant's where there are none, and never more tokens than fit.
pub(crate) fn merge(client: &Sampling, assistant: &Sampling, room: usize) -> Sampling {
    let wanted = client.max_tokens.or(assistant.max_tokens);
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    Sampling {
        temperature: client.temperature.or(assistant.temperature),
        top_p: client.top_p.or(assistant.top_p),
        max_tokens: wanted.map(|tokens| tokens.min(room)),
        stop: if client.stop.is_empty() { assistant.stop.clone() } else { client.stop.clone() },
        seed: client.seed.or(assistant.seed),
        presence_penalty: client.presence_penalty.or(assistant.presence_penalty),
        frequency_penalty: client.frequency_penalty.or(assistant.frequency_penalty),
    }
}
