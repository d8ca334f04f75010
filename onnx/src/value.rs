//! Values between the nodes of a model, and what a node sees of its own.

use crate::emit::{Emit, Fallible};
use crate::proto::{AttributeProto, NodeProto, TensorProto};
use crate::tensor::{self, Number};
use quearn::data::Tensor;
use quearn_stage::graph::{Dim, Node, Scalar};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

/// Constants of more elements are not computed with at import.
const MOST_KNOWN: usize = 1 << 16;

/// A tensor whose elements are known at import.
#[derive(Clone, Debug)]
pub struct Known {
    /// Type of the elements.
    pub scalar: Scalar,
    /// Extents.
    pub shape: Vec<u64>,
    /// Elements.
    pub items: Vec<Number>,
    /// The inputs of the model on whose given values the elements depend.
    pub given: BTreeSet<String>,
}

impl Known {
    /// A constant.
    pub fn new(scalar: Scalar, shape: Vec<u64>, items: Vec<Number>) -> Known {
        Known { scalar, shape, items, given: BTreeSet::new() }
    }

    fn of(tensor: &Tensor) -> Option<Known> {
        let small = tensor.len() <= MOST_KNOWN;
        small.then(|| Known::new(tensor.scalar(), tensor.shape().to_vec(), tensor::numbers(tensor)))
    }
}

/// A value of a model.
pub struct Value {
    /// Its name in the file.
    pub name: String,
    node: Cell<Option<Node>>,
    /// A tensor of the file.
    tensor: Option<Tensor>,
    known: Option<Known>,
    /// Why there is no node, where its elements are known but could not be computed when the program runs.
    missing: Option<String>,
}

impl Value {
    /// What a node of the graph gives.
    pub fn node(name: &str, node: Node, known: Option<Known>) -> Rc<Value> {
        let (name, node) = (name.to_owned(), Cell::new(Some(node)));
        Rc::new(Value { name, node, tensor: None, known, missing: None })
    }

    /// A tensor of the file, which becomes a weight if a node needs it.
    pub fn tensor(name: &str, tensor: Tensor) -> Rc<Value> {
        let name = name.to_owned();
        Rc::new(Value { name, node: Cell::new(None), tensor: Some(tensor), known: None, missing: None })
    }

    /// What was computed at import.
    pub fn known(name: &str, known: Known, missing: Option<String>) -> Rc<Value> {
        Rc::new(Value { name: name.to_owned(), node: Cell::new(None), tensor: None, known: Some(known), missing })
    }

    /// Its elements, if they are known.
    pub fn elements(&self) -> Option<Known> {
        match &self.tensor {
            Some(tensor) => Known::of(tensor),
            None => self.known.clone(),
        }
    }

    /// Type of its elements.
    pub fn scalar(&self, emit: &Emit) -> Option<Scalar> {
        match (self.node.get(), &self.tensor, &self.known) {
            (Some(node), ..) => Some(emit.scalar(node)),
            (None, Some(tensor), _) => Some(tensor.scalar()),
            (None, None, known) => known.as_ref().map(|known| known.scalar),
        }
    }

    /// Its extents, if they are known at import, and names of others.
    pub fn shape(&self, emit: &Emit) -> Option<Vec<Dim>> {
        match (self.node.get(), &self.tensor, &self.known) {
            (Some(node), ..) => Some(emit.shape(node)),
            (None, Some(tensor), _) => Some(tensor.shape().iter().map(|&n| Dim::Const(n)).collect()),
            (None, None, Some(known)) => Some(known.shape.iter().map(|&n| Dim::Const(n)).collect()),
            _ => None,
        }
    }

    /// Its node, which is made now if it is the first time that it is needed.
    pub fn in_graph(&self, emit: &mut Emit) -> Fallible<Node> {
        if let Some(node) = self.node.get() {
            return Ok(node);
        }
        if let Some(missing) = &self.missing {
            return Err(missing.clone());
        }
        let node = match (&self.tensor, &self.known) {
            (Some(tensor), _) if tensor.is_empty() => return Err(format!("{:?} has no elements", self.name)),
            (Some(tensor), _) if !tensor.shape().is_empty() => emit.weight(&self.name, tensor)?,
            (Some(tensor), _) => emit.tensor(tensor)?,
            (None, Some(known)) if known.items.is_empty() => return Err(format!("{:?} has no elements", self.name)),
            (None, Some(known)) => emit.numbers(known.scalar, &known.shape, &known.items)?,
            (None, None) => return Err(format!("{:?} has no value", self.name)),
        };
        self.node.set(Some(node));
        Ok(node)
    }
}

