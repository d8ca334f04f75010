//! Losses, as values: nothing is differentiated here.

use super::Write;
use super::norm::log_softmax;
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{CompareOp, Dim, Node, Op, ReduceOp, Scalar, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("NegativeLogLikelihoodLoss", |c| {
        let x = c.x(0)?;
        Ok(vec![likelihood(c, x)?])
    }),
    ("SoftmaxCrossEntropyLoss", |c| {
        let x = c.x(0)?;
        let log = log_softmax(c.emit, x, 1)?;
        Ok(vec![likelihood(c, log)?, log])
    }),
];

fn all(e: &mut Emit, x: Node) -> Fallible<Node> {
    let axes = (0..e.rank(x)).collect();
    e.op(Op::Reduce { op: ReduceOp::Sum, axes, keep: false }, &[x])
}

/// Of each line along axis 1 the element that its class names, negated and weighted by the class.
fn likelihood(c: &mut Call, x: Node) -> Fallible<Node> {
    let (class, weight) = (c.x(1)?, c.optional(2)?);
    let ignored = c.has_attribute("ignore_index").then(|| c.int("ignore_index", 0));
    let reduction = c.text("reduction", "mean");
    let e = &mut *c.emit;
    let (classes, rank) = (e.extent(x, 1)?, e.rank(x));
    let class = e.cast(class, Scalar::I64)?;
    let line = e.insert_axis(class, 1)?;
    let mut column = vec![1; rank];
    column[1] = classes;
    let places = e.ints(&column, 0..classes)?;
    let hit = e.compare(CompareOp::Eq, line, places)?;
    let zero = e.like(x, 0.0)?;
    let pick = |e: &mut Emit, from: Node| {
        let chosen = e.select(hit, from, zero)?;
        e.op(Op::Reduce { op: ReduceOp::Sum, axes: vec![1], keep: false }, &[chosen])
    };
    let picked = pick(e, x)?;
    let mut counts = match weight {
        Some(weight) => {
            let weight = e.reshape_to(weight, &column)?;
            pick(e, weight)?
        }
        None => {
            let one = e.like(x, 1.0)?;
            e.broadcast(one, e.shape(picked))?
        }
    };
    if let Some(ignored) = ignored {
        let gone = e.test(CompareOp::Eq, class, ignored as f64)?;
        counts = e.select(gone, zero, counts)?;
    }
    let loss = e.mul(picked, counts)?;
    let loss = e.unary(UnaryOp::Neg, loss)?;
    match reduction.as_str() {
        "none" => Ok(loss),
        "sum" => all(e, loss),
        _ => {
            let (sum, count) = (all(e, loss)?, all(e, counts)?);
            let mean = e.div(sum, count)?;
            e.reshape(mean, Vec::<Dim>::new())
        }
    }
}
