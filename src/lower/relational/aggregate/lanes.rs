//! Aggregation into few groups by vectors (compare Gubner and Boncz, "Exploring query execution strategies for JIT,
//! vectorization and SIMD", ADMS 2017). Keys and arguments of a block of rows are evaluated, a register at a time, into
//! buffers in the first-level cache. Then each group that occurs in the block goes over them and adds the lanes that are its
//! own to sums that stay in registers; a block is so short that most of these need 32 bits only. What a block gives is
//! added to 64-bit lanes on the stack, and these to the worker's groups at the end of a tile.
//!
//! It pays where most rows are kept: each costs the same, whether it counts or not.

use super::super::env::{Env, Place};
use super::super::expr::elem_of;
use super::super::pipeline::TILE_ROWS;
use super::super::registers::{Form, LANES, Registers, Rows};
use super::super::scan::{self, LaneForm};
use super::super::select::{self, Masks, Selection};
use super::super::sideways::Hints;
use super::super::value::{Range, Repr, Value};
use super::super::zones;
use super::super::{lookup, pipeline};
use super::directory::Directory;
use super::{Aggregation, GroupLayout, Groups};
use crate::lower::context::{Cx, PipelineNote};
use crate::lower::error::{LowerError, Result};
use crate::lower::tensor::target::Target;
use quearn_stage::graph::{AggregateOp, BinaryOp, Node, Op};
use quearn_stage::low::{BinOp, Builder, CastOp, Func, ModuleBuilder, Prim, ReduceOp, Ty, V};
use std::rc::Rc;

/// Groups, at most: all of them are looked at for every register of rows.
const MOST_GROUPS: u64 = 16;
/// Part of the rows from which on vectors pay.
const LEAST_KEPT: f64 = 0.2;

/// Registers of rows in a block: with eight values a row the buffers take a sixth of the first-level cache.
const ROUNDS: i64 = 16;
/// Rows of a block.
const BLOCK: i64 = ROUNDS * LANES as i64;
/// Bytes of a total: lanes of 64 bits.
const TOTAL_BYTES: i64 = LANES as i64 * 8;

/// Emits the pipeline of an aggregation, if vectors can do all of it.
pub fn run(cx: &Cx<'_>, sink: &mut Groups) -> Result<bool> {
    let Some(source) = Source::of(cx, &sink.of)? else { return Ok(false) };
    let Some(layout) = source.plan(cx, &sink.of)? else { return Ok(false) };
    let Directory::Dense(groups) = layout.1 else { return Ok(false) };
    sink.plan = Some((Rc::new(layout.0), layout.1));
    let kernel = Kernel { cx, source: &source, sink, groups };
    let mut outcome = Ok(());
    let rows = cx.estimate.rows(source.scan);
    let func = cx.task_over("aggregate", rows, |b, frame, worker, lo, hi| {
        outcome = kernel.task(&Env::new(b, frame, worker), lo, hi);
    });
    outcome?;
    let table = scan::stored_table(cx, source.scan)?.name().to_owned();
    let rows = cx.frame.bind(crate::lower::frame::Bind::Rows { table });
    pipeline::Sink::allocate(sink, cx)?;
    cx.step(move |_, b, frame| b.par_for(func, frame, rows.get(b, frame), b.i64(TILE_ROWS)));
    let mut fused = vec![];
    pipeline::collect_names(cx, sink.of.input, &mut fused);
    let written = format!("{}, by vectors", pipeline::Sink::describe(sink));
    let scans = pipeline::scanned(cx, sink.of.input);
    cx.note(PipelineNote { name: "aggregate".to_owned(), scans, once: false, fused, materialised: vec![written] });
    Ok(true)
}

/// A stored table, filtered by vectors or not.
struct Source {
    scan: Node,
    filter: Option<(Node, Selection)>,
}

