//! Rules of the tensor and bridge families.

use super::{Cx, Result, Ty};
use crate::graph::foreign::Signature;
use crate::graph::{Conv2d, Dim, Elem, Forest, Op, Pool2d, PoolKind, ReduceOp, Scalar, Shape};

pub(super) fn infer(cx: &Cx) -> Result<Ty> {
    match cx.op {
        Op::Input { name, ty, .. } => input(cx, name, ty),
        Op::Iota(count) => {
            cx.arity(0)?;
            cx.check(i64::try_from(*count).is_ok(), || format!("{count} numbers do not fit i64"))?;
            Ok(tensor(Scalar::I64, vec![Dim::Const(*count)]))
        }
        Op::MatMul => matmul(cx),
        Op::Conv2d(conv) => conv2d(cx, conv),
        Op::Conv2dFilters { conv, kernel } => conv2d_filters(cx, conv, *kernel),
        Op::Pool2d(pool) => pool2d(cx, pool),
        Op::MaxUnpool2d(pool) => max_unpool2d(cx, pool),
        Op::BatchNorm { eps } => batch_norm(cx, f64::from_bits(*eps)),
        Op::Softmax { axis } => {
            cx.arity(1)?;
            let (scalar, shape) = cx.floats(0)?;
            check_axis(cx, *axis, shape)?;
            Ok(tensor(scalar, shape.to_vec()))
        }
        Op::Concat { axis } => concat(cx, *axis),
        Op::Reduce { op, axes, keep } => reduce(cx, *op, axes, *keep),
        Op::Reshape(to) => reshape(cx, to),
        Op::Transpose(perm) => transpose(cx, perm),
        Op::Slice { axis, start, step, count } => slice(cx, *axis, *start, *step, *count),
        Op::Broadcast(to) => broadcast(cx, to),
        Op::CumSum { axis } => {
            cx.arity(1)?;
            let (scalar, shape) = cx.required(0)?;
            cx.check(scalar.is_int() || scalar.is_float(), || cx.expected(0, "an integer or float"))?;
            check_axis(cx, *axis, shape)?;
            Ok(tensor(if scalar.is_int() { Scalar::I64 } else { scalar }, shape.to_vec()))
        }
        Op::ArgMax { axis } => arg_max(cx, *axis),
        Op::TreeEnsemble(forest) => tree_ensemble(cx, forest),
        Op::Foreign { name, signature } => foreign(cx, name, signature),
        Op::Gather => gather(cx),
        Op::ScatterAdd => scatter_add(cx),
        Op::Stack => stack(cx),
        Op::Single => single(cx),
        _ => cx.error("is not of the tensor family"),
    }
}

fn foreign(cx: &Cx, name: &str, signature: &Signature) -> Result<Ty> {
    cx.check(!name.is_empty(), || "the function needs a name".to_owned())?;
    if let Some(fault) = signature.fault() {
        return cx.error(fault);
    }
    cx.arity(signature.operands.len())?;
    let mut rows = None;
    for (i, part) in signature.operands.iter().enumerate() {
        let (scalar, shape) = cx.required(i)?;
        let inner = match part.by_row {
            true => shape.split_first().map(|(first, inner)| {
                rows.get_or_insert_with(|| first.clone());
                inner
            }),
            false => Some(shape),
        };
        let fits = inner.is_some_and(|inner| inner.iter().map(Dim::as_const).eq(part.shape.iter().map(|d| Some(*d))));
        cx.check(fits && scalar == part.scalar, || cx.expected(i, &format!("{part}, as {name:?} takes")))?;
        let same = !part.by_row || shape.first() == rows.as_ref();
        cx.check(same, || cx.expected(i, "as many rows as the other operands have"))?;
    }
    let rows = rows.unwrap_or(Dim::Const(0));
    Ok(tensor(signature.result.scalar, signature.result.dims(&rows)))
}

fn tensor(scalar: Scalar, shape: Shape) -> Ty {
    Ty::Tensor { elem: scalar.required(), shape }
}

fn shown(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(", "))
}

fn check_axis(cx: &Cx, axis: usize, shape: &[Dim]) -> Result<()> {
    cx.check(axis < shape.len(), || format!("no axis {axis} in the shape {}", shown(shape)))
}

