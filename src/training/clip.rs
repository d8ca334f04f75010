//! Gradients that are too large are made smaller.

use quearn_stage::rep::{Float, Rep, Tensor};
use serde::{Deserialize, Serialize};

/// How gradients are limited.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// All of them are scaled down so that the root of the sum of all squares is at most this
    /// (`torch.nn.utils.clip_grad_norm_`).
    Norm(f64),
    /// Each element is brought between minus this and this (`torch.nn.utils.clip_grad_value_`).
    Value(f64),
}

/// What PyTorch adds to a norm before it divides by it.
const NORM_EPS: f64 = 1e-6;

impl Clip {
    /// The limited gradients; what is NaN stays so.
    #[track_caller]
    pub fn apply<'s, T: Float>(self, gradients: &[Rep<'s, Tensor<T>>]) -> Vec<Rep<'s, Tensor<T>>> {
        let Some(stage) = gradients.first().map(|gradient| gradient.stage()) else { return vec![] };
        match self {
            Clip::Norm(most) => {
                let Some(norm) = norm(gradients) else { return vec![] };
                let scale = stage.number::<T>(most) / (norm + stage.number::<T>(NORM_EPS));
                let scale = scale.gt(stage.number::<T>(1.0)).choose(stage.number::<T>(1.0), scale);
                gradients.iter().map(|&gradient| gradient * scale).collect()
            }
            Clip::Value(most) => {
                let (low, high) = (stage.number::<T>(-most), stage.number::<T>(most));
                let limited = |&gradient: &Rep<'s, Tensor<T>>| {
                    let below = gradient.gt(high).choose(high, gradient);
                    gradient.lt(low).choose(low, below)
                };
                gradients.iter().map(limited).collect()
            }
        }
    }
}

/// The root of the sum of all squares; none of no gradients.
#[track_caller]
pub fn norm<'s, T: Float>(gradients: &[Rep<'s, Tensor<T>>]) -> Option<Rep<'s, Tensor<T>>> {
    let squares = |&gradient: &Rep<'s, Tensor<T>>| -> Rep<'s, Tensor<T>> {
        let axes = 0..gradient.shape().len();
        (gradient * gradient).sum(axes)
    };
    gradients.iter().map(squares).reduce(|a, b| a + b).map(|sum| sum.sqrt())
}
