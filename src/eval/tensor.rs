//! Tensor operations as their defining sums, in `f64`, rounded once at the end.

use super::cast::{fit, round_float};
use super::elementwise::{broadcast_shape, broadcast_strides, dot, for_each_index};
use super::scalar::Outcome;
use super::value::{Datum, EvalTensor};
use quearn_stage::graph::literal::int_range;
use quearn_stage::graph::{Conv2d, Elem, Forest, Pool2d, PoolKind, ReduceOp, Scalar};
use quearn_stage::low::FailKind;
use std::borrow::Cow;

/// The elements of an operand of a product, and the type of the sums.
fn factors(x: &EvalTensor) -> (Cow<'_, [f64]>, Scalar) {
    match x.elem().scalar {
        Scalar::U8 | Scalar::I8 => {
            let number = |i| if let Datum::Int(x) = x.get(i) { x as f64 } else { f64::NAN };
            let count = x.shape().iter().product();
            ((0..count).map(number).collect(), Scalar::I32)
        }
        scalar => (x.as_floats().into(), scalar),
    }
}

/// Sums of products; sums of small integers are exact.
fn sums(scalar: Scalar, shape: &[usize], data: Vec<f64>) -> EvalTensor {
    match scalar {
        Scalar::I32 => EvalTensor::ints(scalar, shape, data.into_iter().map(|x| x as i128)),
        _ => EvalTensor::floats(scalar, shape, data),
    }
}

/// `MatMul`.
pub fn matmul(a: &EvalTensor, b: &EvalTensor) -> EvalTensor {
    let ([a_batch @ .., m, k], [b_batch @ .., _, n]) = (a.shape(), b.shape()) else { unreachable!("matrices") };
    let mut shape = broadcast_shape([a_batch, b_batch].into_iter());
    let (a_steps, b_steps) = (broadcast_strides(a_batch, &shape), broadcast_strides(b_batch, &shape));
    let ((a, scalar), (b, _)) = (factors(a), factors(b));
    let mut data = Vec::new();
    for_each_index(&shape, |index| {
        let left = &a[dot(index, &a_steps) * m * k..];
        let right = &b[dot(index, &b_steps) * k * n..];
        for i in 0..*m {
            data.extend((0..*n).map(|j| (0..*k).map(|l| left[i * k + l] * right[l * n + j]).sum::<f64>()));
        }
    });
    shape.extend([*m, *n]);
    sums(scalar, &shape, data)
}

/// Where a window's element lies along an axis of `size` elements; `None` in the padding.
fn inside(out: usize, step: usize, stride: u64, padding: u64, size: usize) -> Option<usize> {
    let at = out * stride as usize + step;
    at.checked_sub(padding as usize).filter(|&at| at < size)
}

/// `Conv2d`; `to` is the shape of the result.
pub fn conv2d(conv: &Conv2d, x: &EvalTensor, w: &EvalTensor, bias: Option<&EvalTensor>, to: &[usize]) -> EvalTensor {
    let (&[_, channels, height, width], &[out_channels, per_group, kh, kw]) = (x.shape(), w.shape()) else {
        unreachable!("images and filters")
    };
    let ((image, scalar), (weights, _)) = (factors(x), factors(w));
    let filters_per_group = out_channels / conv.groups as usize;
    let mut data = Vec::new();
    for_each_index(to, |index| {
        let &[n, o, y, x] = index else { unreachable!("four dimensions") };
        let first_channel = o / filters_per_group * per_group;
        let mut sum = bias.map_or(0.0, |b| b.as_floats()[o]);
        for i in 0..kh {
            let step = i * conv.dilation[0] as usize;
            let Some(row) = inside(y, step, conv.stride[0], conv.padding[0], height) else { continue };
            for j in 0..kw {
                let step = j * conv.dilation[1] as usize;
                let Some(column) = inside(x, step, conv.stride[1], conv.padding[1], width) else { continue };
                for c in 0..per_group {
                    let pixel = ((n * channels + first_channel + c) * height + row) * width + column;
                    sum += image[pixel] * weights[((o * per_group + c) * kh + i) * kw + j];
                }
            }
        }
        data.push(sum);
    });
    sums(scalar, to, data)
}

