//! Steps of a chain of arithmetic with numbers become fewer; `c` and `d` are constants, `w` a weight:
//!
//! ```text
//! (x * c) * d = x * (c * d)        (x * c) / d = x * (c / d)       (x * w) * c = x * (w * c)
//! (x * w + v) * c = x * (w * c) + v * c                            relu(x) * c = relu(x * c)           c > 0
//! s / c = s * (1 / c)              s a sum of products
//! round(i) = i, (i - c) + c = i    i a small integer               x * 1 = x, x - 0 = x
//! max(x, c) = x                    where x is never less           max(round(relu(x)), c) = max(round(x), c)    c >= 0
//! min(x, c) = x                    where x is never more
//! ```
//!
//! Reason: a product is followed by scales, shifts and bounds that were written for a reader, or by the exporter of a
//! quantised model; they run once for each element of the result.
//!
//! Preconditions: tensors of f32. What is done to weights is done once, when they are bound. A quotient becomes a product
//! only where the dividend is rounded itself. Equal up to rounding.

use super::number;
use crate::rewrite::Patch;
use crate::rewrite::expression::is_weight;
use crate::rewrite::users::Users;
use quearn_stage::graph::literal::int_range;
use quearn_stage::graph::{BinaryOp, Graph, Literal, Node, Op, Scalar, UnaryOp};

