//! Filters over a stored table by vectors: the conjuncts that compare plain columns are evaluated for a register of rows
//! at a time, and the positions of the rows that pass are written to a selection vector; the rest of the pipeline
//! runs over that (Boncz et al., "MonetDB/X100", CIDR 2005; Polychroniou et al., SIGMOD 2015).
//!
//! Only where the processor can compress a register (AVX-512); elsewhere a filter is a branch.

use super::dictionary::{self, DictRef, Table as DictTable};
use super::env::{Env, Place};
use super::expr::{can_fail, compare, eval};
use super::needed::spell;
use super::pipeline::{self, Consume, when};
use super::registers::{Form, LANES, Registers, Rows};
use super::scan::{self, LaneForm};
use super::sideways::{Hints, Test};
use super::value::{Range, Value};
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use crate::lower::parameter;
use crate::lower::tensor::target::Target;
use quearn_stage::graph::{BinaryOp, CompareOp, Literal, Node, Op, Scalar, Ty as GraphTy, UnaryOp};
use quearn_stage::low::{BinOp, Builder, CastOp, Prim, Ty, UnOp, V};

/// Rows for which positions are collected before they are consumed: the selection vector stays in the first cache.
const BLOCK: i64 = 1 << 10;
/// Dictionaries whose predicate fits one bit a code in a lane.
const CODES: usize = 32;
/// Part of the rows that must pass for values to be worth computing before it is known which do.
const MOSTLY: f64 = 0.5;

/// A predicate that is evaluated by vectors.
enum Mask {
    Compare(CompareOp, Operand, Operand),
    Binary(BinOp, Box<Mask>, Box<Mask>),
    Not(Box<Mask>),
    /// The predicate holds for some codes of a column.
    Codes {
        name: String,
        table: DictTable,
        len: usize,
    },
    /// Any other predicate that registers can evaluate.
    Expression(Node),
}

impl Mask {
    /// Is an expression evaluated on the way?
    fn holds(&self, registers: &Registers<'_, '_>, part: Node) -> bool {
        match self {
            Mask::Expression(node) => registers.holds(*node, part),
            Mask::Binary(_, x, y) => x.holds(registers, part) || y.holds(registers, part),
            Mask::Not(x) => x.holds(registers, part),
            Mask::Compare(..) | Mask::Codes { .. } => false,
        }
    }
}

enum Operand {
    Column(String),
    Int(i32),
    Float(Prim, f64),
    /// The parameter of a comparison with a column of these values.
    Parameter(Node, Range),
}

/// A filter in two parts.
pub struct Selection {
    scan: Node,
    masks: Vec<Mask>,
    hints: Hints,
    rest: Vec<Node>,
    buffered: Vec<Buffered>,
}

/// A costly expression of the pipeline, evaluated for a block of rows at a time.
struct Buffered {
    node: Node,
    prim: Prim,
    /// It is evaluated on all rows, together with the predicate; else on those that pass.
    on_all: bool,
}

impl Buffered {
    fn bytes(&self) -> i64 {
        self.prim.bytes() as i64
    }
}

/// Plans the filter `table` (or a scan alone), if it reads a stored table and has conjuncts that vectors can evaluate, or
/// operators above have hints about its rows.
pub fn plan(cx: &Cx<'_>, table: Node, hints: &Hints) -> Result<Option<Selection>> {
    let (scan, predicate) = match (cx.graph.op(table), cx.graph.inputs(table)) {
        (Op::Filter, &[scan, predicate]) => (scan, Some(predicate)),
        _ => (table, None),
    };
    if !matches!(cx.graph.op(scan), Op::Scan { .. }) || Target::host().vector_bytes < 64 {
        return Ok(None);
    }
    scan::check(cx, scan)?;
    let planner = Planner { cx, scan, registers: Registers::new(cx, scan) };
    let (mut masks, mut rest) = (vec![], vec![]);
    for conjunct in predicate.map(|predicate| conjuncts(cx, predicate)).unwrap_or_default() {
        match planner.mask(conjunct)? {
            Some(mask) => masks.push(mask),
            None => rest.push(conjunct),
        }
    }
    let left = cx.estimate.rows(table) / cx.estimate.rows(scan).max(1.0);
    let buffered = planner.buffered(&hints.expressions, &masks, left);
    let hints = hints.about(cx, scan, left);
    if masks.is_empty() && hints.is_empty() && buffered.is_empty() {
        return Ok(None);
    }
    // What is left sees the rows that pass the masks only. Where it can fail it has to see every row.
    let hides_failures = !masks.is_empty() && can_fail(cx, scan, &rest)?;
    Ok((!hides_failures).then_some(Selection { scan, masks, hints, rest, buffered }))
}

