//! What every operator becomes: a composition of operations of the graph.

mod attention;
mod bits;
mod bytes;
mod conv;
mod conv_transpose;
mod elementwise;
mod index;
mod loss;
mod matrix;
mod norm;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod sample;
mod scatter;
mod shape;
mod signal;
mod training;
mod trees;

use crate::emit::Fallible;
use crate::proto::NodeProto;
use crate::value::Call;
use quearn_stage::graph::Node;

/// Writes one operator; gives its outputs, at least one.
type Write = fn(&mut Call) -> Fallible<Vec<Node>>;

/// Operators of one kind: a heading and the rows of a table.
pub struct Family {
    /// What they have in common.
    pub title: &'static str,
    rows: &'static [(&'static str, Write)],
}

impl Family {
    /// Names of the operators.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().map(|(name, _)| *name)
    }
}

/// Every operator, beside those that are computed at import (`FOLDED`).
pub const FAMILIES: &[Family] = &[
    Family { title: "Elementwise", rows: elementwise::ROWS },
    Family { title: "Shapes and places", rows: shape::ROWS },
    Family { title: "Indices", rows: index::ROWS },
    Family { title: "Updates", rows: scatter::ROWS },
    Family { title: "Reductions", rows: reduce::ROWS },
    Family { title: "Matrix products", rows: matrix::ROWS },
    Family { title: "Convolutions", rows: conv::ROWS },
    Family { title: "Poolings", rows: pool::ROWS },
    Family { title: "Normalisation", rows: norm::ROWS },
    Family { title: "Resizing", rows: resize::ROWS },
    Family { title: "Sampling", rows: sample::ROWS },
    Family { title: "Quantisation", rows: quantize::ROWS },
    Family { title: "Recurrent", rows: recurrent::ROWS },
    Family { title: "Attention", rows: attention::ROWS },
    Family { title: "Losses", rows: loss::ROWS },
    Family { title: "Bits", rows: bits::ROWS },
    Family { title: "Signals and grids", rows: signal::ROWS },
    Family { title: "Training", rows: training::ROWS },
    Family { title: "Trees", rows: trees::ROWS },
];

/// Operators whose result must be known at import, or that are written out then.
pub const FOLDED: &[&str] = &[
    "ConcatFromSequence",
    "Constant",
    "If",
    "Loop",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "Range",
    "Scan",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SequenceMap",
    "Shape",
    "Size",
    "SplitToSequence",
    "StringConcat",
    "StringNormalizer",
    "StringSplit",
    "ai.onnx.preview.training.Gradient",
];

/// The name of an operator; that of another domain than the standard's begins with it.
pub fn name(proto: &NodeProto) -> String {
    match proto.domain() {
        "" | "ai.onnx" => proto.op_type().to_owned(),
        domain => format!("{domain}.{}", proto.op_type()),
    }
}

/// The outputs of a node.
pub fn emit(call: &mut Call) -> Fallible<Vec<Node>> {
    let name = name(call.proto);
    let row = FAMILIES.iter().flat_map(|f| f.rows).find(|(known, _)| *known == name);
    match row {
        Some((_, write)) => write(call),
        None if FOLDED.contains(&&*name) => Err("its inputs must be known at import".into()),
        None if call.proto.domain().is_empty() => Err("the operator is not supported".into()),
        None => Err(format!("the operator is not supported in the domain {:?}", call.proto.domain())),
    }
}
