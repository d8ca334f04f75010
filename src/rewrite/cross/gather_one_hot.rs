//! A layer of columns that tell which of many values a value has is a choice among rows of its weights:
//!
//! ```text
//! [x, v = a, v = b, ..] [w_x; w_a; w_b; ..] = x w_x + [w_a; w_b; ..; 0][place of v among a, b, ..]
//! ```
//!
//! Reason: of all the products with an encoded category one is not 0. From some number of values on it is less work to
//! find out which.
//!
//! Preconditions: the values are constants, each compared once; the weights are weights, so that the row of zeros is added
//! once. Sums are made in another order, so that results are equal up to rounding; an infinite weight, whose product with
//! 0 is NaN, now only counts where its value occurs.

use super::weights::chosen_rows;
use crate::rewrite::Patch;
use crate::rewrite::expression::{is_weight, projected};
use quearn_stage::graph::{BinaryOp, CompareOp, Dim, Graph, Literal, Node, Op};

/// Values from which on a choice is less work than the products.
const LEAST: usize = 16;

/// Columns that are 1 for one value of an expression, and 0 else.
struct OneHot {
    value: Node,
    /// Their places among all columns, what each compares, and with which constant.
    columns: Vec<(usize, Node, Node)>,
}

/// The layer of the other columns, and the chosen rows.
pub fn gather_one_hot(graph: &Graph, node: Node) -> Option<Patch> {
    let &[stack, weights] = graph.inputs(node) else { return None };
    let is_layer = *graph.op(node) == Op::MatMul && *graph.op(stack) == Op::Stack && is_weight(graph, weights);
    let (elem, shape) = graph.ty(node).as_tensor()?;
    let zero = Literal::float(elem.scalar, 0.0).filter(|_| is_layer && shape.len() == 2)?;
    let found = one_hots(graph, graph.inputs(stack)).into_iter().find(|found| found.columns.len() >= LEAST)?;

    let mut patch = Patch::new(graph);
    let places: Vec<usize> = found.columns.iter().map(|(place, ..)| *place).collect();
    let own = chosen_rows(&mut patch, weights, &places);
    let zero = patch.add(Op::Const(zero), &[]);
    let zeros = patch.add(Op::Broadcast(vec![Dim::Const(1), shape[1].clone()]), &[zero]);
    let rows = patch.add(Op::Concat { axis: 0 }, &[own, zeros]);
    let place = found.place(&mut patch);
    let chosen = patch.add(Op::Gather, &[rows, place]);

    let others: Vec<usize> = (0..graph.inputs(stack).len()).filter(|at| !places.contains(at)).collect();
    let new = match others.is_empty() {
        true => chosen,
        false => {
            let columns: Vec<Node> = others.iter().map(|&at| graph.inputs(stack)[at]).collect();
            let x = patch.add(Op::Stack, &columns);
            let weights = chosen_rows(&mut patch, weights, &others);
            let product = patch.add(Op::MatMul, &[x, weights]);
            patch.add(Op::Binary(BinaryOp::Add), &[product, chosen])
        }
    };
    Some(patch.replace(node, new))
}

impl OneHot {
    /// The place of the value among those that it is compared with; their number if it is none of them.
    fn place(&self, patch: &mut Patch) -> Node {
        let number = |patch: &mut Patch, place: usize| patch.add(Op::Const(Literal::i64(place as i64)), &[]);
        let none = number(patch, self.columns.len());
        self.columns.iter().enumerate().rev().fold(none, |place, (at, (_, is_it, _))| {
            let own = number(patch, at);
            patch.add(Op::Select, &[*is_it, own, place])
        })
    }
}

fn one_hots(graph: &Graph, columns: &[Node]) -> Vec<OneHot> {
    let mut all: Vec<OneHot> = vec![];
    for (place, &column) in columns.iter().enumerate() {
        let Some((value, is_it, constant)) = compared(graph, column) else { continue };
        let known = all.iter().position(|one| one.value == value).unwrap_or(all.len());
        if known == all.len() {
            all.push(OneHot { value, columns: vec![] });
        }
        let columns = &mut all[known].columns;
        // A value that is there twice has both weights.
        if columns.iter().all(|(_, _, other)| *other != constant) {
            columns.push((place, is_it, constant));
        }
    }
    all
}

/// Of a column that is 1 where an expression equals a constant: the expression, the comparison, the constant.
fn compared(graph: &Graph, column: Node) -> Option<(Node, Node, Node)> {
    let inputs = graph.inputs(column);
    match graph.op(column) {
        Op::Column(name) => compared(graph, projected(graph, inputs[0], name)?),
        Op::Cast(to) if to.is_float() => {
            equality(graph, inputs[0]).map(|(value, constant)| (value, inputs[0], constant))
        }
        _ => None,
    }
}

/// `value = constant`, or false where that is NULL.
fn equality(graph: &Graph, node: Node) -> Option<(Node, Node)> {
    let is_const = |n: Node| matches!(graph.op(n), Op::Const(_));
    match (graph.op(node), graph.inputs(node)) {
        (Op::Binary(BinaryOp::Coalesce), &[equal, other]) => {
            let is_false = *graph.op(other) == Op::Const(Literal::bool(false));
            equality(graph, equal).filter(|_| is_false)
        }
        (Op::Compare(CompareOp::Eq), &[a, b]) if is_const(b) && !is_const(a) => Some((a, b)),
        (Op::Compare(CompareOp::Eq), &[a, b]) if is_const(a) && !is_const(b) => Some((b, a)),
        _ => None,
    }
}
