//! The model with its adapter, forward and backward.
//!
//! The backward pass is written out: what is frozen gets no gradient, and nothing below the lowest trained layer is visited.
//! Rows of a batch lie one behind the other without padding; only attention knows where one ends.

use super::adapter::{Layout, Place};
use super::attention::Attention;
use super::base::Base;
use super::math::{Products, Rotary, add, gated, gated_back, rms_norm, rms_norm_back, turned, view};
use crate::{TargetModule, TrainError};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Rows of tokens, one behind the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) tokens: Vec<u32>,
    /// Each token's place in its row.
    pub(super) positions: Vec<usize>,
    /// Start and length of each row.
    pub(super) sequences: Vec<(usize, usize)>,
}

impl Batch {
    pub(super) fn push(&mut self, tokens: &[u32]) -> usize {
        let start = self.tokens.len();
        self.sequences.push((start, tokens.len()));
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(0..tokens.len());
        start
    }
}

/// The adapter while it is trained.
#[derive(Clone, Copy)]
pub(super) struct Adapted<'a> {
    pub(super) layout: &'a Layout,
    pub(super) values: &'a [f32],
    /// Share of inputs that are dropped, and the seed of this batch.
    pub(super) dropout: Option<(f64, u64)>,
}

/// The base model and what it computes with.
pub(super) struct Network {
    pub(super) base: Base,
    pub(super) products: Products,
    rotary: Rotary,
}

/// What the backward pass of a layer needs; the rest is computed again.
struct Kept {
    x: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    read: Vec<f32>,
    middle: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// Inputs times A, for each module with a pair.
    narrow: [Vec<f32>; 7],
}

/// What a forward pass leaves.
pub(super) struct Passed {
    /// The last layer's output.
    pub(super) states: Vec<f32>,
    kept: Vec<Option<Kept>>,
}

use TargetModule::{DownProj, GateProj, KProj, OProj, QProj, UpProj, VProj};

impl Network {
    pub(super) fn new(base: Base, positions: usize) -> Self {
        let rotary = base.rotary(positions);
        Self { base, products: Products::new(), rotary }
    }

    fn epsilon(&self) -> f32 {
        self.base.shape.epsilon
    }

    /// Runs a batch through all layers. With `keep` the result can be passed back.
    pub(super) fn forward(&self, batch: &Batch, adapted: Option<Adapted<'_>>, keep: bool) -> Result<Passed, TrainError> {
        let width = self.base.shape.width;
        let mut x: Vec<f32> = Vec::with_capacity(batch.tokens.len() * width);
        for &token in &batch.tokens {
            let row = self.base.embedding.get(token as usize * width..(token as usize + 1) * width);
            x.extend_from_slice(row.ok_or_else(|| TrainError::Compute(format!("token {token} is not in the model's vocabulary")))?);
        }
        let lowest = adapted.map_or(usize::MAX, |adapted| adapted.layout.lowest());
        let mut kept = Vec::new();
        for at in 0..self.base.shape.layers {
            let (out, layer) = self.layer(at, x, batch, adapted, keep && at >= lowest)?;
            kept.push(layer);
            x = out;
        }
        Ok(Passed { states: x, kept })
    }

    fn layer(
        &self,
        at: usize,
        x: Vec<f32>,
        batch: &Batch,
        adapted: Option<Adapted<'_>>,
        keep: bool,
    ) -> Result<(Vec<f32>, Option<Kept>), TrainError> {
        let (layer, shape) = (&self.base.layers[at], &self.base.shape);
        let mut narrow: [Vec<f32>; 7] = Default::default();
        let mut linear = |module: TargetModule, input: &[f32]| {
            let (out, inner) = self.linear(at, module, input, adapted)?;
            narrow[module as usize] = inner;
            Ok::<_, TrainError>(out)
        };
        let normed = rms_norm(&x, &layer.attention_norm, self.epsilon());
        let (mut queries, mut keys, values) = (linear(QProj, &normed)?, linear(KProj, &normed)?, linear(VProj, &normed)?);
        self.rotary.turn(&mut queries, shape.heads * shape.head, &batch.positions, 1.0);
        self.rotary.turn(&mut keys, shape.kv_heads * shape.head, &batch.positions, 1.0);
        let attention =
            Attention { shape, products: &self.products, sequences: &batch.sequences, queries: &queries, keys: &keys, values: &values };
        let read = attention.forward()?;
        let mut middle = linear(OProj, &read)?;
        add(&mut middle, &x);
        let normed = rms_norm(&middle, &layer.feed_forward_norm, self.epsilon());
        let (gate, up) = (linear(GateProj, &normed)?, linear(UpProj, &normed)?);
        let mut out = linear(DownProj, &gated(&gate, &up))?;
        add(&mut out, &middle);
        let kept = keep.then_some(Kept { x, queries, keys, values, read, middle, gate, up, narrow });
        Ok((out, kept))
    }

