//! Batch norm in training: by the mean and variance of the batch, which also move the running ones.

use quearn_stage::rep::{Float, Rep, Tensor};

/// Running mean and variance of a batch norm, two states [channels].
#[derive(Clone, Copy, Debug)]
pub struct Running<'s, T: Float> {
    /// Mean.
    pub mean: Rep<'s, Tensor<T>>,
    /// Variance.
    pub variance: Rep<'s, Tensor<T>>,
}

/// `nn.BatchNorm1d` or `2d` in training mode, over axis 1 of `x` [n, channels, ...]: (x - mean) / sqrt(variance + eps) * scale +
/// bias, where the variance is divided by the number of elements. The running values go `momentum` of the way to those of
/// the batch, that of the variance divided by one element less. All extents must be known.
#[track_caller]
pub fn batch_norm<'s, T: Float>(
    x: Rep<'s, Tensor<T>>,
    [scale, bias]: [Rep<'s, Tensor<T>>; 2],
    running: Running<'s, T>,
    momentum: f64,
    eps: f64,
) -> Rep<'s, Tensor<T>> {
    let s = x.stage();
    let [y, mean, variance] = x.batch_norm_training(scale, bias, eps);
    let others = x.shape().into_iter().enumerate().filter(|(axis, _)| *axis != 1);
    let count: u64 = others.filter_map(|(_, dim)| dim.as_const()).product();
    let toward = |old: Rep<'s, Tensor<T>>, new: Rep<'s, Tensor<T>>| {
        old * s.number::<T>(1.0 - momentum) + new * s.number::<T>(momentum)
    };
    let unbiased = count as f64 / count.saturating_sub(1).max(1) as f64;
    s.update(running.mean, toward(running.mean, mean));
    s.update(running.variance, toward(running.variance, variance * s.number::<T>(unbiased)));
    y
}
