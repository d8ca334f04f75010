//! The program under construction, and the handles on its nodes.

use super::constant::Natural;
use super::marker::{Dyn, I64, Marker, ScalarMarker, Table, Tensor};
use super::state::Training;
use super::tensor::IntoShape;
use crate::graph::{Elem, Field, Graph, GraphError, Literal, Node, Op, Ty, verify};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;

/// A program under construction. Its methods, and the operators of [`Rep`], add nodes to one graph.
#[derive(Default)]
pub struct Stage {
    graph: RefCell<Graph>,
    error: RefCell<Option<StageError>>,
    regions: Cell<u32>,
    pub(super) training: Training,
}

/// The first mistake in a program, and where in the source it was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error} (at {location})")]
pub struct StageError {
    /// What is wrong.
    pub error: GraphError,
    /// The place of the call.
    pub location: &'static Location<'static>,
}

/// A value of the type `T` in the program that `'s` is the stage of. A scalar and a column of a table have the same
/// type, so that a function over one is a function over the other.
pub struct Rep<'s, T> {
    stage: &'s Stage,
    /// `None` after a mistake.
    node: Option<Node>,
    marker: PhantomData<fn() -> T>,
}

impl<T> Clone for Rep<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Rep<'_, T> {}

impl<T> fmt::Debug for Rep<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "Rep({node})"),
            None => f.write_str("Rep(poisoned)"),
        }
    }
}

impl<'s, T> Rep<'s, T> {
    /// The stage that the value belongs to.
    pub fn stage(self) -> &'s Stage {
        self.stage
    }

    /// The node in the graph; `None` after a mistake.
    pub fn node(self) -> Option<Node> {
        self.node
    }

    /// The type in the graph; `None` after a mistake.
    pub fn ty(self) -> Option<Ty> {
        Some(self.stage.graph.borrow().ty(self.node?).clone())
    }

    /// The dynamically typed handle on the same value.
    pub fn dyn_(self) -> Rep<'s, Dyn> {
        self.retag()
    }

    /// The same node under another marker, where the caller knows that it fits.
    pub(super) fn retag<U>(self) -> Rep<'s, U> {
        Rep { stage: self.stage, node: self.node, marker: PhantomData }
    }

    /// The same node under another marker, if its type is one of the marker's; `op` and `what` name it in the error.
    #[track_caller]
    pub(super) fn checked<U: Marker>(self, op: &str, what: &str) -> Rep<'s, U> {
        match self.ty() {
            Some(ty) if !U::accepts(&ty) => self.stage.fail(op, format!("{what} is {ty}, expected {}", U::name())),
            _ => self.retag(),
        }
    }
}

impl Stage {
    /// An empty program.
    pub fn new() -> Stage {
        Stage::default()
    }

