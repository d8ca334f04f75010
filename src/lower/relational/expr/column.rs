//! Where the value of a column comes from: the place its table is bound to, or the operator that makes it.

use super::super::env::{Env, Place};
use super::super::value::{Range, Repr, Value};
use super::super::{aggregate, materialise, scan};
use super::eval;
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use quearn_stage::graph::{Field, Node, Op, Ty as GraphTy};

/// Columns of a table node.
pub fn fields<'c>(cx: &'c Cx<'_>, table: Node) -> &'c [Field] {
    match cx.graph.ty(table) {
        GraphTy::Table { fields, .. } => fields,
        _ => &[],
    }
}

/// What the operator `table`, which is not bound itself, makes its column `name` from.
enum Origin {
    /// The column of another table.
    Column(Node, String),
    /// An expression.
    Expression(Node),
    /// The mark of that join.
    Mark,
}

fn origin(cx: &Cx<'_>, table: Node, name: &str) -> Option<Origin> {
    let inputs = cx.graph.inputs(table);
    match cx.graph.op(table) {
        Op::Filter | Op::Sort(_) | Op::Limit { .. } => Some(Origin::Column(inputs[0], name.to_owned())),
        Op::Project { names } => {
            let at = names.iter().position(|n| n == name)?;
            match cx.graph.op(inputs[1 + at]) {
                Op::Column(inner) => Some(Origin::Column(cx.graph.inputs(inputs[1 + at])[0], inner.clone())),
                _ => Some(Origin::Expression(inputs[1 + at])),
            }
        }
        Op::Join { .. } | Op::Product => Some(match cx.graph.side_of(table, name) {
            Some(side) => Origin::Column(side, name.to_owned()),
            None => Origin::Mark,
        }),
        _ => None,
    }
}

/// The value of a column on the current row.
pub fn column<'b>(cx: &Cx<'_>, env: &Env<'b>, table: Node, name: &str) -> Result<Value<'b>> {
    if env.place(table).is_some() {
        return stored(cx, env, table, name);
    }
    let missing = || LowerError::Internal { node: cx.describe(table), what: format!("no current row for \"{name}\"") };
    match origin(cx, table, name) {
        Some(Origin::Column(table, name)) => column(cx, env, table, &name),
        Some(Origin::Expression(node)) => eval(cx, env, node),
        Some(Origin::Mark) => env.mark(table).map(Value::prim).ok_or_else(missing),
        None => Err(missing()),
    }
}

/// The bound table and its column behind a column node that only passes values on.
pub fn stored_behind(cx: &Cx<'_>, env: &Env<'_>, leaf: Node) -> Option<(Node, String)> {
    let Op::Column(name) = cx.graph.op(leaf) else { return None };
    let mut at = (cx.graph.inputs(leaf)[0], name.clone());
    while env.place(at.0).is_none() {
        match origin(cx, at.0, &at.1)? {
            Origin::Column(table, name) => at = (table, name),
            Origin::Expression(_) | Origin::Mark => return None,
        }
    }
    Some(at)
}

/// The value of a column of a bound table.
pub fn stored<'b>(cx: &Cx<'_>, env: &Env<'b>, table: Node, name: &str) -> Result<Value<'b>> {
    let missing = || LowerError::Internal { node: cx.describe(table), what: format!("column \"{name}\" was not kept") };
    match env.place(table).ok_or_else(missing)? {
        Place::Stored(row) => scan::load(cx, env, table, name, *row),
        Place::Lanes { row, mask } => scan::lanes_value(cx, env, table, name, *row, *mask),
        Place::Row { ptr, layout, present } => {
            let field = layout.field(name).ok_or_else(missing)?;
            Ok(field.load(env.b, *ptr, *present))
        }
        Place::Sides(sides) => {
            let on_left = fields(cx, sides.left.0).iter().any(|f| f.name == name);
            let (table, env) = if on_left { &sides.left } else { &sides.right };
            column(cx, env, *table, name)
        }
        Place::Group { ptr, groups } => aggregate::column(env, *ptr, groups, name).ok_or_else(missing),
        Place::Values(values) => values.iter().find(|(n, _)| n == name).map(|(_, v)| *v).ok_or_else(missing),
        Place::Entry { column, value } if column == name => Ok(*value),
        Place::Entry { .. } => Err(missing()),
    }
}

/// The only element of a column of a one-row table, which is computed by pipelines of its own beforehand.
pub fn single<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node) -> Result<Value<'b>> {
    let Op::Column(name) = cx.graph.op(node) else {
        return Err(LowerError::Unsupported {
            node: cx.describe(node),
            what: "a scalar that is no table column".into(),
        });
    };
    let table = cx.graph.inputs(node)[0];
    let row = materialise::single_row(cx, table)?;
    let ptr = row.address.get(env.b, env.frame);
    let inner = env.bind(table, Place::Row { ptr, layout: row.layout.clone(), present: None });
    let value = stored(cx, &inner, table, name)?;
    match value.repr {
        Repr::Code { .. } => Ok(super::text::as_text(cx, env, value)),
        _ => Ok(value),
    }
}

/// The number of the current row of a stored table.
pub fn row_number<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node) -> Result<Value<'b>> {
    match env.place(cx.graph.inputs(node)[0]) {
        Some(Place::Stored(row)) => Ok(Value::int(*row, Range::I64)),
        _ => {
            Err(LowerError::Unsupported { node: cx.describe(node), what: "row numbers behind other operators".into() })
        }
    }
}
