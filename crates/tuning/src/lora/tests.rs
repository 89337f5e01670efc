//! The trainer on a tiny model of random numbers: gradients against slopes, and trainings that are broken off.

use super::adapter::Layout;
use super::base::{Base, Layer, Shape};
use super::learner::{Learner, RowId};
use super::network::Network;
use super::rows::{Row, Sequence};
use super::*;
use rand::RngExt;
use std::cell::Cell;

fn shape() -> Shape {
    Shape { layers: 3, width: 24, heads: 4, kv_heads: 2, head: 6, feed_forward: 40, vocabulary: 50, epsilon: 1e-5, rotary_base: 10_000.0 }
}

fn tiny_base() -> Base {
    let shape = shape();
    let mut random = Pcg64Mcg::seed_from_u64(1);
    let mut numbers =
        |count: usize, size: f32, middle: f32| (0..count).map(|_| middle + random.random_range(-size..size)).collect::<Vec<f32>>();
    let embedding = numbers(shape.vocabulary * shape.width, 1.0, 0.0);
    let layers = (0..shape.layers)
        .map(|_| Layer {
            attention_norm: numbers(shape.width, 0.3, 1.0),
            feed_forward_norm: numbers(shape.width, 0.3, 1.0),
            matrices: TargetModule::ALL.map(|module| {
                let (inputs, outputs) = shape.of(module);
                numbers(inputs * outputs, 0.4, 0.0)
            }),
        })
        .collect();
    let norm = numbers(shape.width, 0.3, 1.0);
    Base { shape, embedding, layers, norm, head: None, rotary_factors: None }
}

fn sequence(length: usize, answers: &[std::ops::Range<usize>], seed: u64) -> Sequence {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let tokens = (0..length).map(|_| random.random_range(0..50)).collect();
    Sequence { tokens, answers: answers.to_vec(), cut: false }
}

fn chats(count: usize) -> Vec<Row> {
    (0..count).map(|at| Row(vec![sequence(9 + at % 5, &[3..5, 7..9 + at % 5], at as u64)])).collect()
}

fn pairs(count: usize) -> Vec<Row> {
    let pair = |at: usize| {
        let (mut better, mut worse) = (sequence(10, &[6..8, 8..10], at as u64), sequence(9, &[6..8, 8..9], at as u64));
        better.tokens[6] = 7;
        worse.tokens[6] = 8;
        Row(vec![better, worse])
    };
    (0..count).map(pair).collect()
}

fn ids(rows: &[Row]) -> Vec<(RowId, &Row)> {
    rows.iter().enumerate().map(|(at, row)| (RowId { validation: false, at }, row)).collect()
}

fn learner(method: Method, hyperparameters: &Hyperparameters) -> Learner {
    let base = tiny_base();
    let layout = Layout::new(&base.shape, hyperparameters);
    Learner::new(Network::new(base, 512), layout, method, hyperparameters.dropout)
}

fn small() -> Hyperparameters {
    Hyperparameters { rank: 3, alpha: 6.0, ..Hyperparameters::default() }
}

/// Values that are all in use, unlike the first ones.
fn used(learner: &Learner) -> Vec<f32> {
    let mut random = Pcg64Mcg::seed_from_u64(9);
    (0..learner.layout.parameters).map(|_| random.random_range(-0.3..0.3)).collect()
}

/// Along each pair's own gradient the loss must rise as steeply as the gradient says.
fn gradients_are_slopes(method: Method, hyperparameters: &Hyperparameters, rows: &[Row]) {
    let learner = learner(method, hyperparameters);
    let values = used(&learner);
    let rows = ids(rows);
    let (_, gradients) = learner.learn(&values, &rows, 5).unwrap();
    let places: Vec<_> = learner.layout.pairs().collect();
    assert_eq!(places.len(), hyperparameters.target_modules.len() * hyperparameters.trained_layers.unwrap_or(3) as usize);
    for (at, module, place) in places {
        for part in [place.a..place.b, place.b..place.b + learner.layout.rank * place.outputs] {
            let length = gradients[part.clone()].iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!(length > 1e-6, "{module:?} of layer {at} learns nothing");
            let step = 2e-2f64;
            let loss = |by: f64| {
                let mut moved = values.clone();
                for place in part.clone() {
                    moved[place] += (by * f64::from(gradients[place]) / length) as f32;
                }
                learner.learn(&moved, &rows, 5).unwrap().0.mean_loss()
            };
            let slope = (loss(step) - loss(-step)) / (2.0 * step);
            assert!((slope - length).abs() < 0.02 * length + 2e-4, "{module:?} of layer {at}: slope {slope}, gradient {length}");
        }
    }
}

