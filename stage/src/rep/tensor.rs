//! Tensor operators. Their operands must not be NULL unless an operator says otherwise.

use super::constant::IntoRep;
use super::marker::{Bool, Dyn, ElementMarker, F32, FloatLike, I8, I32, I64, ScalarMarker, Summable, Tensor, U8};
use super::stage::{Rep, Stage};
use crate::graph::foreign::Signature;
use crate::graph::{Conv2d, Dim, Forest, Op, Pool2d, PoolKind, ReduceOp, Shape};
use std::sync::Arc;

/// An extent known now (`u64`), or the name of one known when the program runs (`&str`).
pub trait IntoDim {
    /// The dimension.
    fn into_dim(self) -> Dim;
}

impl IntoDim for u64 {
    fn into_dim(self) -> Dim {
        Dim::Const(self)
    }
}

impl IntoDim for &str {
    fn into_dim(self) -> Dim {
        Dim::Named(self.to_owned())
    }
}

impl IntoDim for Dim {
    fn into_dim(self) -> Dim {
        self
    }
}

/// Extents, outermost first: `[64, 3, 3, 3]`, `("batch", 3, 224, 224)` or a vector.
pub trait IntoShape {
    /// The shape.
    fn into_shape(self) -> Shape;
}

impl<D: IntoDim, const N: usize> IntoShape for [D; N] {
    fn into_shape(self) -> Shape {
        self.into_iter().map(D::into_dim).collect()
    }
}

impl<D: IntoDim> IntoShape for Vec<D> {
    fn into_shape(self) -> Shape {
        self.into_iter().map(D::into_dim).collect()
    }
}

macro_rules! tuple_shapes {
    ($(($($dim:ident),*);)*) => {
        $(
            impl<$($dim: IntoDim),*> IntoShape for ($($dim,)*) {
                #[allow(non_snake_case, reason = "type parameters name the fields")]
                fn into_shape(self) -> Shape {
                    let ($($dim,)*) = self;
                    vec![$($dim.into_dim()),*]
                }
            }
        )*
    };
}

tuple_shapes! {
    (A);
    (A, B);
    (A, B, C);
    (A, B, C, D);
    (A, B, C, D, E);
}

/// The window of a pooling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Extents, `[vertical, horizontal]`.
    pub kernel: [u64; 2],
    /// Steps.
    pub stride: [u64; 2],
    /// Padding before and after each axis.
    pub padding: [u64; 2],
    /// Round the output extent up.
    pub ceil: bool,
}

impl Window {
    /// A square window that moves by its own extent, without padding.
    pub fn square(extent: u64) -> Window {
        Window { kernel: [extent; 2], stride: [extent; 2], padding: [0; 2], ceil: false }
    }

    /// The same with other steps.
    pub fn stride(self, stride: u64) -> Window {
        Window { stride: [stride; 2], ..self }
    }

    /// The same with padding before and after each axis.
    pub fn padding(self, padding: u64) -> Window {
        Window { padding: [padding; 2], ..self }
    }

    /// The same with the output extent rounded up.
    pub fn ceil(self) -> Window {
        Window { ceil: true, ..self }
    }

    fn pool(self, kind: PoolKind) -> Pool2d {
        let Window { kernel, stride, padding, ceil } = self;
        Pool2d { kind, kernel, stride, padding, ceil }
    }
}

impl Stage {
    /// What a function of another library, which the session has under this name, gives for these operands; see
    /// [`Signature`]. A function of the session with another signature is an error when the program is compiled.
    #[track_caller]
    pub fn foreign<'s, T: ScalarMarker>(
        &'s self,
        name: impl Into<String>,
        signature: Signature,
        operands: impl IntoIterator<Item = Rep<'s, Dyn>>,
    ) -> Rep<'s, Tensor<T>> {
        let operands: Vec<_> = operands.into_iter().collect();
        let made: Rep<'s, Tensor<T>> = self.make(Op::Foreign { name: name.into(), signature }, &operands);
        made.checked("foreign", "the result")
    }
}

