//! Reverse-mode differentiation: a program that computes a loss becomes one that computes its gradients too.
//!
//! Derivatives are written in operators of the graph, so that they are rewritten and lowered as everything else, and can
//! be differentiated again. The walk goes from the loss back; at each node the rule of its operator says what the
//! adjoint of the node (the derivative of the loss by it) adds to those of its inputs.
//!
//! | file | what it holds |
//! |---|---|
//! | `reverse` | the walk, and which nodes a gradient passes through |
//! | `depends` | what depends on what the gradients are taken by |
//! | `emit` | nodes in their simplest form, sums over what was broadcast |
//! | `wide`, `tables`, `rows` | gradients through tables |
//! | `rules` | a rule for each operator, one file a family |
//! | `error` | what has no derivative |
//!
//! Invariants:
//! - An adjoint *broadcasts* to its node: it may lack dimensions along which it is everywhere the same. Rules that need
//!   all elements ask for them ([`emit::Emit::full`]). So the gradient of a sum costs nothing.
//! - No adjoint, or none for a column, means zero. Integers, decimals, dates, texts and truth values have none: where a
//!   program goes through them (a comparison, an index, a key of a group) the loss is taken as constant. So it is where a
//!   function jumps (`floor`, which rows a filter lets through).
//! - Where a value is NULL its adjoint is zero.
//!
//! At kinks: `relu` and `abs` have the slope 0 at 0; two equal operands of a minimum or maximum share the adjoint, and so
//! do equal elements of a reduction; of equal elements in a pooling window the first gets all of it.

mod depends;
mod emit;
mod error;
mod reverse;
mod rows;
mod rules;
mod tables;
mod wide;

pub use error::Error;

use quearn_stage::graph::{Graph, Node, Ty};
use quearn_stage::rep::{Elementwise, FloatLike, Rep};

/// The derivatives of a loss by each of `wrt`, as further nodes of the graph.
///
/// The loss is a float scalar. `wrt` are tensors of floats: inputs, columns of tables, or anything in between; a
/// gradient has the type of its node, and is zero where the loss does not depend on it. The gradient of a column that may
/// be NULL is never NULL itself.
///
/// # Errors
/// An operator between the loss and `wrt` that has no derivative, named; a loss that is no float scalar, or a `wrt` that
/// is no tensor of floats.
pub fn differentiate(graph: &mut Graph, loss: Node, wrt: &[Node]) -> Result<Vec<Node>, Error> {
    match graph.ty(loss) {
        Ty::Tensor { elem, shape } if elem.scalar.is_float() && shape.is_empty() => {}
        other => return Err(Error::Loss { found: other.to_string() }),
    }
    for &node in wrt {
        match graph.ty(node) {
            Ty::Tensor { elem, .. } if elem.scalar.is_float() => {}
            other => return Err(Error::Wrt { node, found: other.to_string() }),
        }
    }
    let mut e = emit::Emit::new(graph);
    let parts = tables::gradients(&mut e, loss, wrt)?;
    let full = |(part, &node): (Option<Node>, &Node)| e.gradient(part, node);
    parts.into_iter().zip(wrt).map(full).collect()
}

/// The derivatives of a loss by each of `wrt`, as values of the program that is written.
///
/// The loss is a float scalar; a gradient has the shape of what it is taken by. It may be differentiated again. What has
/// no derivative, as every mistake, poisons the result, and `Stage::finish` reports it.
///
/// ```
/// use quearn::autodiff::gradients;
/// use quearn::prelude::*;
///
/// let s = Stage::new();
/// let (w, x) = (s.weight::<F64>("w", [3]), s.input::<F64>("x", [3]));
/// let loss = (w * x).sum([0]);
/// s.output("dw", gradients(loss, &[w])[0]);
/// # s.finish().unwrap();
/// ```
#[track_caller]
pub fn gradients<'s, L: FloatLike, T: Elementwise>(loss: Rep<'s, L>, wrt: &[Rep<'s, T>]) -> Vec<Rep<'s, T>> {
    let of: Vec<_> = std::iter::once(loss.dyn_()).chain(wrt.iter().map(|w| w.dyn_())).collect();
    loss.stage().extend("autodiff", &of, wrt.len(), |graph, nodes| Ok(differentiate(graph, nodes[0], &nodes[1..])?))
}
