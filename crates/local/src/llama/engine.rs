//! The thread that decodes for everybody.

use super::slot::{After, Running, Slot};
use super::{LlamaSettings, Place};
use groundtone_provider::{ChatEvent, Error, Sampling};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use tokio::sync::mpsc;

/// Prompt tokens of one step, all slots together: long enough to keep the cores busy, short enough (about 0.7 s on two cores with a 135M model) that running answers keep flowing.
const PROMPT_TOKENS_PER_STEP: usize = 128;

/// A request on its way to a slot.
pub(super) struct Job {
    pub(super) prompt: Vec<LlamaToken>,
    pub(super) max_tokens: usize,
    pub(super) sampling: Sampling,
    pub(super) events: mpsc::Sender<Result<ChatEvent, Error>>,
    pub(super) _place: Place,
}

/// What the thread is started with.
pub(super) struct Engine {
    pub(super) model: Arc<LlamaModel>,
    pub(super) settings: LlamaSettings,
    #[expect(dead_code, reason = "keeps the count of places alive as long as the thread")]
    pub(super) waiting: Arc<AtomicUsize>,
}

impl Engine {
    /// Runs until every sender is gone and every answer is through.
    pub(super) fn run(self, inbox: &Receiver<Job>, started: &Sender<Result<(), String>>) {
        let context = match self.context() {
            Ok(context) => context,
            Err(reason) => {
                report(started, Err(reason));
                return;
            }
        };
        report(started, Ok(()));
        let slots =
            (0..self.settings.parallel.max(1) as i32).map(|sequence| Slot { sequence, cached: Vec::new(), running: None }).collect();
        let mut work = Work { model: &self.model, settings: &self.settings, context, slots, queue: VecDeque::new(), first: 0 };
        loop {
            if !work.receive(inbox) {
                return;
            }
            work.admit();
            if let Err(reason) = work.step() {
                tracing::error!(reason, "decoding failed");
                work.fail_all(&reason);
            }
        }
    }

    /// A cache of its own for each of `parallel` contexts: where a token's keys and values lie does not depend on what else runs, and so neither does the order of sums.
    fn context(&self) -> Result<LlamaContext<'_>, String> {
        let threads = i32::try_from(self.settings.threads.max(1)).unwrap_or(1);
        let parallel = self.settings.parallel.max(1);
        let parameters = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(self.settings.context_tokens.saturating_mul(parallel)))
            .with_n_seq_max(parallel)
            .with_kv_unified(false)
            .with_n_batch(512)
            .with_n_ubatch(256)
            .with_n_threads(threads)
            .with_n_threads_batch(threads);
        let backend = super::BACKEND.as_ref().map_err(Clone::clone)?;
        self.model
            .new_context(backend, parameters)
            .map_err(|error| format!("no context of {} x {} tokens: {error}", parallel, self.settings.context_tokens))
    }
}

fn report(started: &Sender<Result<(), String>>, result: Result<(), String>) {
    if started.send(result).is_err() {
        tracing::debug!("nobody waits for the model to start");
    }
}

struct Work<'a> {
    model: &'a LlamaModel,
    settings: &'a LlamaSettings,
    context: LlamaContext<'a>,
    slots: Vec<Slot>,
    queue: VecDeque<Job>,
    /// The slot whose prompt comes first in the next step; it moves on, so that prompts share the step fairly.
    first: usize,
}

