//! Equi-joins: the right side is built into a directory of rows, the left side probes it inside its own pipeline.
//!
//! Where the key is one integer whose range is not much larger than the table, the directory is an array that the key
//! indexes (a perfect hash): no hash, no comparison. Else it is a chained hash table whose chains are linked by all
//! threads at once (Leis et al., "Morsel-driven parallelism", SIGMOD 2014). Where an array's keys occur several times
//! its rows are brought together by a counting sort, as a chain through memory costs a cache miss a row. Semi- and
//! anti-joins that need no more than the key keep one byte a key value.

use super::env::{Env, Place};
use super::expr::{arith, column, compare, elem_of, eval, text};
use super::hash;
use super::layout::RowLayout;
use super::materialise::{self, Lists};
use super::pipeline::{self, Sink, when};
use super::value::{Range, Value, both_valid, widen};
use crate::lower::context::{Cx, Fact};
use crate::lower::error::Result;
use crate::lower::frame::Slot;
use quearn_backends::abi;
use quearn_stage::graph::{Elem, JoinKind, Node, Op, infer};
use quearn_stage::low::{Builder, CmpOp, Prim, RmwOp, Ty, V};
use std::collections::BTreeSet;
use std::rc::Rc;

/// How keys find rows of the build side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directory {
    /// `max - min + 1` bytes: does the key value occur?
    Bytes(Range),
    /// `max - min + 1` heads of chains.
    Dense(Range),
    /// `max - min + 2` positions (`i32`) in an array of rows in order of their keys.
    Grouped(Range),
    /// A power of two of heads of chains, indexed by hash.
    Hashed,
}

/// Key values for which rows are grouped: the counting sort touches a counter for each.
const GROUPED_KEYS: u64 = 1 << 20;

/// What the probe side has to know of a built join.
#[derive(Debug)]
pub struct Probe {
    join: Node,
    kind: JoinKind,
    left_keys: Vec<Node>,
    right_keys: Vec<Node>,
    residual: Option<Node>,
    layout: Rc<RowLayout>,
    /// Field of each key.
    keys: Vec<usize>,
    directory: Directory,
    /// Slot with the address of the directory.
    heads: Slot,
    /// Slot with the size of a hashed directory minus 1.
    mask: Slot,
    /// Slot with the address of the grouped rows.
    rows: Slot,
    /// Does a key have one row at most?
    unique: bool,
}

/// Key nodes of a join: left, right, and the residual predicate.
fn parts(cx: &Cx<'_>, join: Node) -> (JoinKind, Vec<Node>, Vec<Node>, Option<Node>) {
    let Op::Join { kind, keys } = *cx.graph.op(join) else { unreachable!("a join") };
    let inputs = cx.graph.inputs(join);
    let (left, right) = (&inputs[2..2 + keys], &inputs[2 + keys..2 + 2 * keys]);
    (kind, left.to_vec(), right.to_vec(), inputs.get(2 + 2 * keys).copied())
}

/// An upper bound of the rows of a join.
pub fn row_bound(cx: &Cx<'_>, join: Node, kind: JoinKind) -> u64 {
    let inputs = cx.graph.inputs(join);
    let left = pipeline::row_bound(cx, inputs[0]);
    let (_, _, right_keys, _) = parts(cx, join);
    if matches!(kind, JoinKind::Semi | JoinKind::Anti) || is_unique(cx, inputs[1], &right_keys) {
        return left;
    }
    let pairs = left.saturating_mul(pipeline::row_bound(cx, inputs[1]));
    if kind == JoinKind::Left { pairs.saturating_add(left) } else { pairs }
}

/// Left and right key nodes of a join.
pub fn keys(cx: &Cx<'_>, join: Node) -> (Vec<Node>, Vec<Node>) {
    let (_, left, right, _) = parts(cx, join);
    (left, right)
}

