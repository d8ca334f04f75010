//! Activations within a budget: the same losses with a smaller arena.

use super::{named, sessions, tensor};
use quearn::Tensors;
use quearn::prelude::*;
use quearn::training::{Plan, Recipe, Sgd, Trainer};

const ROWS: u64 = 192;
const WIDTH: u64 = 16;
const LAYERS: usize = 10;

/// A deep perceptron, with and without dropout.
fn deep(s: &Stage, dropout: f64) -> Rep<'_, Tensor<F32>> {
    let mut x = s.input::<F32>("x", [ROWS, WIDTH]);
    for layer in 0..LAYERS {
        let weight = s.weight::<F32>(format!("w{layer}"), [WIDTH, WIDTH]);
        let y = x.matmul(weight) + s.weight::<F32>(format!("b{layer}"), [WIDTH]);
        x = x * 0.5 + y.tanh() * y.sigmoid();
        if dropout > 0.0 {
            x = x.dropout(dropout, s.noise().expect("a program for training"));
        }
    }
    x.mse(s.input::<F32>("y", [ROWS, WIDTH]))
}

/// Convolutions with poolings and norms by the batch.
fn pictures(s: &Stage) -> Rep<'_, Tensor<F32>> {
    let mut x = s.input::<F32>("x", [ROWS / 8, 2, 8, 8]);
    for layer in 0..5 {
        let channels = if layer == 0 { 2 } else { 8 };
        let filters = s.weight::<F32>(format!("w{layer}"), [8, channels, 3, 3]);
        let padded = Conv2d { padding: [1, 1], ..Conv2d::default() };
        x = x.conv2d(filters, Some(s.weight::<F32>(format!("b{layer}"), [8])), padded).relu();
    }
    x = x.max_pool2d(Window::square(2).stride(2)).reshape([ROWS / 8, 8 * WIDTH]);
    x.mse(s.input::<F32>("y", [ROWS / 8, 8 * WIDTH]))
}

/// A network that walks over time.
fn walking(s: &Stage) -> Rep<'_, Tensor<F32>> {
    let (w, v) = (s.weight::<F32>("w", [8, 8]), s.weight::<F32>("v", [8, 8]));
    let x = s.input::<F32>("x", [5, 24, 8]);
    let ahead = (x.reshape([5 * 24, 8]).matmul(v).tanh()).reshape([5, 24, 8]);
    let begin = s.number::<F32>(0.0).broadcast([24, 8]);
    let walk = Walk { count: 5, axis: 0, back: false };
    let (_, all) = s.steps(walk, begin, ahead, |state, x| {
        let next = (state.matmul(w) + x).tanh();
        (next, next)
    });
    let last = (all * all).reshape([5 * 24, 8]).matmul(v).sigmoid();
    last.mse(s.input::<F32>("y", [1, 8]))
}

fn seeded(plan: &Plan) -> Tensors {
    let mut weights = Tensors::new();
    for kept in plan.weights() {
        let count = kept.shape.iter().product::<u64>();
        let values: Vec<f32> = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 300.0).collect();
        weights.insert(kept.name.clone(), tensor(&values, &kept.shape));
    }
    weights
}

fn data(x: &[u64], y: &[u64]) -> Tensors {
    let some = |shape: &[u64], by: u64| {
        let values: Vec<f32> = (0..shape.iter().product::<u64>()).map(|i| (i * by % 89) as f32 / 89.0 - 0.5).collect();
        tensor(&values, shape)
    };
    named([("x", some(x, 31)), ("y", some(y, 57))])
}

fn losses(plan: Plan, session: &Session, data: &Tensors) -> Vec<f64> {
    let weights = seeded(&plan);
    let mut trainer: Trainer<'_> = plan.start(session, &weights).unwrap();
    while trainer.steps() < 2 {
        trainer.step(data).unwrap();
    }
    trainer.history.steps.iter().map(|step| step.loss).collect()
}

/// Steps of a run: one by one, or together.
fn steps_in_run(session: &Session) -> u64 {
    session.options().threads as u64
}

/// Bytes of the arena that a step needs.
fn arena(plan: &Plan, session: &Session) -> u64 {
    let text = session.explain(plan.graph(), Level::Pipelines).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("arena: ")).unwrap_or_else(|| panic!("{text}"));
    line.split(' ').next().unwrap().parse().unwrap()
}

fn recipe() -> Recipe {
    Recipe::new(Sgd::momentum(0.9), 0.05)
}

type Network = for<'s> fn(&'s Stage) -> Rep<'s, Tensor<F32>>;

/// Trains a network with all activations and with parts of them; gives the arenas, by the parts.
fn check(network: Network, data: &Tensors, parts: &[f64]) -> Vec<u64> {
    let session = &Session::builder().threads(1).build().unwrap();
    let plan = || Plan::new(recipe(), network).unwrap();
    let all = plan().activations_within(u64::MAX).unwrap();
    let whole = all.activations().unwrap();
    assert_eq!((whole.again, whole.bytes), (0, whole.all));
    let mut arenas = vec![arena(&all, session)];
    for part in parts {
        let budget = (whole.all as f64 * part) as u64;
        let some = plan().activations_within(budget).unwrap();
        let found = some.activations().unwrap();
        assert!(found.bytes <= budget && found.again > 0 && found.all == whole.all, "{found:?} of {budget}");
        arenas.push(arena(&some, session));
        for session in sessions() {
            let expected = losses(plan(), &session, data);
            let some = plan().activations_within(budget).unwrap();
            let found = losses(some.steps_in_run(steps_in_run(&session)), &session, data);
            for (f, e) in found.iter().zip(&expected) {
                assert!(
                    (f - e).abs() <= 1e-6 * e.abs(),
                    "{}: {found:?}, expected {expected:?}",
                    session.backend_name()
                );
            }
        }
    }
    arenas
}

#[test]
fn a_deep_network_takes_less_memory() {
    let data = data(&[ROWS, WIDTH], &[ROWS, WIDTH]);
    let arenas = check(|s| deep(s, 0.0), &data, &[0.7, 0.4]);
    assert!(arenas[1] * 10 < arenas[0] * 7 && arenas[2] * 10 < arenas[0] * 4, "{arenas:?}");
    check(|s| deep(s, 0.3), &data, &[0.5]);
}

#[test]
fn convolutions_take_less_memory() {
    let data = data(&[ROWS / 8, 2, 8, 8], &[ROWS / 8, 8 * WIDTH]);
    let arenas = check(pictures, &data, &[0.7]);
    assert!(arenas[1] < arenas[0], "{arenas:?}");
}

#[test]
fn walks_are_kept() {
    check(walking, &data(&[5, 24, 8], &[1, 8]), &[0.9]);
}

#[test]
fn a_budget_that_is_too_small_says_how_much_it_takes() {
    let plan = || Plan::new(recipe(), |s| deep(s, 0.0)).unwrap();
    let error = plan().activations_within(1000).err().unwrap().to_string();
    let least: u64 = error.split(' ').find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{error}"));
    assert!(error.contains("bytes at least, more than the 1000 given"), "{error}");
    assert_eq!(plan().activations_within(least).unwrap().activations().unwrap().bytes, least);
    // A second budget starts from all of them.
    let again = plan().activations_within(least).unwrap().activations_within(u64::MAX).unwrap();
    assert_eq!(again.activations().unwrap().again, 0);
}
