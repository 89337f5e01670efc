use async_trait::async_trait;
use futures::StreamExt;
use groundtone_prompt::{PromptMessage, condense_prompt};
use groundtone_provider::{ChatEvent, ChatExtras, ChatModel, ChatRequest, Sampling};
use groundtone_retrieval::Condense;
use std::sync::Arc;

/// Lets a chat model rewrite follow-ups where the rules are unsure.
pub(crate) struct ModelCondense(pub(crate) Arc<dyn ChatModel>);

#[async_trait]
impl Condense for ModelCondense {
    async fn condense(&self, question: &str, history: &[PromptMessage], max_tokens: u32) -> Result<String, String> {
        let sampling =
            Sampling { temperature: Some(0.0), max_tokens: Some(max_tokens), stop: vec!["\n".to_owned()], ..Sampling::default() };
        let request = ChatRequest { messages: condense_prompt(history, question), sampling, extras: Arc::new(ChatExtras::default()) };
        let mut events = self.0.chat(request).await.map_err(|error| error.to_string())?;
        let mut text = String::new();
        while let Some(event) = events.next().await {
            match event.map_err(|error| error.to_string())? {
                ChatEvent::Delta(delta) => text.push_str(&delta),
                ChatEvent::Beside(_) => {}
                ChatEvent::Finished { .. } => return Ok(text),
            }
        }
        Err("the model ended without finishing".to_owned())
    }
}
