//! Which keys have one row at most: known from unique columns and groupings.

use crate::facts::Facts;
use crate::lower::context::Cx;
use quearn_stage::graph::Node;
use std::collections::BTreeSet;

/// Do the keys occur once at most in the rows of `table`?
pub fn is_unique(cx: &Cx<'_>, table: Node, keys: &[Node]) -> bool {
    ask(cx, |known| known.are_unique(table, keys))
}

/// Do combinations of these columns occur once at most in the rows of `table`?
pub fn unique_by(cx: &Cx<'_>, table: Node, names: &BTreeSet<String>) -> bool {
    ask(cx, |known| known.unique_by(table, names))
}

fn ask(cx: &Cx<'_>, question: impl FnOnce(&Facts<'_>) -> bool) -> bool {
    let known = Facts::new(cx.graph, cx.catalog);
    let answer = question(&known);
    known.take().into_iter().for_each(|fact| cx.rely_on(fact));
    answer
}
