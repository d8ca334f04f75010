//! Functions of one and two operands, choices, casts.

use super::Done;
use crate::autodiff::Error;
use crate::autodiff::emit::{Emit, Made};
use crate::autodiff::reverse::{Call, Reverse};
use quearn_stage::graph::{BinaryOp, CompareOp, Node, Op, UnaryOp};
use std::f64::consts::PI;

/// Gives input `i` a part that broadcasts to the result.
fn give(r: &mut Reverse<'_, '_>, call: &Call, i: usize, part: Node) -> Done {
    let (from, to) = (r.e.shape(call.node), r.e.shape(call.inputs[i]));
    let part = r.e.sum_to(part, &from, &to)?;
    r.give(call.inputs[i], part)
}

pub(super) fn unary(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Unary(op) = call.op else { return Ok(()) };
    let (x, y, adjoint) = (call.inputs[0], call.node, call.tensor());
    match slope(r.e, op, x, y, adjoint)? {
        Some(part) => r.give(x, part),
        None => Ok(()),
    }
}

/// The adjoint of `x` where `y` is a function of it; nothing where that is flat.
fn slope(e: &mut Emit<'_>, op: UnaryOp, x: Node, y: Node, adjoint: Node) -> Result<Option<Node>, Error> {
    use UnaryOp::*;
    Ok(Some(match op {
        Neg => e.neg(adjoint)?,
        Exp => e.mul(adjoint, y)?,
        Log => e.div(adjoint, x)?,
        Sqrt => {
            let half = e.times(adjoint, 0.5)?;
            e.div(half, y)?
        }
        Tanh => {
            let (square, one) = (e.mul(y, y)?, e.number_like(y, 1.0)?);
            let slope = e.sub(one, square)?;
            e.mul(adjoint, slope)?
        }
        Sigmoid => {
            let one = e.number_like(y, 1.0)?;
            let rest = e.sub(one, y)?;
            let slope = e.mul(y, rest)?;
            e.mul(adjoint, slope)?
        }
        Relu => {
            // The result is above 0 where `x` is, and is kept anyway.
            let above = sign(e, CompareOp::Gt, y)?;
            e.only(above, adjoint)?
        }
        Abs => {
            let (above, below) = (sign(e, CompareOp::Gt, x)?, sign(e, CompareOp::Lt, x)?);
            let down = e.neg(adjoint)?;
            let down = e.only(below, down)?;
            e.select(above, adjoint, down)?
        }
        Erf => {
            let square = e.mul(x, x)?;
            let away = e.neg(square)?;
            let power = e.unary(Exp, away)?;
            let slope = e.times(power, 2.0 / PI.sqrt())?;
            e.mul(adjoint, slope)?
        }
        Sin => {
            let cos = e.unary(Cos, x)?;
            e.mul(adjoint, cos)?
        }
        Cos => {
            let sin = e.unary(Sin, x)?;
            let away = e.mul(adjoint, sin)?;
            e.neg(away)?
        }
        Atan => {
            let (square, one) = (e.mul(x, x)?, e.number_like(x, 1.0)?);
            let more = e.binary(BinaryOp::Add, square, one)?;
            e.div(adjoint, more)?
        }
        Floor | Ceil | Round | Detach | Not | IsNull | Year | Month | Day => return Ok(None),
    }))
}

fn sign(e: &mut Emit<'_>, op: CompareOp, x: Node) -> Made {
    let zero = e.number_like(x, 0.0)?;
    e.compare(op, x, zero)
}

pub(super) fn binary(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Binary(op) = call.op else { return Ok(()) };
    for i in 0..2 {
        if r.wants(call.inputs[i])
            && let Some(part) = operand(r.e, op, call, i)?
        {
            give(r, call, i, part)?;
        }
    }
    Ok(())
}

