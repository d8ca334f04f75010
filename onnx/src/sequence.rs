//! Sequences and optionals. How long a sequence is, and whether an optional is there, is always known: both are lists of
//! values while a model is read, and programs have neither.

use crate::emit::Fallible;
use crate::empty;
use crate::tensor::Number;
use crate::value::{Call, Known, Value};
use quearn_stage::graph::Scalar;
use std::rc::Rc;

/// Writes one operator; gives its only result.
type Write = fn(&mut Call) -> Fallible<Rc<Value>>;

/// The operators.
const ROWS: &[(&str, Write)] = &[
    ("ConcatFromSequence", concat),
    ("Optional", |c| if c.has(0) { c.value(0).cloned() } else { Ok(Value::nothing("")) }),
    ("OptionalGetElement", |c| {
        let value = c.value(0)?;
        if value.is_nothing() {
            Err(format!("the optional {:?} has no element", value.name))
        } else {
            Ok(value.clone())
        }
    }),
    ("OptionalHasElement", |c| Ok(truth(c.has(0) && !c.value(0)?.is_nothing()))),
    ("SequenceAt", |c| {
        let (parts, at) = (c.value(0)?.parts()?, place(c, 1, 0)?);
        Ok(Rc::clone(&parts[at]))
    }),
    ("SequenceConstruct", |c| {
        Ok(Value::list("", (0..c.inputs.len()).map(|i| c.value(i).cloned()).collect::<Fallible<_>>()?))
    }),
    ("SequenceEmpty", |_| Ok(Value::list("", vec![]))),
    ("SequenceErase", |c| {
        let mut parts = c.value(0)?.parts()?.to_vec();
        let at = if c.has(1) { place(c, 1, 0)? } else { parts.len().checked_sub(1).ok_or("the sequence is empty")? };
        parts.remove(at);
        Ok(Value::list("", parts))
    }),
    ("SequenceInsert", |c| {
        let mut parts = c.value(0)?.parts()?.to_vec();
        let at = if c.has(2) { place(c, 2, 1)? } else { parts.len() };
        parts.insert(at, c.value(1)?.clone());
        Ok(Value::list("", parts))
    }),
    ("SequenceLength", |c| {
        let count = c.value(0)?.parts()?.len() as i64;
        Ok(Value::known("", Known::new(Scalar::I64, vec![], vec![Number::Int(count)]), None))
    }),
    ("SplitToSequence", split),
];

/// The result of an operator on sequences; `None` if it is none.
pub fn run(call: &mut Call) -> Fallible<Option<Vec<Rc<Value>>>> {
    let moves_list = call.proto.op_type() == "Identity" && call.value(0).is_ok_and(|v| v.is_list() || v.is_nothing());
    let made = match ROWS.iter().find(|(name, _)| *name == call.proto.op_type()) {
        Some((_, write)) => write(call)?,
        None if moves_list => call.value(0)?.clone(),
        None => return Ok(None),
    };
    let name = call.proto.output.first().map_or("", String::as_str);
    Ok(Some(vec![made.named(name)]))
}

fn truth(value: bool) -> Rc<Value> {
    Value::known("", Known::new(Scalar::Bool, vec![], vec![Number::Int(value.into())]), None)
}

/// A position in the sequence that is the first input, or up to `more` behind its last element.
fn place(c: &Call, input: usize, more: usize) -> Fallible<usize> {
    let (count, known) = (c.value(0)?.parts()?.len(), c.known_ints(input)?);
    let [at] = known[..] else { return Err(format!("input {input} must be one number")) };
    let from_front = if at < 0 { at.saturating_add(count as i64) } else { at };
    let inside = usize::try_from(from_front).ok().filter(|at| *at < count + more);
    inside.ok_or_else(|| format!("position {at} lies outside a sequence of {count}"))
}

fn concat(c: &mut Call) -> Fallible<Rc<Value>> {
    let parts = c.value(0)?.parts()?.to_vec();
    let mut nodes = parts.iter().map(|part| part.in_graph(c.emit)).collect::<Fallible<Vec<_>>>()?;
    let first = *nodes.first().ok_or("the sequence is empty")?;
    let apart = c.int("new_axis", 0) != 0;
    let axis = c.axis(c.int("axis", 0), c.emit.rank(first) + usize::from(apart))?;
    if apart {
        for node in &mut nodes {
            *node = c.emit.insert_axis(*node, axis)?;
        }
    }
    Ok(Value::node("", c.emit.concat(&nodes, axis)?, None))
}

fn split(c: &mut Call) -> Fallible<Rc<Value>> {
    let shape = c.value(0)?.shape(c.emit).ok_or("its input must be a tensor")?;
    let axis = c.axis(c.int("axis", 0), shape.len())?;
    let extent = shape[axis].as_const().ok_or_else(|| format!("extent {axis} of its input must be known"))?;
    let extents = |sizes: Vec<i64>| sizes.into_iter().map(u64::try_from).collect::<Result<Vec<_>, _>>();
    let sizes: Vec<u64> = match c.has(1) {
        false => vec![1; usize::try_from(extent).map_err(|_| "too many parts")?.min(MOST + 1)],
        true if c.value(1)?.shape(c.emit).is_some_and(|shape| shape.is_empty()) => {
            let size = c.known_number(1)?.max(1.0) as u64;
            (0..extent.div_ceil(size).min(MOST as u64 + 1)).map(|i| size.min(extent - i * size)).collect()
        }
        true => extents(c.known_ints(1)?).map_err(|_| "a part of negative size")?,
    };
    if sizes.len() > MOST {
        return Err(format!("more than {MOST} parts"));
    }
    if sizes.iter().try_fold(0u64, |all, &n| all.checked_add(n)) != Some(extent) {
        return Err(format!("parts of {sizes:?} do not make {extent}"));
    }
    let squeezed = !c.has(1) && c.int("keepdims", 1) == 0;
    let (mut start, mut parts) = (0, vec![]);
    for size in sizes {
        let part = empty::part(c, axis, start, size)?;
        parts.push(match squeezed {
            true => {
                let node = part.in_graph(c.emit)?;
                Value::node("", c.emit.remove_axis(node, axis)?, None)
            }
            false => part,
        });
        start += size;
    }
    Ok(Value::list("", parts))
}

/// Parts that a tensor is split into at most.
const MOST: usize = 1 << 12;
