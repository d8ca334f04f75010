//! A graph in the making, with its data.

use super::rng::Rng;
use crate::eval::{EvalTensor, Inputs};
use quearn_stage::graph::{Dim, Elem, Graph, Literal, Node, Op, Scalar, Ty};

/// A table in the graph and what is known about its columns.
#[derive(Clone, Debug)]
pub struct Rel {
    /// The table.
    pub node: Node,
    /// Its columns.
    pub columns: Vec<Col>,
}

/// A column that expressions may read.
#[derive(Clone, Debug)]
pub struct Col {
    /// Name, unique in the program.
    pub name: String,
    /// Type.
    pub elem: Elem,
    /// Every correct program computes the same bits, so that a predicate or key may depend on it. Not so for floats
    /// that come from sums in any order or from functions such as `exp`.
    pub exact: bool,
}

/// Types among which random operations do not leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Bool.
    Bool,
    /// Integers.
    Int,
    /// Decimals.
    Decimal,
    /// Floats.
    Float,
    /// Dates.
    Date,
    /// Timestamps.
    Timestamp,
    /// Strings.
    Str,
    /// Intervals, which are only carried along.
    Interval,
}

impl Class {
    /// Classes whose values can be compared, sorted and grouped.
    pub const ORDERED: [Class; 7] =
        [Class::Bool, Class::Int, Class::Decimal, Class::Float, Class::Date, Class::Timestamp, Class::Str];

    /// The class of a type.
    pub fn of(scalar: Scalar) -> Class {
        match scalar {
            Scalar::Bool => Class::Bool,
            Scalar::I8 | Scalar::U8 | Scalar::I16 | Scalar::I32 | Scalar::I64 => Class::Int,
            Scalar::F16 | Scalar::BF16 | Scalar::F32 | Scalar::F64 => Class::Float,
            Scalar::Decimal { .. } => Class::Decimal,
            Scalar::Date => Class::Date,
            Scalar::Timestamp => Class::Timestamp,
            Scalar::Interval => Class::Interval,
            Scalar::String => Class::Str,
        }
    }
}

/// A graph in the making, with its data.
#[derive(Debug)]
pub struct Maker {
    /// Where choices come from.
    pub rng: Rng,
    /// The program so far.
    pub graph: Graph,
    /// Its data.
    pub inputs: Inputs,
    /// How large things may get: rows of a table, depth of a pipeline.
    pub size: usize,
    /// How many names it has given.
    pub names: usize,
}

impl Maker {
    /// An empty program.
    pub fn new(seed: u64, size: usize) -> Maker {
        Maker { rng: Rng::new(seed), graph: Graph::new(), inputs: Inputs::new(), size, names: 0 }
    }

    /// A node. Whatever the generator makes must be well-typed.
    pub fn add(&mut self, op: Op, inputs: &[Node]) -> Node {
        self.graph
            .add(op, inputs)
            .unwrap_or_else(|e| panic!("the generator made an ill-typed node: {e}\n{}", self.graph))
    }

    /// A constant.
    pub fn constant(&mut self, literal: Literal) -> Node {
        self.add(Op::Const(literal), &[])
    }

    /// A float constant.
    pub fn float(&mut self, scalar: Scalar, value: f64) -> Node {
        self.constant(Literal::float(scalar, value).expect("a float type"))
    }

    /// A name that no other has.
    pub fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// The element type of a tensor.
    pub fn elem(&self, node: Node) -> Elem {
        self.graph.ty(node).as_tensor().expect("a tensor").0
    }

    /// A column of a table.
    pub fn column(&mut self, rel: &Rel, col: &Col) -> Node {
        self.add(Op::Column(col.name.clone()), &[rel.node])
    }

    /// An input tensor of dyadic `f32` values.
    pub fn tensor(&mut self, shape: &[usize], weight: bool) -> Node {
        let data: Vec<f64> = (0..shape.iter().product()).map(|_| self.rng.dyadic()).collect();
        self.input(EvalTensor::floats(Scalar::F32, shape, data), weight)
    }

    /// An input tensor.
    pub fn input(&mut self, tensor: EvalTensor, weight: bool) -> Node {
        let shape = tensor.shape().iter().map(|&e| Dim::Const(e as u64)).collect();
        let ty = Ty::Tensor { elem: tensor.elem(), shape };
        let name = self.name(if weight { "w" } else { "x" });
        self.inputs.tensors.insert(name.clone(), tensor);
        self.add(Op::Input { name, ty, weight }, &[])
    }
}
