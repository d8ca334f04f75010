//! Features without weight are not computed:
//!
//! ```text
//! y + x * 0 = y                            x finite
//! [a, x, b] [w_a; 0; w_b] = [a, b] [w_a; w_b]      x finite, the weights constants
//! ```
//!
//! Reason: models that were fitted with a penalty have zeros among their weights. The columns that only these read are not
//! scanned then (`prune_projection`), and joins that only brought them are not made (`prune_join`).
//!
//! Preconditions: `x` is never NULL, infinite or NaN: it is made from integers, decimals, truth values or from float columns
//! that hold finite numbers (a fact about the table), and stays within the range of its type; it cannot fail. Zeros may
//! change their sign.

use super::weights::chosen_rows;
use crate::rewrite::expression::projected;
use crate::rewrite::{Known, Patch};
use quearn_stage::graph::fails::can_fail;
use quearn_stage::graph::{BinaryOp, Graph, Node, Op, Scalar, UnaryOp};

/// The sum without products with 0, or the layer without columns that have no weight.
pub fn drop_zero_weights(known: &Known<'_>, node: Node) -> Option<Patch> {
    let graph = known.graph;
    match (graph.op(node), graph.inputs(node)) {
        (Op::Binary(BinaryOp::Add), &[x, y]) if is_nothing(known, y) => same(graph, node, x),
        (Op::Binary(BinaryOp::Add), &[x, y]) if is_nothing(known, x) => same(graph, node, y),
        (Op::Binary(BinaryOp::Sub), &[x, y]) if is_nothing(known, y) => same(graph, node, x),
        (Op::MatMul, &[x, weights]) => lighter(known, node, x, weights),
        _ => None,
    }
}

fn same(graph: &Graph, node: Node, operand: Node) -> Option<Patch> {
    (graph.ty(operand) == graph.ty(node)).then(|| Patch::new(graph).replace(node, operand))
}

/// Is it a finite number times 0?
fn is_nothing(known: &Known<'_>, node: Node) -> bool {
    let is_zero = |n: Node| matches!(known.graph.op(n), Op::Const(literal) if literal.as_float() == Some(0.0));
    match (known.graph.op(node), known.graph.inputs(node)) {
        (Op::Binary(BinaryOp::Mul), &[x, y]) => {
            is_zero(y) && is_droppable(known, x) || is_zero(x) && is_droppable(known, y)
        }
        _ => false,
    }
}

fn is_droppable(known: &Known<'_>, x: Node) -> bool {
    !can_fail(known.graph, x) && bound(known, x).is_some()
}

fn lighter(known: &Known<'_>, node: Node, x: Node, weights: Node) -> Option<Patch> {
    let graph = known.graph;
    let (_, shape) = graph.ty(weights).as_tensor()?;
    if *graph.op(x) != Op::Stack || shape.len() != 2 {
        return None;
    }
    let outputs = shape[1].as_const()? as usize;
    let values = constants(graph, weights)?;
    let columns = graph.inputs(x);
    let weightless = |at: &usize| values[at * outputs..(at + 1) * outputs].iter().all(|weight| *weight == 0.0);
    let stays = |at: &usize| !weightless(at) || !is_droppable(known, columns[*at]);
    let kept: Vec<usize> = (0..columns.len()).filter(stays).collect();
    if kept.is_empty() || kept.len() == columns.len() {
        return None;
    }
    let mut patch = Patch::new(graph);
    let columns: Vec<Node> = kept.iter().map(|&at| columns[at]).collect();
    let stack = patch.add(Op::Stack, &columns);
    let weights = chosen_rows(&mut patch, weights, &kept);
    let new = patch.add(Op::MatMul, &[stack, weights]);
    Some(patch.replace(node, new))
}

/// The elements of a matrix that is stacked of constants, in row-major order.
fn constants(graph: &Graph, node: Node) -> Option<Vec<f64>> {
    let inputs = graph.inputs(node);
    match graph.op(node) {
        Op::Const(literal) => Some(vec![literal.as_float()?]),
        Op::Reshape(_) => constants(graph, inputs[0]),
        // Elements of one operand do not lie side by side unless it is a scalar.
        Op::Stack => {
            let each = inputs.iter().map(|&input| constants(graph, input)).collect::<Option<Vec<_>>>()?;
            each.iter().all(|values| values.len() == 1).then(|| each.concat())
        }
        Op::Transpose(axes) if axes[..] == [1, 0] => {
            let values = constants(graph, inputs[0])?;
            let columns = graph.ty(inputs[0]).as_tensor()?.1[1].as_const()? as usize;
            let rows = values.len() / columns;
            Some((0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect())
        }
        _ => None,
    }
}

/// A number that no value of the expression is beyond, either way; `None` if there may be none, or a NULL.
fn bound(known: &Known<'_>, node: Node) -> Option<f64> {
    let graph = known.graph;
    let (elem, _) = graph.ty(node).as_tensor()?;
    if elem.nullable {
        return None;
    }
    let most = most(elem.scalar)?;
    let inputs = graph.inputs(node);
    let of = |at: usize| bound(known, inputs[at]);
    let found = match graph.op(node) {
        _ if !elem.scalar.is_float() => most,
        Op::Const(literal) => literal.as_float()?.abs(),
        Op::Column(name) => match projected(graph, inputs[0], name) {
            Some(expression) => bound(known, expression)?,
            None => known.facts.is_finite(node).then_some(most)?,
        },
        Op::Cast(_) | Op::Unary(UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Relu) => of(0)?,
        Op::Unary(UnaryOp::Sigmoid | UnaryOp::Tanh) => of(0)?.max(1.0),
        Op::Binary(BinaryOp::Add | BinaryOp::Sub) => of(0)? + of(1)?,
        Op::Binary(BinaryOp::Mul) => of(0)? * of(1)?,
        Op::Binary(BinaryOp::Min | BinaryOp::Max) => of(0)?.max(of(1)?),
        _ => return None,
    };
    (found <= most).then_some(found)
}

/// The largest number of a type; `None` for what is no number.
fn most(scalar: Scalar) -> Option<f64> {
    match scalar {
        Scalar::Bool => Some(1.0),
        Scalar::Decimal { precision, scale } => Some(10f64.powi(i32::from(precision) - i32::from(scale))),
        Scalar::F32 => Some(f64::from(f32::MAX)),
        Scalar::F64 => Some(f64::MAX),
        _ if scalar.is_int() => Some(2f64.powi(63)),
        _ => None,
    }
}
