use crate::question::merge;
use crate::{Error, Question};
use groundtone_prompt::{Fingerprint, PromptContract, PromptInput, RenderedPrompt};
use groundtone_provider::{ChatModel, ChatRequest, Sampling};
use groundtone_types::Snippet;
use std::sync::Arc;

/// One way in which an assistant answers: a prompt, a model, and whether documents are looked up.
#[derive(Clone)]
pub struct Variant {
    /// `rag`, `tuned`, ...; a client pins it as `ASSISTANT:NAME`.
    pub name: String,
    /// Whether answers rest on documents. Without it the prompt is the brand's text, the conversation and the question.
    pub retrieval: bool,
    /// How its prompt is made. The tokenizer is the model's.
    pub contract: PromptContract,
    /// Who writes.
    pub model: Arc<dyn ChatModel>,
    /// Sampling where the client leaves it open.
    pub sampling: Sampling,
}

impl std::fmt::Debug for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variant").field("name", &self.name).field("retrieval", &self.retrieval).field("model", &self.model.id()).finish()
    }
}

impl Variant {
    /// What its prompts are rendered by.
    pub fn fingerprint(&self) -> Fingerprint {
        if self.retrieval { self.contract.fingerprint() } else { self.contract.plain_fingerprint() }
    }

    /// The prompt for a question; `snippets` are left aside where it looks nothing up.
    pub fn render(&self, question: &Question, snippets: &[Snippet]) -> Result<RenderedPrompt, Error> {
        let (asked, history) = question.split()?;
        let tokens = self.model.tokens();
        let taken = self.reply_reserve(&question.sampling) + question.extras.prompt_tokens(&*tokens);
        let budget = self.model.context_tokens().saturating_sub(taken);
        if !self.retrieval {
            return Ok(self.contract.render_plain(history, asked, budget, &*tokens)?);
        }
        let input = PromptInput { history, question: asked, snippets };
        Ok(self.contract.render(&input, budget, &*tokens)?)
    }

    /// What the model is sent for a rendered prompt.
    pub(crate) fn request(&self, question: &Question, prompt: &RenderedPrompt) -> ChatRequest {
        let taken = prompt.prompt_tokens + question.extras.prompt_tokens(&*self.model.tokens());
        let room = self.model.context_tokens().saturating_sub(taken).max(1);
        let mut sampling = merge(&question.sampling, &self.sampling, room);
        if sampling.stop.is_empty() && self.retrieval {
            sampling.stop = self.contract.template.stops().iter().map(|stop| (*stop).to_owned()).collect();
        }
        ChatRequest { messages: prompt.messages.clone(), sampling, extras: question.extras.after_dropping(prompt.dropped_history) }
    }

    /// Room that is kept for the answer: what was asked for, but never more than half of what the model reads.
    fn reply_reserve(&self, sampling: &Sampling) -> usize {
        let wanted = sampling.max_tokens.or(self.sampling.max_tokens).map_or(256, |tokens| tokens as usize);
        wanted.min(self.model.context_tokens() / 2)
    }
}
