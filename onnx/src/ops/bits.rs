//! Operators on the bits of integers, by arithmetic: results are those of two's complement.

use super::Write;
use crate::emit::{Emit, Fallible};
use crate::tensor::Number;
use crate::value::Call;
use quearn_stage::graph::{BinaryOp, CompareOp, Node, Op, Scalar};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("BitShift", shift),
    ("BitwiseAnd", |c| pair(c, |_, _, _, both| Ok(both))),
    ("BitwiseNot", |c| {
        let x = c.x(0)?;
        let top = c.emit.like(x, if c.emit.scalar(x) == Scalar::U8 { 255.0 } else { -1.0 })?;
        Ok(vec![c.emit.sub(top, x)?])
    }),
    ("BitwiseOr", |c| {
        pair(c, |e, a, b, both| {
            let sum = e.add(a, b)?;
            e.sub(sum, both)
        })
    }),
    ("BitwiseXor", |c| {
        pair(c, |e, a, b, both| {
            let (sum, twice) = (e.add(a, b)?, e.times(both, 2.0)?);
            e.sub(sum, twice)
        })
    }),
];

fn width(e: &Emit, x: Node) -> Fallible<u32> {
    match e.scalar(x) {
        Scalar::I8 | Scalar::U8 => Ok(8),
        Scalar::I16 => Ok(16),
        Scalar::I32 => Ok(32),
        Scalar::I64 => Ok(64),
        other => Err(format!("bits of {other} are not supported")),
    }
}

/// From a number of 64 bits to what its lowest bits mean.
fn narrow(e: &mut Emit, x: Node, bits: u32, to: Scalar) -> Fallible<Node> {
    let range = 2f64.powi(bits as i32);
    let modulus = e.like(x, range)?;
    let rest = low(e, x, modulus)?;
    let signed = if to == Scalar::U8 {
        rest
    } else {
        let (negative, wrapped) = (e.test(CompareOp::Ge, rest, range / 2.0)?, e.plus(rest, -range)?);
        e.select(negative, wrapped, rest)?
    };
    e.cast(signed, to)
}

/// The remainder that is never negative.
fn low(e: &mut Emit, x: Node, modulus: Node) -> Fallible<Node> {
    let rest = e.binary(BinaryOp::Rem, x, modulus)?;
    let (below, more) = (e.test(CompareOp::Lt, rest, 0.0)?, e.add(rest, modulus)?);
    e.select(below, more, rest)
}

fn shift(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, y, left) = (c.x(0)?, c.x(1)?, c.text("direction", "") == "LEFT");
    let e = &mut *c.emit;
    let (bits, scalar) = (width(e, x)?, e.scalar(x));
    let (x, y) = (e.cast(x, Scalar::I64)?, e.cast(y, Scalar::I64)?);
    // 2^63 is no number of 64 bits; a shift to the right by 63 leaves the sign, as one by more does.
    let places = bits.min(63);
    let (above, below) = (e.test(CompareOp::Ge, y, 0.0)?, e.test(CompareOp::Lt, y, places.into())?);
    let inside = e.binary(BinaryOp::And, above, below)?;
    let zero = e.like(y, 0.0)?;
    let by = e.select(inside, y, zero)?;
    let powers = e.ints(&[places.into()], (0..places).map(|i| 1u64 << i))?;
    let power = e.op(Op::Gather, &[powers, by])?;
    if left {
        if bits == 64 {
            return Err("a shift of 64-bit integers to the left is not supported".into());
        }
        let moved = e.mul(x, power)?;
        let moved = e.select(inside, moved, zero)?;
        return Ok(vec![narrow(e, moved, bits, scalar)?]);
    }
    let rest = low(e, x, power)?;
    let even = e.sub(x, rest)?;
    let moved = e.div(even, power)?;
    let (negative, ones) = (e.test(CompareOp::Lt, x, 0.0)?, e.like(x, -1.0)?);
    let sign = e.select(negative, ones, zero)?;
    let moved = e.select(inside, moved, sign)?;
    Ok(vec![e.cast(moved, scalar)?])
}

/// What `f` makes of two numbers and the bits that both have.
fn pair(c: &mut Call, f: fn(&mut Emit, Node, Node, Node) -> Fallible<Node>) -> Fallible<Vec<Node>> {
    let (a, b) = (c.x(0)?, c.x(1)?);
    let e = &mut *c.emit;
    let (bits, scalar) = (width(e, a)?, e.scalar(a));
    if bits == 64 {
        return Err("bits of two 64-bit integers are not supported".into());
    }
    let modulus = e.number(Scalar::I64, &Number::Int(1 << bits))?;
    let (a, b) = (e.cast(a, Scalar::I64)?, e.cast(b, Scalar::I64)?);
    let (a, b) = (low(e, a, modulus)?, low(e, b, modulus)?);
    let mut both = None;
    let (mut rest, mut other) = (a, b);
    let two = e.like(a, 2.0)?;
    for bit in 0..bits {
        let (one, another) = (e.binary(BinaryOp::Rem, rest, two)?, e.binary(BinaryOp::Rem, other, two)?);
        let shared = e.mul(one, another)?;
        let shared = e.times(shared, 2f64.powi(bit as i32))?;
        both = Some(match both {
            Some(both) => e.add(both, shared)?,
            None => shared,
        });
        (rest, other) = (e.div(rest, two)?, e.div(other, two)?);
    }
    let both = both.ok_or("a number without bits")?;
    let made = f(e, a, b, both)?;
    Ok(vec![narrow(e, made, bits, scalar)?])
}