impl Source {
    fn of(cx: &Cx<'_>, of: &Aggregation) -> Result<Option<Source>> {
        let mut table = of.input;
        while let Op::Project { .. } = cx.graph.op(table) {
            table = cx.graph.inputs(table)[0];
        }
        let filter = Some(table).filter(|&t| matches!(cx.graph.op(t), Op::Filter));
        let scan = filter.map_or(table, |filter| cx.graph.inputs(filter)[0]);
        if lookup::at_source(cx, of.input).is_some() {
            return Ok(None);
        }
        let wide = Target::host().vector_bytes >= 64;
        let registers = Registers::new(cx, scan);
        let exact = |node: &Node| in_lanes(cx, *node, scan);
        let lanes = |node: &Node| exact(node) || is_float(&registers, *node);
        if !wide || !matches!(cx.graph.op(scan), Op::Scan { .. }) || of.right_of.is_some() || !sums_only(cx, of) {
            return Ok(None);
        }
        if !of.keys.iter().all(exact) || !of.arguments.iter().flatten().all(lanes) {
            return Ok(None);
        }
        scan::check(cx, scan)?;
        let kept = cx.estimate.rows(of.input) / cx.estimate.rows(scan).max(1.0);
        if kept < LEAST_KEPT {
            return Ok(None);
        }
        let Some(filter) = filter else { return Ok(Some(Source { scan, filter: None })) };
        let selection = select::plan(cx, filter, &Hints::default())?.filter(Selection::is_whole);
        Ok(selection.map(|selection| Source { scan, filter: Some((filter, selection)) }))
    }

    /// The layout of the groups, if nothing can fail and sums of a tile fit 64 bits.
    fn plan(&self, cx: &Cx<'_>, of: &Aggregation) -> Result<Option<(GroupLayout, Directory)>> {
        // Evaluated once for the forms only.
        let scratch = ModuleBuilder::new();
        let mut planned = Ok(None);
        scratch.func("forms", &crate::lower::context::TASK, |b, p| {
            let env = Env::new(b, p[0], p[1]);
            planned = self.evaluate(cx, of, &env, p[2], no_lanes(b)).and_then(|(keys, arguments)| {
                let directory = super::directory::directory(&keys, cx.estimate.rows(of.input));
                let layout = GroupLayout::plan(cx, of, 0, &keys, &arguments)?;
                let float = |v: &Value<'_>| v.scalar().ty().prim.is_float();
                let plain = |v: &Value<'_>| v.valid.is_none() && (float(v) || v.range.is_some_and(fits));
                let all_plain = keys.iter().chain(arguments.iter().flatten()).all(plain);
                // The number of a group is computed in lanes of the keys.
                let narrow = keys.iter().all(|key| key.range.is_some_and(|r| Range::I32.contains(r)));
                let few = matches!(directory, Directory::Dense(groups) if groups <= MOST_GROUPS);
                Ok((all_plain && narrow && few && layout.sums().is_some()).then_some((layout, directory)))
            });
        });
        let scratch = scratch.build();
        let wide = |f: &Func| f.values.iter().any(|v| v.ty.prim == Prim::I128);
        let safe = scratch.sites.is_empty() && !scratch.funcs.iter().any(wide);
        Ok(planned?.filter(|_| safe))
    }

    fn evaluate<'b>(
        &self,
        cx: &Cx<'_>,
        of: &Aggregation,
        env: &Env<'b>,
        row: V<'b>,
        mask: V<'b>,
    ) -> Result<(Vec<Value<'b>>, Vec<Option<Value<'b>>>)> {
        let registers = Registers::new(cx, self.scan);
        let rows = Rows::Following { row, mask };
        let env = env.bind(self.scan, Place::Lanes { row, mask });
        for &argument in of.arguments.iter().flatten().filter(|&&argument| is_float(&registers, argument)) {
            env.remember(argument, Value::prim(registers.eval(&env, &rows, argument)?));
        }
        of.eval(cx, &env)
    }
}

fn no_lanes(b: &Builder) -> V<'_> {
    b.bool(false).splat(LANES)
}

/// Can a tile's sum of such values be kept in 64 bits?
fn fits(range: Range) -> bool {
    let most = |x: i128| x.checked_mul(TILE_ROWS.into()).is_some_and(|x| Range::I64.contains(Range::point(x)));
    most(range.min) && most(range.max)
}

/// The machine type of a lane's sum of such values over a block.
fn partial(value: &Value<'_>) -> Prim {
    if value.scalar().ty().prim.is_float() {
        return Prim::F64;
    }
    let range = value.range.unwrap_or(Range::I64);
    let rounds = i128::from(ROUNDS);
    Range::new(range.min.min(0) * rounds, range.max.max(0) * rounds).prim()
}

fn sums_only(cx: &Cx<'_>, of: &Aggregation) -> bool {
    let Op::Aggregate { aggregates, .. } = cx.graph.op(of.node) else { return false };
    use AggregateOp::{Avg, Count, CountRows, Sum};
    aggregates.iter().all(|a| matches!(a.op, Sum | Avg | Count | CountRows))
}

/// Is the expression a float that registers can evaluate?
fn is_float(registers: &Registers<'_, '_>, node: Node) -> bool {
    matches!(registers.form(node), Some(Form::Float(_)))
}

