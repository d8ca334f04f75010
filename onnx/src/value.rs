//! Values between the nodes of a model, and what a node sees of its own.

use crate::emit::{Emit, Fallible};
use crate::proto::{AttributeProto, NodeProto, TensorProto};
use crate::tensor::{self, Number, Texts};
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

    /// Texts.
    pub fn of_texts(texts: Texts) -> Known {
        Known::new(Scalar::String, texts.shape, texts.items.into_iter().map(Number::Text).collect())
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
    what: What,
    /// Its node, once there is one.
    node: Cell<Option<Node>>,
}

enum What {
    /// What a node of the graph gives, and its elements if they are known all the same.
    Made(Option<Known>),
    /// A tensor of the file.
    Tensor(Tensor),
    /// Computed at import; a reason where it can not be computed when the program runs.
    Known(Known, Option<String>),
    /// A sequence, whose length is always known.
    List(Vec<Rc<Value>>),
    /// An optional without an element.
    Nothing,
}

impl Value {
    fn new(name: &str, what: What, node: Option<Node>) -> Rc<Value> {
        Rc::new(Value { name: name.to_owned(), what, node: Cell::new(node) })
    }

    /// What a node of the graph gives.
    pub fn node(name: &str, node: Node, known: Option<Known>) -> Rc<Value> {
        Value::new(name, What::Made(known), Some(node))
    }

    /// A tensor of the file, which becomes a weight if a node needs it.
    pub fn tensor(name: &str, tensor: Tensor) -> Rc<Value> {
        Value::new(name, What::Tensor(tensor), None)
    }

    /// What was computed at import.
    pub fn known(name: &str, known: Known, missing: Option<String>) -> Rc<Value> {
        Value::new(name, What::Known(known, missing), None)
    }

    /// A sequence.
    pub fn list(name: &str, parts: Vec<Rc<Value>>) -> Rc<Value> {
        Value::new(name, What::List(parts), None)
    }

    /// An optional without an element.
    pub fn nothing(name: &str) -> Rc<Value> {
        Value::new(name, What::Nothing, None)
    }

    /// The same under another name.
    pub fn named(self: &Rc<Value>, name: &str) -> Rc<Value> {
        let what = match &self.what {
            What::Made(known) => What::Made(known.clone()),
            What::Known(known, missing) => What::Known(known.clone(), missing.clone()),
            What::List(parts) => What::List(parts.clone()),
            What::Nothing => What::Nothing,
            // Its name is that of the weight.
            What::Tensor(_) => return Rc::clone(self),
        };
        Value::new(name, what, self.node.get())
    }

    /// The elements of a sequence.
    pub fn parts(&self) -> Fallible<&[Rc<Value>]> {
        match &self.what {
            What::List(parts) => Ok(parts),
            _ => Err(format!("{:?} is no sequence", self.name)),
        }
    }

    /// Is it a sequence?
    pub fn is_list(&self) -> bool {
        matches!(self.what, What::List(_))
    }

    /// Is it an optional without an element?
    pub fn is_nothing(&self) -> bool {
        matches!(self.what, What::Nothing)
    }

    /// Its elements, if they are known.
    pub fn elements(&self) -> Option<Known> {
        match &self.what {
            What::Tensor(tensor) => Known::of(tensor),
            What::Made(known) => known.clone(),
            What::Known(known, _) => Some(known.clone()),
            What::List(_) | What::Nothing => None,
        }
    }

    /// Its elements, if no node of a program can give them: it has none, or they are texts.
    pub fn outside(&self) -> Option<Known> {
        self.elements().filter(|known| known.scalar == Scalar::String || known.shape.contains(&0))
    }

    /// Type of its elements.
    pub fn scalar(&self, emit: &Emit) -> Option<Scalar> {
        match (self.node.get(), &self.what) {
            (Some(node), _) => Some(emit.scalar(node)),
            (None, What::Tensor(tensor)) => Some(tensor.scalar()),
            (None, What::Known(known, _)) => Some(known.scalar),
            _ => None,
        }
    }

    /// Its extents, if they are known at import, and names of others.
    pub fn shape(&self, emit: &Emit) -> Option<Vec<Dim>> {
        let known = |shape: &[u64]| Some(shape.iter().map(|&n| Dim::Const(n)).collect());
        match (self.node.get(), &self.what) {
            (Some(node), _) => Some(emit.shape(node)),
            (None, What::Tensor(tensor)) => known(tensor.shape()),
            (None, What::Known(k, _)) => known(&k.shape),
            _ => None,
        }
    }

    /// Its node, which is made now if it is the first time that it is needed.
    pub fn in_graph(&self, emit: &mut Emit) -> Fallible<Node> {
        if let Some(node) = self.node.get() {
            return Ok(node);
        }
        let empty = || Err(format!("{:?} has no elements", self.name));
        let node = match &self.what {
            What::Known(_, Some(missing)) => return Err(missing.clone()),
            What::Known(known, _) if known.scalar == Scalar::String => {
                return Err(format!("{:?} holds texts, which are known at import only", self.name));
            }
            What::Tensor(tensor) if tensor.is_empty() => return empty(),
            What::Known(known, _) if known.items.is_empty() => return empty(),
            What::Tensor(tensor) if !tensor.shape().is_empty() => emit.weight(&self.name, tensor)?,
            What::Tensor(tensor) => emit.tensor(tensor)?,
            What::Known(known, _) => emit.numbers(known.scalar, &known.shape, &known.items)?,
            What::List(_) => return Err(format!("{:?} is a sequence, expected a tensor", self.name)),
            What::Made(_) | What::Nothing => return Err(format!("{:?} has no value", self.name)),
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
