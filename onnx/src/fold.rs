//! Arithmetic on constants and shapes while a model is read: what exporters leave behind of the shapes of their models.

use crate::emit::Fallible;
use crate::tensor::{self, Number, Texts};
use crate::text;
use crate::value::{Call, Known};
use quearn_stage::graph::{Dim, Scalar};
use std::collections::BTreeSet;

/// Results with more elements are not computed at import.
const MOST: u64 = 1 << 16;

/// The results of a node, if it is one that is computed at import from values that are known.
pub fn fold(call: &Call) -> Fallible<Option<Vec<Known>>> {
    let one = |known: Option<Known>| known.map(|known| vec![known]);
    Ok(match call.proto.op_type() {
        "Constant" => Some(vec![constant(call)?]),
        "Shape" => one(shape(call)?),
        "Size" => one(size(call)),
        "Split" => split(call)?,
        name => match text::ROWS.iter().find(|(row, _)| *row == name) {
            Some((_, write)) => Some(write(call)?),
            None => one(folded(call)?),
        },
    })
}

fn folded(call: &Call) -> Fallible<Option<Known>> {
    let inputs: Option<Vec<Option<Known>>> =
        call.inputs.iter().map(|v| v.as_ref().map_or(Some(None), |v| v.elements().map(Some))).collect();
    let Some(inputs) = inputs.filter(|i| !i.is_empty()) else { return Ok(None) };
    let given = inputs.iter().flatten().flat_map(|k| k.given.iter().cloned()).collect::<BTreeSet<_>>();
    let known: Vec<&Known> = inputs.iter().flatten().collect();
    let result = match (call.proto.op_type(), &known[..]) {
        ("Identity", [x]) => Some((*x).clone()),
        ("Cast", [x]) => cast(call, x),
        ("Neg", [x]) => {
            map(x, |x| if let Number::Float(x) = x { Some(Number::Float(-x)) } else { Some(Number::Int(-x.int()?)) })
        }
        ("Not", [x]) => map(x, |x| Some(Number::Int(i64::from(x.int()? == 0)))),
        ("Floor", [x]) => map(x, |x| Some(Number::Float(x.float()?.floor()))),
        ("Ceil", [x]) => map(x, |x| Some(Number::Float(x.float()?.ceil()))),
        ("Sqrt", [x]) => map(x, |x| Some(Number::Float(x.float()?.sqrt()))),
        (
            "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Equal" | "Less" | "Greater" | "And" | "Or" | "Min" | "Max",
            [a, b],
        ) => zip(&[a, b], |n| two(call.proto.op_type(), n[0], n[1])).map(|(shape, items)| {
            let truth = matches!(call.proto.op_type(), "Equal" | "Less" | "Greater" | "And" | "Or");
            Known::new(if truth { Scalar::Bool } else { a.scalar }, shape, items)
        }),
        ("Where", [c, a, b]) => {
            let chosen = |n: &[&Number]| Some(if n[0].int()? != 0 { n[1].clone() } else { n[2].clone() });
            zip(&[c, a, b], chosen).map(|(shape, items)| Known::new(a.scalar, shape, items))
        }
        ("Gather", [x, at]) => gather(call, x, at)?,
        ("Slice", [x, rest @ ..]) if !rest.is_empty() => slice(call, x, &inputs[1..])?,
        ("Concat", parts) => concat(call, parts)?,
        ("Unsqueeze" | "Squeeze", [x, rest @ ..]) => squeeze(call, x, rest.first())?,
        ("Reshape", [x, to]) => reshape(x, to),
        ("ConstantOfShape", [shape]) => filled(call, shape)?,
        ("Expand", [x, to]) => {
            let shape =
                to.items.iter().map(|n| n.int().and_then(|n| u64::try_from(n).ok())).collect::<Option<Vec<_>>>();
            let target = shape.map(|shape| Known::new(Scalar::Bool, shape, vec![]));
            target.and_then(|t| zip(&[x, &t], |n| Some(n[0].clone()))).map(|(s, items)| Known::new(x.scalar, s, items))
        }
        ("Range", [start, limit, delta]) => range(start, limit, delta),
        ("ReduceProd", [x]) if !call.has_attribute("axes") => product(call, x),
        _ => None,
    };
    Ok(result.map(|known| Known { given, ..known }))
}

