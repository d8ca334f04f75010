//! Results: the rows of a table as per-worker lists, in the logical types of its columns; or whole columns, where there
//! is a row for each row of a stored table and no value is NULL.

use super::batch;
use super::env::{Env, Place};
use super::expr::{cast, column, eval};
use super::layout::RowLayout;
use super::materialise::{self, Lists};
use super::pipeline::{self, Sink};
use super::registers::{self, Form, Origin, Registers, Rows};
use super::scan;
use super::select::each_register;
use crate::lower::Output;
use crate::lower::context::{Cx, PipelineNote};
use crate::lower::error::{LowerError, Result};
use crate::lower::frame::{Bind, Slot};
use crate::lower::moves::MoveKind;
use crate::lower::tensor::storage;
use crate::lower::tensor::target::Target;
use quearn_stage::graph::{Elem, Field, Node, Op, Scalar};
use quearn_stage::low::Prim;

/// Who writes the rows of results.
const RESULT: &str = "the result";

struct Emit {
    table: Node,
    fields: Vec<Field>,
    lists: Lists,
    layout: RowLayout,
}

impl Sink for Emit {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let mut values = vec![];
        for field in &self.fields {
            let value = column::column(cx, env, self.table, &field.name)?;
            values.push(cast::widest(value, field.elem));
        }
        if self.layout.fields.is_empty() {
            for (field, value) in self.fields.iter().zip(&values) {
                self.layout.add(&field.name, field.elem, value);
            }
        }
        let list = self.lists.of(env.b, env.frame, env.worker);
        let row = materialise::append(cx, env.b, env.frame, list, self.layout.width(), RESULT);
        for (field, value) in self.layout.fields.iter().zip(&values) {
            field.store(env.b, row, value);
        }
        Ok(())
    }

    fn expressions(&self, cx: &Cx<'_>) -> Vec<Node> {
        self.fields.iter().filter_map(|field| registers::expression_of(cx, self.table, &field.name)).collect()
    }

    fn describe(&self) -> String {
        format!("the result: {} bytes a row", self.layout.width())
    }
}

/// Writes columns, each value at the place of its row.
struct Write {
    table: Node,
    scan: Node,
    /// Fields, how they are stored, and slots with the addresses of their columns.
    columns: Vec<(Field, Prim, Slot)>,
}

impl Sink for Write {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let Some(Place::Stored(row)) = env.place(self.scan) else {
            return Err(LowerError::Internal { node: cx.describe(self.scan), what: "its rows have no places".into() });
        };
        for (field, prim, slot) in &self.columns {
            let value = column::column(cx, env, self.table, &field.name)?;
            let place = slot.get(env.b, env.frame).index(*row, prim.bytes() as i64);
            env.b.store(place, 0, batch::leaf_value(value, *prim));
        }
        Ok(())
    }

    fn expressions(&self, cx: &Cx<'_>) -> Vec<Node> {
        let expression = |(field, ..): &(Field, Prim, Slot)| registers::expression_of(cx, self.table, &field.name);
        self.columns.iter().filter_map(expression).collect()
    }

    fn describe(&self) -> String {
        let bytes: usize = self.columns.iter().map(|(_, prim, _)| prim.bytes()).sum();
        format!("the result, by columns: {bytes} bytes a row")
    }
}

/// Where each value of a register of results comes from.
type Sources<'g> = Vec<Origin<'g>>;

impl Write {
    /// The sources of the columns, if registers can evaluate all of them.
    fn by_registers<'g>(&self, cx: &Cx<'g>) -> Option<Sources<'g>> {
        let registers = Registers::new(cx, self.scan);
        let (names, _) = cx.graph.ty(self.table).as_table()?;
        let source = |(field, (_, prim, _)): (&'g Field, &(Field, Prim, Slot))| {
            let origin = registers.origin_of(self.table, &field.name)?;
            let form = match origin {
                Origin::Stored(name) => registers.stored_form(name, field.elem.scalar)?,
                Origin::Expression(node) => registers.form(node)?,
            };
            let fits = match form {
                Form::Float(own) => own == *prim,
                Form::Int(_) => !prim.is_float(),
                Form::Bool => false,
            };
            fits.then_some(origin)
        };
        let wide = Target::host().vector_bytes >= 64;
        wide.then(|| names.iter().zip(&self.columns).map(source).collect())?
    }

    /// Emits the pipeline that writes a register of each column at a time.
    fn run_by_registers<'g>(&self, cx: &Cx<'g>, sources: &Sources<'g>) -> Result<()> {
        scan::check(cx, self.scan)?;
        let mut outcome = Ok(());
        let func = cx.task_over("output", cx.estimate.rows(self.scan), |b, frame, worker, lo, hi| {
            let env = Env::new(b, frame, worker);
            let registers = Registers::new(cx, self.scan);
            outcome = each_register(b, lo, hi, |row, mask| {
                let rows = Rows::Following { row, mask };
                for ((_, prim, slot), source) in self.columns.iter().zip(sources) {
                    let values = registers.source(&env, &rows, *source)?;
                    let values = if prim.is_float() { values } else { values.sext(*prim) };
                    b.masked_store(slot.get(b, frame).index(row, prim.bytes() as i64), mask, values);
                }
                Ok(())
            });
        });
        outcome?;
        let stored = scan::stored_table(cx, self.scan)?.name().to_owned();
        let rows = cx.frame.bind(Bind::Rows { table: stored });
        cx.step(move |_, b, frame| b.par_for(func, frame, rows.get(b, frame), b.i64(pipeline::TILE_ROWS)));
        let mut fused = vec![];
        pipeline::collect_names(cx, self.table, &mut fused);
        let written = format!("{}, by vectors", self.describe());
        let scans = pipeline::scanned(cx, self.table);
        cx.note(PipelineNote { name: "output".to_owned(), scans, once: false, fused, materialised: vec![written] });
        Ok(())
    }
}