impl Work<'_> {
    /// Takes what has come; waits if there is nothing to do. False when nothing will come any more.
    fn receive(&mut self, inbox: &Receiver<Job>) -> bool {
        let idle = self.queue.is_empty() && self.slots.iter().all(|slot| slot.running.is_none());
        if idle {
            match inbox.recv() {
                Ok(job) => self.queue.push_back(job),
                Err(_) => return false,
            }
        }
        loop {
            match inbox.try_recv() {
                Ok(job) => self.queue.push_back(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Gives free slots to waiting requests, each the slot whose cache it can use most of.
    fn admit(&mut self) {
        self.queue.retain(|job| !job.events.is_closed());
        while self.slots.iter().any(|slot| slot.running.is_none()) {
            let Some(job) = self.queue.pop_front() else { return };
            let shared = |slot: &Slot| slot.cached.iter().zip(&job.prompt).take_while(|(a, b)| a == b).count();
            let best_anywhere = self.slots.iter().enumerate().map(|(at, slot)| (shared(slot), at)).max();
            let free = self.slots.iter().enumerate().filter(|(_, slot)| slot.running.is_none());
            // Among equals the shortest cache: the least is lost.
            let Some((own, at)) =
                free.map(|(at, slot)| (shared(slot), std::cmp::Reverse(slot.cached.len()), at)).max().map(|(own, _, at)| (own, at))
            else {
                return;
            };
            match self.place(job, at, own, best_anywhere) {
                Ok(()) => {}
                Err((job, reason)) => fail(&job, &self.settings.model_id, &reason),
            }
        }
    }

    /// Puts a job into slot `at`, with as much of its prompt as any slot has in the cache: its own, or a copy of the whole cache of another, cut off where they part.
    /// The last prompt token is always computed: its logits are needed.
    #[expect(clippy::result_large_err, reason = "the job comes back so that its reader is told")]
    fn place(&mut self, job: Job, at: usize, own: usize, best_anywhere: Option<(usize, usize)>) -> Result<(), (Job, String)> {
        let sequence = self.slots[at].sequence;
        let mut keep = own.min(job.prompt.len() - 1);
        let source =
            best_anywhere.filter(|&(most, from)| most > own && from != at).map(|(most, from)| (most.min(job.prompt.len() - 1), from));
        let change = match source {
            Some((most, from)) => {
                keep = most;
                let from = self.slots[from].sequence;
                let copied = self.context.copy_kv_cache_seq(from, sequence, None, None).map_err(|error| error.to_string());
                copied.and_then(|()| self.clear(sequence, most))
            }
            None => self.clear(sequence, keep),
        };
        if let Err(reason) = change {
            return Err((job, reason));
        }
        let slot = &mut self.slots[at];
        slot.cached.clear();
        slot.cached.extend_from_slice(&job.prompt[..keep]);
        slot.running = Some(Running::new(job, keep, self.model.n_vocab()));
        Ok(())
    }

    fn clear(&mut self, sequence: i32, from: usize) -> Result<(), String> {
        let from = u32::try_from(from).map_err(|error| error.to_string())?;
        match self.context.clear_kv_cache_seq(u32::try_from(sequence).ok(), Some(from), None) {
            Ok(true) => Ok(()),
            Ok(false) => Err("a part of the KV cache cannot be removed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// One batch: a token of each running answer, and a share of the prompts.
    fn step(&mut self) -> Result<(), String> {
        for slot in &mut self.slots {
            if slot.running.as_ref().is_some_and(Running::abandoned) {
                slot.running = None;
            }
        }
        let mut batch = LlamaBatch::new(PROMPT_TOKENS_PER_STEP + self.slots.len(), 1);
        self.add_next_tokens(&mut batch)?;
        self.add_prompts(&mut batch)?;
        if batch.n_tokens() == 0 {
            return Ok(());
        }
        self.context.decode(&mut batch).map_err(|error| error.to_string())?;
        for slot in &mut self.slots {
            let Some(running) = &mut slot.running else { continue };
            let Some(at) = running.logits_at.take() else { continue };
            let token = running.sampler().sample(&self.context, at);
            let vocabulary = self.model.vocab();
            let bytes = (!vocabulary.is_eog(token)).then(|| vocabulary.token_to_piece(token, false, None));
            if running.take(token, bytes.as_deref()) == After::Over {
                slot.running = None;
            }
        }
        Ok(())
    }

    fn add_next_tokens(&mut self, batch: &mut LlamaBatch<'_>) -> Result<(), String> {
        for slot in &mut self.slots {
            let Some(running) = &mut slot.running else { continue };
            let Some(token) = running.next.take() else { continue };
            let position = i32::try_from(slot.cached.len()).map_err(|error| error.to_string())?;
            running.logits_at = Some(batch.n_tokens());
            batch.add(token, position, &[slot.sequence], true).map_err(|error| error.to_string())?;
            slot.cached.push(token);
        }
        Ok(())
    }

    fn add_prompts(&mut self, batch: &mut LlamaBatch<'_>) -> Result<(), String> {
        let count = self.slots.len();
        let unread = |slot: &Slot| slot.running.as_ref().map_or(0, |running| running.job.prompt.len().saturating_sub(slot.cached.len()));
        let reading = self.slots.iter().filter(|slot| unread(slot) > 0).count();
        if reading == 0 {
            return Ok(());
        }
        let share = (PROMPT_TOKENS_PER_STEP / reading).max(3);
        self.first = (self.first + 1) % count;
        for turn in 0..count {
            let slot = &mut self.slots[(self.first + turn) % count];
            let take = prompt_tokens(unread(slot), share);
            let Some(running) = &mut slot.running else { continue };
            for _ in 0..take {
                let position = slot.cached.len();
                let token = running.job.prompt[position];
                let last = position + 1 == running.job.prompt.len();
                if last {
                    running.logits_at = Some(batch.n_tokens());
                }
                let place = i32::try_from(position).map_err(|error| error.to_string())?;
                batch.add(token, place, &[slot.sequence], last).map_err(|error| error.to_string())?;
                slot.cached.push(token);
            }
        }
        Ok(())
    }

    /// After a failed step nothing in the cache is certain: every reader is told, and the cache starts anew.
    fn fail_all(&mut self, reason: &str) {
        for slot in &mut self.slots {
            if let Some(running) = slot.running.take() {
                fail(&running.job, &self.settings.model_id, reason);
            }
            slot.cached.clear();
        }
        self.context.clear_kv_cache();
    }
}

/// How many of `unread` prompt tokens a step takes. The last one goes alone, and no other one does: a matrix times one vector rounds differently than times several, and with the cache a prompt
/// is read in other pieces the second time. This way both times give the same answer.
fn prompt_tokens(unread: usize, share: usize) -> usize {
    match unread {
        0 | 1 => unread,
        _ if unread - 1 <= share => unread - 1,
        _ if unread - 1 - share == 1 => share - 1,
        _ => share,
    }
}

fn fail(job: &Job, model: &str, reason: &str) {
    let error = Error::Model { model: model.to_owned(), reason: reason.to_owned() };
    if job.events.try_send(Err(error)).is_err() {
        tracing::debug!("the reader of a failed answer has left");
    }
}

#[cfg(test)]
mod tests {
    use super::prompt_tokens;

    #[test]
    fn the_last_token_goes_alone_and_no_other_one_does() {
        for share in [3, 32, 128] {
            for length in 1..500 {
                let (mut unread, mut pieces) = (length, Vec::new());
                while unread > 0 {
                    pieces.push(prompt_tokens(unread, share));
                    unread -= pieces[pieces.len() - 1];
                }
                assert_eq!(pieces.pop(), Some(1), "{length} by {share}");
                assert!(pieces.iter().all(|&piece| (2..=share).contains(&piece)) || length == 2, "{length} by {share}: {pieces:?}");
            }
        }
    }
}
