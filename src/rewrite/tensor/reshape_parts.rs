//! `reshape(transpose(concat(a, b))) = concat(reshape(transpose(a)), reshape(transpose(b)))`.
//!
//! Reason: axes that were exchanged cannot become one where they lie, so that the whole would be copied. What makes `a` and
//! `b` writes them into their places instead.
//!
//! Preconditions: all extents are known, parts of the concatenation are parts along an axis of the result, and nobody else
//! reads what is in between. Equal.

use crate::rewrite::Patch;
use crate::rewrite::users::Users;
use quearn_stage::graph::{Dim, Graph, Node, Op};

/// The concatenation of the reshaped parts.
pub fn reshape_parts(graph: &Graph, node: Node) -> Option<Patch> {
    let (Op::Reshape(_), &[moved]) = (graph.op(node), graph.inputs(node)) else { return None };
    let (Op::Transpose(perm), &[joined]) = (graph.op(moved), graph.inputs(moved)) else { return None };
    let Op::Concat { axis } = graph.op(joined) else { return None };
    let users = Users::of(graph);
    if !users.only(moved, node) || !users.only(joined, moved) {
        return None;
    }
    let [from, to] = [extents(graph, moved)?, extents(graph, node)?];
    let at = perm.iter().position(|p| p == axis)?;
    let parts: Vec<Node> = graph.inputs(joined).to_vec();
    let counts = parts.iter().map(|part| Some(extents(graph, *part)?[*axis])).collect::<Option<Vec<u64>>>()?;
    let (axis, counts) = divided(&from, at, &counts, &to)?;
    let mut patch = Patch::new(graph);
    let reshaped = |(part, count): (&Node, &u64)| {
        let moved = patch.add(Op::Transpose(perm.clone()), &[*part]);
        let mut shape = to.clone();
        shape[axis] = *count;
        patch.add(Op::Reshape(shape.into_iter().map(Dim::Const).collect()), &[moved])
    };
    let parts: Vec<Node> = parts.iter().zip(&counts).map(reshaped).collect();
    let new = patch.add(Op::Concat { axis }, &parts);
    Some(patch.replace(node, new))
}

fn extents(graph: &Graph, node: Node) -> Option<Vec<u64>> {
    graph.ty(node).as_tensor()?.1.iter().map(Dim::as_const).collect()
}

/// Where parts of `counts` along an axis lie after a reshape: the axis there, and their extents along it.
fn divided(from: &[u64], axis: usize, counts: &[u64], to: &[u64]) -> Option<(usize, Vec<u64>)> {
    let before: u64 = from[..axis].iter().product();
    let each: u64 = from[axis + 1..].iter().product();
    (0..to.len()).find_map(|at| {
        let unit: u64 = to[at + 1..].iter().product();
        let fits = |count: &u64| unit > 0 && count * each > 0 && (count * each).is_multiple_of(unit);
        let divides = to[..at].iter().product::<u64>() == before && counts.iter().all(fits);
        divides.then(|| (at, counts.iter().map(|count| count * each / unit).collect()))
    })
}
