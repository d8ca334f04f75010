//! Elements at places that are known later.

use super::{Done, place};
use crate::autodiff::emit::Emit;
use crate::autodiff::reverse::{Call, Reverse};
use quearn_stage::graph::{Dim, Node, Op};

/// What was taken from one place several times is added up there.
pub(super) fn gather(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let (data, index) = (call.inputs[0], call.inputs[1]);
    let adjoint = r.e.full(call.tensor(), call.node)?;
    if let Some([before, after]) = around(r.e, data, index) {
        let row = [vec![Dim::Const(1)], r.e.shape(adjoint)].concat();
        let row = r.e.reshape(adjoint, row)?;
        let part = place::pad(r.e, row, 0, [before, after])?;
        return r.give(data, part);
    }
    let zero = r.e.number_like(adjoint, 0.0)?;
    let zeros = r.e.full(zero, data)?;
    let part = r.e.node(Op::ScatterAdd, &[zeros, index, adjoint])?;
    r.give(data, part)
}

/// The rows before and after the one that is taken, if it is known now.
fn around(e: &Emit<'_>, data: Node, index: Node) -> Option<[u64; 2]> {
    let Op::Const(literal) = e.graph.op(index) else { return None };
    let row = literal.as_int().and_then(|row| u64::try_from(row).ok())?;
    let rows = e.shape(data).first()?.as_const()?;
    (row < rows).then(|| [row, rows - row - 1])
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
