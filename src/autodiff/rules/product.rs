//! Matrix products.

use super::Done;
use crate::autodiff::emit::{Emit, Made};
use crate::autodiff::reverse::{Call, Reverse};
use quearn_stage::graph::{Dim, Node};

/// `a b`: the adjoint of `a` is `adjoint transpose(b)`, that of `b` is `transpose(a) adjoint`.
pub(super) fn matmul(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let (a, b) = (call.inputs[0], call.inputs[1]);
    let adjoint = r.e.full(call.tensor(), call.node)?;
    if r.wants(a) {
        let back = r.e.swap_last(b)?;
        let part = r.e.matmul(adjoint, back)?;
        let part = summed(r.e, part, a)?;
        r.give(a, part)?;
    }
    if r.wants(b) {
        let part = right(r.e, a, b, adjoint)?;
        r.give(b, part)?;
    }
    Ok(())
}

/// The adjoint of the right operand. One matrix for many left ones is one product over all of their rows.
fn right(e: &mut Emit<'_>, a: Node, b: Node, adjoint: Node) -> Made {
    let (rows, sums) = (e.shape(a), e.shape(adjoint));
    if e.shape(b).len() == 2
        && rows[..rows.len() - 1] == sums[..sums.len() - 1]
        && let Some(count) = flat(&rows[..rows.len() - 1])
    {
        let last = |shape: &[Dim]| vec![count.clone(), shape[shape.len() - 1].clone()];
        let (left, right) = (e.reshape(a, last(&rows))?, e.reshape(adjoint, last(&sums))?);
        let left = e.swap_last(left)?;
        return e.matmul(left, right);
    }
    let left = e.swap_last(a)?;
    let part = e.matmul(left, adjoint)?;
    summed(e, part, b)
}

/// Several dimensions as one, where its extent is known now or there is only one.
fn flat(dims: &[Dim]) -> Option<Dim> {
    match dims {
        [one] => Some(one.clone()),
        _ => dims.iter().map(Dim::as_const).try_fold(1, |n, dim| Some(n * dim?)).map(Dim::Const),
    }
}

/// Summed over leading dimensions that were broadcast.
fn summed(e: &mut Emit<'_>, part: Node, to: Node) -> Made {
    let (from, to) = (e.shape(part), e.shape(to));
    // The matrices themselves agree: they must not look broadcast where they have extent 1.
    let mut target = to.clone();
    let (n, m) = (from.len(), target.len());
    target[m - 2..].clone_from_slice(&from[n - 2..]);
    e.sum_to(part, &from, &target)
}
