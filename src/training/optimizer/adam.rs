//! Adam, with weight decay in the gradient or (AdamW) beside it.

use super::{Moment, Next, Parameter, Slot};
use quearn_stage::rep::{Float, Rep, Tensor};
use serde::{Deserialize, Serialize};

/// `torch.optim.Adam`, with its defaults.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Adam {
    /// How much of the running means of gradients and of their squares stays in a step.
    pub betas: [f64; 2],
    /// Added to the root.
    pub eps: f64,
    /// Weight decay, as an addition to the gradient.
    pub weight_decay: f64,
    /// Divide by the largest mean square so far.
    pub amsgrad: bool,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, amsgrad: false }
    }
}

/// `torch.optim.AdamW`, with its defaults: parameters shrink by the learning rate times the weight decay, apart from the
/// gradient.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct AdamW {
    /// How much of the running means of gradients and of their squares stays in a step.
    pub betas: [f64; 2],
    /// Added to the root.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Divide by the largest mean square so far.
    pub amsgrad: bool,
}

impl Default for AdamW {
    fn default() -> AdamW {
        let Adam { betas, eps, amsgrad, .. } = Adam::default();
        AdamW { betas, eps, weight_decay: 1e-2, amsgrad }
    }
}

impl Adam {
    pub(super) fn slots(&self) -> Vec<Slot> {
        let most = self.amsgrad.then_some(Slot::zeros("most"));
        [Some(Slot::zeros("mean")), Some(Slot::zeros("squares")), most].into_iter().flatten().collect()
    }

    #[track_caller]
    pub(super) fn step<'s, T: Float>(&self, moment: Moment<'s>, p: Parameter<'_, 's, T>) -> Next<'s, T> {
        self.along(moment, &p, p.decayed(self.weight_decay), p.value)
    }

    /// The step from `value`, which is the parameter or what decay has left of it, along a gradient.
    #[track_caller]
    fn along<'s, T: Float>(
        &self,
        moment: Moment<'s>,
        p: &Parameter<'_, 's, T>,
        gradient: Rep<'s, Tensor<T>>,
        value: Rep<'s, Tensor<T>>,
    ) -> Next<'s, T> {
        let &[mean, squares, ..] = p.slots else { return Next { value, slots: vec![] } };
        let [beta1, beta2] = self.betas;
        let mean = moment.next(mean, mean + (gradient - mean) * p.number(1.0 - beta1));
        let new = squares * p.number(beta2) + gradient * gradient * p.number(1.0 - beta2);
        let squares = moment.next(squares, new);
        let mut slots = vec![mean, squares];
        let mut under = squares;
        if let Some(&most) = p.slots.get(2) {
            under = moment.next(most, most.maximum(squares));
            slots.push(under);
        }
        // The means begin at 0: what they lack by that. These are scalars, and as exact as in PyTorch.
        let stage = p.value.stage();
        let lacks = |beta: f64| 1.0 - stage.number(beta).pow(moment.step);
        let size: Rep<'s, Tensor<T>> = (moment.rate / lacks(beta1)).cast::<T>();
        let root: Rep<'s, Tensor<T>> = lacks(beta2).sqrt().cast::<T>();
        let value = value - size * (mean / (under.sqrt() / root + p.number(self.eps)));
        Next { value: moment.next(p.value, value), slots }
    }
}

impl AdamW {
    /// The optimiser that it is but for the decay.
    pub(super) fn adam(&self) -> Adam {
        let AdamW { betas, eps, amsgrad, .. } = *self;
        Adam { betas, eps, weight_decay: 0.0, amsgrad }
    }

    #[track_caller]
    pub(super) fn step<'s, T: Float>(&self, moment: Moment<'s>, p: Parameter<'_, 's, T>) -> Next<'s, T> {
        let kept: Rep<'s, Tensor<T>> = (1.0 - moment.rate * self.weight_decay).cast::<T>();
        self.adam().along(moment, &p, p.gradient, p.value * kept)
    }
}
