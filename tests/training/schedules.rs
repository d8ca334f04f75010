//! Learning rates against the formulas of PyTorch's schedulers.

use quearn::training::Schedule;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

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
    let quarter = 0.2 + 0.8 * (1.0 + FRAC_1_SQRT_2) / 2.0;
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
