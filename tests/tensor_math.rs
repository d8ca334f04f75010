//! Elementary functions of f64 on tensors against those of the standard library, to a few units in the last place.

mod tensor_harness;

use quearn_stage::graph::{Graph, Op, Scalar, UnaryOp};
use tensor_harness::*;

fn check(op: UnaryOp, points: &[f64], expected: impl Fn(f64) -> f64) {
    let mut g = Graph::new();
    let x = input(&mut g, "x", Scalar::F64, &dims(&[points.len() as u64]), false);
    let y = g.add(Op::Unary(op), &[x]).unwrap();
    g.output("y", y);
    on_all(&g, &[("x", bytes(points))], &[], |backend, out| {
        for (&x, &found) in points.iter().zip(&numbers::<f64>(&out[0])) {
            let expected = expected(x);
            let off = (found - expected).abs() / expected.abs().max(f64::MIN_POSITIVE) / f64::EPSILON;
            let same = found == expected || found.is_nan() && expected.is_nan();
            assert!(same || off <= 4.0, "{op:?}({x}) is {expected}, found {found} by {backend}: {off} units off");
        }
    });
}

/// Points of all magnitudes from 2^`low` to 2^`high`, of both signs.
fn points(low: i32, high: i32) -> Vec<f64> {
    let mut points = vec![0.0, -0.0, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for i in 0..2000 {
        let share = f64::from(i) / 2000.0;
        let magnitude = (f64::from(low) + share * f64::from(high - low)).exp2() * (1.0 + share / 3.0);
        points.extend([magnitude, -magnitude]);
    }
    points
}

#[test]
fn exponentials() {
    check(UnaryOp::Exp, &points(-60, 11), f64::exp);
    check(UnaryOp::Exp, &[709.78, 709.79, 710.5, -745.13, -746.0, -740.0], f64::exp);
}

/// From the least normal number down to where nothing is left, and far below.
#[test]
fn exponentials_of_f32_down_to_zero() {
    let points: Vec<f32> = (0..400).map(|i| -87.0 - i as f32 * 0.0437).chain([-103.97, -103.98, -1e9]).collect();
    let mut g = Graph::new();
    let x = input(&mut g, "x", Scalar::F32, &dims(&[points.len() as u64]), false);
    let y = g.add(Op::Unary(UnaryOp::Exp), &[x]).unwrap();
    g.output("y", y);
    on_all(&g, &[("x", bytes(&points))], &[], |backend, out| {
        for (&x, &found) in points.iter().zip(&numbers::<f32>(&out[0])) {
            let expected = f64::from(x).exp();
            let least = f64::from(f32::from_bits(1));
            let off = (f64::from(found) - expected).abs();
            assert!(off <= least + 4e-7 * expected, "e^{x} is {expected}, found {found} by {backend}");
            assert!(expected > least / 2.0 || found == 0.0, "e^{x} is zero, found {found} by {backend}");
        }
    });
}

#[test]
fn logarithms() {
    check(UnaryOp::Log, &points(-1070, 1023), f64::ln);
    let near_one: Vec<f64> = (0..1000).map(|i| 0.6 + f64::from(i) * 0.001).collect();
    check(UnaryOp::Log, &near_one, f64::ln);
}

#[test]
fn sines_and_cosines() {
    for (op, f) in [(UnaryOp::Sin, f64::sin as fn(f64) -> f64), (UnaryOp::Cos, f64::cos)] {
        check(op, &points(-60, 40), f);
        // In one vector with an angle that is large, or none.
        check(op, &[0.1, 0.5, 1e30, 3.0, 1e6, 999_999.0, 7.0, 8.0, 9.0], f);
        check(op, &(0..1000).map(|i| f64::from(i) * 0.037 - 18.0).collect::<Vec<_>>(), f);
    }
}
