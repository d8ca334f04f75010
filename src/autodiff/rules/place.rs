//! The way back of a slice: elements among zeros.

use crate::autodiff::emit::{Emit, Made};
use quearn_stage::graph::{Dim, Node};

/// Where the elements of an axis go on an axis of `extent`: from `start` in steps of `step`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) start: u64,
    pub(super) step: i64,
    pub(super) extent: u64,
}

/// The elements along an axis at other places of a longer one, with zeros elsewhere. All places lie inside.
pub(super) fn spread(e: &mut Emit<'_>, x: Node, axis: usize, to: Places) -> Made {
    let count = e.shape(x)[axis].as_const().unwrap_or(1);
    let step = to.step.unsigned_abs();
    let (ordered, first) = match to.step < 0 {
        true => (e.slice(x, axis, count - 1, -1, count)?, to.start - step * (count - 1)),
        false => (x, to.start),
    };
    let apart = dilate(e, ordered, axis, step)?;
    let reach = (count - 1) * step + 1;
    pad(e, apart, axis, [first, to.extent - first - reach])
}

/// `step - 1` zeros between neighbours along an axis.
pub(super) fn dilate(e: &mut Emit<'_>, x: Node, axis: usize, step: u64) -> Made {
    let shape = e.shape(x);
    let count = shape[axis].as_const().unwrap_or(1);
    if step == 1 || count == 1 {
        return Ok(x);
    }
    let mut apart = shape.clone();
    apart.insert(axis + 1, Dim::Const(1));
    let mut gaps = apart.clone();
    gaps[axis + 1] = Dim::Const(step - 1);
    let (apart, gaps) = (e.reshape(x, apart)?, e.zeros(e.scalar(x), gaps)?);
    let both = e.concat(&[apart, gaps], axis + 1)?;
    let mut joined = shape;
    joined[axis] = Dim::Const(count * step);
    let joined = e.reshape(both, joined)?;
    e.slice(joined, axis, 0, 1, (count - 1) * step + 1)
}

/// Zeros before and after the elements along an axis.
pub(super) fn pad(e: &mut Emit<'_>, x: Node, axis: usize, [before, after]: [u64; 2]) -> Made {
    let mut parts = vec![];
    for (count, is_before) in [(before, true), (after, false)] {
        if is_before {
            parts.push(x);
        }
        if count > 0 {
            let mut shape = e.shape(x);
            shape[axis] = Dim::Const(count);
            let zeros = e.zeros(e.scalar(x), shape)?;
            parts.insert(if is_before { 0 } else { parts.len() }, zeros);
        }
    }
    e.concat(&parts, axis)
}
