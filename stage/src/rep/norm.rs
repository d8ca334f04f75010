//! Normalisations that are spelled out in other operators, so that they have derivatives and fuse as these do.

use super::marker::{ElementMarker, FloatLike, Tensor};
use super::stage::Rep;
use crate::graph::{Dim, Literal, Op, ReduceOp};

impl<'s, T: ElementMarker + FloatLike<Quotient: ElementMarker>> Rep<'s, Tensor<T>> {
    /// A number of the tensor's own type.
    #[track_caller]
    pub(super) fn number_like(self, value: f64) -> Rep<'s, Tensor<T>> {
        let scalar = self.ty().and_then(|ty| Some(ty.as_tensor()?.0.scalar));
        match scalar.and_then(|scalar| Literal::float(scalar, value)) {
            Some(number) => self.stage().make(Op::Const(number), &[]),
            None => self.stage().poisoned(),
        }
    }

    /// A reduction of some axes that stay with extent 1, so that the result broadcasts against the operand.
    #[track_caller]
    pub(super) fn reduce_keeping(self, op: ReduceOp, axes: Vec<usize>) -> Rep<'s, Tensor<T>> {
        self.stage().make(Op::Reduce { op, axes, keep: true }, &[self.dyn_()])
    }

    /// The logarithm of the softmax along an axis, without overflow for large elements.
    #[track_caller]
    pub fn log_softmax(self, axis: usize) -> Rep<'s, Tensor<T>> {
        let largest = self.reduce_keeping(ReduceOp::Max, vec![axis]).detach();
        let shifted = self - largest;
        shifted - shifted.exp().reduce_keeping(ReduceOp::Sum, vec![axis]).log()
    }

    /// Batch normalisation in training: `[n, c, ..]` normalised by the mean and the (biased) variance of each channel of
    /// this batch, times `scale [c]` plus `bias [c]`. Gives the result, and the means and variances `[c]`, from which
    /// running averages for [`Rep::batch_norm`] are made.
    #[track_caller]
    pub fn batch_norm_training(
        self,
        scale: Rep<'s, Tensor<T>>,
        bias: Rep<'s, Tensor<T>>,
        eps: f64,
    ) -> [Rep<'s, Tensor<T>>; 3] {
        let shape = self.shape();
        let channels: Vec<Dim> =
            shape.iter().enumerate().skip(1).map(|(i, dim)| if i == 1 { dim.clone() } else { Dim::Const(1) }).collect();
        let axes: Vec<usize> = (0..shape.len()).filter(|&axis| axis != 1).collect();
        let mean = self.mean(axes.clone());
        let away = self - mean.reshape(channels.clone());
        let var = (away * away).mean(axes);
        let deviation: Rep<'s, Tensor<T>> = (var.reshape(channels.clone()) + self.number_like(eps)).sqrt();
        let normal = (away / deviation).retag::<Tensor<T>>();
        [normal * scale.reshape(channels.clone()) + bias.reshape(channels), mean, var]
    }
}
