//! Training: optimisers, random numbers, state that stays from run to run, the trainer.

mod history;
mod optimizers;
mod random;
mod recompute;
mod schedules;
mod state;
mod trainer;

use quearn::data::Element;
use quearn::eval::{EvalTensor, Inputs, evaluate};
use quearn::prelude::*;
use quearn::{Tensors, data};
use std::fmt::Debug;

/// Sessions on the interpreter and on the best backend, with one thread and with two.
pub fn sessions() -> Vec<Session> {
    let each = |backend| [1, 2].map(|threads| Session::builder().backend(backend).threads(threads).build().unwrap());
    [BackendKind::Interp, BackendKind::Auto].into_iter().flat_map(each).collect()
}

/// A tensor.
pub fn tensor<T: Element>(values: &[T], shape: &[u64]) -> StoredTensor {
    StoredTensor::from_vec(values.to_vec(), shape).unwrap()
}

/// Tensors by name.
pub fn named<const N: usize>(tensors: [(&str, StoredTensor); N]) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

/// What the naive evaluator makes of a graph.
pub fn evaluated(graph: &Graph, inputs: &Tensors) -> Vec<(String, EvalTensor)> {
    let given = inputs.iter().fold(Inputs::default(), |given, (name, t)| given.tensor(name, EvalTensor::from(t)));
    let values = evaluate(graph, &given).unwrap();
    values.into_iter().map(|(name, value)| (name, value.tensor().as_ref().clone())).collect()
}

/// The result `name` of a graph on all sessions, which must agree to the bit.
pub fn everywhere<T: Element + PartialEq + Debug>(graph: &Graph, inputs: &Tensors, name: &str) -> Vec<T> {
    let run = |session: &Session| {
        let outputs = session.compile(graph).unwrap().run_with(session, inputs).unwrap();
        outputs.tensor(name).unwrap().as_slice::<T>().unwrap().to_vec()
    };
    let all: Vec<Vec<T>> = sessions().iter().map(run).collect();
    all.iter().for_each(|other| assert_eq!(*other, all[0]));
    all.into_iter().next().unwrap()
}

/// Fails where two results differ by more than `tolerance`.
#[track_caller]
pub fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance, "element {i} is {f}, expected {e}: {found:?} and {expected:?}");
    }
}

/// A scalar.
pub fn scalar<T: Element>(value: T) -> data::Tensor {
    tensor(&[value], &[])
}
