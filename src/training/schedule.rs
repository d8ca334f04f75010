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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &Schedule, base: f64, expected: &[(u64, f64)]) {
        for &(step, rate) in expected {
            let found = schedule.rate(base, step);
            assert!((found - rate).abs() <= 1e-12 * rate.abs().max(1e-3), "step {step}: {found}, expected {rate}");
        }
    }

    #[test]
    fn steps() {
        check(&Schedule::Constant, 0.1, &[(0, 0.1), (1000, 0.1)]);
        let step = Schedule::Step { every: 30, gamma: 0.1 };
        check(&step, 0.05, &[(0, 0.05), (29, 0.05), (30, 0.005), (89, 0.0005)]);
        // No step without end.
        check(&Schedule::Step { every: 0, gamma: 0.1 }, 0.05, &[(7, 0.05)]);
    }

    /// By the closed form of `CosineAnnealingLR`: least + (base - least) (1 + cos(pi t / T)) / 2.
    #[test]
    fn cosines() {
        let cosine = Schedule::Cosine { steps: 4, least: 0.2 };
        let quarter = 0.2 + 0.8 * (1.0 + std::f64::consts::FRAC_1_SQRT_2) / 2.0;
        check(&cosine, 1.0, &[(0, 1.0), (1, quarter), (2, 0.6), (4, 0.2), (9, 0.2)]);
    }

    #[test]
    fn warm_up() {
        let then = Box::new(Schedule::Step { every: 2, gamma: 0.5 });
        let warm = Schedule::WarmUp { steps: 4, start: 0.2, then };
        check(&warm, 1.0, &[(0, 0.2), (1, 0.4), (3, 0.8), (4, 1.0), (5, 1.0), (6, 0.5)]);
    }

    /// `torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=1.0, total_steps=10)`: phases end at steps 2 and 9.
    #[test]
    fn one_cycle() {
        let cycle = Schedule::one_cycle(10);
        let low = 1.0 / 25.0;
        check(&cycle, 1.0, &[(0, low), (1, (1.0 + low) / 2.0), (2, 1.0), (9, low / 1e4), (20, low / 1e4)]);
        let third = low / 1e4 + (1.0 - low / 1e4) / 2.0 * (1.0 + (PI / 7.0).cos());
        check(&cycle, 1.0, &[(3, third)]);
    }
}
