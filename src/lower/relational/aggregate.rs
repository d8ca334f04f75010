//! Group-aggregate: every worker folds the rows it sees into groups of its own, then the groups are merged.
//!
//! Where the keys have few possible values (known from their ranges) the groups are an array that the keys index; else a
//! chained hash table, partitioned by hash for a parallel merge. Where rows come sorted by the key the groups are
//! finished one after the other (see [`super::ordered`]). Without keys the state lives in registers during a tile.

use super::env::Env;
use super::expr::{arith, column, compare, elem_of, eval, text};
use super::hash;
use super::layout::{RowField, RowLayout};
use super::materialise::{self, Form, Lists, Spans};
use super::ordered::{self, SortedColumn};
use super::pipeline::{self, Sink};
use super::value::{Range, Repr, Value, to_float};
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use crate::lower::frame::{Slot, run_handle, workers};
use quearn_backends::abi;
use quearn_stage::graph::{AggregateOp, Elem, Node, Op, Scalar};
use quearn_stage::low::{BinOp, Builder, CmpOp, FailKind, FuncId, OvfOp, Prim, Ty, V};
use std::rc::Rc;

/// Groups that are kept in an array rather than a hash table, at most.
const DENSE_GROUPS: u64 = 1 << 14;

/// Groups that are kept in an array where there are at least as many rows, at most.
const DENSE_GROUPS_OF_MANY_ROWS: u64 = 1 << 18;

/// How a group is laid out: entry header, number of rows, keys, then one state for each aggregate.
#[derive(Debug)]
pub struct GroupLayout {
    layout: RowLayout,
    keys: usize,
    rows: i64,
    states: Vec<State>,
}

/// What an aggregate keeps of a group.
#[derive(Clone, Debug)]
struct State {
    name: String,
    op: AggregateOp,
    result: Elem,
    argument: Scalar,
    /// The folded value; absent for counts.
    folded: Option<RowField>,
    /// Offset of the number of arguments that are not NULL; absent if that is the number of rows.
    count: Option<i64>,
    /// May the sum leave its machine type? Then it is tested.
    checked: bool,
    /// The place in the user's terms.
    message: String,
}

impl GroupLayout {
    fn width(&self) -> i64 {
        self.layout.width()
    }

    fn keys(&self) -> &[RowField] {
        &self.layout.fields[..self.keys]
    }

    /// Zero rows.
    fn init<'b>(&self, b: &'b Builder, group: V<'b>) {
        b.store(group, self.rows, b.i64(0));
        for state in &self.states {
            if let Some(count) = state.count {
                b.store(group, count, b.i64(0));
            }
            if let Some(folded) = &state.folded {
                folded.store(b, group, &state.neutral(b, folded));
            }
        }
    }

    fn store_keys<'b>(&self, b: &'b Builder, group: V<'b>, keys: &[Value<'b>]) {
        for (field, key) in self.keys().iter().zip(keys) {
            field.store(b, group, key);
        }
    }

    fn load_keys<'b>(&self, b: &'b Builder, group: V<'b>) -> Vec<Value<'b>> {
        self.keys().iter().map(|f| f.load(b, group, None)).collect()
    }

    /// Folds one row in.
    fn update<'b>(&self, b: &'b Builder, group: V<'b>, arguments: &[Option<Value<'b>>]) {
        add_to(b, group, self.rows, b.i64(1));
        for (state, argument) in self.states.iter().zip(arguments) {
            let Some(argument) = argument else { continue };
            if let Some(count) = state.count {
                add_to(b, group, count, argument.is_valid(b).zext(Prim::I64));
            }
            if let Some(folded) = &state.folded {
                state.fold(b, group, folded, *argument);
            }
        }
    }

    /// Folds another group in.
    fn merge<'b>(&self, b: &'b Builder, group: V<'b>, other: V<'b>) {
        add_to(b, group, self.rows, b.load(Ty::I64, other, self.rows));
        for state in &self.states {
            if let Some(count) = state.count {
                add_to(b, group, count, b.load(Ty::I64, other, count));
            }
            if let Some(folded) = &state.folded {
                let value = folded.load(b, other, None);
                state.fold_value(b, group, folded, value, None);
            }
        }
    }

    /// Copies everything after the entry header.
    fn copy<'b>(&self, b: &'b Builder, to: V<'b>, from: V<'b>) {
        for at in (abi::ENTRY_KEYS..self.width()).step_by(8) {
            b.store(to, at, b.load(Ty::I64, from, at));
        }
    }
}

