//! Parameters: literals that a program gets when it runs, so that one compiled program serves all queries that differ in
//! them only.
//!
//! A literal that a column is compared with becomes one. What the program does with it (which rows pass) depends on its
//! value; what it looks like does not. Estimates are made with the literals that were there first.

use super::frame::Bind;
use super::relational::value::{Range, Value};
use crate::lower::context::Cx;
use quearn_stage::graph::{Graph, Literal, Node, Op, Scalar, Ty};
use quearn_stage::low::{Builder, V};
use std::collections::HashMap;

/// A literal in a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The comparison.
    pub node: Node,
    /// Which operand the literal is.
    pub side: usize,
    /// The literal.
    pub literal: Literal,
}

/// Finds the literals of a graph that can be parameters, in the order of its nodes. Tensor programs have none: they use
/// literals in more ways than comparing them with columns.
pub fn parameters(graph: &Graph) -> Vec<Parameter> {
    let reachable = graph.reachable();
    if !reachable.iter().all(|&n| is_relational(graph.op(n))) {
        return vec![];
    }
    let parameter = |node: Node| {
        let Op::Compare(_) = graph.op(node) else { return None };
        let (side, _) = literal(graph, node)?;
        let Op::Const(literal) = graph.op(graph.inputs(node)[side]) else { return None };
        Some(Parameter { node, side, literal: literal.clone() })
    };
    reachable.into_iter().filter_map(parameter).collect()
}

fn is_relational(op: &Op) -> bool {
    use Op::*;
    let scalar = matches!(op, Const(_) | Unary(_) | Binary(_) | Compare(_) | Select | Cast(_) | Like(_) | If);
    let table = matches!(op, Scan { .. } | Filter | Project { .. } | Product | Join { .. } | Aggregate { .. });
    scalar || table || matches!(op, Substring { .. } | Clean(_) | Hash | Sort(_) | Limit { .. } | Column(_) | Single)
}

fn column_type(graph: &Graph, node: Node) -> Option<Scalar> {
    match (graph.op(node), graph.ty(node)) {
        (Op::Column(_), Ty::Tensor { elem, .. }) => Some(elem.scalar),
        _ => None,
    }
}

/// Digits by which the literal has to be scaled up to be in the units of the column, if values of both fit 64 bits.
fn scale_up(column: Scalar, literal: &Literal) -> Option<u8> {
    literal.as_int()?;
    match (column, literal.scalar()) {
        (Scalar::Decimal { precision: ..=17, scale }, Scalar::Decimal { scale: own, .. }) => scale.checked_sub(own),
        (Scalar::Decimal { precision: ..=17, scale }, own) if own.is_int() => Some(scale),
        (a, b) if a.is_int() && b.is_int() => Some(0),
        (Scalar::Date, Scalar::Date) | (Scalar::Timestamp, Scalar::Timestamp) => Some(0),
        _ => None,
    }
}

/// The parameters of the program that is being lowered, by comparison.
#[derive(Debug, Default)]
pub struct Parameters(HashMap<Node, (usize, Parameter)>);

impl Parameters {
    /// Numbers the parameters in order.
    pub fn new(parameters: &[Parameter]) -> Parameters {
        Parameters(parameters.iter().cloned().enumerate().map(|(i, p)| (p.node, (i, p))).collect())
    }

    /// The operand of a comparison that is a parameter.
    pub fn side(&self, comparison: Node) -> Option<usize> {
        self.0.get(&comparison).map(|(_, p)| p.side)
    }
}

/// The operand of a comparison that is a literal, whether it is a parameter or not, and its value in the units of the column
/// that is the other operand.
pub fn literal(graph: &Graph, comparison: Node) -> Option<(usize, i128)> {
    let inputs = graph.inputs(comparison);
    [(1, 0), (0, 1)].into_iter().find_map(|(side, other)| {
        let Op::Const(literal) = graph.op(inputs[side]) else { return None };
        let digits = scale_up(column_type(graph, inputs[other])?, literal)?;
        Some((side, literal.as_int()?.saturating_mul(10i128.pow(digits.into()))))
    })
}

/// The parameter of a comparison with a column whose values lie in `range`, in the column's type. Whatever the literal,
/// it is at most one step outside the range: that compares with all values as the literal does.
pub fn value<'b>(cx: &Cx<'_>, b: &'b Builder, frame: V<'b>, comparison: Node, range: Range) -> Option<Value<'b>> {
    let (index, parameter) = cx.parameters.0.get(&comparison)?;
    let column = column_type(cx.graph, cx.graph.inputs(comparison)[1 - parameter.side])?;
    let digits = scale_up(column, &parameter.literal)?;
    let reach = reach(range);
    let bind = Bind::Parameter { index: *index, digits, min: reach.min as i64, max: reach.max as i64 };
    Some(Value::int(cx.frame.bind(bind).get(b, frame), reach))
}

/// A range and a step more at either end: any number outside compares with the values inside as the end does.
pub fn reach(range: Range) -> Range {
    Range::new(range.min.saturating_sub(1), range.max.saturating_add(1)).intersect(Range::I64)
}
