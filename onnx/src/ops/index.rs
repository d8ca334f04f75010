//! Operators that pick elements by number.

use super::Write;
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{BinaryOp, CompareOp, Dim, Node, Op, ReduceOp, Scalar};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("GatherND", gather_nd),
    ("OneHot", one_hot),
    ("ReverseSequence", reverse_sequence),
    ("TopK", top_k),
];

/// Numbers counted from the front, where negative ones count from the end.
pub(super) fn from_front(e: &mut Emit, at: Node, extent: u64) -> Fallible<Node> {
    let at = e.cast(at, Scalar::I64)?;
    let (below, moved) = (e.test(CompareOp::Lt, at, 0.0)?, e.plus(at, extent as f64)?);
    e.select(below, moved, at)
}

fn gather(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let rank = c.emit.rank(x);
    let axis = c.axis(c.int("axis", 0), rank)?;
    let extent = c.emit.extent(x, axis)?;
    if let Some(known) = c.value(1)?.elements().filter(|k| k.items.len() == 1 && k.given.is_empty()) {
        let at = known.items[0].int().ok_or("its index is no integer")?;
        let at = if at < 0 { at + extent as i64 } else { at };
        let at = u64::try_from(at).ok().filter(|a| *a < extent).ok_or("its index lies outside")?;
        let picked = c.emit.slice(x, axis, at, 1, 1)?;
        let mut shape = c.emit.shape(picked);
        shape.splice(axis..=axis, known.shape.iter().map(|_| Dim::Const(1)));
        return Ok(vec![c.emit.reshape(picked, shape)?]);
    }
    let at = c.x(1)?;
    let e = &mut *c.emit;
    let at = from_front(e, at, extent)?;
    let index_rank = e.rank(at);
    let lines = e.move_axis(x, axis, 0)?;
    let picked = e.op(Op::Gather, &[lines, at])?;
    // The axes of the index stand in front; they belong where the axis was.
    let before = (index_rank..index_rank + axis).chain(0..index_rank).chain(index_rank + axis..index_rank + rank - 1);
    Ok(vec![e.transpose(picked, before.collect())?])
}

/// The elements at places in row-major order.
fn take(e: &mut Emit, x: Node, places: Node) -> Fallible<Node> {
    let count = e.extents(x)?.iter().product();
    let flat = e.reshape_to(x, &[count])?;
    e.op(Op::Gather, &[flat, places])
}

/// Where the elements of `x` lie, counted row by row, that numbers `at` along an axis choose, each at its own index along
/// the others.
pub(super) fn places_along(e: &mut Emit, x: Node, at: Node, axis: usize) -> Fallible<Node> {
    let (extents, wanted) = (e.extents(x)?, e.extents(at)?);
    if extents.len() != wanted.len() {
        return Err("data and indices differ in rank".into());
    }
    let stride = |i: usize| extents[i + 1..].iter().product::<u64>();
    let at = from_front(e, at, extents[axis])?;
    let mut place = e.times(at, stride(axis) as f64)?;
    for i in (0..wanted.len()).filter(|&i| i != axis) {
        let mut shape = vec![1; wanted.len()];
        shape[i] = wanted[i];
        let offsets = e.ints(&shape, (0..wanted[i]).map(|j| j * stride(i)))?;
        place = e.add(place, offsets)?;
    }
    Ok(place)
}

fn gather_elements(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, at) = (c.x(0)?, c.x(1)?);
    let axis = c.axis(c.int("axis", 0), c.emit.rank(x))?;
    let e = &mut *c.emit;
    let place = places_along(e, x, at, axis)?;
    Ok(vec![take(e, x, place)?])
}

fn gather_nd(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, at, batch) = (c.x(0)?, c.x(1)?, c.int("batch_dims", 0).max(0) as usize);
    let e = &mut *c.emit;
    let (extents, wanted) = (e.extents(x)?, e.extents(at)?);
    let Some((&depth, outer)) = wanted.split_last() else { return Err("its indices need an axis".into()) };
    let depth = depth as usize;
    if batch + depth > extents.len() || batch > outer.len() {
        return Err("its indices do not fit its data".into());
    }
    let inner = extents[batch + depth..].iter().product::<u64>();
    let stride = |i: usize| extents[i + 1..batch + depth].iter().product::<u64>();
    let mut place: Option<Node> = None;
    for i in 0..depth {
        let part = e.pick(at, wanted.len() - 1, i as u64)?;
        let part = from_front(e, part, extents[batch + i])?;
        let part = e.times(part, stride(batch + i) as f64)?;
        place = Some(match place {
            Some(place) => e.add(place, part)?,
            None => part,
        });
    }
    let mut place = place.ok_or("its indices are empty")?;
    for i in 0..batch {
        let mut shape = vec![1; outer.len()];
        shape[i] = extents[i];
        let offsets = e.ints(&shape, (0..extents[i]).map(|j| j * stride(i)))?;
        place = e.add(place, offsets)?;
    }
    let rows = extents[..batch + depth].iter().product();
    let mut shape: Vec<u64> = vec![rows];
    shape.extend(&extents[batch + depth..]);
    let rows = if inner == 1 && shape.len() == 1 { vec![rows] } else { shape };
    let lines = e.reshape_to(x, &rows)?;
    Ok(vec![e.op(Op::Gather, &[lines, place])?])
}