fn add_to<'b>(b: &'b Builder, group: V<'b>, offset: i64, by: V<'b>) {
    b.store(group, offset, b.load(by.ty(), group, offset) + by);
}

impl State {
    /// The value from which folding starts.
    fn neutral<'b>(&self, b: &'b Builder, folded: &RowField) -> Value<'b> {
        use super::layout::Stored;
        let least = self.op == AggregateOp::Max;
        match folded.stored {
            Stored::Text => Value::text(b.null(), b.i64(0)),
            Stored::Code(dict) => {
                let code = b.i32(if least { 0 } else { i32::MAX });
                Value { repr: Repr::Code { code, dict }, valid: None, range: folded.range }
            }
            Stored::Prim(prim) if matches!(self.op, AggregateOp::Sum | AggregateOp::Avg) => {
                Value::prim(b.zero(Ty::scalar(prim)))
            }
            Stored::Prim(prim) if prim.is_float() => {
                Value::prim(b.float(Ty::scalar(prim), if least { f64::NEG_INFINITY } else { f64::INFINITY }))
            }
            Stored::Prim(prim) => {
                let range = folded.range.unwrap_or(Range::new(0, 1));
                Value::prim(b.int(Ty::scalar(prim), if least { range.min } else { range.max }))
            }
        }
    }

    /// Folds an argument in; NULL changes nothing.
    fn fold<'b>(&self, b: &'b Builder, group: V<'b>, folded: &RowField, argument: Value<'b>) {
        let value = match self.op {
            AggregateOp::Sum | AggregateOp::Avg => self.addend(argument, folded),
            _ => argument,
        };
        let neutral = self.neutral(b, folded);
        self.fold_value(b, group, folded, value.with_valid(None), argument.valid.map(|valid| (valid, neutral)));
    }

    /// The argument in the type of the sum.
    fn addend<'b>(&self, argument: Value<'b>, folded: &RowField) -> Value<'b> {
        let super::layout::Stored::Prim(prim) = folded.stored else { return argument };
        let v = argument.scalar();
        Value::prim(match (prim.is_float(), v.ty().prim.is_float()) {
            (true, true) => v.cast(quearn_stage::low::CastOp::FpExt, prim),
            (true, false) => to_float(v, prim),
            _ => arith::as_prim(argument, prim),
        })
    }

    fn fold_value<'b>(
        &self,
        b: &'b Builder,
        group: V<'b>,
        folded: &RowField,
        value: Value<'b>,
        guard: Option<(V<'b>, Value<'b>)>,
    ) {
        if let Repr::Text { ptr, .. } = value.repr {
            let valid = guard.map_or_else(|| !ptr.is_null(), |(valid, _)| valid);
            return b.if_(valid, || self.fold_text(b, group, folded, value));
        }
        let old = folded.load(b, group, None);
        let (x, mut y) = (old.scalar(), value.scalar());
        if let Some((valid, neutral)) = guard {
            y = valid.select(y, neutral.scalar());
        }
        if self.checked {
            b.fail_if(x.overflows(OvfOp::Add, y), FailKind::Overflow, &self.message);
        }
        let new = match self.op {
            AggregateOp::Min => extreme(x, y, BinOp::Min),
            AggregateOp::Max => extreme(x, y, BinOp::Max),
            _ => x + y,
        };
        b.store(group, folded.offset, new);
    }

    fn fold_text<'b>(&self, b: &'b Builder, group: V<'b>, folded: &RowField, value: Value<'b>) {
        use quearn_stage::graph::CompareOp;
        let old = folded.load(b, group, None);
        let better = if self.op == AggregateOp::Min { CompareOp::Lt } else { CompareOp::Gt };
        let take =
            b.if_else(old.scalar().is_null(), || vec![b.bool(true)], || vec![text::compare(b, better, value, old)]);
        b.if_(take[0], || folded.store(b, group, &value));
    }

    /// The aggregate of a finished group.
    fn result<'b>(&self, b: &'b Builder, group: V<'b>, rows: i64) -> Value<'b> {
        let counted = b.load(Ty::I64, group, self.count.unwrap_or(rows));
        let Some(folded) = &self.folded else { return Value::int(counted, Range::new(0, i64::MAX as i128)) };
        let value = folded.load(b, group, None);
        let valid = self.result.nullable.then(|| counted.gt(b.i64(0)));
        match self.op {
            AggregateOp::Avg => {
                let scale = match self.argument {
                    Scalar::Decimal { scale, .. } => scale,
                    _ => 0,
                };
                let sum = value.scalar();
                let sum = if sum.ty().prim.is_float() { sum } else { to_float(sum, Prim::F64) };
                let sum = if scale == 0 { sum } else { sum / b.f64(10f64.powi(scale.into())) };
                Value::prim(sum / to_float(counted, Prim::F64)).with_valid(valid)
            }
            AggregateOp::Sum => self.sum(b, value.scalar()).with_valid(valid),
            _ => value.with_valid(valid),
        }
    }

    /// The sum in its logical type.
    fn sum<'b>(&self, b: &'b Builder, sum: V<'b>) -> Value<'b> {
        if sum.ty().prim.is_float() {
            let prim = super::expr::cast::float_prim(self.result.scalar);
            return Value::prim(sum.cast(quearn_stage::low::CastOp::FpTrunc, prim));
        }
        let limit = Range::of(self.result.scalar).unwrap_or(Range::I128);
        let machine = if sum.ty().prim == Prim::I128 { Range::I128 } else { Range::I64 };
        if !limit.contains(machine) {
            let outside = sum.lt(b.int(sum.ty(), limit.min)) | sum.gt(b.int(sum.ty(), limit.max));
            b.fail_if(outside, FailKind::Overflow, &self.message);
        }
        Value::int(sum, machine.intersect(limit))
    }
}

