//! Matrices as slices, row by row. Everything is `f32`; sums are always taken in the same order, so the same input gives the same bits.

use crate::TrainError;
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_simd::SimdUnaryOp;
use rten_tensor::NdTensorView;
use rten_tensor::prelude::*;
use rten_vecmath::Sigmoid;

/// Rows that one thread takes at a time.
const ROWS: usize = 32;

/// A matrix that is read.
pub(super) type View<'a> = NdTensorView<'a, f32, 2>;

/// `values` as a matrix of so many columns.
pub(super) fn view(values: &[f32], columns: usize) -> View<'_> {
    NdTensorView::from_data([values.len() / columns, columns], values)
}

/// The same, turned.
pub(super) fn turned(values: &[f32], columns: usize) -> View<'_> {
    view(values, columns).transposed()
}

/// The multiplication of matrices.
pub(super) struct Products(GemmExecutor<f32, f32, f32>);

impl Products {
    pub(super) fn new() -> Self {
        Self(GemmExecutor::new())
    }

    /// `out = scale · left · right + keep · out`
    pub(super) fn add(&self, out: &mut [f32], keep: f32, scale: f32, left: View<'_>, right: View<'_>) -> Result<(), TrainError> {
        let options = GemmOptions { alpha: scale, beta: keep, ..GemmOptions::default() };
        let done = self.0.gemm(out, GemmInputA::Unpacked(left), GemmInputB::Unpacked(right), options);
        done.map_err(|error| TrainError::Compute(error.to_string()))
    }

    /// `left · right`
    pub(super) fn product(&self, left: View<'_>, right: View<'_>) -> Result<Vec<f32>, TrainError> {
        let mut out = vec![0.0; left.size(0) * right.size(1)];
        self.add(&mut out, 0.0, 1.0, left, right)?;
        Ok(out)
    }
}

/// `out += addend`
pub(super) fn add(out: &mut [f32], addend: &[f32]) {
    out.par_chunks_mut(1 << 14).zip(addend.par_chunks(1 << 14)).for_each(|(out, addend)| {
        out.iter_mut().zip(addend).for_each(|(out, addend)| *out += addend);
    });
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    // Eight sums side by side, so that the compiler can use vectors.
    let mut sums = [0.0f32; 8];
    let (left, right) = (left.chunks_exact(8), right.chunks_exact(8));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left.zip(right) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Each row by its root mean square, times `weight`.
pub(super) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(width * ROWS).zip(x.par_chunks(width * ROWS)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let inverse = (dot(x, x) / width as f32 + epsilon).sqrt().recip();
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * inverse * weight;
            }
        }
    });
    out
}

/// Adds to `dx` what [`rms_norm`] of `x` passes back from `dy`; `dy` is used up.
pub(super) fn rms_norm_back(dx: &mut [f32], mut dy: Vec<f32>, x: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    let chunks = dx.par_chunks_mut(width * ROWS).zip(dy.par_chunks_mut(width * ROWS)).zip(x.par_chunks(width * ROWS));
    chunks.for_each(|((dx, dy), x)| {
        for ((dx, dy), x) in dx.chunks_exact_mut(width).zip(dy.chunks_exact_mut(width)).zip(x.chunks_exact(width)) {
            let inverse = (dot(x, x) / width as f32 + epsilon).sqrt().recip();
            dy.iter_mut().zip(weight).for_each(|(dy, weight)| *dy *= weight);
            let along = dot(dy, x) * inverse * inverse * inverse / width as f32;
            for ((dx, dy), x) in dx.iter_mut().zip(dy.iter()).zip(x) {
                *dx += dy * inverse - x * along;
            }
        }
    });
}

/// `gate · sigmoid(gate) · up`
pub(super) fn gated(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = gate.to_vec();
    out.par_chunks_mut(1 << 13).zip(gate.par_chunks(1 << 13)).zip(up.par_chunks(1 << 13)).for_each(|((out, gate), up)| {
        Sigmoid {}.map_mut(out);
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out *= gate * up;
        }
    });
    out
}

