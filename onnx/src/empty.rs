//! Tensors without elements. Programs have none; what follows from their shapes is known at import.

use crate::emit::Fallible;
use crate::fold::bounds;
use crate::tensor::Number;
use crate::value::{Call, Known, Value};
use quearn_stage::graph::{Dim, Scalar};
use std::rc::Rc;

/// Operators whose result has the shape and type of their input.
const ALIKE: &[&str] = &["Abs", "Exp", "Log", "Neg", "Relu", "Sigmoid", "Softmax", "Sqrt", "Tanh", "Trilu"];

/// The results of an operator that takes or gives a tensor without elements; `None` if it does neither, or is one that
/// needs elements.
pub fn run(call: &mut Call) -> Fallible<Option<Vec<Rc<Value>>>> {
    let op = call.proto.op_type();
    let made = match op {
        "Split" => return split(call),
        "Slice" => slice(call)?,
        _ => {
            let Some(x) = call.value(0).ok().and_then(|x| x.outside()).filter(|x| x.shape.contains(&0)) else {
                return Ok(None);
            };
            match op {
                "Reshape" if call.int("allowzero", 0) != 0 => Some(reshaped(call, &x)?),
                _ if op.starts_with("Reduce") => reduced(call, &x)?,
                _ if ALIKE.contains(&op) => Some(x),
                _ => None,
            }
        }
    };
    let name = call.proto.output.first().map_or("", String::as_str);
    Ok(made.map(|made| vec![Value::known(name, made, None)]))
}

/// A part of a tensor along an axis, which may have no elements.
pub fn part(call: &mut Call, axis: usize, start: u64, size: u64) -> Fallible<Rc<Value>> {
    let shape = call.value(0)?.shape(call.emit).unwrap_or_default();
    let extent = |(i, dim): (usize, &Dim)| if i == axis { Some(size) } else { dim.as_const() };
    let extents = shape.iter().enumerate().map(extent).collect::<Option<Vec<u64>>>();
    match (extents.filter(|e| e.contains(&0)), call.value(0)?.scalar(call.emit)) {
        (Some(extents), Some(scalar)) => Ok(Value::known("", Known::new(scalar, extents, vec![]), None)),
        _ => {
            let x = call.x(0)?;
            Ok(Value::node("", call.emit.slice(x, axis, start, 1, size)?, None))
        }
    }
}

fn split(call: &mut Call) -> Fallible<Option<Vec<Rc<Value>>>> {
    let Some(sizes) = call.ints_from("split", 1)?.filter(|sizes| sizes.contains(&0)) else { return Ok(None) };
    let rank = call.value(0)?.shape(call.emit).map_or(0, |shape| shape.len());
    let (axis, mut start, mut parts) = (call.axis(call.int("axis", 0), rank)?, 0, vec![]);
    for size in sizes {
        let size = u64::try_from(size).map_err(|_| format!("a part of {size}"))?;
        let name = call.proto.output.get(parts.len()).map_or("", String::as_str);
        parts.push(part(call, axis, start, size)?.named(name));
        start += size;
    }
    Ok(Some(parts))
}

/// Of a slice that leaves nothing, or has nothing to choose from.
fn slice(call: &Call) -> Fallible<Option<Known>> {
    let value = call.value(0)?;
    let (Some(scalar), Some(shape)) = (value.scalar(call.emit), value.shape(call.emit)) else { return Ok(None) };
    let (Some(starts), Some(ends)) = (call.ints_from("starts", 1)?, call.ints_from("ends", 2)?) else {
        return Ok(None);
    };
    let axes = call.ints_from("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = if call.has(4) { call.known_ints(4)? } else { vec![1; starts.len()] };
    let Some(mut extents) = shape.iter().map(Dim::as_const).collect::<Option<Vec<u64>>>() else { return Ok(None) };
    for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let axis = call.axis(axis, extents.len())?;
        extents[axis] = if extents[axis] == 0 { 0 } else { bounds(extents[axis], start, end, step)?.2 };
    }
    Ok(extents.contains(&0).then(|| Known::new(scalar, extents, vec![])))
}

fn reshaped(call: &Call, x: &Known) -> Fallible<Known> {
    let shape = call.known_ints(1)?.into_iter().map(u64::try_from).collect::<Result<Vec<u64>, _>>();
    let shape = shape.ok().filter(|shape| shape.contains(&0)).ok_or("there are no elements to fill its shape")?;
    Ok(Known::new(x.scalar, shape, vec![]))
}

/// A reduction of nothing gives what changes nothing, for each line that there is.
fn reduced(call: &Call, x: &Known) -> Fallible<Option<Known>> {
    let listed = call.ints_from("axes", 1)?.unwrap_or_default();
    if listed.is_empty() && call.int("noop_with_empty_axes", 0) != 0 {
        return Ok(None);
    }
    let rank = x.shape.len();
    let axes = if listed.is_empty() { (0..rank).collect() } else { call.axes(&listed, rank)? };
    let (least, most) = match x.scalar {
        scalar if scalar.is_float() => (Number::Float(f64::NEG_INFINITY), Number::Float(f64::INFINITY)),
        Scalar::Bool => (Number::Int(0), Number::Int(1)),
        Scalar::U8 => (Number::Int(0), Number::Int(u8::MAX.into())),
        Scalar::I8 => (Number::Int(i8::MIN.into()), Number::Int(i8::MAX.into())),
        Scalar::I16 => (Number::Int(i16::MIN.into()), Number::Int(i16::MAX.into())),
        Scalar::I32 => (Number::Int(i32::MIN.into()), Number::Int(i32::MAX.into())),
        _ => (Number::Int(i64::MIN), Number::Int(i64::MAX)),
    };
    let value = match call.proto.op_type() {
        "ReduceL1" | "ReduceL2" | "ReduceSum" | "ReduceSumSquare" => Number::Int(0),
        "ReduceProd" => Number::Int(1),
        "ReduceMax" | "ReduceLogSum" | "ReduceLogSumExp" => least,
        "ReduceMin" => most,
        _ => return Ok(None),
    };
    let keep = call.int("keepdims", 1) != 0;
    let extent = |(i, &n): (usize, &u64)| match axes.contains(&i) {
        true => keep.then_some(1),
        false => Some(n),
    };
    let shape: Vec<u64> = x.shape.iter().enumerate().filter_map(extent).collect();
    let count = shape.iter().try_fold(1u64, |all, &n| all.checked_mul(n)).filter(|n| *n <= 1 << 16);
    let count = count.ok_or("its result is too large for a constant")?;
    Ok(Some(Known::new(x.scalar, shape, vec![value; count as usize])))
}
