//! Which expressions can fail on some data: overflow, division by zero, a cast that does not fit, an index outside.
//!
//! The answer is conservative: `false` is a promise. Columns are followed to the expression that makes them, since a
//! failed element of a projection counts where it is read; a scan has no failed elements, and an aggregate fails as a
//! whole where it stands.

use super::literal::int_range;
use super::{AggregateOp, BinaryOp, Dim, Graph, Node, Op, ReduceOp, Scalar, UnaryOp, compare_as};
use std::collections::HashSet;

/// Can the expression, or a column it reads, fail on some row?
pub fn can_fail(graph: &Graph, expression: Node) -> bool {
    any_can_fail(graph, &[expression])
}

/// Can one of the expressions fail?
pub fn any_can_fail(graph: &Graph, expressions: &[Node]) -> bool {
    any_can_fail_but(graph, expressions, &[])
}

/// Can one of the expressions fail where none of these nodes has?
pub fn any_can_fail_but(graph: &Graph, expressions: &[Node], known: &[Node]) -> bool {
    let mut seen = HashSet::new();
    let mut stack = expressions.to_vec();
    while let Some(node) = stack.pop() {
        if !seen.insert(node) {
            continue;
        }
        match graph.op(node) {
            _ if known.contains(&node) => {}
            Op::Column(name) => stack.extend(maker(graph, graph.inputs(node)[0], name)),
            _ if fails_itself(graph, node) => return true,
            _ => stack.extend(graph.dependencies(node)),
        }
    }
    false
}

/// Can anything at all fail while a table is made: its predicates, keys, aggregates, columns, and those of tables below?
pub fn table_can_fail(graph: &Graph, table: Node) -> bool {
    let mut seen = HashSet::new();
    let mut stack = vec![table];
    while let Some(node) = stack.pop() {
        if !seen.insert(node) {
            continue;
        }
        let fails = match graph.op(node) {
            Op::Aggregate { keys, aggregates } => {
                let mut arguments = graph.inputs(node)[1 + keys.len()..].iter();
                aggregates.iter().any(|aggregate| {
                    let argument = if aggregate.op == AggregateOp::CountRows { None } else { arguments.next() };
                    let scalar = argument.and_then(|&a| graph.ty(a).as_tensor()).map(|(elem, _)| elem.scalar);
                    aggregate_can_fail(aggregate.op, scalar)
                })
            }
            Op::Column(_) => false,
            _ => graph.ty(node).as_table().is_none() && fails_itself(graph, node),
        };
        if fails {
            return true;
        }
        stack.extend(graph.dependencies(node));
    }
    false
}

/// Can an aggregate fail on values of that type?
pub fn aggregate_can_fail(op: AggregateOp, argument: Option<Scalar>) -> bool {
    match op {
        AggregateOp::Sum => !argument.is_some_and(Scalar::is_float),
        // The exact sum behind a mean of decimals may have too many digits; that of integers never has.
        AggregateOp::Avg => matches!(argument, Some(Scalar::Decimal { .. })),
        AggregateOp::Min | AggregateOp::Max => false,
        AggregateOp::Count | AggregateOp::CountRows | AggregateOp::CountDistinct => false,
    }
}

/// Is the node a table that has the column?
pub fn has_column(graph: &Graph, table: Node, column: &str) -> bool {
    graph.ty(table).as_table().is_some_and(|(fields, _)| fields.iter().any(|field| field.name == column))
}

/// The expression of a projection's column; `None` for another table.
pub fn projected(graph: &Graph, table: Node, column: &str) -> Option<Node> {
    let Op::Project { names } = graph.op(table) else { return None };
    let at = names.iter().position(|name| name == column)?;
    Some(graph.inputs(table)[1 + at])
}

/// The expression behind a column, through tables that only pick rows.
fn maker(graph: &Graph, mut table: Node, name: &str) -> Option<Node> {
    loop {
        let inputs = graph.inputs(table);
        match graph.op(table) {
            Op::Filter | Op::Sort(_) | Op::Limit { .. } => table = inputs[0],
            Op::Join { .. } | Op::Product => table = graph.side_of(table, name)?,
            Op::Project { .. } => return projected(graph, table, name),
            _ => return None,
        }
    }
}