fn input(cx: &Cx, name: &str, ty: &Ty) -> Result<Ty> {
    cx.arity(0)?;
    cx.check(!name.is_empty(), || "the tensor needs a name".to_owned())?;
    let Some((_, shape)) = ty.as_tensor() else {
        return cx.error(format!("{name:?} must be a tensor, found {ty}"));
    };
    let rows = shape.iter().find(|dim| matches!(dim, Dim::Rows(_)));
    cx.check(rows.is_none(), || format!("{name:?} comes from outside, where no table has rows; name the dimension"))?;
    cx.well_formed_ty(ty)?;
    Ok(ty.clone())
}

/// Operands of one float type, without NULLs.
fn same_float(cx: &Cx) -> Result<Scalar> {
    let (first, _) = cx.floats(0)?;
    for operand in 1..cx.inputs.len() {
        let (scalar, _) = cx.floats(operand)?;
        cx.check(scalar == first, || cx.expected(operand, &format!("{first} as {} is", cx.operand(0))))?;
    }
    Ok(first)
}

fn shape<'a>(cx: &Cx<'a>, operand: usize) -> Result<&'a [Dim]> {
    Ok(cx.tensor(operand)?.1)
}

/// The most products of an unsigned and a signed byte whose sum always fits `i32`.
const MOST_BYTE_PRODUCTS: u64 = i32::MAX as u64 / (255 * 128);

/// Does the sum of products of unsigned and signed bytes over these axes always fit `i32`?
pub fn byte_products_fit(axes: &[Dim]) -> bool {
    let count = axes.iter().try_fold(1u64, |n, dim| n.checked_mul(dim.as_const()?));
    count.is_some_and(|count| count <= MOST_BYTE_PRODUCTS)
}

/// The element type of sums of products: that of the operands, or `i32` for unsigned times signed bytes.
fn product_type(cx: &Cx) -> Result<Scalar> {
    match (cx.required(0)?.0, cx.required(1)?.0) {
        (Scalar::U8, Scalar::I8) => Ok(Scalar::I32),
        _ => same_float(cx),
    }
}

/// Sums of so many products cannot overflow.
fn check_depth(cx: &Cx, scalar: Scalar, axes: &[Dim]) -> Result<()> {
    cx.check(scalar != Scalar::I32 || byte_products_fit(axes), || {
        format!("sums of more than {MOST_BYTE_PRODUCTS} products of bytes, or of an unknown number, may not fit i32")
    })
}

fn matmul(cx: &Cx) -> Result<Ty> {
    cx.arity(2)?;
    let scalar = product_type(cx)?;
    let (a, b) = (shape(cx, 0)?, shape(cx, 1)?);
    let ([a_batch @ .., m, k], [b_batch @ .., k2, n]) = (a, b) else {
        return cx.error(format!("needs two matrices [.., m, k] and [.., k, n], found {} and {}", shown(a), shown(b)));
    };
    cx.check(k == k2, || {
        let (left, right) = (cx.dim(k), cx.dim(k2));
        format!("{} has {left} columns, {} has {right} rows", cx.operand(0), cx.operand(1))
    })?;
    check_depth(cx, scalar, std::slice::from_ref(k))?;
    cx.check(scalar != Scalar::I32 || b_batch.is_empty(), || cx.expected(1, "one matrix of bytes [k, n]"))?;
    let mut shape = cx.broadcast(&[a_batch, b_batch])?;
    shape.extend([m.clone(), n.clone()]);
    Ok(tensor(scalar, shape))
}

/// The four dimensions of an image batch; channels and extents must be known.
fn image<'a>(cx: &Cx<'a>, operand: usize, layout: &str) -> Result<(&'a Dim, [u64; 3])> {
    let known = |dims: &[Dim]| Some([dims[0].as_const()?, dims[1].as_const()?, dims[2].as_const()?]);
    match shape(cx, operand)? {
        [outer, rest @ ..] if rest.len() == 3 => match known(rest) {
            Some(extents) => Ok((outer, extents)),
            None => cx.error(cx.expected(operand, &format!("{layout} with known extents after the first"))),
        },
        _ => cx.error(cx.expected(operand, layout)),
    }
}