/// Is an expression over the rows of a scan made of what registers compute exactly?
fn in_lanes(cx: &Cx<'_>, node: Node, scan: Node) -> bool {
    let Ok(elem) = elem_of(cx, node) else { return false };
    match cx.graph.op(node) {
        Op::Const(literal) => literal.as_int().is_some(),
        Op::Column(_) => cx.estimate.source(node).is_some_and(|(table, name)| {
            table == scan && matches!(scan::lane_form(cx, scan, name), Some(LaneForm::Int | LaneForm::Codes(_)))
        }),
        Op::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul) if Range::of(elem.scalar).is_some() => {
            let inputs = cx.graph.inputs(node);
            let number = |&i: &Node| elem_of(cx, i).is_ok_and(|e| e.scalar.is_int() || is_decimal(e.scalar));
            inputs.iter().all(|i| number(i) && in_lanes(cx, *i, scan))
        }
        _ => false,
    }
}

fn is_decimal(scalar: quearn_stage::graph::Scalar) -> bool {
    matches!(scalar, quearn_stage::graph::Scalar::Decimal { .. })
}

struct Kernel<'x, 'g> {
    cx: &'x Cx<'g>,
    source: &'x Source,
    sink: &'x Groups,
    groups: u64,
}

/// What is summed up: the number of rows, or an argument, which several aggregates may share.
struct Sum {
    argument: Option<Node>,
    prim: Prim,
    /// Bytes of its registers before this one's in a round of the buffers.
    offset: i64,
}

/// A round of a block: which lanes count, their groups, and the addends of every sum but the number of rows.
struct Round<'b> {
    mask: V<'b>,
    group: Option<V<'b>>,
    addends: Vec<V<'b>>,
    sums: Vec<Sum>,
}

/// What a block is added to, once it is known what is summed up.
struct Totals {
    stack: quearn_stage::low::Value,
    sums: Vec<Sum>,
}

