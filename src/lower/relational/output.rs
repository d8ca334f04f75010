//! Results: the rows of a table as per-worker lists, in the logical types of its columns.

use super::env::Env;
use super::expr::{cast, column, eval};
use super::layout::RowLayout;
use super::materialise::{self, Lists};
use super::pipeline::{self, Sink};
use crate::lower::Output;
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use quearn_stage::graph::{Elem, Field, Node};

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
        let row = materialise::append(cx, env.b, env.frame, list, self.layout.width(), "the result");
        for (field, value) in self.layout.fields.iter().zip(&values) {
            field.store(env.b, row, value);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        format!("the result: {} bytes a row", self.layout.width())
    }
}

/// Emits the pipeline that gives the rows of `table` out.
pub fn lower(cx: &Cx<'_>, name: &str, table: Node) -> Result<Output> {
    let fields = column::fields(cx, table).to_vec();
    if let Some(field) = fields.iter().find(|f| !f.shape.is_empty()) {
        return Err(LowerError::Unsupported {
            node: cx.describe(table),
            what: format!("a result column of tensors (\"{}\")", field.name),
        });
    }
    let lists = Lists::new(cx, "the result");
    let mut sink = Emit { table, fields, lists, layout: RowLayout::default() };
    pipeline::run(cx, "output", table, &mut sink)?;
    Ok(Output::Table { name: name.to_owned(), lists: lists.address, layout: sink.layout })
}

/// Emits a function that gives one scalar out, as a table of one row.
pub fn scalar(cx: &Cx<'_>, name: &str, elem: Elem, node: Node) -> Result<Output> {
    let lists = Lists::new(cx, "the result");
    let mut layout = RowLayout::default();
    let mut outcome = Ok(());
    let func = cx.task_over("scalar", 1.0, |b, frame, worker, _, _| {
        outcome = eval(cx, &Env::new(b, frame, worker), node).map(|value| {
            let value = cast::widest(value, elem);
            layout.add(name, elem, &value);
            let list = lists.of(b, frame, worker);
            let row = materialise::append(cx, b, frame, list, layout.width(), "the result");
            layout.fields[0].store(b, row, &value);
        });
    });
    outcome?;
    cx.step(move |_, b, frame| b.par_for(func, frame, b.i64(1), b.i64(1)));
    Ok(Output::Table { name: name.to_owned(), lists: lists.address, layout })
}
