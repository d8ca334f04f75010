//! What the operators of a pipeline send down to its scan.
//!
//! A [`Test`] lets vectors drop rows without a match before anything else is read of them (sideways information passing;
//! Gubner et al., "Efficient use of bloom filters in vectorized engines", ADMS 2019). It is exact: it asks the key flags or
//! the bitmap of the join's own directory. An [`Ahead`] asks for the cache lines in which the rows of a block will find
//! their matches (group prefetching: Chen et al., "Improving hash join performance through prefetching", ICDE 2004).
//!
//! Both only spare time. The join still looks its rows up, so whoever cannot make use of them ignores them.

use super::env::{Env, Place};
use super::join::directory::{Access, Index};
use super::join::flags::Marked;
use super::join::{self, Join, Probe};
use super::scan::{self, LaneForm};
use super::value::Range;
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::Slot;
use quearn_backends::abi;
use quearn_stage::graph::fails::any_can_fail;
use quearn_stage::graph::{JoinKind, Node, Op, Scalar, Ty as GraphTy};
use quearn_stage::low::{BinOp, CastOp, Prim, V};
use std::rc::Rc;

/// Part of the rows that a test may let pass, at most: else a branch on each row costs less than the test.
const MOST_KEPT: f64 = 0.6;
/// Tests stop paying where this part of the rows is left: a register of which most lanes are off takes as long as a full one.
const LEAST_LEFT: f64 = 0.2;

/// Rows of a table of which none is spared.
const FEW_ROWS: f64 = 16384.0;
/// Bytes of a build side from which on its rows are asked for ahead: half of a second-level cache.
const LARGE: f64 = (1 << 20) as f64;

/// What the joins of a pipeline send down.
#[derive(Clone, Default)]
pub struct Hints {
    /// Tests of rows.
    pub tests: Vec<Test>,
    /// Look-ups that will miss the caches.
    pub ahead: Vec<Ahead>,
    /// Expressions that will be evaluated on every row that comes.
    pub expressions: Rc<[Node]>,
    /// The keys that a build side marks: rows whose key was found need not come.
    pub marked: Option<Rc<Marked>>,
}

impl Hints {
    /// These and what a join adds to them.
    pub fn and(&self, cx: &Cx<'_>, probe: &Rc<Probe>) -> Hints {
        let mut hints = self.clone();
        hints.tests.extend(Test::of(cx, probe));
        hints.ahead.extend(Ahead::of(cx, probe));
        hints
    }

    /// Those that may move below an operator: no test where an expression of the operator can fail on a row that it drops.
    pub fn below(&self, cx: &Cx<'_>, table: Node) -> Hints {
        let inputs = cx.graph.inputs(table);
        let expressions = match cx.graph.op(table) {
            Op::Filter => &inputs[1..],
            Op::Join { .. } => &inputs[2..],
            // The expressions of a projection are evaluated where they are read.
            Op::Project { .. } | Op::Scan { .. } => &[],
            _ => return Hints::default(),
        };
        let mut hints = self.clone();
        if any_can_fail(cx.graph, expressions) {
            hints.tests.clear();
        }
        // How many of the rows below a join it lets through is not known well enough.
        if matches!(cx.graph.op(table), Op::Join { .. }) {
            hints.expressions = Rc::default();
        }
        hints
    }

    /// Those about a scan: tests in the order in which to make them, as long as they pay where a part of its rows is left.
    pub fn about(&self, cx: &Cx<'_>, scan: Node, mut left: f64) -> Hints {
        if cx.estimate.rows(scan) < FEW_ROWS {
            return Hints::default();
        }
        let mut tests: Vec<Test> = self.tests.iter().filter(|test| test.scan == scan).cloned().collect();
        tests.sort_by(|a, b| a.kept.total_cmp(&b.kept));
        tests.retain(|test| {
            let pays = left > LEAST_LEFT;
            left *= test.kept;
            pays
        });
        let ahead = self.ahead.iter().filter(|ahead| ahead.scan == scan).cloned().collect();
        Hints { tests, ahead, ..Hints::default() }
    }

