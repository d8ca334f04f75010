//! The graph under construction, and the words in which operators are spelt out.

use crate::tensor::{Number, from_numbers};
use quearn::data::Tensor;
use quearn_stage::graph::{
    BinaryOp, CompareOp, Dim, Graph, Literal, Node, Op, ReduceOp, Region, Scalar, Steps, Ty, UnaryOp,
};
use std::collections::{BTreeMap, BTreeSet};

/// A result, or what is wrong with a node.
pub type Fallible<T> = Result<T, String>;

/// Operations of a program: what a model is spelt out into fits in memory.
const MOST_NODES: usize = 1 << 20;

/// Elements of a tensor, so that sizes and places in it are numbers of 64 bits.
const MOST_ELEMENTS: u64 = 1 << 48;

/// Elements of a tensor that the importer makes up.
const MOST_MADE_UP: u64 = 1 << 22;

/// May the importer make a tensor of this shape?
pub fn made_up(shape: &[u64]) -> Fallible<()> {
    let count = shape.iter().try_fold(1u64, |all, &n| all.checked_mul(n)).filter(|n| *n <= MOST_MADE_UP);
    count.map(drop).ok_or_else(|| format!("a constant of the shape {shape:?} would be too large"))
}

/// A graph under construction, with the weights that it names.
#[derive(Default)]
pub struct Emit {
    /// The graph.
    pub graph: Graph,
    /// Its weights.
    pub weights: BTreeMap<String, Tensor>,
    /// Names of the file, which made-up ones must not be.
    pub taken: BTreeSet<String>,
    /// Names of the inputs.
    pub inputs: BTreeSet<String>,
    made: usize,
}

impl Emit {
    /// A node.
    pub fn op(&mut self, op: Op, inputs: &[Node]) -> Fallible<Node> {
        if self.graph.len() >= MOST_NODES {
            return Err(format!("the program takes more than {MOST_NODES} operations"));
        }
        let node = self.graph.add(op, inputs).map_err(|e| e.to_string())?;
        let count = self.shape(node).iter().filter_map(Dim::as_const).try_fold(1u64, u64::checked_mul);
        match count.filter(|n| *n <= MOST_ELEMENTS) {
            Some(_) => Ok(node),
            None => Err(format!("a result of the type {} is too large", self.graph.ty(node))),
        }
    }

    /// Extents of a node.
    pub fn shape(&self, x: Node) -> Vec<Dim> {
        self.graph.ty(x).as_tensor().map_or(vec![], |(_, shape)| shape.to_vec())
    }

    /// Extents of a node, all of which must be known.
    pub fn extents(&self, x: Node) -> Fallible<Vec<u64>> {
        let known = self.shape(x).iter().map(Dim::as_const).collect::<Option<Vec<u64>>>();
        known.ok_or_else(|| format!("the extents of {} must all be known", self.graph.ty(x)))
    }

    /// One extent, which must be known.
    pub fn extent(&self, x: Node, axis: usize) -> Fallible<u64> {
        let dim = self.shape(x).get(axis).and_then(Dim::as_const);
        dim.ok_or_else(|| format!("extent {axis} of {} must be known", self.graph.ty(x)))
    }

    /// Number of axes.
    pub fn rank(&self, x: Node) -> usize {
        self.shape(x).len()
    }

    /// Type of the elements.
    pub fn scalar(&self, x: Node) -> Scalar {
        self.graph.ty(x).as_tensor().map_or(Scalar::F32, |(elem, _)| elem.scalar)
    }

    /// A weight or input by name.
    pub fn bound(&mut self, name: &str, scalar: Scalar, shape: Vec<Dim>, weight: bool) -> Fallible<Node> {
        let ty = Ty::Tensor { elem: scalar.required(), shape };
        self.op(Op::Input { name: name.to_owned(), ty, weight }, &[])
    }

