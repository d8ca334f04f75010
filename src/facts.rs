//! What follows from facts about stored tables, on which whoever asks relies then: that a key of a join has one row at
//! most, that each of them has a row, that a number is finite.

use crate::data::{Catalog, Column, Fact};
use quearn_stage::graph::{Graph, JoinKind, Node, Op, Scalar};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Questions about one graph, over the tables of a catalog.
pub struct Facts<'a> {
    graph: &'a Graph,
    catalog: &'a Catalog,
    /// What the answers so far rely on.
    facts: RefCell<Vec<Fact>>,
}

impl<'a> Facts<'a> {
    /// Nothing was asked yet.
    pub fn new(graph: &'a Graph, catalog: &'a Catalog) -> Facts<'a> {
        Facts { graph, catalog, facts: RefCell::default() }
    }

    /// What the answers since the last call rely on.
    pub fn take(&self) -> Vec<Fact> {
        self.facts.take()
    }

    fn rely_on(&self, fact: Fact) {
        let mut facts = self.facts.borrow_mut();
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }

    /// Do the keys, row expressions of `table`, occur once at most in its rows?
    pub fn are_unique(&self, table: Node, keys: &[Node]) -> bool {
        let name = |key: &Node| match self.graph.op(*key) {
            Op::Column(name) if self.graph.inputs(*key)[0] == table => Some(name.clone()),
            _ => None,
        };
        self.unique_by(table, &keys.iter().filter_map(name).collect())
    }

    /// Do combinations of these columns occur once at most in the rows of `table`?
    pub fn unique_by(&self, table: Node, names: &BTreeSet<String>) -> bool {
        let inputs = self.graph.inputs(table);
        match self.graph.op(table) {
            // The stored table may have other columns, of names that somebody above gave to something else.
            Op::Scan { table, fields } => {
                fields.iter().map(|f| &f.name).filter(|name| names.contains(*name)).any(|name| {
                    let unique = self.catalog.table(table).and_then(|t| t.column(name).ok());
                    let unique = unique.is_some_and(|column| column.stats.unique);
                    if unique {
                        self.rely_on(Fact::Unique { table: table.clone(), column: name.clone() });
                    }
                    unique
                })
            }
            Op::Filter | Op::Sort(_) | Op::Limit { .. } => self.unique_by(inputs[0], names),
            Op::Project { names: made } => {
                let passed = names.iter().filter_map(|name| {
                    let at = made.iter().position(|m| m == name)?;
                    match self.graph.op(inputs[1 + at]) {
                        Op::Column(inner) if self.graph.inputs(inputs[1 + at])[0] == inputs[0] => Some(inner.clone()),
                        _ => None,
                    }
                });
                self.unique_by(inputs[0], &passed.collect())
            }
            Op::Join { kind, .. } if kind.is_one_sided() => self.unique_by(inputs[0], names),
            Op::Join { keys, .. } => {
                self.are_unique(inputs[1], &inputs[2 + keys..2 + 2 * keys]) && self.unique_by(inputs[0], names)
            }
            Op::Aggregate { keys, .. } => keys.iter().all(|k| names.contains(k)),
            _ => false,
        }
    }

    /// Has every row of the left side of a join a row of the right side with its keys? Known for one key, if the right
    /// side has all numbers of a range as its keys and those of the left side lie in the range.
    pub fn all_match(&self, join: Node) -> bool {
        let inputs = self.graph.inputs(join);
        let Op::Join { keys: 1, .. } = self.graph.op(join) else { return false };
        let &[_, right, left_key, right_key] = inputs else { return false };
        self.whole(right, right_key).zip(self.source(left_key)).is_some_and(|(own, other)| self.covers(own, other))
    }

    /// Are all values of a row expression numbers, neither infinite nor NaN nor NULL, as those of a column are?
    pub fn is_finite(&self, expression: Node) -> bool {
        let Some((table, column)) = self.source(expression) else { return false };
        let finite = self.stored(table, column).is_some_and(|c| c.stats.finite && c.stats.nulls == 0);
        if finite {
            self.rely_on(Fact::Finite { table: table.to_owned(), column: column.to_owned() });
        }
        finite
    }

    fn covers(&self, (scan, name): (&'a str, &'a str), (other_scan, other_name): (&'a str, &'a str)) -> bool {
        let (Some(own), Some(other)) = (self.stored(scan, name), self.stored(other_scan, other_name)) else {
            return false;
        };
        let (Some(min), Some(max)) = (own.stats.min, own.stats.max) else { return false };
        let in_range = |value: Option<i128>| value.is_some_and(|value| min <= value && value <= max);
        let inside = in_range(other.stats.min) && in_range(other.stats.max) && other.stats.nulls == 0;
        if !own.is_dense() || !inside || !same_units(own.elem.scalar, other.elem.scalar) {
            return false;
        }
        let (table, column) = (other_scan.to_owned(), other_name.to_owned());
        self.rely_on(Fact::Dense { table: scan.to_owned(), column: name.to_owned(), min, max });
        self.rely_on(Fact::Range { table: table.clone(), column: column.clone(), min, max });
        self.rely_on(Fact::NoNulls { table, column });
        true
    }

    fn stored(&self, table: &str, column: &str) -> Option<&'a Column> {
        self.catalog.table(table)?.column(column).ok()
    }

    /// Table and column of which an expression over `table` gives every value, as `table` has all rows of the stored one.
    fn whole(&self, mut table: Node, key: Node) -> Option<(&'a str, &'a str)> {
        let mut name = self.column_of(key, table)?;
        loop {
            let inputs = self.graph.inputs(table);
            match self.graph.op(table) {
                Op::Scan { table, .. } => return Some((table, name)),
                Op::Sort(_) => table = inputs[0],
                Op::Project { names } => {
                    let expression = inputs[1 + names.iter().position(|n| n == name)?];
                    name = self.column_of(expression, inputs[0])?;
                    table = inputs[0];
                }
                _ => return None,
            }
        }
    }

    fn column_of(&self, expression: Node, table: Node) -> Option<&'a str> {
        match self.graph.op(expression) {
            Op::Column(name) if self.graph.inputs(expression)[0] == table => Some(name),
            _ => None,
        }
    }

    /// Table and column of which an expression passes values on, never anything else.
    fn source(&self, expression: Node) -> Option<(&'a str, &'a str)> {
        let Op::Column(name) = self.graph.op(expression) else { return None };
        let (mut table, mut name) = (self.graph.inputs(expression)[0], name.as_str());
        loop {
            let inputs = self.graph.inputs(table);
            let through = |expression: Node| match self.graph.op(expression) {
                Op::Column(inner) => Some((self.graph.inputs(expression)[0], inner.as_str())),
                _ => None,
            };
            (table, name) = match self.graph.op(table) {
                Op::Scan { table, .. } => return Some((table, name)),
                Op::Filter | Op::Sort(_) | Op::Limit { .. } => (inputs[0], name),
                Op::Project { names } => through(inputs[1 + names.iter().position(|n| n == name)?])?,
                Op::Aggregate { keys, .. } => through(inputs[1 + keys.iter().position(|n| n == name)?])?,
                Op::Join { kind, .. } => {
                    let side = self.graph.side_of(table, name)?;
                    // The right side of an outer join has NULLs of its own.
                    if *kind == JoinKind::Left && side != inputs[0] {
                        return None;
                    }
                    (side, name)
                }
                Op::Product => (self.graph.side_of(table, name)?, name),
                _ => return None,
            }
        }
    }
}

/// Do equal numbers in the statistics of columns of these types mean equal keys?
fn same_units(a: Scalar, b: Scalar) -> bool {
    a.is_int() && b.is_int() || a == b && matches!(a, Scalar::Date)
}
