//! Type rules: what every operation asks of its operands and what it gives.
//!
//! `Graph::add` asks them: they are the only door to a new node. The rules follow the families of [`Op`], one file each; the sentences in
//! `op.rs` are the specification. No input makes a rule panic.

mod control;
mod scalar;
mod table;
mod tensor;

pub use scalar::{binary_result, compare_as, promote};
pub use table::aggregate_result;
pub use tensor::byte_products_fit;

use super::{Dim, Elem, Field, Graph, GraphError, Node, Op, Scalar, Shape, Ty};

type Result<T> = std::result::Result<T, GraphError>;

/// The type of `op` on `inputs`, as the node with the id `node`.
///
/// # Errors
/// Operands or attributes that the operation does not take.
pub(super) fn infer(graph: &Graph, node: Node, op: &Op, inputs: &[Node]) -> Result<Ty> {
    let cx = Cx { graph, node, op, inputs };
    for (i, input) in inputs.iter().enumerate() {
        if input.index() >= node.index().min(graph.len()) {
            return cx.error(format!("operand {} is {input}, which is not made before it", i + 1));
        }
    }
    match op {
        Op::Const(_) | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_) => scalar::infer(&cx),
        Op::Like(_) | Op::Substring { .. } | Op::Clean(_) | Op::Hash | Op::Random(_) => scalar::infer(&cx),
        Op::Scan { .. } | Op::Filter | Op::Project { .. } | Op::Product | Op::Join { .. } => table::infer(&cx),
        Op::Union { .. } => table::infer(&cx),
        Op::Aggregate { .. } | Op::Sort(_) | Op::Limit { .. } | Op::Column(_) | Op::RowNumber => table::infer(&cx),
        Op::If | Op::Loop(_) | Op::Steps(_) | Op::Param { .. } | Op::Item(_) => control::infer(&cx),
        _ => tensor::infer(&cx),
    }
}

/// The node to be made, and what rules ask about its operands.
struct Cx<'a> {
    graph: &'a Graph,
    node: Node,
    op: &'a Op,
    inputs: &'a [Node],
}

