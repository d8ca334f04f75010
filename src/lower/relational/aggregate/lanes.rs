//! Aggregation into few groups by vectors (compare Gubner and Boncz, "Exploring query execution strategies for JIT,
//! vectorization and SIMD", ADMS 2017). Keys and arguments of a block of rows are evaluated, a register at a time, into
//! buffers in the first-level cache. Then each group that occurs in the block goes over them and adds the lanes that are its
//! own to sums that stay in registers; a block is so short that these need few bits, and several share a lane ([`words`]). What a
//! block gives is added to totals on the stack, and these to the worker's groups at the end of a tile.
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
use super::words::{BLOCK, ROUNDS, Words};
use super::{Aggregation, GroupLayout, Groups};
use crate::lower::context::{Cx, PipelineNote};
use crate::lower::error::Result;
use crate::lower::tensor::target::Target;
use quearn_stage::graph::{AggregateOp, BinaryOp, Node, Op};
use quearn_stage::low::{BinOp, Builder, CastOp, Func, ModuleBuilder, Prim, ReduceOp, Ty, V};
use std::cell::RefCell;
use std::rc::Rc;

/// Groups, at most: all of them are looked at for every register of rows.
const MOST_GROUPS: u64 = 16;
/// Part of the rows from which on vectors pay.
const LEAST_KEPT: f64 = 0.2;

/// Emits the pipeline of an aggregation, if vectors can do all of it.
pub fn run(cx: &Cx<'_>, sink: &mut Groups) -> Result<bool> {
    let Some(source) = Source::of(cx, &sink.of)? else { return Ok(false) };
    let Some(plan) = source.plan(cx, &sink.of)? else { return Ok(false) };
    let Directory::Dense(groups) = plan.directory else { return Ok(false) };
    sink.plan = Some((Rc::new(plan.layout), plan.directory));
    let kernel = Kernel { cx, source: &source, sink, groups, words: plan.words };
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

/// How groups are kept and summed up.
struct Plan {
    layout: GroupLayout,
    directory: Directory,
    words: Words,
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
    fn plan(&self, cx: &Cx<'_>, of: &Aggregation) -> Result<Option<Plan>> {
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
                let Some(summed) = layout.sums().filter(|_| all_plain && narrow && few) else { return Ok(None) };
                let argument = |state: usize| of.arguments[state].zip(arguments[state].as_ref());
                let summed: Vec<_> = (0..summed.len()).filter(|&state| summed[state]).filter_map(argument).collect();
                Ok(Some(Plan { words: Words::of(&summed), layout, directory }))
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
    words: Words,
}

/// A round of a block: which lanes count, their groups, and what is summed up.
struct Round<'b> {
    mask: V<'b>,
    group: Option<V<'b>>,
    words: Vec<V<'b>>,
}

/// The buffers of a block, and where each word is in those of a round.
struct Buffers<'b> {
    keys: V<'b>,
    values: V<'b>,
    places: Vec<(Ty, i64)>,
    width: i64,
}

impl<'b> Buffers<'b> {
    fn new(b: &'b Builder, words: &Words) -> Buffers<'b> {
        let mut width = 0;
        let place = |ty: Ty| {
            width += ty.bytes() as i64;
            (ty, width - ty.bytes() as i64)
        };
        let places = words.types().map(place).collect();
        let (keys, values) = (b.alloca((ROUNDS * 64) as u32, 64), b.alloca((ROUNDS * width) as u32, 64));
        Buffers { keys, values, places, width }
    }
}

impl Kernel<'_, '_> {
    fn task<'b>(&self, env: &Env<'b>, lo: V<'b>, hi: V<'b>) -> Result<()> {
        let b = env.b;
        let filter = self.source.filter.as_ref();
        let (lo, hi) = filter.map_or((lo, hi), |(filter, _)| zones::narrowed(self.cx, env, *filter, (lo, hi)));
        let ready = filter.map(|(_, selection)| selection.ready(env));
        let bytes = self.groups as i64 * self.words.total_bytes();
        let totals = b.alloca(bytes as u32, 64);
        let zero = b.zero(Ty::vector(Prim::I64, 8));
        b.for_(b.i64(0), b.i64(bytes / 64), |i| b.store(totals.index(i, 64), 0, zero));
        let mut outcome = Ok(());
        b.for_carry(lo, hi, BLOCK, &[], |base, _| {
            let range = (base, (base + BLOCK).min(hi));
            outcome = match self.groups {
                1 => self.one_group(env, range, ready.as_ref(), totals),
                _ => self.block(env, range, ready.as_ref(), totals),
            };
            vec![]
        });
        outcome?;
        self.flush(env, totals);
        Ok(())
    }