    /// For `explain`.
    pub fn describe(&self) -> String {
        let test = |t: &Test| format!(", {} {}among keys", t.column, if t.anti { "not " } else { "" });
        let ahead = |a: &Ahead| format!(", matches of {} fetched ahead", a.columns.join(", "));
        self.tests.iter().map(test).chain(self.ahead.iter().map(ahead)).collect()
    }

    /// Are there neither tests nor look-ups?
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty() && self.ahead.is_empty()
    }
}

/// Keys of a scan by which a large build side is looked up in no order.
#[derive(Clone)]
pub struct Ahead {
    scan: Node,
    columns: Vec<String>,
    probe: Rc<Probe>,
}

impl Ahead {
    fn of(cx: &Cx<'_>, probe: &Rc<Probe>) -> Option<Ahead> {
        let join = &probe.join;
        let bytes = match probe.access {
            Access::Flags(_) | Access::Bits(_) | Access::Positional { .. } => return None,
            _ => cx.estimate.rows(join.right) * probe.width() as f64,
        };
        let by: Vec<_> = match probe.access {
            Access::Array { key, .. } => vec![join.keys[key]],
            _ => join.keys.clone(),
        };
        let sorted = |node: Node| cx.estimate.column(node).is_some_and(|column| column.stats.sorted);
        let plain = by.iter().all(|&(own, other)| same_units(cx, own, other) && !is_text(cx, own));
        if bytes < LARGE || !plain || by.iter().any(|&(own, _)| sorted(own)) {
            return None;
        }
        let sources = by.iter().map(|&(own, _)| source(cx, own, join.left));
        let (scans, columns): (Vec<Node>, Vec<String>) = sources.collect::<Option<Vec<_>>>()?.into_iter().unzip();
        Some(Ahead { scan: *scans.first()?, columns, probe: Rc::clone(probe) })
    }

    /// Asks for what the current row of the scan will look up.
    pub fn ask<'b>(&self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let Some(Place::Stored(row)) = env.place(self.scan) else { return Ok(()) };
        let keys = self.columns.iter().map(|column| scan::load(cx, env, self.scan, column, *row));
        join::ask(cx, env, &self.probe, &keys.collect::<Result<Vec<_>>>()?);
        Ok(())
    }
}

/// Does the key in a column of a scan occur among the keys of a build side?
#[derive(Clone, Debug)]
pub struct Test {
    scan: Node,
    column: String,
    /// Keys of the build side.
    range: Range,
    /// Can the column hold other values?
    outside: bool,
    /// Address of the flags or the bitmap.
    keys: Slot,
    /// How keys are marked there.
    marks: Marks,
    /// Are the rows without a match wanted?
    anti: bool,
    /// Estimated part of the rows that pass.
    kept: f64,
}

/// How the keys of a build side are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marks {
    /// A byte a key.
    Flags,
    /// A bit a key.
    Bits,
    /// A bit a key, with a count behind every 64.
    Ranked,
}

impl Test {
    /// The test that a join allows, if its key is a column of the scan at the source of its left side.
    fn of(cx: &Cx<'_>, probe: &Probe) -> Option<Test> {
        let join = &probe.join;
        let (at, range, marks) = match probe.access {
            Access::Flags(range) => (0, range, Marks::Flags),
            Access::Bits(range) => (0, range, Marks::Bits),
            Access::Array { key, index: Index::Rank(range), .. } => (key, range, Marks::Ranked),
            _ => return None,
        };
        let anti = join.kind == JoinKind::Anti;
        // A row without a match in a part of the keys has none; one with a match there may still have none.
        let drops = matches!(join.kind, JoinKind::Inner | JoinKind::Semi | JoinKind::Anti);
        if !drops || (anti && (marks == Marks::Ranked || join.keys.len() > 1)) {
            return None;
        }
        let (own, other) = join.keys[at];
        let (scan, column) = source(cx, own, join.left)?;
        if scan::lane_form(cx, scan, &column)? != LaneForm::Int || !same_units(cx, own, other) {
            return None;
        }
        let table = scan::stored_table(cx, scan).ok()?;
        let values = scan::range(cx, table, table.column(&column).ok()?)?;
        let positions = range.count().filter(|&n| n <= i32::MAX as u64).is_some();
        let kept = kept(cx, join, at);
        let slots = probe.slots;
        let keys = if marks == Marks::Ranked { slots.ranks } else { slots.heads };
        let fits = positions && Range::I32.contains(range) && kept <= MOST_KEPT;
        fits.then(|| Test { scan, column, range, outside: !range.contains(values), keys, marks, anti, kept })
    }