impl Kernel<'_, '_> {
    fn task<'b>(&self, env: &Env<'b>, lo: V<'b>, hi: V<'b>) -> Result<()> {
        let b = env.b;
        let filter = self.source.filter.as_ref();
        let (lo, hi) = filter.map_or((lo, hi), |(filter, _)| zones::narrowed(self.cx, env, *filter, (lo, hi)));
        let ready = filter.map(|(_, selection)| selection.ready(env));
        let start = b.mark();
        let mut outcome = Err(LowerError::Internal { node: self.sink.operator.clone(), what: "no block".into() });
        b.for_carry(lo, hi, BLOCK, &[], |base, _| {
            let end = (base + BLOCK).min(hi);
            outcome = match self.groups {
                1 => self.one_group(env, (base, end), ready.as_ref()),
                _ => self.block(env, (base, end), ready.as_ref()),
            };
            vec![]
        });
        let totals = outcome?;
        let stack = b.value(totals.stack);
        let zero = b.zero(Ty::vector(Prim::I64, 8));
        let bytes = self.groups as i64 * totals.sums.len() as i64 * TOTAL_BYTES;
        b.at_mark(start, || b.for_(b.i64(0), b.i64(bytes / 64), |i| b.store(stack.index(i, 64), 0, zero)));
        self.flush(env, stack, &totals.sums);
        Ok(())
    }

    /// Evaluates the rows from `row` on.
    fn round<'b>(&self, env: &Env<'b>, (row, end): (V<'b>, V<'b>), ready: Option<&Masks<'_, 'b>>) -> Result<Round<'b>> {
        let (cx, b) = (self.cx, env.b);
        let left = (end - row).min(b.i64(LANES.into())).sext(Prim::I32);
        let inside = b.iota(Ty::vector(Prim::I32, LANES)).lt(left.splat(LANES));
        let mask = match ready {
            Some(ready) => ready.test(cx, env, row, inside)?,
            None => inside,
        };
        // So many rows are kept that every cache line is read anyway: what is loaded need not wait for the filter.
        let (keys, arguments) = self.source.evaluate(cx, &self.sink.of, env, row, inside)?;
        // The processor's own prefetcher stops at the end of a page, and while the groups go over the buffers.
        for column in self.cx.needed.columns(self.source.scan) {
            scan::fetch(cx, env, self.source.scan, column, row + 2 * BLOCK)?;
        }
        let summed = self.sink.layout().0.sums().unwrap_or_default();
        let mut sums = vec![Sum { argument: None, prim: Prim::I32, offset: 0 }];
        let (mut addends, mut offset) = (vec![], 0);
        for (state, argument) in arguments.iter().enumerate().filter(|(state, _)| summed[*state]) {
            let (Some(argument), node) = (argument, self.sink.of.arguments[state]) else { continue };
            if sums.iter().any(|sum| sum.argument == node) {
                continue;
            }
            let prim = partial(argument);
            let lanes = lanes_of(argument.scalar());
            addends.push(match lanes.ty().prim {
                own if own == prim => lanes,
                own if own.is_float() => lanes.cast(CastOp::FpExt, prim),
                _ => lanes.sext(prim),
            });
            sums.push(Sum { argument: node, prim, offset });
            offset += i64::from(LANES) * prim.bytes() as i64;
        }
        Ok(Round { mask, group: position(b, &keys), addends, sums })
    }

    /// A block of rows that all belong to one group.
    fn one_group<'b>(
        &self,
        env: &Env<'b>,
        (base, end): (V<'b>, V<'b>),
        ready: Option<&Masks<'_, 'b>>,
    ) -> Result<Totals> {
        let b = env.b;
        // Once for the forms only.
        let forms = self.round(env, (base, end), ready)?;
        let zeros: Vec<V<'b>> = forms.sums.iter().map(|sum| b.zero(Ty::vector(sum.prim, LANES))).collect();
        let mut outcome = Ok(());
        let sums = b.for_carry(base, end, LANES.into(), &zeros, |row, c| match self.round(env, (row, end), ready) {
            Ok(round) => added(b, round.mask, c, &round.addends),
            Err(error) => {
                outcome = Err(error);
                c.to_vec()
            }
        });
        outcome?;
        let memory = b.alloca((forms.sums.len() as i64 * TOTAL_BYTES) as u32, 64);
        add_up(b, memory, &sums);
        Ok(Totals { stack: memory.id, sums: forms.sums })
    }

    /// A block of rows of several groups.
    fn block<'b>(&self, env: &Env<'b>, (base, end): (V<'b>, V<'b>), ready: Option<&Masks<'_, 'b>>) -> Result<Totals> {
        let b = env.b;
        let groups = Ty::vector(Prim::I32, LANES);
        let mut outcome = Err(LowerError::Internal { node: self.sink.operator.clone(), what: "no round".into() });
        let mut buffers = None;
        let present = b.for_carry(base, end, LANES.into(), &[b.zero(groups)], |row, c| {
            let mut round = match self.round(env, (row, end), ready) {
                Ok(round) => round,
                Err(error) => {
                    outcome = Err(error);
                    return c.to_vec();
                }
            };
            let sums = std::mem::take(&mut round.sums);
            let width: i64 = sums[1..].iter().map(|sum| i64::from(LANES) * sum.prim.bytes() as i64).sum();
            let keys = b.alloca((ROUNDS * 64) as u32, 64);
            let values = b.alloca((ROUNDS * width).max(64) as u32, 64);
            let at = row - base;
            let group = round.group.unwrap_or_else(|| b.zero(groups));
            b.store(keys.index(at, 4), 0, round.mask.select(group, b.int(groups, -1)));
            for (sum, addend) in sums[1..].iter().zip(&round.addends) {
                b.store(values.index(at.lshr(4), width), sum.offset, *addend);
            }
            buffers = Some((keys.id, values.id, width));
            outcome = Ok(sums);
            let bit = b.int(groups, 1).bin(BinOp::Shl, group);
            vec![c[0] | round.mask.select(bit, b.zero(groups))]
        })[0];
        let sums = outcome?;
        let Some((keys, values, width)) = buffers else { unreachable!("made with the sums") };
        let (keys, values) = (b.value(keys), b.value(values));
        let present = present.reduce(ReduceOp::Or);
        let each = sums.len() as i64 * TOTAL_BYTES;
        let memory = b.alloca((self.groups as i64 * each) as u32, 64);
        let rounds = (end - base + (i64::from(LANES) - 1)).lshr(4);
        let zeros: Vec<V<'b>> = sums.iter().map(|sum| b.zero(Ty::vector(sum.prim, LANES))).collect();
        b.for_(b.i64(0), b.i64(self.groups as i64), |g| {
            let g32 = g.sext(Prim::I32);
            // Most blocks have rows of few groups.
            b.if_(present.bin(BinOp::LShr, g32).cast(CastOp::Trunc, Prim::Bool), || {
                let own = b.for_carry(b.i64(0), rounds, 1, &zeros, |round, c| {
                    let mask = b.load(groups, keys.index(round, 64), 0).eq(g32.splat(LANES));
                    let addend =
                        |sum: &Sum| b.load(Ty::vector(sum.prim, LANES), values.index(round, width), sum.offset);
                    added(b, mask, c, &sums[1..].iter().map(addend).collect::<Vec<_>>())
                });
                add_up(b, memory.index(g, each), &own);
            });
        });
        Ok(Totals { stack: memory.id, sums })
    }

    /// Adds the totals to the worker's groups.
    fn flush<'b>(&self, env: &Env<'b>, stack: V<'b>, sums: &[Sum]) {
        let b = env.b;
        let (layout, _) = self.sink.layout();
        let array = self.sink.state.get(b, env.frame).index(env.worker, self.groups as i64 * layout.width());
        b.for_(b.i64(0), b.i64(self.groups as i64), |g| {
            let totals = stack.index(g, sums.len() as i64 * TOTAL_BYTES);
            let total = |at: usize| {
                let prim = if sums[at].prim == Prim::F64 { Prim::F64 } else { Prim::I64 };
                b.load(Ty::vector(prim, LANES), totals, at as i64 * TOTAL_BYTES).reduce(ReduceOp::Add)
            };
            let rows = total(0);
            b.if_(rows.gt(b.i64(0)), || {
                let group = array.index(g, layout.width());
                b.if_(b.load(Ty::I64, group, layout.rows).eq(b.i64(0)), || {
                    layout.store_keys(b, group, &keys_at(g, &layout));
                    layout.init(b, group);
                });
                let summed = layout.sums().unwrap_or_default();
                let of = |state: usize| {
                    let argument = self.sink.of.arguments[state];
                    sums[1..].iter().position(|sum| sum.argument == argument).map(|at| (state, total(at + 1)))
                };
                let states = (0..summed.len()).filter(|&state| summed[state]);
                layout.add(b, group, rows, &states.filter_map(of).collect::<Vec<_>>());
            });
        });
    }
}

