//! From states to losses: logits are computed where there is something to learn, and nowhere else.

use super::math::{rms_norm, rms_norm_back, turned, view};
use super::network::Network;
use crate::TrainError;
use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::Softmax;

/// Logits of so many places are in memory at once.
const PLACES: usize = 256;

/// A token that follows a place of the batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Target {
    /// The place whose state predicts it.
    pub(super) place: usize,
    pub(super) token: u32,
    /// The row of the batch it belongs to.
    pub(super) row: usize,
}

/// What the model says about targets.
pub(super) struct Judged {
    /// The logarithm of each target's probability.
    pub(super) likelihoods: Vec<f64>,
    /// Whether it is the most likely token.
    pub(super) first: Vec<bool>,
    /// The gradient of the states, if weights were given.
    pub(super) slope: Vec<f32>,
}

impl Network {
    /// Likelihoods of targets. With `weights`, also the gradient of `- Σ weight · likelihood`.
    pub(super) fn judge(&self, states: &[f32], targets: &[Target], weights: Option<&[f32]>) -> Result<Judged, TrainError> {
        let (width, epsilon) = (self.base.shape.width, self.base.shape.epsilon);
        let (output, vocabulary) = (self.base.output(), self.base.shape.vocabulary);
        let mut judged = Judged {
            likelihoods: Vec::with_capacity(targets.len()),
            first: Vec::with_capacity(targets.len()),
            slope: vec![0.0; if weights.is_some() { states.len() } else { 0 }],
        };
        for (at, targets) in targets.chunks(PLACES).enumerate() {
            let rows: Vec<f32> =
                targets.iter().flat_map(|target| &states[target.place * width..(target.place + 1) * width]).copied().collect();
            let normed = rms_norm(&rows, &self.base.norm, epsilon);
            let mut logits = self.products.product(view(&normed, width), turned(output, width))?;
            let found: Vec<(f64, bool)> = logits
                .par_chunks_mut(vocabulary)
                .zip(targets)
                .map(|(logits, target)| {
                    let own = logits[target.token as usize];
                    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    Softmax::new_mut(logits).dispatch();
                    // The most likely token's own probability tells what all others were divided by, without a second pass of exponentials.
                    let sum = logits.iter().copied().fold(0.0f32, f32::max);
                    (f64::from(own - most) + f64::from(sum).ln(), own >= most)
                })
                .collect();
            for (likelihood, first) in found {
                judged.likelihoods.push(likelihood);
                judged.first.push(first);
            }
            let Some(weights) = weights else { continue };
            let weights = &weights[at * PLACES..at * PLACES + targets.len()];
            logits.par_chunks_mut(vocabulary).zip(targets).zip(weights).for_each(|((slopes, target), weight)| {
                slopes[target.token as usize] -= 1.0;
                slopes.iter_mut().for_each(|slope| *slope *= weight);
            });
            let dnormed = self.products.product(view(&logits, vocabulary), view(output, width))?;
            drop(logits);
            let mut drows = vec![0.0; rows.len()];
            rms_norm_back(&mut drows, dnormed, &rows, &self.base.norm, epsilon);
            for (target, drow) in targets.iter().zip(drows.chunks_exact(width)) {
                let slope = &mut judged.slope[target.place * width..(target.place + 1) * width];
                slope.iter_mut().zip(drow).for_each(|(slope, drow)| *slope += drow);
            }
        }
        Ok(judged)
    }
}