/// The smaller or larger, also of bools.
fn extreme<'b>(x: V<'b>, y: V<'b>, op: BinOp) -> V<'b> {
    match (x.ty().prim, op) {
        (Prim::Bool, BinOp::Min) => x & y,
        (Prim::Bool, _) => x | y,
        _ => x.bin(op, y),
    }
}

/// A column of a finished group.
pub fn column<'b>(env: &Env<'b>, group: V<'b>, groups: &GroupLayout, name: &str) -> Option<Value<'b>> {
    if let Some(field) = groups.keys().iter().find(|f| f.name == name) {
        return Some(field.load(env.b, group, None));
    }
    let state = groups.states.iter().find(|s| s.name == name)?;
    Some(state.result(env.b, group, groups.rows))
}

/// Where groups are while rows are folded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directory {
    /// An array of that many groups; each key contributes an offset and a factor.
    Dense(u64),
    /// One `abi::GroupTable` a worker.
    Hashed,
    /// One `abi::RowList` a worker; the last row is the current group.
    Ordered,
}

struct Groups {
    table: Node,
    keys: Vec<Node>,
    /// Argument of each aggregate.
    arguments: Vec<Option<Node>>,
    operator: String,
    /// Slot with the address of the workers' arrays or tables.
    state: Slot,
    /// Fold into the stack of the function during a tile.
    local: bool,
    local_state: Option<quearn_stage::low::Value>,
    /// The sorted column by which groups follow one another.
    sorted: Option<SortedColumn>,
    plan: Option<(Rc<GroupLayout>, Directory)>,
}