fn constant(call: &Call) -> Fallible<Known> {
    if let Some(proto) = call.tensor("value") {
        if let Some(texts) = tensor::read_texts(proto).map_err(|e| e.to_string())? {
            return Ok(Known::of_texts(texts));
        }
        let tensor = tensor::read(proto, call.folder).map_err(|e| e.to_string())?;
        return Ok(Known::new(tensor.scalar(), tensor.shape().to_vec(), tensor::numbers(&tensor)));
    }
    let (floats, ints) = (call.floats("value_floats"), call.ints("value_ints"));
    Ok(match (floats, ints) {
        (Some(x), _) => Known::new(Scalar::F32, vec![x.len() as u64], x.into_iter().map(Number::Float).collect()),
        (_, Some(x)) => Known::new(Scalar::I64, vec![x.len() as u64], x.into_iter().map(Number::Int).collect()),
        _ if call.has_attribute("value_string") => {
            Known::new(Scalar::String, vec![], vec![Number::Text(call.text("value_string", ""))])
        }
        _ if call.has_attribute("value_strings") => {
            let items = call.texts("value_strings").unwrap_or_default();
            Known::of_texts(Texts { shape: vec![items.len() as u64], items })
        }
        _ if call.has_attribute("value_int") => {
            Known::new(Scalar::I64, vec![], vec![Number::Int(call.int("value_int", 0))])
        }
        _ if call.has_attribute("value_float") => {
            Known::new(Scalar::F32, vec![], vec![Number::Float(call.float("value_float", 0.0))])
        }
        _ => return Err("its value is of a kind that is not supported".into()),
    })
}

fn dims(call: &Call) -> Option<Vec<Dim>> {
    call.value(0).ok()?.shape(call.emit)
}

fn shape(call: &Call) -> Fallible<Option<Known>> {
    let Some(dims) = dims(call) else { return Ok(None) };
    let rank = dims.len() as i64;
    let bound = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
    let (start, end) = (bound(call.int("start", 0)), bound(call.int("end", rank)));
    let item = |dim: &Dim| match dim {
        Dim::Const(n) => Number::Int(*n as i64),
        other => Number::Extent(other.to_string()),
    };
    let items: Vec<Number> = dims.get(start..end).unwrap_or_default().iter().map(item).collect();
    Ok(Some(Known::new(Scalar::I64, vec![items.len() as u64], items)))
}

fn size(call: &Call) -> Option<Known> {
    let count = dims(call)?.iter().map(Dim::as_const).try_fold(1u64, |all, n| all.checked_mul(n?))?;
    Some(Known::new(Scalar::I64, vec![], vec![Number::Int(count as i64)]))
}

fn map(x: &Known, f: impl Fn(&Number) -> Option<Number>) -> Option<Known> {
    Some(Known::new(x.scalar, x.shape.clone(), x.items.iter().map(f).collect::<Option<_>>()?))
}

fn cast(call: &Call, x: &Known) -> Option<Known> {
    let to = tensor::scalar_of(i32::try_from(call.int("to", 0)).ok()?).ok()?;
    let item = |n: &Number| match n {
        Number::Extent(_) => (to == Scalar::I64).then(|| n.clone()),
        _ if to == Scalar::Bool => Some(Number::Int(i64::from(n.float()? != 0.0))),
        _ if to.is_float() => Some(Number::Float(n.float()?)),
        Number::Int(i) => Some(Number::Int(*i)),
        Number::Float(x) => (x.abs() < 9e15).then_some(Number::Int(*x as i64)),
        Number::Text(_) => None,
    };
    let cast = map(x, item)?;
    Some(Known { scalar: to, ..cast })
}

