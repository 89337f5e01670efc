//! The adapter: the only numbers that are trained.

use super::base::Shape;
use crate::adapter_file::{self, Pair};
use crate::{Hyperparameters, TargetModule, TrainError};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::path::Path;

/// Where a matrix's pair lies among the adapter's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    /// `rank` rows of `inputs` numbers.
    pub(super) a: usize,
    /// `rank` rows of `outputs` numbers: B turned, so that products read it row by row.
    pub(super) b: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// Which matrices have a pair, and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub(super) rank: usize,
    pub(super) alpha: f64,
    /// For each layer of the model, in the order of [`TargetModule::ALL`].
    pub(super) places: Vec<[Option<Place>; 7]>,
    /// Numbers in all.
    pub(super) parameters: usize,
}

impl Layout {
    pub(super) fn new(shape: &Shape, hyperparameters: &Hyperparameters) -> Self {
        let rank = hyperparameters.rank as usize;
        let trained = hyperparameters.trained_layers.map_or(shape.layers, |layers| (layers as usize).min(shape.layers));
        let mut parameters = 0;
        let mut places = vec![[None; 7]; shape.layers];
        for layer in &mut places[shape.layers - trained..] {
            for (module, place) in TargetModule::ALL.into_iter().zip(layer) {
                if hyperparameters.target_modules.contains(&module) {
                    let (inputs, outputs) = shape.of(module);
                    *place = Some(Place { a: parameters, b: parameters + rank * inputs, inputs, outputs });
                    parameters += rank * (inputs + outputs);
                }
            }
        }
        Self { rank, alpha: hyperparameters.alpha, places, parameters }
    }

    /// What the pair's product is multiplied with.
    pub(super) fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }

    /// The lowest layer with a pair.
    pub(super) fn lowest(&self) -> usize {
        self.places.iter().position(|layer| layer.iter().any(Option::is_some)).unwrap_or(self.places.len())
    }

    /// A as PEFT begins it (uniform within one over the root of the inputs), B zero: the adapter changes nothing yet.
    pub(super) fn first_values(&self, seed: u64) -> Vec<f32> {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut values = vec![0.0; self.parameters];
        for place in self.places.iter().flatten().flatten() {
            let bound = (place.inputs as f32).sqrt().recip();
            values[place.a..place.b].iter_mut().for_each(|value| *value = random.random_range(-bound..bound));
        }
        values
    }

    /// Every pair with its layer and module.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, TargetModule, Place)> + '_ {
        let layers = self.places.iter().enumerate();
        layers.flat_map(|(at, layer)| {
            TargetModule::ALL.into_iter().zip(layer).filter_map(move |(module, place)| place.map(|place| (at, module, place)))
        })
    }
}

/// The adapter's numbers as pairs.
pub(super) fn pairs(layout: &Layout, values: &[f32]) -> Vec<Pair> {
    let rank = layout.rank;
    let pair = |(layer, module, place): (usize, TargetModule, Place)| {
        let b = &values[place.b..place.b + rank * place.outputs];
        let b = (0..place.outputs).flat_map(|output| (0..rank).map(move |row| b[row * place.outputs + output])).collect();
        Pair { layer, module, a: values[place.a..place.b].to_vec(), b }
    };
    layout.pairs().map(pair).collect()
}

/// Writes the adapter as a GGUF file.
pub(super) fn write_gguf(path: &Path, layout: &Layout, values: &[f32]) -> Result<(), TrainError> {
    adapter_file::write(path, &pairs(layout, values), layout.rank, layout.alpha)
}
