//! Which failures an operator can have.

use quearn_stage::graph::{AggregateOp, BinaryOp, Graph, Node, Op, Scalar};
use quearn_stage::low::FailKind;

/// Can some operator of the graph fail in this way?
pub fn is_possible(graph: &Graph, kind: FailKind) -> bool {
    graph.reachable().into_iter().any(|node| can_fail(graph, node, kind))
}

fn can_fail(graph: &Graph, node: Node, kind: FailKind) -> bool {
    let decimal = |n: &Node| graph.ty(*n).as_tensor().is_some_and(|(e, _)| matches!(e.scalar, Scalar::Decimal { .. }));
    match graph.op(node) {
        Op::Binary(BinaryOp::Div | BinaryOp::Rem) => matches!(kind, FailKind::DivisionByZero | FailKind::Overflow),
        Op::Binary(BinaryOp::And | BinaryOp::Or) => false,
        Op::Binary(_) | Op::Unary(_) => kind == FailKind::Overflow,
        // Decimals of different scales meet in a third one.
        Op::Compare(_) | Op::Select | Op::If => kind == FailKind::Overflow && graph.inputs(node).iter().any(decimal),
        Op::Aggregate { aggregates, .. } => {
            kind == FailKind::Overflow && aggregates.iter().any(|a| matches!(a.op, AggregateOp::Sum | AggregateOp::Avg))
        }
        Op::Reduce { .. } => kind == FailKind::Overflow,
        Op::Cast(_) => matches!(kind, FailKind::BadCast),
        Op::Gather | Op::Single => kind == FailKind::OutOfRange,
        _ => false,
    }
}
