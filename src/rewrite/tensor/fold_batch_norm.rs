//! With `s = scale / sqrt(var + eps)` for each output channel:
//!
//! ```text
//! batch_norm(conv2d(x, w, b))   = conv2d(x, w * s, (b - mean) * s + bias)
//! batch_norm(matmul(x, w) + b)  = matmul(x, w * s) + ((b - mean) * s + bias)
//! ```
//!
//! Reason: the new weights depend on weights only, so that they are computed when weights are bound and not in every
//! run; a pass over the activations is gone.
//!
//! Preconditions: all operands but `x` are weights or made from them; the convolution or product is read by the
//! normalisation only; the type is f32 or f64 (half floats would lose digits in the product). Equal up to rounding.

use crate::rewrite::Patch;
use crate::rewrite::expression::is_weight;
use crate::rewrite::users::Users;
use quearn_stage::graph::{BinaryOp, Dim, Graph, Literal, Node, Op, Scalar, UnaryOp};

/// The normalisation as part of the weights of the operator below it.
pub fn fold_batch_norm(graph: &Graph, node: Node) -> Option<Patch> {
    let Op::BatchNorm { eps } = graph.op(node) else { return None };
    let &[below, scale, bias, mean, var] = graph.inputs(node) else { return None };
    let linear = linear(graph, node, below)?;
    let scalar = graph.ty(node).as_tensor()?.0.scalar;
    let weights = [scale, bias, mean, var, linear.weight].into_iter().chain(linear.bias);
    if !matches!(scalar, Scalar::F32 | Scalar::F64) || !weights.into_iter().all(|n| is_weight(graph, n)) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let p = &mut patch;
    let eps = p.add(Op::Const(Literal::float(scalar, f64::from_bits(*eps))?), &[]);
    let widened = binary(p, BinaryOp::Add, var, eps);
    let deviation = p.add(Op::Unary(UnaryOp::Sqrt), &[widened]);
    let factor = binary(p, BinaryOp::Div, scale, deviation);
    let shifted = match linear.bias {
        Some(b) => {
            let centred = binary(p, BinaryOp::Sub, b, mean);
            let scaled = binary(p, BinaryOp::Mul, centred, factor);
            binary(p, BinaryOp::Add, scaled, bias)
        }
        None => {
            let scaled = binary(p, BinaryOp::Mul, mean, factor);
            binary(p, BinaryOp::Sub, bias, scaled)
        }
    };
    let new = linear.with(graph, p, factor, shifted);
    Some(patch.replace(node, new))
}

fn binary(patch: &mut Patch, op: BinaryOp, a: Node, b: Node) -> Node {
    patch.add(Op::Binary(op), &[a, b])
}

/// A convolution, or a product of matrices and perhaps a sum.
struct Linear {
    op: Op,
    x: Node,
    weight: Node,
    bias: Option<Node>,
}

impl Linear {
    /// The operator with its weight scaled for each output channel and another bias.
    fn with(self, graph: &Graph, patch: &mut Patch, factor: Node, bias: Node) -> Node {
        if self.op == Op::MatMul {
            let weight = binary(patch, BinaryOp::Mul, self.weight, factor);
            let product = patch.add(Op::MatMul, &[self.x, weight]);
            return binary(patch, BinaryOp::Add, product, bias);
        }
        let filters = graph.ty(self.weight).as_tensor().map_or(Dim::Const(1), |(_, shape)| shape[0].clone());
        let per_filter = vec![filters, Dim::Const(1), Dim::Const(1), Dim::Const(1)];
        let factor = patch.add(Op::Reshape(per_filter), &[factor]);
        let weight = binary(patch, BinaryOp::Mul, self.weight, factor);
        patch.add(self.op, &[self.x, weight, bias])
    }
}

/// What stands below the normalisation and is read by nobody else.
fn linear(graph: &Graph, node: Node, below: Node) -> Option<Linear> {
    let users = Users::of(graph);
    if !users.only(below, node) {
        return None;
    }
    match (graph.op(below), graph.inputs(below)) {
        (op @ Op::Conv2d(_), &[x, weight]) => Some(Linear { op: op.clone(), x, weight, bias: None }),
        (op @ Op::Conv2d(_), &[x, weight, bias]) => Some(Linear { op: op.clone(), x, weight, bias: Some(bias) }),
        (Op::MatMul, _) => matrix_product(graph, below, None),
        (Op::Binary(BinaryOp::Add), &[product, bias]) if users.only(product, below) => {
            let is_vector = graph.ty(bias).as_tensor()?.1.len() <= 1;
            matrix_product(graph, product, Some(bias).filter(|_| is_vector)).filter(|linear| linear.bias.is_some())
        }
        _ => None,
    }
}

/// Of matrices only: dimension 1, the channels, is then the last one.
fn matrix_product(graph: &Graph, node: Node, bias: Option<Node>) -> Option<Linear> {
    let is_matrix = |n: &Node| graph.ty(*n).as_tensor().is_some_and(|(_, shape)| shape.len() == 2);
    match (graph.op(node), graph.inputs(node)) {
        (Op::MatMul, &[x, weight]) if is_matrix(&x) && is_matrix(&weight) => {
            Some(Linear { op: Op::MatMul, x, weight, bias })
        }
        _ => None,
    }
}
