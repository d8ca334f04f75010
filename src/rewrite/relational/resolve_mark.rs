//! Marks that are not needed as values. With `m` the mark of a join, read by nobody else:
//!
//! ```text
//! filter(mark(l, r, m), m and p)     = filter(semi(l, r), p)
//! filter(mark(l, r, m), not m and p) = filter(anti(l, r), p)
//! mark(l, r, m)                      = l                       m is read by nobody at all
//! ```
//!
//! Reason: rows without a match (or with one) go no further, and what no answer depends on is not looked up.
//!
//! Preconditions: the join is read by the filter only, and `p` cannot fail, since it sees fewer rows. A join that is left
//! out cannot fail, nor can anything that makes its right side.

use crate::rewrite::Patch;
use crate::rewrite::expression::{conjuncts, filtered};
use crate::rewrite::rows::{Transport, column};
use crate::rewrite::users::Users;
use quearn_stage::graph::fails::{any_can_fail, table_can_fail};
use quearn_stage::graph::{Dim, Graph, JoinKind, Node, Op, UnaryOp};

/// The filter over a semi- or anti-join, or the left side of a join.
pub fn resolve_mark(graph: &Graph, node: Node) -> Option<Patch> {
    match graph.op(node) {
        Op::Filter => filter_by_mark(graph, node),
        Op::Join { kind: JoinKind::Mark(mark), .. } => without_mark(graph, node, mark),
        _ => None,
    }
}

fn filter_by_mark(graph: &Graph, node: Node) -> Option<Patch> {
    let &[join, predicate] = graph.inputs(node) else { return None };
    let Op::Join { kind: JoinKind::Mark(mark), keys } = graph.op(join) else { return None };
    let users = Users::of(graph);
    if users.reads_column(node, mark) || !users.only_table(join, node) {
        return None;
    }
    let mut rest = conjuncts(graph, predicate);
    let found = rest.iter().position(|&part| picks(graph, join, mark, part).is_some())?;
    let kind = picks(graph, join, mark, rest.remove(found))?;
    if any_can_fail(graph, &rest) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let picked = patch.add(Op::Join { kind, keys: *keys }, graph.inputs(join));
    let others = |patch: &mut Patch, name: &str| (name != mark).then(|| column(patch, picked, name));
    let rest = Transport::new(graph, join, Dim::Rows(picked), others)?.expressions(&mut patch, &rest)?;
    let new = filtered(&mut patch, picked, &rest);
    Some(patch.replace(node, new))
}

/// The join whose rows are those for which `part` is true, if it is the mark or its opposite.
fn picks(graph: &Graph, join: Node, mark: &str, part: Node) -> Option<JoinKind> {
    let is_mark = |node: Node| {
        matches!(graph.op(node), Op::Column(name) if name == mark) && graph.inputs(node) == std::slice::from_ref(&join)
    };
    match graph.op(part) {
        _ if is_mark(part) => Some(JoinKind::Semi),
        Op::Unary(UnaryOp::Not) if is_mark(graph.inputs(part)[0]) => Some(JoinKind::Anti),
        _ => None,
    }
}

fn without_mark(graph: &Graph, join: Node, mark: &str) -> Option<Patch> {
    let &[left, right, ref strict @ ..] = graph.inputs(join) else { return None };
    let unread = !Users::of(graph).reads_column(join, mark);
    let safe = || !any_can_fail(graph, strict) && !table_can_fail(graph, right);
    (unread && safe()).then(|| Patch::new(graph).replace(join, left))
}