/// Do the keys occur once at most in the rows of `table`? Known from unique columns and groupings below.
pub fn is_unique(cx: &Cx<'_>, table: Node, keys: &[Node]) -> bool {
    let name = |key: &Node| match cx.graph.op(*key) {
        Op::Column(name) if cx.graph.inputs(*key)[0] == table => Some(name.clone()),
        _ => None,
    };
    unique_by(cx, table, &keys.iter().filter_map(name).collect())
}

fn unique_by(cx: &Cx<'_>, table: Node, names: &BTreeSet<String>) -> bool {
    let inputs = cx.graph.inputs(table);
    match cx.graph.op(table) {
        Op::Scan { table, .. } => names.iter().any(|name| {
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
        Op::Join { kind: JoinKind::Semi | JoinKind::Anti, .. } => unique_by(cx, inputs[0], names),
        Op::Join { .. } => {
            let (_, _, right_keys, _) = parts(cx, table);
            is_unique(cx, inputs[1], &right_keys) && unique_by(cx, inputs[0], names)
        }
        Op::Aggregate { keys, .. } => keys.iter().all(|k| names.contains(k)),
        _ => false,
    }
}

/// A key value in the type in which both sides meet; strings as text, since the codes of two dictionaries do not agree.
fn key<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node, partner: Node) -> Result<Value<'b>> {
    let (own, other) = (elem_of(cx, node)?.scalar, elem_of(cx, partner)?.scalar);
    let to = infer::promote(own, other).unwrap_or(own);
    arith::promote(env, text::as_text(cx, env, eval(cx, env, node)?), own, to)
}

struct Build {
    join: Node,
    right: Node,
    keys: Vec<(Node, Node)>,
    columns: Vec<(String, Elem)>,
    /// Only the existence of keys matters.
    existence: bool,
    /// Does a key have one row at most?
    unique: bool,
    lists: Lists,
    heads: Slot,
    mask: Slot,
    rows: Slot,
    operator: String,
    layout: RowLayout,
    fields: Vec<usize>,
    directory: Option<Directory>,
}

impl Build {
    fn plan(&mut self, cx: &Cx<'_>, keys: &[Value<'_>], values: &[Value<'_>]) -> Result<()> {
        if self.directory.is_some() {
            return Ok(());
        }
        for ((name, elem), value) in self.columns.iter().zip(values) {
            self.layout.add(name, *elem, value);
        }
        for (i, value) in keys.iter().enumerate() {
            // Keys in rows are never NULL: rows with a NULL key are left out.
            let elem = elem_of(cx, self.keys[i].0)?.scalar.required();
            self.fields.push(self.layout.add("", elem, &value.with_valid(None)));
        }
        self.directory = Some(self.choose(cx, keys));
        Ok(())
    }

    fn choose(&self, cx: &Cx<'_>, keys: &[Value<'_>]) -> Directory {
        let rows = pipeline::row_bound(cx, self.right);
        let dense = match keys {
            [key] => key.range.filter(|r| r.count().is_some_and(|n| n <= rows.saturating_mul(8).max(1 << 10))),
            _ => None,
        };
        match dense {
            Some(range) if self.existence => Directory::Bytes(range),
            Some(range) if !self.unique && self.groups(range, rows) => Directory::Grouped(range),
            Some(range) => Directory::Dense(range),
            None => Directory::Hashed,
        }
    }
}

impl Build {
    fn groups(&self, range: Range, rows: u64) -> bool {
        range.count().is_some_and(|n| n <= GROUPED_KEYS) && rows <= i32::MAX as u64
    }
}

