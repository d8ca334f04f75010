//! Batch normalisation with given means and variances.

use super::Done;
use crate::autodiff::reverse::{Call, Reverse};
use quearn_stage::graph::{BinaryOp, Dim, Op, UnaryOp};

/// `(x - mean) / sqrt(var + eps) * scale + bias`, each a function of two operands.
pub(super) fn batch_norm(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::BatchNorm { eps } = call.op else { return Ok(()) };
    let shape = r.e.shape(call.node);
    let channels: Vec<Dim> = std::iter::once(shape[1].clone()).chain(vec![Dim::Const(1); shape.len() - 2]).collect();
    let [x, scale, bias, mean, var] = call.inputs[..] else { return Ok(()) };
    let mut column = |node| r.e.reshape(node, channels.clone());
    let (wide_scale, wide_mean, wide_var) = (column(scale)?, column(mean)?, column(var)?);
    let adjoint = call.tensor();
    let eps = r.e.number_like(var, f64::from_bits(eps))?;
    let shifted = r.e.binary(BinaryOp::Add, wide_var, eps)?;
    let deviation = r.e.unary(UnaryOp::Sqrt, shifted)?;
    let factor = r.e.div(wide_scale, deviation)?;
    let by_x = r.e.mul(adjoint, factor)?;
    r.give(x, by_x)?;
    let away = r.e.sub(x, wide_mean)?;
    let normal = r.e.div(away, deviation)?;
    let by_scale = r.e.mul(adjoint, normal)?;
    let by_mean = r.e.neg(by_x)?;
    let by_var = r.e.mul(by_x, away)?;
    let by_var = r.e.times(by_var, -0.5)?;
    let by_var = r.e.div(by_var, shifted)?;
    for (to, part) in [(scale, by_scale), (bias, adjoint), (mean, by_mean), (var, by_var)] {
        if r.wants(to) {
            let sum = r.e.sum_to(part, &shape, &channels)?;
            let sum = r.e.aligned(sum, channels.len())?;
            let first = r.e.shape(sum)[..1].to_vec();
            let sum = r.e.reshape(sum, first)?;
            r.give(to, sum)?;
        }
    }
    Ok(())
}
