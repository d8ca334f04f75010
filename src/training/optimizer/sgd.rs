//! Stochastic gradient descent, with momentum and in Nesterov's variant.

use super::{Moment, Next, Parameter, Slot};
use quearn_stage::rep::{Float, Rep, Tensor};
use serde::{Deserialize, Serialize};

/// `torch.optim.SGD`; by default without momentum.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Sgd {
    /// How much of the former direction stays; 0: nothing is kept.
    pub momentum: f64,
    /// How much of the gradient is left out of the direction, from the second step on.
    pub dampening: f64,
    /// Look ahead along the new direction (Nesterov); has a meaning with momentum only.
    pub nesterov: bool,
    /// Weight decay, as an addition to the gradient.
    pub weight_decay: f64,
}

impl Sgd {
    /// With momentum.
    pub fn momentum(momentum: f64) -> Sgd {
        Sgd { momentum, ..Sgd::default() }
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        if self.momentum == 0.0 { vec![] } else { vec![Slot::zeros("momentum")] }
    }

    #[track_caller]
    pub(super) fn step<'s, T: Float>(&self, moment: Moment<'s>, p: Parameter<'_, 's, T>) -> Next<'s, T> {
        let gradient = p.decayed(self.weight_decay);
        let rate: Rep<'s, Tensor<T>> = moment.rate.cast::<T>();
        let Some(&before) = p.slots.first() else {
            return Next { value: moment.next(p.value, p.value - rate * gradient), slots: vec![] };
        };
        let mut added = gradient;
        if self.dampening != 0.0 {
            added = moment.step.le(1.0).choose(gradient, gradient * p.number(1.0 - self.dampening));
        }
        let direction = moment.next(before, before * p.number(self.momentum) + added);
        let along = if self.nesterov { gradient + direction * p.number(self.momentum) } else { direction };
        Next { value: moment.next(p.value, p.value - rate * along), slots: vec![direction] }
    }
}
