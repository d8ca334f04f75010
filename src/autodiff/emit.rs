//! Nodes in their simplest form, so that derived graphs stay small: nothing is multiplied by one, added to zero,
//! broadcast or reshaped to what it is.

use super::Error;
use quearn_stage::graph::{
    Aggregate, AggregateOp, BinaryOp, CompareOp, Dim, Graph, Literal, Node, Op, ReduceOp, Scalar, Shape, UnaryOp,
};
use std::collections::HashSet;

pub(super) type Made = Result<Node, Error>;

/// Writes nodes.
pub(super) struct Emit<'g> {
    /// The graph that grows.
    pub(super) graph: &'g mut Graph,
}

impl<'g> Emit<'g> {
    pub(super) fn new(graph: &'g mut Graph) -> Emit<'g> {
        Emit { graph }
    }

    /// A node as it is.
    pub(super) fn node(&mut self, op: Op, inputs: &[Node]) -> Made {
        Ok(self.graph.add(op, inputs)?)
    }

    pub(super) fn shape(&self, node: Node) -> Shape {
        self.graph.ty(node).as_tensor().map(|(_, shape)| shape.to_vec()).unwrap_or_default()
    }

    pub(super) fn scalar(&self, node: Node) -> Scalar {
        self.graph.ty(node).as_tensor().map_or(Scalar::F64, |(elem, _)| elem.scalar)
    }

    /// May elements be NULL?
    pub(super) fn nullable(&self, node: Node) -> bool {
        self.graph.ty(node).as_tensor().is_some_and(|(elem, _)| elem.nullable)
    }

    /// A float of a type.
    pub(super) fn number(&mut self, scalar: Scalar, value: f64) -> Made {
        let literal = Literal::float(scalar, value).unwrap_or_else(|| Literal::null(scalar));
        self.node(Op::Const(literal), &[])
    }

    /// A float of the type of a node's elements.
    pub(super) fn number_like(&mut self, node: Node, value: f64) -> Made {
        self.number(self.scalar(node), value)
    }

    /// The value of a float constant.
    pub(super) fn value(&self, node: Node) -> Option<f64> {
        match self.graph.op(node) {
            Op::Const(literal) => literal.as_float(),
            Op::Broadcast(_) => self.value(self.graph.inputs(node)[0]),
            _ => None,
        }
    }

    pub(super) fn unary(&mut self, op: UnaryOp, x: Node) -> Made {
        self.node(Op::Unary(op), &[x])
    }

    pub(super) fn binary(&mut self, op: BinaryOp, a: Node, b: Node) -> Made {
        self.node(Op::Binary(op), &[a, b])
    }

    /// The sum of two adjoints of one node.
    pub(super) fn add(&mut self, a: Node, b: Node) -> Made {
        match (self.value(a), self.value(b)) {
            (Some(x), Some(y)) => self.number_like(a, x + y),
            (Some(0.0), _) => Ok(b),
            (_, Some(0.0)) => Ok(a),
            _ => self.binary(BinaryOp::Add, a, b),
        }
    }

    pub(super) fn sub(&mut self, a: Node, b: Node) -> Made {
        match (self.value(a), self.value(b)) {
            (Some(x), Some(y)) => self.number_like(a, x - y),
            (_, Some(0.0)) => Ok(a),
            _ => self.binary(BinaryOp::Sub, a, b),
        }
    }

    pub(super) fn neg(&mut self, x: Node) -> Made {
        if let Some(value) = self.value(x) {
            return self.number_like(x, -value);
        }
        match self.graph.op(x) {
            Op::Unary(UnaryOp::Neg) => Ok(self.graph.inputs(x)[0]),
            _ => self.unary(UnaryOp::Neg, x),
        }
    }

    /// A product, of which one factor may lack dimensions.
    pub(super) fn mul(&mut self, a: Node, b: Node) -> Made {
        if self.scalar(a) != self.scalar(b) {
            return self.binary(BinaryOp::Mul, a, b);
        }
        match (self.value(a), self.value(b)) {
            (Some(x), Some(y)) => self.number_like(a, x * y),
            (Some(0.0), _) | (_, Some(0.0)) => self.number_like(a, 0.0),
            (Some(1.0), _) => Ok(b),
            (_, Some(1.0)) => Ok(a),
            (Some(-1.0), _) => self.neg(b),
            (_, Some(-1.0)) => self.neg(a),
            _ => self.binary(BinaryOp::Mul, a, b),
        }
    }

    pub(super) fn div(&mut self, a: Node, b: Node) -> Made {
        match (self.value(a), self.value(b)) {
            (Some(x), Some(y)) => self.number_like(a, x / y),
            (Some(0.0), None) => Ok(a),
            (_, Some(1.0)) => Ok(a),
            _ => self.binary(BinaryOp::Div, a, b),
        }
    }

    /// A multiple.
    pub(super) fn times(&mut self, x: Node, factor: f64) -> Made {
        let factor = self.number_like(x, factor)?;
        self.mul(x, factor)
    }

    pub(super) fn compare(&mut self, op: CompareOp, a: Node, b: Node) -> Made {
        self.node(Op::Compare(op), &[a, b])
    }

    pub(super) fn select(&mut self, cond: Node, a: Node, b: Node) -> Made {
        if a == b && self.value(a).is_some() {
            return Ok(a);
        }
        self.node(Op::Select, &[cond, a, b])
    }

    /// `x` where the condition holds, else zero.
    pub(super) fn only(&mut self, cond: Node, x: Node) -> Made {
        let zero = self.number_like(x, 0.0)?;
        self.select(cond, x, zero)
    }

    /// Zero where the condition holds, else `x`.
    pub(super) fn unless(&mut self, cond: Node, x: Node) -> Made {
        let zero = self.number_like(x, 0.0)?;
        self.select(cond, zero, x)
    }

    pub(super) fn cast(&mut self, x: Node, to: Scalar) -> Made {
        match self.value(x) {
            _ if self.scalar(x) == to => Ok(x),
            Some(value) if self.shape(x).is_empty() => self.number(to, value),
            _ => self.node(Op::Cast(to), &[x]),
        }
    }

    pub(super) fn reshape(&mut self, x: Node, shape: Shape) -> Made {
        let shape_now = self.shape(x);
        if shape_now == shape {
            return Ok(x);
        }
        match self.graph.op(x) {
            Op::Reshape(_) => {
                let inner = self.graph.inputs(x)[0];
                self.reshape(inner, shape)
            }
            _ => self.node(Op::Reshape(shape), &[x]),
        }
    }

    pub(super) fn transpose(&mut self, x: Node, perm: Vec<usize>) -> Made {
        if perm.is_sorted() {
            return Ok(x);
        }
        if let Op::Transpose(before) = self.graph.op(x) {
            let both = perm.iter().map(|&axis| before[axis]).collect();
            let inner = self.graph.inputs(x)[0];
            return self.transpose(inner, both);
        }
        self.node(Op::Transpose(perm), &[x])
    }

    /// The last two dimensions swapped.
    pub(super) fn swap_last(&mut self, x: Node) -> Made {
        let rank = self.shape(x).len();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 2, rank - 1);
        self.transpose(x, perm)
    }