fn conv2d(cx: &Cx, conv: &Conv2d) -> Result<Ty> {
    let count = cx.inputs.len();
    cx.check(count == 2 || count == 3, || format!("takes (x, w) or (x, w, bias), found {count} operands"))?;
    let scalar = product_type(cx)?;
    cx.check(count == 2 || scalar != Scalar::I32, || "a convolution of bytes takes no bias: add it".to_owned())?;
    let (batch, [channels, height, width]) = image(cx, 0, "[n, c, h, w]")?;
    let (filters, [per_group, kh, kw]) = image(cx, 1, "[o, c / groups, kh, kw]")?;
    let Some(out) = filters.as_const() else {
        return cx.error(cx.expected(1, "a weight of known shape"));
    };
    cx.check(conv.groups > 0 && channels % conv.groups == 0 && out % conv.groups == 0, || {
        format!("{} groups do not divide {channels} input and {out} output channels", conv.groups)
    })?;
    cx.check(per_group == channels / conv.groups, || {
        let (x, w) = (cx.operand(0), cx.operand(1));
        format!("{w} must have {} channels per filter for {x}, found {per_group}", channels / conv.groups)
    })?;
    if count == 3 {
        check_vector(cx, 2, out)?;
    }
    check_depth(cx, scalar, &shape(cx, 1)?[1..])?;
    let [oh, ow] = windows(cx, conv, [height, width], [kh, kw])?;
    Ok(tensor(scalar, vec![batch.clone(), Dim::Const(out), Dim::Const(oh), Dim::Const(ow)]))
}

/// How often the windows of a convolution fit along the axes of an image.
fn windows(cx: &Cx, conv: &Conv2d, image: [u64; 2], kernel: [u64; 2]) -> Result<[u64; 2]> {
    cx.check(kernel.iter().chain(&conv.dilation).all(|n| *n > 0), || {
        "kernel and dilation must be positive".to_owned()
    })?;
    let extent = |axis: usize| {
        let reach = (kernel[axis] - 1).checked_mul(conv.dilation[axis]).and_then(|r| r.checked_add(1));
        window(cx, image[axis], reach, conv.stride[axis], conv.padding[axis], false)
    };
    Ok([extent(0)?, extent(1)?])
}

fn conv2d_filters(cx: &Cx, conv: &Conv2d, kernel: [u64; 2]) -> Result<Ty> {
    cx.arity(2)?;
    let scalar = same_float(cx)?;
    let (batch, [channels, height, width]) = image(cx, 0, "[n, c, h, w]")?;
    let (count, [out, oh, ow]) = image(cx, 1, "[n, o, oh, ow]")?;
    cx.check(conv.groups > 0 && channels % conv.groups == 0 && out % conv.groups == 0, || {
        format!("{} groups do not divide {channels} input and {out} output channels", conv.groups)
    })?;
    let found = windows(cx, conv, [height, width], kernel)?;
    cx.check(count == batch && [oh, ow] == found, || {
        let [y, x] = found;
        format!("{} must be [{batch}, o, {y}, {x}], as a convolution of {} is", cx.operand(1), cx.operand(0))
    })?;
    Ok(tensor(scalar, [out, channels / conv.groups, kernel[0], kernel[1]].map(Dim::Const).to_vec()))
}

fn check_vector(cx: &Cx, operand: usize, extent: u64) -> Result<()> {
    let found = shape(cx, operand)?;
    cx.check(*found == [Dim::Const(extent)], || {
        format!("{} must have the shape [{extent}], found {}", cx.operand(operand), shown(found))
    })
}

fn pool2d(cx: &Cx, pool: &Pool2d) -> Result<Ty> {
    cx.arity(1)?;
    let (scalar, _) = cx.required(0)?;
    match pool.kind {
        PoolKind::Max => cx.check(scalar.is_int() || scalar.is_float(), || cx.expected(0, "an integer or float"))?,
        PoolKind::Avg => cx.check(scalar.is_float(), || cx.expected(0, "a float"))?,
    }
    Ok(tensor(scalar, pooled(cx, pool)?))
}