impl Sink for Build {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let keys = self.keys.iter().map(|&(own, other)| key(cx, env, own, other)).collect::<Result<Vec<_>>>()?;
        let values = self.columns.iter().map(|(name, _)| column::column(cx, env, self.right, name));
        let values = values.collect::<Result<Vec<_>>>()?;
        self.plan(cx, &keys, &values)?;
        let b = env.b;
        let valid = keys.iter().fold(None, |all, k| both_valid(all, k.valid)).unwrap_or_else(|| b.bool(true));
        when(b, valid, || {
            if let Some(Directory::Bytes(range)) = self.directory {
                let heads = self.heads.get(b, env.frame);
                b.store(heads.index(offset(keys[0], range), 1), 0, b.bool(true));
                return Ok(());
            }
            let list = self.lists.of(b, env.frame, env.worker);
            let row = materialise::append(cx, b, env.frame, list, self.layout.width(), &self.operator);
            if self.directory == Some(Directory::Hashed) {
                b.store(row, abi::ENTRY_HASH, hash::hash(cx, env, &plain(&keys)));
            }
            let stored = values.iter().chain(&keys);
            for (field, value) in self.layout.fields.iter().zip(stored) {
                field.store(b, row, value);
            }
            Ok(())
        })
    }

    fn allocate(&mut self, cx: &Cx<'_>) -> Result<()> {
        if let Some(Directory::Bytes(range)) = self.directory {
            heads(cx, self.heads, range.count().unwrap_or(0) as i64, &self.operator);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let bytes = self.layout.width();
        match self.directory {
            Some(Directory::Bytes(r)) => format!("{}: {} bytes of key flags", self.operator, r.count().unwrap_or(0)),
            Some(Directory::Grouped(r)) => {
                format!("{}: {bytes} bytes a row, grouped by {} keys", self.operator, r.count().unwrap_or(0))
            }
            Some(Directory::Dense(r)) => {
                format!("{}: {bytes} bytes a row, array of {} heads", self.operator, r.count().unwrap_or(0))
            }
            _ => format!("{}: {bytes} bytes a row, hash table", self.operator),
        }
    }
}

/// Keys that are known not to be NULL.
fn plain<'b>(keys: &[Value<'b>]) -> Vec<Value<'b>> {
    keys.iter().map(|k| k.with_valid(None)).collect()
}

/// Position of a key in a dense directory.
fn offset<'b>(key: Value<'b>, range: Range) -> V<'b> {
    let v = key.scalar();
    if v.ty().prim == Prim::I128 {
        return (v - v.builder().int(Ty::I128, range.min)).sext(Prim::I64);
    }
    widen(v, Prim::I64) - range.min as i64
}

/// A step that makes a directory of known size.
fn heads(cx: &Cx<'_>, slot: Slot, bytes: i64, operator: &str) {
    let operator = operator.to_owned();
    cx.step(move |cx, b, frame| slot.set(b, frame, cx.alloc(b, frame, b.i64(bytes), &operator)));
}

/// Emits the pipeline that builds the right side of a join, when it is first asked for.
pub fn prepare(cx: &Cx<'_>, join: Node) -> Result<Rc<Probe>> {
    if let Some(probe) = cx.joins.borrow().get(&join) {
        return Ok(Rc::clone(probe));
    }
    let (kind, left_keys, right_keys, residual) = parts(cx, join);
    let right = cx.graph.inputs(join)[1];
    let operator = format!("build side of {}", cx.describe(join));
    let kept = matches!(kind, JoinKind::Inner | JoinKind::Left) || residual.is_some();
    let fields = column::fields(cx, right).iter().filter(|f| kept && cx.needed.contains(right, &f.name));
    let mut sink = Build {
        join,
        right,
        keys: right_keys.iter().copied().zip(left_keys.iter().copied()).collect(),
        columns: fields.map(|f| (f.name.clone(), f.elem)).collect(),
        unique: is_unique(cx, right, &right_keys),
        existence: matches!(kind, JoinKind::Semi | JoinKind::Anti) && residual.is_none(),
        lists: Lists::new(cx, &operator),
        heads: cx.frame.slot(Ty::PTR),
        mask: cx.frame.slot(Ty::I64),
        rows: cx.frame.slot(Ty::PTR),
        operator,
        layout: RowLayout::with_header(abi::ENTRY_KEYS),
        fields: vec![],
        directory: None,
    };
    pipeline::run(cx, "build", right, &mut sink)?;
    let directory = sink.directory.expect("planned with the first row");
    let unique = sink.unique;
    if !matches!(directory, Directory::Bytes(_)) {
        link(cx, &sink, directory, cx.sums_floats && !unique);
    }
    let probe = Rc::new(Probe {
        join: sink.join,
        kind,
        left_keys,
        right_keys,
        residual,
        layout: Rc::new(sink.layout),
        keys: sink.fields,
        directory,
        heads: sink.heads,
        mask: sink.mask,
        rows: sink.rows,
        unique,
    });
    cx.joins.borrow_mut().insert(join, Rc::clone(&probe));
    Ok(probe)
}

