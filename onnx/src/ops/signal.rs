//! Signals: windows, discrete Fourier transforms as products with matrices, and grids of points.

use super::Write;
use super::matrix::matmul;
use crate::emit::{Emit, Fallible, made_up};
use crate::tensor::scalar_of;
use crate::value::Call;
use quearn_stage::graph::{Node, Op, UnaryOp};
use std::f64::consts::TAU;

pub(super) const ROWS: &[(&str, Write)] = &[
    ("AffineGrid", affine_grid),
    ("BlackmanWindow", |c| window(c, [0.42, 0.5, 0.08])),
    ("DFT", |c| Ok(vec![fourier(c)?])),
    ("HammingWindow", |c| window(c, [25.0 / 46.0, 21.0 / 46.0, 0.0])),
    ("HannWindow", |c| window(c, [0.5, 0.5, 0.0])),
];

/// a - b cos(2 pi i / n) + c cos(4 pi i / n), where n is one less for a window that is not periodic.
fn window(c: &mut Call, [a, b, d]: [f64; 3]) -> Fallible<Vec<Node>> {
    let size = c.known_number(0)?;
    let scalar = scalar_of(c.int("output_datatype", 1) as i32)?;
    if !(1.0..1e6).contains(&size) || !scalar.is_float() {
        return Err(format!("a window of {size} elements of {scalar}"));
    }
    let period = if c.int("periodic", 1) != 0 { size } else { size - 1.0 };
    let weight = |i: u64| {
        let angle = if period > 0.0 { TAU * i as f64 / period } else { 0.0 };
        a - b * angle.cos() + d * (2.0 * angle).cos()
    };
    let weights: Vec<f64> = (0..size as u64).map(weight).collect();
    Ok(vec![c.emit.floats(scalar, &[size as u64], &weights)?])
}

/// A transform along an axis of a signal whose last axis holds the real part, or both parts.
fn fourier(c: &mut Call) -> Fallible<Node> {
    let x = c.x(0)?;
    let rank = c.emit.rank(x);
    let axis = match c.opset < 20 {
        true => c.int("axis", 1),
        false if c.has(2) => c.known_number(2)? as i64,
        false => -2,
    };
    let axis = c.axis(axis, rank)?;
    let (inverse, half) = (c.int("inverse", 0) != 0, c.int("onesided", 0) != 0);
    if axis + 1 == rank {
        return Err("it cannot go along the axis of the parts".into());
    }
    let extent = c.emit.extent(x, axis)?;
    let length = match c.has(1) {
        true => c.known_number(1)?.max(1.0) as u64,
        false if inverse && half => 2 * (extent - 1).max(1),
        false => extent,
    };
    let e = &mut *c.emit;
    let parts = e.extent(x, rank - 1)?;
    let lines = e.move_axis(x, axis, rank - 2)?;
    let real = e.pick(lines, rank - 1, 0)?;
    let imaginary = if parts == 2 { Some(e.pick(lines, rank - 1, 1)?) } else { None };
    let y = transformed(e, [Some(real), imaginary], extent, length, inverse, half)?;
    e.move_axis(y, rank - 2, axis)
}

/// Of `[.., extent]` lines that are cut off or filled up with zeros to `length`.
fn transformed(
    e: &mut Emit,
    [real, imaginary]: [Option<Node>; 2],
    extent: u64,
    length: u64,
    inverse: bool,
    half: bool,
) -> Fallible<Node> {
    let real = real.ok_or("a signal without a real part")?;
    let rows = extent.min(if inverse && half { length / 2 + 1 } else { length });
    let columns = if half && !inverse { length / 2 + 1 } else { length };
    made_up(&[rows, columns])?;
    let scalar = e.scalar(real);
    let mut matrix = |f: fn(f64) -> f64| {
        let cell = |i: u64| {
            let (row, column) = (i / columns, i % columns);
            // What is left out of a half is the mirror image of what is there.
            let twice = inverse && half && row != 0 && 2 * row != length;
            let scale = if inverse { 1.0 / length as f64 } else { 1.0 };
            f(TAU * ((row * column) % length) as f64 / length as f64) * scale * if twice { 2.0 } else { 1.0 }
        };
        let cells: Vec<f64> = (0..rows * columns).map(cell).collect();
        e.floats(scalar, &[rows, columns], &cells)
    };
    let (cosines, sines) = (matrix(f64::cos)?, matrix(if inverse { |x| -x.sin() } else { f64::sin })?);
    let last = e.rank(real) - 1;
    let real = e.slice(real, last, 0, 1, rows)?;
    let mut re = matmul(e, real, cosines)?;
    let below = matmul(e, real, sines)?;
    let mut im = e.unary(UnaryOp::Neg, below)?;
    if let Some(imaginary) = imaginary {
        let imaginary = e.slice(imaginary, last, 0, 1, rows)?;
        let (across, along) = (matmul(e, imaginary, sines)?, matmul(e, imaginary, cosines)?);
        (re, im) = (e.add(re, across)?, e.add(im, along)?);
    }
    if inverse && half { e.insert_axis(re, last + 1) } else { e.op(Op::Stack, &[re, im]) }
}

/// Points of a grid from -1 to 1, moved by a matrix for each image.
fn affine_grid(c: &mut Call) -> Fallible<Vec<Node>> {
    let (theta, size, corners) = (c.x(0)?, c.known_ints(1)?, c.int("align_corners", 0) != 0);
    let size = size.iter().map(|&n| u64::try_from(n).ok().filter(|n| *n > 0)).collect::<Option<Vec<u64>>>();
    let size = size.filter(|s| [4, 5].contains(&s.len())).ok_or("its size must be [n, c, h, w] or [n, c, d, h, w]")?;
    let (count, extents) = (size[0], &size[2..]);
    made_up(extents)?;
    let total: u64 = extents.iter().product();
    let place = |i: u64, n: u64| match (corners, n) {
        (true, 1) => 0.0,
        (true, n) => 2.0 * i as f64 / (n - 1) as f64 - 1.0,
        (false, n) => (2 * i + 1) as f64 / n as f64 - 1.0,
    };
    let mut points = vec![];
    for at in 0..total {
        let mut rest = at;
        for &extent in extents.iter().rev() {
            points.push(place(rest % extent, extent));
            rest /= extent;
        }
        points.push(1.0);
    }
    let e = &mut *c.emit;
    let points = e.floats(e.scalar(theta), &[total, extents.len() as u64 + 1], &points)?;
    let columns = e.swap_last(theta)?;
    let moved = e.matmul(points, columns)?;
    let shape: Vec<u64> = [&[count], extents, &[extents.len() as u64]].concat();
    Ok(vec![e.reshape_to(moved, &shape)?])
}