/// The shape of a pooling of the first operand.
fn pooled(cx: &Cx, pool: &Pool2d) -> Result<Shape> {
    let (batch, [channels, height, width]) = image(cx, 0, "[n, c, h, w]")?;
    // A window that sees only padding would have nothing to fold.
    let padded = (0..2).all(|axis| pool.padding[axis] < pool.kernel[axis]);
    cx.check(padded, || format!("padding {:?} must be less than the kernel {:?}", pool.padding, pool.kernel))?;
    let extent =
        |axis: usize, size| window(cx, size, Some(pool.kernel[axis]), pool.stride[axis], pool.padding[axis], pool.ceil);
    let (oh, ow) = (extent(0, height)?, extent(1, width)?);
    Ok(vec![batch.clone(), Dim::Const(channels), Dim::Const(oh), Dim::Const(ow)])
}

fn max_unpool2d(cx: &Cx, pool: &Pool2d) -> Result<Ty> {
    cx.arity(2)?;
    let scalar = same_float(cx)?;
    cx.check(pool.kind == PoolKind::Max, || "takes windows of a pooling by maxima".to_owned())?;
    let (expected, found) = (pooled(cx, pool)?, shape(cx, 1)?);
    cx.check(*found == expected[..], || {
        format!("{} must be {}, as a pooling of {} is", cx.operand(1), shown(&expected), cx.operand(0))
    })?;
    Ok(tensor(scalar, shape(cx, 0)?.to_vec()))
}

/// How often a window of `reach` elements fits along an axis.
fn window(cx: &Cx, size: u64, reach: Option<u64>, stride: u64, padding: u64, ceil: bool) -> Result<u64> {
    cx.check(stride > 0, || "the stride must be positive".to_owned())?;
    let room = padding.checked_mul(2).and_then(|p| p.checked_add(size));
    let Some((padded, room)) = room.zip(reach).and_then(|(p, r)| Some((p, p.checked_sub(r)?))) else {
        let reach = reach.map_or("huge".to_owned(), |r| r.to_string());
        return cx
            .error(format!("a window of {reach} does not fit into {size} with {padding} of padding on each side"));
    };
    let mut count = if ceil { room.div_ceil(stride) } else { room / stride };
    // With `ceil` the last window must begin inside the image or the padding before it.
    if ceil && count.checked_mul(stride).is_none_or(|start| start >= padded - padding) {
        count -= 1;
    }
    match count.checked_add(1) {
        Some(count) => Ok(count),
        None => cx.error("the result is too large"),
    }
}

fn batch_norm(cx: &Cx, eps: f64) -> Result<Ty> {
    cx.arity(5)?;
    cx.check(eps.is_finite() && eps >= 0.0, || format!("eps must be a small positive number, found {eps}"))?;
    let scalar = same_float(cx)?;
    let x = shape(cx, 0)?;
    let Some(channels) = x.get(1).and_then(Dim::as_const) else {
        return cx.error(cx.expected(0, "[n, c, ..] with known c"));
    };
    (1..5).try_for_each(|operand| check_vector(cx, operand, channels))?;
    Ok(tensor(scalar, x.to_vec()))
}

/// The common element type of all operands, of which there is at least one.
fn same_elem(cx: &Cx) -> Result<Elem> {
    cx.check(!cx.inputs.is_empty(), || "takes one operand or more, found 0".to_owned())?;
    let mut elem = cx.tensor(0)?.0;
    for operand in 1..cx.inputs.len() {
        let other = cx.tensor(operand)?.0;
        cx.check(other.scalar == elem.scalar, || {
            cx.expected(operand, &format!("{} as {} is", elem.scalar, cx.operand(0)))
        })?;
        elem.nullable |= other.nullable;
    }
    Ok(elem)
}

fn concat(cx: &Cx, axis: usize) -> Result<Ty> {
    let elem = same_elem(cx)?;
    let mut result = shape(cx, 0)?.to_vec();
    check_axis(cx, axis, &result)?;
    let mut extent = 0u64;
    for operand in 0..cx.inputs.len() {
        let other = shape(cx, operand)?;
        let agree = other.len() == result.len() && (0..other.len()).all(|i| i == axis || other[i] == result[i]);
        cx.check(agree, || {
            format!(
                "{} is {}, which does not fit {} but for axis {axis}",
                cx.operand(operand),
                shown(other),
                shown(&result)
            )
        })?;
        let Some(sum) = other[axis].as_const().and_then(|e| extent.checked_add(e)) else {
            return cx.error(cx.expected(operand, &format!("of known extent along axis {axis}")));
        };
        extent = sum;
    }
    result[axis] = Dim::Const(extent);
    Ok(Ty::Tensor { elem, shape: result })
}

