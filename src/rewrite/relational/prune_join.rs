//! Joins that neither drop rows nor bring columns that somebody reads:
//!
//! ```text
//! semi(l, r)  = l     every row of l has a match
//! inner(l, r) = l     every row of l has one match, and no column of r is read
//! left(l, r)  = l     no row of l has two matches, and no column of r is read
//! ```
//!
//! Reason: a table that nobody needs is not scanned and no key is looked up. Joins become needless when features of a
//! model have no weight (`drop_zero_weights`), or when `factorise_products` has taken the columns of a join elsewhere.
//!
//! Preconditions: there is no residual; the statistics of the stored tables tell about the keys, and are facts from then
//! on; neither a key nor anything that makes the right side can fail.

use crate::rewrite::users::Users;
use crate::rewrite::{Known, Patch};
use quearn_stage::graph::fails::{any_can_fail, table_can_fail};
use quearn_stage::graph::{Graph, JoinKind, Node, Op};

/// The left side of a join that changes nothing.
pub fn prune_join(known: &Known<'_>, node: Node) -> Option<Patch> {
    let graph = known.graph;
    let Op::Join { kind, keys } = graph.op(node) else { return None };
    let &[left, right, ref on @ ..] = graph.inputs(node) else { return None };
    let has_residual = on.len() > 2 * keys;
    if has_residual || any_can_fail(graph, on) || table_can_fail(graph, right) {
        return None;
    }
    let unique = || known.facts.are_unique(right, &on[*keys..]);
    let needless = match kind {
        JoinKind::Semi => known.facts.all_match(node),
        JoinKind::Inner => is_unread(graph, node) && unique() && known.facts.all_match(node),
        JoinKind::Left => is_unread(graph, node) && unique(),
        JoinKind::Anti | JoinKind::Mark(_) => false,
    };
    needless.then(|| Patch::new(graph).replace(node, left))
}

/// Does nobody read what the right side of a join brings?
fn is_unread(graph: &Graph, join: Node) -> bool {
    let left = graph.inputs(join)[0];
    let Some((fields, _)) = graph.ty(join).as_table() else { return false };
    let users = Users::of(graph);
    let mut brought = fields.iter().filter(|field| graph.side_of(join, &field.name) != Some(left));
    brought.all(|field| !users.reads_column(join, &field.name))
}
