//! Aggregation into few groups by vectors: keys and arguments are evaluated for a register of rows at a time, and each
//! group adds the lanes that are its own to a register of partial sums (compare Gubner and Boncz, "Exploring query
//! execution strategies for JIT, vectorization and SIMD", ADMS 2017). The sums lie on the stack, in the first-level cache,
//! and are added up at the end of a tile.
//!
//! It pays where most rows are kept: each costs the same, whether it counts or not.

use super::super::env::{Env, Place};
use super::super::expr::elem_of;
use super::super::pipeline::{self, TILE_ROWS};
use super::super::scan::{self, LaneForm};
use super::super::select::{self, LANES, Masks, Selection};
use super::super::sideways::Hints;
use super::super::value::{Range, Repr, Value};
use super::super::zones;
use super::directory::Directory;
use super::{Aggregation, GroupLayout, Groups};
use crate::lower::context::{Cx, PipelineNote};
use crate::lower::error::Result;
use crate::lower::tensor::target::Target;
use quearn_stage::graph::{AggregateOp, BinaryOp, Node, Op};
use quearn_stage::low::{Builder, Func, ModuleBuilder, Prim, ReduceOp, Ty, UnOp, V};
use std::rc::Rc;

/// Groups, at most: all of them are looked at for every register of rows.
const MOST_GROUPS: u64 = 16;
/// Part of the rows from which on vectors pay.
const LEAST_KEPT: f64 = 0.2;