impl Groups {
    fn plan<'b>(&mut self, cx: &Cx<'_>, keys: &[Value<'b>], arguments: &[Option<Value<'b>>]) -> Result<()> {
        if self.plan.is_some() {
            return Ok(());
        }
        let Op::Aggregate { keys: names, aggregates } = cx.graph.op(self.table) else { unreachable!("an aggregate") };
        let mut layout = RowLayout::with_header(abi::ENTRY_KEYS);
        let rows = layout.reserve(8, 8);
        let elems: Vec<Elem> = column::fields(cx, self.table).iter().map(|f| f.elem).collect();
        for ((name, key), elem) in names.iter().zip(keys).zip(&elems) {
            layout.add(name, *elem, key);
        }
        let bound = pipeline::row_bound(cx, cx.graph.inputs(self.table)[0]);
        let mut states = vec![];
        for (i, aggregate) in aggregates.iter().enumerate() {
            let argument = arguments[i].as_ref();
            let scalar = match self.arguments[i] {
                Some(node) => elem_of(cx, node)?.scalar,
                None => Scalar::I64,
            };
            let (folded, checked) = folded_form(aggregate.op, argument, scalar, bound, &mut layout);
            let nullable = argument.is_some_and(|a| a.valid.is_some());
            let count = nullable.then(|| layout.reserve(8, 8));
            let message = format!("{}({})", aggregate.op.name(), aggregate.name);
            states.push(State {
                name: aggregate.name.clone(),
                op: aggregate.op,
                result: elems[names.len() + i],
                argument: scalar,
                folded,
                count,
                checked,
                message,
            });
        }
        let directory = match self.sorted {
            Some(_) => Directory::Ordered,
            None => directory(keys, bound),
        };
        self.plan = Some((Rc::new(GroupLayout { layout, keys: keys.len(), rows, states }), directory));
        Ok(())
    }

    fn layout(&self) -> (Rc<GroupLayout>, Directory) {
        let (layout, directory) = self.plan.as_ref().expect("planned with the first row");
        (Rc::clone(layout), *directory)
    }

    /// The group on the stack of the function, which LLVM keeps in registers.
    fn local_group<'b>(&mut self, b: &'b Builder) -> V<'b> {
        let (layout, _) = self.layout();
        let group = b.alloca(layout.width() as u32, 16);
        b.in_prologue(|| layout.init(b, group));
        self.local_state = Some(group.id);
        group
    }

    /// The group of the current row.
    fn find<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, keys: &[Value<'b>]) -> V<'b> {
        let b = env.b;
        let (layout, directory) = self.layout();
        let state = self.state.get(b, env.frame);
        match directory {
            Directory::Ordered => self.current(cx, env, keys, &layout),
            Directory::Dense(groups) => {
                let array = state.index(env.worker, groups as i64 * layout.width());
                let group = array.index(position(b, keys), layout.width());
                let fresh = b.load(Ty::I64, group, layout.rows).eq(b.i64(0));
                b.if_(fresh, || {
                    layout.store_keys(b, group, keys);
                    layout.init(b, group);
                });
                group
            }
            Directory::Hashed => {
                let table = state.index(env.worker, abi::GROUPS_BYTES);
                let hash = hash::hash(cx, env, keys);
                let on_new = |group: V<'b>| {
                    layout.store_keys(b, group, keys);
                    layout.init(b, group);
                };
                find_or_insert(cx, env, table, hash, keys, &layout, &self.operator, on_new, |_| ())
            }
        }
    }
}

