//! What a program keeps from run to run: state, and weights that are trained.
//!
//! A state is an input, and its next value is a result of the same name and type. Who runs the program lends it the memory
//! of both, and hands the next value to the next run; where nothing reads the old value after the new one is written,
//! both are the same memory.

use super::marker::{Bool, Dyn, ElementMarker, I64, ScalarMarker, Tensor};
use super::random::Random;
use super::stage::{Rep, Stage};
use super::tensor::IntoShape;
use crate::graph::{Dim, Elem, Node, Op, Ty};
use std::cell::{Cell, RefCell};

/// The input that random numbers of a training program begin with, an i64.
pub const SEED: &str = "training.seed";
/// The state that counts the steps of training, an i64.
pub const STEP: &str = "training.step";

/// Streams of random numbers in one step, at most.
const STREAMS: i64 = 1 << 20;

/// What a stage knows of the program being for training.
#[derive(Default)]
pub(super) struct Training {
    /// Is it?
    is: bool,
    /// The weights so far.
    weights: RefCell<Vec<(String, Node)>>,
    /// Streams of random numbers so far.
    streams: Cell<i64>,
    /// States that have a next value so far, by name.
    updates: RefCell<Vec<(String, Node)>>,
}

impl Stage {
    /// A program whose weights are state: they change from run to run. Layers that do something else while a network is trained
    /// (dropout, batch norm) ask [`Stage::is_training`].
    pub fn for_training() -> Stage {
        let mut stage = Stage::new();
        stage.training.is = true;
        stage
    }

    /// Is the program for training?
    pub fn is_training(&self) -> bool {
        self.training.is
    }

    /// A tensor that the program keeps from run to run; all its extents are known. [`Stage::update`] gives its next value.
    #[track_caller]
    pub fn state<T: ScalarMarker>(&self, name: impl Into<String>, shape: impl IntoShape) -> Rep<'_, Tensor<T>> {
        self.kept(name.into(), shape, T::SCALAR.required())
    }

    #[track_caller]
    fn kept<T>(&self, name: String, shape: impl IntoShape, elem: Elem) -> Rep<'_, Tensor<T>> {
        let shape = shape.into_shape();
        if shape.iter().any(|dim| dim.as_const().is_none()) {
            return self.fail("tensor.input", format!("the extents of the state {name:?} must be known"));
        }
        self.make(Op::Input { name, ty: Ty::Tensor { elem, shape }, weight: false }, &[])
    }

    /// A weight of a program for training.
    #[track_caller]
    pub(super) fn trained<T>(&self, name: String, shape: impl IntoShape, elem: Elem) -> Rep<'_, Tensor<T>> {
        let weight = self.kept(name.clone(), shape, elem);
        let mut weights = self.training.weights.borrow_mut();
        if let Some(node) = weight.node().filter(|node| weights.iter().all(|(_, other)| other != node)) {
            weights.push((name, node));
        }
        weight
    }

    /// The weights of a program for training that have been asked for, those of one type, in the order in which they were.
    pub fn weights<T: ScalarMarker>(&self) -> Vec<(String, Rep<'_, Tensor<T>>)> {
        let weights = self.training.weights.borrow().clone();
        let handles = weights.into_iter().map(|(name, node)| (name, self.handle::<Dyn>(node)));
        let fits = |weight: &Rep<'_, Dyn>| {
            weight.ty().is_some_and(|ty| ty.as_tensor().is_some_and(|(elem, _)| elem.scalar == T::SCALAR))
        };
        handles.filter(|(_, weight)| fits(weight)).map(|(name, weight)| (name, weight.retag())).collect()
    }

    /// Declares the next value of a state, of the same type and shape. Only a state (or a weight of a program for training) has
    /// one, and only one.
    #[track_caller]
    pub fn update<'s, T: ElementMarker>(&'s self, state: Rep<'s, Tensor<T>>, value: Rep<'s, Tensor<T>>) {
        let (Some(node), Some(to), Some(found)) = (state.node(), state.ty(), value.ty()) else { return };
        match self.op(node) {
            Op::Input { name, weight: false, .. } if found == to => {
                self.training.updates.borrow_mut().push((name.clone(), node));
                self.output(name, value);
            }
            Op::Input { name, weight: false, .. } => {
                self.fail::<Dyn>("update", format!("the next value of {name:?} is {found}, expected {to}"));
            }
            op => {
                self.fail::<Dyn>("update", format!("{} is no state", op.name()));
            }
        }
    }

    /// Makes all updates so far depend on a condition, a scalar: where it is false, a state stays as it is.
    #[track_caller]
    pub fn update_only_if<'s>(&'s self, condition: Rep<'s, Tensor<Bool>>) {
        let mut outputs = self.outputs();
        for (name, state) in self.training.updates.take() {
            let Some((_, value)) = outputs.iter_mut().find(|(output, _)| *output == name) else { continue };
            let arms = [self.handle::<Dyn>(*value), self.handle(state)];
            let chosen: Rep<'_, Dyn> = self.make(Op::Select, &[condition.dyn_(), arms[0], arms[1]]);
            *value = chosen.node().unwrap_or(*value);
        }
        self.set_outputs(outputs);
    }

    /// Random numbers of this step of training, others at each call; none in a program that is not for training.
    #[track_caller]
    pub fn noise(&self) -> Option<Random<'_>> {
        let stream = self.training.streams.replace(self.training.streams.get() + 1);
        self.is_training().then(|| {
            let scalar = Vec::<Dim>::new;
            let (seed, step) = (self.input::<I64>(SEED, scalar()), self.state::<I64>(STEP, scalar()));
            self.random(seed, step * STREAMS + stream)
        })
    }
}