/// Can the operation fail on operands that have not failed?
fn fails_itself(graph: &Graph, node: Node) -> bool {
    let inputs = graph.inputs(node);
    let scalar = |i: usize| graph.ty(inputs[i]).as_tensor().map(|(elem, _)| elem.scalar);
    let result = graph.ty(node).as_tensor().map(|(elem, _)| elem.scalar);
    let fails = |checks: Option<bool>| checks.unwrap_or(true);
    let promoted = |operands: &[usize], to: Option<Scalar>| {
        fails(operands.iter().map(|&i| Some(promotion_fails(scalar(i)?, to?))).try_fold(false, |any, f| Some(any | f?)))
    };
    match graph.op(node) {
        Op::Unary(UnaryOp::Neg | UnaryOp::Abs) => result.is_none_or(Scalar::is_int),
        Op::Clean(_) | Op::Hash => false,
        Op::Unary(_) | Op::Like(_) | Op::Substring { .. } | Op::Const(_) | Op::Input { .. } | Op::Param { .. } => false,
        Op::Binary(op) => fails((|| Some(binary_fails(graph, *op, inputs[1], (scalar(0)?, scalar(1)?), result?)))()),
        Op::Compare(_) => promoted(&[0, 1], (|| compare_as(scalar(0)?, scalar(1)?))()),
        Op::Select | Op::If => promoted(&[1, 2], result),
        Op::Cast(to) => fails(scalar(0).map(|from| cast_fails(from, *to))),
        Op::Reduce { op: ReduceOp::Sum | ReduceOp::Prod, .. } | Op::CumSum { .. } => {
            !result.is_some_and(Scalar::is_float)
        }
        Op::Reduce { .. } => false,
        Op::ArgMax { axis } => {
            let shape = graph.ty(inputs[0]).as_tensor().map(|(_, shape)| &shape[*axis]);
            !matches!(shape, Some(Dim::Const(1..)))
        }
        Op::Iota(_) | Op::MatMul | Op::Conv2d(_) | Op::Pool2d(_) | Op::BatchNorm { .. } | Op::Softmax { .. } => false,
        Op::Conv2dFilters { .. } | Op::MaxUnpool2d(_) => false,
        Op::Slice { .. } | Op::Broadcast(_) | Op::TreeEnsemble(_) | Op::Random(_) | Op::RowNumber => false,
        // Its region is among what it depends on.
        Op::Steps(_) => false,
        Op::Concat { .. } | Op::Reshape(_) | Op::Transpose(_) | Op::Stack | Op::Single | Op::Item(_) => false,
        Op::Gather | Op::ScatterAdd | Op::Loop(_) | Op::Foreign { .. } => true,
        // Tables are asked about their columns and operands, not as values.
        _ => true,
    }
}

fn binary_fails(graph: &Graph, op: BinaryOp, divisor: Node, (a, b): (Scalar, Scalar), to: Scalar) -> bool {
    match op {
        BinaryOp::And | BinaryOp::Or | BinaryOp::Pow => false,
        BinaryOp::Div | BinaryOp::Rem if a.is_float() || b.is_float() => false,
        BinaryOp::Div | BinaryOp::Rem => !is_safe_divisor(graph, divisor),
        BinaryOp::Min | BinaryOp::Max | BinaryOp::Coalesce => promotion_fails(a, to) || promotion_fails(b, to),
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => match to {
            Scalar::Decimal { precision, scale } => !decimal_fits(op, a, b, precision, scale),
            _ => !to.is_float(),
        },
    }
}

/// A constant that divides everything: not 0, and not -1, which the smallest integer has no quotient by.
fn is_safe_divisor(graph: &Graph, node: Node) -> bool {
    match graph.op(node) {
        Op::Const(literal) => literal.as_int().is_some_and(|value| value != 0 && value != -1),
        _ => false,
    }
}

/// Do all sums, differences or products of the operands fit the result?
fn decimal_fits(op: BinaryOp, a: Scalar, b: Scalar, precision: u8, scale: u8) -> bool {
    let (Some((p1, s1)), Some((p2, s2))) = (digits(a), digits(b)) else { return false };
    let needed = match op {
        BinaryOp::Mul => u32::from(p1) + u32::from(p2),
        _ => u32::from(p1 - s1).max(u32::from(p2 - s2)) + u32::from(scale) + 1,
    };
    needed <= u32::from(precision)
}

/// Is there a value of `from` that promotion to `to` cannot represent?
fn promotion_fails(from: Scalar, to: Scalar) -> bool {
    match to {
        Scalar::Decimal { precision, scale } => {
            digits(from).is_none_or(|(p, s)| u32::from(p - s) + u32::from(scale) > u32::from(precision))
        }
        _ => false,
    }
}

/// Precision and scale that hold every value of an exact type.
fn digits(scalar: Scalar) -> Option<(u8, u8)> {
    match scalar {
        Scalar::Decimal { precision, scale } => Some((precision, scale)),
        _ => {
            let (low, high) = int_range(scalar)?;
            Some((low.unsigned_abs().max(high.unsigned_abs()).to_string().len() as u8, 0))
        }
    }
}

fn cast_fails(from: Scalar, to: Scalar) -> bool {
    match (from, to) {
        (from, to) if from == to => false,
        (_, to) if to.is_float() => false,
        (Scalar::Bool, Scalar::Decimal { precision, scale }) => precision == scale,
        (Scalar::Bool, _) | (Scalar::Timestamp, Scalar::Date) => false,
        (from, Scalar::Decimal { scale, .. }) => {
            // Fewer digits after the point round, perhaps up to a digit more.
            digits(from).is_none_or(|(_, s)| s > scale) || promotion_fails(from, to)
        }
        (from, to) => match (int_range(from), int_range(to)) {
            (Some((low, high)), Some((least, most))) => low < least || high > most,
            _ => true,
        },
    }
}
