//! The rows of several tables: a pipeline for each of them, all of which append to the same lists.

use super::env::Env;
use super::expr::{cast, column, text};
use super::layout::RowLayout;
use super::materialise::{self, Form, Lists, Spans};
use super::pipeline::{self, Sink};
use super::registers;
use super::value::Value;
use crate::lower::context::Cx;
use crate::lower::error::Result;
use quearn_stage::graph::{Field, Node};
use std::rc::Rc;

/// Appends the rows of one table.
struct Append<'u> {
    table: Node,
    /// Columns of the union that are needed.
    fields: &'u [Field],
    lists: Lists,
    operator: &'u str,
    /// Made with the first row that is generated, the same for all tables.
    layout: &'u mut RowLayout,
}

/// A value in the form that all tables have it in: of no range, in no dictionary, with a mark where it may be NULL.
fn common<'b>(cx: &Cx<'_>, env: &Env<'b>, value: Value<'b>, field: &Field) -> Value<'b> {
    let value = text::as_text(cx, env, cast::widest(value, field.elem));
    if field.elem.nullable { value.with_valid(Some(value.is_valid(env.b))) } else { value }
}

impl Sink for Append<'_> {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let b = env.b;
        let value = |field: &Field| Ok(common(cx, env, column::column(cx, env, self.table, &field.name)?, field));
        let values = self.fields.iter().map(value).collect::<Result<Vec<_>>>()?;
        if self.layout.fields.is_empty() {
            for (field, value) in self.fields.iter().zip(&values) {
                self.layout.add(&field.name, field.elem, value);
            }
        }
        let list = self.lists.of(b, env.frame, env.worker);
        let row = materialise::append(cx, b, env.frame, list, self.layout.width(), self.operator);
        self.layout.fields.iter().zip(&values).for_each(|(field, value)| field.store(b, row, value));
        Ok(())
    }

    fn expressions(&self, cx: &Cx<'_>) -> Vec<Node> {
        self.fields.iter().filter_map(|field| registers::expression_of(cx, self.table, &field.name)).collect()
    }

    fn describe(&self) -> String {
        format!("{}: {} bytes a row", self.operator, self.layout.width())
    }
}

/// Emits the pipelines of all operands.
pub fn lower(cx: &Cx<'_>, union: Node) -> Result<Spans> {
    let operator = cx.describe(union);
    let fields = column::fields(cx, union).iter().filter(|field| cx.needed.contains(union, &field.name));
    let fields: Vec<Field> = fields.cloned().collect();
    let lists = Lists::new(cx, &operator);
    let mut layout = RowLayout::default();
    for &table in cx.graph.inputs(union) {
        let mut append = Append { table, fields: &fields, lists, operator: &operator, layout: &mut layout };
        pipeline::run(cx, "union", table, &mut append)?;
    }
    let width = layout.width();
    Ok(materialise::spans_of_lists(cx, lists, width, Form::Row(Rc::new(layout)), &operator))
}