fn two(op: &str, a: &Number, b: &Number) -> Option<Number> {
    let truth = |t: bool| Some(Number::Int(i64::from(t)));
    if let (Number::Text(a), Number::Text(b)) = (a, b) {
        return if op == "Equal" { truth(a == b) } else { None };
    }
    if let (Number::Float(_), _) | (_, Number::Float(_)) = (a, b) {
        let (x, y) = (a.float()?, b.float()?);
        return Some(Number::Float(match op {
            "Add" => x + y,
            "Sub" => x - y,
            "Mul" => x * y,
            "Div" => x / y,
            "Min" => x.min(y),
            "Max" => x.max(y),
            "Equal" => return truth(x == y),
            "Less" => return truth(x < y),
            "Greater" => return truth(x > y),
            _ => return None,
        }));
    }
    match (op, a, b) {
        // An extent is positive, and the same as itself.
        ("Equal", Number::Extent(_), Number::Int(..=0)) | ("Equal", Number::Int(..=0), Number::Extent(_)) => {
            truth(false)
        }
        ("Equal", Number::Extent(a), Number::Extent(b)) if a == b => truth(true),
        ("Greater", Number::Extent(_), Number::Int(..=0)) => truth(true),
        ("Mul" | "Div", x @ Number::Extent(_), Number::Int(1)) | ("Mul", Number::Int(1), x @ Number::Extent(_)) => {
            Some(x.clone())
        }
        ("Add" | "Sub", x @ Number::Extent(_), Number::Int(0)) | ("Add", Number::Int(0), x @ Number::Extent(_)) => {
            Some(x.clone())
        }
        _ => {
            let (x, y) = (a.int()?, b.int()?);
            Some(Number::Int(match op {
                "Add" => x.checked_add(y)?,
                "Sub" => x.checked_sub(y)?,
                "Mul" => x.checked_mul(y)?,
                "Div" => x.checked_div(y)?,
                "Mod" => x.checked_rem_euclid(y).filter(|_| y > 0)?,
                "Min" => x.min(y),
                "Max" => x.max(y),
                "Equal" => return truth(x == y),
                "Less" => return truth(x < y),
                "Greater" => return truth(x > y),
                "And" => return truth(x != 0 && y != 0),
                "Or" => return truth(x != 0 || y != 0),
                _ => return None,
            }))
        }
    }
}

/// Elementwise with broadcasting. An operand without items has only its shape.
pub fn zip(operands: &[&Known], f: impl Fn(&[&Number]) -> Option<Number>) -> Option<(Vec<u64>, Vec<Number>)> {
    let rank = operands.iter().map(|k| k.shape.len()).max()?;
    let mut shape = vec![1u64; rank];
    for operand in operands {
        let skip = rank - operand.shape.len();
        for (have, n) in shape[skip..].iter_mut().zip(&operand.shape) {
            if *have == 1 {
                *have = *n;
            } else if *n != 1 && n != have {
                return None;
            }
        }
    }
    let count = shape.iter().try_fold(1u64, |all, &n| all.checked_mul(n)).filter(|n| *n <= MOST)?;
    let valued: Vec<&Known> = operands.iter().filter(|k| !k.items.is_empty()).copied().collect();
    let mut items = vec![];
    for at in 0..count {
        let picked: Vec<&Number> = valued.iter().map(|k| &k.items[place(&k.shape, &shape, at)]).collect();
        items.push(f(&picked)?);
    }
    Some((shape, items))
}

/// Where the element of an operand is that meets element `at` of the result.
fn place(own: &[u64], shape: &[u64], at: u64) -> usize {
    let (mut rest, mut index, mut stride) = (at, 0, 1);
    for axis in (0..shape.len()).rev() {
        let i = rest % shape[axis];
        rest /= shape[axis];
        if let Some(n) = (axis + own.len()).checked_sub(shape.len()).map(|i| own[i]) {
            index += if n == 1 { 0 } else { i * stride };
            stride *= n;
        }
    }
    index as usize
}

fn gather(call: &Call, x: &Known, at: &Known) -> Fallible<Option<Known>> {
    let axis = call.axis(call.int("axis", 0), x.shape.len())?;
    let (extent, inner) = (x.shape[axis] as i64, x.shape[axis + 1..].iter().product::<u64>() as usize);
    let mut items = vec![];
    for block in x.items.chunks((extent as usize * inner).max(1)) {
        for at in &at.items {
            let Some(at) = at.int() else { return Ok(None) };
            let at = if at < 0 { at + extent } else { at };
            if !(0..extent).contains(&at) {
                return Err(format!("index {at} lies outside the extent {extent}"));
            }
            items.extend_from_slice(&block[at as usize * inner..(at as usize + 1) * inner]);
        }
    }
    let shape = [&x.shape[..axis], &at.shape, &x.shape[axis + 1..]].concat();
    Ok(Some(Known::new(x.scalar, shape, items)))
}

