//! AdamW (Loshchilov and Hutter 2019), with a learning rate that rises and then falls along a cosine.

use crate::Hyperparameters;
use rayon::prelude::*;

const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;
const PART: usize = 1 << 14;

/// The adapter's numbers and what the optimizer remembers of their gradients.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Optimizer {
    pub(super) values: Vec<f32>,
    pub(super) first_moments: Vec<f32>,
    pub(super) second_moments: Vec<f32>,
    /// Steps done.
    pub(super) step: u64,
}

/// Steps of one training, and how fast each is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Schedule {
    pub(super) steps: u64,
    warmup: u64,
    pub(super) highest: f64,
}

impl Schedule {
    pub(super) fn new(steps: u64, highest: f64, warmup_ratio: f64) -> Self {
        Self { steps, warmup: (steps as f64 * warmup_ratio).ceil() as u64, highest }
    }

    /// The rate of step `step`, from 1.
    pub(super) fn rate(&self, step: u64) -> f64 {
        if step <= self.warmup {
            return self.highest * step as f64 / self.warmup as f64;
        }
        let through = (step - self.warmup) as f64 / (self.steps - self.warmup + 1) as f64;
        self.highest * 0.5 * (1.0 + (std::f64::consts::PI * through).cos())
    }
}

impl Optimizer {
    pub(super) fn new(values: Vec<f32>) -> Self {
        let zero = vec![0.0; values.len()];
        Self { values, first_moments: zero.clone(), second_moments: zero, step: 0 }
    }

    /// One step along `gradients`; answers their length before it was clipped.
    pub(super) fn step(&mut self, gradients: &[f32], rate: f64, hyperparameters: &Hyperparameters) -> f64 {
        // Parts of a fixed size, added in order: the same sum on any number of threads.
        let squares: Vec<f64> = gradients.par_chunks(PART).map(|part| part.iter().map(|g| f64::from(*g).powi(2)).sum()).collect();
        let norm = squares.iter().sum::<f64>().sqrt();
        let most = hyperparameters.max_gradient_norm;
        // As PyTorch's clip_grad_norm_ has it.
        let clip = if most > 0.0 { (most / (norm + 1e-6)).min(1.0) as f32 } else { 1.0 };
        self.step += 1;
        let count = self.step as i32;
        let (first, second) = (1.0 - BETAS.0.powi(count), 1.0 - BETAS.1.powi(count));
        let decay = (1.0 - rate * hyperparameters.weight_decay) as f32;
        let (size, root, epsilon) = ((rate / first) as f32, second.sqrt() as f32, EPSILON as f32);
        let (b1, b2) = (BETAS.0 as f32, BETAS.1 as f32);
        let moments = self.first_moments.par_chunks_mut(PART).zip(self.second_moments.par_chunks_mut(PART));
        self.values.par_chunks_mut(PART).zip(moments).zip(gradients.par_chunks(PART)).for_each(|((values, (m, v)), gradients)| {
            for (((value, m), v), gradient) in values.iter_mut().zip(m).zip(v).zip(gradients) {
                let gradient = gradient * clip;
                *m = b1 * *m + (1.0 - b1) * gradient;
                *v = b2 * *v + (1.0 - b2) * gradient * gradient;
                *value = *value * decay - size * *m / (v.sqrt() / root + epsilon);
            }
        });
        norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let schedule = Schedule::new(100, 2.0, 0.05);
        assert!((schedule.rate(1) - 0.4).abs() < 1e-12 && (schedule.rate(5) - 2.0).abs() < 1e-12);
        let rates: Vec<f64> = (5..=100).map(|step| schedule.rate(step)).collect();
        assert!(rates.windows(2).all(|pair| pair[1] < pair[0]) && rates[95] > 0.0 && rates[95] < 0.01, "{rates:?}");
        assert!(Schedule::new(1, 2.0, 0.0).rate(1) > 0.9);
    }

    #[test]
    fn a_bowl_is_descended() {
        let hyperparameters = Hyperparameters { weight_decay: 0.0, ..Hyperparameters::default() };
        let mut optimizer = Optimizer::new(vec![3.0, -2.0]);
        for _ in 0..300 {
            let gradients: Vec<f32> = optimizer.values.iter().zip([1.0, 0.5]).map(|(x, least)| x - least).collect();
            optimizer.step(&gradients, 0.05, &hyperparameters);
        }
        assert!(optimizer.values.iter().zip([1.0, 0.5]).all(|(x, least)| (x - least).abs() < 0.02), "{:?}", optimizer.values);
    }
}