impl Groups {
    /// The last group if the row belongs to it, else a new one.
    fn current<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, keys: &[Value<'b>], layout: &GroupLayout) -> V<'b> {
        let b = env.b;
        let last = b.alloca(8, 8);
        b.in_prologue(|| b.store(last, 0, b.null()));
        let group = b.load(Ty::PTR, last, 0);
        let same =
            b.if_else(group.is_null(), || vec![b.bool(false)], || vec![same_keys(cx, env, group, keys, layout)])[0];
        let fresh = || {
            let list = self.state.get(b, env.frame).index(env.worker, abi::ROWS_BYTES);
            let group = materialise::append(cx, b, env.frame, list, layout.width(), &self.operator);
            layout.store_keys(b, group, keys);
            layout.init(b, group);
            b.store(last, 0, group);
            vec![group]
        };
        b.if_else(same, || vec![group], fresh)[0]
    }
}

/// The form of an aggregate's folded value, and whether adding to it must be tested.
fn folded_form(
    op: AggregateOp,
    argument: Option<&Value<'_>>,
    scalar: Scalar,
    bound: u64,
    layout: &mut RowLayout,
) -> (Option<RowField>, bool) {
    let Some(argument) = argument else { return (None, false) };
    let elem = scalar.required();
    let b = argument.scalar().builder();
    let (form, checked) = match op {
        AggregateOp::Count | AggregateOp::CountRows | AggregateOp::CountDistinct => return (None, false),
        AggregateOp::Min | AggregateOp::Max => (argument.with_valid(None), false),
        AggregateOp::Sum | AggregateOp::Avg if scalar.is_float() => (Value::prim(b.f64(0.0)), false),
        AggregateOp::Sum | AggregateOp::Avg => {
            let prim = arith::sum_type(argument.range.unwrap_or(Range::I128), bound);
            (Value::prim(b.zero(Ty::scalar(prim.unwrap_or(Prim::I128)))), prim.is_none())
        }
    };
    let at = layout.add("", elem, &form);
    (Some(layout.fields[at].clone()), checked)
}

fn directory(keys: &[Value<'_>], rows: u64) -> Directory {
    let domain = |key: &Value<'_>| {
        let values = match (key.range, key.repr) {
            (Some(range), _) => range.count()?,
            (None, Repr::Prim(v)) if v.ty() == Ty::BOOL => 2,
            _ => return None,
        };
        values.checked_add(u64::from(key.valid.is_some()))
    };
    let groups = keys.iter().try_fold(1u64, |all, key| all.checked_mul(domain(key)?));
    match groups {
        Some(groups) if groups <= DENSE_GROUPS || groups <= rows.min(DENSE_GROUPS_OF_MANY_ROWS) => {
            Directory::Dense(groups)
        }
        _ => Directory::Hashed,
    }
}

/// Position of a combination of keys in the array of all combinations; NULL comes first.
fn position<'b>(b: &'b Builder, keys: &[Value<'b>]) -> V<'b> {
    keys.iter().fold(b.i64(0), |at, key| {
        let (least, values) = key.range.map_or((0, 2), |r| (r.min, r.count().unwrap_or(1)));
        let v = key.scalar();
        let v = if v.ty() == Ty::BOOL { v.zext(Prim::I64) } else { v.sext(Prim::I64) };
        let offset = v - least as i64;
        let (offset, values) = match key.valid {
            Some(valid) => (valid.select(offset + 1, b.i64(0)), values + 1),
            None => (offset, values),
        };
        at * values as i64 + offset
    })
}

/// The entry of `keys` in a group table, inserted if it is new.
fn find_or_insert<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    table: V<'b>,
    hash: V<'b>,
    keys: &[Value<'b>],
    layout: &GroupLayout,
    operator: &str,
    on_new: impl FnOnce(V<'b>),
    on_found: impl FnOnce(V<'b>),
) -> V<'b> {
    let b = env.b;
    let head = |b: &'b Builder| {
        let mask = b.load(Ty::I64, table, abi::GROUPS_MASK);
        b.load(Ty::PTR, table, abi::GROUPS_DIR).index(hash & mask, 8)
    };
    let first = b.load(Ty::PTR, head(b), 0);
    let other = |entry: V<'b>| {
        let same_hash = b.load(Ty::I64, entry, abi::ENTRY_HASH).eq(hash);
        if hash::is_exact(keys) {
            return !same_hash;
        }
        let same = b.if_else(same_hash, || vec![same_keys(cx, env, entry, keys, layout)], || vec![b.bool(false)]);
        !same[0]
    };
    let found = b.while_(
        &[first],
        |c| b.if_else(c[0].is_null(), || vec![b.bool(false)], || vec![other(c[0])])[0],
        |c| vec![b.load(Ty::PTR, c[0], abi::ENTRY_NEXT)],
    )[0];
    let insert = || {
        let count = b.load(Ty::I64, table, abi::GROUPS_COUNT);
        let full = count.cmp(CmpOp::Ge, b.load(Ty::I64, table, abi::GROUPS_LIMIT));
        b.if_(full, || grow(cx, b, env.frame, table, operator));
        let list = table.at(abi::GROUPS_ROWS);
        let entry = materialise::append(cx, b, env.frame, list, layout.width(), operator);
        let head = head(b);
        b.store(entry, abi::ENTRY_NEXT, b.load(Ty::PTR, head, 0));
        b.store(entry, abi::ENTRY_HASH, hash);
        b.store(head, 0, entry);
        b.store(table, abi::GROUPS_COUNT, count + 1);
        on_new(entry);
        vec![entry]
    };
    let found_one = || {
        on_found(found);
        vec![found]
    };
    b.if_else(found.is_null(), insert, found_one)[0]
}

fn same_keys<'b>(cx: &Cx<'_>, env: &Env<'b>, entry: V<'b>, keys: &[Value<'b>], layout: &GroupLayout) -> V<'b> {
    let stored = layout.load_keys(env.b, entry);
    stored.into_iter().zip(keys).fold(env.b.bool(true), |all, (old, new)| {
        let equal = match (old.valid, new.valid) {
            (None, None) => compare::keys_equal(cx, env, old, *new),
            // NULL is a group of its own.
            _ => {
                let (p, q) = (old.is_valid(env.b), new.is_valid(env.b));
                let both = p & q;
                let equal = env.b.if_else(both, || vec![compare::keys_equal(cx, env, old, *new)], || vec![!(p | q)]);
                equal[0]
            }
        };
        all & equal
    })
}

fn grow<'b>(cx: &Cx<'_>, b: &'b Builder, frame: V<'b>, table: V<'b>, operator: &str) {
    let args = [run_handle(b, frame), table, b.i64(cx.operator(operator))];
    b.check(b.call("qn_groups_grow", Ty::I32, &args));
}

impl Sink for Groups {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let keys = self.keys.iter().map(|&k| eval(cx, env, k)).collect::<Result<Vec<_>>>()?;
        let arguments = self.arguments.iter().map(|a| a.map(|a| eval(cx, env, a)).transpose());
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        self.plan(cx, &keys, &arguments)?;
        let group = if self.local { self.local_group(env.b) } else { self.find(cx, env, &keys) };
        self.layout().0.update(env.b, group, &arguments);
        Ok(())
    }