/// The share of operand `i`.
fn operand(e: &mut Emit<'_>, op: BinaryOp, call: &Call, i: usize) -> Result<Option<Node>, Error> {
    let (a, b, y, adjoint) = (call.inputs[0], call.inputs[1], call.node, call.tensor());
    Ok(Some(match (op, i) {
        (BinaryOp::Add, _) | (BinaryOp::Sub | BinaryOp::Rem, 0) => adjoint,
        (BinaryOp::Sub, _) => e.neg(adjoint)?,
        (BinaryOp::Mul, 0) => e.mul(adjoint, b)?,
        (BinaryOp::Mul, _) => e.mul(adjoint, a)?,
        (BinaryOp::Div, 0) => e.div(adjoint, b)?,
        (BinaryOp::Div, _) => {
            let share = e.div(y, b)?;
            let away = e.mul(adjoint, share)?;
            e.neg(away)?
        }
        // a - b trunc(a / b): between its jumps the factor of b is a whole number.
        (BinaryOp::Rem, _) => {
            let times = e.sub(y, a)?;
            let times = e.div(times, b)?;
            let times = e.unary(UnaryOp::Round, times)?;
            e.mul(adjoint, times)?
        }
        (BinaryOp::Min, 0) | (BinaryOp::Max, 1) => nearer(e, adjoint, a, b)?,
        (BinaryOp::Min | BinaryOp::Max, _) => nearer(e, adjoint, b, a)?,
        (BinaryOp::Pow, 0) => base(e, a, b, adjoint)?,
        (BinaryOp::Pow, _) => exponent(e, a, y, adjoint)?,
        (BinaryOp::Coalesce, 0) => {
            let missing = e.unary(UnaryOp::IsNull, a)?;
            e.unless(missing, adjoint)?
        }
        (BinaryOp::Coalesce, _) => {
            let missing = e.unary(UnaryOp::IsNull, a)?;
            e.only(missing, adjoint)?
        }
        (BinaryOp::And | BinaryOp::Or, _) => return Ok(None),
    }))
}

/// The share of the smaller of two, which is half where they are equal.
fn nearer(e: &mut Emit<'_>, adjoint: Node, less: Node, more: Node) -> Made {
    let (below, equal) = (e.compare(CompareOp::Lt, less, more)?, e.compare(CompareOp::Eq, less, more)?);
    let half = e.times(adjoint, 0.5)?;
    let half = e.only(equal, half)?;
    e.select(below, adjoint, half)
}

/// b a^(b - 1)
fn base(e: &mut Emit<'_>, a: Node, b: Node, adjoint: Node) -> Made {
    let one = e.number_like(b, 1.0)?;
    let less = e.sub(b, one)?;
    let power = match e.value(less) {
        Some(1.0) => a,
        Some(0.0) => e.number_like(a, 1.0)?,
        _ => e.binary(BinaryOp::Pow, a, less)?,
    };
    let slope = e.mul(b, power)?;
    let slope = e.mul(adjoint, slope)?;
    // A power of zero is one whatever the base is.
    let zero = e.number_like(b, 0.0)?;
    match e.value(b) {
        Some(value) if value != 0.0 => Ok(slope),
        _ => {
            let flat = e.compare(CompareOp::Eq, b, zero)?;
            e.unless(flat, slope)
        }
    }
}

/// a^b log a, which is zero where the power is.
fn exponent(e: &mut Emit<'_>, a: Node, y: Node, adjoint: Node) -> Made {
    let log = e.unary(UnaryOp::Log, a)?;
    let slope = e.mul(y, log)?;
    let nothing = sign(e, CompareOp::Eq, y)?;
    let slope = e.unless(nothing, slope)?;
    e.mul(adjoint, slope)
}

/// Choices, whose condition has no derivative.
pub(super) fn select(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let (cond, adjoint) = (call.inputs[0], call.tensor());
    if r.wants(call.inputs[1]) {
        let part = r.e.only(cond, adjoint)?;
        give(r, call, 1, part)?;
    }
    if r.wants(call.inputs[2]) {
        let part = r.e.unless(cond, adjoint)?;
        give(r, call, 2, part)?;
    }
    Ok(())
}

pub(super) fn cast(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    r.give(call.inputs[0], call.tensor())
}
