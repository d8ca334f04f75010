//! Elements of an image at places that lie between them.

use super::Write;
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{BinaryOp, CompareOp, Node, Op, Scalar, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] = &[("GridSample", grid_sample)];

/// How places are made from numbers between -1 and 1, and what lies around the image.
struct Rule {
    corners: bool,
    padding: String,
    mode: String,
}

/// A neighbour along an axis: its number, how much it counts, and whether it lies in the image.
struct Tap {
    at: Node,
    weight: Option<Node>,
    inside: Option<Node>,
}

fn grid_sample(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, grid) = (c.x(0)?, c.x(1)?);
    let rule = Rule {
        corners: c.int("align_corners", 0) != 0,
        padding: c.text("padding_mode", "zeros"),
        mode: c.text("mode", "linear"),
    };
    let e = &mut *c.emit;
    let (extents, points) = (e.extents(x)?, e.extents(grid)?);
    let axes = extents.len().saturating_sub(2);
    if axes == 0 || points.len() != extents.len() || points[0] != extents[0] || points[axes + 1] != axes as u64 {
        return Err("its grid does not fit its image".into());
    }
    let mut taps = vec![];
    for axis in 0..axes {
        // The last axis of the image comes first in a point.
        let place = e.pick(grid, axes + 1, (axes - 1 - axis) as u64)?;
        let place = e.cast(place, e.scalar(x))?;
        taps.push(along(e, place, extents[2 + axis], &rule)?);
    }
    let channels_last = e.move_axis(x, 1, axes + 1)?;
    let pixels: u64 = extents[2..].iter().product();
    let lines = e.reshape_to(channels_last, &[extents[0] * pixels, extents[1]])?;
    let ones = vec![1; axes];
    let first = e.ints(&[&[extents[0]], &ones[..]].concat(), (0..extents[0]).map(|i| i * pixels))?;
    let count: usize = taps.iter().map(Vec::len).product();
    let mut sum: Option<Node> = None;
    for choice in 0..count {
        let (mut rest, mut at, mut weight, mut inside) = (choice, first, None, None);
        for (axis, taps) in taps.iter().enumerate() {
            let tap = &taps[rest % taps.len()];
            rest /= taps.len();
            let stride: u64 = extents[3 + axis..].iter().product();
            let offset = e.times(tap.at, stride as f64)?;
            at = e.add(at, offset)?;
            weight = joined(e, BinaryOp::Mul, weight, tap.weight)?;
            inside = joined(e, BinaryOp::And, inside, tap.inside)?;
        }
        let mut picked = e.op(Op::Gather, &[lines, at])?;
        if let Some(inside) = inside {
            let (inside, zero) = (e.insert_axis(inside, axes + 1)?, e.like(x, 0.0)?);
            picked = e.select(inside, picked, zero)?;
        }
        if let Some(weight) = weight {
            let weight = e.insert_axis(weight, axes + 1)?;
            picked = e.mul(picked, weight)?;
        }
        sum = joined(e, BinaryOp::Add, sum, Some(picked))?;
    }
    let sum = sum.ok_or("an image without axes")?;
    Ok(vec![e.move_axis(sum, axes + 1, 1)?])
}

fn joined(e: &mut Emit, op: BinaryOp, a: Option<Node>, b: Option<Node>) -> Fallible<Option<Node>> {
    match (a, b) {
        (Some(a), Some(b)) => e.binary(op, a, b).map(Some),
        (a, b) => Ok(a.or(b)),
    }
}

fn clamped(e: &mut Emit, x: Node, extent: u64) -> Fallible<Node> {
    let (low, high) = (e.like(x, 0.0)?, e.like(x, extent as f64 - 1.0)?);
    let x = e.binary(BinaryOp::Max, x, low)?;
    e.binary(BinaryOp::Min, x, high)
}

/// Thrown back at the ends of the image as often as need be.
fn reflected(e: &mut Emit, x: Node, extent: u64, corners: bool) -> Fallible<Node> {
    let (low, range) = if corners { (0.0, extent as f64 - 1.0) } else { (-0.5, extent as f64) };
    if range == 0.0 {
        return e.times(x, 0.0);
    }
    let from_low = e.plus(x, -low)?;
    let share = e.times(from_low, 0.5 / range)?;
    let whole = e.unary(UnaryOp::Floor, share)?;
    let away = e.times(whole, 2.0 * range)?;
    let once = e.sub(from_low, away)?;
    let (end, beyond) = (e.like(x, 2.0 * range)?, e.test(CompareOp::Gt, once, range)?);
    let back = e.sub(end, once)?;
    let inside = e.select(beyond, back, once)?;
    e.plus(inside, low)
}

fn along(e: &mut Emit, place: Node, extent: u64, rule: &Rule) -> Fallible<Vec<Tap>> {
    let n = extent as f64;
    let (scale, shift) = if rule.corners { ((n - 1.0) / 2.0, (n - 1.0) / 2.0) } else { (n / 2.0, (n - 1.0) / 2.0) };
    let scaled = e.times(place, scale)?;
    let mut place = e.plus(scaled, shift)?;
    if rule.mode == "nearest" {
        place = e.unary(UnaryOp::Round, place)?;
    }
    place = match rule.padding.as_str() {
        "zeros" => place,
        "border" => clamped(e, place, extent)?,
        "reflection" => reflected(e, place, extent, rule.corners)?,
        other => return Err(format!("the padding {other:?} is not supported")),
    };
    let base = e.unary(UnaryOp::Floor, place)?;
    let part = e.sub(place, base)?;
    let reach = match rule.mode.as_str() {
        "nearest" => return Ok(vec![tap(e, place, None, extent, rule)?]),
        "linear" | "bilinear" => 0..2,
        "cubic" | "bicubic" => -1..3,
        other => return Err(format!("the mode {other:?} is not supported")),
    };
    let mut taps = vec![];
    for step in reach {
        let away = e.plus(part, -f64::from(step))?;
        let distance = e.unary(UnaryOp::Abs, away)?;
        let weight = if rule.mode.ends_with("cubic") {
            cubic(e, distance, (0..2).contains(&step))?
        } else {
            let one = e.like(distance, 1.0)?;
            e.sub(one, distance)?
        };
        let at = e.plus(base, step.into())?;
        taps.push(tap(e, at, Some(weight), extent, rule)?);
    }
    Ok(taps)
}

fn tap(e: &mut Emit, at: Node, weight: Option<Node>, extent: u64, rule: &Rule) -> Fallible<Tap> {
    let inside = if rule.padding == "zeros" {
        let (above, below) = (e.test(CompareOp::Ge, at, 0.0)?, e.test(CompareOp::Lt, at, extent as f64)?);
        Some(e.binary(BinaryOp::And, above, below)?)
    } else {
        None
    };
    let at = if rule.padding == "reflection" { reflected(e, at, extent, rule.corners)? } else { at };
    let at = clamped(e, at, extent)?;
    Ok(Tap { at: e.cast(at, Scalar::I64)?, weight, inside })
}

/// The weight of a neighbour at a distance, for the cubic curve with the slope -0.75.
fn cubic(e: &mut Emit, distance: Node, near: bool) -> Fallible<Node> {
    const A: f64 = -0.75;
    let factors = if near { [A + 2.0, -(A + 3.0), 0.0, 1.0] } else { [A, -5.0 * A, 8.0 * A, -4.0 * A] };
    let mut value = e.times(distance, factors[0])?;
    for factor in &factors[1..3] {
        value = e.plus(value, *factor)?;
        value = e.mul(value, distance)?;
    }
    e.plus(value, factors[3])
}