/// What [`gated`] passes back from `dz`: `gate` and `up` become their own gradients.
pub(super) fn gated_back(gate: &mut [f32], up: &mut [f32], mut dz: Vec<f32>) {
    let chunks = gate.par_chunks_mut(1 << 13).zip(up.par_chunks_mut(1 << 13)).zip(dz.par_chunks_mut(1 << 13));
    chunks.for_each(|((gate, up), dz)| {
        let mut sigmoid = gate.to_vec();
        Sigmoid {}.map_mut(&mut sigmoid);
        for (((gate, up), dz), sigmoid) in gate.iter_mut().zip(up.iter_mut()).zip(dz.iter_mut()).zip(&sigmoid) {
            let (g, u) = (*gate, *up);
            *gate = *dz * u * sigmoid * (1.0 + g * (1.0 - sigmoid));
            *up = *dz * g * sigmoid;
        }
    });
}

/// Angles of the rotary position embedding, for pairs of neighbours (the layout of llama's GGUF files).
pub(super) struct Rotary {
    /// Cosine and sine for each position and pair.
    turns: Vec<(f32, f32)>,
    pairs: usize,
}

impl Rotary {
    /// For so many positions and heads of so many numbers; `factors` divide the frequencies.
    pub(super) fn new(positions: usize, head: usize, base: f64, factors: Option<&[f32]>) -> Self {
        let pairs = head / 2;
        let frequency = |pair: usize| base.powf(-2.0 * pair as f64 / head as f64) / factors.map_or(1.0, |factors| f64::from(factors[pair]));
        let frequencies: Vec<f64> = (0..pairs).map(frequency).collect();
        let turn = |position: usize, frequency: f64| {
            let (sine, cosine) = (position as f64 * frequency).sin_cos();
            (cosine as f32, sine as f32)
        };
        let turns = (0..positions).flat_map(|position| frequencies.iter().map(move |&frequency| turn(position, frequency))).collect();
        Self { turns, pairs }
    }

    /// Turns every head of every row to its position; backward with `direction` -1.
    pub(super) fn turn(&self, rows: &mut [f32], width: usize, positions: &[usize], direction: f32) {
        rows.par_chunks_mut(width * ROWS).zip(positions.par_chunks(ROWS)).for_each(|(rows, positions)| {
            for (row, position) in rows.chunks_exact_mut(width).zip(positions) {
                let turns = &self.turns[position * self.pairs..(position + 1) * self.pairs];
                for head in row.chunks_exact_mut(self.pairs * 2) {
                    for (pair, (cosine, sine)) in head.chunks_exact_mut(2).zip(turns) {
                        let (a, b, sine) = (pair[0], pair[1], sine * direction);
                        pair[0] = a * cosine - b * sine;
                        pair[1] = a * sine + b * cosine;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(out: &[f32], by: &[f32]) -> f64 {
        out.iter().zip(by).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    /// The slope of `f` at `x` along `direction`, by a symmetric difference.
    fn slope(f: impl Fn(&[f32]) -> f64, x: &[f32], direction: &[f32]) -> f64 {
        let step = 1e-2;
        let moved = |by: f32| x.iter().zip(direction).map(|(x, d)| x + by * d).collect::<Vec<f32>>();
        (f(&moved(step)) - f(&moved(-step))) / f64::from(2.0 * step)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 2e-2 * (1.0 + a.abs().max(b.abs()))
    }

    proptest! {
        #[test]
        fn gradients_are_slopes(values in prop::collection::vec(-1.5f32..1.5, 5 * 24)) {
            let (x, weight, by, direction, up) = (&values[..24], &values[24..32], &values[48..72], &values[72..96], &values[96..120]);
            let mut dx = vec![0.0; 24];
            rms_norm_back(&mut dx, by.to_vec(), x, weight, 0.1);
            prop_assert!(close(sum(&dx, direction), slope(|x| sum(&rms_norm(x, weight, 0.1), by), x, direction)));
            let (mut dgate, mut dup) = (x.to_vec(), up.to_vec());
            gated_back(&mut dgate, &mut dup, by.to_vec());
            prop_assert!(close(sum(&dgate, direction), slope(|x| sum(&gated(x, up), by), x, direction)));
            prop_assert!(close(sum(&dup, direction), slope(|up| sum(&gated(x, up), by), up, direction)));
        }

        #[test]
        fn a_turn_back_undoes_a_turn(values in prop::collection::vec(-2f32..2.0, 3 * 16)) {
            let rotary = Rotary::new(40, 8, 10_000.0, None);
            let mut rows = values.clone();
            rotary.turn(&mut rows, 16, &[0, 1, 39], 1.0);
            prop_assert_eq!(&rows[..16], &values[..16]);
            rotary.turn(&mut rows, 16, &[0, 1, 39], -1.0);
            prop_assert!(rows.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
