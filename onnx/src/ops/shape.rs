//! Operators that move elements and compute none.

use super::Write;
use crate::emit::{Fallible, made_up};
use crate::fold::bounds;
use crate::tensor::{self, Number};
use crate::value::Call;
use quearn_stage::graph::{CompareOp, Dim, Node, Scalar};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("CenterCropPad", center_crop_pad),
    ("Concat", concat),
    ("ConstantOfShape", constant_of_shape),
    ("DepthToSpace", depth_to_space),
    ("Expand", expand),
    ("EyeLike", eye_like),
    ("Flatten", flatten),
    ("Pad", pad),
    ("Reshape", reshape),
    ("Slice", slice),
    ("SpaceToDepth", space_to_depth),
    ("Split", split),
    ("Squeeze", squeeze),
    ("Tile", tile),
    ("Transpose", transpose),
    ("Trilu", trilu),
    ("Unsqueeze", unsqueeze),
];

fn one(node: Fallible<Node>) -> Fallible<Vec<Node>> {
    node.map(|node| vec![node])
}

/// Elements that lie in memory: known extents, and names of others.
fn elements(shape: &[Dim]) -> (u64, Vec<&Dim>) {
    (shape.iter().filter_map(Dim::as_const).product(), shape.iter().filter(|d| d.as_const().is_none()).collect())
}

fn concat(c: &mut Call) -> Fallible<Vec<Node>> {
    let parts = c.all()?;
    let first = *parts.first().ok_or("it has no input")?;
    let axis = c.axis(c.int("axis", 1), c.emit.rank(first))?;
    one(c.emit.concat(&parts, axis))
}

fn center_crop_pad(c: &mut Call) -> Fallible<Vec<Node>> {
    let (mut x, wanted) = (c.x(0)?, c.known_ints(1)?);
    let rank = c.emit.rank(x);
    let axes = c.ints("axes").unwrap_or_else(|| (0..rank as i64).collect());
    let zero = c.emit.like(x, 0.0)?;
    for (&axis, &wanted) in axes.iter().zip(&wanted) {
        let axis = c.axis(axis, rank)?;
        let more = wanted - c.emit.extent(x, axis)? as i64;
        // Odd numbers: one more is added behind, one more is cut off behind.
        let before = more / 2;
        x = c.emit.pad(x, axis, [before, more - before], zero)?;
    }
    Ok(vec![x])
}

fn constant_of_shape(c: &mut Call) -> Fallible<Vec<Node>> {
    let shape = dims(c, 0)?;
    let value = match c.tensor("value") {
        Some(proto) => {
            let tensor = tensor::read(proto, c.folder).map_err(|e| e.to_string())?;
            let value = tensor::numbers(&tensor).into_iter().next().ok_or("its value has no element")?;
            c.emit.number(tensor.scalar(), &value)?
        }
        None => c.emit.number(Scalar::F32, &Number::Float(0.0))?,
    };
    one(c.emit.broadcast(value, shape))
}

/// A shape given as elements.
fn dims(c: &mut Call, input: usize) -> Fallible<Vec<Dim>> {
    let dim = |n: &Number| match n {
        Number::Int(n) => u64::try_from(*n).map(Dim::Const).map_err(|_| format!("an extent of {n}")),
        Number::Extent(name) => Ok(Dim::Named(name.clone())),
        Number::Float(_) | Number::Text(_) => Err("a shape must be integers".into()),
    };
    c.known(input)?.items.iter().map(dim).collect()
}

fn reshape(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let wanted = match c.ints("shape") {
        Some(ints) => ints.into_iter().map(Number::Int).collect(),
        None => c.known(1)?.items,
    };
    let from = c.emit.shape(x);
    let mut to = vec![];
    let mut open = None;
    for (i, n) in wanted.iter().enumerate() {
        to.push(match n {
            Number::Int(-1) => {
                open = Some(i);
                Dim::Const(1)
            }
            Number::Int(0) if c.int("allowzero", 0) == 0 => {
                from.get(i).cloned().ok_or_else(|| format!("extent {i} is to stay, but there is none"))?
            }
            Number::Int(n) => Dim::Const(u64::try_from(*n).map_err(|_| format!("an extent of {n}"))?),
            Number::Extent(name) => Dim::Named(name.clone()),
            Number::Float(_) | Number::Text(_) => return Err("a shape must be integers".into()),
        });
    }
    if let Some(open) = open {
        to[open] = remaining(&from, &to)?;
    }
    one(c.emit.reshape(x, to))
}