fn conjuncts(cx: &Cx<'_>, predicate: Node) -> Vec<Node> {
    match cx.graph.op(predicate) {
        Op::Binary(BinaryOp::And) => cx.graph.inputs(predicate).iter().flat_map(|&i| conjuncts(cx, i)).collect(),
        _ => vec![predicate],
    }
}

struct Planner<'x, 'g> {
    cx: &'x Cx<'g>,
    scan: Node,
    registers: Registers<'x, 'g>,
}

impl Planner<'_, '_> {
    fn mask(&self, node: Node) -> Result<Option<Mask>> {
        if let Some(codes) = self.codes(node)? {
            return Ok(Some(codes));
        }
        let narrow = self.narrow(node)?;
        Ok(narrow.or_else(|| (self.registers.form(node) == Some(Form::Bool)).then_some(Mask::Expression(node))))
    }

    /// A predicate made of comparisons of columns as they are stored.
    fn narrow(&self, node: Node) -> Result<Option<Mask>> {
        let inputs = self.cx.graph.inputs(node);
        Ok(match self.cx.graph.op(node) {
            Op::Compare(op) => self.compare(node, *op, inputs[0], inputs[1]),
            Op::Unary(UnaryOp::Not) => self.mask(inputs[0])?.map(|m| Mask::Not(Box::new(m))),
            Op::Binary(op @ (BinaryOp::And | BinaryOp::Or)) => {
                let op = if *op == BinaryOp::And { BinOp::And } else { BinOp::Or };
                let sides = (self.mask(inputs[0])?, self.mask(inputs[1])?);
                match sides {
                    (Some(x), Some(y)) => Some(Mask::Binary(op, Box::new(x), Box::new(y))),
                    _ => None,
                }
            }
            _ => None,
        })
    }

    /// The costly parts of expressions of the pipeline, where a part of the rows is left for it.
    fn buffered(&self, expressions: &[Node], masks: &[Mask], left: f64) -> Vec<Buffered> {
        let in_masks = |node| masks.iter().any(|mask| mask.holds(&self.registers, node));
        let costly = self.registers.costly(expressions).into_iter();
        let plan = |(node, prim)| {
            let on_all = masks.is_empty() || left >= MOSTLY || in_masks(node);
            (on_all || self.registers.can_gather(node)).then_some(Buffered { node, prim, on_all })
        };
        costly.filter_map(plan).collect()
    }

    /// A predicate on one column with a small dictionary.
    fn codes(&self, node: Node) -> Result<Option<Mask>> {
        let resolve = |leaf| self.cx.estimate.source(leaf).map(|(table, name)| (table, name.to_owned()));
        let Some(on) = dictionary::dependence(self.cx, node, &resolve).filter(|on| on.table == self.scan) else {
            return Ok(None);
        };
        match scan::lane_form(self.cx, self.scan, &on.column) {
            Some(LaneForm::Codes(len)) if len <= CODES => {
                let dict = DictRef::of(self.cx, scan::stored_table(self.cx, self.scan)?.name(), &on.column);
                let table = dictionary::tabulate(self.cx, node, &on, dict)?;
                let whole = table.is_plain_bool();
                Ok(whole.then_some(Mask::Codes { name: on.column, table, len }))
            }
            _ => Ok(None),
        }
    }