/// `Conv2dFilters`; `to` is the shape of the result.
pub fn conv2d_filters(conv: &Conv2d, x: &EvalTensor, y: &EvalTensor, to: &[usize]) -> EvalTensor {
    let (&[count, channels, height, width], &[_, out_channels, oh, ow]) = (x.shape(), y.shape()) else {
        unreachable!("images")
    };
    let (image, adjoint) = (x.as_floats(), y.as_floats());
    let filters_per_group = out_channels / conv.groups as usize;
    let mut data = Vec::new();
    for_each_index(to, |index| {
        let &[o, c, i, j] = index else { unreachable!("four dimensions") };
        let channel = o / filters_per_group * to[1] + c;
        let [down, right] = [i * conv.dilation[0] as usize, j * conv.dilation[1] as usize];
        let mut sum = 0.0;
        for_each_index(&[count, oh, ow], |index| {
            let &[n, y, x] = index else { unreachable!("three dimensions") };
            let row = inside(y, down, conv.stride[0], conv.padding[0], height);
            let column = inside(x, right, conv.stride[1], conv.padding[1], width);
            if let (Some(row), Some(column)) = (row, column) {
                let seen = image[((n * channels + channel) * height + row) * width + column];
                sum += seen * adjoint[((n * out_channels + o) * oh + y) * ow + x];
            }
        });
        data.push(sum);
    });
    EvalTensor::floats(x.elem().scalar, to, data)
}

/// `MaxUnpool2d`.
pub fn max_unpool2d(pool: &Pool2d, x: &EvalTensor, y: &EvalTensor) -> EvalTensor {
    let &[_, channels, height, width] = x.shape() else { unreachable!("images") };
    let (image, mut adjoints) = (x.as_floats(), y.as_floats().iter());
    let mut data = vec![0.0; image.len()];
    for_each_index(y.shape(), |index| {
        let &[n, c, oy, ox] = index else { unreachable!("four dimensions") };
        let places = window(pool, [oy, ox], [height, width]);
        let places: Vec<usize> = places.iter().map(|place| (n * channels + c) * height * width + place).collect();
        let largest = places.iter().map(|&p| image[p]).fold(f64::NEG_INFINITY, f64::max);
        let adjoint = adjoints.next().copied().unwrap_or_default();
        let first = places.iter().find(|p| image[**p] == largest);
        if let (Some(&first), false) = (first, places.iter().any(|&p| image[p].is_nan())) {
            data[first] += adjoint;
        }
    });
    EvalTensor::floats(x.elem().scalar, x.shape(), data)
}

/// Where the elements of a window of a pooling lie in a plane of the image, row by row.
fn window(pool: &Pool2d, [oy, ox]: [usize; 2], [height, width]: [usize; 2]) -> Vec<usize> {
    let rows = (0..pool.kernel[0] as usize).filter_map(|i| inside(oy, i, pool.stride[0], pool.padding[0], height));
    let columns = |row: usize| {
        let column = |j: usize| inside(ox, j, pool.stride[1], pool.padding[1], width);
        (0..pool.kernel[1] as usize).filter_map(column).map(move |column| row * width + column)
    };
    rows.flat_map(columns).collect()
}

/// `Pool2d`; `to` is the shape of the result.
pub fn pool2d(pool: &Pool2d, x: &EvalTensor, to: &[usize]) -> EvalTensor {
    let &[_, channels, height, width] = x.shape() else { unreachable!("images") };
    let op = match pool.kind {
        PoolKind::Max => ReduceOp::Max,
        PoolKind::Avg => ReduceOp::Mean,
    };
    let mut result = EvalTensor::build(x.elem(), to);
    for_each_index(to, |index| {
        let &[n, c, oy, ox] = index else { unreachable!("four dimensions") };
        let places = window(pool, [oy, ox], [height, width]);
        let values: Vec<Datum> =
            places.iter().map(|place| x.get((n * channels + c) * height * width + place)).collect();
        result.push(fold(op, &values, x.elem().scalar).unwrap_or_else(Datum::Fail));
    });
    result
}