    fn end<'b>(&mut self, _cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let Some(local) = self.local_state.take() else { return Ok(()) };
        let b = env.b;
        let (layout, _) = self.layout();
        let local = b.value(local);
        let group = self.state.get(b, env.frame).index(env.worker, layout.width());
        let fresh = b.load(Ty::I64, group, layout.rows).eq(b.i64(0));
        let copy = || {
            layout.copy(b, group, local);
            vec![]
        };
        b.if_else(fresh, copy, || {
            layout.merge(b, group, local);
            vec![]
        });
        Ok(())
    }

    fn allocate(&mut self, cx: &Cx<'_>) -> Result<()> {
        let (layout, directory) = self.layout();
        let (state, operator) = (self.state, self.operator.clone());
        let each = match directory {
            Directory::Dense(groups) => groups as i64 * layout.width(),
            Directory::Hashed => abi::GROUPS_BYTES,
            Directory::Ordered => abi::ROWS_BYTES,
        };
        cx.step(move |cx, b, frame| {
            let n = workers(b, frame);
            let memory = cx.alloc(b, frame, n * each, &operator);
            state.set(b, frame, memory);
            if directory == Directory::Hashed {
                b.for_(b.i64(0), n, |w| grow(cx, b, frame, memory.index(w, each), &operator));
            }
        });
        Ok(())
    }

    fn runs(&self) -> Option<SortedColumn> {
        self.sorted.clone()
    }

    fn describe(&self) -> String {
        let (layout, directory) = self.layout();
        match directory {
            Directory::Ordered => format!("{}: in order, {} bytes a group", self.operator, layout.width()),
            Directory::Dense(n) => {
                format!("{}: array of {n} groups of {} bytes a worker", self.operator, layout.width())
            }
            Directory::Hashed => format!("{}: hash table, {} bytes a group", self.operator, layout.width()),
        }
    }
}

