//! Text columns with a dictionary: codes, their text, and predicates that are evaluated once for every distinct value.

use super::env::{Env, Place};
use super::value::{Repr, Value};
use crate::data::Column;
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::{Bind, Part, Slot};
use quearn_stage::graph::fails::can_fail;
use quearn_stage::graph::{BinaryOp, Clean, Node, Op, Scalar, Ty as GraphTy, UnaryOp};
use quearn_stage::low::{Builder, CastOp, Prim, Ty, V};

/// The dictionary of a column, numbered by the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct DictRef(pub u32);

impl DictRef {
    /// The dictionary of a column.
    pub fn of(cx: &Cx<'_>, table: &str, column: &str) -> DictRef {
        DictRef(cx.dictionary(table, column))
    }

    fn slot(self, cx: &Cx<'_>, part: Part) -> Slot {
        let (table, column) = cx.dictionary_column(self.0);
        cx.frame.bind(Bind::Column { table, column, part })
    }

    /// The text of a code.
    pub fn text<'b>(self, cx: &Cx<'_>, b: &'b Builder, frame: V<'b>, code: V<'b>) -> Value<'b> {
        let offsets = self.slot(cx, Part::DictOffsets).get(b, frame);
        let bytes = self.slot(cx, Part::DictBytes).get(b, frame);
        let at = offsets.index(code.sext(Prim::I64), 4);
        let start = b.load_invariant(Ty::I32, at, 0).sext(Prim::I64);
        let end = b.load_invariant(Ty::I32, at, 4).sext(Prim::I64);
        Value::text(bytes.index(start, 1), end - start)
    }

    /// Number of entries.
    pub fn len<'b>(self, cx: &Cx<'_>, b: &'b Builder, frame: V<'b>) -> V<'b> {
        self.slot(cx, Part::DictLen).get(b, frame)
    }
}

/// The one dictionary-coded column that an expression reads, if it reads nothing else of a row.
pub struct Dependence {
    /// Table that holds the column.
    pub table: Node,
    /// Its name.
    pub column: String,
    /// Is the expression NULL whenever the column is?
    pub strict: bool,
}

/// Finds out whether `node` works on text and reads a single column only; `resolve` finds the stored column behind a
/// column of any table.
pub fn dependence(cx: &Cx<'_>, node: Node, resolve: &dyn Fn(Node) -> Option<(Node, String)>) -> Option<Dependence> {
    let mut found: Option<(Node, String)> = None;
    let (mut text, mut strict) = (false, true);
    let mut stack = vec![node];
    while let Some(node) = stack.pop() {
        match cx.graph.op(node) {
            Op::Const(_) => continue,
            Op::Column(_) => {
                let leaf = resolve(node)?;
                text |= is_text(cx, node);
                if found.as_ref().is_some_and(|other| *other != leaf) {
                    return None;
                }
                found = Some(leaf);
                continue;
            }
            Op::Unary(UnaryOp::IsNull) | Op::Binary(BinaryOp::And | BinaryOp::Or | BinaryOp::Coalesce) => {
                strict = false
            }
            Op::Select | Op::If => strict = false,
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Cast(_) => {}
            Op::Like(_) | Op::Substring { .. } | Op::Clean(_) | Op::Hash => {}
            _ => return None,
        }
        stack.extend(cx.graph.inputs(node));
    }
    let (table, column) = found?;
    // An entry that no row has must not make the program fail.
    (text && !can_fail(cx.graph, node)).then_some(Dependence { table, column, strict })
}

fn is_text(cx: &Cx<'_>, node: Node) -> bool {
    matches!(cx.graph.ty(node), GraphTy::Tensor { elem, .. } if elem.scalar == Scalar::String)
}

/// An expression tabulated over a dictionary: one value for each code, computed when the program starts.
#[derive(Clone, Copy)]
pub struct Table {
    values: Slot,
    prim: Prim,
    valid: Option<Slot>,
    range: Option<super::value::Range>,
}

impl Table {
    /// Does it hold bools, none of them NULL?
    pub fn is_plain_bool(&self) -> bool {
        self.prim == Prim::Bool && self.valid.is_none()
    }

    /// The machine value for a code, an `i64`.
    pub fn at<'b>(&self, env: &Env<'b>, code: V<'b>) -> V<'b> {
        let base = self.values.get(env.b, env.frame);
        env.b.load_invariant(Ty::scalar(self.prim), base.index(code, self.prim.bytes() as i64), 0)
    }

    /// The value for a code.
    pub fn get<'b>(&self, env: &Env<'b>, code: &Value<'b>) -> Value<'b> {
        let b = env.b;
        let at = code.scalar().sext(Prim::I64);
        let load = |slot: &Slot, ty: Ty| {
            let base = slot.get(b, env.frame);
            b.load_invariant(ty, base.index(at, ty.bytes() as i64), 0)
        };
        let value = load(&self.values, Ty::scalar(self.prim));
        let own = self.valid.as_ref().map(|slot| load(slot, Ty::BOOL));
        Value { repr: Repr::Prim(value), valid: super::value::both_valid(own, code.valid), range: self.range }
    }
}

/// The entries of a dictionary, cleaned: each where the entry was, in a copy of its bytes, and as long as it is now.
#[derive(Clone, Copy)]
pub struct CleanDict {
    bytes: Slot,
    lengths: Slot,
}