    /// A weight of this value. Graphs inside others may have tensors of the same name as theirs.
    pub fn weight(&mut self, name: &str, tensor: &Tensor) -> Fallible<Node> {
        if self.inputs.contains(name) || self.weights.get(name).is_some_and(|other| other != tensor) {
            return self.constant(tensor);
        }
        let shape = tensor.shape().iter().map(|&n| Dim::Const(n)).collect();
        let node = self.bound(name, tensor.scalar(), shape, true)?;
        self.weights.insert(name.to_owned(), tensor.clone());
        Ok(node)
    }

    /// A tensor that the importer makes: a scalar in the program, anything else as a weight.
    pub fn tensor(&mut self, tensor: &Tensor) -> Fallible<Node> {
        if tensor.shape().is_empty() {
            let value = crate::tensor::numbers(tensor).remove(0);
            return self.number(tensor.scalar(), &value);
        }
        self.constant(tensor)
    }

    /// A weight under a name of its own.
    fn constant(&mut self, tensor: &Tensor) -> Fallible<Node> {
        loop {
            let name = format!("constant{}", self.made);
            self.made += 1;
            if self.taken.insert(name.clone()) {
                return self.weight(&name, tensor);
            }
        }
    }

    /// A tensor of numbers.
    pub fn numbers(&mut self, scalar: Scalar, shape: &[u64], numbers: &[Number]) -> Fallible<Node> {
        let tensor = from_numbers(scalar, shape, numbers).ok_or("a value known at import does not fit its type")?;
        self.tensor(&tensor)
    }

    /// A vector of floats.
    pub fn floats(&mut self, scalar: Scalar, shape: &[u64], values: &[f64]) -> Fallible<Node> {
        let numbers: Vec<Number> = values.iter().map(|x| Number::Float(*x)).collect();
        self.numbers(scalar, shape, &numbers)
    }

    /// A vector of integers.
    pub fn ints(&mut self, shape: &[u64], values: impl IntoIterator<Item = u64>) -> Fallible<Node> {
        made_up(shape)?;
        let numbers: Vec<Number> = values.into_iter().map(|x| Number::Int(x as i64)).collect();
        self.numbers(Scalar::I64, shape, &numbers)
    }

    /// A scalar.
    pub fn number(&mut self, scalar: Scalar, value: &Number) -> Fallible<Node> {
        let literal = match value {
            _ if scalar == Scalar::Bool => value.float().map(|x| Literal::bool(x != 0.0)),
            _ if scalar.is_float() => value.float().and_then(|x| Literal::float(scalar, x)),
            Number::Int(i) => Literal::int(scalar, (*i).into()),
            Number::Float(x) if x.fract() == 0.0 => Literal::int(scalar, *x as i128),
            _ => None,
        };
        let literal = literal.ok_or_else(|| format!("{value:?} is no {scalar}"))?;
        self.op(Op::Const(literal), &[])
    }

    /// A scalar of the type of `x`.
    pub fn like(&mut self, x: Node, value: f64) -> Fallible<Node> {
        self.number(self.scalar(x), &Number::Float(value))
    }

    /// An operation of one operand.
    pub fn unary(&mut self, op: UnaryOp, x: Node) -> Fallible<Node> {
        self.op(Op::Unary(op), &[x])
    }

    /// An operation of two operands.
    pub fn binary(&mut self, op: BinaryOp, a: Node, b: Node) -> Fallible<Node> {
        self.op(Op::Binary(op), &[a, b])
    }

    /// `a + b`.
    pub fn add(&mut self, a: Node, b: Node) -> Fallible<Node> {
        self.binary(BinaryOp::Add, a, b)
    }

    /// `a - b`.
    pub fn sub(&mut self, a: Node, b: Node) -> Fallible<Node> {
        self.binary(BinaryOp::Sub, a, b)
    }

    /// `a * b`.
    pub fn mul(&mut self, a: Node, b: Node) -> Fallible<Node> {
        self.binary(BinaryOp::Mul, a, b)
    }

