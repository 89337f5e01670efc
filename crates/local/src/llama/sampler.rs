//! The next token of an answer.
//!
//! Penalties are ours: llama.cpp's look every token of the vocabulary up in a hash map, about a hundredth of a small model's time by its profile; here only the tokens that were written are touched.

use groundtone_provider::Sampling;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use std::collections::VecDeque;

/// Penalties look at so many tokens back.
const PENALTY_WINDOW: usize = 256;
/// Without penalties of its own, a request is kept from repeating itself a little: small models loop under greedy decoding.
const REPEAT_PENALTY: f32 = 1.02;

/// Chooses the tokens of one answer: greedily at temperature 0 (and without one), else by nucleus sampling with the request's seed.
pub(super) struct Sampler {
    penalties: Penalties,
    /// Draws; none is greedy.
    draw: Option<LlamaSampler>,
    /// The logits with penalties.
    logits: Vec<f32>,
}

impl Sampler {
    pub(super) fn new(sampling: &Sampling) -> Self {
        let draw = sampling.temperature.filter(|&temperature| temperature > 0.0).map(|temperature| {
            // llama.cpp has seeds of 32 bits; without one each answer draws anew.
            let seed = sampling.seed.map_or_else(
                || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.subsec_nanos()),
                |seed| (seed ^ (seed >> 32)) as u32,
            );
            let top_p = LlamaSampler::top_p(sampling.top_p.unwrap_or(1.0), 1);
            LlamaSampler::chain_simple([top_p, LlamaSampler::temp(temperature), LlamaSampler::dist(seed)])
        });
        Self { penalties: Penalties::new(sampling), draw, logits: Vec::new() }
    }

    /// Chooses after `logits`, one for each token of the vocabulary, and remembers the choice.
    pub(super) fn choose(&mut self, logits: &[f32]) -> LlamaToken {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.penalties.apply(&mut self.logits);
        let token = match &mut self.draw {
            None => most_likely(&self.logits),
            Some(draw) => {
                let candidates = (0..).zip(&self.logits).map(|(token, &logit)| LlamaTokenData::new(LlamaToken(token), logit, 0.0));
                let drawn = LlamaTokenDataArray::from_iter(candidates, false).with_sampler(draw).selected_token();
                drawn.unwrap_or_else(|| most_likely(&self.logits))
            }
        };
        self.penalties.remember(token);
        token
    }
}

/// The first of the largest.
fn most_likely(logits: &[f32]) -> LlamaToken {
    let (mut best, mut largest) = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit > largest {
            (best, largest) = (token, logit);
        }
    }
    LlamaToken(best)
}

/// OpenAI's frequency and presence penalties, and CTRL's repetition penalty (<https://arxiv.org/abs/1909.05858>), as llama.cpp applies them.
struct Penalties {
    repeat: f32,
    frequency: f32,
    presence: f32,
    /// The last tokens, oldest first.
    window: VecDeque<LlamaToken>,
    /// How often each token is in the window.
    counts: Vec<(LlamaToken, u32)>,
}

impl Penalties {
    fn new(sampling: &Sampling) -> Self {
        let (frequency, presence) = (sampling.frequency_penalty.unwrap_or(0.0), sampling.presence_penalty.unwrap_or(0.0));
        let repeat = if frequency == 0.0 && presence == 0.0 { REPEAT_PENALTY } else { 1.0 };
        Self { repeat, frequency, presence, window: VecDeque::new(), counts: Vec::new() }
    }

    fn apply(&self, logits: &mut [f32]) {
        for &(token, count) in &self.counts {
            let Some(logit) = usize::try_from(token.0).ok().and_then(|at| logits.get_mut(at)) else { continue };
            // Division would make tokens with negative logits more likely.
            if *logit <= 0.0 {
                *logit *= self.repeat;
            } else {
                *logit /= self.repeat;
            }
            *logit -= count as f32 * self.frequency + self.presence;
        }
    }

    fn remember(&mut self, token: LlamaToken) {
        if self.window.len() == PENALTY_WINDOW
            && let Some(oldest) = self.window.pop_front()
            && let Some(at) = self.counts.iter().position(|(counted, _)| *counted == oldest)
        {
            self.counts[at].1 -= 1;
            if self.counts[at].1 == 0 {
                self.counts.swap_remove(at);
            }
        }
        self.window.push_back(token);
        match self.counts.iter_mut().find(|(counted, _)| *counted == token) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((token, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What llama.cpp's own chain chooses after the same logits.
    fn llama_cpp(sampling: &Sampling, vocabulary: i32) -> LlamaSampler {
        let penalties = Penalties::new(sampling);
        let first = LlamaSampler::penalties(vocabulary, PENALTY_WINDOW as i32, penalties.repeat, penalties.frequency, penalties.presence);
        match sampling.temperature {
            Some(temperature) => LlamaSampler::chain_simple([
                first,
                LlamaSampler::top_p(sampling.top_p.unwrap(), 1),
                LlamaSampler::temp(temperature),
                LlamaSampler::dist(u32::try_from(sampling.seed.unwrap()).unwrap()),
            ]),
            None => LlamaSampler::chain_simple([first, LlamaSampler::greedy()]),
        }
    }

    #[test]
    fn tokens_are_those_of_llama_cpps_own_samplers() {
        const VOCABULARY: i32 = 40;
        let greedy = Sampling::default();
        let penalized = Sampling { frequency_penalty: Some(0.3), presence_penalty: Some(-0.2), ..Sampling::default() };
        let drawn = |sampling: &Sampling| Sampling { temperature: Some(0.8), top_p: Some(0.9), seed: Some(7), ..sampling.clone() };
        for sampling in [greedy.clone(), penalized.clone(), drawn(&greedy), drawn(&penalized)] {
            let (mut ours, mut theirs) = (Sampler::new(&sampling), llama_cpp(&sampling, VOCABULARY));
            let mut seen = std::collections::BTreeSet::new();
            // More than the window is long, and few tokens, so that each comes often and leaves it again.
            for step in 0..900u32 {
                let logit = |token: i32| ((token as u32 * 2_654_435_761 + step * 40_503) % 1_000) as f32 / 400.0 - 1.0;
                let logits: Vec<f32> = (0..VOCABULARY).map(logit).collect();
                let candidates = (0..).zip(&logits).map(|(token, &logit)| LlamaTokenData::new(LlamaToken(token), logit, 0.0));
                let wanted = LlamaTokenDataArray::from_iter(candidates, false).with_sampler(&mut theirs).selected_token().unwrap();
                theirs.accept(wanted);
                let chosen = ours.choose(&logits);
                assert_eq!(chosen, wanted, "step {step} of {sampling:?}");
                seen.insert(chosen);
            }
            assert!(seen.len() > 10, "{seen:?}");
        }
    }

    #[test]
    fn equal_and_missing_logits_have_a_first_token() {
        assert_eq!(most_likely(&[1.0, 3.0, 3.0, f32::NAN]), LlamaToken(1));
        assert_eq!(most_likely(&[f32::NAN, f32::NEG_INFINITY]), LlamaToken(0));
    }
}