fn reduce(cx: &Cx, op: ReduceOp, axes: &[usize], keep: bool) -> Result<Ty> {
    cx.arity(1)?;
    let (scalar, x) = cx.required(0)?;
    let result = match op {
        ReduceOp::Sum | ReduceOp::Prod if scalar.is_int() => Some(Scalar::I64),
        ReduceOp::Mean => Some(scalar).filter(|s| s.is_float()),
        _ => Some(scalar).filter(|s| s.is_int() || s.is_float()),
    };
    let Some(result) = result else {
        let what = if op == ReduceOp::Mean { "a float" } else { "an integer or float" };
        return cx.error(cx.expected(0, what));
    };
    cx.check(axes.is_sorted_by(|a, b| a < b), || format!("the axes {axes:?} must be ascending"))?;
    axes.iter().try_for_each(|&axis| check_axis(cx, axis, x))?;
    let mut shape = Vec::new();
    for (i, dim) in x.iter().enumerate() {
        match axes.contains(&i) {
            true if keep => shape.push(Dim::Const(1)),
            true => {}
            false => shape.push(dim.clone()),
        }
    }
    Ok(tensor(result, shape))
}

fn reshape(cx: &Cx, to: &[Dim]) -> Result<Ty> {
    cx.arity(1)?;
    let (elem, from) = cx.tensor(0)?;
    to.iter().try_for_each(|dim| cx.well_formed_dim(dim))?;
    let same = matches!((elements(from), elements(to)), (Some(a), Some(b)) if a == b);
    cx.check(same, || format!("{} and {} do not have the same elements", shown(from), shown(to)))?;
    Ok(Ty::Tensor { elem, shape: to.to_vec() })
}

/// Product of the known extents, and the others in order; `None` if it does not fit.
fn elements(shape: &[Dim]) -> Option<(u64, Vec<&Dim>)> {
    let mut others: Vec<&Dim> = shape.iter().filter(|d| d.as_const().is_none()).collect();
    others.sort();
    let known = shape.iter().filter_map(Dim::as_const).try_fold(1u64, u64::checked_mul)?;
    Some((known, others))
}

fn transpose(cx: &Cx, perm: &[usize]) -> Result<Ty> {
    cx.arity(1)?;
    let (elem, from) = cx.tensor(0)?;
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    cx.check(sorted.iter().copied().eq(0..from.len()), || {
        format!("{perm:?} does not name every axis of {} once", shown(from))
    })?;
    Ok(Ty::Tensor { elem, shape: perm.iter().map(|&axis| from[axis].clone()).collect() })
}

fn slice(cx: &Cx, axis: usize, start: u64, step: i64, count: u64) -> Result<Ty> {
    cx.arity(1)?;
    let (elem, from) = cx.tensor(0)?;
    check_axis(cx, axis, from)?;
    let Some(extent) = from[axis].as_const() else {
        return cx.error(cx.expected(0, &format!("of known extent along axis {axis}")));
    };
    cx.check(step != 0 && count > 0, || "takes no step or no element".to_owned())?;
    let last = i128::from(start) + i128::from(step) * (i128::from(count) - 1);
    let inside = start < extent && (0..i128::from(extent)).contains(&last);
    cx.check(inside, || format!("elements {start} to {last} do not lie inside the extent {extent}"))?;
    let mut shape = from.to_vec();
    shape[axis] = Dim::Const(count);
    Ok(Ty::Tensor { elem, shape })
}