/// Bytes of the number of rows of a group.
const COUNT_BYTES: i64 = 64;

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
    cx.note(PipelineNote { name: "aggregate".to_owned(), fused, materialised: vec![written] });
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
        let wide = Target::host().vector_bytes >= 64;
        let lanes = |node: &Node| in_lanes(cx, *node, scan);
        if !wide || !matches!(cx.graph.op(scan), Op::Scan { .. }) || of.right_of.is_some() || !sums_only(cx, of) {
            return Ok(None);
        }
        if !of.keys.iter().chain(of.arguments.iter().flatten()).all(lanes) {
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
                let plain = |v: &Value<'_>| v.valid.is_none() && v.range.is_some_and(fits);
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
        of.eval(cx, &env.bind(self.scan, Place::Lanes { row, mask }))
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

/// The machine integer of a lane's partial sum of a tile.
fn partial(range: Range) -> Prim {
    let rounds = i128::from(TILE_ROWS) / i128::from(LANES) + 1;
    Range::new(range.min.min(0) * rounds, range.max.max(0) * rounds).prim()
}

fn sums_only(cx: &Cx<'_>, of: &Aggregation) -> bool {
    let Op::Aggregate { aggregates, .. } = cx.graph.op(of.node) else { return false };
    use AggregateOp::{Avg, Count, CountRows, Sum};
    aggregates.iter().all(|a| matches!(a.op, Sum | Avg | Count | CountRows))
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

/// Where the partial sums of a state are in a group's part of the stack.
struct Partial {
    state: usize,
    offset: i64,
    prim: Prim,
}

impl Kernel<'_, '_> {
    fn task<'b>(&self, env: &Env<'b>, lo: V<'b>, hi: V<'b>) -> Result<()> {
        let b = env.b;
        let filter = self.source.filter.as_ref();
        let (lo, hi) = filter.map_or((lo, hi), |(filter, _)| zones::narrowed(self.cx, env, *filter, (lo, hi)));
        let ready = filter.map(|(_, selection)| selection.ready(env));
        let start = b.mark();
        let mut outcome = Ok(vec![]);
        let mut stack = None;
        b.for_carry(lo, hi, LANES.into(), &[], |row, _| {
            let left = (hi - row).min(b.i64(LANES.into())).sext(Prim::I32);
            let mask = b.iota(Ty::vector(Prim::I32, LANES)).lt(left.splat(LANES));
            outcome = self.register(env, row, mask, ready.as_ref(), &mut stack);
            vec![]
        });
        let partials = outcome?;
        let Some((stack, bytes)) = stack else { return Ok(()) };
        let stack = b.value(stack);
        b.at_mark(start, || {
            let zero = b.zero(Ty::vector(Prim::I64, 8));
            b.for_(b.i64(0), b.i64(self.groups as i64 * bytes / 64), |i| b.store(stack.index(i, 64), 0, zero));
        });
        self.flush(env, stack, bytes, &partials);
        Ok(())
    }

    /// Adds a register of rows to the partial sums.
    fn register<'b>(
        &self,
        env: &Env<'b>,
        row: V<'b>,
        mask: V<'b>,
        ready: Option<&Masks<'_, 'b>>,
        stack: &mut Option<(quearn_stage::low::Value, i64)>,
    ) -> Result<Vec<Partial>> {
        let (cx, b) = (self.cx, env.b);
        let mask = match ready {
            Some(ready) => ready.test(cx, env, row, mask)?,
            None => mask,
        };
        let (keys, arguments) = self.source.evaluate(cx, &self.sink.of, env, row, mask)?;
        let (mut partials, mut bytes) = (vec![], COUNT_BYTES);
        let summed = self.sink.layout().0.sums().unwrap_or_default();
        let mut addends = vec![];
        for (state, argument) in arguments.iter().enumerate().filter(|(state, _)| summed[*state]) {
            let Some(argument) = argument else { continue };
            let prim = partial(argument.range.unwrap_or(Range::I64));
            let lanes = lanes_of(argument.scalar());
            addends.push(if lanes.ty().prim == prim { lanes } else { lanes.sext(prim) });
            partials.push(Partial { state, offset: bytes, prim });
            bytes += i64::from(LANES) * prim.bytes() as i64;
        }
        let memory = b.alloca((self.groups as i64 * bytes) as u32, 64);
        *stack = Some((memory.id, bytes));
        let group = position(b, &keys);
        b.for_(b.i64(0), b.i64(self.groups as i64), |g| {
            let own = group.map_or(mask, |group| mask & group.eq(g.sext(Prim::I32).splat(LANES)));
            let bits = own.bitcast(Ty::I16);
            // Most registers have rows of few groups.
            b.if_(bits.ne(b.int(Ty::I16, 0)), || {
                let sums = memory.index(g, bytes);
                let rows = bits.zext(Prim::I32).un(UnOp::Popcnt).zext(Prim::I64);
                b.store(sums, 0, b.load(Ty::I64, sums, 0) + rows);
                for (partial, addend) in partials.iter().zip(&addends) {
                    let old = b.load(addend.ty(), sums, partial.offset);
                    b.store(sums, partial.offset, old + own.select(*addend, b.zero(addend.ty())));
                }
            });
        });
        Ok(partials)
    }

    /// Adds the partial sums to the worker's groups.
    fn flush<'b>(&self, env: &Env<'b>, stack: V<'b>, bytes: i64, partials: &[Partial]) {
        let b = env.b;
        let (layout, _) = self.sink.layout();
        let array = self.sink.state.get(b, env.frame).index(env.worker, self.groups as i64 * layout.width());
        b.for_(b.i64(0), b.i64(self.groups as i64), |g| {
            let sums = stack.index(g, bytes);
            let rows = b.load(Ty::I64, sums, 0);
            b.if_(rows.gt(b.i64(0)), || {
                let group = array.index(g, layout.width());
                b.if_(b.load(Ty::I64, group, layout.rows).eq(b.i64(0)), || {
                    layout.store_keys(b, group, &keys_at(g, &layout));
                    layout.init(b, group);
                });
                let total = |partial: &Partial| {
                    let lanes = b.load(Ty::vector(partial.prim, LANES), sums, partial.offset);
                    let lanes = if partial.prim == Prim::I32 { lanes.sext(Prim::I64) } else { lanes };
                    (partial.state, lanes.reduce(ReduceOp::Add))
                };
                layout.add(b, group, rows, &partials.iter().map(total).collect::<Vec<_>>());
            });
        });
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
