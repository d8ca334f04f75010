//! Poolings.

use super::Write;
use super::conv::{Window, image};
use crate::emit::{Emit, Fallible, made_up};
use crate::value::Call;
use quearn_stage::graph::literal::int_range;
use quearn_stage::graph::{BinaryOp, Node, Op, Pool2d, PoolKind, ReduceOp, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("AveragePool", |c| pool(c, PoolKind::Avg)),
    ("GlobalAveragePool", |c| global(c, ReduceOp::Mean)),
    ("GlobalLpPool", global_lp),
    ("GlobalMaxPool", |c| global(c, ReduceOp::Max)),
    ("LpPool", lp_pool),
    ("MaxPool", |c| pool(c, PoolKind::Max)),
];

fn global(c: &mut Call, op: ReduceOp) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let axes: Vec<usize> = (2..c.emit.rank(x)).collect();
    Ok(vec![c.emit.reduce_keep(op, x, &axes)?])
}

fn power(e: &mut Emit, x: Node, p: f64) -> Fallible<Node> {
    let exponent = e.like(x, p)?;
    match p {
        1.0 => Ok(x),
        2.0 => e.mul(x, x),
        0.5 => e.unary(UnaryOp::Sqrt, x),
        _ => e.binary(BinaryOp::Pow, x, exponent),
    }
}

fn global_lp(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, p) = (c.x(0)?, c.int("p", 2) as f64);
    let e = &mut *c.emit;
    let axes: Vec<usize> = (2..e.rank(x)).collect();
    let size = e.unary(UnaryOp::Abs, x)?;
    let powers = power(e, size, p)?;
    let sum = e.reduce_keep(ReduceOp::Sum, powers, &axes)?;
    Ok(vec![power(e, sum, 1.0 / p)?])
}

/// How often the window fits along each axis, and the padding behind the image that it then needs.
fn counts(window: &Window, size: &[u64], ceil: bool) -> Fallible<Vec<u64>> {
    let count = |axis: usize| {
        let [before, after] = window.pads[axis];
        let padded = size[axis] as i64 + before + after;
        let room = padded - window.reach(axis) as i64;
        let stride = window.strides[axis] as i64;
        let mut count = if ceil { (room + stride - 1).div_euclid(stride) } else { room.div_euclid(stride) } + 1;
        // The last window begins in the image or before it.
        if ceil && (count - 1) * stride >= size[axis] as i64 + before {
            count -= 1;
        }
        u64::try_from(count).ok().filter(|n| *n > 0 && room >= 0).ok_or("its window does not fit".to_owned())
    };
    (0..size.len()).map(count).collect()
}

fn pool(c: &mut Call, kind: PoolKind) -> Fallible<Vec<Node>> {
    if c.wants(1) {
        return Err("positions of maxima are not supported".into());
    }
    let x = c.x(0)?;
    let (size, kernel) = (image(c.emit, x)?, c.ints("kernel_shape").ok_or("its kernel_shape is missing")?);
    let kernel: Vec<u64> = kernel.into_iter().map(|n| n.max(0) as u64).collect();
    let window = Window::of(c, kernel, &size)?;
    let (ceil, padding_counts) = (c.int("ceil_mode", 0) != 0, c.int("count_include_pad", 0) != 0);
    let e = &mut *c.emit;
    let padded = window.pads.iter().any(|p| *p != [0, 0]);
    let even = (0..size.len()).all(|i| {
        let [before, after] = window.pads[i];
        before == after && (0..window.kernel[i] as i64).contains(&before)
    });
    let simple = even && size.len() <= 2 && window.dilations.iter().all(|d| *d == 1);
    if simple && (kind == PoolKind::Max || !(padded && padding_counts)) {
        return Ok(vec![planes(e, x, &window, kind, ceil)?]);
    }
    let out = counts(&window, &size, ceil)?;
    if kind == PoolKind::Max {
        let scalar = e.scalar(x);
        let lowest = int_range(scalar).map_or(f64::NEG_INFINITY, |(low, _)| low as f64);
        return Ok(vec![slide(e, x, &window, &out, BinaryOp::Max, lowest)?]);
    }
    let mut sum = slide(e, x, &window, &out, BinaryOp::Add, 0.0)?;
    for axis in 0..size.len() {
        let counted = counted(&window, axis, size[axis], out[axis], padding_counts)?;
        let mut shape = vec![1; size.len() + 2];
        shape[axis + 2] = out[axis];
        let counted = e.floats(e.scalar(x), &shape, &counted)?;
        sum = e.div(sum, counted)?;
    }
    Ok(vec![sum])
}