    /// `x · Wᵀ + scale · drop(x) · Aᵀ · Bᵀ`, and `drop(x) · Aᵀ`.
    fn linear(&self, at: usize, module: TargetModule, x: &[f32], adapted: Option<Adapted<'_>>) -> Result<(Vec<f32>, Vec<f32>), TrainError> {
        let (inputs, _) = self.base.shape.of(module);
        let mut out = self.products.product(view(x, inputs), turned(self.base.matrix(at, module), inputs))?;
        let Some((adapted, place)) = adapted.and_then(|adapted| Some((adapted, adapted.layout.places[at][module as usize]?))) else {
            return Ok((out, Vec::new()));
        };
        let a = turned(&adapted.values[place.a..place.b], inputs);
        let inner = match adapted.mask(at, module, x.len()) {
            None => self.products.product(view(x, inputs), a)?,
            Some(mask) => self.products.product(view(&masked(x, &mask), inputs), a)?,
        };
        let b = view(adapted.b(place), place.outputs);
        self.products.add(&mut out, 1.0, adapted.layout.scale(), view(&inner, adapted.layout.rank), b)?;
        Ok((out, inner))
    }

    /// Adds a batch's gradients to `gradients`, from that of its states.
    pub(super) fn backward(
        &self,
        batch: &Batch,
        adapted: Adapted<'_>,
        passed: Passed,
        mut slope: Vec<f32>,
        gradients: &mut [f32],
    ) -> Result<(), TrainError> {
        let lowest = adapted.layout.lowest();
        for (at, kept) in passed.kept.into_iter().enumerate().rev() {
            let Some(kept) = kept else { break };
            self.layer_back(at, batch, adapted, kept, &mut slope, gradients, at > lowest)?;
        }
        Ok(())
    }

    /// `slope` goes from the gradient of a layer's output to that of its input; without `further` nobody asks for the latter.
    #[expect(clippy::too_many_arguments, reason = "one call, and each is a thing of its own")]
    fn layer_back(
        &self,
        at: usize,
        batch: &Batch,
        adapted: Adapted<'_>,
        mut kept: Kept,
        slope: &mut [f32],
        gradients: &mut [f32],
        further: bool,
    ) -> Result<(), TrainError> {
        let (layer, shape) = (&self.base.layers[at], &self.base.shape);
        let mut back = Back { network: self, at, adapted, narrow: &kept.narrow, gradients };
        let inner = gated(&kept.gate, &kept.up);
        let mut dz = vec![0.0; inner.len()];
        back.linear(DownProj, slope, &inner, Some((&mut dz, 0.0)))?;
        drop(inner);
        gated_back(&mut kept.gate, &mut kept.up, dz);
        let normed = rms_norm(&kept.middle, &layer.feed_forward_norm, self.epsilon());
        let mut dnormed = vec![0.0; normed.len()];
        back.linear(GateProj, &kept.gate, &normed, Some((&mut dnormed, 0.0)))?;
        back.linear(UpProj, &kept.up, &normed, Some((&mut dnormed, 1.0)))?;
        rms_norm_back(slope, dnormed, &kept.middle, &layer.feed_forward_norm, self.epsilon());
        let mut dread = vec![0.0; kept.read.len()];
        back.linear(OProj, slope, &kept.read, Some((&mut dread, 0.0)))?;
        let attention = Attention {
            shape,
            products: &self.products,
            sequences: &batch.sequences,
            queries: &kept.queries,
            keys: &kept.keys,
            values: &kept.values,
        };
        let mut turned = attention.backward(&dread)?;
        self.rotary.turn(&mut turned.queries, shape.heads * shape.head, &batch.positions, -1.0);
        self.rotary.turn(&mut turned.keys, shape.kv_heads * shape.head, &batch.positions, -1.0);
        let normed = rms_norm(&kept.x, &layer.attention_norm, self.epsilon());
        let mut dnormed = vec![0.0; if further { normed.len() } else { 0 }];
        for (module, slope, keep) in [(QProj, &turned.queries, 0.0), (KProj, &turned.keys, 1.0), (VProj, &turned.values, 1.0)] {
            back.linear(module, slope, &normed, further.then_some((&mut dnormed, keep)))?;
        }
        if further {
            rms_norm_back(slope, dnormed, &kept.x, &layer.attention_norm, self.epsilon());
        }
        Ok(())
    }
}