impl<'s, T: ElementMarker> Rep<'s, Tensor<T>> {
    /// The extents; empty after a mistake.
    pub fn shape(self) -> Shape {
        let ty = self.ty();
        ty.and_then(|ty| ty.as_tensor().map(|(_, shape)| shape.to_vec())).unwrap_or_default()
    }

    #[track_caller]
    fn apply<U>(self, op: Op) -> Rep<'s, U> {
        self.stage().make(op, &[self.dyn_()])
    }

    /// The same elements in row-major order under another shape. NULLs pass.
    #[track_caller]
    pub fn reshape(self, shape: impl IntoShape) -> Rep<'s, Tensor<T>> {
        self.apply(Op::Reshape(shape.into_shape()))
    }

    /// The dimensions from `first` on as one; all of those must be known. NULLs pass.
    #[track_caller]
    pub fn flatten_from(self, first: usize) -> Rep<'s, Tensor<T>> {
        let mut shape = self.shape();
        let last = shape.split_off(first.min(shape.len()));
        match last.iter().map(Dim::as_const).try_fold(1u64, |product, extent| product.checked_mul(extent?)) {
            Some(extent) => shape.push(Dim::Const(extent)),
            None => shape.extend(last),
        }
        self.reshape(shape)
    }

    /// Dimension `i` of the result is dimension `axes[i]`. NULLs pass.
    #[track_caller]
    pub fn permute(self, axes: impl IntoIterator<Item = usize>) -> Rep<'s, Tensor<T>> {
        self.apply(Op::Transpose(axes.into_iter().collect()))
    }

    /// The last two dimensions swapped. NULLs pass.
    #[track_caller]
    pub fn transpose(self) -> Rep<'s, Tensor<T>> {
        let mut axes: Vec<usize> = (0..self.shape().len()).collect();
        match axes[..] {
            [.., _, _] => {
                let last = axes.len() - 1;
                axes.swap(last - 1, last);
                self.permute(axes)
            }
            _ if self.node().is_none() => self,
            _ => self.stage().fail("tensor.transpose", "needs two dimensions or more"),
        }
    }

    /// This tensor and others joined along an axis; the other extents agree. NULLs pass.
    #[track_caller]
    pub fn concat(self, others: impl IntoIterator<Item = Rep<'s, Tensor<T>>>, axis: usize) -> Rep<'s, Tensor<T>> {
        let inputs: Vec<_> = std::iter::once(self).chain(others).map(Rep::dyn_).collect();
        self.stage().make(Op::Concat { axis }, &inputs)
    }

    /// `self[index[i..], ..]`: the shape of `index`, then that of `self` without its first dimension. An index outside
    /// is an error when the program runs. NULLs pass.
    #[track_caller]
    pub fn gather<I: ElementMarker>(self, index: Rep<'s, Tensor<I>>) -> Rep<'s, Tensor<T>> {
        self.stage().make(Op::Gather, &[self.dyn_(), index.dyn_()])
    }

    /// `count` elements along an axis, from `start` in steps of `step`, which may be negative. NULLs pass.
    #[track_caller]
    pub fn slice(self, axis: usize, start: u64, step: i64, count: u64) -> Rep<'s, Tensor<T>> {
        self.apply(Op::Slice { axis, start, step, count })
    }

    /// Repeated along dimensions of extent 1 and missing leading ones. NULLs pass.
    #[track_caller]
    pub fn broadcast(self, shape: impl IntoShape) -> Rep<'s, Tensor<T>> {
        self.apply(Op::Broadcast(shape.into_shape()))
    }

    /// Position of the first largest element along an axis; NaN is above all numbers.
    #[track_caller]
    pub fn arg_max(self, axis: usize) -> Rep<'s, Tensor<I64>> {
        self.apply(Op::ArgMax { axis })
    }

    /// The largest element in each window of images [n, c, h, w].
    #[track_caller]
    pub fn max_pool2d(self, window: Window) -> Rep<'s, Tensor<T>> {
        self.apply(Op::Pool2d(window.pool(PoolKind::Max)))
    }

    #[track_caller]
    fn reduce<U>(self, op: ReduceOp, axes: impl IntoIterator<Item = usize>) -> Rep<'s, U> {
        let mut axes: Vec<usize> = axes.into_iter().collect();
        axes.sort_unstable();
        self.apply(Op::Reduce { op, axes, keep: false })
    }

    /// The smallest element along some axes, which go.
    #[track_caller]
    pub fn min(self, axes: impl IntoIterator<Item = usize>) -> Rep<'s, Tensor<T>> {
        self.reduce(ReduceOp::Min, axes)
    }

    /// The largest element along some axes, which go.
    #[track_caller]
    pub fn max(self, axes: impl IntoIterator<Item = usize>) -> Rep<'s, Tensor<T>> {
        self.reduce(ReduceOp::Max, axes)
    }
}