/// Emits the pipelines of an aggregation; the groups are the rows that it gives.
pub fn lower(cx: &Cx<'_>, table: Node) -> Result<Spans> {
    let Op::Aggregate { keys, aggregates } = cx.graph.op(table) else { unreachable!("an aggregate") };
    let inputs = cx.graph.inputs(table);
    let operator = cx.describe(table);
    // A rewrite has replaced those that it can.
    if let Some(distinct) = aggregates.iter().find(|a| a.op == AggregateOp::CountDistinct) {
        let what = format!("{:?}, which counts other distinct values than an aggregate beside it,", distinct.name);
        return Err(LowerError::Unsupported { node: operator, what });
    }
    let mut rest = inputs[1 + keys.len()..].iter().copied();
    let arguments = aggregates.iter().map(|a| if a.op == AggregateOp::CountRows { None } else { rest.next() });
    let mut sink = Groups {
        table,
        keys: inputs[1..=keys.len()].to_vec(),
        arguments: arguments.collect(),
        operator: operator.clone(),
        state: cx.frame.slot(Ty::PTR),
        local: keys.is_empty() && !pipeline::is_batched(cx, inputs[0]),
        local_state: None,
        sorted: None,
        plan: None,
    };
    if !pipeline::is_batched(cx, inputs[0]) {
        sink.sorted = ordered::sorted_key(cx, &sink.keys);
    }
    pipeline::run(cx, "aggregate", inputs[0], &mut sink)?;
    let (layout, directory) = sink.layout();
    let lists = match directory {
        Directory::Dense(groups) => merge_dense(cx, &sink, &layout, groups),
        Directory::Hashed => merge_hashed(cx, &sink, &layout),
        Directory::Ordered => Lists { address: sink.state, stride: abi::ROWS_BYTES },
    };
    let width = layout.width();
    Ok(materialise::spans_of_lists(cx, lists, width, Form::Group(layout), &operator))
}

/// Merges the workers' arrays into one list of the groups that occur.
fn merge_dense(cx: &Cx<'_>, sink: &Groups, layout: &Rc<GroupLayout>, groups: u64) -> Lists {
    let lists = Lists::new(cx, &sink.operator);
    let each = groups as i64 * layout.width();
    let always = sink.keys.is_empty();
    let func = cx.task("merge_groups", |b, frame, worker, lo, hi| {
        let arrays = sink.state.get(b, frame);
        let list = lists.of(b, frame, worker);
        b.for_(lo, hi, |at| {
            let first = arrays.index(at, layout.width());
            let merged = b.for_carry(b.i64(0), workers(b, frame), 1, &[b.null()], |w, c| {
                let group = first.index(w, each);
                let occurs = b.load(Ty::I64, group, layout.rows).gt(b.i64(0));
                let fold = || {
                    let fresh = || {
                        let row = materialise::append(cx, b, frame, list, layout.width(), &sink.operator);
                        layout.copy(b, row, group);
                        vec![row]
                    };
                    let more = || {
                        layout.merge(b, c[0], group);
                        vec![c[0]]
                    };
                    b.if_else(c[0].is_null(), fresh, more)
                };
                b.if_else(occurs, fold, || vec![c[0]])
            });
            if always {
                b.if_(merged[0].is_null(), || {
                    let row = materialise::append(cx, b, frame, list, layout.width(), &sink.operator);
                    layout.init(b, row);
                });
            }
        });
    });
    cx.step(move |_, b, frame| b.par_for(func, frame, b.i64(groups as i64), b.i64(1 << 10)));
    lists
}