/// The backward pass of one layer's matrices.
struct Back<'a> {
    network: &'a Network,
    at: usize,
    adapted: Adapted<'a>,
    narrow: &'a [Vec<f32>; 7],
    gradients: &'a mut [f32],
}

impl Back<'_> {
    /// From the gradient of a matrix's output: those of its pair, and (`dx = keep · dx + ...`) that of its input.
    fn linear(&mut self, module: TargetModule, dy: &[f32], x: &[f32], mut dx: Option<(&mut Vec<f32>, f32)>) -> Result<(), TrainError> {
        let (inputs, outputs) = self.network.base.shape.of(module);
        let products = &self.network.products;
        if let Some((dx, keep)) = &mut dx {
            products.add(dx, *keep, 1.0, view(dy, outputs), view(self.network.base.matrix(self.at, module), inputs))?;
        }
        let Some(place) = self.adapted.layout.places[self.at][module as usize] else { return Ok(()) };
        let (rank, scale) = (self.adapted.layout.rank, self.adapted.layout.scale());
        let mask = self.adapted.mask(self.at, module, x.len());
        let mut dinner = vec![0.0; dy.len() / outputs * rank];
        products.add(&mut dinner, 0.0, scale, view(dy, outputs), turned(self.adapted.b(place), outputs))?;
        let (da, db) = self.gradients[place.a..place.b + rank * outputs].split_at_mut(place.b - place.a);
        products.add(db, 1.0, scale, turned(&self.narrow[module as usize], rank), view(dy, outputs))?;
        let a = view(&self.adapted.values[place.a..place.b], inputs);
        match mask {
            None => {
                products.add(da, 1.0, 1.0, turned(&dinner, rank), view(x, inputs))?;
                if let Some((dx, _)) = dx {
                    products.add(dx, 1.0, 1.0, view(&dinner, rank), a)?;
                }
            }
            Some(mask) => {
                products.add(da, 1.0, 1.0, turned(&dinner, rank), view(&masked(x, &mask), inputs))?;
                if let Some((dx, _)) = dx {
                    add(dx, &masked(&products.product(view(&dinner, rank), a)?, &mask));
                }
            }
        }
        Ok(())
    }
}

impl Adapted<'_> {
    fn b(&self, place: Place) -> &[f32] {
        &self.values[place.b..place.b + self.layout.rank * place.outputs]
    }

    /// What each of a matrix's inputs is multiplied with: zero for the dropped ones, a little more than one for the rest. The same in both directions.
    fn mask(&self, at: usize, module: TargetModule, count: usize) -> Option<Vec<f32>> {
        let (share, seed) = self.dropout.filter(|&(share, _)| share > 0.0)?;
        let mut random = Pcg64Mcg::seed_from_u64(seed ^ ((at as u64) << 8 | module as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kept = (1.0 / (1.0 - share)) as f32;
        Some((0..count).map(|_| if random.random_bool(share) { 0.0 } else { kept }).collect())
    }
}

fn masked(values: &[f32], mask: &[f32]) -> Vec<f32> {
    values.iter().zip(mask).map(|(value, mask)| value * mask).collect()
}
