//! Optimisers: the next value of a parameter from the present one, its gradient, and what is kept of former gradients.
//!
//! The formulas are those of `torch.optim`, in the order in which PyTorch rounds. They are written over staged tensors, so
//! that they become part of the program that computes the gradients.

mod adagrad;
mod adam;
mod rms_prop;
mod sgd;

pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use rms_prop::RmsProp;
pub use sgd::Sgd;

use quearn_stage::rep::{Bool, F64, Float, Rep, Tensor};
use serde::{Deserialize, Serialize};

/// An optimiser with its settings.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Optimizer {
    /// `torch.optim.SGD`.
    Sgd(Sgd),
    /// `torch.optim.Adagrad`.
    Adagrad(Adagrad),
    /// `torch.optim.RMSprop`.
    RmsProp(RmsProp),
    /// `torch.optim.Adam`.
    Adam(Adam),
    /// `torch.optim.AdamW`.
    AdamW(AdamW),
}

macro_rules! from_settings {
    ($($name:ident),*) => {
        $(
            impl From<$name> for Optimizer {
                fn from(settings: $name) -> Optimizer {
                    Optimizer::$name(settings)
                }
            }
        )*
    };
}

from_settings!(Sgd, Adagrad, RmsProp, Adam, AdamW);

/// A tensor of a parameter's shape that an optimiser keeps from step to step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Slot {
    /// What it is called; the whole name is `PARAMETER.NAME`.
    pub name: &'static str,
    /// The value of its elements before the first step.
    pub initial: f64,
}

impl Slot {
    /// One that begins as zeros.
    const fn zeros(name: &'static str) -> Slot {
        Slot { name, initial: 0.0 }
    }
}

/// What changes from step to step and is the same for all parameters: scalars.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'s> {
    /// Learning rate.
    pub rate: Rep<'s, Tensor<F64>>,
    /// Number of the step, from 1.
    pub step: Rep<'s, Tensor<F64>>,
    /// Where this is false, nothing changes.
    pub go_on: Option<Rep<'s, Tensor<Bool>>>,
}

impl<'s> Moment<'s> {
    /// The next value of something, or the present one where nothing changes. What follows from the next value is computed from the
    /// result, so that the next value is not kept beside it.
    fn next<T: Float>(&self, now: Rep<'s, Tensor<T>>, next: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
        self.go_on.map_or(next, |go_on| go_on.choose(next, now))
    }
}

/// A parameter in a step: its value, its gradient, and the optimiser's slots in their order.
#[derive(Clone, Copy, Debug)]
pub struct Parameter<'a, 's, T: Float> {
    /// Present value.
    pub value: Rep<'s, Tensor<T>>,
    /// Gradient of the loss.
    pub gradient: Rep<'s, Tensor<T>>,
    /// Present values of the slots.
    pub slots: &'a [Rep<'s, Tensor<T>>],
}

/// The next value of a parameter, and of the optimiser's slots.
#[derive(Clone, Debug)]
pub struct Next<'s, T: Float> {
    /// Next value.
    pub value: Rep<'s, Tensor<T>>,
    /// Next values of the slots.
    pub slots: Vec<Rep<'s, Tensor<T>>>,
}

impl Optimizer {
    /// What it keeps for each parameter.
    pub fn slots(&self) -> Vec<Slot> {
        match self {
            Optimizer::Sgd(settings) => settings.slots(),
            Optimizer::Adagrad(settings) => settings.slots(),
            Optimizer::RmsProp(settings) => settings.slots(),
            Optimizer::Adam(settings) => settings.slots(),
            Optimizer::AdamW(settings) => settings.adam().slots(),
        }
    }

    /// One step for one parameter; `parameter.slots` are as many as [`Optimizer::slots`] says.
    #[track_caller]
    pub fn step<'s, T: Float>(&self, moment: Moment<'s>, parameter: Parameter<'_, 's, T>) -> Next<'s, T> {
        match self {
            Optimizer::Sgd(settings) => settings.step(moment, parameter),
            Optimizer::Adagrad(settings) => settings.step(moment, parameter),
            Optimizer::RmsProp(settings) => settings.step(moment, parameter),
            Optimizer::Adam(settings) => settings.step(moment, parameter),
            Optimizer::AdamW(settings) => settings.step(moment, parameter),
        }
    }
}

impl<'s, T: Float> Parameter<'_, 's, T> {
    /// A number of the parameter's type.
    fn number(&self, value: f64) -> Rep<'s, Tensor<T>> {
        self.value.stage().number(value)
    }

    /// The gradient with weight decay as an addition to it: that of half the square of the parameter.
    fn decayed(&self, weight_decay: f64) -> Rep<'s, Tensor<T>> {
        match weight_decay {
            0.0 => self.gradient,
            _ => self.gradient + self.value * self.number(weight_decay),
        }
    }
}
