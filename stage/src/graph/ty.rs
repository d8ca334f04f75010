//! Types of the graph: scalars, dimensions, tensors and tables.

use super::Node;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of one value, as SQL and tensor programs know it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Scalar {
    /// Truth value; with NULL it follows the three-valued logic of SQL.
    Bool,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer (image samples).
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// IEEE 754 binary16; arithmetic is done in `f32`.
    F16,
    /// bfloat16; arithmetic is done in `f32`.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// Exact decimal: an integer of at most `precision` digits, times 10^-`scale`.
    Decimal {
        /// Digits, 1 to 38.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since 1970-01-01 00:00:00, without a time zone.
    Timestamp,
    /// Months, days and microseconds, each counted apart.
    Interval,
    /// UTF-8 text.
    String,
}

impl Scalar {
    /// A decimal type.
    pub const fn decimal(precision: u8, scale: u8) -> Scalar {
        Scalar::Decimal { precision, scale }
    }

    /// An integer type (not a decimal, date or bool).
    pub const fn is_int(self) -> bool {
        matches!(self, Scalar::I8 | Scalar::U8 | Scalar::I16 | Scalar::I32 | Scalar::I64)
    }

    /// A floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, Scalar::F16 | Scalar::BF16 | Scalar::F32 | Scalar::F64)
    }

    /// An integer, decimal or float type.
    pub const fn is_numeric(self) -> bool {
        self.is_int() || self.is_float() || matches!(self, Scalar::Decimal { .. })
    }

    /// The NULL-free element type.
    pub const fn required(self) -> Elem {
        Elem { scalar: self, nullable: false }
    }

    /// The element type that may be NULL.
    pub const fn nullable(self) -> Elem {
        Elem { scalar: self, nullable: true }
    }
}

/// Type of the elements of a tensor or column.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Elem {
    /// Type of a value.
    pub scalar: Scalar,
    /// May a value be NULL?
    pub nullable: bool,
}

/// One dimension of a tensor.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Dim {
    /// Known when the program is built.
    Const(u64),
    /// The row count of a table; the node is the operator that makes the rows. Two tensors over the same row
    /// dimension can share a loop.
    Rows(Node),
    /// Known only when the program runs, such as a batch; equal names mean equal sizes.
    Named(String),
}

impl Dim {
    /// The size, if it is known now.
    pub fn as_const(&self) -> Option<u64> {
        match self {
            Dim::Const(n) => Some(*n),
            _ => None,
        }
    }

    /// The same dimension with another node as the maker of its rows.
    pub fn map_rows(&self, rename: &impl Fn(Node) -> Node) -> Dim {
        match self {
            Dim::Rows(node) => Dim::Rows(rename(*node)),
            _ => self.clone(),
        }
    }
}

/// Extents of a tensor, outermost first; empty for a scalar.
pub type Shape = Vec<Dim>;

/// A column of a table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Field {
    /// Name, unique in its table.
    pub name: String,
    /// Type of an element.
    pub elem: Elem,
    /// Extents of the tensor in every row; empty for an ordinary column.
    pub shape: Vec<u64>,
}

impl Field {
    /// An ordinary column that is never NULL.
    pub fn new(name: impl Into<String>, scalar: Scalar) -> Field {
        Field { name: name.into(), elem: scalar.required(), shape: vec![] }
    }

    /// An ordinary column that may be NULL.
    pub fn nullable(name: impl Into<String>, scalar: Scalar) -> Field {
        Field { name: name.into(), elem: scalar.nullable(), shape: vec![] }
    }
}

/// Type of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ty {
    /// A tensor; a scalar has no dimensions, a column of a table has its rows as the only (or first) one.
    Tensor {
        /// Type of the elements.
        elem: Elem,
        /// Extents.
        shape: Shape,
    },
    /// A table: a bag (after a sort: a sequence) of rows.
    Table {
        /// Columns.
        fields: Vec<Field>,
        /// Row count.
        rows: Dim,
    },
    /// Several values, see `Op::Item`.
    Tuple(Vec<Ty>),
}

