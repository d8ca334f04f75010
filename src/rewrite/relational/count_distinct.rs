//! Distinct values are counted by two groupings: the first brings equal values together, the second counts them. With
//! aggregates `f(y)` beside the count, of which the first makes parts and the second the whole:
//!
//! ```text
//! aggregate(t, k, (count_distinct(x), f(y))) = aggregate(aggregate(t, (k, x), part(y)), k, (count(x), whole(part)))
//!
//! f                   part                whole
//! count, count_rows   f                   coalesce(sum, 0)
//! sum, min, max       f                   f
//! avg                 sum, count          sum(sum) / sum(count)
//! ```
//!
//! The sum of a mean is a decimal or an f64, which loses nothing that the mean has.
//!
//! Reason: there are no loops for a set in every group. Required.
//!
//! Preconditions: all aggregates that count distinct values count those of one expression. A part of a sum may overflow
//! where the whole does not.

use crate::rewrite::Patch;
use crate::rewrite::expression::arguments;
use crate::rewrite::rows::column;
use quearn_stage::graph::{Aggregate, AggregateOp, BinaryOp, Graph, Literal, Node, Op, Scalar};

/// An aggregation that counts distinct values as two groupings.
pub fn count_distinct(graph: &Graph, node: Node) -> Option<Patch> {
    let Op::Aggregate { keys, aggregates } = graph.op(node) else { return None };
    let folds: Vec<_> = arguments(graph, node, keys.len(), aggregates).collect();
    let mut counts = folds.iter().filter(|(a, _)| a.op == AggregateOp::CountDistinct);
    let &(Aggregate { name: distinct, .. }, Some(value)) = counts.next()? else { return None };
    if counts.any(|(_, other)| *other != Some(value)) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let patch_mut = &mut patch;
    let parts: Vec<Part> =
        folds.iter().flat_map(|(a, y)| parts_of(graph, patch_mut, (keys, aggregates), a, *y)).collect();

    let inputs = graph.inputs(node);
    let mut by: Vec<_> = keys.iter().cloned().zip(inputs[1..].iter().copied()).collect();
    by.push((distinct.clone(), value));
    let made = parts.iter().map(|p| (p.name.clone(), p.part, p.argument)).collect();
    let inner = grouping(&mut patch, inputs[0], by, made);

    let by = keys.iter().map(|key| (key.clone(), column(&mut patch, inner, key).node)).collect();
    let mut made = vec![];
    for part in &parts {
        made.push((part.name.clone(), part.whole, Some(column(&mut patch, inner, &part.name).node)));
    }
    made.push((distinct.clone(), AggregateOp::Count, Some(column(&mut patch, inner, distinct).node)));
    let outer = grouping(&mut patch, inner, by, made);

    let mut operands = vec![outer];
    operands.extend(keys.iter().map(|key| column(&mut patch, outer, key).node));
    for (aggregate, _) in &folds {
        let count = count_name((keys, aggregates), aggregate);
        operands.push(result(&mut patch, outer, aggregate, &count, distinct));
    }
    let names = keys.iter().chain(aggregates.iter().map(|a| &a.name)).cloned().collect();
    let new = patch.add(Op::Project { names }, &operands);
    Some(patch.replace(node, new))
}

/// What the first grouping makes of the rows with one value, and the second of that.
struct Part {
    name: String,
    part: AggregateOp,
    argument: Option<Node>,
    whole: AggregateOp,
}

/// Names of keys, and aggregates.
type Names<'a> = (&'a [String], &'a [Aggregate]);

fn parts_of(
    graph: &Graph,
    patch: &mut Patch,
    names: Names<'_>,
    aggregate: &Aggregate,
    argument: Option<Node>,
) -> Vec<Part> {
    use AggregateOp::{Avg, Count, CountDistinct, CountRows, Max, Min, Sum};
    let part = |part, argument, whole| Part { name: aggregate.name.clone(), part, argument, whole };
    match aggregate.op {
        CountDistinct => vec![],
        Count | CountRows => vec![part(aggregate.op, argument, Sum)],
        Sum | Min | Max => vec![part(aggregate.op, argument, aggregate.op)],
        Avg => {
            let addend = argument.map(|y| addend(graph, patch, y));
            let count = Part { name: count_name(names, aggregate), ..part(Count, argument, Sum) };
            vec![part(Sum, addend, Sum), count]
        }
    }
}

/// The argument of a mean in a type whose sum loses nothing that the mean has.
fn addend(graph: &Graph, patch: &mut Patch, argument: Node) -> Node {
    let Some((elem, _)) = graph.ty(argument).as_tensor() else { return argument };
    match elem.scalar {
        Scalar::Decimal { .. } => argument,
        scalar if scalar.is_float() => patch.add(Op::Cast(Scalar::F64), &[argument]),
        _ => patch.add(Op::Cast(Scalar::decimal(38, 0)), &[argument]),
    }
}

/// A name of its own for the number of values behind a mean.
fn count_name((keys, aggregates): Names<'_>, aggregate: &Aggregate) -> String {
    let mut name = format!("{} count", aggregate.name);
    while keys.contains(&name) || aggregates.iter().any(|a| a.name == name) {
        name.push('\'');
    }
    name
}

fn grouping(
    patch: &mut Patch,
    table: Node,
    keys: Vec<(String, Node)>,
    folds: Vec<(String, AggregateOp, Option<Node>)>,
) -> Node {
    let (keys, mut inputs): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
    inputs.insert(0, table);
    inputs.extend(folds.iter().filter_map(|(_, _, argument)| *argument));
    let aggregates = folds.into_iter().map(|(name, op, _)| Aggregate { name, op }).collect();
    patch.add(Op::Aggregate { keys, aggregates }, &inputs)
}

/// An aggregate made of the columns of the second grouping.
fn result(patch: &mut Patch, outer: Node, aggregate: &Aggregate, count: &str, distinct: &str) -> Node {
    let whole = |patch: &mut Patch, name: &str| column(patch, outer, name).node;
    match aggregate.op {
        AggregateOp::CountDistinct => whole(patch, distinct),
        AggregateOp::Count | AggregateOp::CountRows => {
            let none = patch.add(Op::Const(Literal::i64(0)), &[]);
            let sum = whole(patch, &aggregate.name);
            patch.add(Op::Binary(BinaryOp::Coalesce), &[sum, none])
        }
        AggregateOp::Sum | AggregateOp::Min | AggregateOp::Max => whole(patch, &aggregate.name),
        AggregateOp::Avg => {
            let mut float = |name: &str| {
                let exact = whole(patch, name);
                patch.add(Op::Cast(Scalar::F64), &[exact])
            };
            let (sum, count) = (float(&aggregate.name), float(count));
            patch.add(Op::Binary(BinaryOp::Div), &[sum, count])
        }
    }
}