/// Calls `body` for the built rows in parallel, unless the order in which they are seen matters (`in_order`).
fn over_rows(
    cx: &Cx<'_>,
    spans: &materialise::Spans,
    name: &str,
    rows: f64,
    in_order: bool,
    body: impl for<'b> FnOnce(&'b Builder, V<'b>, V<'b>),
) {
    let func = cx.task_over(name, rows, |b, frame, _, lo, hi| {
        b.for_(lo, hi, |s| {
            let span = spans.address.get(b, frame).index(s, abi::SPAN_BYTES);
            let (rows, count) = (b.load(Ty::PTR, span, 0), b.load(Ty::I64, span, 8));
            b.for_(b.i64(0), count, |i| body(b, frame, rows.index(i, spans.width)));
        });
    });
    let count = spans.count;
    cx.step(move |_, b, frame| {
        let n = count.read(b, frame);
        b.par_for(func, frame, n, if in_order { n.max(b.i64(1)) } else { b.i64(1) });
    });
}

/// Makes the directory of all built rows. Rows of one key stay in order if that matters (`in_order`).
fn link(cx: &Cx<'_>, build: &Build, directory: Directory, in_order: bool) {
    let (slot, mask) = (build.heads, build.mask);
    match directory {
        Directory::Dense(range) => heads(cx, slot, range.count().unwrap_or(0) as i64 * 8, &build.operator),
        Directory::Grouped(range) => heads(cx, slot, (range.count().unwrap_or(0) as i64 + 1) * 4, &build.operator),
        _ => hashed_heads(cx, build),
    }
    let form = materialise::Form::Row(Rc::new(build.layout.clone()));
    let spans = materialise::spans_of_lists(cx, build.lists, build.layout.width(), form, &build.operator);
    let field = build.layout.fields[build.fields[0]].clone();
    if let Directory::Grouped(range) = directory {
        return group(cx, build, &spans, range, in_order);
    }
    over_rows(cx, &spans, "link", cx.estimate.rows(build.right), in_order, |b, frame, row| {
        let at = match directory {
            Directory::Dense(range) => offset(field.load(b, row, None), range),
            _ => b.load(Ty::I64, row, abi::ENTRY_HASH) & mask.get(b, frame),
        };
        let head = slot.get(b, frame).index(at, 8);
        let next = b.atomic(RmwOp::Xchg, head, row);
        b.store(row, abi::ENTRY_NEXT, next);
    });
}

