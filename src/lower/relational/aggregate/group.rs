//! What is kept of a group, and how rows and other groups are folded into it.

use super::super::env::Env;
use super::super::expr::{arith, cast, column, elem_of, text};
use super::super::layout::{RowField, RowLayout, Stored, TEXT_PREFIX};
use super::super::pipeline;
use super::super::value::{Range, Repr, Value, to_float};
use super::Aggregation;
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use quearn_stage::graph::{AggregateOp, Elem, Op, Scalar};
use quearn_stage::low::{BinOp, Builder, CastOp, FailKind, OvfOp, Prim, Ty, V};

/// How a group is laid out: a header, the number of rows if that is needed, the keys, then one state for each aggregate.
#[derive(Debug)]
pub struct GroupLayout {
    layout: RowLayout,
    header: i64,
    keys: usize,
    /// Offset of the number of rows; absent behind a header, where a group is known to exist, if no aggregate needs it.
    rows: Option<i64>,
    /// What counts are kept in: half a word if there are fewer rows than that holds.
    counter: Prim,
    /// Rows there are at most.
    bound: u64,
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
    /// The layout of groups with keys and arguments of these forms, behind a header of some bytes.
    pub fn plan(
        cx: &Cx<'_>,
        of: &Aggregation,
        header: i64,
        keys: &[Value<'_>],
        arguments: &[Option<Value<'_>>],
    ) -> Result<GroupLayout> {
        let Op::Aggregate { keys: own, aggregates } = cx.graph.op(of.node) else { unreachable!("an aggregate") };
        // A rewrite has replaced those that it can.
        if let Some(distinct) = aggregates.iter().find(|a| a.op == AggregateOp::CountDistinct) {
            let what = format!("{:?}, which counts other distinct values than an aggregate beside it,", distinct.name);
            return Err(LowerError::Unsupported { node: cx.describe(of.node), what });
        }
        let mut layout = RowLayout::with_header(header);
        let results: Vec<Elem> = column::fields(cx, of.node)[own.len()..].iter().map(|f| f.elem).collect();
        let bound = pipeline::row_bound(cx, of.input).min(i64::MAX as u64);
        let counter = if bound <= i32::MAX as u64 { Prim::I32 } else { Prim::I64 };
        let count = |layout: &mut RowLayout| layout.reserve(counter.bytes() as i64, counter.bytes() as i64);
        let rows = (header == 0 || !aggregates.is_empty()).then(|| count(&mut layout));
        for ((name, key), &node) in of.key_names.iter().zip(keys).zip(&of.keys) {
            layout.add(name, elem_of(cx, node)?, key);
        }
        let mut states = vec![];
        for (i, aggregate) in aggregates.iter().enumerate() {
            let argument = arguments[i].as_ref();
            let scalar = match of.arguments[i] {
                Some(node) => elem_of(cx, node)?.scalar,
                None => Scalar::I64,
            };
            let (folded, checked) = folded_form(aggregate.op, argument, scalar, bound, &mut layout);
            let nullable = argument.is_some_and(|a| a.valid.is_some());
            states.push(State {
                name: aggregate.name.clone(),
                op: aggregate.op,
                result: results[i],
                argument: scalar,
                folded,
                count: nullable.then(|| count(&mut layout)),
                checked,
                message: format!("{}({})", aggregate.op.name(), aggregate.name),
            });
        }
        Ok(GroupLayout { layout, header, keys: keys.len(), rows, counter, bound, states })
    }

    /// Does a group without a header have rows? None in zeroed memory that no group was made in yet.
    pub fn occurs<'b>(&self, b: &'b Builder, group: V<'b>) -> V<'b> {
        let rows = self.counted(b, group, self.rows.expect("groups without a header count their rows"));
        rows.ne(b.zero(rows.ty()))
    }

    /// Bytes a group.
    pub fn width(&self) -> i64 {
        self.layout.width()
    }

    /// The keys.
    pub fn keys(&self) -> &[RowField] {
        &self.layout.fields[..self.keys]
    }

    /// The aggregates of a finished group, by name.
    pub fn results<'b>(&self, b: &'b Builder, group: V<'b>) -> Vec<(String, Value<'b>)> {
        self.states.iter().map(|state| (state.name.clone(), self.result(b, group, state))).collect()
    }

    /// Which aggregates are sums, if all are sums that need no test, or numbers of rows.
    pub fn sums(&self) -> Option<Vec<bool>> {
        let is_sum = |state: &State| match &state.folded {
            None if state.count.is_none() => Some(false),
            Some(RowField { stored: Stored::Prim(prim), .. }) => {
                let plain = (!prim.is_float() || *prim == Prim::F64) && !state.checked && state.count.is_none();
                (plain && matches!(state.op, AggregateOp::Sum | AggregateOp::Avg)).then_some(true)
            }
            _ => None,
        };
        self.states.iter().map(is_sum).collect()
    }

    /// Adds rows and sums (the number of the aggregate, and an `i64` or `f64`) to a group whose aggregates are sums.
    pub fn add<'b>(&self, b: &'b Builder, group: V<'b>, rows: V<'b>, sums: &[(usize, V<'b>)]) {
        self.add_rows(b, group, rows);
        for &(state, sum) in sums {
            if let Some(RowField { stored: Stored::Prim(prim), offset, .. }) = self.states[state].folded {
                add_to(b, group, offset, if prim.is_float() { sum } else { sum.sext(prim) });
            }
        }
    }

    fn add_rows<'b>(&self, b: &'b Builder, group: V<'b>, by: V<'b>) {
        if let Some(rows) = self.rows {
            add_to(b, group, rows, by.cast(CastOp::Trunc, self.counter));
        }
    }

    /// One of the counts.
    fn counted<'b>(&self, b: &'b Builder, group: V<'b>, offset: i64) -> V<'b> {
        b.load(Ty::scalar(self.counter), group, offset)
    }

    /// Zero rows.
    pub fn init<'b>(&self, b: &'b Builder, group: V<'b>) {
        let counter = Ty::scalar(self.counter);
        if let Some(rows) = self.rows {
            b.store(group, rows, b.zero(counter));
        }
        for state in &self.states {
            if let Some(count) = state.count {
                b.store(group, count, b.zero(counter));
            }
            if let Some(folded) = &state.folded {
                folded.store(b, group, &state.neutral(b, folded));
            }
        }
    }

