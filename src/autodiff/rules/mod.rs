//! The rules: what the adjoint of a node adds to those of its inputs, one function an operator.
//!
//! | file | what it holds |
//! |---|---|
//! | `elementwise` | functions of one and two operands, choices, casts |
//! | `shape` | elements in other places: reshapes, slices, concatenations |
//! | `place` | the ways back of slices and windows |
//! | `reduce` | sums and the like along axes, softmax |
//! | `product` | matrix products |
//! | `conv` | convolutions |
//! | `pool` | poolings |
//! | `norm` | batch normalisation |
//! | `index` | elements at places that are known later |
//! | `steps` | steps along an axis, loops |

mod conv;
mod elementwise;
mod index;
mod norm;
mod place;
mod pool;
mod product;
mod reduce;
mod shape;
mod steps;

use super::Error;
use super::reverse::{Call, Reverse};
use quearn_stage::graph::{Op, PoolKind, ReduceOp};

type Done = Result<(), Error>;

/// Gives each input that somebody asks for its share of the adjoint.
pub(super) type Rule = fn(&mut Reverse<'_, '_>, &Call) -> Done;

/// The rule of an operator; `None` if it has none.
pub(super) fn rule(op: &Op) -> Option<Rule> {
    Some(match op {
        Op::Unary(_) => elementwise::unary,
        Op::Binary(_) => elementwise::binary,
        Op::Select | Op::If => elementwise::select,
        Op::Cast(_) => elementwise::cast,
        Op::MatMul => product::matmul,
        Op::Conv2d(_) => conv::conv2d,
        Op::Conv2dFilters { .. } => conv::conv2d_filters,
        Op::Pool2d(pool) if pool.kind == PoolKind::Max => pool::max,
        Op::Pool2d(_) => pool::avg,
        Op::MaxUnpool2d(_) => pool::max_unpool,
        Op::BatchNorm { .. } => norm::batch_norm,
        Op::Softmax { .. } => reduce::softmax,
        Op::CumSum { .. } => reduce::cum_sum,
        Op::Reduce { op: ReduceOp::Sum | ReduceOp::Mean, .. } => reduce::sum,
        Op::Reduce { op: ReduceOp::Min | ReduceOp::Max, .. } => reduce::extreme,
        Op::Reduce { op: ReduceOp::Prod, .. } => reduce::product,
        Op::Concat { .. } => shape::concat,
        Op::Reshape(_) => shape::reshape,
        Op::Transpose(_) => shape::transpose,
        Op::Slice { .. } => shape::slice,
        Op::Broadcast(_) => shape::broadcast,
        Op::Stack => shape::stack,
        Op::Single => shape::single,
        Op::Gather => index::gather,
        Op::ScatterAdd => index::scatter_add,
        Op::Item(_) => steps::item,
        Op::Steps(_) => steps::steps,
        Op::Loop(_) => steps::loop_,
        _ => return None,
    })
}
