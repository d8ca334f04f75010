//! Rows that are written out between pipelines: the lists that sinks append to and the spans that sources read.

use super::aggregate::GroupLayout;
use super::env::{Env, Place};
use super::expr::column;
use super::layout::RowLayout;
use super::pipeline::{self, Sink};
use super::{aggregate, sort, union};
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use crate::lower::frame::{Slot, run_handle, workers};
use quearn_backends::abi;
use quearn_stage::graph::{Elem, Node, Op};
use quearn_stage::low::{Builder, Ty, V};
use std::rc::Rc;

/// Materialised rows as a source: an array of `abi::RowSpan`.
#[derive(Clone)]
pub struct Spans {
    /// Slot with the address of the first span.
    pub address: Slot,
    /// Slot with the number of spans.
    pub count: Slot,
    /// Bytes a row.
    pub width: i64,
    /// Do the rows have an order that must be kept?
    pub ordered: bool,
    /// What a row looks like.
    pub form: Form,
}

/// What a materialised row looks like.
#[derive(Clone)]
pub enum Form {
    /// Values.
    Row(Rc<RowLayout>),
    /// Keys and aggregation states.
    Group(Rc<GroupLayout>),
}

impl Spans {
    /// The place of a row.
    pub fn place<'b>(&self, ptr: V<'b>) -> Place<'b> {
        match &self.form {
            Form::Row(layout) => Place::Row { ptr, layout: Rc::clone(layout), present: None },
            Form::Group(groups) => Place::Group { ptr, groups: Rc::clone(groups) },
        }
    }
}

/// The materialised rows of a pipeline breaker; its pipelines are emitted when it is first asked for.
pub fn spans(cx: &Cx<'_>, table: Node) -> Result<Rc<Spans>> {
    cx.once(&[table], || lower_spans(cx, table))
}

fn lower_spans(cx: &Cx<'_>, table: Node) -> Result<Rc<Spans>> {
    if let Some(spans) = cx.materialised.get(&table, cx.prepares()) {
        return Ok(spans);
    }
    let spans = Rc::new(match cx.graph.op(table) {
        Op::Aggregate { .. } => aggregate::lower(cx, table)?,
        Op::Sort(_) => sort::lower(cx, table, None)?,
        Op::Limit { .. } => sort::limit(cx, table)?,
        Op::Union { .. } => union::lower(cx, table)?,
        _ => return Err(LowerError::Internal { node: cx.describe(table), what: "no pipeline breaker".into() }),
    });
    cx.materialised.insert(table, cx.prepares(), Rc::clone(&spans));
    Ok(spans)
}

/// Lists of rows in memory of the run.
#[derive(Clone, Copy)]
pub struct Lists {
    /// Slot with the address of the first list.
    pub address: Slot,
    /// Bytes from one list to the next.
    pub stride: i64,
    /// How many there are; else one for each worker.
    pub count: Option<i64>,
}

impl Lists {
    /// Lists that a step of the main function makes.
    pub fn new(cx: &Cx<'_>, operator: &str) -> Lists {
        let address = cx.frame.slot(Ty::PTR);
        let operator = operator.to_owned();
        cx.step(move |cx, b, frame| {
            let bytes = workers(b, frame) * abi::ROWS_BYTES;
            address.set(b, frame, cx.alloc(b, frame, bytes, &operator));
        });
        Lists { address, stride: abi::ROWS_BYTES, count: None }
    }

    /// The list of a worker.
    pub fn of<'b>(&self, b: &'b Builder, frame: V<'b>, worker: V<'b>) -> V<'b> {
        self.address.get(b, frame).index(worker, self.stride)
    }

    /// Arguments by which the runtime finds all lists: `(run, lists, count, stride)`.
    pub fn arguments<'b>(&self, b: &'b Builder, frame: V<'b>) -> [V<'b>; 4] {
        let count = self.count.map_or_else(|| workers(b, frame), |count| b.i64(count));
        [run_handle(b, frame), self.address.read(b, frame), count, b.i64(self.stride)]
    }
}

/// Appends a row of `width` bytes to a list, inline; its address. The caller writes the row.
pub fn append<'b>(cx: &Cx<'_>, b: &'b Builder, frame: V<'b>, list: V<'b>, width: i64, operator: &str) -> V<'b> {
    append_or(b, list, width, || {
        let args = [run_handle(b, frame), list, b.i64(width), b.i64(cx.operator(operator))];
        b.check(b.call("qn_rows_grow", Ty::I32, &args));
    })
}

/// As [`append`]; where the list has no room, `grow` makes some.
pub fn append_or<'b>(b: &'b Builder, list: V<'b>, width: i64, grow: impl FnOnce()) -> V<'b> {
    let cur = b.load(Ty::PTR, list, abi::ROWS_CUR);
    let end = b.load(Ty::PTR, list, abi::ROWS_END);
    let fresh = || {
        grow();
        vec![b.load(Ty::PTR, list, abi::ROWS_CUR)]
    };
    let row = b.if_else(cur.eq(end), fresh, || vec![cur])[0];
    b.store(list, abi::ROWS_CUR, row.at(width));
    row
}