/// First element, step and count of what ONNX's `Slice` takes of an axis.
pub fn bounds(extent: u64, start: i64, end: i64, step: i64) -> Fallible<(u64, i64, u64)> {
    let n = i64::try_from(extent).map_err(|_| "an extent is too large")?;
    if step == 0 {
        return Err("a step of 0".into());
    }
    let at = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
    let (start, end) = match step > 0 {
        true => (at(start).clamp(0, n), at(end).clamp(0, n)),
        false => (at(start).clamp(0, n - 1), at(end).clamp(-1, n - 1)),
    };
    let room = if step > 0 { end - start } else { start - end };
    let count = if room <= 0 { 0 } else { (room as u64).div_ceil(step.unsigned_abs()) };
    Ok((start.max(0) as u64, step, count))
}

fn slice(call: &Call, x: &Known, rest: &[Option<Known>]) -> Fallible<Option<Known>> {
    let ints = |i: usize| -> Option<Vec<i64>> { rest.get(i)?.as_ref()?.items.iter().map(Number::int).collect() };
    let (Some(starts), Some(ends)) = (ints(0), ints(1)) else { return Ok(None) };
    let axes = ints(2).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = ints(3).unwrap_or_else(|| vec![1; starts.len()]);
    let mut result = x.clone();
    for (i, &axis) in axes.iter().enumerate() {
        let axis = call.axis(axis, x.shape.len())?;
        let part = |list: &[i64]| list.get(i).copied().ok_or("starts, ends, axes and steps differ in length");
        let (start, step, count) = bounds(x.shape[axis], part(&starts)?, part(&ends)?, part(&steps)?)?;
        let inner = result.shape[axis + 1..].iter().product::<u64>() as usize;
        let block = result.shape[axis] as usize * inner;
        let mut items = vec![];
        for block in result.items.chunks(block.max(1)) {
            for j in 0..count as i64 {
                let at = (start as i64 + j * step) as usize * inner;
                items.extend_from_slice(&block[at..at + inner]);
            }
        }
        result.shape[axis] = count;
        result.items = items;
    }
    Ok(Some(result))
}

fn concat(call: &Call, parts: &[&Known]) -> Fallible<Option<Known>> {
    let [first, ..] = parts else { return Ok(None) };
    let axis = call.axis(call.int("axis", 0), first.shape.len())?;
    let outer = first.shape[..axis].iter().product::<u64>();
    let mut result = Known::new(first.scalar, first.shape.clone(), vec![]);
    result.shape[axis] = 0;
    for part in parts {
        if part.shape.len() != first.shape.len() || part.shape[..axis] != first.shape[..axis] {
            return Err("shapes of the parts do not agree".into());
        }
        result.shape[axis] += part.shape[axis];
    }
    for block in 0..outer as usize {
        for part in parts {
            let size = part.items.len() / outer.max(1) as usize;
            result.items.extend_from_slice(&part.items[block * size..(block + 1) * size]);
        }
    }
    Ok(Some(result))
}

/// Of a vector, which is what shapes are.
fn split(call: &Call) -> Fallible<Option<Vec<Known>>> {
    let Some(x) = call.value(0)?.elements().filter(|x| x.shape.len() == 1 && !x.items.is_empty()) else {
        return Ok(None);
    };
    let count = call.int("num_outputs", call.proto.output.len() as i64).clamp(1, x.items.len() as i64) as usize;
    let each = x.items.len().div_ceil(count);
    let sizes = match call.ints_from("split", 1)? {
        Some(sizes) => sizes.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>(),
        None => Ok((0..count).map(|i| each.min(x.items.len().saturating_sub(i * each))).collect()),
    };
    let sizes = sizes.map_err(|_| "a part of negative size")?;
    if sizes.iter().try_fold(0usize, |all, &n| all.checked_add(n)) != Some(x.items.len()) {
        return Err(format!("parts of {sizes:?} do not make {}", x.items.len()));
    }
    let mut rest = x.items.into_iter();
    let part = |n: usize| Known {
        given: x.given.clone(),
        ..Known::new(x.scalar, vec![n as u64], rest.by_ref().take(n).collect())
    };
    Ok(Some(sizes.into_iter().map(part).collect()))
}