#[test]
fn gradients_of_chats_are_slopes() {
    gradients_are_slopes(Method::Supervised, &small(), &chats(3));
}

#[test]
fn gradients_with_dropout_and_in_some_places_are_slopes() {
    let target_modules = vec![TargetModule::QProj, TargetModule::VProj, TargetModule::DownProj];
    let some = Hyperparameters { dropout: 0.3, target_modules, trained_layers: Some(2), ..small() };
    gradients_are_slopes(Method::Supervised, &some, &chats(3));
}

#[test]
fn gradients_of_preferences_are_slopes() {
    gradients_are_slopes(Method::Dpo { beta: 0.5 }, &small(), &pairs(3));
}

#[test]
fn a_row_learns_the_same_alone_and_among_others() {
    let learner = learner(Method::Supervised, &small());
    let values = used(&learner);
    // Longer than a tile of attention, and together longer than a part.
    let long = |at: u64| Row(vec![sequence(450, &[20..50, 300..450], at)]);
    let rows = [long(1), long(2), long(3)];
    let (together, gradients) = learner.learn(&values, &ids(&rows), 0).unwrap();
    let mut sum = vec![0.0; gradients.len()];
    let mut loss = 0.0;
    for row in ids(&rows) {
        let (alone, part) = learner.learn(&values, &[row], 0).unwrap();
        loss += alone.loss;
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part / 3.0);
    }
    assert!((together.loss - loss).abs() < 1e-3 * loss, "{} and {loss}", together.loss);
    let apart = sum.iter().zip(&gradients).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let size = gradients.iter().copied().map(f32::abs).fold(0.0, f32::max);
    assert!(apart < 1e-3 * size, "{apart} of {size}");
    assert_eq!(learner.measure(&values, &ids(&rows)).unwrap().count, 3.0 * 180.0);
}

fn request(folder: &Path, hyperparameters: Hyperparameters, method: Method) -> TrainingRequest {
    TrainingRequest { method, training_file: "rows".into(), validation_file: None, hyperparameters, folder: folder.to_owned() }
}

/// Trains until `stop` says so; answers the outcome and what was reported.
fn train(request: &TrainingRequest, rows: &[Row], command: &dyn Fn() -> Command) -> (Outcome, Vec<Progress>) {
    let learner = learner(request.method, &request.hyperparameters);
    let first = learner.layout.first_values(request.hyperparameters.seed);
    let (folder, optimizer) = Folder::open(&request.folder, "same".into(), first).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let validation = chats(4);
    let validation = if request.method == Method::Supervised { &validation[..] } else { &[] };
    let run = Run { request, training: rows, validation, learner: &learner, pool: &pool };
    let mut told = Vec::new();
    let outcome = run.go(folder, optimizer, command, &mut |progress| told.push(progress)).unwrap();
    (outcome, told)
}

fn losses(told: &[Progress]) -> Vec<f64> {
    told.iter().filter_map(|progress| if let Progress::Step { train_loss, .. } = progress { Some(*train_loss) } else { None }).collect()
}

#[test]
fn it_learns_and_the_same_training_gives_the_same_bytes() {
    let rows = chats(10);
    let hyperparameters = Hyperparameters { n_epochs: 12, learning_rate_multiplier: 20.0, dropout: 0.1, ..small() };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, told) = train(&request(one.path(), hyperparameters.clone(), Method::Supervised), &rows, &|| Command::Go);
    let (second, again) = train(&request(two.path(), hyperparameters, Method::Supervised), &rows, &|| Command::Go);
    let losses = losses(&told);
    assert_eq!((losses.len(), first.steps, first.end), (36, 36, End::Finished));
    assert!(losses[35] < 0.5 * losses[0], "{losses:?}");
    assert_eq!(told.len(), again.len());
    let bytes = |outcome: &Outcome| std::fs::read(outcome.adapter.as_ref().unwrap()).unwrap();
    assert!(bytes(&first) == bytes(&second) && !bytes(&first).is_empty());
    // The newest three epochs are kept, and each has what was measured of the whole validation file.
    assert_eq!(
        first.checkpoints.iter().map(|kept| (kept.step, kept.epoch)).collect::<Vec<_>>(),
        [(30, Some(10)), (33, Some(11)), (36, Some(12))]
    );
    assert!(first.checkpoints.iter().all(|kept| kept.metrics.full_valid_loss.is_some() && kept.adapter.is_file()));
    assert_eq!(std::fs::read_dir(one.path().join("checkpoints")).unwrap().count(), 3);
    assert_eq!(first.trained_tokens, 12 * rows.iter().map(Row::tokens).sum::<usize>() as u64);
}