    fn compare(&self, node: Node, op: CompareOp, a: Node, b: Node) -> Option<Mask> {
        if let Some(side) = self.cx.parameters.side(node) {
            let Side::Column(name, lane) = self.side(if side == 1 { a } else { b })? else { return None };
            let LaneForm::Int = lane.form else { return None };
            let table = scan::stored_table(self.cx, self.scan).ok()?;
            let range = scan::range(self.cx, table, table.column(&name).ok()?)?;
            let near = Range::new(range.min - 1, range.max + 1);
            let parameter = Range::I32.contains(near).then_some(Operand::Parameter(node, range))?;
            let column = Operand::Column(name);
            let (x, y) = if side == 1 { (column, parameter) } else { (parameter, column) };
            return Some(Mask::Compare(op, x, y));
        }
        let (x, y) = (self.side(a)?, self.side(b)?);
        let (x, y) = match (x, y) {
            (Side::Column(p, t), Side::Column(q, u)) => {
                (t.lanes(u)).then_some((Operand::Column(p), Operand::Column(q)))?
            }
            (Side::Column(p, t), Side::Literal(literal)) => (Operand::Column(p), t.literal(literal)?),
            (Side::Literal(literal), Side::Column(q, t)) => (t.literal(literal)?, Operand::Column(q)),
            (Side::Literal(_), Side::Literal(_)) => return None,
        };
        Some(Mask::Compare(op, x, y))
    }

    fn side(&self, node: Node) -> Option<Side<'_>> {
        if let Op::Const(literal) = self.cx.graph.op(node) {
            return Some(Side::Literal(literal));
        }
        let (table, name) = self.cx.estimate.source(node)?;
        let form = scan::lane_form(self.cx, self.scan, name)?;
        let GraphTy::Tensor { elem, .. } = self.cx.graph.ty(node) else { return None };
        (table == self.scan).then_some(Side::Column(name.to_owned(), Lane { scalar: elem.scalar, form }))
    }
}

enum Side<'l> {
    Column(String, Lane),
    Literal(&'l Literal),
}

/// Logical type of a column and what a lane of it holds.
#[derive(Clone, Copy)]
struct Lane {
    scalar: Scalar,
    form: LaneForm,
}

impl Lane {
    /// Are lanes of both columns comparable as they are?
    fn lanes(self, other: Lane) -> bool {
        let scale = |s: Scalar| match s {
            Scalar::Decimal { scale, .. } => scale,
            _ => 0,
        };
        match (self.form, other.form) {
            (LaneForm::Int, LaneForm::Int) => scale(self.scalar) == scale(other.scalar),
            (LaneForm::Float(p), LaneForm::Float(q)) => p == q,
            _ => false,
        }
    }

    /// The literal as a lane of this column, if it is exact.
    fn literal(self, literal: &Literal) -> Option<Operand> {
        match (self.form, self.scalar, literal.scalar()) {
            (LaneForm::Int, Scalar::Decimal { scale, .. }, Scalar::Decimal { scale: own, .. }) if own <= scale => {
                int(literal, scale - own)
            }
            (LaneForm::Int, Scalar::Decimal { scale, .. }, s) if s.is_int() => int(literal, scale),
            (LaneForm::Int, a, b) if a == b || (a.is_int() && b.is_int()) => int(literal, 0),
            (LaneForm::Float(prim), a, b) if a == b => literal.as_float().map(|x| Operand::Float(prim, x)),
            _ => None,
        }
    }
}

fn int(literal: &Literal, digits: u8) -> Option<Operand> {
    let value = literal.as_int()?.checked_mul(10i128.pow(digits.into()))?;
    Range::I32.contains(Range::point(value)).then_some(Operand::Int(value as i32))
}

/// A mask with what is computed before the loop: one bit for each code that passes.
enum Ready<'m, 'b> {
    Compare(CompareOp, &'m Operand, &'m Operand),
    Binary(BinOp, Box<Ready<'m, 'b>>, Box<Ready<'m, 'b>>),
    Not(Box<Ready<'m, 'b>>),
    Codes { name: &'m str, bits: V<'b> },
    Expression(Node),
}

