//! One sequence of the KV cache, and the answer that is written in it.

use super::engine::{AdapterId, Job};
use super::sampler::Sampler;
use super::text::TextBuffer;
use groundtone_provider::{ChatEvent, FinishReason};
use groundtone_types::TokenUsage;
use llama_cpp_2::token::LlamaToken;

/// A sequence. Between answers it keeps the tokens whose keys and values are in the cache.
pub(super) struct Slot {
    pub(super) sequence: i32,
    /// Tokens in the cache, in order.
    pub(super) cached: Vec<LlamaToken>,
    /// The adapter that they were computed with.
    pub(super) adapter: AdapterId,
    pub(super) running: Option<Running>,
}

impl Slot {
    pub(super) fn new(sequence: i32) -> Self {
        Self { sequence, cached: Vec::new(), adapter: None, running: None }
    }

    /// How much of a job's prompt is in the cache.
    pub(super) fn shared(&self, job: &Job) -> usize {
        if self.adapter != job.adapter {
            return 0;
        }
        self.cached.iter().zip(&job.prompt).take_while(|(a, b)| a == b).count()
    }

    /// The cache is gone: a running answer reads its prompt and what it has written once more, and goes on.
    pub(super) fn read_again(&mut self) {
        if let Some(running) = &mut self.running {
            let through = self.cached.len() >= running.job.prompt.len();
            if through {
                running.job.prompt = std::mem::take(&mut self.cached);
                running.job.prompt.extend(running.next.take());
            }
            running.logits_at = None;
        }
        self.cached.clear();
    }
}

/// An answer in the making.
pub(super) struct Running {
    pub(super) job: Job,
    pub(super) sampler: Sampler,
    text: TextBuffer,
    /// Prompt tokens that were in the cache already.
    reused: usize,
    pub(super) written: usize,
    /// Sampled, and to be decoded next.
    pub(super) next: Option<LlamaToken>,
    /// Where in the current batch this slot's logits are.
    pub(super) logits_at: Option<i32>,
}

/// What a sampled token did to an answer.
#[derive(PartialEq, Eq)]
pub(super) enum After {
    GoOn,
    Over,
}

impl Running {
    pub(super) fn new(job: Job, reused: usize) -> Self {
        let text = TextBuffer::new(job.sampling.stop.clone());
        let sampler = Sampler::new(&job.sampling);
        Self { job, sampler, text, reused, written: 0, next: None, logits_at: None }
    }

    /// The reader left.
    pub(super) fn abandoned(&self) -> bool {
        self.job.events.is_closed()
    }

    /// Takes the next token's bytes; `None` ends the answer.
    pub(super) fn take(&mut self, token: LlamaToken, bytes: Option<&[u8]>) -> After {
        let Some(bytes) = bytes else { return self.finish(FinishReason::Stop) };
        self.written += 1;
        let text = self.text.push(bytes);
        if !text.is_empty() && self.send(ChatEvent::Delta(text)) == After::Over {
            return After::Over;
        }
        if self.text.stopped() {
            return self.finish(FinishReason::Stop);
        }
        if self.written >= self.job.max_tokens {
            return self.finish(FinishReason::Length);
        }
        self.next = Some(token);
        After::GoOn
    }

    fn finish(&mut self, reason: FinishReason) -> After {
        let rest = self.text.finish();
        if !rest.is_empty() && self.send(ChatEvent::Delta(rest)) == After::Over {
            return After::Over;
        }
        let usage = TokenUsage {
            prompt_tokens: self.job.prompt_tokens as u64,
            cached_tokens: self.reused as u64,
            completion_tokens: self.written as u64,
            reasoning_tokens: 0,
        };
        self.send(ChatEvent::Finished { reason, usage: Some(usage) });
        After::Over
    }

    /// The channel has room for every event, so the only failure is a reader that left.
    fn send(&self, event: ChatEvent) -> After {
        if self.job.events.try_send(Ok(event)).is_ok() { After::GoOn } else { After::Over }
    }
}