/// Steps that turn lists into spans.
pub fn spans_of_lists(cx: &Cx<'_>, lists: Lists, width: i64, form: Form, operator: &str) -> Spans {
    let (address, count) = (cx.frame.slot(Ty::PTR), cx.frame.slot(Ty::I64));
    let operator = operator.to_owned();
    cx.step(move |cx, b, frame| {
        let [run, first, n, stride] = lists.arguments(b, frame);
        let rows = b.i64((1 << 16) / width.max(1) + 1);
        let args = [run, first, n, stride, rows, b.i64(cx.operator(&operator)), frame.at(address.offset)];
        let made = b.call("qn_rows_spans", Ty::I64, &args);
        b.fail_if_runtime(made.lt(b.i64(0)));
        count.set(b, frame, made);
    });
    Spans { address, count, width, ordered: false, form }
}

/// Steps that copy all rows of lists to one array: slots with its address and row count.
pub fn concat(cx: &Cx<'_>, lists: Lists, width: i64, operator: &str) -> (Slot, Slot) {
    let (address, count) = (cx.frame.slot(Ty::PTR), cx.frame.slot(Ty::I64));
    let operator = operator.to_owned();
    cx.step(move |cx, b, frame| {
        let [run, first, n, stride] = lists.arguments(b, frame);
        let operator = b.i64(cx.operator(&operator));
        let args = [run, first, n, stride, b.i64(width), operator, frame.at(address.offset)];
        let rows = b.call("qn_rows_concat", Ty::I64, &args);
        b.fail_if_runtime(rows.lt(b.i64(0)));
        count.set(b, frame, rows);
    });
    (address, count)
}

/// A sink that keeps the needed columns of a table as rows.
pub struct Collect {
    table: Node,
    columns: Vec<(String, Elem)>,
    lists: Lists,
    operator: String,
    /// Layout; made from the first row that is generated.
    pub layout: RowLayout,
}

impl Collect {
    /// Collects the columns of `table` that are needed above it. `layout` may have reserved bytes already.
    pub fn new(cx: &Cx<'_>, table: Node, lists: Lists, operator: &str, layout: RowLayout) -> Collect {
        let needed = |name: &str| cx.needed.contains(table, name);
        let fields = column::fields(cx, table).iter().filter(|f| needed(&f.name));
        let columns = fields.map(|f| (f.name.clone(), f.elem)).collect();
        Collect { table, columns, lists, operator: operator.to_owned(), layout }
    }

    /// Appends the current row; its address, for what the caller writes into the reserved bytes.
    pub fn append<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<V<'b>> {
        self.append_or(cx, env, None)
    }

    /// As `append`; a full list is offered to `grow` with the bytes of a row.
    pub fn append_or<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>, grow: Option<&dyn Fn(V<'b>, i64)>) -> Result<V<'b>> {
        let values = self
            .columns
            .iter()
            .map(|(name, _)| column::column(cx, env, self.table, name))
            .collect::<Result<Vec<_>>>()?;
        if self.layout.fields.is_empty() {
            for ((name, elem), value) in self.columns.iter().zip(&values) {
                self.layout.add(name, *elem, value);
            }
        }
        let b = env.b;
        let list = self.lists.of(b, env.frame, env.worker);
        let width = self.layout.width();
        let row = match grow {
            Some(grow) => append_or(b, list, width, || grow(list, width)),
            None => append(cx, b, env.frame, list, width, &self.operator),
        };
        for (field, value) in self.layout.fields.iter().zip(&values) {
            field.store(b, row, value);
        }
        Ok(row)
    }
}

impl Sink for Collect {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        self.append(cx, env).map(|_| ())
    }

    fn describe(&self) -> String {
        format!("{}: {} bytes a row", self.operator, self.layout.width())
    }
}

/// The row of a table that has exactly one.
pub struct SingleRow {
    /// Slot with its address.
    pub address: Slot,
    /// Its layout.
    pub layout: Rc<RowLayout>,
}

/// The only row of `table`, by pipelines that are emitted when it is first asked for.
pub fn single_row(cx: &Cx<'_>, table: Node) -> Result<Rc<SingleRow>> {
    cx.once(&[table], || lower_single_row(cx, table))
}

fn lower_single_row(cx: &Cx<'_>, table: Node) -> Result<Rc<SingleRow>> {
    if let Some(row) = cx.singles.get(&table, cx.prepares()) {
        return Ok(row);
    }
    let operator = format!("the row of {}", cx.describe(table));
    let lists = Lists::new(cx, &operator);
    let mut sink = Collect::new(cx, table, lists, &operator, RowLayout::default());
    pipeline::run(cx, "single", table, &mut sink)?;
    let (address, count) = concat(cx, lists, sink.layout.width(), &operator);
    let message = format!("{operator} is not exactly one row");
    cx.step(move |_, b, frame| {
        let wrong = count.read(b, frame).ne(b.i64(1));
        b.fail_if(wrong, quearn_stage::low::FailKind::OutOfRange, &message);
    });
    let row = Rc::new(SingleRow { address, layout: Rc::new(sink.layout) });
    cx.singles.insert(table, cx.prepares(), Rc::clone(&row));
    Ok(row)
}