    pub(super) fn slice(&mut self, x: Node, axis: usize, start: u64, step: i64, count: u64) -> Made {
        if start == 0 && step == 1 && self.shape(x)[axis] == Dim::Const(count) {
            return Ok(x);
        }
        self.node(Op::Slice { axis, start, step, count }, &[x])
    }

    pub(super) fn concat(&mut self, parts: &[Node], axis: usize) -> Made {
        if let [one] = parts { Ok(*one) } else { self.node(Op::Concat { axis }, parts) }
    }

    pub(super) fn reduce(&mut self, op: ReduceOp, x: Node, axes: &[usize], keep: bool) -> Made {
        if axes.is_empty() {
            return Ok(x);
        }
        self.node(Op::Reduce { op, axes: axes.to_vec(), keep }, &[x])
    }

    pub(super) fn matmul(&mut self, a: Node, b: Node) -> Made {
        self.node(Op::MatMul, &[a, b])
    }

    pub(super) fn broadcast(&mut self, x: Node, shape: Shape) -> Made {
        if self.shape(x) == shape {
            return Ok(x);
        }
        self.node(Op::Broadcast(shape), &[x])
    }

    /// Zeros of a known shape.
    pub(super) fn zeros(&mut self, scalar: Scalar, shape: Shape) -> Made {
        let zero = self.number(scalar, 0.0)?;
        self.broadcast(zero, shape)
    }

    /// An adjoint with all elements of its node.
    pub(super) fn full(&mut self, adjoint: Node, like: Node) -> Made {
        let (shape, found) = (self.shape(like), self.shape(adjoint));
        let lacks_rows = shape.iter().any(|dim| matches!(dim, Dim::Rows(_)) && !found.contains(dim));
        if !lacks_rows {
            return self.broadcast(adjoint, shape);
        }
        // The rows of a table come from a value over them only, here from one that does not count.
        let known = self.unary(UnaryOp::IsNull, like)?;
        self.node(Op::Select, &[known, adjoint, adjoint])
    }

    /// The gradient by a node, from its adjoint.
    pub(super) fn gradient(&mut self, adjoint: Option<Node>, of: Node) -> Made {
        let adjoint = match adjoint {
            Some(adjoint) => adjoint,
            None => self.number_like(of, 0.0)?,
        };
        self.full(adjoint, of)
    }

    /// An adjoint with as many dimensions as its node, of which some may be 1.
    pub(super) fn aligned(&mut self, adjoint: Node, rank: usize) -> Made {
        let mut shape = self.shape(adjoint);
        while shape.len() < rank {
            shape.insert(0, Dim::Const(1));
        }
        self.reshape(adjoint, shape)
    }

