//! Operators that put elements into other places.

use super::{Done, place};
use crate::autodiff::reverse::{Call, Reverse};
use quearn_stage::graph::{Dim, Node, Op};

/// Is the adjoint everywhere the same along an axis of its node?
fn is_flat(r: &Reverse<'_, '_>, adjoint: Node, rank: usize, axis: usize) -> bool {
    let shape = r.e.shape(adjoint);
    let lacking = rank - shape.len();
    axis.checked_sub(lacking).is_none_or(|axis| shape[axis] == Dim::Const(1))
}

pub(super) fn broadcast(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let (from, to) = (r.e.shape(call.node), r.e.shape(call.inputs[0]));
    let part = r.e.sum_to(call.tensor(), &from, &to)?;
    r.give(call.inputs[0], part)
}

pub(super) fn reshape(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let adjoint = call.tensor();
    if r.e.shape(adjoint).is_empty() {
        return r.give(call.inputs[0], adjoint);
    }
    let full = r.e.full(adjoint, call.node)?;
    let to = r.e.shape(call.inputs[0]);
    let part = r.e.reshape(full, to)?;
    r.give(call.inputs[0], part)
}

pub(super) fn transpose(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Transpose(perm) = &call.op else { return Ok(()) };
    let adjoint = call.tensor();
    if r.e.shape(adjoint).is_empty() {
        return r.give(call.inputs[0], adjoint);
    }
    let aligned = r.e.aligned(adjoint, perm.len())?;
    let mut back = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    let part = r.e.transpose(aligned, back)?;
    r.give(call.inputs[0], part)
}

pub(super) fn slice(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Slice { axis, start, step, count } = call.op else { return Ok(()) };
    let shape = r.e.shape(call.inputs[0]);
    let extent = shape[axis].as_const().unwrap_or(count);
    // All other axes may stay flat.
    let mut wanted = r.e.shape(call.tensor());
    let lacking = shape.len() - wanted.len();
    if let Some(missing) = lacking.checked_sub(axis) {
        wanted.splice(0..0, vec![Dim::Const(1); missing]);
    }
    let at = wanted.len() - (shape.len() - axis);
    wanted[at] = Dim::Const(count);
    let part = r.e.broadcast(call.tensor(), wanted)?;
    let part = place::spread(r.e, part, at, place::Places { start, step, extent })?;
    r.give(call.inputs[0], part)
}

pub(super) fn concat(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Concat { axis } = call.op else { return Ok(()) };
    let (adjoint, rank) = (call.tensor(), r.e.shape(call.node).len());
    let flat = is_flat(r, adjoint, rank, axis);
    let at = axis.saturating_sub(rank - r.e.shape(adjoint).len());
    let mut start = 0;
    for &input in &call.inputs {
        let count = r.e.shape(input)[axis].as_const().unwrap_or(1);
        if r.wants(input) {
            let part = if flat { adjoint } else { r.e.slice(adjoint, at, start, 1, count)? };
            r.give(input, part)?;
        }
        start += count;
    }
    Ok(())
}

pub(super) fn stack(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let adjoint = call.tensor();
    let shape = r.e.shape(adjoint);
    let Some(last) = shape.len().checked_sub(1) else {
        return call.inputs.iter().try_for_each(|&input| r.give(input, adjoint));
    };
    for (i, &input) in call.inputs.iter().enumerate() {
        if !r.wants(input) {
            continue;
        }
        let at = if shape[last] == Dim::Const(1) { 0 } else { i as u64 };
        let part = r.e.slice(adjoint, last, at, 1, 1)?;
        let part = r.e.reshape(part, shape[..last].to_vec())?;
        r.give(input, part)?;
    }
    Ok(())
}

pub(super) fn single(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    r.give(call.inputs[0], call.tensor())
}
