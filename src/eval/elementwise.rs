//! Elementwise operations on tensors: broadcasting, and one datum after the other.

use super::scalar::Outcome;
use super::text::{Pattern, clean, hash, substring};
use super::value::{Datum, EvalTensor};
use super::{cast, scalar};
use quearn_stage::graph::{Elem, Op, Scalar, philox};

/// The value of a scalar operation on its operands.
pub fn evaluate(op: &Op, operands: &[&EvalTensor], to: Elem) -> EvalTensor {
    let from = |i: usize| -> Scalar { operands[i].elem().scalar };
    match op {
        Op::Const(literal) => EvalTensor::scalar(to, Datum::of(literal)),
        Op::Unary(op) => map(operands, to, |d| scalar::unary(*op, &d[0], from(0))),
        Op::Binary(op) => map(operands, to, |d| scalar::binary(*op, (&d[0], from(0)), (&d[1], from(1)), to.scalar)),
        Op::Compare(op) => map(operands, to, |d| scalar::compare(*op, (&d[0], from(0)), (&d[1], from(1)))),
        Op::Select => map(operands, to, |d| both_arms(d).and_then(|()| choose(d, from(1), from(2), to.scalar))),
        Op::If => map(operands, to, |d| choose(d, from(1), from(2), to.scalar)),
        Op::Cast(scalar) => map(operands, to, |d| settled(&d[0]).and_then(|()| cast::cast(&d[0], from(0), *scalar))),
        Op::Like(pattern) => {
            let pattern = Pattern::new(pattern);
            map(operands, to, |d| on_text(&d[0], |text| Datum::Bool(pattern.matches(text))))
        }
        Op::Substring { start, len } => {
            map(operands, to, |d| on_text(&d[0], |text| Datum::str(substring(text, *start, *len))))
        }
        Op::Clean(how) => map(operands, to, |d| on_text(&d[0], |text| Datum::str(clean(text, *how)))),
        Op::Hash => map(operands, to, |d| on_text(&d[0], |text| Datum::Int(hash(text).into()))),
        Op::Random(scalar) => map(operands, to, |d| random(d, *scalar)),
        other => unreachable!("{} is not elementwise", other.name()),
    }
}

/// Not a failure.
fn settled(datum: &Datum) -> Result<(), quearn_stage::low::FailKind> {
    match datum {
        Datum::Fail(kind) => Err(*kind),
        _ => Ok(()),
    }
}

/// `Select` evaluates both arms, so both must be there.
fn both_arms(data: &[Datum]) -> Result<(), quearn_stage::low::FailKind> {
    data.iter().try_for_each(settled)
}

fn choose(data: &[Datum], a: Scalar, b: Scalar, to: Scalar) -> Outcome {
    settled(&data[0])?;
    let (chosen, from) = if data[0] == Datum::Bool(true) { (&data[1], a) } else { (&data[2], b) };
    settled(chosen)?;
    cast::promote(chosen, from, to)
}

/// Random bits as a value of that type.
fn random(data: &[Datum], to: Scalar) -> Outcome {
    data.iter().try_for_each(settled)?;
    let number = |datum: &Datum| if let Datum::Int(x) = datum { *x as i64 } else { 0 };
    let block = philox::block(number(&data[0]), number(&data[1]), number(&data[2]));
    Ok(match to {
        Scalar::F32 => Datum::Float(philox::unit_f32(block).into()),
        Scalar::F64 => Datum::Float(philox::unit_f64(block)),
        _ => Datum::Int(philox::integer(block).into()),
    })
}

fn on_text(datum: &Datum, f: impl Fn(&str) -> Datum) -> Outcome {
    settled(datum)?;
    Ok(match datum {
        Datum::Str(text) => f(text),
        _ => Datum::Null,
    })
}

/// `f` of the operands' elements, broadcast to one shape.
fn map(operands: &[&EvalTensor], to: Elem, f: impl Fn(&[Datum]) -> Outcome) -> EvalTensor {
    let shape = broadcast_shape(operands.iter().map(|t| t.shape()));
    let strides: Vec<Vec<usize>> = operands.iter().map(|t| broadcast_strides(t.shape(), &shape)).collect();
    let mut result = EvalTensor::build(to, &shape);
    let mut data = vec![Datum::Null; operands.len()];
    for_each_index(&shape, |index| {
        for ((datum, operand), strides) in data.iter_mut().zip(operands).zip(&strides) {
            *datum = operand.get(dot(index, strides));
        }
        result.push(f(&data).unwrap_or_else(Datum::Fail));
    });
    result
}

/// The common shape, trailing dimensions aligned; an extent of 1 takes any other.
pub fn broadcast_shape<'a>(shapes: impl Iterator<Item = &'a [usize]>) -> Vec<usize> {
    let mut result: Vec<usize> = Vec::new();
    for shape in shapes {
        let missing = shape.len().saturating_sub(result.len());
        result.splice(0..0, std::iter::repeat_n(1, missing));
        let skip = result.len() - shape.len();
        for (have, &new) in result[skip..].iter_mut().zip(shape) {
            if *have == 1 {
                *have = new;
            }
        }
    }
    result
}

/// Steps in `from`'s elements for a step along each dimension of `to`.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; to.len()];
    let skip = to.len() - from.len();
    let mut step = 1;
    for (i, &extent) in from.iter().enumerate().rev() {
        strides[skip + i] = if extent == 1 { 0 } else { step };
        step *= extent;
    }
    strides
}

/// Position of an index under strides.
pub fn dot(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// Every index of a shape in row-major order.
pub fn for_each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product::<usize>() {
        f(&index);
        for (i, extent) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *extent {
                break;
            }
            *i = 0;
        }
    }
}
