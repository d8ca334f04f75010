//! Elements at places that are known later.

use super::Done;
use crate::autodiff::reverse::{Call, Reverse};
use quearn_stage::graph::Op;

/// What was taken from one place several times is added up there.
pub(super) fn gather(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let (data, index) = (call.inputs[0], call.inputs[1]);
    let adjoint = r.e.full(call.tensor(), call.node)?;
    let zero = r.e.number_like(adjoint, 0.0)?;
    let zeros = r.e.full(zero, data)?;
    let part = r.e.node(Op::ScatterAdd, &[zeros, index, adjoint])?;
    r.give(data, part)
}

pub(super) fn scatter_add(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let (data, index, values) = (call.inputs[0], call.inputs[1], call.inputs[2]);
    r.give(data, call.tensor())?;
    if r.wants(values) {
        let adjoint = r.e.full(call.tensor(), call.node)?;
        let part = r.e.node(Op::Gather, &[adjoint, index])?;
        r.give(values, part)?;
    }
    Ok(())
}