/// Up to two axes: the operation of the graph.
fn planes(e: &mut Emit, x: Node, window: &Window, kind: PoolKind, ceil: bool) -> Fallible<Node> {
    let line = window.kernel.len() == 1;
    let pair = |list: Vec<u64>, missing: u64| if line { [missing, list[0]] } else { [list[0], list[1]] };
    let padding = window.pads.iter().map(|p| p[0] as u64).collect();
    let op = Op::Pool2d(Pool2d {
        kind,
        kernel: pair(window.kernel.clone(), 1),
        stride: pair(window.strides.clone(), 1),
        padding: pair(padding, 0),
        ceil,
    });
    let x = if line { e.insert_axis(x, 2)? } else { x };
    let y = e.op(op, &[x])?;
    if line { e.remove_axis(y, 2) } else { Ok(y) }
}

/// Elements that each window along an axis is the mean of.
fn counted(window: &Window, axis: usize, size: u64, out: u64, padding_counts: bool) -> Fallible<Vec<f64>> {
    made_up(&[out, window.kernel[axis]])?;
    let [before, after] = window.pads[axis];
    let inside = match padding_counts {
        true => -before..size as i64 + after,
        false => 0..size as i64,
    };
    let first = |i: u64| (i * window.strides[axis]) as i64 - before;
    let hits = |i: u64| {
        let places = (0..window.kernel[axis]).map(|k| first(i) + (k * window.dilations[axis]) as i64);
        places.filter(|p| inside.contains(p)).count() as f64
    };
    Ok((0..out).map(|i| hits(i).max(1.0)).collect())
}

/// Folds windows, one axis after the other; `nothing` is what padding counts as.
fn slide(e: &mut Emit, x: Node, window: &Window, out: &[u64], op: BinaryOp, nothing: f64) -> Fallible<Node> {
    let mut x = x;
    for (axis, &count) in out.iter().enumerate() {
        let (at, size) = (axis + 2, e.extent(x, axis + 2)? as i64);
        let reached = ((count - 1) * window.strides[axis] + window.reach(axis)) as i64;
        let before = window.pads[axis][0];
        let value = e.like(x, nothing)?;
        x = e.pad(x, at, [before, (reached - size - before).max(0)], value)?;
        let mut folded: Option<Node> = None;
        for k in 0..window.kernel[axis] {
            let part = e.slice(x, at, k * window.dilations[axis], window.strides[axis] as i64, count)?;
            folded = Some(match folded {
                Some(folded) => e.binary(op, folded, part)?,
                None => part,
            });
        }
        x = folded.ok_or("its kernel is empty")?;
    }
    Ok(x)
}

fn lp_pool(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, p) = (c.x(0)?, c.int("p", 2) as f64);
    let (size, kernel) = (image(c.emit, x)?, c.ints("kernel_shape").ok_or("its kernel_shape is missing")?);
    let window = Window::of(c, kernel.into_iter().map(|n| n.max(0) as u64).collect(), &size)?;
    let out = counts(&window, &size, c.int("ceil_mode", 0) != 0)?;
    let e = &mut *c.emit;
    let magnitude = e.unary(UnaryOp::Abs, x)?;
    let powers = power(e, magnitude, p)?;
    let sum = slide(e, powers, &window, &out, BinaryOp::Add, 0.0)?;
    Ok(vec![power(e, sum, 1.0 / p)?])
}
