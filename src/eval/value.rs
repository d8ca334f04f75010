//! Values of the evaluator: one datum, a flat tensor of them, a table of such columns.

use crate::foreign::{Function, Functions};
use quearn_stage::graph::{Elem, Field, Literal, Scalar, literal::Value};
use quearn_stage::low::FailKind;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Months, days and microseconds, each counted apart.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Interval {
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

/// One value; its logical type is that of the node it belongs to.
#[derive(Clone, PartialEq, Debug)]
pub enum Datum {
    /// NULL.
    Null,
    /// Truth value.
    Bool(bool),
    /// Integer, unscaled decimal, days of a date or microseconds of a timestamp.
    Int(i128),
    /// A float of any width, already rounded to its type.
    Float(f64),
    /// Interval.
    Interval(Interval),
    /// Text.
    Str(Arc<str>),
    /// No value: computing it went wrong. It counts only if somebody needs it, see [`Mark::Fail`].
    Fail(FailKind),
}

impl Datum {
    /// Text.
    pub fn str(text: impl AsRef<str>) -> Datum {
        Datum::Str(text.as_ref().into())
    }

    /// The value of a literal.
    pub fn of(literal: &Literal) -> Datum {
        match literal.value() {
            Value::Null => Datum::Null,
            Value::Bool(b) => Datum::Bool(*b),
            Value::Int(i) => Datum::Int(*i),
            Value::Float(bits) => Datum::Float(f64::from_bits(*bits)),
            Value::Interval { months, days, micros } => {
                Datum::Interval(Interval { months: *months, days: *days, micros: *micros })
            }
            Value::String(s) => Datum::str(s),
        }
    }
}

/// What an element of a tensor is beside its stored value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// The stored value.
    Value,
    /// NULL; the stored value means nothing.
    Null,
    /// The element could not be computed. Only an `If` that does not choose it makes it harmless.
    Fail(FailKind),
}

/// Elements of one logical type, row-major.
#[derive(Clone, PartialEq, Debug)]
enum Values {
    Bool(Vec<bool>),
    Int(Vec<i128>),
    Float(Vec<f64>),
    Interval(Vec<Interval>),
    Str(Vec<Arc<str>>),
}

impl Values {
    fn new(scalar: Scalar, capacity: usize) -> Values {
        match scalar {
            Scalar::Bool => Values::Bool(Vec::with_capacity(capacity)),
            Scalar::F16 | Scalar::BF16 | Scalar::F32 | Scalar::F64 => Values::Float(Vec::with_capacity(capacity)),
            Scalar::Interval => Values::Interval(Vec::with_capacity(capacity)),
            Scalar::String => Values::Str(Vec::with_capacity(capacity)),
            _ => Values::Int(Vec::with_capacity(capacity)),
        }
    }

    fn push_default(&mut self) {
        match self {
            Values::Bool(v) => v.push(false),
            Values::Int(v) => v.push(0),
            Values::Float(v) => v.push(0.0),
            Values::Interval(v) => v.push(Interval::default()),
            Values::Str(v) => v.push("".into()),
        }
    }

    fn get(&self, i: usize) -> Datum {
        match self {
            Values::Bool(v) => Datum::Bool(v[i]),
            Values::Int(v) => Datum::Int(v[i]),
            Values::Float(v) => Datum::Float(v[i]),
            Values::Interval(v) => Datum::Interval(v[i]),
            Values::Str(v) => Datum::Str(v[i].clone()),
        }
    }
}

/// A tensor, a scalar (no dimensions) or a column (the first dimension is the rows).
#[derive(Clone, PartialEq, Debug)]
pub struct EvalTensor {
    elem: Elem,
    shape: Vec<usize>,
    values: Values,
    /// One for each element, or none at all while every element has a value.
    marks: Vec<Mark>,
    len: usize,
}

impl EvalTensor {
    /// A tensor of `elem` whose elements are still to be [pushed](EvalTensor::push).
    pub(super) fn build(elem: Elem, shape: &[usize]) -> EvalTensor {
        let values = Values::new(elem.scalar, shape.iter().product());
        EvalTensor { elem, shape: shape.to_vec(), values, marks: vec![], len: 0 }
    }

    /// A tensor of values.
    ///
    /// # Panics
    /// If the values are not as many as the shape says, or not of the type.
    pub fn new(elem: Elem, shape: &[usize], data: impl IntoIterator<Item = Datum>) -> EvalTensor {
        let mut tensor = EvalTensor::build(elem, shape);
        data.into_iter().for_each(|datum| tensor.push(datum));
        assert_eq!(tensor.len, shape.iter().product::<usize>(), "elements of a tensor of shape {shape:?}");
        tensor
    }

