//! Adagrad: steps become smaller where gradients have been large.

use super::{Moment, Next, Parameter, Slot};
use quearn_stage::rep::{Float, Rep, Tensor};
use serde::{Deserialize, Serialize};

/// `torch.optim.Adagrad`, with its defaults.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Adagrad {
    /// The rate is divided by 1 plus this times the number of steps before.
    pub rate_decay: f64,
    /// Weight decay, as an addition to the gradient.
    pub weight_decay: f64,
    /// The sum of squares before the first step.
    pub initial: f64,
    /// Added to the root of the sum.
    pub eps: f64,
}

impl Default for Adagrad {
    fn default() -> Adagrad {
        Adagrad { rate_decay: 0.0, weight_decay: 0.0, initial: 0.0, eps: 1e-10 }
    }
}

impl Adagrad {
    pub(super) fn slots(&self) -> Vec<Slot> {
        vec![Slot { name: "squares", initial: self.initial }]
    }

    #[track_caller]
    pub(super) fn step<'s, T: Float>(&self, moment: Moment<'s>, p: Parameter<'_, 's, T>) -> Next<'s, T> {
        let Some(&before) = p.slots.first() else { return Next { value: p.value, slots: vec![] } };
        let gradient = p.decayed(self.weight_decay);
        let rate = match self.rate_decay {
            0.0 => moment.rate,
            decay => moment.rate / (1.0 + (moment.step - 1.0) * decay),
        };
        let rate: Rep<'s, Tensor<T>> = rate.cast::<T>();
        let squares = moment.next(before, before + gradient * gradient);
        let value = p.value - rate * (gradient / (squares.sqrt() + p.number(self.eps)));
        Next { value: moment.next(p.value, value), slots: vec![squares] }
    }
}