fn ready<'m, 'b>(env: &Env<'b>, mask: &'m Mask) -> Ready<'m, 'b> {
    match mask {
        Mask::Compare(op, x, y) => Ready::Compare(*op, x, y),
        Mask::Binary(op, x, y) => Ready::Binary(*op, Box::new(ready(env, x)), Box::new(ready(env, y))),
        Mask::Not(x) => Ready::Not(Box::new(ready(env, x))),
        Mask::Codes { name, table, len } => Ready::Codes { name, bits: code_bits(env, table, *len) },
        Mask::Expression(node) => Ready::Expression(*node),
    }
}

fn code_bits<'b>(env: &Env<'b>, table: &DictTable, len: usize) -> V<'b> {
    let b = env.b;
    b.for_carry(b.i64(0), b.i64(len as i64), 1, &[b.i32(0)], |code, c| {
        let passes = table.at(env, code).zext(Prim::I32);
        vec![c[0] | passes.bin(BinOp::Shl, code.sext(Prim::I32))]
    })[0]
}

struct Lanes<'x, 'g, 'b> {
    cx: &'x Cx<'g>,
    env: &'x Env<'b>,
    scan: Node,
    row: V<'b>,
    /// The lanes that have a row.
    mask: V<'b>,
}

impl<'b> Lanes<'_, '_, 'b> {
    /// The lanes that have a row for which all of these hold.
    fn all(&self, masks: &[Ready<'_, 'b>]) -> Result<V<'b>> {
        masks.iter().try_fold(self.mask, |all, mask| Ok(all & self.test(mask)?))
    }

    fn test(&self, ready: &Ready<'_, 'b>) -> Result<V<'b>> {
        Ok(match ready {
            Ready::Compare(op, x, y) => self.operand(x)?.cmp(compare::machine(*op), self.operand(y)?),
            Ready::Binary(op, x, y) => self.test(x)?.bin(*op, self.test(y)?),
            Ready::Not(x) => !self.test(x)?,
            Ready::Codes { name, bits } => {
                let codes = self.column(name)?;
                bits.splat(LANES).bin(BinOp::LShr, codes).cast(CastOp::Trunc, Prim::Bool)
            }
            Ready::Expression(node) => {
                let rows = Rows::Following { row: self.row, mask: self.mask };
                Registers::new(self.cx, self.scan).eval(self.env, &rows, *node)?
            }
        })
    }

    fn operand(&self, operand: &Operand) -> Result<V<'b>> {
        let b = self.env.b;
        Ok(match operand {
            Operand::Column(name) => self.column(name)?,
            Operand::Int(value) => b.int(Ty::vector(Prim::I32, LANES), i128::from(*value)),
            Operand::Parameter(node, range) => {
                let value = parameter::value(self.cx, b, self.env.frame, *node, *range);
                let missing = || LowerError::Internal { node: self.cx.describe(*node), what: "no parameter".into() };
                value.ok_or_else(missing)?.scalar().splat(LANES)
            }
            Operand::Float(prim, value) => b.float(Ty::vector(*prim, LANES), *value),
        })
    }

    fn column(&self, name: &str) -> Result<V<'b>> {
        scan::load_lanes(self.cx, self.env, self.scan, name, self.row, self.mask)
    }
}

/// The conjuncts of a selection, ready to be tested.
pub struct Masks<'m, 'b> {
    scan: Node,
    masks: Vec<Ready<'m, 'b>>,
    tests: &'m [Test],
}

impl<'b> Masks<'_, 'b> {
    /// The lanes of `mask`, those of the rows from `row` on, in which all conjuncts hold.
    pub fn test(&self, cx: &Cx<'_>, env: &Env<'b>, row: V<'b>, mask: V<'b>) -> Result<V<'b>> {
        let kept = Lanes { cx, env, scan: self.scan, row, mask }.all(&self.masks)?;
        self.tests.iter().try_fold(kept, |kept, test| test.lanes(cx, env, row, kept))
    }
}