    /// A tensor of floats, which are rounded to the type.
    pub fn floats(scalar: Scalar, shape: &[usize], data: Vec<f64>) -> EvalTensor {
        let round = |x| Datum::Float(super::cast::round_float(x, scalar));
        EvalTensor::new(scalar.required(), shape, data.into_iter().map(round))
    }

    /// A tensor of integers, dates or unscaled decimals.
    pub fn ints(scalar: Scalar, shape: &[usize], data: impl IntoIterator<Item = i128>) -> EvalTensor {
        EvalTensor::new(scalar.required(), shape, data.into_iter().map(Datum::Int))
    }

    /// A tensor without dimensions.
    pub fn scalar(elem: Elem, datum: Datum) -> EvalTensor {
        EvalTensor::new(elem, &[], [datum])
    }

    pub(super) fn push(&mut self, datum: Datum) {
        let mark = match datum {
            Datum::Null => Mark::Null,
            Datum::Fail(kind) => Mark::Fail(kind),
            _ => Mark::Value,
        };
        match (&mut self.values, datum) {
            (Values::Bool(v), Datum::Bool(x)) => v.push(x),
            (Values::Int(v), Datum::Int(x)) => v.push(x),
            (Values::Float(v), Datum::Float(x)) => v.push(x),
            (Values::Interval(v), Datum::Interval(x)) => v.push(x),
            (Values::Str(v), Datum::Str(x)) => v.push(x),
            (values, Datum::Null | Datum::Fail(_)) => values.push_default(),
            (_, other) => panic!("{other:?} is no value of type {}", self.elem),
        }
        if mark != Mark::Value && self.marks.is_empty() {
            self.marks = vec![Mark::Value; self.len];
        }
        if mark != Mark::Value || !self.marks.is_empty() {
            self.marks.push(mark);
        }
        self.len += 1;
    }

    /// Type of the elements.
    pub fn elem(&self) -> Elem {
        self.elem
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Has it no elements?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// An element by its row-major position.
    pub fn get(&self, i: usize) -> Datum {
        match self.mark(i) {
            Mark::Value => self.values.get(i),
            Mark::Null => Datum::Null,
            Mark::Fail(kind) => Datum::Fail(kind),
        }
    }

    /// Value, NULL or failure?
    pub fn mark(&self, i: usize) -> Mark {
        self.marks.get(i).copied().unwrap_or(Mark::Value)
    }

    /// All elements in row-major order.
    pub fn iter(&self) -> impl Iterator<Item = Datum> + '_ {
        (0..self.len).map(|i| self.get(i))
    }

    /// The values of a float tensor.
    ///
    /// # Panics
    /// If it holds something else.
    pub fn as_floats(&self) -> &[f64] {
        match &self.values {
            Values::Float(v) => v,
            _ => panic!("{} is no float", self.elem),
        }
    }

    /// The first element that could not be computed.
    pub(super) fn first_failure(&self) -> Option<FailKind> {
        self.marks.iter().find_map(|mark| match mark {
            Mark::Fail(kind) => Some(*kind),
            _ => None,
        })
    }

    /// The same elements under another type and shape. The representation must be the same.
    pub(super) fn with_type(mut self, elem: Elem, shape: Vec<usize>) -> EvalTensor {
        debug_assert_eq!(shape.iter().product::<usize>(), self.len);
        (self.elem, self.shape) = (elem, shape);
        self
    }

    /// The elements at those positions under a new shape; NULL where there is no position.
    pub(super) fn pick(&self, shape: &[usize], positions: impl Iterator<Item = Option<usize>>) -> EvalTensor {
        let mut result = EvalTensor::build(self.elem, shape);
        positions.for_each(|p| result.push(p.map_or(Datum::Null, |p| self.get(p))));
        result
    }

    /// The rows (slices along the first dimension) of those numbers; NULLs where there is no number.
    pub(super) fn pick_rows(&self, rows: &[Option<usize>]) -> EvalTensor {
        let inner: usize = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let positions = rows.iter().flat_map(|row| (0..inner).map(move |i| row.map(|r| r * inner + i)));
        self.pick(&shape, positions)
    }
}

/// A table: columns with one row count.
#[derive(Clone, PartialEq, Debug)]
pub struct EvalTable {
    fields: Vec<Field>,
    columns: Vec<Rc<EvalTensor>>,
    rows: usize,
}

