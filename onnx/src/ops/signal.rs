//! Windows of signal processing: weights whose number is known at import.

use super::Write;
use crate::emit::Fallible;
use crate::tensor::scalar_of;
use crate::value::Call;
use quearn_stage::graph::Node;
use std::f64::consts::TAU;

pub(super) const ROWS: &[(&str, Write)] = &[
    ("BlackmanWindow", |c| window(c, [0.42, 0.5, 0.08])),
    ("HammingWindow", |c| window(c, [25.0 / 46.0, 21.0 / 46.0, 0.0])),
    ("HannWindow", |c| window(c, [0.5, 0.5, 0.0])),
];

/// a - b cos(2 pi i / n) + c cos(4 pi i / n), where n is one less for a window that is not periodic.
fn window(c: &mut Call, [a, b, d]: [f64; 3]) -> Fallible<Vec<Node>> {
    let size = c.known_number(0)?;
    let scalar = scalar_of(c.int("output_datatype", 1) as i32)?;
    if !(1.0..1e6).contains(&size) || !scalar.is_float() {
        return Err(format!("a window of {size} elements of {scalar}"));
    }
    let period = if c.int("periodic", 1) != 0 { size } else { size - 1.0 };
    let weight = |i: u64| {
        let angle = if period > 0.0 { TAU * i as f64 / period } else { 0.0 };
        a - b * angle.cos() + d * (2.0 * angle).cos()
    };
    let weights: Vec<f64> = (0..size as u64).map(weight).collect();
    Ok(vec![c.emit.floats(scalar, &[size as u64], &weights)?])
}