impl Selection {
    /// Do vectors evaluate the whole predicate?
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }

    /// What the scan does for the operators above, for `explain`.
    pub fn note(&self, cx: &Cx<'_>) -> Option<(Node, String)> {
        let by_vectors = |one: &Buffered| format!(", {} by vectors", spell(cx.graph, one.node));
        let buffered: String = self.buffered.iter().map(by_vectors).collect();
        let note = self.hints.describe() + &buffered;
        (!note.is_empty()).then_some((self.scan, note))
    }

    /// What is computed before the loop over rows.
    pub fn ready<'b>(&self, env: &Env<'b>) -> Masks<'_, 'b> {
        Masks { scan: self.scan, masks: self.masks.iter().map(|m| ready(env, m)).collect(), tests: &self.hints.tests }
    }

    /// Consumes the rows of a tile that pass.
    pub fn produce<'b>(
        &self,
        cx: &Cx<'_>,
        env: &Env<'b>,
        (lo, hi): (V<'b>, V<'b>),
        consume: &mut Consume<'_>,
    ) -> Result<()> {
        let b = env.b;
        let masks = self.ready(env);
        let block = Block {
            cx,
            env,
            selection: self,
            registers: Registers::new(cx, self.scan),
            selected: b.alloca(4 * BLOCK as u32, 64),
            buffers: self.buffered.iter().map(|one| b.alloca((one.bytes() * BLOCK) as u32, 64)).collect(),
        };
        let mut outcome = Ok(());
        b.for_carry(lo, hi, BLOCK, &[], |base, _| {
            let end = (base + BLOCK).min(hi);
            outcome = if self.masks.is_empty() && self.hints.is_empty() {
                block.all((base, end), consume)
            } else {
                block.chosen(&masks, (base, end), consume)
            };
            vec![]
        });
        outcome
    }

    /// The rest of the filter, row by row.
    fn pass<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, consume: &mut Consume<'_>) -> Result<()> {
        if self.rest.is_empty() {
            return consume(env);
        }
        let mut keep = env.b.bool(true);
        for &conjunct in &self.rest {
            keep = keep & eval(cx, env, conjunct)?.is_true();
        }
        when(env.b, keep, || consume(&env.branch()))
    }
}

/// The rows of a block on their way to the consumer.
struct Block<'x, 'g, 'b> {
    cx: &'x Cx<'g>,
    env: &'x Env<'b>,
    selection: &'x Selection,
    registers: Registers<'x, 'g>,
    /// The selection vector.
    selected: V<'b>,
    /// Values of the buffered expressions.
    buffers: Vec<V<'b>>,
}

impl<'b> Block<'_, '_, 'b> {
    /// Consumes every row.
    fn all(&self, (base, end): (V<'b>, V<'b>), consume: &mut Consume<'_>) -> Result<()> {
        let b = self.env.b;
        each_register(b, base, end, |row, inside| {
            self.fill(&Rows::Following { row, mask: inside }, row - base, |one| one.on_all)
        })?;
        pipeline::for_each(b, (base, end), |row| {
            let env = self.env.bind(self.selection.scan, Place::Stored(row));
            self.recall(&env, row - base, row - base);
            self.selection.pass(self.cx, &env, consume)
        })
    }

    /// Consumes the rows that pass.
    fn chosen(&self, masks: &Masks<'_, 'b>, (base, end): (V<'b>, V<'b>), consume: &mut Consume<'_>) -> Result<()> {
        let b = self.env.b;
        let n = self.select(masks, (base, end))?;
        let offset = |j: V<'b>| b.load(Ty::I32, self.selected.index(j, 4), 0).zext(Prim::I64);
        let at = |offset: V<'b>| self.env.bind(self.selection.scan, Place::Stored(base + offset));
        let ahead = &self.selection.hints.ahead;
        if !ahead.is_empty() {
            let ask = |env: &Env<'b>| ahead.iter().try_for_each(|ahead| ahead.ask(self.cx, env));
            pipeline::for_each(b, (b.i64(0), n), |j| ask(&at(offset(j))))?;
        }
        if self.selection.buffered.iter().any(|one| !one.on_all) {
            each_register(b, b.i64(0), n, |j, mask| {
                let positions = b.load(Ty::vector(Prim::I32, LANES), self.selected.index(j, 4), 0);
                self.fill(&Rows::Picked { base, positions, mask }, j, |one| !one.on_all)
            })?;
        }
        pipeline::for_each(b, (b.i64(0), n), |j| {
            let offset = offset(j);
            let env = at(offset);
            self.recall(&env, offset, j);
            self.selection.pass(self.cx, &env, consume)
        })
    }

