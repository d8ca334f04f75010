//! Products of quantised tensors as the graph's exact products of bytes, where they fit those.

use super::conv::{Window, convolve};
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::infer::byte_products_fit;
use quearn_stage::graph::{Dim, Node, Op, ReduceOp, Scalar};

/// The zero points, if there are any and they are not known to be zeros.
pub(super) fn zero_points(c: &mut Call, input: usize) -> Fallible<Option<Node>> {
    let known = c.inputs.get(input).and_then(|value| value.as_ref()?.elements());
    let zeros = known.is_some_and(|k| k.given.is_empty() && k.items.iter().all(|n| n.int() == Some(0)));
    if zeros { Ok(None) } else { c.optional(input) }
}

/// A quantised operand.
#[derive(Clone, Copy)]
pub(super) struct Quantised {
    /// Its bytes.
    pub(super) bytes: Node,
    /// Its zero points.
    pub(super) zero: Option<Node>,
}

/// `(a - zero) @ b` in `i32`; none where the operands are of other types or shapes.
pub(super) fn byte_matmul(e: &mut Emit, a: Quantised, b: Quantised) -> Fallible<Option<Node>> {
    let shape = e.shape(b.bytes);
    if shape.len() != 2 || e.rank(a.bytes) < 2 || !fits(e, a, b, &shape[..1]) {
        return Ok(None);
    }
    let (bytes, zero) = unsigned(e, a)?;
    let sums = e.op(Op::MatMul, &[bytes, b.bytes])?;
    let Some(zero) = zero else { return Ok(Some(sums)) };
    let columns = e.op(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keep: false }, &[b.bytes])?;
    centred(e, sums, zero, columns).map(Some)
}

/// `conv(x - zero, w)` in `i32`; none where the operands are of other types, or zero points would be needed in the padding.
pub(super) fn byte_conv(e: &mut Emit, x: Quantised, w: Quantised, at: &Window, groups: u64) -> Fallible<Option<Node>> {
    let shape = e.shape(w.bytes);
    let padded = at.pads.iter().any(|pad| *pad != [0, 0]);
    let has_zero = x.zero.is_some() || e.scalar(x.bytes) == Scalar::I8;
    if shape.len() > 4 || padded && has_zero || !fits(e, x, w, &shape[1..]) {
        return Ok(None);
    }
    let (bytes, zero) = unsigned(e, x)?;
    let sums = convolve(e, bytes, w.bytes, None, at, groups)?;
    let Some(zero) = zero else { return Ok(Some(sums)) };
    let axes = (1..shape.len()).collect();
    let filters = e.op(Op::Reduce { op: ReduceOp::Sum, axes, keep: false }, &[w.bytes])?;
    let mut per_channel = vec![Dim::Const(1); shape.len()];
    per_channel[1] = shape[0].clone();
    let filters = e.reshape(filters, per_channel)?;
    centred(e, sums, zero, filters).map(Some)
}

fn fits(e: &Emit, a: Quantised, b: Quantised, summed: &[Dim]) -> bool {
    let one = |zero: Node| e.shape(zero).iter().all(|dim| *dim == Dim::Const(1));
    matches!(e.scalar(a.bytes), Scalar::U8 | Scalar::I8)
        && e.scalar(b.bytes) == Scalar::I8
        && b.zero.is_none()
        && a.zero.is_none_or(one)
        && byte_products_fit(summed)
}

/// The bytes as unsigned ones, and their zero point in `i32`.
fn unsigned(e: &mut Emit, x: Quantised) -> Fallible<(Node, Option<Node>)> {
    let zero = match x.zero {
        Some(zero) => {
            let zero = e.reshape(zero, vec![])?;
            Some(e.cast(zero, Scalar::I32)?)
        }
        None => None,
    };
    if e.scalar(x.bytes) == Scalar::U8 {
        return Ok((x.bytes, zero));
    }
    let wide = e.cast(x.bytes, Scalar::I32)?;
    let moved = e.plus(wide, 128.0)?;
    let zero = match zero {
        Some(zero) => e.plus(zero, 128.0)?,
        None => e.like(wide, 128.0)?,
    };
    Ok((e.cast(moved, Scalar::U8)?, Some(zero)))
}

/// `sums - zero * totals`: what the products are of `x - zero`.
fn centred(e: &mut Emit, sums: Node, zero: Node, totals: Node) -> Fallible<Node> {
    let totals = e.cast(totals, Scalar::I32)?;
    let offset = e.mul(totals, zero)?;
    e.sub(sums, offset)
}