fn one_hot(c: &mut Call) -> Fallible<Vec<Node>> {
    let (at, depth, values) = (c.x(0)?, c.known_number(1)?, c.x(2)?);
    let rank = c.emit.rank(at);
    let axis = c.axis(c.int("axis", -1), rank + 1)?;
    let e = &mut *c.emit;
    let depth = if depth >= 1.0 { depth as u64 } else { return Err(format!("a depth of {depth}")) };
    let at = from_front(e, at, depth)?;
    let at = e.insert_axis(at, axis)?;
    let mut shape = vec![1; rank + 1];
    shape[axis] = depth;
    let places = e.ints(&shape, 0..depth)?;
    let hit = e.compare(CompareOp::Eq, at, places)?;
    let [off, on] = [e.pick(values, 0, 0)?, e.pick(values, 0, 1)?];
    Ok(vec![e.select(hit, on, off)?])
}

/// Position `i` of a sequence comes from `length - 1 - i` before its length, from itself behind it.
fn reverse_sequence(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, lengths) = (c.x(0)?, c.x(1)?);
    let rank = c.emit.rank(x);
    let (time, batch) = (c.axis(c.int("time_axis", 0), rank)?, c.axis(c.int("batch_axis", 1), rank)?);
    let e = &mut *c.emit;
    let perm: Vec<usize> = [batch, time].into_iter().chain((0..rank).filter(|i| ![time, batch].contains(i))).collect();
    let moved = e.transpose(x, perm.clone())?;
    let extents = e.extents(moved)?;
    let (n, steps) = (extents[0], extents[1]);
    let lengths = e.reshape_to(lengths, &[n, 1])?;
    let at = e.ints(&[1, steps], 0..steps)?;
    let (last, inside) = (e.plus(lengths, -1.0)?, e.compare(CompareOp::Lt, at, lengths)?);
    let mirrored = e.sub(last, at)?;
    let source = e.select(inside, mirrored, at)?;
    let offsets = e.ints(&[n, 1], (0..n).map(|i| i * steps))?;
    let place = e.add(source, offsets)?;
    let flat: Vec<u64> = std::iter::once(n * steps).chain(extents[2..].iter().copied()).collect();
    let lines = e.reshape_to(moved, &flat)?;
    let picked = e.op(Op::Gather, &[lines, place])?;
    let mut back = vec![0; rank];
    perm.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    Ok(vec![e.transpose(picked, back)?])
}

/// Extents up to which the place of every element is found by comparing it with all others.
const MOST_COMPARED: u64 = 1 << 12;

/// An element's place is the number of elements that come before it; the `j`-th result is the one whose place is `j`.
fn top_k(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let k = match c.has_attribute("k") {
        true => c.int("k", 1) as f64,
        false => c.known_number(1)?,
    };
    let rank = c.emit.rank(x);
    let axis = c.axis(c.int("axis", -1), rank)?;
    let op = if c.int("largest", 1) != 0 { CompareOp::Gt } else { CompareOp::Lt };
    let e = &mut *c.emit;
    let n = e.extent(x, axis)?;
    if k < 1.0 || k > n as f64 || n > MOST_COMPARED {
        return Err(format!("{k} of {n} elements (at most {MOST_COMPARED})"));
    }
    let lines = e.move_axis(x, axis, rank - 1)?;
    let (own, other) = (e.insert_axis(lines, rank)?, e.insert_axis(lines, rank - 1)?);
    let better = e.compare(op, other, own)?;
    let equal = e.compare(CompareOp::Eq, other, own)?;
    let (mut column, mut row) = (vec![1; rank + 1], vec![1; rank + 1]);
    (column[rank - 1], row[rank]) = (n, n);
    let (at, others) = (e.ints(&column, 0..n)?, e.ints(&row, 0..n)?);
    let earlier = e.compare(CompareOp::Lt, others, at)?;
    let tie = e.binary(BinaryOp::And, equal, earlier)?;
    let before = e.binary(BinaryOp::Or, better, tie)?;
    let ones = e.cast(before, Scalar::I64)?;
    let place = e.op(Op::Reduce { op: ReduceOp::Sum, axes: vec![rank], keep: false }, &[ones])?;
    // [.., k, n]: is element i the j-th?
    let mut wanted = vec![1; rank + 1];
    wanted[rank - 1] = k as u64;
    let wanted = e.ints(&wanted, 0..k as u64)?;
    let place = e.insert_axis(place, rank - 1)?;
    let hit = e.compare(CompareOp::Eq, place, wanted)?;
    let hit = e.cast(hit, Scalar::U8)?;
    let found = e.op(Op::ArgMax { axis: rank }, &[hit])?;
    let extents = e.extents(lines)?;
    let count: u64 = extents[..rank - 1].iter().product();
    let flat = e.reshape_to(found, &[count, k as u64])?;
    let offsets = e.ints(&[count, 1], (0..count).map(|i| i * n))?;
    let flat = e.add(flat, offsets)?;
    let shape = e.shape(found);
    let values = take(e, lines, flat)?;
    let values = e.reshape(values, shape)?;
    Ok(vec![e.move_axis(values, rank - 1, axis)?, e.move_axis(found, rank - 1, axis)?])
}