fn broadcast(cx: &Cx, to: &[Dim]) -> Result<Ty> {
    cx.arity(1)?;
    let (elem, from) = cx.tensor(0)?;
    to.iter().try_for_each(|dim| cx.well_formed_dim(dim))?;
    // The rows of a table that nothing leads to would be no dimension of the program.
    let unknown = to.iter().find(|dim| matches!(dim, Dim::Rows(_)) && !from.contains(dim));
    cx.check(unknown.is_none(), || format!("{} does not broadcast to rows that it does not have", shown(from)))?;
    let skipped = to.len().checked_sub(from.len());
    let fits = |skipped: usize| from.iter().zip(&to[skipped..]).all(|(a, b)| *a == Dim::Const(1) || a == b);
    cx.check(skipped.is_some_and(fits), || format!("{} does not broadcast to {}", shown(from), shown(to)))?;
    Ok(Ty::Tensor { elem, shape: to.to_vec() })
}

fn arg_max(cx: &Cx, axis: usize) -> Result<Ty> {
    cx.arity(1)?;
    let (scalar, x) = cx.required(0)?;
    cx.check(scalar.is_int() || scalar.is_float(), || cx.expected(0, "an integer or float"))?;
    check_axis(cx, axis, x)?;
    let mut shape = x.to_vec();
    shape.remove(axis);
    Ok(tensor(Scalar::I64, shape))
}

fn tree_ensemble(cx: &Cx, forest: &Forest) -> Result<Ty> {
    cx.arity(1)?;
    let (scalar, x) = cx.required(0)?;
    let [rows, Dim::Const(features)] = x else {
        return cx.error(cx.expected(0, "a matrix [n, features] with a known number of features"));
    };
    cx.check(scalar == Scalar::F32, || cx.expected(0, "of f32"))?;
    cx.check(*features == u64::from(forest.features), || {
        format!("{} has {features} features, the trees have {}", cx.operand(0), forest.features)
    })?;
    cx.check(!forest.base.is_empty(), || "needs an output".to_owned())?;
    match forest.fault() {
        Some(fault) => cx.error(fault),
        None => Ok(tensor(Scalar::F32, vec![rows.clone(), Dim::Const(forest.base.len() as u64)])),
    }
}

fn gather(cx: &Cx) -> Result<Ty> {
    cx.arity(2)?;
    let ((elem, data), (index, at)) = (cx.tensor(0)?, cx.tensor(1)?);
    cx.check(index.scalar.is_int(), || cx.expected(1, "an integer"))?;
    let Some((_, inner)) = data.split_first() else {
        return cx.error(cx.expected(0, "of one dimension or more"));
    };
    let elem = Elem { nullable: elem.nullable || index.nullable, ..elem };
    Ok(Ty::Tensor { elem, shape: at.iter().chain(inner).cloned().collect() })
}

fn scatter_add(cx: &Cx) -> Result<Ty> {
    cx.arity(3)?;
    let ((scalar, data), (index, at), (value, found)) = (cx.floats(0)?, cx.required(1)?, cx.required(2)?);
    cx.check(index.is_int(), || cx.expected(1, "an integer"))?;
    cx.check(value == scalar, || cx.expected(2, &format!("{scalar} as {} is", cx.operand(0))))?;
    let Some((_, inner)) = data.split_first() else {
        return cx.error(cx.expected(0, "of one dimension or more"));
    };
    let expected: Shape = at.iter().chain(inner).cloned().collect();
    cx.check(found == expected, || cx.expected(2, &format!("of the shape {}", shown(&expected))))?;
    Ok(tensor(scalar, data.to_vec()))
}

fn stack(cx: &Cx) -> Result<Ty> {
    let elem = same_elem(cx)?;
    let mut result = shape(cx, 0)?.to_vec();
    for operand in 1..cx.inputs.len() {
        let other = shape(cx, operand)?;
        cx.check(other == result, || {
            format!("{} has the shape {}, {} has {}", cx.operand(0), shown(&result), cx.operand(operand), shown(other))
        })?;
    }
    result.push(Dim::Const(cx.inputs.len() as u64));
    Ok(Ty::Tensor { elem, shape: result })
}

fn single(cx: &Cx) -> Result<Ty> {
    cx.arity(1)?;
    let (elem, shape) = cx.tensor(0)?;
    cx.check(*shape == [Dim::Const(1)], || cx.expected(0, "a column of a table with exactly one row"))?;
    Ok(Ty::scalar(elem))
}
