//! Gradients against central differences of the naive evaluator, and compiled programs against it.

#![allow(dead_code, reason = "each test file uses a part of the harness")]

#[path = "../session_harness/mod.rs"]
mod session_harness;

use quearn::autodiff::gradients;
use quearn::eval::{EvalTensor, Inputs, evaluate};
use quearn::prelude::*;
pub use quearn::testing::Rng;
use quearn_stage::graph::Dim;
pub use session_harness::backends;

pub type Floats<'s> = Rep<'s, Tensor<F64>>;

/// A function of tensors, with its arguments.
pub struct Check<'n> {
    name: &'n str,
    shapes: Vec<Vec<u64>>,
    /// Of the arguments: lowest and highest.
    range: [f64; 2],
    seed: u64,
    /// Is it differentiable twice?
    smooth: bool,
    /// Is it compared with compiled code?
    compiled: bool,
    /// Integers given as they are, by name.
    ints: Vec<(&'static str, Vec<u64>, Vec<i64>)>,
}

/// A check of a function of tensors of these shapes.
pub fn check<'n>(name: &'n str, shapes: &[&[u64]]) -> Check<'n> {
    let shapes = shapes.iter().map(|shape| shape.to_vec()).collect();
    Check { name, shapes, range: [-1.0, 1.0], seed: 1, smooth: true, compiled: true, ints: vec![] }
}

/// Step of the central differences.
const STEP: f64 = 1e-5;