    /// The lanes of `mask`, those of the rows from `row` on, that pass.
    pub fn lanes<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, row: V<'b>, mask: V<'b>) -> Result<V<'b>> {
        let b = env.b;
        let key = scan::load_lanes(cx, env, self.scan, &self.column, row, mask)?;
        let lanes = key.ty();
        let inside = if self.outside {
            let bound = |limit: i128| b.int(lanes, limit);
            mask & bound(self.range.min).le(key) & key.le(bound(self.range.max))
        } else {
            mask
        };
        let offset = key - b.int(lanes, self.range.min);
        let keys = self.keys.get(b, env.frame);
        let shifted = |v: V<'b>, bits: i32| v.bin(BinOp::LShr, b.int(lanes, bits.into()));
        let word = match self.marks {
            Marks::Flags => offset,
            Marks::Bits => shifted(offset, 5),
            // Words of 32 keys; a count follows every two of them.
            Marks::Ranked => {
                let each = b.int(lanes, i128::from(abi::RANK_BYTES / 4));
                shifted(offset, 6) * each + (shifted(offset, 5) & b.int(lanes, 1))
            }
        };
        let scale = if self.marks == Marks::Flags { 1 } else { 4 };
        let found = b.gather(lanes, keys, word, scale, inside, true);
        let bit = match self.marks {
            Marks::Flags => found,
            _ => found.bin(BinOp::LShr, offset & b.int(lanes, 31)),
        };
        let occurs = bit.cast(CastOp::Trunc, Prim::Bool);
        let occurs = occurs & inside;
        Ok(if self.anti { mask & !occurs } else { occurs })
    }
}

/// Bytes that a vector reads behind the last flag.
pub const FLAGS_PAD: i64 = 3;

/// The part of the left rows that have a match in that key.
fn kept(cx: &Cx<'_>, join: &Join, key: usize) -> f64 {
    let (own, other) = join.keys[key];
    let part = (cx.estimate.distinct(other) / cx.estimate.stored_distinct(own)).min(1.0);
    if join.kind == JoinKind::Anti { 1.0 - part } else { part }
}

fn is_text(cx: &Cx<'_>, node: Node) -> bool {
    matches!(cx.graph.ty(node), GraphTy::Tensor { elem, .. } if elem.scalar == Scalar::String)
}

/// Are the stored values of both keys in the same units?
fn same_units(cx: &Cx<'_>, own: Node, other: Node) -> bool {
    let scalar = |node: Node| match cx.graph.ty(node) {
        GraphTy::Tensor { elem, .. } => Some(elem.scalar),
        _ => None,
    };
    match (scalar(own), scalar(other)) {
        (Some(Scalar::Decimal { scale: s, .. }), Some(Scalar::Decimal { scale: t, .. })) => s >= t,
        (Some(a), Some(b)) => a == b || (a.is_int() && b.is_int()),
        _ => false,
    }
}

/// The scan at the source of a pipeline and its column behind an expression over `table`, if operators only pass it on.
fn source(cx: &Cx<'_>, expression: Node, table: Node) -> Option<(Node, String)> {
    match cx.graph.op(expression) {
        Op::Column(name) if cx.graph.inputs(expression)[0] == table => passed_on(cx, name, table),
        _ => None,
    }
}

fn passed_on(cx: &Cx<'_>, name: &str, table: Node) -> Option<(Node, String)> {
    let inputs = cx.graph.inputs(table);
    match cx.graph.op(table) {
        Op::Scan { .. } => Some((table, name.to_owned())),
        Op::Filter => passed_on(cx, name, inputs[0]),
        Op::Project { names } => match cx.graph.op(inputs[1 + names.iter().position(|n| n == name)?]) {
            Op::Column(inner) => passed_on(cx, inner, inputs[0]),
            _ => None,
        },
        Op::Join { .. } => {
            let left = quearn_stage::graph::fails::has_column(cx.graph, inputs[0], name);
            left.then(|| passed_on(cx, name, inputs[0])).flatten()
        }
        _ => None,
    }
}
