//! Rules about tensors.

mod fold_batch_norm;
mod fuse_elementwise;
mod join_later;
mod join_sums;
mod merge_steps;
mod pool_first;
mod quantised_product;
mod reshape_parts;
mod simplify_arithmetic;
mod turn_product;

pub use fold_batch_norm::fold_batch_norm;
pub use fuse_elementwise::fuse_elementwise;
pub use join_later::join_later;
pub use join_sums::join_sums;
pub use merge_steps::merge_steps;
pub use pool_first::pool_first;
pub use quantised_product::quantised_product;
pub use reshape_parts::reshape_parts;
pub use simplify_arithmetic::simplify_arithmetic;
pub use turn_product::turn_product;

use quearn_stage::graph::literal::Value;
use quearn_stage::graph::{Graph, Node, Op};

/// The number, if the node is a constant of a numeric type without digits after a point.
fn number(graph: &Graph, node: Node) -> Option<f64> {
    let Op::Const(literal) = graph.op(node) else { return None };
    match literal.value() {
        Value::Float(bits) => Some(f64::from_bits(*bits)),
        Value::Int(x) if literal.scalar().is_int() => Some(*x as f64),
        _ => None,
    }
}