/// Brings the rows of each key together: counts them, sums the counts up, copies the rows.
fn group(cx: &Cx<'_>, build: &Build, spans: &materialise::Spans, range: Range, in_order: bool) {
    let (slot, rows, lists, width) = (build.heads, build.rows, build.lists, build.layout.width());
    let field = build.layout.fields[build.fields[0]].clone();
    let keys = range.count().unwrap_or(0) as i64;
    // The count of key k stands at k + 1: sums then are positions. A row remembers how many of its key came before.
    let built = cx.estimate.rows(build.right);
    over_rows(cx, spans, "count", built, in_order, |b, frame, row| {
        let counter = slot.get(b, frame).index(offset(field.load(b, row, None), range), 4).at(4);
        let rank = b.atomic(RmwOp::Add, counter, b.i32(1));
        b.store(row, abi::ENTRY_NEXT, rank);
    });
    let operator = build.operator.clone();
    cx.step(move |cx, b, frame| {
        let counters = slot.read(b, frame);
        b.for_carry(b.i64(0), b.i64(keys), 1, &[b.i32(0)], |k, c| {
            let counter = counters.index(k, 4);
            let sum = c[0] + b.load(Ty::I32, counter, 4);
            b.store(counter, 4, sum);
            vec![sum]
        });
        let n = b.call("qn_rows_count", Ty::I64, &lists.arguments(b, frame));
        rows.set(b, frame, cx.alloc(b, frame, n * width + 1, &operator));
    });
    over_rows(cx, spans, "group", built, false, |b, frame, row| {
        let start = slot.get(b, frame).index(offset(field.load(b, row, None), range), 4);
        let at = b.load(Ty::I32, start, 0) + b.load(Ty::I32, row, abi::ENTRY_NEXT);
        let to = rows.get(b, frame).index(at.sext(Prim::I64), width);
        for word in (abi::ENTRY_HASH..width).step_by(8) {
            b.store(to, word, b.load(Ty::I64, row, word));
        }
    });
}

/// A directory of at least twice as many heads as rows.
fn hashed_heads(cx: &Cx<'_>, build: &Build) {
    let (lists, slot, mask, operator) = (build.lists, build.heads, build.mask, build.operator.clone());
    cx.step(move |cx, b, frame| {
        let rows = b.call("qn_rows_count", Ty::I64, &lists.arguments(b, frame));
        let bits = b.i64(64) - (rows * 2 + 15).un(quearn_stage::low::UnOp::Clz);
        let size = b.i64(1).bin(quearn_stage::low::BinOp::Shl, bits);
        slot.set(b, frame, cx.alloc(b, frame, size * 8, &operator));
        mask.set(b, frame, size - 1);
    });
}

/// Generates the probe for the current row of the left side.
pub fn probe<'b>(cx: &Cx<'_>, env: &Env<'b>, probe: &Probe, consume: &mut pipeline::Consume<'_>) -> Result<()> {
    let pairs = probe.left_keys.iter().zip(&probe.right_keys);
    let keys = pairs.map(|(&own, &other)| key(cx, env, own, other)).collect::<Result<Vec<_>>>()?;
    let b = env.b;
    let valid = keys.iter().fold(None, |all, k| both_valid(all, k.valid));
    let keys = plain(&keys);
    if let Directory::Bytes(range) = probe.directory {
        let inside = inside(b, keys[0], range, valid);
        let load = || {
            let heads = probe.heads.get(b, env.frame);
            vec![b.load_invariant(Ty::BOOL, heads.index(offset(keys[0], range), 1), 0)]
        };
        let occurs = b.if_else(inside, load, || vec![b.bool(false)])[0];
        let keep = if probe.kind == JoinKind::Semi { occurs } else { !occurs };
        return when(b, keep, || consume(&env.branch()));
    }
    let hash = chain_hash(cx, env, probe, &keys);
    let mut chain = Chain { cx, env, probe, hash, keys, end: None };
    let first = chain.first(valid);
    match probe.kind {
        JoinKind::Inner if probe.unique => {
            let row = chain.next_match(first)?;
            when(b, !row.is_null(), || consume(&chain.bind(row, None)))
        }
        JoinKind::Inner => chain.each(first, consume),
        JoinKind::Left => chain.outer(first, consume),
        JoinKind::Semi | JoinKind::Anti => {
            let found = !chain.next_match(first)?.is_null();
            let keep = if probe.kind == JoinKind::Semi { found } else { !found };
            when(b, keep, || consume(&env.branch()))
        }
    }
}

fn chain_hash<'b>(cx: &Cx<'_>, env: &Env<'b>, probe: &Probe, keys: &[Value<'b>]) -> Option<V<'b>> {
    (probe.directory == Directory::Hashed).then(|| hash::hash(cx, env, keys))
}