impl Ty {
    /// The same type with other dimensions.
    pub fn moved(&self, dim: &dyn Fn(&Dim) -> Dim) -> Ty {
        match self {
            Ty::Tensor { elem, shape } => Ty::Tensor { elem: *elem, shape: shape.iter().map(dim).collect() },
            Ty::Table { fields, rows } => Ty::Table { fields: fields.clone(), rows: dim(rows) },
            Ty::Tuple(items) => Ty::Tuple(items.iter().map(|item| item.moved(dim)).collect()),
        }
    }

    /// A scalar (rank 0) type.
    pub fn scalar(elem: Elem) -> Ty {
        Ty::Tensor { elem, shape: vec![] }
    }

    /// Element type and shape, if it is a tensor.
    pub fn as_tensor(&self) -> Option<(Elem, &[Dim])> {
        match self {
            Ty::Tensor { elem, shape } => Some((*elem, shape)),
            _ => None,
        }
    }

    /// Adds the nodes whose rows are dimensions of the type.
    pub fn rows(&self, nodes: &mut Vec<Node>) {
        let mut add = |dim: &Dim| {
            if let Dim::Rows(node) = dim {
                nodes.push(*node);
            }
        };
        match self {
            Ty::Tensor { shape, .. } => shape.iter().for_each(add),
            Ty::Table { rows, .. } => add(rows),
            Ty::Tuple(items) => items.iter().for_each(|item| item.rows(nodes)),
        }
    }

    /// The same type with other nodes as the makers of its rows.
    pub fn map_rows(&self, rename: &impl Fn(Node) -> Node) -> Ty {
        match self {
            Ty::Tensor { elem, shape } => {
                Ty::Tensor { elem: *elem, shape: shape.iter().map(|dim| dim.map_rows(rename)).collect() }
            }
            Ty::Table { fields, rows } => Ty::Table { fields: fields.clone(), rows: rows.map_rows(rename) },
            Ty::Tuple(items) => Ty::Tuple(items.iter().map(|item| item.map_rows(rename)).collect()),
        }
    }

    /// Columns and row count, if it is a table.
    pub fn as_table(&self) -> Option<(&[Field], &Dim)> {
        match self {
            Ty::Table { fields, rows } => Some((fields, rows)),
            _ => None,
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Scalar::Bool => "bool",
            Scalar::I8 => "i8",
            Scalar::U8 => "u8",
            Scalar::I16 => "i16",
            Scalar::I32 => "i32",
            Scalar::I64 => "i64",
            Scalar::F16 => "f16",
            Scalar::BF16 => "bf16",
            Scalar::F32 => "f32",
            Scalar::F64 => "f64",
            Scalar::Decimal { precision, scale } => return write!(f, "decimal({precision},{scale})"),
            Scalar::Date => "date",
            Scalar::Timestamp => "timestamp",
            Scalar::Interval => "interval",
            Scalar::String => "string",
        };
        f.write_str(name)
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scalar, if self.nullable { "?" } else { "" })
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Const(n) => write!(f, "{n}"),
            Dim::Rows(node) => write!(f, "rows({node})"),
            Dim::Named(name) => f.write_str(name),
        }
    }
}

/// `name` as it is, or quoted if it is no identifier.
pub(super) fn quoted(name: &str) -> String {
    if super::infer::is_identifier(name) { name.to_owned() } else { format!("{name:?}") }
}

impl fmt::Display for Field {
    /// `name: elem[shape]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", quoted(&self.name), self.elem)?;
        match self.shape[..] {
            [] => Ok(()),
            _ => write!(f, "{:?}", self.shape),
        }
    }
}

impl fmt::Display for Ty {
    /// `f64`, `[rows(v0), 3] f32`, `{a: i64, b: string?} over rows(v0)` or `(f64, [3] f32)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ty::Tensor { elem, shape } if shape.is_empty() => write!(f, "{elem}"),
            Ty::Tensor { elem, shape } => write!(f, "[{}] {elem}", list(shape)),
            Ty::Table { fields, rows } => write!(f, "{{{}}} over {rows}", list(fields)),
            Ty::Tuple(items) => write!(f, "({})", list(items)),
        }
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(", ")
}
