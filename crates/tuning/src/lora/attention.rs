//! Causal attention, forward and backward, in tiles of queries: a query never sees what comes after it, so a tile's keys end where the tile does.

use super::base::Shape;
use super::math::{Products, turned, view};
use crate::TrainError;
use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::Softmax;

/// Queries of a tile.
const TILE: usize = 96;

/// A head of one sequence.
#[derive(Clone, Copy)]
struct Task {
    start: usize,
    length: usize,
    head: usize,
}

/// Queries, keys and values of every sequence, a token's heads side by side in a row.
pub(super) struct Attention<'a> {
    pub(super) shape: &'a Shape,
    pub(super) products: &'a Products,
    /// Start and length of each sequence.
    pub(super) sequences: &'a [(usize, usize)],
    pub(super) queries: &'a [f32],
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
}

/// Gradients, in the shape of what they belong to.
pub(super) struct Gradients {
    pub(super) queries: Vec<f32>,
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
}

impl Attention<'_> {
    fn tasks(&self) -> Vec<Task> {
        let heads = self.shape.heads;
        self.sequences.iter().flat_map(|&(start, length)| (0..heads).map(move |head| Task { start, length, head })).collect()
    }

    /// A head's numbers of a sequence, side by side.
    fn gather(&self, rows: &[f32], heads: usize, head: usize, task: Task) -> Vec<f32> {
        let (size, width) = (self.shape.head, heads * self.shape.head);
        let rows = rows[task.start * width..(task.start + task.length) * width].chunks_exact(width);
        rows.flat_map(|row| &row[head * size..(head + 1) * size]).copied().collect()
    }

    fn heads_of(&self, task: Task) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let kv = task.head / (self.shape.heads / self.shape.kv_heads);
        (
            self.gather(self.queries, self.shape.heads, task.head, task),
            self.gather(self.keys, self.shape.kv_heads, kv, task),
            self.gather(self.values, self.shape.kv_heads, kv, task),
        )
    }

    /// The weights of queries `from..to`: each row sums to one and is zero after its own position.
    fn weights(&self, queries: &[f32], keys: &[f32], from: usize, to: usize) -> Result<Vec<f32>, TrainError> {
        let size = self.shape.head;
        let scale = (size as f32).sqrt().recip();
        let mut weights = vec![0.0; (to - from) * to];
        let (queries, keys) = (view(&queries[from * size..to * size], size), turned(&keys[..to * size], size));
        self.products.add(&mut weights, 0.0, scale, queries, keys)?;
        for (at, row) in weights.chunks_exact_mut(to).enumerate() {
            let (seen, hidden) = row.split_at_mut(from + at + 1);
            Softmax::new_mut(seen).dispatch();
            hidden.fill(0.0);
        }
        Ok(weights)
    }

    /// Adds up heads' results into rows of so many heads.
    fn scatter(&self, tasks: &[Task], parts: &[Vec<f32>], out: &mut [f32], heads: usize) {
        let (size, width) = (self.shape.head, heads * self.shape.head);
        let each = self.shape.heads / heads;
        for (task, part) in tasks.iter().zip(parts) {
            let head = task.head / each;
            for (at, values) in part.chunks_exact(size).enumerate() {
                let begin = (task.start + at) * width + head * size;
                out[begin..begin + size].iter_mut().zip(values).for_each(|(out, value)| *out += value);
            }
        }
    }

    /// What every head reads, in the shape of the queries.
    pub(super) fn forward(&self) -> Result<Vec<f32>, TrainError> {
        let (tasks, size) = (self.tasks(), self.shape.head);
        let one = |task: &Task| {
            let (queries, keys, values) = self.heads_of(*task);
            let mut out = vec![0.0; task.length * size];
            for from in (0..task.length).step_by(TILE) {
                let to = (from + TILE).min(task.length);
                let weights = self.weights(&queries, &keys, from, to)?;
                self.products.add(&mut out[from * size..to * size], 0.0, 1.0, view(&weights, to), view(&values[..to * size], size))?;
            }
            Ok(out)
        };
        let parts = tasks.par_iter().map(one).collect::<Result<Vec<_>, TrainError>>()?;
        let mut out = vec![0.0; self.queries.len()];
        self.scatter(&tasks, &parts, &mut out, self.shape.heads);
        Ok(out)
    }

    /// Gradients of queries, keys and values, from those of what the heads read.
    pub(super) fn backward(&self, gradient: &[f32]) -> Result<Gradients, TrainError> {
        let tasks = self.tasks();
        let parts = tasks.par_iter().map(|task| self.backward_of(*task, gradient)).collect::<Result<Vec<_>, TrainError>>()?;
        let (mut queries, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            queries.push(part.queries);
            keys.push(part.keys);
            values.push(part.values);
        }
        let mut out =
            Gradients { queries: vec![0.0; self.queries.len()], keys: vec![0.0; self.keys.len()], values: vec![0.0; self.values.len()] };
        self.scatter(&tasks, &queries, &mut out.queries, self.shape.heads);
        self.scatter(&tasks, &keys, &mut out.keys, self.shape.kv_heads);
        self.scatter(&tasks, &values, &mut out.values, self.shape.kv_heads);
        Ok(out)
    }

    fn backward_of(&self, task: Task, gradient: &[f32]) -> Result<Gradients, TrainError> {
        let size = self.shape.head;
        let scale = (size as f32).sqrt().recip();
        let (queries, keys, values) = self.heads_of(task);
        let gradient = self.gather(gradient, self.shape.heads, task.head, task);
        let (mut dq, mut dk, mut dv) = (vec![0.0; queries.len()], vec![0.0; keys.len()], vec![0.0; values.len()]);
        for from in (0..task.length).step_by(TILE) {
            let to = (from + TILE).min(task.length);
            let (tile, seen) = (from * size..to * size, ..to * size);
            let weights = self.weights(&queries, &keys, from, to)?;
            self.products.add(&mut dv[seen], 1.0, 1.0, turned(&weights, to), view(&gradient[tile.clone()], size))?;
            let mut slopes = self.products.product(view(&gradient[tile.clone()], size), turned(&values[seen], size))?;
            for (slopes, weights) in slopes.chunks_exact_mut(to).zip(weights.chunks_exact(to)) {
                let mean: f32 = slopes.iter().zip(weights).map(|(slope, weight)| slope * weight).sum();
                slopes.iter_mut().zip(weights).for_each(|(slope, weight)| *slope = weight * (*slope - mean));
            }
            self.products.add(&mut dq[tile.clone()], 0.0, scale, view(&slopes, to), view(&keys[seen], size))?;
            self.products.add(&mut dk[seen], 1.0, scale, turned(&slopes, to), view(&queries[tile], size))?;
        }
        Ok(Gradients { queries: dq, keys: dk, values: dv })
    }
}
