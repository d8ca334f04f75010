//! The current row: where staged expressions find the values of columns.
//!
//! An [`Env`] binds table nodes to a place (row `i` of a stored table, a materialised row, a group of an array) and
//! remembers the expressions that were evaluated already. A column of a table that is not bound is resolved through
//! the operator that makes it: a filter passes its input's row on, a projection evaluates its expression, a join asks
//! its sides, a mark join knows its mark. Values can be shared freely along a pipeline, as every later step runs inside
//! the scope of the earlier ones.

use super::aggregate::GroupLayout;
use super::layout::RowLayout;
use super::value::{Range, Value};
use quearn_stage::graph::Node;
use quearn_stage::low::{Builder, V};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Where a table's current row is.
#[derive(Clone)]
pub enum Place<'b> {
    /// Row of a stored table, `i64`.
    Stored(V<'b>),
    /// Rows of a stored table from `row` on, one in each lane where `mask` is true. Only what
    /// `super::aggregate::lanes` lets pass is evaluated on them.
    Lanes {
        /// First row, `i64`.
        row: V<'b>,
        /// Which lanes have a row.
        mask: V<'b>,
    },
    /// A materialised row.
    Row {
        /// Its address.
        ptr: V<'b>,
        /// Its layout.
        layout: Rc<RowLayout>,
        /// Is there a row (the other side of an outer join)? The memory is readable either way.
        present: Option<V<'b>>,
    },
    /// A group of an aggregation.
    Group {
        /// Its address.
        ptr: V<'b>,
        /// Layout of its keys and states.
        groups: Rc<GroupLayout>,
    },
    /// A pair of rows of the two sides of a join.
    Sides(Rc<Sides<'b>>),
    /// Values that are at hand.
    Values(Rc<Vec<(String, Value<'b>)>>),
    /// The values of a text column are replaced by one entry of its dictionary.
    Entry {
        /// Column.
        column: String,
        /// The entry.
        value: Value<'b>,
    },
}

/// The rows of a pair, each with an environment of its own: both sides may read the same table.
pub struct Sides<'b> {
    /// Left table and where its row is.
    pub left: (Node, Env<'b>),
    /// Right table and where its row is.
    pub right: (Node, Env<'b>),
}

/// The current row. Cheap to clone.
#[derive(Clone)]
pub struct Env<'b> {
    /// Builder of the function that handles the row.
    pub b: &'b Builder,
    /// The frame.
    pub frame: V<'b>,
    /// The worker.
    pub worker: V<'b>,
    /// Are only a few rows of a stored table produced at a time, so that vectors do not pay?
    pub few_rows: bool,
    /// Does the pipeline find its rows by a key?
    pub by_key: bool,
    places: HashMap<Node, Place<'b>>,
    marks: HashMap<Node, V<'b>>,
    memo: RefCell<HashMap<Node, Value<'b>>>,
}

impl<'b> Env<'b> {
    /// No row yet.
    pub fn new(b: &'b Builder, frame: V<'b>, worker: V<'b>) -> Env<'b> {
        Env {
            b,
            frame,
            worker,
            few_rows: false,
            by_key: false,
            places: HashMap::new(),
            marks: HashMap::new(),
            memo: RefCell::default(),
        }
    }

    /// The same in a pipeline that finds its rows by a key.
    pub fn finding_by_key(&self) -> Env<'b> {
        let mut env = self.clone();
        (env.by_key, env.few_rows) = (true, true);
        env
    }

    /// The same with a place for a table's row. What was evaluated before stays known: it does not depend on the new row.
    pub fn bind(&self, table: Node, place: Place<'b>) -> Env<'b> {
        let mut env = self.clone();
        env.places.insert(table, place);
        env
    }

    /// The same with the mark of the current row in a mark join.
    pub fn with_mark(&self, join: Node, found: V<'b>) -> Env<'b> {
        let mut env = self.clone();
        env.marks.insert(join, found);
        env
    }

    /// The mark of the current row in a mark join.
    pub fn mark(&self, join: Node) -> Option<V<'b>> {
        self.marks.get(&join).copied()
    }

    /// Where the row of `table` is.
    pub fn place(&self, table: Node) -> Option<&Place<'b>> {
        self.places.get(&table)
    }

    /// A copy whose later evaluations are not seen outside: for code inside a branch.
    pub fn branch(&self) -> Env<'b> {
        self.clone()
    }

    /// The value of an expression, if it was evaluated on this row.
    pub fn known(&self, node: Node) -> Option<Value<'b>> {
        self.memo.borrow().get(&node).copied()
    }

    /// Remembers the value of an expression.
    pub fn remember(&self, node: Node, value: Value<'b>) {
        self.memo.borrow_mut().insert(node, value);
    }

    /// Forgets everything that was evaluated: for another row in the same places.
    pub fn forget(&self) {
        self.memo.borrow_mut().clear();
    }

    /// A constant integer.
    pub fn int(&self, value: i128) -> Value<'b> {
        let range = Range::point(value);
        Value::int(self.b.int(quearn_stage::low::Ty::scalar(range.prim()), value), range)
    }
}