impl<'s> Rep<'s, Tensor<Bool>> {
    /// Element by element, the first value where this is true and the second where it is false; both may be evaluated.
    #[track_caller]
    pub fn choose<T: ElementMarker>(
        self,
        then: impl IntoRep<'s, Tensor<T>>,
        otherwise: impl IntoRep<'s, Tensor<T>>,
    ) -> Rep<'s, Tensor<T>> {
        let [then, otherwise] = [then.into_rep(self.stage()), otherwise.into_rep(self.stage())].map(Rep::dyn_);
        self.stage().make(Op::Select, &[self.dyn_(), then, otherwise])
    }
}

impl<'s, T: ElementMarker + Summable> Rep<'s, Tensor<T>> {
    /// The sum along some axes, which go; integers give i64.
    #[track_caller]
    pub fn sum(self, axes: impl IntoIterator<Item = usize>) -> Rep<'s, Tensor<T::Sum>> {
        self.reduce(ReduceOp::Sum, axes)
    }

    /// The product along some axes, which go; integers give i64.
    #[track_caller]
    pub fn product(self, axes: impl IntoIterator<Item = usize>) -> Rep<'s, Tensor<T::Sum>> {
        self.reduce(ReduceOp::Prod, axes)
    }

    /// The sum of the elements up to each one along an axis; integers give i64.
    #[track_caller]
    pub fn cum_sum(self, axis: usize) -> Rep<'s, Tensor<T::Sum>> {
        self.apply(Op::CumSum { axis })
    }
}

impl<'s> Rep<'s, Tensor<F32>> {
    /// For each row of features `[n, features]` the sums of the leaves that it comes to, `[n, outputs]`. NULLs are an error.
    #[track_caller]
    pub fn tree_ensemble(self, forest: Forest) -> Rep<'s, Tensor<F32>> {
        self.apply(Op::TreeEnsemble(Arc::new(forest)))
    }
}

impl<'s> Rep<'s, Tensor<U8>> {
    /// Matrix product with one matrix `[k, n]` of signed bytes; sums are exact, `k` is at most 65,793.
    #[track_caller]
    pub fn matmul_integer(self, other: Rep<'s, Tensor<I8>>) -> Rep<'s, Tensor<I32>> {
        self.stage().make(Op::MatMul, &[self.dyn_(), other.dyn_()])
    }

    /// Convolution of images `[n, c, h, w]` with a weight `[o, c / groups, kh, kw]` of signed bytes; padding counts as 0,
    /// sums are exact, of at most 65,793 products.
    #[track_caller]
    pub fn conv2d_integer(self, weight: Rep<'s, Tensor<I8>>, conv: Conv2d) -> Rep<'s, Tensor<I32>> {
        self.stage().make(Op::Conv2d(conv), &[self.dyn_(), weight.dyn_()])
    }
}

impl<'s, T: ElementMarker + FloatLike> Rep<'s, Tensor<T>> {
    /// The mean along some axes, which go.
    #[track_caller]
    pub fn mean(self, axes: impl IntoIterator<Item = usize>) -> Rep<'s, Tensor<T>> {
        self.reduce(ReduceOp::Mean, axes)
    }

    /// `values[i.., ..]` added to `self[index[i..], ..]`, also where indices are equal: `values` has the shape of `index`,
    /// then that of `self` without its first dimension. An index outside is an error when the program runs.
    #[track_caller]
    pub fn scatter_add<I: ElementMarker>(
        self,
        index: Rep<'s, Tensor<I>>,
        values: Rep<'s, Tensor<T>>,
    ) -> Rep<'s, Tensor<T>> {
        self.stage().make(Op::ScatterAdd, &[self.dyn_(), index.dyn_(), values.dyn_()])
    }

