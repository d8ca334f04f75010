//! Learning rates that change with the steps, as those of `torch.optim.lr_scheduler`.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// A learning rate for each step of the optimiser, from the rate that training was given.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The given rate.
    #[default]
    Constant,
    /// `StepLR`: times `gamma` after each `every` steps.
    Step {
        /// Steps at one rate.
        every: u64,
        /// Factor.
        gamma: f64,
    },
    /// `CosineAnnealingLR`: along half a cosine down to `least`, where it stays after `steps`.
    Cosine {
        /// Steps on the way down.
        steps: u64,
        /// Last rate.
        least: f64,
    },
    /// `LinearLR`, then another: from `start` times the rate up to the rate in `steps`, then `then`, whose steps are counted from there.
    WarmUp {
        /// Steps on the way up.
        steps: u64,
        /// First factor.
        start: f64,
        /// What follows.
        then: Box<Schedule>,
    },
    /// `OneCycleLR` with cosines: from the rate over `div` up to the rate, then down to where it began over `final_div`.
    OneCycle {
        /// All steps.
        steps: u64,
        /// The part of them on the way up (PyTorch: 0.3).
        rising: f64,
        /// The rate over the first one (PyTorch: 25).
        div: f64,
        /// The first one over the last one (PyTorch: 1e4).
        final_div: f64,
    },
}

impl Schedule {
    /// `OneCycleLR` with PyTorch's defaults.
    pub fn one_cycle(steps: u64) -> Schedule {
        Schedule::OneCycle { steps, rising: 0.3, div: 25.0, final_div: 1e4 }
    }

    /// The rate of a step, counted from 0.
    pub fn rate(&self, base: f64, step: u64) -> f64 {
        match self {
            Schedule::Constant => base,
            Schedule::Step { every, gamma } => {
                let times = step.checked_div(*every).unwrap_or(0);
                base * gamma.powi(times.min(i32::MAX as u64) as i32)
            }
            Schedule::Cosine { steps, least } => cosine(base, *least, portion(step as f64, 0.0, *steps as f64)),
            Schedule::WarmUp { steps, start, then } => match step.checked_sub(*steps) {
                Some(after) => then.rate(base, after),
                None => base * (start + (1.0 - start) * step as f64 / *steps as f64),
            },
            Schedule::OneCycle { steps, rising, div, final_div } => {
                let (first, step) = (base / div, step as f64);
                let (top, end) = (rising * *steps as f64 - 1.0, *steps as f64 - 1.0);
                match step <= top {
                    true => cosine(first, base, portion(step, 0.0, top)),
                    false => cosine(base, first / final_div, portion(step, top, end)),
                }
            }
        }
    }
}

/// How far `at` is on the way from `from` to `to`, between 0 and 1.
fn portion(at: f64, from: f64, to: f64) -> f64 {
    if to <= from { 1.0 } else { ((at - from) / (to - from)).clamp(0.0, 1.0) }
}

/// From one value to another along half a cosine.
fn cosine(from: f64, to: f64, portion: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + (PI * portion).cos())
}