impl EvalTable {
    /// A table of columns, whose first dimension is `rows`.
    ///
    /// # Panics
    /// If fields and columns do not agree.
    pub fn new(fields: Vec<Field>, columns: Vec<EvalTensor>, rows: usize) -> EvalTable {
        EvalTable::shared(fields, columns.into_iter().map(Rc::new).collect(), rows)
    }

    pub(super) fn shared(fields: Vec<Field>, columns: Vec<Rc<EvalTensor>>, rows: usize) -> EvalTable {
        assert_eq!(fields.len(), columns.len(), "columns of a table");
        for (field, column) in fields.iter().zip(&columns) {
            assert_eq!(column.shape[0], rows, "rows of column {:?}", field.name);
        }
        EvalTable { fields, columns, rows }
    }

    /// A table of columns without inner shape.
    pub fn of(columns: Vec<(&str, EvalTensor)>) -> EvalTable {
        let rows = columns.first().map_or(0, |(_, c)| c.shape[0]);
        let field = |(name, c): &(&str, EvalTensor)| Field { name: (*name).to_owned(), elem: c.elem, shape: vec![] };
        let fields = columns.iter().map(field).collect();
        EvalTable::new(fields, columns.into_iter().map(|(_, c)| c).collect(), rows)
    }

    /// Columns: names and types.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Columns: values.
    pub fn columns(&self) -> &[Rc<EvalTensor>] {
        &self.columns
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&Rc<EvalTensor>> {
        let at = self.fields.iter().position(|f| f.name == name)?;
        Some(&self.columns[at])
    }

    /// The rows of those numbers, in that order.
    pub(super) fn pick_rows(&self, rows: &[usize]) -> EvalTable {
        let rows: Vec<Option<usize>> = rows.iter().map(|&r| Some(r)).collect();
        let columns = self.columns.iter().map(|c| Rc::new(c.pick_rows(&rows))).collect();
        EvalTable { fields: self.fields.clone(), columns, rows: rows.len() }
    }
}

/// Value of a node.
#[derive(Clone, PartialEq, Debug)]
pub enum EvalValue {
    /// Tensor, column or scalar.
    Tensor(Rc<EvalTensor>),
    /// Table.
    Table(Rc<EvalTable>),
    /// Several values.
    Tuple(Vec<EvalValue>),
}

impl EvalValue {
    /// The tensor that a well-typed graph guarantees here.
    pub fn tensor(&self) -> &Rc<EvalTensor> {
        match self {
            EvalValue::Tensor(tensor) => tensor,
            other => panic!("expected a tensor, found {other:?}"),
        }
    }

    /// The table that a well-typed graph guarantees here.
    pub fn table(&self) -> &Rc<EvalTable> {
        match self {
            EvalValue::Table(table) => table,
            other => panic!("expected a table, found {other:?}"),
        }
    }

    /// The first element anywhere in it that could not be computed.
    pub(super) fn first_failure(&self) -> Option<FailKind> {
        match self {
            EvalValue::Tensor(tensor) => tensor.first_failure(),
            EvalValue::Table(table) => table.columns.iter().find_map(|c| c.first_failure()),
            EvalValue::Tuple(items) => items.iter().find_map(EvalValue::first_failure),
        }
    }
}

impl From<EvalTensor> for EvalValue {
    fn from(tensor: EvalTensor) -> EvalValue {
        EvalValue::Tensor(Rc::new(tensor))
    }
}

impl From<EvalTable> for EvalValue {
    fn from(table: EvalTable) -> EvalValue {
        EvalValue::Table(Rc::new(table))
    }
}

/// What a program runs on: tables and tensors by name.
#[derive(Clone, Default, Debug)]
pub struct Inputs {
    /// Tables that `Scan` reads.
    pub tables: HashMap<String, EvalTable>,
    /// Tensors that `Input` reads.
    pub tensors: HashMap<String, EvalTensor>,
    /// Functions that `Foreign` calls.
    pub functions: Functions,
}

impl Inputs {
    /// Nothing.
    pub fn new() -> Inputs {
        Inputs::default()
    }

    /// With one table more.
    pub fn table(mut self, name: impl Into<String>, table: EvalTable) -> Inputs {
        self.tables.insert(name.into(), table);
        self
    }

    /// With one function more.
    pub fn function(mut self, name: impl Into<String>, function: Function) -> Inputs {
        self.functions.insert(name.into(), function);
        self
    }

    /// With one tensor more.
    pub fn tensor(mut self, name: impl Into<String>, tensor: EvalTensor) -> Inputs {
        self.tensors.insert(name.into(), tensor);
        self
    }
}