/// A node of the model while it is imported.
pub struct Call<'a> {
    /// Where its operations go.
    pub emit: &'a mut Emit,
    /// The node.
    pub proto: &'a NodeProto,
    /// Its inputs; `None` for one that is left out.
    pub inputs: Vec<Option<Rc<Value>>>,
    /// Version of the operator set.
    pub opset: i64,
    /// Inputs of the model whose given values the program depends on.
    pub used: &'a RefCell<BTreeSet<String>>,
    /// Where the model lies.
    pub folder: Option<&'a Path>,
}

impl Call<'_> {
    /// Is the input there?
    pub fn has(&self, i: usize) -> bool {
        self.inputs.get(i).is_some_and(Option::is_some)
    }

    /// An input, which must be there.
    pub fn value(&self, i: usize) -> Fallible<&Rc<Value>> {
        self.inputs.get(i).and_then(Option::as_ref).ok_or_else(|| format!("input {i} is missing"))
    }

    /// An input in the graph.
    pub fn x(&mut self, i: usize) -> Fallible<Node> {
        let value = Rc::clone(self.value(i)?);
        value.in_graph(self.emit)
    }

    /// An input in the graph, if it is there.
    pub fn optional(&mut self, i: usize) -> Fallible<Option<Node>> {
        if self.has(i) { self.x(i).map(Some) } else { Ok(None) }
    }

    /// All inputs in the graph.
    pub fn all(&mut self) -> Fallible<Vec<Node>> {
        (0..self.inputs.len()).map(|i| self.x(i)).collect()
    }

    /// The elements of an input, which shapes hang on.
    pub fn known(&self, i: usize) -> Fallible<Known> {
        let value = self.value(i)?;
        let known = value.elements().ok_or_else(|| {
            format!(
                "the value of {:?} must be known at import (a constant, computed from shapes, or given)",
                value.name
            )
        })?;
        self.used.borrow_mut().extend(known.given.iter().cloned());
        Ok(known)
    }

    /// The elements of an input as integers.
    pub fn known_ints(&self, i: usize) -> Fallible<Vec<i64>> {
        let ints = self.known(i)?.items.iter().map(Number::int).collect::<Option<Vec<i64>>>();
        ints.ok_or_else(|| format!("input {i} must be integers that are known at import"))
    }

    /// The elements of an input as floats.
    pub fn known_floats(&self, i: usize) -> Fallible<Vec<f64>> {
        let floats = self.known(i)?.items.iter().map(Number::float).collect::<Option<Vec<f64>>>();
        floats.ok_or_else(|| format!("input {i} must be numbers that are known at import"))
    }

    /// The only element of an input, if that is known.
    pub fn known_number(&self, i: usize) -> Fallible<f64> {
        match self.known_floats(i)?[..] {
            [one] => Ok(one),
            _ => Err(format!("input {i} must be one number")),
        }
    }

    /// Integers from an attribute, or from an input as newer versions have it.
    pub fn ints_from(&self, attribute: &str, input: usize) -> Fallible<Option<Vec<i64>>> {
        match self.ints(attribute) {
            Some(ints) => Ok(Some(ints)),
            None if self.has(input) => self.known_ints(input).map(Some),
            None => Ok(None),
        }
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.proto.attribute.iter().find(|a| a.name() == name)
    }

    /// Is the attribute there?
    pub fn has_attribute(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    /// A float attribute.
    pub fn float(&self, name: &str, default: f64) -> f64 {
        self.attribute(name).and_then(|a| a.f).map_or(default, f64::from)
    }

    /// An attribute of several integers.
    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|a| a.ints.clone())
    }

    /// An attribute of several floats.
    pub fn floats(&self, name: &str) -> Option<Vec<f64>> {
        self.attribute(name).map(|a| a.floats.iter().map(|x| f64::from(*x)).collect())
    }

    /// A text attribute.
    pub fn text(&self, name: &str, default: &str) -> String {
        let text = self.attribute(name).and_then(|a| a.s.as_ref());
        text.map_or(default.to_owned(), |s| String::from_utf8_lossy(s).into_owned())
    }

    /// An attribute of several texts.
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let text = |s: &Vec<u8>| String::from_utf8_lossy(s).into_owned();
        self.attribute(name).map(|a| a.strings.iter().map(text).collect())
    }

    /// A tensor attribute.
    pub fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.attribute(name).and_then(|a| a.t.as_ref())
    }

    /// An axis, counted from the end if it is negative.
    pub fn axis(&self, axis: i64, rank: usize) -> Fallible<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(at).ok().filter(|a| *a < rank).ok_or_else(|| format!("no axis {axis} among {rank}"))
    }

    /// Axes, ascending and without repetition.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Fallible<Vec<usize>> {
        let mut axes = axes.iter().map(|&a| self.axis(a, rank)).collect::<Fallible<Vec<usize>>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(axes)
    }

    /// Is another output than the first asked for?
    pub fn wants(&self, output: usize) -> bool {
        self.proto.output.get(output).is_some_and(|name| !name.is_empty())
    }
}