    /// `a / b`.
    pub fn div(&mut self, a: Node, b: Node) -> Fallible<Node> {
        self.binary(BinaryOp::Div, a, b)
    }

    /// `x + value`.
    pub fn plus(&mut self, x: Node, value: f64) -> Fallible<Node> {
        let value = self.like(x, value)?;
        self.add(x, value)
    }

    /// `x * value`.
    pub fn times(&mut self, x: Node, value: f64) -> Fallible<Node> {
        let value = self.like(x, value)?;
        self.mul(x, value)
    }

    /// A comparison.
    pub fn compare(&mut self, op: CompareOp, a: Node, b: Node) -> Fallible<Node> {
        self.op(Op::Compare(op), &[a, b])
    }

    /// A comparison with a number.
    pub fn test(&mut self, op: CompareOp, x: Node, value: f64) -> Fallible<Node> {
        let value = self.like(x, value)?;
        self.compare(op, x, value)
    }

    /// `a` where `cond` is true, else `b`.
    pub fn select(&mut self, cond: Node, a: Node, b: Node) -> Fallible<Node> {
        self.op(Op::Select, &[cond, a, b])
    }

    /// Another type.
    pub fn cast(&mut self, x: Node, to: Scalar) -> Fallible<Node> {
        match to {
            _ if self.scalar(x) == to => Ok(x),
            Scalar::Bool => self.test(CompareOp::Ne, x, 0.0),
            _ => self.op(Op::Cast(to), &[x]),
        }
    }

    /// Another shape.
    pub fn reshape(&mut self, x: Node, to: Vec<Dim>) -> Fallible<Node> {
        if self.shape(x) == to { Ok(x) } else { self.op(Op::Reshape(to), &[x]) }
    }

    /// Another shape, of known extents.
    pub fn reshape_to(&mut self, x: Node, to: &[u64]) -> Fallible<Node> {
        self.reshape(x, to.iter().map(|&n| Dim::Const(n)).collect())
    }

    /// An axis of extent 1 more.
    pub fn insert_axis(&mut self, x: Node, axis: usize) -> Fallible<Node> {
        let mut shape = self.shape(x);
        shape.insert(axis, Dim::Const(1));
        self.reshape(x, shape)
    }

    /// An axis of extent 1 less.
    pub fn remove_axis(&mut self, x: Node, axis: usize) -> Fallible<Node> {
        let mut shape = self.shape(x);
        shape.remove(axis);
        self.reshape(x, shape)
    }

    /// Axes in another order.
    pub fn transpose(&mut self, x: Node, perm: Vec<usize>) -> Fallible<Node> {
        if perm.is_sorted() { Ok(x) } else { self.op(Op::Transpose(perm), &[x]) }
    }