impl CleanDict {
    /// Where the text of a code begins.
    fn place<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, code: V<'b>, dict: DictRef) -> V<'b> {
        let offsets = dict.slot(cx, Part::DictOffsets).get(env.b, env.frame);
        let start = env.b.load_invariant(Ty::I32, offsets.index(code, 4), 0).sext(Prim::I64);
        self.bytes.get(env.b, env.frame).index(start, 1)
    }

    /// The text of a code.
    pub fn get<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, code: V<'b>, dict: DictRef) -> Value<'b> {
        let code = code.sext(Prim::I64);
        let length = self.lengths.get(env.b, env.frame).index(code, 4);
        let length = env.b.load_invariant(Ty::I32, length, 0).sext(Prim::I64);
        Value::text(self.place(cx, env, code, dict), length)
    }
}

/// Adds a step to the main function that cleans every entry of a dictionary.
pub fn cleaned(cx: &Cx<'_>, node: Node, how: Clean, dict: DictRef) -> Result<CleanDict> {
    // It depends on the stored column alone.
    cx.once(&[], || {
        let key = (dict.0, how);
        if let Some(texts) = cx.cleaned.get(&key, cx.prepares()) {
            return Ok(texts);
        }
        let texts = lower_cleaned(cx, node, how, dict);
        cx.cleaned.insert(key, cx.prepares(), texts);
        Ok(texts)
    })
}

fn lower_cleaned(cx: &Cx<'_>, node: Node, how: Clean, dict: DictRef) -> CleanDict {
    let texts = CleanDict { bytes: cx.frame.slot(Ty::PTR), lengths: cx.frame.slot(Ty::PTR) };
    let (table, column) = cx.dictionary_column(dict.0);
    let column = cx.catalog.table(&table).and_then(|t| t.column(&column).ok());
    let entries = column.and_then(Column::dictionary).map_or(0.0, |dict| dict.len() as f64);
    let func = cx.task_over("clean", entries, |b, frame, worker, lo, hi| {
        let env = Env::new(b, frame, worker);
        b.for_(lo, hi, |i| {
            let to = texts.place(cx, &env, i, dict);
            let len = super::expr::text::cleaned(b, dict.text(cx, b, frame, i.sext(Prim::I32)), to, how);
            b.store(texts.lengths.get(b, frame).index(i, 4), 0, len.cast(CastOp::Trunc, Prim::I32));
        });
    });
    let operator = format!("{} over a dictionary", cx.describe(node));
    cx.step(move |cx, b, frame| {
        let len = dict.len(cx, b, frame);
        let end = dict.slot(cx, Part::DictOffsets).get(b, frame).index(len, 4);
        let bytes = b.load_invariant(Ty::I32, end, 0).sext(Prim::I64);
        texts.bytes.set(b, frame, cx.alloc(b, frame, bytes + 1, &operator));
        // Rows that are NULL read entry 0, even if there is none.
        texts.lengths.set(b, frame, cx.alloc(b, frame, (len + 1) * 4, &operator));
        b.par_for(func, frame, len, b.i64(1 << 12));
    });
    texts
}

/// Adds a step to the main function that evaluates `node` for every entry of the dictionary, in place of `on.column`.
pub fn tabulate(cx: &Cx<'_>, node: Node, on: &Dependence, dict: DictRef) -> Result<Table> {
    // It depends on the stored column alone.
    cx.once(&[], || lower_table(cx, node, on, dict))
}

fn lower_table(cx: &Cx<'_>, node: Node, on: &Dependence, dict: DictRef) -> Result<Table> {
    if let Some(table) = cx.tabulated.get(&node, cx.prepares()) {
        return Ok(table);
    }
    let values = cx.frame.slot(Ty::PTR);
    let valid = cx.frame.slot(Ty::PTR);
    let (table, column) = cx.dictionary_column(dict.0);
    let column = cx.catalog.table(&table).and_then(|t| t.column(&column).ok());
    let entries = column.and_then(Column::dictionary).map_or(0.0, |dict| dict.len() as f64);
    // The table is filled by a function of its own; the form of its values is known once that is generated.
    let mut form = None;
    let func = cx.task_over("tabulate", entries, |b, frame, worker, lo, hi| {
        b.for_(lo, hi, |i| {
            let env = Env::new(b, frame, worker);
            let entry = dict.text(cx, b, frame, i.sext(Prim::I32));
            let env = env.bind(on.table, Place::Entry { column: on.column.clone(), value: entry });
            form = Some(super::expr::eval(cx, &env, node).map(|value| {
                let v = value.scalar();
                let prim = v.ty().prim;
                b.store(values.get(b, frame).index(i, prim.bytes() as i64), 0, v);
                if let Some(is_valid) = value.valid {
                    b.store(valid.get(b, frame).index(i, 1), 0, is_valid);
                }
                (prim, value.valid.is_some(), value.range)
            }));
        });
    });
    let (prim, nullable, range) = form.expect("the loop body is generated once")?;
    let operator = format!("{} over a dictionary", cx.describe(node));
    cx.step(move |cx, b, frame| {
        let len = dict.len(cx, b, frame);
        // Rows that are NULL read entry 0, even if there is none.
        values.set(b, frame, cx.alloc(b, frame, (len + 1) * prim.bytes() as i64, &operator));
        if nullable {
            valid.set(b, frame, cx.alloc(b, frame, len + 1, &operator));
        }
        b.par_for(func, frame, len, b.i64(1 << 12));
    });
    let table = Table { values, prim, valid: nullable.then_some(valid), range };
    cx.tabulated.insert(node, cx.prepares(), table);
    Ok(table)
}