/// The extent that makes `to`, where it is 1 now, have as many elements as `from`.
fn remaining(from: &[Dim], to: &[Dim]) -> Fallible<Dim> {
    let ((have, mut names), (want, used)) = (elements(from), elements(to));
    for name in used {
        let at = names.iter().position(|n| *n == name).ok_or_else(|| format!("there is no extent {name}"))?;
        names.remove(at);
    }
    match names[..] {
        [] if want > 0 && have % want == 0 => Ok(Dim::Const(have / want)),
        [name] if have == want => Ok(name.clone()),
        _ => Err(format!("{have} elements do not go into {want}")),
    }
}

fn flatten(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let shape = c.emit.shape(x);
    let axis = match c.int("axis", 1) {
        axis if axis == shape.len() as i64 => shape.len(),
        axis => c.axis(axis, shape.len())?,
    };
    let flat = |part: &[Dim]| match elements(part) {
        (n, names) if names.is_empty() => Ok(Dim::Const(n)),
        (1, names) if names.len() == 1 => Ok(names[0].clone()),
        _ => Err(format!("extents of {} must be known", c.emit.graph.ty(x))),
    };
    let to = vec![flat(&shape[..axis])?, flat(&shape[axis..])?];
    one(c.emit.reshape(x, to))
}

fn squeeze(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let shape = c.emit.shape(x);
    let axes = match c.ints_from("axes", 1)? {
        Some(axes) => c.axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&i| shape[i] == Dim::Const(1)).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&i| shape[i] != Dim::Const(1)) {
        return Err(format!("axis {axis} has the extent {}, not 1", shape[*axis]));
    }
    let kept = shape.into_iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, dim)| dim);
    let kept: Vec<Dim> = kept.collect();
    one(c.emit.reshape(x, kept))
}

fn unsqueeze(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let axes = c.ints_from("axes", 1)?.ok_or("its axes are missing")?;
    let mut shape = c.emit.shape(x);
    for axis in c.axes(&axes, shape.len() + axes.len())? {
        shape.insert(axis.min(shape.len()), Dim::Const(1));
    }
    one(c.emit.reshape(x, shape))
}

fn transpose(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let rank = c.emit.rank(x);
    let perm = match c.ints("perm") {
        Some(perm) => perm.iter().map(|&a| c.axis(a, rank)).collect::<Fallible<_>>()?,
        None => (0..rank).rev().collect(),
    };
    one(c.emit.transpose(x, perm))
}

fn expand(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let (have, mut to) = (c.emit.shape(x), dims(c, 1)?);
    while to.len() < have.len() {
        to.insert(0, Dim::Const(1));
    }
    let skip = to.len() - have.len();
    for (to, have) in to[skip..].iter_mut().zip(have) {
        if *to == Dim::Const(1) {
            *to = have;
        }
    }
    one(c.emit.broadcast(x, to))
}

fn tile(c: &mut Call) -> Fallible<Vec<Node>> {
    let (mut x, repeats) = (c.x(0)?, c.known_ints(1)?);
    for (axis, &n) in repeats.iter().enumerate().filter(|(_, n)| **n != 1) {
        let count = u64::try_from(n).map_err(|_| format!("{n} repetitions"))?;
        let extent = c.emit.extent(x, axis)?;
        let shape = c.emit.shape(x);
        let apart = c.emit.insert_axis(x, axis)?;
        let mut wide = c.emit.shape(apart);
        wide[axis] = Dim::Const(count);
        let wide = c.emit.broadcast(apart, wide)?;
        let total = Dim::Const(extent.checked_mul(count).ok_or("the result is too large")?);
        let joined = shape.into_iter().enumerate().map(|(i, dim)| if i == axis { total.clone() } else { dim });
        x = c.emit.reshape(wide, joined.collect())?;
    }
    Ok(vec![x])
}