    /// The last two axes exchanged.
    pub fn swap_last(&mut self, x: Node) -> Fallible<Node> {
        let rank = self.rank(x);
        if rank < 2 {
            return Err(format!("{} has no two axes", self.graph.ty(x)));
        }
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 2, rank - 1);
        self.transpose(x, perm)
    }

    /// An axis moved to another place.
    pub fn move_axis(&mut self, x: Node, from: usize, to: usize) -> Fallible<Node> {
        let mut perm: Vec<usize> = (0..self.rank(x)).collect();
        let axis = perm.remove(from);
        perm.insert(to, axis);
        self.transpose(x, perm)
    }

    /// Elements `start`, `start + step`, ... along an axis.
    pub fn slice(&mut self, x: Node, axis: usize, start: u64, step: i64, count: u64) -> Fallible<Node> {
        if count == 0 {
            return Err("tensors without elements are not supported".into());
        }
        if self.shape(x).get(axis) == Some(&Dim::Const(count)) && start == 0 && step == 1 {
            return Ok(x);
        }
        self.op(Op::Slice { axis, start, step, count }, &[x])
    }

    /// One element along an axis, which goes.
    pub fn pick(&mut self, x: Node, axis: usize, at: u64) -> Fallible<Node> {
        let part = self.slice(x, axis, at, 1, 1)?;
        self.remove_axis(part, axis)
    }

    /// Elements along an axis backwards.
    pub fn reverse(&mut self, x: Node, axis: usize) -> Fallible<Node> {
        let n = self.extent(x, axis)?;
        if n == 1 { Ok(x) } else { self.slice(x, axis, n - 1, -1, n) }
    }

    /// Repeated along axes of extent 1 and missing ones.
    pub fn broadcast(&mut self, x: Node, to: Vec<Dim>) -> Fallible<Node> {
        if self.shape(x) == to { Ok(x) } else { self.op(Op::Broadcast(to), &[x]) }
    }

    /// Joined along an axis.
    pub fn concat(&mut self, parts: &[Node], axis: usize) -> Fallible<Node> {
        match parts {
            [one] => Ok(*one),
            parts => self.op(Op::Concat { axis }, parts),
        }
    }

    /// Folded along axes, which are kept with extent 1.
    pub fn reduce_keep(&mut self, op: ReduceOp, x: Node, axes: &[usize]) -> Fallible<Node> {
        self.op(Op::Reduce { op, axes: axes.to_vec(), keep: true }, &[x])
    }

    /// Steps along an axis, see [`Op::Steps`]: `body` gets the carried values, which begin as `init`, and the slices of
    /// `wholes`, and gives the next carried values and what is collected. Gives the last carried values, and the collected.
    pub fn steps(
        &mut self,
        (count, axis, back): (u64, usize, bool),
        init: &[Node],
        wholes: &[Node],
        body: impl FnOnce(&mut Emit, &[Node]) -> Fallible<Vec<Node>>,
    ) -> Fallible<Vec<Node>> {
        let inputs = [init, wholes].concat();
        // A number that no other region has: its parameters are about to be made.
        let region = self.graph.len() as u32;
        let mut params = vec![];
        for (index, &node) in inputs.iter().enumerate() {
            let (scalar, mut shape) = (self.scalar(node), self.shape(node));
            if index >= init.len() {
                shape.remove(axis);
            }
            let ty = Ty::Tensor { elem: scalar.required(), shape };
            params.push(self.op(Op::Param { region, index: index as u32, ty }, &[])?);
        }
        let results = body(self, &params)?;
        let given = results.len();
        let steps = Steps { region: Region { params, results }, count, carried: init.len(), axis, back };
        let all = self.op(Op::Steps(steps), &inputs)?;
        if given == 1 { Ok(vec![all]) } else { (0..given).map(|i| self.op(Op::Item(i), &[all])).collect() }
    }

    /// Matrix product in a type that holds its sums.
    pub fn matmul(&mut self, a: Node, b: Node) -> Fallible<Node> {
        let scalar = self.scalar(a);
        if scalar.is_float() {
            return self.op(Op::MatMul, &[a, b]);
        }
        // Exact up to 2^53.
        let (a, b) = (self.cast(a, Scalar::F64)?, self.cast(b, Scalar::F64)?);
        let product = self.op(Op::MatMul, &[a, b])?;
        self.cast(product, scalar)
    }

    /// `before` and `after` copies of a scalar around an axis.
    pub fn pad(&mut self, x: Node, axis: usize, [before, after]: [i64; 2], value: Node) -> Fallible<Node> {
        let mut x = x;
        if before < 0 || after < 0 {
            let (cut, extent) = (before.min(0).unsigned_abs(), self.extent(x, axis)?);
            let rest = extent.checked_sub(cut + after.min(0).unsigned_abs());
            x = self.slice(x, axis, cut, 1, rest.ok_or("more is cut off than there is")?)?;
        }
        let mut parts = vec![x];
        for (place, count) in [(0, before), (1, after)] {
            if count > 0 {
                let mut shape = self.shape(x);
                shape[axis] = Dim::Const(count as u64);
                let part = self.broadcast(value, shape)?;
                parts.insert(place * parts.len(), part);
            }
        }
        self.concat(&parts, axis)
    }
}
