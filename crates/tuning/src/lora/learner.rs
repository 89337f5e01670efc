//! What one step learns from its rows.

use super::adapter::Layout;
use super::head::Target;
use super::network::{Adapted, Batch, Network};
use super::rows::Row;
use crate::{Method, TrainError};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Tokens that are computed at once. Longer steps are computed in parts whose gradients add up; a single longer row is a part of its own.
const TOGETHER: usize = 1024;

/// Sums over rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Measured {
    /// For chats the sum over answer tokens of the negative logarithm of their probability, for preferences the sum of the rows' losses.
    pub(super) loss: f64,
    /// Answer tokens that are the most likely ones, or rows whose preferred answer has the higher reward.
    pub(super) right: f64,
    /// Answer tokens, or rows.
    pub(super) count: f64,
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.right += other.right;
        self.count += other.count;
    }

    pub(super) fn mean_loss(&self) -> f64 {
        self.loss / self.count.max(1.0)
    }

    pub(super) fn accuracy(&self) -> f64 {
        self.right / self.count.max(1.0)
    }
}

/// The network and what is learned with it.
pub(super) struct Learner {
    pub(super) network: Network,
    pub(super) layout: Layout,
    pub(super) method: Method,
    pub(super) dropout: f64,
    /// What the base model says about the answers of a row of preferences, by the row's place in memory of its file.
    reference: Mutex<HashMap<RowId, [f64; 2]>>,
}

/// A row of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RowId {
    pub(super) validation: bool,
    pub(super) at: usize,
}

/// Rows that are computed together.
struct Part {
    batch: Batch,
    targets: Vec<Target>,
    rows: Vec<RowId>,
}

impl Learner {
    pub(super) fn new(network: Network, layout: Layout, method: Method, dropout: f64) -> Self {
        Self { network, layout, method, dropout, reference: Mutex::default() }
    }

    /// Losses of rows, without learning.
    pub(super) fn measure(&self, values: &[f32], rows: &[(RowId, &Row)]) -> Result<Measured, TrainError> {
        let adapted = Adapted { layout: &self.layout, values, dropout: None };
        let mut measured = Measured::default();
        for part in parts(rows) {
            let passed = self.network.forward(&part.batch, Some(adapted), false)?;
            let judged = self.network.judge(&passed.states, &part.targets, None)?;
            let (sum, _) = self.losses(&part, &judged.likelihoods, &judged.first)?;
            measured.add(sum);
        }
        Ok(measured)
    }

    /// Losses of a step's rows, and the gradient of their mean.
    pub(super) fn learn(&self, values: &[f32], rows: &[(RowId, &Row)], seed: u64) -> Result<(Measured, Vec<f32>), TrainError> {
        let parts = parts(rows);
        let count = match self.method {
            Method::Supervised => parts.iter().map(|part| part.targets.len()).sum::<usize>(),
            Method::Dpo { .. } => rows.len(),
        };
        let mut gradients = vec![0.0; self.layout.parameters];
        let mut measured = Measured::default();
        for (at, part) in parts.into_iter().enumerate() {
            let dropout = (self.dropout > 0.0).then_some((self.dropout, seed.wrapping_add(at as u64)));
            let adapted = Adapted { layout: &self.layout, values, dropout };
            let passed = self.network.forward(&part.batch, Some(adapted), true)?;
            let share = 1.0 / count as f32;
            let (judged, sum) = match self.method {
                Method::Supervised => {
                    let judged = self.network.judge(&passed.states, &part.targets, Some(&vec![share; part.targets.len()]))?;
                    let (sum, _) = self.losses(&part, &judged.likelihoods, &judged.first)?;
                    (judged, sum)
                }
                Method::Dpo { .. } => {
                    let first = self.network.judge(&passed.states, &part.targets, None)?;
                    let (sum, pulls) = self.losses(&part, &first.likelihoods, &first.first)?;
                    let weights: Vec<f32> = part.targets.iter().map(|target| pulls[target.row] as f32 * share).collect();
                    (self.network.judge(&passed.states, &part.targets, Some(&weights))?, sum)
                }
            };
            measured.add(sum);
            self.network.backward(&part.batch, adapted, passed, judged.slope, &mut gradients)?;
        }
        Ok((measured, gradients))
    }

    /// Losses from likelihoods; for preferences also how strongly each sequence is pulled up (its loss falls by so much for each unit of likelihood).
    fn losses(&self, part: &Part, likelihoods: &[f64], first: &[bool]) -> Result<(Measured, Vec<f64>), TrainError> {
        let Method::Dpo { beta } = self.method else {
            let right = first.iter().filter(|first| **first).count() as f64;
            return Ok((Measured { loss: -likelihoods.iter().sum::<f64>(), right, count: likelihoods.len() as f64 }, Vec::new()));
        };
        let sums = by_sequence(part, likelihoods);
        let reference = self.reference_of(part)?;
        let (mut measured, mut pulls) = (Measured::default(), Vec::new());
        for (pair, reference) in sums.chunks_exact(2).zip(reference) {
            let margin = beta * ((pair[0] - reference[0]) - (pair[1] - reference[1]));
            measured.add(Measured { loss: (-margin).exp().ln_1p(), right: f64::from(u8::from(margin > 0.0)), count: 1.0 });
            let pull = beta / (1.0 + margin.exp());
            pulls.extend([pull, -pull]);
        }
        Ok((measured, pulls))
    }

    /// Likelihoods of each row's two answers by the base model alone; computed once for each row.
    fn reference_of(&self, part: &Part) -> Result<Vec<[f64; 2]>, TrainError> {
        let known = |rows: &[RowId]| {
            let reference = self.reference.lock().unwrap_or_else(PoisonError::into_inner);
            rows.iter().map(|row| reference.get(row).copied()).collect::<Option<Vec<_>>>()
        };
        if let Some(found) = known(&part.rows) {
            return Ok(found);
        }
        let passed = self.network.forward(&part.batch, None, false)?;
        let sums = by_sequence(part, &self.network.judge(&passed.states, &part.targets, None)?.likelihoods);
        let pairs: Vec<[f64; 2]> = sums.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        self.reference.lock().unwrap_or_else(PoisonError::into_inner).extend(part.rows.iter().copied().zip(pairs.iter().copied()));
        Ok(pairs)
    }
}

/// Sums of likelihoods, one for each sequence of a part.
fn by_sequence(part: &Part, likelihoods: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; part.batch.sequences.len()];
    part.targets.iter().zip(likelihoods).for_each(|(target, likelihood)| sums[target.row] += likelihood);
    sums
}

/// Rows one behind the other, without padding, up to [`TOGETHER`] tokens at once. A row is never divided.
fn parts(rows: &[(RowId, &Row)]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (id, row) in rows {
        let full = parts.last().is_none_or(|part| part.batch.tokens.len() + row.tokens() > TOGETHER);
        if full {
            parts.push(Part { batch: Batch::default(), targets: Vec::new(), rows: Vec::new() });
        }
        let Some(part) = parts.last_mut() else { continue };
        part.rows.push(*id);
        for sequence in &row.0 {
            // The last token is only predicted, never read.
            let start = part.batch.push(&sequence.tokens[..sequence.tokens.len() - 1]);
            let number = part.batch.sequences.len() - 1;
            let places = sequence.answers.iter().cloned().flatten().filter(|&place| place > 0);
            part.targets.extend(places.map(|place| Target { place: start + place - 1, token: sequence.tokens[place], row: number }));
        }
    }
    parts
}