impl<'a> Cx<'a> {
    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(GraphError { op: self.op.name(), message: message.into() })
    }

    fn check(&self, holds: bool, message: impl FnOnce() -> String) -> Result<()> {
        if holds { Ok(()) } else { self.error(message()) }
    }

    /// Exactly `count` operands.
    fn arity(&self, count: usize) -> Result<()> {
        self.check(self.inputs.len() == count, || {
            format!("takes {count} operand{}, found {}", if count == 1 { "" } else { "s" }, self.inputs.len())
        })
    }

    fn ty(&self, operand: usize) -> &'a Ty {
        self.graph.ty(self.inputs[operand])
    }

    /// What an operand is called in messages: its column name, if it is a column.
    fn operand(&self, operand: usize) -> String {
        match self.graph.op(self.inputs[operand]) {
            Op::Column(name) => format!("column {name:?}"),
            Op::Input { name, .. } => format!("tensor {name:?}"),
            _ => format!("operand {} ({})", operand + 1, self.inputs[operand]),
        }
    }

    fn tensor(&self, operand: usize) -> Result<(Elem, &'a [Dim])> {
        match self.ty(operand).as_tensor() {
            Some(tensor) => Ok(tensor),
            None => self.error(format!(
                "{} must be a scalar, column or tensor, found {}",
                self.operand(operand),
                kind(self.ty(operand))
            )),
        }
    }

    fn table(&self, operand: usize) -> Result<(&'a [Field], &'a Dim)> {
        match self.ty(operand).as_table() {
            Some(table) => Ok(table),
            None => self.error(format!("{} must be a table, found {}", self.operand(operand), self.ty(operand))),
        }
    }

    /// A tensor without NULLs.
    fn required(&self, operand: usize) -> Result<(Scalar, &'a [Dim])> {
        let (elem, shape) = self.tensor(operand)?;
        self.check(!elem.nullable, || {
            format!("{} may be NULL ({elem}); give it a value with coalesce", self.operand(operand))
        })?;
        Ok((elem.scalar, shape))
    }

    /// A tensor of floats without NULLs.
    fn floats(&self, operand: usize) -> Result<(Scalar, &'a [Dim])> {
        let (scalar, shape) = self.required(operand)?;
        self.check(scalar.is_float(), || self.expected(operand, "a float"))?;
        Ok((scalar, shape))
    }

    /// "column "a" must be a float, found string".
    fn expected(&self, operand: usize, what: &str) -> String {
        format!("{} must be {what}, found {}", self.operand(operand), self.ty(operand))
    }

    /// A dimension with where it comes from.
    fn dim(&self, dim: &Dim) -> String {
        match dim {
            Dim::Rows(node) if node.index() < self.graph.len() => match self.graph.op(*node) {
                Op::Scan { table, .. } => format!("{dim} of scan {table:?}"),
                op => format!("{dim} of {}", op.name().trim_start_matches("rel.")),
            },
            _ => dim.to_string(),
        }
    }

    /// The shape that operands take together, trailing dimensions aligned.
    fn broadcast(&self, shapes: &[&[Dim]]) -> Result<Shape> {
        let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
        let mut result = vec![Dim::Const(1); rank];
        for shape in shapes {
            let skip = rank - shape.len();
            for (have, new) in result[skip..].iter_mut().zip(*shape) {
                if *have == Dim::Const(1) {
                    *have = new.clone();
                } else if *new != Dim::Const(1) && new != have {
                    return self.error(self.mismatch(have, new));
                }
            }
        }
        Ok(result)
    }

    fn mismatch(&self, a: &Dim, b: &Dim) -> String {
        let (left, right) = (self.dim(a), self.dim(b));
        match (a, b) {
            (Dim::Rows(_), Dim::Rows(_)) => {
                format!("operands are columns of different tables: {left} vs {right}")
            }
            _ => format!("shapes do not match: {left} vs {right}"),
        }
    }

    /// A declared scalar type is well-formed.
    fn well_formed(&self, scalar: Scalar) -> Result<()> {
        let ok = match scalar {
            Scalar::Decimal { precision, scale } => (1..=38).contains(&precision) && scale <= precision,
            _ => true,
        };
        self.check(ok, || format!("{scalar} is no type: a decimal has 1 to 38 digits, at most all after the point"))
    }

    /// A declared dimension is well-formed: not 0, and rows of a table made before.
    fn well_formed_dim(&self, dim: &Dim) -> Result<()> {
        match dim {
            Dim::Const(0) => self.error("an extent must not be 0"),
            Dim::Const(_) => Ok(()),
            Dim::Named(name) => self.check(is_identifier(name), || format!("{name:?} is no dimension name")),
            Dim::Rows(node) => {
                let earlier = node.index() < self.node.index().min(self.graph.len());
                let makes_rows = earlier && matches!(self.graph.ty(*node).as_table(), Some((_, rows)) if rows == dim);
                self.check(makes_rows, || format!("{dim} is not the row count of an earlier table"))
            }
        }
    }

    /// A declared type is well-formed.
    fn well_formed_ty(&self, ty: &Ty) -> Result<()> {
        match ty {
            Ty::Tensor { elem, shape } => {
                self.well_formed(elem.scalar)?;
                shape.iter().try_for_each(|dim| self.well_formed_dim(dim))
            }
            Ty::Table { fields, rows } => {
                self.well_formed_fields(fields)?;
                self.well_formed_dim(rows)
            }
            Ty::Tuple(items) => items.iter().try_for_each(|item| self.well_formed_ty(item)),
        }
    }

    /// Columns have well-formed types and names of their own.
    fn well_formed_fields(&self, fields: &[Field]) -> Result<()> {
        self.unique(fields.iter().map(|f| f.name.as_str()))?;
        for field in fields {
            self.well_formed(field.elem.scalar)?;
            let positive = field.shape.iter().all(|&extent| extent > 0);
            self.check(positive, || format!("column {:?}: an extent must not be 0", field.name))?;
        }
        Ok(())
    }

    /// Names are non-empty and differ.
    fn unique<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<()> {
        let mut seen = std::collections::HashSet::new();
        for name in names {
            self.check(!name.is_empty(), || "a column needs a name".to_owned())?;
            self.check(seen.insert(name), || format!("two columns are named {name:?}"))?;
        }
        Ok(())
    }
}

/// A letter or underscore, then letters, digits and underscores.
pub(super) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn kind(ty: &Ty) -> String {
    match ty {
        Ty::Tensor { .. } => ty.to_string(),
        Ty::Table { .. } => format!("the table {ty}"),
        Ty::Tuple(_) => format!("the tuple {ty}"),
    }
}