/// The same in fewer steps.
pub fn simplify_arithmetic(graph: &Graph, node: Node) -> Option<Patch> {
    if graph.ty(node).as_tensor()?.0 != Scalar::F32.required() {
        return None;
    }
    let chain = Chain { graph, node };
    match (graph.op(node), graph.inputs(node)) {
        (Op::Unary(UnaryOp::Round), &[x]) if chain.integers(x).is_some() => Some(Patch::new(graph).replace(node, x)),
        (Op::Binary(op), &[x, y]) => {
            let c = number(graph, y)?;
            match op {
                BinaryOp::Div => chain.quotient(x, c),
                BinaryOp::Mul => chain.product(x, c),
                BinaryOp::Sub if c == 0.0 => Some(Patch::new(graph).replace(node, x)),
                BinaryOp::Add => chain.sum(x, y),
                BinaryOp::Max => chain.at_least(x, y, c),
                BinaryOp::Min => (chain.integers(x)?.1 <= c).then(|| Patch::new(graph).replace(node, x)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The node that is looked at.
struct Chain<'g> {
    graph: &'g Graph,
    node: Node,
}

/// How far a product of a number and its reciprocal may be from one: a few steps of f32.
const STEPS: f64 = 4.0 * f32::EPSILON as f64;

/// The largest integers up to which every sum of two is exact in f32.
const EXACT: f64 = (1 << 22) as f64;

impl Chain<'_> {
    fn binary(&self, node: Node, op: BinaryOp) -> Option<[Node; 2]> {
        match (self.graph.op(node), self.graph.inputs(node)) {
            (Op::Binary(found), &[x, y]) if *found == op => Some([x, y]),
            _ => None,
        }
    }

    /// Is the node read by this one only?
    fn is_mine(&self, node: Node) -> bool {
        Users::of(self.graph).only(node, self.node)
    }

    fn constant(&self, patch: &mut Patch, value: f64) -> Option<Node> {
        let is_normal = (value as f32).is_normal();
        let literal = Literal::float(Scalar::F32, value).filter(|_| is_normal)?;
        Some(patch.add(Op::Const(literal), &[]))
    }

    /// `x * factor`, or `x` if that is one.
    fn scaled(&self, x: Node, factor: f64) -> Option<Patch> {
        let mut patch = Patch::new(self.graph);
        let new = match (factor - 1.0).abs() <= STEPS {
            true => x,
            false => {
                let factor = self.constant(&mut patch, factor)?;
                patch.add(Op::Binary(BinaryOp::Mul), &[x, factor])
            }
        };
        Some(patch.replace(self.node, new))
    }

    fn quotient(&self, x: Node, c: f64) -> Option<Patch> {
        if c == 0.0 {
            return None;
        }
        if let Some([inner, d]) = self.binary(x, BinaryOp::Mul)
            && let Some(d) = number(self.graph, d)
        {
            return self.scaled(inner, d / c);
        }
        self.is_sum_of_products(x).then(|| self.scaled(x, 1.0 / c))?
    }

    /// Was the node made by sums of products, which round more than a quotient does?
    fn is_sum_of_products(&self, node: Node) -> bool {
        let inputs = self.graph.inputs(node);
        match self.graph.op(node) {
            Op::MatMul | Op::Conv2d(_) | Op::BatchNorm { .. } => true,
            Op::Cast(_) | Op::Unary(UnaryOp::Relu) => self.is_sum_of_products(inputs[0]),
            Op::Binary(BinaryOp::Mul | BinaryOp::Add | BinaryOp::Sub) => {
                is_weight(self.graph, inputs[1]) && self.is_sum_of_products(inputs[0])
            }
            _ => false,
        }
    }

    fn product(&self, x: Node, c: f64) -> Option<Patch> {
        let graph = self.graph;
        if c == 1.0 {
            return Some(Patch::new(graph).replace(self.node, x));
        }
        let mul = |patch: &mut Patch, a, b| patch.add(Op::Binary(BinaryOp::Mul), &[a, b]);
        let &[_, factor] = graph.inputs(self.node) else { return None };
        if let Some([inner, w]) = self.binary(x, BinaryOp::Mul) {
            if let Some(d) = number(graph, w) {
                return self.scaled(inner, c * d);
            }
            let moves = is_weight(graph, w) && !is_weight(graph, inner) && self.is_mine(x);
            let mut patch = Patch::new(graph);
            let w = mul(&mut patch, w, factor);
            let new = mul(&mut patch, inner, w);
            return moves.then(|| patch.replace(self.node, new));
        }
        if let (Op::Unary(UnaryOp::Relu), &[inner]) = (graph.op(x), graph.inputs(x)) {
            let mut patch = Patch::new(graph);
            let scaled = mul(&mut patch, inner, factor);
            let new = patch.add(Op::Unary(UnaryOp::Relu), &[scaled]);
            return (c > 0.0 && self.is_affine(inner) && self.is_mine(x)).then(|| patch.replace(self.node, new));
        }
        let [inner, v] = self.binary(x, BinaryOp::Add)?;
        let mut patch = Patch::new(graph);
        let (left, right) = (mul(&mut patch, inner, factor), mul(&mut patch, v, factor));
        let new = patch.add(Op::Binary(BinaryOp::Add), &[left, right]);
        (self.is_affine(x) && self.is_mine(x)).then(|| patch.replace(self.node, new))
    }

    /// `x * w + v` or `x * w` with weights?
    fn is_affine(&self, node: Node) -> bool {
        let weight = |n: Node| is_weight(self.graph, n);
        let product = |node: Node| self.binary(node, BinaryOp::Mul).is_some_and(|[x, w]| weight(w) && !weight(x));
        product(node) || self.binary(node, BinaryOp::Add).is_some_and(|[x, v]| weight(v) && product(x))
    }

    fn sum(&self, x: Node, y: Node) -> Option<Patch> {
        let [inner, z] = self.binary(x, BinaryOp::Sub)?;
        (z == y && self.integers(x).is_some()).then(|| Patch::new(self.graph).replace(self.node, inner))
    }

    fn at_least(&self, x: Node, y: Node, c: f64) -> Option<Patch> {
        let graph = self.graph;
        if self.integers(x).is_some_and(|(low, _)| low >= c) {
            return Some(Patch::new(graph).replace(self.node, x));
        }
        let below = |node: Node, op: UnaryOp| match (graph.op(node), graph.inputs(node)) {
            (Op::Unary(found), &[x]) if *found == op => Some(x),
            _ => None,
        };
        let inner = below(below(x, UnaryOp::Round)?, UnaryOp::Relu).filter(|_| c >= 0.0)?;
        let mut patch = Patch::new(graph);
        let rounded = patch.add(Op::Unary(UnaryOp::Round), &[inner]);
        let new = patch.add(Op::Binary(BinaryOp::Max), &[rounded, y]);
        Some(patch.replace(self.node, new))
    }

    /// The bounds of a node that has small integers only.
    fn integers(&self, node: Node) -> Option<(f64, f64)> {
        let inputs = self.graph.inputs(node);
        let bounds = match self.graph.op(node) {
            Op::Cast(Scalar::F32) => {
                let of = self.graph.ty(inputs[0]).as_tensor()?.0.scalar;
                int_range(of).filter(|_| of.is_int()).map(|(low, high)| (low as f64, high as f64))
            }
            Op::Binary(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                let c = number(self.graph, inputs[1]).filter(|c| c.fract() == 0.0)?;
                let (low, high) = self.integers(inputs[0])?;
                let c = if *op == BinaryOp::Sub { -c } else { c };
                Some((low + c, high + c))
            }
            _ => None,
        };
        bounds.filter(|(low, high)| low.abs() <= EXACT && high.abs() <= EXACT)
    }
}