impl Check<'_> {
    pub fn range(self, low: f64, high: f64) -> Self {
        Check { range: [low, high], ..self }
    }

    pub fn seed(self, seed: u64) -> Self {
        Check { seed, ..self }
    }

    /// The function has kinks: its second derivatives are not looked at.
    pub fn kinked(self) -> Self {
        Check { smooth: false, ..self }
    }

    /// Only the evaluator runs it.
    pub fn evaluated(self) -> Self {
        Check { compiled: false, ..self }
    }

    pub fn ints(mut self, name: &'static str, shape: &[u64], values: &[i64]) -> Self {
        self.ints.push((name, shape.to_vec(), values.to_vec()));
        self
    }

    /// Holds first derivatives (and second ones of smooth functions) of the weighted sum of all results against differences.
    pub fn run(self, function: impl for<'s> Fn(&'s Stage, &[Floats<'s>]) -> Floats<'s>) {
        let mut random = Rng::new(self.seed);
        let [low, high] = self.range;
        let values: Vec<Vec<f64>> = self
            .shapes
            .iter()
            .map(|shape| {
                let count = shape.iter().product::<u64>() as usize;
                (0..count).map(|_| low + (high - low) * (random.float() + 1.0) / 2.0).collect()
            })
            .collect();
        self.hold("first", &values, &|s| {
            let (args, loss) = self.loss(s, &function);
            (gradients(loss, &args), loss)
        });
        if self.smooth {
            self.hold("second", &values, &|s| {
                let (args, loss) = self.loss(s, &function);
                let once = gradients(loss, &args);
                let parts = once.iter().enumerate().map(|(i, g)| weighted(s, *g, i + 1));
                let sum = parts.reduce(|a, b| a + b).expect("an argument");
                (gradients(sum, &args), sum)
            });
        }
    }

    fn loss<'s>(
        &self,
        s: &'s Stage,
        function: &impl Fn(&'s Stage, &[Floats<'s>]) -> Floats<'s>,
    ) -> (Vec<Floats<'s>>, Floats<'s>) {
        let arg = |(i, shape): (usize, &Vec<u64>)| s.input::<F64>(format!("x{i}"), shape.clone());
        let args: Vec<Floats<'s>> = self.shapes.iter().enumerate().map(arg).collect();
        let result = function(s, &args);
        (args, weighted(s, result, 0))
    }

    fn hold(
        &self,
        order: &str,
        values: &[Vec<f64>],
        write: &dyn for<'s> Fn(&'s Stage) -> (Vec<Floats<'s>>, Floats<'s>),
    ) {
        let what = format!("{} ({order}, seed {})", self.name, self.seed);
        let graph = self::graph(|s| {
            for (i, g) in write(s).0.into_iter().enumerate() {
                s.output(format!("g{i}"), g);
            }
        });
        let loss = self::graph(|s| s.output("loss", write(s).1));
        let inputs = self.inputs(values);
        let found = evaluate(&graph, &inputs).unwrap_or_else(|e| panic!("{what}: {e}\n{graph}"));
        let at = |values: &[Vec<f64>]| {
            let result = evaluate(&loss, &self.inputs(values)).unwrap_or_else(|e| panic!("{what}: {e}\n{loss}"));
            result[0].1.tensor().as_floats()[0]
        };
        for (i, arg) in values.iter().enumerate() {
            let gradient = found[i].1.tensor();
            assert_eq!(gradient.len(), arg.len(), "{what}: elements of gradient {i}");
            for j in 0..arg.len() {
                let moved = |by: f64| {
                    let mut values = values.to_vec();
                    values[i][j] += by;
                    at(&values)
                };
                let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                let found = gradient.as_floats()[j];
                let error = (found - expected).abs();
                assert!(
                    error <= 2e-6 * (1.0 + expected.abs()),
                    "{what}: derivative by element {j} of argument {i} is {found}, expected {expected}\n{graph}"
                );
            }
        }
        if self.compiled {
            self.compiled_agrees(&what, &graph, &inputs);
        }
    }

    fn inputs(&self, values: &[Vec<f64>]) -> Inputs {
        let extents = |shape: &[u64]| shape.iter().map(|&n| n as usize).collect::<Vec<_>>();
        let mut inputs = Inputs::new();
        for (i, (shape, data)) in self.shapes.iter().zip(values).enumerate() {
            inputs = inputs.tensor(format!("x{i}"), EvalTensor::floats(Scalar::F64, &extents(shape), data.clone()));
        }
        for (name, shape, data) in &self.ints {
            let data = data.iter().map(|&x| i128::from(x));
            inputs = inputs.tensor(*name, EvalTensor::ints(Scalar::I64, &extents(shape), data));
        }
        inputs
    }

    /// Every backend gives what the evaluator gives.
    fn compiled_agrees(&self, what: &str, graph: &Graph, inputs: &Inputs) {
        let expected = evaluate(graph, inputs).unwrap();
        for backend in backends() {
            let mut session = Session::builder().backend(backend).threads(2).build().unwrap();
            for (name, tensor) in &inputs.tensors {
                session.bind(name, StoredTensor::try_from(tensor).unwrap());
            }
            let outputs = session.run(graph).unwrap_or_else(|e| panic!("{what}, {backend:?}: {e}\n{graph}"));
            for (name, want) in &expected {
                let found = EvalTensor::from(outputs.tensor(name).unwrap());
                near(&format!("{what}, {backend:?}, {name}"), &found, want.tensor());
            }
        }
    }
}

/// Sums in another order differ in their last bits.
pub fn near(what: &str, found: &EvalTensor, want: &EvalTensor) {
    assert_eq!(found.shape(), want.shape(), "{what}");
    for (i, (f, w)) in found.as_floats().iter().zip(want.as_floats()).enumerate() {
        let same = f == w || f.is_nan() && w.is_nan() || (f - w).abs() <= 1e-9 * (1.0 + w.abs());
        assert!(same, "{what}: element {i} is {f}, expected {w}");
    }
}

/// A sum of all elements in which each has a weight of its own.
pub fn weighted<'s>(s: &'s Stage, x: Floats<'s>, salt: usize) -> Floats<'s> {
    let shape = x.shape();
    let count: u64 = shape.iter().filter_map(Dim::as_const).product();
    let phase: Floats<'s> = (s.iota(count).cast::<F64>() * 1.7 + (0.3 + salt as f64)).sin();
    (x * (phase + 1.3).reshape(shape.clone())).sum(0..shape.len())
}

/// A finished program.
pub fn graph(write: impl for<'s> FnOnce(&'s Stage)) -> Graph {
    let s = Stage::new();
    write(&s);
    s.finish().unwrap_or_else(|e| panic!("{e}"))
}