/// `BatchNorm`: `(x, scale, bias, mean, var)`.
pub fn batch_norm(operands: &[&EvalTensor], eps: f64) -> EvalTensor {
    let [x, scale, bias, mean, var] = operands.iter().map(|t| t.as_floats()).collect::<Vec<_>>()[..] else {
        unreachable!("five operands")
    };
    let shape = operands[0].shape();
    let inner: usize = shape[2..].iter().product();
    let normalise = |(i, x): (usize, &f64)| {
        let c = i / inner % shape[1];
        (x - mean[c]) / (var[c] + eps).sqrt() * scale[c] + bias[c]
    };
    EvalTensor::floats(operands[0].elem().scalar, shape, x.iter().enumerate().map(normalise).collect())
}

/// `Softmax`, as differences to the largest so that nothing overflows.
pub fn softmax(x: &EvalTensor, axis: usize) -> EvalTensor {
    let (data, lanes) = (x.as_floats(), Lanes::new(x.shape(), axis));
    let mut result = vec![0.0; data.len()];
    for lane in 0..lanes.count() {
        let largest = lanes.positions(lane).map(|p| data[p]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = lanes.positions(lane).map(|p| (data[p] - largest).exp()).sum();
        lanes.positions(lane).for_each(|p| result[p] = (data[p] - largest).exp() / sum);
    }
    EvalTensor::floats(x.elem().scalar, x.shape(), result)
}

/// `TreeEnsemble`: row by row, tree by tree.
pub fn tree_ensemble(forest: &Forest, x: &EvalTensor) -> EvalTensor {
    let (data, features) = (x.as_floats(), forest.features as usize);
    let rows = x.shape()[0];
    let mut result = Vec::with_capacity(rows * forest.base.len());
    for row in 0..rows {
        let feature = |feature: u32| data[row * features + feature as usize] as f32;
        let mut sums: Vec<f32> = forest.base.iter().map(|base| base.get()).collect();
        for tree in &forest.trees {
            sums[tree.output as usize] += tree.value(feature);
        }
        result.extend(sums.into_iter().map(f64::from));
    }
    EvalTensor::floats(Scalar::F32, &[rows, forest.base.len()], result)
}

/// `CumSum` to elements of type `to`.
pub fn cum_sum(x: &EvalTensor, axis: usize, to: Elem) -> EvalTensor {
    let lanes = Lanes::new(x.shape(), axis);
    let mut result = vec![Datum::Null; x.len()];
    for lane in 0..lanes.count() {
        let mut before = Vec::new();
        for p in lanes.positions(lane) {
            before.push(x.get(p));
            result[p] = fold(ReduceOp::Sum, &before, to.scalar).unwrap_or_else(Datum::Fail);
        }
    }
    EvalTensor::new(to, x.shape(), result)
}

/// `ArgMax`, with NaN above all numbers.
pub fn arg_max(x: &EvalTensor, axis: usize) -> EvalTensor {
    let lanes = Lanes::new(x.shape(), axis);
    let first_largest = |lane: usize| {
        let mut best: Option<(usize, Datum)> = None;
        for (i, p) in lanes.positions(lane).enumerate() {
            let datum = x.get(p);
            if best.as_ref().is_none_or(|(_, b)| super::scalar::total_order(&datum, b) == std::cmp::Ordering::Greater) {
                best = Some((i, datum));
            }
        }
        best.map_or(Datum::Fail(FailKind::OutOfRange), |(i, _)| Datum::Int(i as i128))
    };
    let mut shape = x.shape().to_vec();
    shape.remove(axis);
    EvalTensor::new(Scalar::I64.required(), &shape, (0..lanes.count()).map(first_largest))
}

/// The lines of a tensor along one axis.
struct Lanes {
    outer: usize,
    extent: usize,
    inner: usize,
}

impl Lanes {
    fn new(shape: &[usize], axis: usize) -> Lanes {
        let (outer, inner) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
        Lanes { outer, extent: shape[axis], inner }
    }

    fn count(&self) -> usize {
        self.outer * self.inner
    }

    fn positions(&self, lane: usize) -> impl Iterator<Item = usize> + use<> {
        let first = lane / self.inner * self.extent * self.inner + lane % self.inner;
        let inner = self.inner;
        (0..self.extent).map(move |i| first + i * inner)
    }
}

/// `Reduce` of the ascending `axes` to elements of type `to`.
pub fn reduce(op: ReduceOp, axes: &[usize], keep: bool, x: &EvalTensor, to: Elem) -> EvalTensor {
    let strides = row_major(x.shape());
    let split = |folded: bool| -> (Vec<usize>, Vec<usize>) {
        let chosen = (0..x.shape().len()).filter(|axis| axes.contains(axis) == folded);
        chosen.map(|axis| (x.shape()[axis], strides[axis])).unzip()
    };
    let ((kept, kept_strides), (folded, folded_strides)) = (split(false), split(true));
    let mut data = Vec::new();
    for_each_index(&kept, |outer| {
        let mut values = Vec::new();
        for_each_index(&folded, |inner| values.push(x.get(dot(outer, &kept_strides) + dot(inner, &folded_strides))));
        data.push(fold(op, &values, to.scalar).unwrap_or_else(Datum::Fail));
    });
    let with_ones = |axis: usize| if axes.contains(&axis) { 1 } else { x.shape()[axis] };
    let shape = if keep { (0..x.shape().len()).map(with_ones).collect() } else { kept };
    EvalTensor::new(to, &shape, data)
}

/// Elements without NULLs folded into one. Nothing sums to 0, has the product 1, has the mean NaN, and the other end of the type as its
/// minimum or maximum.
fn fold(op: ReduceOp, values: &[Datum], to: Scalar) -> Outcome {
    if to.is_float() {
        let numbers = values.iter().map(|d| if let Datum::Float(x) = d { *x } else { unreachable!("{d:?}") });
        let result = match op {
            ReduceOp::Sum => numbers.sum(),
            ReduceOp::Prod => numbers.product(),
            ReduceOp::Mean => numbers.sum::<f64>() / values.len() as f64,
            ReduceOp::Min => numbers.fold(f64::INFINITY, f64::min),
            ReduceOp::Max => numbers.fold(f64::NEG_INFINITY, f64::max),
        };
        return Ok(Datum::Float(round_float(result, to)));
    }
    let mut numbers = values.iter().map(|d| if let Datum::Int(i) = d { *i } else { unreachable!("{d:?}") });
    let (lowest, highest) = int_range(to).expect("an integer type");
    let result = match op {
        ReduceOp::Sum => numbers.try_fold(0i128, i128::checked_add),
        ReduceOp::Prod => numbers.try_fold(1i128, i128::checked_mul),
        ReduceOp::Min => Some(numbers.min().unwrap_or(highest)),
        ReduceOp::Max => Some(numbers.max().unwrap_or(lowest)),
        ReduceOp::Mean => unreachable!("the mean of integers"),
    };
    fit(result, to, FailKind::Overflow)
}

/// Elements for a step along each dimension.
fn row_major(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

/// `Concat`.
pub fn concat(operands: &[&EvalTensor], axis: usize, to: Elem) -> EvalTensor {
    let mut shape = operands[0].shape().to_vec();
    shape[axis] = operands.iter().map(|t| t.shape()[axis]).sum();
    let outer: usize = shape[..axis].iter().product();
    let mut result = EvalTensor::build(to, &shape);
    for block in 0..outer {
        for operand in operands {
            let size: usize = operand.shape()[axis..].iter().product();
            (block * size..(block + 1) * size).for_each(|p| result.push(operand.get(p)));
        }
    }
    result
}

/// `Transpose`.
pub fn transpose(x: &EvalTensor, perm: &[usize]) -> EvalTensor {
    let from = row_major(x.shape());
    let shape: Vec<usize> = perm.iter().map(|&axis| x.shape()[axis]).collect();
    let strides: Vec<usize> = perm.iter().map(|&axis| from[axis]).collect();
    let mut result = EvalTensor::build(x.elem(), &shape);
    for_each_index(&shape, |index| result.push(x.get(dot(index, &strides))));
    result
}

/// `Slice`: the elements at `positions` along an axis.
pub fn slice(x: &EvalTensor, axis: usize, positions: &[usize]) -> EvalTensor {
    let mut shape = x.shape().to_vec();
    shape[axis] = positions.len();
    let from = row_major(x.shape());
    let mut result = EvalTensor::build(x.elem(), &shape);
    for_each_index(&shape, |index| {
        let mut index = index.to_vec();
        index[axis] = positions[index[axis]];
        result.push(x.get(dot(&index, &from)));
    });
    result
}

/// `Broadcast`.
pub fn broadcast(x: &EvalTensor, to: &[usize]) -> EvalTensor {
    let steps = broadcast_strides(x.shape(), to);
    let mut result = EvalTensor::build(x.elem(), to);
    for_each_index(to, |index| result.push(x.get(dot(index, &steps))));
    result
}

/// `Gather`.
pub fn gather(data: &EvalTensor, index: &EvalTensor, to: Elem) -> EvalTensor {
    let (extent, inner) = (data.shape()[0], data.shape()[1..].iter().product::<usize>());
    let shape: Vec<usize> = index.shape().iter().chain(&data.shape()[1..]).copied().collect();
    let mut result = EvalTensor::build(to, &shape);
    for at in index.iter() {
        for i in 0..inner {
            result.push(match &at {
                Datum::Int(row) if (0..extent as i128).contains(row) => data.get(*row as usize * inner + i),
                Datum::Int(_) => Datum::Fail(FailKind::OutOfRange),
                other => other.clone(),
            });
        }
    }
    result
}

/// `ScatterAdd`.
pub fn scatter_add(data: &EvalTensor, index: &EvalTensor, values: &EvalTensor) -> EvalTensor {
    let (extent, inner) = (data.shape()[0], data.shape()[1..].iter().product::<usize>());
    let mut sums = data.as_floats().to_vec();
    for (i, at) in index.iter().enumerate() {
        match at {
            Datum::Int(row) if (0..extent as i128).contains(&row) => {
                let row = row as usize;
                (0..inner).for_each(|j| sums[row * inner + j] += values.as_floats()[i * inner + j]);
            }
            _ => {
                let failed = (0..data.len()).map(|_| Datum::Fail(FailKind::OutOfRange));
                return EvalTensor::new(data.elem(), data.shape(), failed);
            }
        }
    }
    EvalTensor::floats(data.elem().scalar, data.shape(), sums)
}

/// `Stack`.
pub fn stack(operands: &[&EvalTensor], to: Elem) -> EvalTensor {
    let mut shape = operands[0].shape().to_vec();
    shape.push(operands.len());
    let mut result = EvalTensor::build(to, &shape);
    for i in 0..operands[0].len() {
        operands.iter().for_each(|t| result.push(t.get(i)));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_copies_and_running_sums() {
        let x = EvalTensor::floats(Scalar::F32, &[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let part = slice(&x, 1, &[2, 0]);
        assert_eq!((part.shape(), part.as_floats()), (&[2, 2][..], &[3.0, 1.0, 6.0, 4.0][..]));
        let copies = broadcast(&slice(&x, 0, &[1]), &[2, 3]);
        assert_eq!(copies.as_floats(), [4.0, 5.0, 6.0, 4.0, 5.0, 6.0]);
        let sums = cum_sum(&x, 1, x.elem());
        assert_eq!(sums.as_floats(), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
        assert_eq!(reduce(ReduceOp::Prod, &[0], false, &x, x.elem()).as_floats(), [4.0, 10.0, 18.0]);
    }
}
