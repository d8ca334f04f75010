//! Estimates of how many rows a table operator gives, from the statistics of the stored tables: uniform values,
//! independent columns, join keys of the smaller side contained in the larger (Selinger et al., "Access path selection in
//! a relational database management system", SIGMOD 1979).
//!
//! An estimate steers choices between ways to the same answer. It is no fact, and nothing may go wrong if it is off.

use crate::data::{Catalog, Column};
use quearn_stage::graph::{BinaryOp, CompareOp, Graph, JoinKind, Literal, Node, Op, Scalar, UnaryOp};
use std::cell::RefCell;
use std::collections::HashMap;

/// Rows that pass a condition of which nothing is known.
const UNKNOWN: f64 = 1.0 / 3.0;
/// Rows that match a pattern: few texts contain a given one.
const LIKE: f64 = 0.1;

/// Estimates for one graph over the tables of a catalog.
pub struct Estimator<'a> {
    graph: &'a Graph,
    catalog: &'a Catalog,
    rows: RefCell<HashMap<Node, f64>>,
    /// Numbers of distinct values, before any filter.
    distinct: RefCell<HashMap<Node, f64>>,
}

/// A comparison of a column with a constant: bounds of the values that pass.
#[derive(Clone, Copy)]
struct Bounds {
    low: f64,
    high: f64,
}