    /// How many elements there are along a dimension, as a float.
    pub(super) fn extent(&mut self, dim: &Dim, scalar: Scalar) -> Made {
        match dim {
            Dim::Const(n) => self.number(scalar, *n as f64),
            Dim::Named(_) => {
                let one = self.number(scalar, 1.0)?;
                let ones = self.broadcast(one, vec![dim.clone()])?;
                self.reduce(ReduceOp::Sum, ones, &[0], false)
            }
            Dim::Rows(table) => {
                let count = Aggregate { name: "rows".to_owned(), op: AggregateOp::CountRows };
                let counted = self.node(Op::Aggregate { keys: vec![], aggregates: vec![count] }, &[*table])?;
                let column = self.node(Op::Column("rows".to_owned()), &[counted])?;
                let single = self.node(Op::Single, &[column])?;
                self.cast(single, scalar)
            }
        }
    }

    /// The product of some extents.
    pub(super) fn extents<'d>(&mut self, dims: impl IntoIterator<Item = &'d Dim>, scalar: Scalar) -> Made {
        let mut product = self.number(scalar, 1.0)?;
        for dim in dims {
            let extent = self.extent(dim, scalar)?;
            product = self.mul(product, extent)?;
        }
        Ok(product)
    }

    /// Is the value one of each row, or a scalar, that needs no tensor operator?
    fn is_row_expression(&self, root: Node) -> bool {
        let (mut seen, mut stack) = (HashSet::new(), vec![root]);
        while let Some(node) = stack.pop() {
            if !seen.insert(node) {
                continue;
            }
            match self.graph.op(node) {
                Op::Column(_) | Op::Single => {}
                Op::Input { .. } if self.shape(node).is_empty() => {}
                Op::Const(_) | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::If | Op::Cast(_) => {
                    stack.extend(self.graph.inputs(node));
                }
                _ => return false,
            }
        }
        true
    }

    /// The sum over the rows of a table, as an aggregate of it.
    fn sum_of_rows(&mut self, x: Node) -> Made {
        const NAME: &str = "sum";
        let Some(table) = self.table_of(x) else { return self.reduce(ReduceOp::Sum, x, &[0], false) };
        let sum = Aggregate { name: NAME.to_owned(), op: AggregateOp::Sum };
        let summed = self.node(Op::Aggregate { keys: vec![], aggregates: vec![sum] }, &[table, x])?;
        let column = self.node(Op::Column(NAME.to_owned()), &[summed])?;
        let single = self.node(Op::Single, &[column])?;
        // The sum over no rows is NULL.
        let zero = self.number_like(single, 0.0)?;
        let sum = self.binary(BinaryOp::Coalesce, single, zero)?;
        self.cast(sum, self.scalar(x))
    }

    /// The last table whose columns a row expression reads: the others have the same rows and are below it.
    fn table_of(&self, root: Node) -> Option<Node> {
        let rows = self.shape(root);
        let (mut last, mut stack) = (None, vec![root]);
        while let Some(node) = stack.pop() {
            if self.shape(node).first() != rows.first() {
                continue;
            }
            match self.graph.op(node) {
                Op::Column(_) => last = last.max(Some(self.graph.inputs(node)[0])),
                _ => stack.extend(self.graph.inputs(node)),
            }
        }
        last
    }

    /// What was broadcast from the shape `to` to the shape `from` is summed up on the way back. `part` broadcasts to
    /// `from`; where it lacks a dimension, the sum is a multiple.
    pub(super) fn sum_to(&mut self, part: Node, from: &[Dim], to: &[Dim]) -> Made {
        let found = self.shape(part);
        let (skip, lacking) = (from.len() - to.len(), from.len().saturating_sub(found.len()));
        let one = |dim: &Dim| *dim == Dim::Const(1);
        let repeated = |i: &usize| *i < skip || one(&to[i - skip]) && !one(&from[*i]);
        let (mut axes, mut multiples) = (vec![], vec![]);
        for i in (0..from.len()).filter(repeated) {
            match i.checked_sub(lacking) {
                Some(axis) if !one(&found[axis]) => axes.push(axis),
                _ => multiples.push(from[i].clone()),
            }
        }
        if let ([Dim::Rows(_)], [], [0]) = (&found[..], to, &axes[..])
            && self.is_row_expression(part)
        {
            return self.sum_of_rows(part);
        }
        let dropped = skip.saturating_sub(lacking);
        let leading = axes.iter().copied().eq(0..axes.len()) && axes.len() == dropped;
        let mut sum = self.reduce(ReduceOp::Sum, part, &axes, !leading)?;
        if !leading {
            let kept = self.shape(sum)[dropped..].to_vec();
            sum = self.reshape(sum, kept)?;
        }
        let factor = self.extents(&multiples, self.scalar(sum))?;
        self.mul(sum, factor)
    }
}