    /// Evaluates the rows from `row` on; `inside` are the lanes that have one.
    fn round<'b>(&self, env: &Env<'b>, row: V<'b>, inside: V<'b>, ready: Option<&Masks<'_, 'b>>) -> Result<Round<'b>> {
        let (cx, b) = (self.cx, env.b);
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
        let nodes = &self.sink.of.arguments;
        let words = self.words.pack(b, |node| {
            let value = nodes.iter().zip(&arguments).find_map(|(&n, value)| value.as_ref().filter(|_| n == Some(node)));
            lanes_of(value.expect("what is summed up is an argument").scalar())
        });
        Ok(Round { mask, group: position(b, &keys), words })
    }

    /// Carries values over the rounds of a block. Blocks that are whole have a loop of their own that masks nothing, unless
    /// floats are summed up: what they are made of is long, and would be compiled twice.
    fn rounds<'b>(
        &self,
        env: &Env<'b>,
        (base, end): (V<'b>, V<'b>),
        ready: Option<&Masks<'_, 'b>>,
        init: &[V<'b>],
        body: impl Fn(V<'b>, Round<'b>, &[V<'b>]) -> Vec<V<'b>>,
    ) -> Result<Vec<V<'b>>> {
        let b = env.b;
        let outcome = RefCell::new(Ok(()));
        let looped = |end: V<'b>, inside: &dyn Fn(V<'b>) -> V<'b>| {
            b.for_carry(base, end, LANES.into(), init, |row, c| match self.round(env, row, inside(row), ready) {
                Ok(round) => body(row - base, round, c),
                Err(error) => {
                    *outcome.borrow_mut() = Err(error);
                    c.to_vec()
                }
            })
        };
        let part = |row: V<'b>| select::lanes_before(b, row, end);
        let carried = if self.words.has_floats() {
            looped(end, &part)
        } else {
            let whole = (end - base).eq(b.i64(BLOCK));
            let all = |_| b.bool(true).splat(LANES);
            b.if_else(whole, || looped(base + BLOCK, &all), || looped(end, &part))
        };
        outcome.into_inner()?;
        Ok(carried)
    }

    /// A block of rows that all belong to one group.
    fn one_group<'b>(
        &self,
        env: &Env<'b>,
        range: (V<'b>, V<'b>),
        ready: Option<&Masks<'_, 'b>>,
        totals: V<'b>,
    ) -> Result<()> {
        let b = env.b;
        let sums = self.rounds(env, range, ready, &self.words.zeros(b), |_, round, sums| {
            added(b, round.mask, sums, &round.words)
        })?;
        self.words.add_up(b, totals, &sums);
        Ok(())
    }

    /// A block of rows of several groups.
    fn block<'b>(
        &self,
        env: &Env<'b>,
        (base, end): (V<'b>, V<'b>),
        ready: Option<&Masks<'_, 'b>>,
        totals: V<'b>,
    ) -> Result<()> {
        let b = env.b;
        let groups = Ty::vector(Prim::I32, LANES);
        let buffers = Buffers::new(b, &self.words);
        let zero = b.zero(groups);
        let present = self.rounds(env, (base, end), ready, &[zero], |at, round, present| {
            let group = round.group.unwrap_or(zero);
            b.store(buffers.keys.index(at, 4), 0, round.mask.select(group, b.int(groups, -1)));
            let values = buffers.values.index(at.lshr(4), buffers.width);
            buffers.places.iter().zip(&round.words).for_each(|((_, at), word)| b.store(values, *at, *word));
            let bit = b.int(groups, 1).bin(BinOp::Shl, group);
            vec![present[0] | round.mask.select(bit, zero)]
        })?;
        let present = present[0].reduce(ReduceOp::Or);
        let rounds = (end - base + (i64::from(LANES) - 1)).lshr(4);
        b.for_(b.i64(0), b.i64(self.groups as i64), |g| {
            let g32 = g.sext(Prim::I32);
            // Most blocks have rows of few groups.
            b.if_(present.bin(BinOp::LShr, g32).cast(CastOp::Trunc, Prim::Bool), || {
                let own = b.for_carry(b.i64(0), rounds, 1, &self.words.zeros(b), |round, sums| {
                    let mask = b.load(groups, buffers.keys.index(round, 64), 0).eq(g32.splat(LANES));
                    let values = buffers.values.index(round, buffers.width);
                    let words: Vec<V<'b>> = buffers.places.iter().map(|&(ty, at)| b.load(ty, values, at)).collect();
                    added(b, mask, sums, &words)
                });
                self.words.add_up(b, totals.index(g, self.words.total_bytes()), &own);
            });
        });
        Ok(())
    }

    /// Adds the totals to the worker's groups.
    fn flush<'b>(&self, env: &Env<'b>, totals: V<'b>) {
        let b = env.b;
        let (layout, _) = self.sink.layout();
        let array = self.sink.state.get(b, env.frame).index(env.worker, self.groups as i64 * layout.width());
        b.for_(b.i64(0), b.i64(self.groups as i64), |g| {
            let totals = totals.index(g, self.words.total_bytes());
            let rows = self.words.rows(b, totals);
            b.if_(rows.gt(b.i64(0)), || {
                let group = array.index(g, layout.width());
                b.if_(!layout.occurs(b, group), || {
                    layout.store_keys(b, group, &keys_at(g, &layout));
                    layout.init(b, group);
                });
                let summed = layout.sums().unwrap_or_default();
                let of = |state: usize| {
                    let argument = self.sink.of.arguments[state]?;
                    Some((state, self.words.total(b, totals, argument)?))
                };
                let states = (0..summed.len()).filter(|&state| summed[state]);
                layout.add(b, group, rows, &states.filter_map(of).collect::<Vec<_>>());
            });
        });
    }
}

/// Words with the lanes of one more round added where `mask` is true.
fn added<'b>(b: &'b Builder, mask: V<'b>, sums: &[V<'b>], words: &[V<'b>]) -> Vec<V<'b>> {
    sums.iter().zip(words).map(|(sum, word)| *sum + mask.select(*word, b.zero(word.ty()))).collect()
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