/// Sums of a block, the first of which counts, with the lanes of one more round added where `mask` is true.
fn added<'b>(b: &'b Builder, mask: V<'b>, sums: &[V<'b>], addends: &[V<'b>]) -> Vec<V<'b>> {
    let one = b.int(sums[0].ty(), 1);
    let addends = std::iter::once(&one).chain(addends);
    sums.iter().zip(addends).map(|(sum, addend)| *sum + mask.select(*addend, b.zero(addend.ty()))).collect()
}

/// Adds the sums of a block to totals in memory.
fn add_up<'b>(b: &'b Builder, totals: V<'b>, sums: &[V<'b>]) {
    for (at, sum) in (0..).zip(sums) {
        let wide = if matches!(sum.ty().prim, Prim::I64 | Prim::F64) { *sum } else { sum.sext(Prim::I64) };
        let place = at * TOTAL_BYTES;
        b.store(totals, place, b.load(wide.ty(), totals, place) + wide);
    }
}

/// A value in every lane; literals are one for all.
fn lanes_of(v: V<'_>) -> V<'_> {
    if v.ty().is_vector() { v } else { v.splat(LANES) }
}

/// Number of the group of each lane, as in the array of all groups; `None` without keys.
fn position<'b>(b: &'b Builder, keys: &[Value<'b>]) -> Option<V<'b>> {
    let zero = b.zero(Ty::vector(Prim::I32, LANES));
    let number = |at: V<'b>, key: &Value<'b>| {
        let range = key.range.unwrap_or(Range::point(0));
        let constant = |x: i128| b.int(Ty::vector(Prim::I32, LANES), x);
        at * constant(range.count().unwrap_or(1).into()) + (lanes_of(key.scalar()) - constant(range.min))
    };
    (!keys.is_empty()).then(|| keys.iter().fold(zero, number))
}

/// The keys of a group, from its number.
fn keys_at<'b>(group: V<'b>, layout: &GroupLayout) -> Vec<Value<'b>> {
    let mut rest = group.sext(Prim::I32);
    let mut keys = vec![];
    for field in layout.keys().iter().rev() {
        let range = field.range.unwrap_or(Range::point(0));
        let values = rest.same(range.count().unwrap_or(1) as i64);
        let (offset, least) = (rest % values, rest.same(range.min as i64));
        keys.push(match field.stored {
            super::super::Stored::Code(dict) => {
                Value { repr: Repr::Code { code: offset + least, dict }, valid: None, range: field.range }
            }
            _ => Value::int(offset + least, range),
        });
        rest = rest / values;
    }
    keys.reverse();
    keys
}