/// Merges the workers' hash tables, each worker one partition of the hashes; nothing to do for one worker.
fn merge_hashed(cx: &Cx<'_>, sink: &Groups, layout: &Rc<GroupLayout>) -> Lists {
    let merged = cx.frame.slot(Ty::PTR);
    let lists = Lists { address: cx.frame.slot(Ty::PTR), stride: abi::GROUPS_BYTES };
    let own = Lists { address: cx.frame.slot(Ty::PTR), stride: abi::GROUPS_BYTES };
    let (spans, span_count) = (cx.frame.slot(Ty::PTR), cx.frame.slot(Ty::I64));
    let func = merge_task(cx, sink, layout, merged, spans, span_count);
    let (state, operator, width) = (sink.state, sink.operator.clone(), layout.width());
    cx.step(move |cx, b, frame| {
        let n = workers(b, frame);
        let tables = state.read(b, frame);
        own.address.set(b, frame, tables.at(abi::GROUPS_ROWS));
        let merge = || {
            let memory = cx.alloc(b, frame, n * abi::GROUPS_BYTES, &operator);
            b.for_(b.i64(0), n, |w| grow(cx, b, frame, memory.index(w, abi::GROUPS_BYTES), &operator));
            merged.set(b, frame, memory);
            let [run, first, n, stride] = own.arguments(b, frame);
            let rows = b.i64((1 << 16) / width + 1);
            let args = [run, first, n, stride, rows, b.i64(cx.operator(&operator)), frame.at(spans.offset)];
            let made = b.call("qn_rows_spans", Ty::I64, &args);
            b.fail_if_runtime(made.lt(b.i64(0)));
            span_count.set(b, frame, made);
            b.par_for(func, frame, n, b.i64(1));
            vec![memory]
        };
        let last = b.if_else(n.gt(b.i64(1)), merge, || vec![tables]);
        lists.address.set(b, frame, last[0].at(abi::GROUPS_ROWS));
    });
    lists
}

fn merge_task(
    cx: &Cx<'_>,
    sink: &Groups,
    layout: &Rc<GroupLayout>,
    merged: Slot,
    spans: Slot,
    span_count: Slot,
) -> FuncId {
    cx.task("merge_groups", |b, frame, worker, lo, hi| {
        let env = Env::new(b, frame, worker);
        b.for_(lo, hi, |part| {
            let table = merged.get(b, frame).index(part, abi::GROUPS_BYTES);
            b.for_(b.i64(0), span_count.get(b, frame), |s| {
                let span = spans.get(b, frame).index(s, abi::SPAN_BYTES);
                let (rows, count) = (b.load(Ty::PTR, span, 0), b.load(Ty::I64, span, 8));
                b.for_(b.i64(0), count, |i| {
                    let row = rows.index(i, layout.width());
                    let hash = b.load(Ty::I64, row, abi::ENTRY_HASH);
                    let mine = hash::partition(hash, workers(b, frame)).eq(part);
                    b.if_(mine, || {
                        let keys = layout.load_keys(b, row);
                        let copy = |to: V<'_>| layout.copy(b, b.value(to.id), row);
                        let fold = |to: V<'_>| layout.merge(b, b.value(to.id), row);
                        find_or_insert(cx, &env, table, hash, &keys, layout, &sink.operator, copy, fold);
                    });
                });
            });
        });
    })
}