    /// Writes the keys.
    pub fn store_keys<'b>(&self, b: &'b Builder, group: V<'b>, keys: &[Value<'b>]) {
        for (field, key) in self.keys().iter().zip(keys) {
            field.store(b, group, key);
        }
    }

    /// Reads the keys.
    pub fn load_keys<'b>(&self, b: &'b Builder, group: V<'b>) -> Vec<Value<'b>> {
        self.keys().iter().map(|f| f.load(b, group, None)).collect()
    }

    /// Folds one row in.
    pub fn update<'b>(&self, b: &'b Builder, group: V<'b>, arguments: &[Option<Value<'b>>]) {
        self.add_rows(b, group, b.i64(1));
        for (state, argument) in self.states.iter().zip(arguments) {
            let Some(argument) = argument else { continue };
            if let Some(count) = state.count {
                add_to(b, group, count, argument.is_valid(b).zext(self.counter));
            }
            if let Some(folded) = &state.folded {
                state.fold(b, group, folded, *argument);
            }
        }
    }

    /// Folds another group in.
    pub fn merge<'b>(&self, b: &'b Builder, group: V<'b>, other: V<'b>) {
        if let Some(rows) = self.rows {
            add_to(b, group, rows, self.counted(b, other, rows));
        }
        for state in &self.states {
            if let Some(count) = state.count {
                add_to(b, group, count, self.counted(b, other, count));
            }
            if let Some(folded) = &state.folded {
                let value = folded.load(b, other, None);
                state.fold_value(b, group, folded, value, None);
            }
        }
    }

    /// An aggregate of a finished group.
    fn result<'b>(&self, b: &'b Builder, group: V<'b>, state: &State) -> Value<'b> {
        let counted = self.counted(b, group, state.count.or(self.rows).expect("an aggregate has a number of rows"));
        state.result(b, group, Value::int(counted, Range::new(0, self.bound.into())))
    }

    /// Copies everything after the entry header.
    pub fn copy<'b>(&self, b: &'b Builder, to: V<'b>, from: V<'b>) {
        for at in (self.header..self.width()).step_by(8) {
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
        let Stored::Prim(prim) = folded.stored else { return argument };
        let v = argument.scalar();
        Value::prim(match (prim.is_float(), v.ty().prim.is_float()) {
            (true, true) => v.cast(CastOp::FpExt, prim),
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

    /// The first bytes stand beside the address, so that few comparisons look at the text that a group has.
    fn fold_text<'b>(&self, b: &'b Builder, group: V<'b>, folded: &RowField, value: Value<'b>) {
        let (old, prefix) = (folded.load(b, group, None), folded.offset + TEXT_PREFIX);
        let own = (value, text::prefix(b, value));
        let better = || {
            let other = (old, b.load(Ty::I32, group, prefix));
            let is_min = self.op == AggregateOp::Min;
            vec![if is_min { text::less_by_prefix(b, own, other) } else { text::less_by_prefix(b, other, own) }]
        };
        let take = b.if_else(old.scalar().is_null(), || vec![b.bool(true)], better);
        b.if_(take[0], || {
            folded.store(b, group, &value);
            b.store(group, prefix, own.1);
        });
    }

    /// The aggregate of a finished group, of which so many arguments count.
    fn result<'b>(&self, b: &'b Builder, group: V<'b>, counted: Value<'b>) -> Value<'b> {
        let Some(folded) = &self.folded else { return counted };
        let counted = counted.scalar();
        let value = folded.load(b, group, None);
        let valid = self.result.nullable.then(|| counted.gt(b.zero(counted.ty())));
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
            let prim = cast::float_prim(self.result.scalar);
            return Value::prim(sum.cast(CastOp::FpTrunc, prim));
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
    Some(groups.result(env.b, group, state))
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