    /// Evaluates some of the buffered expressions, to be found from position `at` on.
    fn fill(&self, rows: &Rows<'b>, at: V<'b>, which: impl Fn(&Buffered) -> bool) -> Result<()> {
        for (one, buffer) in self.selection.buffered.iter().zip(&self.buffers).filter(|(one, _)| which(one)) {
            let values = self.registers.eval(self.env, rows, one.node)?;
            self.env.b.store(buffer.index(at, one.bytes()), 0, values);
        }
        Ok(())
    }

    /// Tells the row at that offset in the block, the `j`-th of those that pass, what was evaluated for it.
    fn recall(&self, env: &Env<'b>, offset: V<'b>, j: V<'b>) {
        for (one, buffer) in self.selection.buffered.iter().zip(&self.buffers) {
            let at = if one.on_all { offset } else { j };
            env.remember(one.node, Value::prim(env.b.load(Ty::scalar(one.prim), buffer.index(at, one.bytes()), 0)));
        }
    }

    /// Writes the positions (from `base`) of the rows of a block that pass; how many.
    fn select(&self, masks: &Masks<'_, 'b>, (base, end): (V<'b>, V<'b>)) -> Result<V<'b>> {
        let b = self.env.b;
        let mut outcome = Ok(());
        let lanes = Ty::vector(Prim::I32, LANES);
        let rows = (end - base).sext(Prim::I32).splat(LANES);
        let n = b.for_carry(base, end, LANES.into(), &[b.i64(0)], |row, c| {
            let positions = b.iota(lanes) + (row - base).sext(Prim::I32).splat(LANES);
            let inside = positions.lt(rows);
            let filled = self.fill(&Rows::Following { row, mask: inside }, row - base, |one| one.on_all);
            let test = filled.and_then(|()| masks.test(self.cx, self.env, row, inside)).unwrap_or_else(|error| {
                outcome = Err(error);
                inside
            });
            vec![keep(b, self.selected, c[0], test, positions)]
        })[0];
        outcome?;
        Ok(n)
    }
}

/// The lanes of a register of rows from `row` on that have a row before `hi`.
pub fn lanes_before<'b>(b: &'b Builder, row: V<'b>, hi: V<'b>) -> V<'b> {
    let left = (hi - row).min(b.i64(LANES.into())).sext(Prim::I32);
    b.iota(Ty::vector(Prim::I32, LANES)).lt(left.splat(LANES))
}

/// A loop over registers of rows from `lo` to `hi`: its body gets the first row of a register, and the lanes that have one.
pub fn each_register<'b>(
    b: &'b Builder,
    lo: V<'b>,
    hi: V<'b>,
    body: impl FnOnce(V<'b>, V<'b>) -> Result<()>,
) -> Result<()> {
    let mut outcome = Ok(());
    b.for_carry(lo, hi, LANES.into(), &[], |row, _| {
        outcome = body(row, lanes_before(b, row, hi));
        vec![]
    });
    outcome
}

/// Appends the positions of the lanes that pass to the selection vector of `n`; the new length.
fn keep<'b>(b: &'b Builder, selected: V<'b>, n: V<'b>, test: V<'b>, positions: V<'b>) -> V<'b> {
    b.compress_store(selected.index(n, 4), test, positions);
    let bits = test.bitcast(Ty::I16).zext(Prim::I32);
    n + bits.un(UnOp::Popcnt).zext(Prim::I64)
}
