//! Losses: how far a prediction is off, as one number, the mean over all predictions.
//!
//! They are spelled out in other operators, so that gradients go through them and they fuse with what is around. The mean
//! of no predictions is NaN.

use super::marker::{ElementMarker, FloatLike, I64, Tensor};
use super::stage::Rep;
use crate::graph::{Dim, Op, ReduceOp};

impl<'s, T: ElementMarker + FloatLike<Quotient: ElementMarker>> Rep<'s, Tensor<T>> {
    /// The mean of all elements, a scalar.
    #[track_caller]
    pub fn mean_of_all(self) -> Rep<'s, Tensor<T>> {
        self.mean(0..self.shape().len())
    }

    /// Cross-entropy of `self [.., classes]`, scores of any size (logits), against the integers `targets [..]`, the
    /// numbers of the right classes: the mean of `-log softmax(scores)[target]`. A target outside is an error when the
    /// program runs.
    #[track_caller]
    pub fn cross_entropy<I: ElementMarker>(self, targets: Rep<'s, Tensor<I>>) -> Rep<'s, Tensor<T>> {
        let Some(axis) = self.last_axis("cross_entropy") else { return self.stage().poisoned() };
        let largest = self.reduce_keeping(ReduceOp::Max, vec![axis]).detach();
        let shifted = self - largest;
        let total = shifted.exp().sum_of_last().log();
        (total - shifted.pick(axis, targets)).mean_of_all()
    }

    /// Negative log-likelihood: the mean of `-self[target]`, where `self [.., classes]` holds logarithms of probabilities,
    /// as [`Rep::log_softmax`] gives them, and `targets [..]` the numbers of the right classes. A target outside is an
    /// error when the program runs.
    #[track_caller]
    pub fn nll<I: ElementMarker>(self, targets: Rep<'s, Tensor<I>>) -> Rep<'s, Tensor<T>> {
        let Some(axis) = self.last_axis("nll") else { return self.stage().poisoned() };
        -self.pick(axis, targets).mean_of_all()
    }

    /// Mean squared error against `targets`; shapes broadcast.
    #[track_caller]
    pub fn mse(self, targets: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
        let away = self - targets;
        (away * away).mean_of_all()
    }

    /// Mean absolute error against `targets`; shapes broadcast.
    #[track_caller]
    pub fn l1(self, targets: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
        (self - targets).abs().mean_of_all()
    }

    /// Binary cross-entropy of scores of any size (logits) against `targets` between 0 and 1: the mean of
    /// `-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))`; shapes broadcast.
    #[track_caller]
    pub fn bce_with_logits(self, targets: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
        // log(1 + e^x) with the larger of both exponents taken out, so that nothing overflows.
        let largest = self.relu().detach();
        let total = ((-largest).exp() + (self - largest).exp()).log() + largest;
        (total - self * targets).mean_of_all()
    }

    #[track_caller]
    fn last_axis(self, op: &str) -> Option<usize> {
        let last = self.shape().len().checked_sub(1);
        if last.is_none() && self.node().is_some() {
            self.stage().fail::<T>(op, "needs a dimension of classes");
        }
        last
    }

    /// The sum along the last axis, which goes.
    #[track_caller]
    fn sum_of_last(self) -> Rep<'s, Tensor<T>> {
        let axes = self.shape().len().checked_sub(1).into_iter().collect();
        self.stage().make(Op::Reduce { op: ReduceOp::Sum, axes, keep: false }, &[self.dyn_()])
    }

    /// `self[.., target]` along the last axis.
    #[track_caller]
    fn pick<I: ElementMarker>(self, axis: usize, targets: Rep<'s, Tensor<I>>) -> Rep<'s, Tensor<T>> {
        let Some(classes) = self.shape()[axis].as_const() else {
            return self.stage().fail("loss", "the number of classes must be known when the program is built");
        };
        let numbers = self.stage().iota(classes);
        // The look-up is where a target outside is noticed.
        let checked: Rep<'s, Tensor<I64>> = numbers.gather(targets);
        let mut shape = checked.shape();
        shape.push(Dim::Const(1));
        let is_target = numbers.eq(checked.reshape(shape));
        is_target.choose(self, self.number_like(0.0)).sum_of_last()
    }
}
