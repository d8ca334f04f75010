//! Which keys have one row at most: known from unique columns and groupings.

use super::Join;
use crate::lower::context::{Cx, Fact};
use quearn_stage::graph::{Node, Op};
use std::collections::BTreeSet;

/// Do the keys occur once at most in the rows of `table`?
pub fn is_unique(cx: &Cx<'_>, table: Node, keys: &[Node]) -> bool {
    let name = |key: &Node| match cx.graph.op(*key) {
        Op::Column(name) if cx.graph.inputs(*key)[0] == table => Some(name.clone()),
        _ => None,
    };
    unique_by(cx, table, &keys.iter().filter_map(name).collect())
}

/// Do combinations of these columns occur once at most in the rows of `table`?
pub fn unique_by(cx: &Cx<'_>, table: Node, names: &BTreeSet<String>) -> bool {
    let inputs = cx.graph.inputs(table);
    match cx.graph.op(table) {
        // The stored table may have other columns, of names that somebody above gave to something else.
        Op::Scan { table, fields } => fields.iter().map(|f| &f.name).filter(|name| names.contains(*name)).any(|name| {
            let unique = cx.catalog.table(table).and_then(|t| t.column(name).ok()).is_some_and(|c| c.stats.unique);
            if unique {
                cx.rely_on(Fact::Unique { table: table.clone(), column: name.clone() });
            }
            unique
        }),
        Op::Filter | Op::Sort(_) | Op::Limit { .. } => unique_by(cx, inputs[0], names),
        Op::Project { names: made } => {
            let passed = names.iter().filter_map(|name| {
                let at = made.iter().position(|m| m == name)?;
                match cx.graph.op(inputs[1 + at]) {
                    Op::Column(inner) if cx.graph.inputs(inputs[1 + at])[0] == inputs[0] => Some(inner.clone()),
                    _ => None,
                }
            });
            unique_by(cx, inputs[0], &passed.collect())
        }
        Op::Join { kind, .. } if kind.is_one_sided() => unique_by(cx, inputs[0], names),
        Op::Join { .. } => {
            let join = Join::of(cx, table);
            is_unique(cx, join.right, &join.right_keys()) && unique_by(cx, join.left, names)
        }
        Op::Aggregate { keys, .. } => keys.iter().all(|k| names.contains(k)),
        _ => false,
    }
}