fn split(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let axis = c.axis(c.int("axis", 0), c.emit.rank(x))?;
    let extent = c.emit.extent(x, axis)?;
    let sizes: Vec<u64> = match c.ints_from("split", 1)? {
        Some(sizes) => sizes.into_iter().map(|n| u64::try_from(n).unwrap_or(0)).collect(),
        None => {
            let parts = c.int("num_outputs", c.proto.output.len() as i64).max(1) as u64;
            made_up(&[parts])?;
            let each = extent.div_ceil(parts);
            (0..parts).map(|i| each.min(extent.saturating_sub(i * each))).collect()
        }
    };
    if sizes.iter().sum::<u64>() != extent {
        return Err(format!("parts of {sizes:?} do not make {extent}"));
    }
    let (mut start, mut parts) = (0, vec![]);
    for size in sizes {
        parts.push(c.emit.slice(x, axis, start, 1, size)?);
        start += size;
    }
    Ok(parts)
}

fn slice(c: &mut Call) -> Fallible<Vec<Node>> {
    let mut x = c.x(0)?;
    let missing = |what: &str| format!("its {what} are missing");
    let starts = c.ints_from("starts", 1)?.ok_or_else(|| missing("starts"))?;
    let ends = c.ints_from("ends", 2)?.ok_or_else(|| missing("ends"))?;
    let axes = c.ints_from("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = if c.has(4) { c.known_ints(4)? } else { vec![1; starts.len()] };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("starts, ends, axes and steps differ in length".into());
    }
    for (i, &axis) in axes.iter().enumerate() {
        let axis = c.axis(axis, c.emit.rank(x))?;
        if starts[i] == 0 && ends[i] >= i64::from(i32::MAX) && steps[i] == 1 {
            continue;
        }
        let (start, step, count) = bounds(c.emit.extent(x, axis)?, starts[i], ends[i], steps[i])?;
        x = c.emit.slice(x, axis, start, step, count)?;
    }
    Ok(vec![x])
}

fn pad(c: &mut Call) -> Fallible<Vec<Node>> {
    let mut x = c.x(0)?;
    let rank = c.emit.rank(x);
    let pads = match c.ints("paddings") {
        Some(pads) => pads,
        None => c.ints_from("pads", 1)?.ok_or("its pads are missing")?,
    };
    let axes = match c.has(3) {
        true => c.known_ints(3)?.iter().map(|&a| c.axis(a, rank)).collect::<Fallible<Vec<_>>>()?,
        false => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let value = match c.optional(2)? {
        Some(value) => c.emit.reshape(value, vec![])?,
        None => c.emit.like(x, c.float("value", 0.0))?,
    };
    let mode = c.text("mode", "constant");
    for (i, &axis) in axes.iter().enumerate() {
        let around = [pads[i], pads[i + axes.len()]];
        if around == [0, 0] {
            continue;
        }
        x = match mode.as_str() {
            "constant" => c.emit.pad(x, axis, around, value)?,
            mode => mirrored(c, x, axis, around, mode)?,
        };
    }
    Ok(vec![x])
}

/// Padding with elements of the tensor itself.
fn mirrored(c: &mut Call, x: Node, axis: usize, around: [i64; 2], mode: &str) -> Fallible<Node> {
    let e = &mut *c.emit;
    let n = e.extent(x, axis)? as i64;
    let places = around.iter().try_fold(n, |all, more| all.checked_add(*more));
    made_up(&[places.and_then(|n| u64::try_from(n).ok()).ok_or("its pads are too large")?])?;
    let source = |at: i64| match mode {
        "edge" => Ok(at.clamp(0, n - 1)),
        "wrap" => Ok(at.rem_euclid(n)),
        "reflect" if n == 1 => Ok(0),
        "reflect" => {
            let at = at.rem_euclid(2 * (n - 1));
            Ok(at.min(2 * (n - 1) - at))
        }
        other => Err(format!("the mode {other:?} is not supported")),
    };
    // Runs of neighbours, forwards or backwards, are slices.
    let mut parts = vec![];
    let mut run: Option<(i64, i64, i64)> = None;
    for at in -around[0]..n + around[1] {
        let here = source(at)?;
        run = match run {
            Some((start, 0, 1)) if (here - start).abs() == 1 => Some((start, here - start, 2)),
            Some((start, step, count)) if step != 0 && here == start + step * count => Some((start, step, count + 1)),
            before => {
                if let Some((start, step, count)) = before {
                    parts.push(e.slice(x, axis, start as u64, if step == 0 { 1 } else { step }, count as u64)?);
                }
                Some((here, 0, 1))
            }
        };
    }
    let (start, step, count) = run.ok_or("nothing is left")?;
    parts.push(e.slice(x, axis, start as u64, if step == 0 { 1 } else { step }, count as u64)?);
    e.concat(&parts, axis)
}

fn depth_to_space(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, b) = (c.x(0)?, c.int("blocksize", 0).max(1) as u64);
    let [n, ch, h, w] = image(c, x)?;
    let (depth, crd) = (ch / (b * b), c.text("mode", "DCR") == "CRD");
    let (blocks, perm) = match crd {
        true => ([n, depth, b, b, h, w], vec![0, 1, 4, 2, 5, 3]),
        false => ([n, b, b, depth, h, w], vec![0, 3, 4, 1, 5, 2]),
    };
    let apart = c.emit.reshape_to(x, &blocks)?;
    let moved = c.emit.transpose(apart, perm)?;
    one(c.emit.reshape_to(moved, &[n, depth, h * b, w * b]))
}