/// Is the key a value that a dense directory has a place for?
fn inside<'b>(b: &'b Builder, key: Value<'b>, range: Range, valid: Option<V<'b>>) -> V<'b> {
    let known = key.range.is_some_and(|r| range.contains(r));
    let v = key.scalar();
    let holds = Range::prim(range);
    let v = widen(v, holds);
    let within = || {
        let ty = v.ty();
        v.cmp(CmpOp::Ge, b.int(ty, range.min)) & v.cmp(CmpOp::Le, b.int(ty, range.max))
    };
    let within = if known { b.bool(true) } else { within() };
    valid.map_or(within, |valid| valid & within)
}

/// The chain of rows that a key of the left side may match.
struct Chain<'x, 'c, 'g, 'b> {
    cx: &'x Cx<'g>,
    env: &'x Env<'b>,
    probe: &'c Probe,
    hash: Option<V<'b>>,
    keys: Vec<Value<'b>>,
    /// Where the rows of a grouped key end.
    end: Option<V<'b>>,
}

impl<'b> Chain<'_, '_, '_, 'b> {
    /// First row of the chain, or null.
    fn first(&mut self, valid: Option<V<'b>>) -> V<'b> {
        let b = self.env.b;
        let heads = self.probe.heads.get(b, self.env.frame);
        // The directory is complete before anything probes it.
        let head = |at: V<'b>| b.load_invariant(Ty::PTR, heads.index(at, 8), 0);
        match (self.probe.directory, self.hash) {
            (Directory::Grouped(range), _) => self.first_grouped(heads, range, valid),
            (Directory::Dense(range), _) => {
                let ok = inside(b, self.keys[0], range, valid);
                b.if_else(ok, || vec![head(offset(self.keys[0], range))], || vec![b.null()])[0]
            }
            (_, Some(hash)) => {
                let at = hash & self.probe.mask.get(b, self.env.frame);
                let ok = valid.unwrap_or_else(|| b.bool(true));
                b.if_else(ok, || vec![head(at)], || vec![b.null()])[0]
            }
            _ => b.null(),
        }
    }

    fn first_grouped(&mut self, positions: V<'b>, range: Range, valid: Option<V<'b>>) -> V<'b> {
        let b = self.env.b;
        let (rows, width) = (self.probe.rows.get(b, self.env.frame), self.probe.layout.width());
        let at =
            |position: V<'b>, k: i64| rows.index(b.load_invariant(Ty::I32, position, 4 * k).sext(Prim::I64), width);
        let found = b.if_else(
            inside(b, self.keys[0], range, valid),
            || {
                let position = positions.index(offset(self.keys[0], range), 4);
                let (first, end) = (at(position, 0), at(position, 1));
                vec![first.eq(end).select(b.null(), first), end]
            },
            || vec![b.null(), b.null()],
        );
        self.end = Some(found[1]);
        found[0]
    }

    fn next(&self, row: V<'b>) -> V<'b> {
        let b = self.env.b;
        match self.end {
            Some(end) => {
                let next = row.at(self.probe.layout.width());
                next.eq(end).select(b.null(), next)
            }
            None => b.load_invariant(Ty::PTR, row, abi::ENTRY_NEXT),
        }
    }

    /// The environment with a row of the right side (which may be absent in an outer join).
    fn bind(&self, row: V<'b>, present: Option<V<'b>>) -> Env<'b> {
        let right = self.cx.graph.inputs(self.probe.join)[1];
        let place = Place::Row { ptr: row, layout: Rc::clone(&self.probe.layout), present };
        self.env.branch().bind(right, place)
    }

    /// Do the keys of `row` match, and the residual hold?
    fn matches(&self, row: V<'b>) -> Result<V<'b>> {
        let b = self.env.b;
        let mut test = b.bool(true);
        if let Some(hash) = self.hash {
            test = b.load_invariant(Ty::I64, row, abi::ENTRY_HASH).eq(hash);
            if !hash::is_exact(&self.keys) || !hash::is_exact(&self.stored_keys(row)) {
                test = b.if_else(test, || vec![self.keys_equal(row)], || vec![b.bool(false)])[0];
            }
        }
        let Some(residual) = self.probe.residual else { return Ok(test) };
        let mut outcome = Ok(());
        let both = b.if_else(
            test,
            || match eval(self.cx, &self.bind(row, None), residual) {
                Ok(value) => vec![value.is_true()],
                Err(error) => {
                    outcome = Err(error);
                    vec![b.bool(false)]
                }
            },
            || vec![b.bool(false)],
        );
        outcome?;
        Ok(both[0])
    }

    fn stored_keys(&self, row: V<'b>) -> Vec<Value<'b>> {
        self.probe.keys.iter().map(|&field| self.probe.layout.fields[field].load(self.env.b, row, None)).collect()
    }

    fn keys_equal(&self, row: V<'b>) -> V<'b> {
        let stored = self.stored_keys(row);
        self.keys.iter().zip(stored).fold(self.env.b.bool(true), |all, (key, stored)| {
            all & compare::keys_equal(self.cx, self.env, *key, stored)
        })
    }

    /// Every row of a dense chain matches, if there is no residual.
    fn always_matches(&self) -> bool {
        self.hash.is_none() && self.probe.residual.is_none()
    }

    /// The first match at or after `row`, or null.
    fn next_match(&self, row: V<'b>) -> Result<V<'b>> {
        if self.always_matches() {
            return Ok(row);
        }
        let b = self.env.b;
        let mut outcome = Ok(());
        let mut other = |row: V<'b>| match self.matches(row) {
            Ok(test) => !test,
            Err(error) => {
                outcome = Err(error);
                b.bool(false)
            }
        };
        let found = b.while_(
            &[row],
            |c| b.if_else(c[0].is_null(), || vec![b.bool(false)], || vec![other(c[0])])[0],
            |c| vec![self.next(c[0])],
        );
        outcome?;
        Ok(found[0])
    }

    /// Calls `consume` for every match.
    fn each(&self, first: V<'b>, consume: &mut pipeline::Consume<'_>) -> Result<()> {
        let b = self.env.b;
        let mut outcome = Ok(());
        b.while_(
            &[first],
            |c| !c[0].is_null(),
            |c| {
                let row = c[0];
                outcome = match self.matches(row) {
                    Ok(test) => when(b, test, || consume(&self.bind(row, None))),
                    Err(error) => Err(error),
                };
                vec![self.next(row)]
            },
        );
        outcome
    }

    /// Calls `consume` for every match, or once without a row if there is none. One copy of the consumer serves both:
    /// a missing row is read from a row of zeros.
    fn outer(&self, first: V<'b>, consume: &mut pipeline::Consume<'_>) -> Result<()> {
        let b = self.env.b;
        let width = self.probe.layout.width();
        let zeros = b.alloca(width as u32, 16);
        b.in_prologue(|| {
            for at in (0..width).step_by(8) {
                b.store(zeros, at, b.i64(0));
            }
        });
        let start = self.next_match(first)?;
        let mut outcome = Ok(());
        b.while_(
            &[start, b.bool(true)],
            |c| c[1] | !c[0].is_null(),
            |c| {
                let present = !c[0].is_null();
                let row = present.select(c[0], zeros);
                let next = consume(&self.bind(row, Some(present))).and_then(|()| {
                    let after = b.if_else(present, || vec![self.next(c[0])], || vec![b.null()])[0];
                    self.next_match(after)
                });
                match next {
                    Ok(next) => vec![next, b.bool(false)],
                    Err(error) => {
                        outcome = Err(error);
                        c.to_vec()
                    }
                }
            },
        );
        outcome
    }
}