    /// All rows of a table of the catalog, with the columns to read.
    #[track_caller]
    pub fn scan(&self, table: impl Into<String>, fields: impl IntoIterator<Item = Field>) -> Rep<'_, Table> {
        self.make(Op::Scan { table: table.into(), fields: fields.into_iter().collect() }, &[])
    }

    /// A tensor that is given when the program runs. A name as a dimension stands for an extent known only then:
    /// `s.input::<F32>("x", ("batch", 3, 224, 224))`.
    #[track_caller]
    pub fn input<T: ScalarMarker>(&self, name: impl Into<String>, shape: impl IntoShape) -> Rep<'_, Tensor<T>> {
        self.bound(name.into(), shape, T::SCALAR.required(), false)
    }

    /// A tensor that is given once, before the program runs many times; in a program [for training](Stage::for_training) one
    /// that changes from run to run.
    #[track_caller]
    pub fn weight<T: ScalarMarker>(&self, name: impl Into<String>, shape: impl IntoShape) -> Rep<'_, Tensor<T>> {
        if self.is_training() {
            return self.trained(name.into(), shape, T::SCALAR.required());
        }
        self.bound(name.into(), shape, T::SCALAR.required(), true)
    }

    /// A scalar that is given when the program runs, such as the key of the rows that are asked for. It stands wherever a
    /// constant may: `t.filter(|r| r.i64("key").eq(s.given("key")))`.
    #[track_caller]
    pub fn given<T: ScalarMarker>(&self, name: impl Into<String>) -> Rep<'_, T> {
        self.bound(name.into(), Vec::<u64>::new(), T::SCALAR.required(), false)
    }

    #[track_caller]
    fn bound<T>(&self, name: String, shape: impl IntoShape, elem: Elem, weight: bool) -> Rep<'_, T> {
        self.make(Op::Input { name, ty: Ty::Tensor { elem, shape: shape.into_shape() }, weight }, &[])
    }

    /// A scalar known now: `s.constant(1.5)`, `s.constant(date("1994-01-01"))`.
    #[track_caller]
    pub fn constant<'s, V: Natural<'s>>(&'s self, value: V) -> Rep<'s, V::Marker> {
        value.into_rep(self)
    }

    /// The numbers from 0 up to (and without) `count`, such as the positions of the words of a text.
    #[track_caller]
    pub fn iota(&self, count: u64) -> Rep<'_, Tensor<I64>> {
        self.make(Op::Iota(count), &[])
    }

    /// NULL of a scalar type.
    #[track_caller]
    pub fn null<T: ScalarMarker>(&self) -> Rep<'_, T> {
        self.make(Op::Const(Literal::null(T::SCALAR)), &[])
    }

    /// Declares a result of the program.
    #[track_caller]
    pub fn output<T: Marker>(&self, name: impl Into<String>, value: Rep<'_, T>) {
        let name = name.into();
        let taken = self.graph.borrow().outputs().iter().any(|(other, _)| *other == name);
        if taken {
            self.fail::<Dyn>("output", format!("two outputs are named {name:?}"));
        } else if !std::ptr::eq(self, value.stage) {
            self.fail::<Dyn>("output", format!("{name:?} belongs to another stage"));
        } else if let Some(node) = value.node {
            self.graph.borrow_mut().output(name, node);
        }
    }

    /// The finished program.
    ///
    /// # Errors
    /// The first mistake that was made while it was written.
    #[track_caller]
    pub fn finish(self) -> Result<Graph, StageError> {
        if let Some(error) = self.error.into_inner() {
            return Err(error);
        }
        let graph = self.graph.into_inner();
        match verify(&graph) {
            Ok(()) => Ok(graph),
            Err(error) => Err(StageError { error, location: Location::caller() }),
        }
    }

    /// Values that a function makes of others in the graph itself, `count` of them, as derivatives are made. Where one
    /// of the others is poisoned, or the function fails, so are they; `op` names the function in messages.
    #[track_caller]
    pub fn extend<'s, T: Marker>(
        &'s self,
        op: &str,
        of: &[Rep<'s, Dyn>],
        count: usize,
        make: impl FnOnce(&mut Graph, &[Node]) -> Result<Vec<Node>, GraphError>,
    ) -> Vec<Rep<'s, T>> {
        if of.iter().any(|input| !std::ptr::eq(self, input.stage)) {
            self.fail::<T>(op, "its operands belong to different stages");
            return vec![self.poisoned(); count];
        }
        let Some(nodes) = of.iter().map(|input| input.node).collect::<Option<Vec<Node>>>() else {
            return vec![self.poisoned(); count];
        };
        let made = make(&mut self.graph.borrow_mut(), &nodes);
        // Regions that were made have numbers that no other may have.
        self.regions.set(self.regions.get().max(self.graph.borrow().free_region()));
        let mut values = vec![];
        match made {
            Ok(made) if made.len() == count => {
                for node in made {
                    let value = Rep::<Dyn> { stage: self, node: Some(node), marker: PhantomData };
                    values.push(value.checked(op, "a result"));
                }
            }
            Ok(made) => values.push(self.fail(op, format!("gives {} values, expected {count}", made.len()))),
            Err(error) => values.push(self.fail(&error.op, error.message)),
        }
        values.resize(count, self.poisoned());
        values
    }

    /// The node of an operation, or a poisoned handle.
    #[track_caller]
    pub(super) fn make<'s, T>(&'s self, op: Op, inputs: &[Rep<'s, Dyn>]) -> Rep<'s, T> {
        if inputs.iter().any(|input| !std::ptr::eq(self, input.stage)) {
            return self.fail(&op.name(), "its operands belong to different stages");
        }
        let Some(nodes) = inputs.iter().map(|input| input.node).collect::<Option<Vec<Node>>>() else {
            return self.poisoned();
        };
        let made = self.graph.borrow_mut().add(op, &nodes);
        match made {
            Ok(node) => Rep { stage: self, node: Some(node), marker: PhantomData },
            Err(error) => self.fail(&error.op, error.message),
        }
    }

    /// Keeps the first mistake, and gives a poisoned handle.
    #[track_caller]
    pub(super) fn fail<T>(&self, op: &str, message: impl Into<String>) -> Rep<'_, T> {
        let error = GraphError { op: op.to_owned(), message: message.into() };
        self.error.borrow_mut().get_or_insert(StageError { error, location: Location::caller() });
        self.poisoned()
    }

    pub(super) fn poisoned<T>(&self) -> Rep<'_, T> {
        Rep { stage: self, node: None, marker: PhantomData }
    }

    /// A handle on a node of this program.
    pub(super) fn handle<T>(&self, node: Node) -> Rep<'_, T> {
        Rep { stage: self, node: Some(node), marker: PhantomData }
    }

    /// The operation of a node.
    pub(super) fn op(&self, node: Node) -> Op {
        self.graph.borrow().op(node).clone()
    }

    /// The results so far.
    pub(super) fn outputs(&self) -> Vec<(String, Node)> {
        self.graph.borrow().outputs().to_vec()
    }

    /// Other results in their place.
    pub(super) fn set_outputs(&self, outputs: Vec<(String, Node)>) {
        let mut graph = self.graph.borrow_mut();
        graph.clear_outputs();
        outputs.into_iter().for_each(|(name, node)| graph.output(name, node));
    }

    /// A number that no region of this program has.
    pub(super) fn new_region(&self) -> u32 {
        self.regions.replace(self.regions.get() + 1)
    }
}