fn space_to_depth(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, b) = (c.x(0)?, c.int("blocksize", 0).max(1) as u64);
    let [n, ch, h, w] = image(c, x)?;
    let apart = c.emit.reshape_to(x, &[n, ch, h / b, b, w / b, b])?;
    let crd = c.text("mode", "DCR") == "CRD";
    let moved = c.emit.transpose(apart, if crd { vec![0, 1, 3, 5, 2, 4] } else { vec![0, 3, 5, 1, 2, 4] })?;
    one(c.emit.reshape_to(moved, &[n, ch * b * b, h / b, w / b]))
}

fn image(c: &Call, x: Node) -> Fallible<[u64; 4]> {
    c.emit.extents(x)?.try_into().map_err(|_| "its input must be an image [n, c, h, w]".into())
}

fn eye_like(c: &mut Call) -> Fallible<Vec<Node>> {
    let shape = c.value(0)?.shape(c.emit).ok_or("the shape of its input must be known")?;
    let [Some(rows), Some(columns)] = [0, 1].map(|i: usize| shape.get(i).and_then(Dim::as_const)) else {
        return Err("its input must be a matrix of known extents".into());
    };
    let scalar = match c.has_attribute("dtype") {
        true => tensor::scalar_of(c.int("dtype", 1) as i32)?,
        false => {
            let x = c.x(0)?;
            c.emit.scalar(x)
        }
    };
    let k = c.int("k", 0);
    let cells = (0..rows as i64).flat_map(|i| (0..columns as i64).map(move |j| u64::from(j == i + k)));
    let cells = c.emit.ints(&[rows, columns], cells)?;
    one(c.emit.cast(cells, scalar))
}

fn trilu(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let (rank, k) = (c.emit.rank(x), if c.has(1) { c.known_number(1)? } else { 0.0 });
    if rank < 2 {
        return Err("its input must be a matrix or more".into());
    }
    let (rows, columns) = (c.emit.extent(x, rank - 2)?, c.emit.extent(x, rank - 1)?);
    let row = c.emit.ints(&[rows, 1], 0..rows)?;
    let column = c.emit.ints(&[1, columns], 0..columns)?;
    let away = c.emit.sub(column, row)?;
    let op = if c.int("upper", 1) != 0 { CompareOp::Ge } else { CompareOp::Le };
    let kept = c.emit.test(op, away, k)?;
    let zero = c.emit.like(x, 0.0)?;
    one(c.emit.select(kept, x, zero))
}
