//! The thread that answers everybody with one model.

use super::slot::{After, Running, Slot};
use super::{LlamaSettings, Place};
use groundtone_provider::{ChatEvent, Error, Sampling};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::{LlamaLoraAdapter, LlamaModel};
use llama_cpp_2::token::LlamaToken;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use tokio::sync::{mpsc, oneshot};

/// Prompt tokens of one step, all slots together: long enough to keep the cores busy, short enough (about 0.7 s on two cores with a 135M model) that running answers keep flowing.
const PROMPT_TOKENS_PER_STEP: usize = 128;

/// The name of an adapter; none is the base model as it is.
pub(super) type AdapterId = Option<Arc<str>>;

/// What the thread is told.
pub(super) enum Message {
    Answer(Job),
    /// Loads an adapter's file under a name, in place of one that had it.
    Load {
        id: Arc<str>,
        path: PathBuf,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Unload {
        id: Arc<str>,
        reply: oneshot::Sender<()>,
    },
}

/// A request on its way to a slot.
pub(super) struct Job {
    pub(super) prompt: Vec<LlamaToken>,
    /// Tokens of the prompt as it came.
    pub(super) prompt_tokens: usize,
    pub(super) adapter: AdapterId,
    pub(super) max_tokens: usize,
    pub(super) sampling: Sampling,
    pub(super) events: mpsc::Sender<Result<ChatEvent, Error>>,
    pub(super) _place: Place,
}

/// What the thread is started with.
pub(super) struct Engine {
    pub(super) model: LlamaModel,
    pub(super) settings: LlamaSettings,
    #[expect(dead_code, reason = "keeps the count of places alive as long as the thread")]
    pub(super) waiting: Arc<AtomicUsize>,
}

/// What outlives a context.
struct Tasks {
    slots: Vec<Slot>,
    queue: VecDeque<Job>,
    adapters: HashMap<Arc<str>, LlamaLoraAdapter>,
    /// The slot whose prompt comes first in the next step; it moves on, so that prompts share the step fairly.
    first: usize,
}

/// Why a context was left.
enum Left {
    /// Nothing will come any more.
    Over,
    /// An adapter is to be loaded, which llama.cpp does between contexts only.
    Load { id: Arc<str>, path: PathBuf, reply: oneshot::Sender<Result<(), String>> },
}

impl Engine {
    /// Runs until every sender is gone and every answer is through.
    pub(super) fn run(self, inbox: &Receiver<Message>, started: &Sender<Result<(), String>>) {
        let Self { mut model, settings, .. } = self;
        let slots = (0..settings.parallel.max(1) as i32).map(Slot::new).collect();
        let mut tasks = Tasks { slots, queue: VecDeque::new(), adapters: HashMap::new(), first: 0 };
        let mut first = Some(started);
        loop {
            let left = match context(&model, &settings) {
                Ok(context) => {
                    if let Some(started) = first.take() {
                        report(started, Ok(()));
                    }
                    Work { model: &model, settings: &settings, context, tasks: &mut tasks, applied: None }.serve(inbox)
                }
                Err(reason) => {
                    if let Some(started) = first.take() {
                        report(started, Err(reason));
                    } else {
                        tracing::error!(reason, "no new context");
                        tasks.fail_all(&settings, &reason);
                    }
                    return;
                }
            };
            let Left::Load { id, path, reply } = left else { return };
            let loaded = model.lora_adapter_init(&path).map(|adapter| tasks.adapters.insert(id, adapter));
            let loaded = loaded.map(|_| ()).map_err(|_| format!("{} is no adapter that fits this model", path.display()));
            tasks.slots.iter_mut().for_each(Slot::read_again);
            if reply.send(loaded).is_err() {
                tracing::debug!("nobody waits for an adapter");
            }
        }
    }
}

/// A cache of its own for each of `parallel` contexts: where a token's keys and values lie does not depend on what else runs, and so neither does the order of sums.
fn context<'a>(model: &'a LlamaModel, settings: &LlamaSettings) -> Result<LlamaContext<'a>, String> {
    let threads = i32::try_from(settings.threads.max(1)).unwrap_or(1);
    let parallel = settings.parallel.max(1);
    let parameters = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(settings.context_tokens.saturating_mul(parallel)))
        .with_n_seq_max(parallel)
        .with_kv_unified(false)
        .with_n_batch(512)
        .with_n_ubatch(256)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let backend = super::BACKEND.as_ref().map_err(Clone::clone)?;
    model
        .new_context(backend, parameters)
        .map_err(|error| format!("no context of {} x {} tokens: {error}", parallel, settings.context_tokens))
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
    tasks: &'a mut Tasks,
    /// The adapter that the context computes with.
    applied: AdapterId,
}

