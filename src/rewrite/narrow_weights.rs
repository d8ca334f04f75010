//! Weights kept in 16 bits: half the memory, and half the time of what waits for it. Not a rule: the user asks for it, since
//! results change by the rounding of the weights.

use super::patch::Patch;
use super::rebuild::rebuild;
use super::report::RewriteError;
use quearn_stage::graph::{Graph, Node, Op, Scalar, Ty};

/// The graph with its weights of f32 and at least two dimensions (matrices, filters, tables of embeddings) as weights of
/// type `to`, `BF16` or `F16`, which are widened where they are used; arithmetic stays in f32. What is bound to them must be
/// of that type: see [`Tensor::narrowed`](crate::data::Tensor::narrowed).
///
/// # Errors
/// `to` is no float of 16 bits.
pub fn narrow_weights(graph: &Graph, to: Scalar) -> Result<Graph, RewriteError> {
    let mut patch = Patch::new(graph);
    for node in (0..graph.len() as u32).map(Node) {
        let Op::Input { name, ty, weight: true } = graph.op(node) else { continue };
        let Some((elem, shape)) = ty.as_tensor().filter(|(_, shape)| shape.len() >= 2) else { continue };
        if elem != Scalar::F32.required() {
            continue;
        }
        if !matches!(to, Scalar::BF16 | Scalar::F16) {
            return Err(RewriteError::NotNarrow(to));
        }
        let ty = Ty::Tensor { elem: to.required(), shape: shape.to_vec() };
        let narrow = patch.add(Op::Input { name: name.clone(), ty, weight: true }, &[]);
        let wide = patch.add(Op::Cast(Scalar::F32), &[narrow]);
        patch = patch.replace(node, wide);
    }
    rebuild(graph, &patch).map_err(|e| RewriteError::rule("narrow_weights", e))
}
