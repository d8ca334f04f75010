//! Tiles of a stored table in which no row can pass are skipped: the bounds of the values of a column in a tile are
//! compared with what the filter compares the column with.
//!
//! The test is made when the program runs, with the bounds of the table that is there then and the parameters of that
//! run. It is generated only where the table is clustered by the column, so that it can leave out much; whether it does
//! depends on the parameters.

use super::env::Env;
use super::expr::{can_fail, compare};
use super::scan;
use super::value::{Range, widen};
use crate::data::{ZONE_ROWS, Zones};
use crate::lower::context::{Cx, Fact};
use crate::lower::frame::{Bind, Part};
use crate::lower::parameter;
use quearn_stage::graph::{BinaryOp, CompareOp, Node, Op};
use quearn_stage::low::{BinOp, CmpOp, Prim, Ty, V};

/// Rows that are read for one value less than all, at least: generating the test costs what reading as many does.
const LEAST_SKIPPED: f64 = (1 << 17) as f64;
/// Bytes of the bounds of a block.
const BOUNDS_BYTES: i64 = 16;

/// What must be true of the bounds of a block, or no row of it passes.
enum Test {
    Compare(Compare),
    /// Both, or one of the two.
    Binary(BinOp, Box<Test>, Box<Test>),
}

/// A comparison of a column with a literal.
struct Compare {
    table: String,
    column: String,
    /// With the column on the left.
    op: CompareOp,
    node: Node,
    /// In the units of the column, should it be no parameter.
    literal: i128,
    /// The values of the column.
    range: Range,
}

/// The columns by which a filter skips tiles.
pub fn columns(cx: &Cx<'_>, filter: Node) -> Vec<String> {
    fn collect(test: &Test, columns: &mut Vec<String>) {
        match test {
            Test::Compare(c) if columns.contains(&c.column) => {}
            Test::Compare(c) => columns.push(c.column.clone()),
            Test::Binary(_, x, y) => [x, y].into_iter().for_each(|test| collect(test, columns)),
        }
    }
    let mut columns = vec![];
    plan(cx, filter).iter().for_each(|test| collect(test, &mut columns));
    columns
}

/// A tile of the stored table under `filter`, made empty if none of its rows can pass.
pub fn narrowed<'b>(cx: &Cx<'_>, env: &Env<'b>, filter: Node, (lo, hi): (V<'b>, V<'b>)) -> (V<'b>, V<'b>) {
    let Some(test) = plan(cx, filter) else { return (lo, hi) };
    let b = env.b;
    let shift = i64::from(ZONE_ROWS.trailing_zeros());
    // Tiles are blocks; only those that end where a key changes reach into the next ones.
    let last = (hi + (ZONE_ROWS as i64 - 1)).lshr(shift);
    let any =
        b.for_carry(lo.lshr(shift), last, 1, &[b.bool(false)], |block, c| vec![c[0] | holds(cx, env, &test, block)]);
    (lo, any[0].select(hi, lo))
}

/// The test of a filter over a stored table; `None` if it does not pay, or if the predicate can fail: then it must see
/// every row.
fn plan(cx: &Cx<'_>, filter: Node) -> Option<Test> {
    let &[scan, predicate] = cx.graph.inputs(filter) else { return None };
    let stored = matches!(cx.graph.op(scan), Op::Scan { .. }) && scan::check(cx, scan).is_ok();
    let test = if stored { test(cx, scan, predicate) } else { None };
    // What cannot be lowered is said where it is lowered.
    test.filter(|_| !can_fail(cx, scan, &[predicate]).unwrap_or(true))
}

fn test(cx: &Cx<'_>, scan: Node, node: Node) -> Option<Test> {
    let inputs = cx.graph.inputs(node);
    let sides = || (test(cx, scan, inputs[0]), test(cx, scan, inputs[1]));
    let both = |op, x, y| Test::Binary(op, Box::new(x), Box::new(y));
    match cx.graph.op(node) {
        Op::Compare(op) => compared(cx, scan, node, *op),
        Op::Binary(BinaryOp::And) => match sides() {
            (Some(x), Some(y)) => Some(both(BinOp::And, x, y)),
            (x, y) => x.or(y),
        },
        Op::Binary(BinaryOp::Or) => match sides() {
            (Some(x), Some(y)) => Some(both(BinOp::Or, x, y)),
            _ => None,
        },
        _ => None,
    }
}

fn compared(cx: &Cx<'_>, scan: Node, node: Node, op: CompareOp) -> Option<Test> {
    let (side, literal) = parameter::literal(cx.graph, node)?;
    let (from, name) = cx.estimate.source(cx.graph.inputs(node)[1 - side])?;
    let table = scan::stored_table(cx, scan).ok().filter(|_| from == scan)?;
    let column = table.column(name).ok()?;
    column.zones.as_ref().filter(|zones| pays(zones, table.rows()))?;
    let range = scan::range(cx, table, column)?;
    let op = if side == 1 { op } else { op.flipped() };
    Some(Test::Compare(Compare { table: table.name().to_owned(), column: name.to_owned(), op, node, literal, range }))
}

fn pays(zones: &Zones, rows: usize) -> bool {
    (1.0 - zones.overlap()) * rows as f64 >= LEAST_SKIPPED
}

/// Can a row of the block pass?
fn holds<'b>(cx: &Cx<'_>, env: &Env<'b>, test: &Test, block: V<'b>) -> V<'b> {
    match test {
        Test::Compare(compare) => compare.holds(cx, env, block),
        Test::Binary(op, x, y) => holds(cx, env, x, block).bin(*op, holds(cx, env, y, block)),
    }
}

impl Compare {
    fn holds<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, block: V<'b>) -> V<'b> {
        let (b, table, column) = (env.b, self.table.clone(), self.column.clone());
        cx.rely_on(Fact::Zones { table: table.clone(), column: column.clone() });
        let bounds = cx.frame.bind(Bind::Column { table, column, part: Part::Zones }).get(b, env.frame);
        let block = bounds.index(block, BOUNDS_BYTES);
        let (min, max) = (b.load_invariant(Ty::I64, block, 0), b.load_invariant(Ty::I64, block, 8));
        let value = match parameter::value(cx, b, env.frame, self.node, self.range) {
            Some(value) => widen(value.scalar(), Prim::I64),
            None => {
                let reach = parameter::reach(self.range);
                b.int(Ty::I64, self.literal.clamp(reach.min, reach.max))
            }
        };
        match self.op {
            CompareOp::Eq => min.cmp(CmpOp::Le, value) & max.cmp(CmpOp::Ge, value),
            CompareOp::Ne => min.cmp(CmpOp::Ne, value) | max.cmp(CmpOp::Ne, value),
            CompareOp::Lt | CompareOp::Le => min.cmp(compare::machine(self.op), value),
            CompareOp::Gt | CompareOp::Ge => max.cmp(compare::machine(self.op), value),
        }
    }
}