impl Work<'_> {
    fn serve(mut self, inbox: &Receiver<Message>) -> Left {
        loop {
            if let Some(left) = self.receive(inbox) {
                return left;
            }
            self.admit();
            if let Err(reason) = self.step() {
                tracing::error!(reason, "decoding failed");
                // After a failed step nothing in the cache is certain: every reader is told, and the cache starts anew.
                self.tasks.fail_all(self.settings, &reason);
                self.context.clear_kv_cache();
            }
        }
    }

    /// Takes what has come; waits if there is nothing to do.
    fn receive(&mut self, inbox: &Receiver<Message>) -> Option<Left> {
        let idle = self.tasks.queue.is_empty() && self.tasks.slots.iter().all(|slot| slot.running.is_none());
        if idle {
            match inbox.recv() {
                Ok(message) => {
                    if let Some(left) = self.take(message) {
                        return Some(left);
                    }
                }
                Err(_) => return Some(Left::Over),
            }
        }
        loop {
            match inbox.try_recv() {
                Ok(message) => {
                    if let Some(left) = self.take(message) {
                        return Some(left);
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
    }

    fn take(&mut self, message: Message) -> Option<Left> {
        match message {
            Message::Answer(job) => self.tasks.queue.push_back(job),
            Message::Load { id, path, reply } => return Some(Left::Load { id, path, reply }),
            Message::Unload { id, reply } => {
                self.tasks.forget(self.settings, &id);
                if reply.send(()).is_err() {
                    tracing::debug!("nobody waits for the end of an adapter");
                }
            }
        }
        None
    }

    /// Gives free slots to waiting requests, each the slot whose cache it can use most of.
    fn admit(&mut self) {
        self.tasks.queue.retain(|job| !job.events.is_closed());
        while self.tasks.slots.iter().any(|slot| slot.running.is_none()) {
            let Some(job) = self.tasks.queue.pop_front() else { return };
            if let Some(id) = job.adapter.as_ref().filter(|id| !self.tasks.adapters.contains_key(*id)) {
                fail(&job, &self.settings.model_id, &format!("adapter `{id}` is not loaded"));
                continue;
            }
            let shared = |slot: &Slot| slot.shared(&job);
            let best_anywhere = self.tasks.slots.iter().enumerate().map(|(at, slot)| (shared(slot), at)).max();
            let free = self.tasks.slots.iter().enumerate().filter(|(_, slot)| slot.running.is_none());
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
        let sequence = self.tasks.slots[at].sequence;
        let mut keep = own.min(job.prompt.len() - 1);
        let source =
            best_anywhere.filter(|&(most, from)| most > own && from != at).map(|(most, from)| (most.min(job.prompt.len() - 1), from));
        let change = match source {
            Some((most, from)) => {
                keep = most;
                let from = self.tasks.slots[from].sequence;
                let copied = self.context.copy_kv_cache_seq(from, sequence, None, None).map_err(|error| error.to_string());
                copied.and_then(|()| self.clear(sequence, most))
            }
            None => self.clear(sequence, keep),
        };
        if let Err(reason) = change {
            return Err((job, reason));
        }
        let slot = &mut self.tasks.slots[at];
        slot.cached.clear();
        slot.cached.extend_from_slice(&job.prompt[..keep]);
        slot.adapter.clone_from(&job.adapter);
        slot.running = Some(Running::new(job, keep));
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

    /// The adapter whose turn it is, among those of running answers: a batch is computed with one.
    fn turn(&mut self) -> Result<(), String> {
        let mut wanted: Vec<&AdapterId> = Vec::new();
        for slot in self.tasks.slots.iter().filter(|slot| slot.running.is_some()) {
            if !wanted.contains(&&slot.adapter) {
                wanted.push(&slot.adapter);
            }
        }
        let at = wanted.iter().position(|id| **id == self.applied).map_or(0, |at| at + 1);
        let Some(next) = wanted.get(at).or(wanted.first()).filter(|id| ***id != self.applied).map(|id| (*id).clone()) else {
            return Ok(());
        };
        let done = match &next {
            Some(id) => {
                let adapter = self.tasks.adapters.get_mut(id).ok_or_else(|| format!("adapter `{id}` is not loaded"))?;
                self.context.lora_adapter_set(adapter, 1.0).map_err(|error| error.to_string())
            }
            // Any adapter will do: the call takes all of them away.
            None => match self.tasks.adapters.values_mut().next() {
                Some(adapter) => self.context.lora_adapter_remove(adapter).map_err(|error| error.to_string()),
                None => Ok(()),
            },
        };
        self.applied = next;
        done
    }

    /// One batch: a token of each running answer, and a share of the prompts; of the answers by one adapter.
    fn step(&mut self) -> Result<(), String> {
        for slot in &mut self.tasks.slots {
            if slot.running.as_ref().is_some_and(Running::abandoned) {
                slot.running = None;
            }
        }
        self.turn()?;
        let mut batch = LlamaBatch::new(PROMPT_TOKENS_PER_STEP + self.tasks.slots.len(), 1);
        self.add_next_tokens(&mut batch)?;
        self.add_prompts(&mut batch)?;
        if batch.n_tokens() == 0 {
            return Ok(());
        }
        let compute = super::COMPUTE.as_ref().map_err(Clone::clone)?;
        compute.install(|| self.context.decode(&mut batch)).map_err(|error| error.to_string())?;
        for slot in &mut self.tasks.slots {
            let Some(running) = &mut slot.running else { continue };
            let Some(at) = running.logits_at.take() else { continue };
            let token = running.sampler.choose(self.context.get_logits_ith(at));
            let vocabulary = self.model.vocab();
            let bytes = (!vocabulary.is_eog(token)).then(|| vocabulary.token_to_piece(token, false, None));
            if running.take(token, bytes.as_deref()) == After::Over {
                slot.running = None;
            }
        }
        Ok(())
    }

    fn add_next_tokens(&mut self, batch: &mut LlamaBatch<'_>) -> Result<(), String> {
        for slot in self.tasks.slots.iter_mut().filter(|slot| slot.adapter == self.applied) {
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
        let count = self.tasks.slots.len();
        let applied = self.applied.clone();
        let left = |slot: &Slot| slot.running.as_ref().map_or(0, |running| running.job.prompt.len().saturating_sub(slot.cached.len()));
        let unread = |slot: &Slot| if slot.adapter == applied { left(slot) } else { 0 };
        let reading = self.tasks.slots.iter().filter(|slot| unread(slot) > 0).count();
        if reading == 0 {
            return Ok(());
        }
        let share = (PROMPT_TOKENS_PER_STEP / reading).max(3);
        self.tasks.first = (self.tasks.first + 1) % count;
        for turn in 0..count {
            let slot = &mut self.tasks.slots[(self.tasks.first + turn) % count];
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
}

impl Tasks {
    fn fail_all(&mut self, settings: &LlamaSettings, reason: &str) {
        for slot in &mut self.slots {
            if let Some(running) = slot.running.take() {
                fail(&running.job, &settings.model_id, reason);
            }
            slot.cached.clear();
        }
    }

    /// Takes an adapter away; answers that are being written with it end. Its numbers stay in memory until the model goes: llama.cpp gives them back with it.
    fn forget(&mut self, settings: &LlamaSettings, id: &Arc<str>) {
        self.adapters.remove(id);
        for slot in self.slots.iter_mut().filter(|slot| slot.adapter.as_ref() == Some(id)) {
            if let Some(running) = slot.running.take() {
                fail(&running.job, &settings.model_id, &format!("adapter `{id}` was taken away"));
            }
            slot.cached.clear();
        }
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