    /// Matrix product of the last two dimensions; leading ones broadcast.
    #[track_caller]
    pub fn matmul(self, other: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
        self.stage().make(Op::MatMul, &[self.dyn_(), other.dyn_()])
    }

    /// Convolution of images `[n, c, h, w]` with a weight `[o, c / groups, kh, kw]` and perhaps a bias `[o]`.
    #[track_caller]
    pub fn conv2d(
        self,
        weight: Rep<'s, Tensor<T>>,
        bias: Option<Rep<'s, Tensor<T>>>,
        conv: Conv2d,
    ) -> Rep<'s, Tensor<T>> {
        let inputs: Vec<_> = [self, weight].into_iter().chain(bias).map(Rep::dyn_).collect();
        self.stage().make(Op::Conv2d(conv), &inputs)
    }

    /// What a convolution of images `self [n, c, h, w]` with filters of these extents adds to their adjoint where that of its
    /// result is `adjoint [n, o, oh, ow]`: `[o, c / groups, kh, kw]`.
    #[track_caller]
    pub fn conv2d_filters(self, adjoint: Rep<'s, Tensor<T>>, kernel: [u64; 2], conv: Conv2d) -> Rep<'s, Tensor<T>> {
        self.stage().make(Op::Conv2dFilters { conv, kernel }, &[self.dyn_(), adjoint.dyn_()])
    }

    /// Zeros of the shape of images `self [n, c, h, w]`, to which each element of `values`, of the shape of
    /// [`max_pool2d`](Rep::max_pool2d) of them, is added where its window has its first largest element; nowhere if the window
    /// has a NaN.
    #[track_caller]
    pub fn max_unpool2d(self, values: Rep<'s, Tensor<T>>, window: Window) -> Rep<'s, Tensor<T>> {
        self.stage().make(Op::MaxUnpool2d(window.pool(PoolKind::Max)), &[self.dyn_(), values.dyn_()])
    }

    /// The mean of each window of images [n, c, h, w]; padding does not count.
    #[track_caller]
    pub fn avg_pool2d(self, window: Window) -> Rep<'s, Tensor<T>> {
        self.apply(Op::Pool2d(window.pool(PoolKind::Avg)))
    }

    /// (x - mean) / sqrt(var + eps) * scale + bias for each channel (dimension 1).
    #[track_caller]
    pub fn batch_norm(
        self,
        scale: Rep<'s, Tensor<T>>,
        bias: Rep<'s, Tensor<T>>,
        mean: Rep<'s, Tensor<T>>,
        var: Rep<'s, Tensor<T>>,
        eps: f64,
    ) -> Rep<'s, Tensor<T>> {
        let inputs = [self, scale, bias, mean, var].map(Rep::dyn_);
        self.stage().make(Op::BatchNorm { eps: eps.to_bits() }, &inputs)
    }

    /// e^x over its sum along an axis.
    #[track_caller]
    pub fn softmax(self, axis: usize) -> Rep<'s, Tensor<T>> {
        self.apply(Op::Softmax { axis })
    }
}