impl<'a> Estimator<'a> {
    /// An estimator that has not estimated anything yet.
    pub fn new(graph: &'a Graph, catalog: &'a Catalog) -> Estimator<'a> {
        Estimator { graph, catalog, rows: RefCell::default(), distinct: RefCell::default() }
    }

    /// Number of rows of a table; unknown tables count as large.
    pub fn rows(&self, table: Node) -> f64 {
        if let Some(&known) = self.rows.borrow().get(&table) {
            return known;
        }
        let rows = self.estimate(table);
        self.rows.borrow_mut().insert(table, rows);
        rows
    }

    fn estimate(&self, table: Node) -> f64 {
        let inputs = self.graph.inputs(table);
        let input = |i: usize| self.rows(inputs[i]);
        match self.graph.op(table) {
            Op::Scan { table, .. } => self.catalog.table(table).map_or(1e9, |t| t.rows() as f64),
            Op::Filter => input(0) * self.selectivity(inputs[1]),
            Op::Limit { offset, count } => (input(0) - *offset as f64).clamp(0.0, *count as f64),
            Op::Product => input(0) * input(1),
            Op::Union { .. } => inputs.iter().map(|&table| self.rows(table)).sum(),
            Op::Aggregate { keys, .. } if keys.is_empty() => 1.0,
            Op::Aggregate { keys, .. } => {
                let groups = inputs[1..=keys.len()].iter().map(|&key| self.distinct(key));
                groups.product::<f64>().min(input(0))
            }
            Op::Join { kind, keys } => self.join(table, kind, *keys),
            _ => input(0),
        }
    }

    fn join(&self, join: Node, kind: &JoinKind, keys: usize) -> f64 {
        let inputs = self.graph.inputs(join);
        let (left, right) = (self.rows(inputs[0]), self.rows(inputs[1]));
        let (left_keys, right_keys) = (&inputs[2..2 + keys], &inputs[2 + keys..2 + 2 * keys]);
        // Several keys mostly hang together: no side has more combinations than rows.
        let combinations = |keys: &[Node], rows: f64| keys.iter().map(|&k| self.distinct(k)).product::<f64>().min(rows);
        let (left_values, right_values) = (combinations(left_keys, left), combinations(right_keys, right));
        let residual = inputs.get(2 + 2 * keys).map_or(1.0, |&condition| self.selectivity(condition));
        // Filters on a side take values away that the key could have: the domain is that of the stored columns.
        let domain = |keys: &[Node]| keys.iter().map(|&k| self.stored_distinct(k)).product::<f64>();
        let domain = domain(left_keys).min(domain(right_keys)).max(left_values.max(right_values)).max(1.0);
        let matched = left * (right_values / domain).min(1.0);
        let pairs = left * right / domain * residual;
        match kind {
            JoinKind::Inner => pairs,
            JoinKind::Left => pairs.max(left),
            JoinKind::Semi => matched * residual,
            JoinKind::Anti => left - matched * residual,
            JoinKind::Mark(_) => left,
        }
    }

    /// Number of distinct values of a row expression among the rows of its table.
    pub fn distinct(&self, node: Node) -> f64 {
        let of_table = self.table_of(node).map_or(f64::INFINITY, |table| self.rows(table));
        self.stored_distinct(node).min(of_table).max(1.0)
    }

    /// Number of distinct values in the stored column behind an expression, before any filter.
    pub fn stored_distinct(&self, node: Node) -> f64 {
        if let Some(&known) = self.distinct.borrow().get(&node) {
            return known;
        }
        let distinct = self.estimate_distinct(node);
        self.distinct.borrow_mut().insert(node, distinct);
        distinct
    }

    fn estimate_distinct(&self, node: Node) -> f64 {
        if let Some(column) = self.column(node) {
            return column.stats.distinct.map_or(column.rows as f64, |d| d as f64).max(1.0);
        }
        match self.graph.op(node) {
            Op::Const(_) => 1.0,
            Op::Compare(_) | Op::Like(_) | Op::Clean(_) | Op::Hash => 2.0,
            Op::Binary(BinaryOp::And | BinaryOp::Or) | Op::Unary(UnaryOp::Not | UnaryOp::IsNull) => 2.0,
            // What one arm or the other gives.
            Op::Select | Op::If => self.graph.inputs(node)[1..].iter().map(|&arm| self.stored_distinct(arm)).sum(),
            Op::Column(_) if self.maker(node).is_some() => 2.0,
            Op::Unary(UnaryOp::Month) => 12.0,
            Op::Unary(UnaryOp::Day) => 31.0,
            Op::Unary(UnaryOp::Year) => self.years(self.graph.inputs(node)[0]),
            _ => {
                let inputs = self.graph.inputs(node).iter();
                inputs.map(|&i| self.stored_distinct(i)).product::<f64>()
            }
        }
    }

    fn years(&self, date: Node) -> f64 {
        let days = |c: &Column| Some((c.stats.max? - c.stats.min?) as f64);
        self.column(date).and_then(days).map_or(10.0, |days| (days / 365.0).ceil().max(1.0))
    }

    /// The table whose rows an expression is over.
    fn table_of(&self, node: Node) -> Option<Node> {
        match self.graph.op(node) {
            Op::Column(_) => Some(self.graph.inputs(node)[0]),
            _ => self.graph.inputs(node).iter().find_map(|&i| self.table_of(i)),
        }
    }

    /// The stored column that an expression passes on.
    pub fn column(&self, node: Node) -> Option<&'a Column> {
        let (scan, name) = self.source(node)?;
        let Op::Scan { table, .. } = self.graph.op(scan) else { return None };
        self.catalog.table(table)?.column(name).ok()
    }

    /// The scan and its column that an expression passes on.
    pub fn source(&self, node: Node) -> Option<(Node, &'a str)> {
        self.maker(node).filter(|(table, _)| matches!(self.graph.op(*table), Op::Scan { .. }))
    }

    /// The scan or mark join, and its column, that an expression passes on.
    fn maker(&self, node: Node) -> Option<(Node, &'a str)> {
        let Op::Column(name) = self.graph.op(node) else { return None };
        let mut at = (self.graph.inputs(node)[0], name.as_str());
        loop {
            let inputs = self.graph.inputs(at.0);
            let through = |node: Node| match self.graph.op(node) {
                Op::Column(inner) => Some((self.graph.inputs(node)[0], inner.as_str())),
                _ => None,
            };
            at = match self.graph.op(at.0) {
                Op::Scan { .. } => return Some(at),
                Op::Filter | Op::Sort(_) | Op::Limit { .. } => (inputs[0], at.1),
                Op::Project { names } => through(inputs[1 + names.iter().position(|n| n == at.1)?])?,
                Op::Aggregate { keys, .. } => through(inputs[1 + keys.iter().position(|n| n == at.1)?])?,
                Op::Join { .. } | Op::Product => match self.graph.side_of(at.0, at.1) {
                    Some(side) => (side, at.1),
                    None => return Some(at),
                },
                _ => return None,
            };
        }
    }

    /// Which part of the rows a condition holds for.
    pub fn selectivity(&self, condition: Node) -> f64 {
        let mut conjuncts = vec![];
        self.flatten(condition, &mut conjuncts);
        // Bounds of one column belong together: `a <= x and x < b` is an interval.
        let mut bounds: Vec<(*const Column, Bounds, f64)> = vec![];
        let mut all = 1.0;
        for conjunct in conjuncts {
            let Some((column, own)) = self.bounds(conjunct) else {
                all *= self.single(conjunct);
                continue;
            };
            match bounds.iter_mut().find(|b| std::ptr::eq(b.0, column)) {
                Some((_, known, _)) => {
                    *known = Bounds { low: known.low.max(own.low), high: known.high.min(own.high) };
                }
                None => bounds.push((column, own, span(column))),
            }
        }
        let part = |b: &Bounds, span: f64| ((b.high - b.low + 1.0) / span).clamp(0.0, 1.0);
        (all * bounds.iter().map(|(_, b, span)| part(b, *span)).product::<f64>()).clamp(0.0, 1.0)
    }

    fn flatten(&self, condition: Node, conjuncts: &mut Vec<Node>) {
        match self.graph.op(condition) {
            Op::Binary(BinaryOp::And) => self.graph.inputs(condition).iter().for_each(|&i| self.flatten(i, conjuncts)),
            _ => conjuncts.push(condition),
        }
    }

    /// One condition that is no conjunction.
    fn single(&self, condition: Node) -> f64 {
        let inputs = self.graph.inputs(condition);
        match self.graph.op(condition) {
            Op::Const(literal) => f64::from(u8::from(*literal == Literal::bool(true))),
            Op::Unary(UnaryOp::Not) => 1.0 - self.selectivity(inputs[0]),
            Op::Unary(UnaryOp::IsNull) => {
                let nulls = |c: &Column| c.stats.nulls as f64 / (c.rows as f64).max(1.0);
                self.column(inputs[0]).map_or(0.0, nulls)
            }
            Op::Binary(BinaryOp::Or) => {
                let (a, b) = (self.selectivity(inputs[0]), self.selectivity(inputs[1]));
                a + b - a * b
            }
            Op::Like(_) => LIKE,
            Op::Column(_) => self.marked(condition).unwrap_or(UNKNOWN),
            Op::Compare(CompareOp::Eq) => 1.0 / self.stored_distinct(inputs[0]).max(self.stored_distinct(inputs[1])),
            Op::Compare(CompareOp::Ne) => {
                1.0 - 1.0 / self.stored_distinct(inputs[0]).max(self.stored_distinct(inputs[1]))
            }
            _ => UNKNOWN,
        }
    }

    /// Which part of the rows a mark join marks, for a column that is its mark.
    fn marked(&self, column: Node) -> Option<f64> {
        let (join, _) = self.maker(column)?;
        let Op::Join { keys, .. } = self.graph.op(join) else { return None };
        Some(self.join(join, &JoinKind::Semi, *keys) / self.rows(self.graph.inputs(join)[0]).max(1.0))
    }

    /// The column of a comparison with a constant, and what values of it pass.
    fn bounds(&self, condition: Node) -> Option<(&'a Column, Bounds)> {
        let Op::Compare(op) = self.graph.op(condition) else { return None };
        let inputs = self.graph.inputs(condition);
        let (column, literal, op) = match (self.graph.op(inputs[0]), self.graph.op(inputs[1])) {
            (_, Op::Const(literal)) => (self.column(inputs[0])?, literal, *op),
            (Op::Const(literal), _) => (self.column(inputs[1])?, literal, op.flipped()),
            _ => return None,
        };
        let value = unscaled(literal, column)?;
        let (low, high) = (column.stats.min? as f64, column.stats.max? as f64);
        let bounds = match op {
            CompareOp::Lt => Bounds { low, high: (value - 1.0).ceil() },
            CompareOp::Le => Bounds { low, high: value.floor() },
            CompareOp::Gt => Bounds { low: (value + 1.0).floor(), high },
            CompareOp::Ge => Bounds { low: value.ceil(), high },
            CompareOp::Eq | CompareOp::Ne => return None,
        };
        Some((column, Bounds { low: bounds.low.max(low), high: bounds.high.min(high) }))
    }
}

/// Number of values between the least and the greatest of a column.
fn span(column: &Column) -> f64 {
    match (column.stats.min, column.stats.max) {
        (Some(min), Some(max)) => (max - min) as f64 + 1.0,
        _ => 1.0,
    }
}

/// A literal in the units in which a column's statistics are.
fn unscaled(literal: &Literal, column: &Column) -> Option<f64> {
    let digits = |scalar: Scalar| match scalar {
        Scalar::Decimal { scale, .. } => i32::from(scale),
        _ => 0,
    };
    if column.elem.scalar == Scalar::String {
        return None;
    }
    let value = literal.as_int()? as f64;
    Some(value * 10f64.powi(digits(column.elem.scalar) - digits(literal.scalar())))
}