fn squeeze(call: &Call, x: &Known, axes: Option<&&Known>) -> Fallible<Option<Known>> {
    let listed = call.ints("axes").or_else(|| axes.and_then(|k| k.items.iter().map(Number::int).collect()));
    let mut result = x.clone();
    result.shape = if call.proto.op_type() == "Unsqueeze" {
        let Some(listed) = listed else { return Ok(None) };
        let rank = x.shape.len() + listed.len();
        let mut shape = x.shape.clone();
        for axis in call.axes(&listed, rank)? {
            shape.insert(axis.min(shape.len()), 1);
        }
        shape
    } else {
        let axes = listed.map(|l| call.axes(&l, x.shape.len())).transpose()?;
        let goes = |i: usize| axes.as_ref().map_or(x.shape[i] == 1, |a| a.contains(&i));
        (0..x.shape.len()).filter(|&i| !goes(i)).map(|i| x.shape[i]).collect()
    };
    Ok(Some(result))
}

fn reshape(x: &Known, to: &Known) -> Option<Known> {
    let mut shape = vec![];
    let mut open = None;
    for (i, n) in to.items.iter().enumerate() {
        shape.push(match n.int()? {
            -1 => {
                open = Some(i);
                1
            }
            0 => *x.shape.get(i)?,
            n => u64::try_from(n).ok()?,
        });
    }
    let (have, want) = (x.items.len() as u64, shape.iter().product::<u64>());
    if let Some(open) = open {
        shape[open] = have.checked_div(want)?;
    }
    (shape.iter().product::<u64>() == have).then(|| Known { shape, ..x.clone() })
}

fn filled(call: &Call, shape: &Known) -> Fallible<Option<Known>> {
    let Some(extents) =
        shape.items.iter().map(|n| n.int().and_then(|n| u64::try_from(n).ok())).collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    let Some(count) = extents.iter().try_fold(1u64, |all, &n| all.checked_mul(n)).filter(|n| *n <= MOST) else {
        return Ok(None);
    };
    let (scalar, value) = match call.tensor("value") {
        Some(proto) => {
            let tensor = tensor::read(proto, call.folder).map_err(|e| e.to_string())?;
            (tensor.scalar(), tensor::numbers(&tensor).into_iter().next().ok_or("its value has no element")?)
        }
        None => (Scalar::F32, Number::Float(0.0)),
    };
    Ok(Some(Known::new(scalar, extents, vec![value; count as usize])))
}

fn range(start: &Known, limit: &Known, delta: &Known) -> Option<Known> {
    let first = |k: &Known| k.items.first().cloned();
    let (start, limit, delta, scalar) = (first(start)?, first(limit)?, first(delta)?, start.scalar);
    let steps = ((limit.float()? - start.float()?) / delta.float()?).ceil().max(0.0);
    if !steps.is_finite() || steps > MOST as f64 {
        return None;
    }
    let item = |i: i64| match (&start, &delta) {
        (Number::Int(a), Number::Int(d)) => Some(Number::Int(a.checked_add(d.checked_mul(i)?)?)),
        _ => Some(Number::Float(start.float()? + delta.float()? * i as f64)),
    };
    let items = (0..steps as i64).map(item).collect::<Option<Vec<_>>>()?;
    Some(Known::new(scalar, vec![items.len() as u64], items))
}

fn product(call: &Call, x: &Known) -> Option<Known> {
    let value = x.items.iter().map(Number::int).try_fold(1i64, |all, n| all.checked_mul(n?))?;
    let shape = if call.int("keepdims", 1) != 0 { vec![1; x.shape.len()] } else { vec![] };
    (x.scalar == Scalar::I64).then(|| Known::new(Scalar::I64, shape, vec![Number::Int(value)]))
}