/// The stored table that a table has a row for each row of, in place.
fn stored_rows<'c>(cx: &'c Cx<'_>, table: Node) -> Option<(Node, &'c str)> {
    match cx.graph.op(table) {
        Op::Scan { table: name, .. } => Some((table, name)),
        Op::Project { .. } if batch::roots(cx, table).is_empty() => stored_rows(cx, cx.graph.inputs(table)[0]),
        _ => None,
    }
}

/// How the values of a column are stored, if that is how Arrow has them.
fn plain(field: &Field) -> Option<Prim> {
    let plain = matches!(
        field.elem.scalar,
        Scalar::I32 | Scalar::I64 | Scalar::F32 | Scalar::F64 | Scalar::Date | Scalar::Timestamp
    );
    (plain && !field.elem.nullable && field.shape.is_empty()).then(|| storage(field.elem.scalar))?
}

/// Emits the pipeline that gives `table` out by columns, if that can be done.
fn by_columns(cx: &Cx<'_>, index: usize, name: &str, table: Node) -> Result<Option<Output>> {
    let fields = column::fields(cx, table);
    let Some((scan, stored)) = stored_rows(cx, table) else { return Ok(None) };
    let Some(prims) = fields.iter().map(plain).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let slot = |column| cx.frame.bind(Bind::OutputColumn { index, column });
    let columns = fields.iter().zip(prims).enumerate().map(|(at, (field, prim))| (field.clone(), prim, slot(at)));
    let mut write = Write { table, scan, columns: columns.collect() };
    match write.by_registers(cx) {
        Some(sources) => write.run_by_registers(cx, &sources)?,
        None => pipeline::run(cx, "output", table, &mut write)?,
    }
    let columns = fields.iter().map(|field| (field.name.clone(), field.elem)).collect();
    Ok(Some(Output::Columns { name: name.to_owned(), table: stored.to_owned(), columns }))
}

/// Emits the pipeline that gives the rows of `table` out, as the result at position `index`.
pub fn lower(cx: &Cx<'_>, index: usize, name: &str, table: Node) -> Result<Output> {
    if let Some(output) = by_columns(cx, index, name, table)? {
        return Ok(output);
    }
    let fields = column::fields(cx, table).to_vec();
    if let Some(field) = fields.iter().find(|f| !f.shape.is_empty()) {
        return Err(LowerError::Unsupported {
            node: cx.describe(table),
            what: format!("a result column of tensors (\"{}\")", field.name),
        });
    }
    cx.classify(RESULT, Some(MoveKind::Result));
    let lists = Lists::new(cx, RESULT);
    let mut sink = Emit { table, fields, lists, layout: RowLayout::default() };
    pipeline::run(cx, "output", table, &mut sink)?;
    Ok(Output::Table { name: name.to_owned(), lists: lists.address, layout: sink.layout })
}

/// Emits a function that gives one scalar out, as a table of one row.
pub fn scalar(cx: &Cx<'_>, name: &str, elem: Elem, node: Node) -> Result<Output> {
    cx.classify(RESULT, Some(MoveKind::Result));
    let lists = Lists::new(cx, RESULT);
    let mut layout = RowLayout::default();
    let mut outcome = Ok(());
    let func = cx.task_over("scalar", 1.0, |b, frame, worker, _, _| {
        outcome = eval(cx, &Env::new(b, frame, worker), node).map(|value| {
            let value = cast::widest(value, elem);
            layout.add(name, elem, &value);
            let list = lists.of(b, frame, worker);
            let row = materialise::append(cx, b, frame, list, layout.width(), RESULT);
            layout.fields[0].store(b, row, &value);
        });
    });
    outcome?;
    cx.step(move |_, b, frame| b.par_for(func, frame, b.i64(1), b.i64(1)));
    Ok(Output::Table { name: name.to_owned(), lists: lists.address, layout })
}
