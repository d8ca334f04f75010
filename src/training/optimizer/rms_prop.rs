//! RMSProp: gradients over the root of a running mean of their squares.

use super::{Moment, Next, Parameter, Slot};
use quearn_stage::rep::{Float, Rep, Tensor};
use serde::{Deserialize, Serialize};

/// `torch.optim.RMSprop`, with its defaults.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct RmsProp {
    /// How much of the running means stays in a step.
    pub alpha: f64,
    /// Added to the root.
    pub eps: f64,
    /// Weight decay, as an addition to the gradient.
    pub weight_decay: f64,
    /// How much of the former direction stays; 0: none is kept.
    pub momentum: f64,
    /// Divide by the deviation, not by the root of the mean square.
    pub centered: bool,
}

impl Default for RmsProp {
    fn default() -> RmsProp {
        RmsProp { alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }
}

impl RmsProp {
    pub(super) fn slots(&self) -> Vec<Slot> {
        let centered = self.centered.then_some(Slot::zeros("mean"));
        let momentum = (self.momentum > 0.0).then_some(Slot::zeros("momentum"));
        [Some(Slot::zeros("squares")), centered, momentum].into_iter().flatten().collect()
    }

    #[track_caller]
    pub(super) fn step<'s, T: Float>(&self, moment: Moment<'s>, p: Parameter<'_, 's, T>) -> Next<'s, T> {
        let mut before = p.slots.iter().copied();
        let Some(squares) = before.next() else { return Next { value: p.value, slots: vec![] } };
        let gradient = p.decayed(self.weight_decay);
        let rate: Rep<'s, Tensor<T>> = moment.rate.cast::<T>();
        let (kept, new) = (p.number(self.alpha), p.number(1.0 - self.alpha));
        let squares = moment.next(squares, squares * kept + gradient * gradient * new);
        let mut slots = vec![squares];
        let mut variance = squares;
        if self.centered
            && let Some(mean) = before.next()
        {
            let mean = moment.next(mean, mean + (gradient - mean) * new);
            variance = squares - mean * mean;
            slots.push(mean);
        }
        let mut along = gradient / (variance.sqrt() + p.number(self.eps));
        if let Some(direction) = before.next() {
            along = moment.next(direction, direction * p.number(self.momentum) + along);
            slots.push(along);
        }
        Next { value: moment.next(p.value, p.value - rate * along), slots }
    }
}