#[test]
fn a_training_that_was_broken_off_ends_as_if_it_had_not_been() {
    let rows = chats(10);
    let hyperparameters = Hyperparameters { n_epochs: 3, checkpoint_every: 2, validate_every: 2, dropout: 0.2, ..small() };
    let whole = tempfile::tempdir().unwrap();
    let (expected, _) = train(&request(whole.path(), hyperparameters.clone(), Method::Supervised), &rows, &|| Command::Go);
    let expected =
        (std::fs::read(expected.adapter.unwrap()).unwrap(), expected.checkpoints.iter().map(|kept| kept.metrics).collect::<Vec<_>>());
    for (after, by) in (1..9).flat_map(|after| [(after, Command::Cancel), (after, Command::Pause)]) {
        let folder = tempfile::tempdir().unwrap();
        let request = request(folder.path(), hyperparameters.clone(), Method::Supervised);
        let asked = Cell::new(0);
        let (broken, _) = train(&request, &rows, &|| {
            asked.set(asked.get() + 1);
            if asked.get() > after { by } else { Command::Go }
        });
        assert_eq!((broken.steps, broken.adapter), (after, None));
        let (outcome, told) = train(&request, &rows, &|| Command::Go);
        let Progress::Started { resumed_at, .. } = told[0] else { panic!("{told:?}") };
        // A pause keeps every step. After a cancel, as after a kill, what came after the last checkpoint (every two steps, every epoch of three) is done again.
        let kept = if by == Command::Pause { after } else { [0, 0, 2, 3, 4, 4, 6, 6, 8][after as usize] };
        assert_eq!(resumed_at, kept, "{by:?} after {after}");
        let found =
            (std::fs::read(outcome.adapter.unwrap()).unwrap(), outcome.checkpoints.iter().map(|kept| kept.metrics).collect::<Vec<_>>());
        assert!(found == expected, "{by:?} after {after} steps");
        // Once more: nothing is left to do.
        let (again, told) = train(&request, &rows, &|| panic!("there is no step"));
        assert_eq!((told.len(), again.trained_tokens), (1, outcome.trained_tokens));
    }
}

#[test]
fn preferences_are_learned() {
    let rows = pairs(8);
    let folder = tempfile::tempdir().unwrap();
    let hyperparameters = Hyperparameters { n_epochs: 10, learning_rate_multiplier: 20.0, ..small() };
    let (outcome, told) = train(&request(folder.path(), hyperparameters, Method::Dpo { beta: 0.5 }), &rows, &|| Command::Go);
    let losses = losses(&told);
    // At first the model is its own reference: every row's loss is the logarithm of two.
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-4, "{losses:?}");
    let end = outcome.checkpoints.last().unwrap().metrics;
    assert!(end.train_loss < 0.1 && end.train_mean_token_accuracy == 1.0, "{end:?}");
}

#[test]
fn another_trainings_state_and_a_damaged_one_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hyperparameters = Hyperparameters { n_epochs: 1, ..small() };
    train(&request(folder.path(), hyperparameters, Method::Supervised), &chats(5), &|| Command::Go);
    let values = || learner(Method::Supervised, &small()).layout.first_values(1);
    assert!(Folder::open(folder.path(), "same".into(), values()).is_ok());
    assert!(matches!(Folder::open(folder.path(), "other".into(), values()), Err(TrainError::State { .. })));
    let state = folder.path().join("state.bin");
    let bytes = std::fs::read(&state).unwrap();
    for length in [0, 5, 60, bytes.len() - 1] {
        std::fs::write(&state, &bytes[..length]).unwrap();
        assert!(matches!(Folder::open(folder.path(), "same".into(), values()), Err(TrainError::State { .. })), "{length} bytes");
    }
}

#[test]
fn a_rate_that_is_too_high_is_told_and_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let hyperparameters = Hyperparameters { n_epochs: 50, learning_rate_multiplier: 1e12, max_gradient_norm: 0.0, ..small() };
    let request = request(folder.path(), hyperparameters, Method::Supervised);
    let learner = learner(request.method, &request.hyperparameters);
    let (place, optimizer) = Folder::open(&request.folder, "same".into(), learner.layout.first_values(1)).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let rows = chats(10);
    let run = Run { request: &request, training: &rows, validation: &[], learner: &learner, pool: &pool };
    let end = run.go(place, optimizer, &|| Command::Go, &mut |_| {});
    assert!(matches!(end, Err(TrainError::Diverged { .. })), "{end:?}");
}
