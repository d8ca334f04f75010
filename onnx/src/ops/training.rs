//! Steps of optimizers: new weights from old ones, their derivatives and what is kept from step to step.

use super::Write;
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{CompareOp, Node, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("ai.onnx.preview.training.Adagrad", |c| each(c, 1, adagrad)),
    ("ai.onnx.preview.training.Adam", |c| each(c, 2, adam)),
    ("ai.onnx.preview.training.Momentum", |c| each(c, 1, momentum)),
];

/// What a step starts from: its rate and number, a weight, its derivative and what was kept.
struct Start {
    rate: Node,
    number: Node,
    x: Node,
    slope: Node,
    kept: Vec<Node>,
}

/// Inputs are the rate, the number of the step, the weights, their derivatives, and then each of what is kept; outputs the
/// new weights and each of what is kept.
fn each(c: &mut Call, keeps: usize, step: fn(&mut Call, &Start) -> Fallible<Vec<Node>>) -> Fallible<Vec<Node>> {
    let count = c.inputs.len().saturating_sub(2) / (2 + keeps);
    if count == 0 || c.inputs.len() != 2 + count * (2 + keeps) {
        return Err("its inputs are not as many as expected".into());
    }
    let (rate, number, decay) = (c.x(0)?, c.x(1)?, c.float("norm_coefficient", 0.0));
    let mut results = vec![vec![]; 1 + keeps];
    for i in 0..count {
        let [x, derivative] = [c.x(2 + i)?, c.x(2 + count + i)?];
        let kept = (2..2 + keeps).map(|k| c.x(2 + k * count + i)).collect::<Fallible<_>>()?;
        let slope = blend(c.emit, x, decay, derivative, 1.0)?;
        let number = c.emit.cast(number, c.emit.scalar(x))?;
        let made = step(c, &Start { rate, number, x, slope, kept })?;
        results.iter_mut().zip(made).for_each(|(list, node)| list.push(node));
    }
    Ok(results.concat())
}

/// `a * p + b * q`.
fn blend(e: &mut Emit, a: Node, p: f64, b: Node, q: f64) -> Fallible<Node> {
    let (a, b) = (e.times(a, p)?, if q == 1.0 { b } else { e.times(b, q)? });
    e.add(a, b)
}

/// `base` to the power of the number of the step.
fn power(e: &mut Emit, base: f64, number: Node) -> Fallible<Node> {
    let exponent = e.times(number, base.ln())?;
    e.unary(UnaryOp::Exp, exponent)
}

fn adagrad(c: &mut Call, start: &Start) -> Fallible<Vec<Node>> {
    let (decay, eps) = (c.float("decay_factor", 0.0), c.float("epsilon", 1e-6));
    let e = &mut *c.emit;
    let slower = e.times(start.number, decay)?;
    let slower = e.plus(slower, 1.0)?;
    let rate = e.div(start.rate, slower)?;
    let square = e.mul(start.slope, start.slope)?;
    let sum = e.add(start.kept[0], square)?;
    let root = e.unary(UnaryOp::Sqrt, sum)?;
    let root = e.plus(root, eps)?;
    let step = e.mul(rate, start.slope)?;
    let step = e.div(step, root)?;
    Ok(vec![e.sub(start.x, step)?, sum])
}

fn adam(c: &mut Call, start: &Start) -> Fallible<Vec<Node>> {
    let (alpha, beta, eps) = (c.float("alpha", 0.9), c.float("beta", 0.999), c.float("epsilon", 1e-6));
    let after = c.float("norm_coefficient_post", 0.0);
    let e = &mut *c.emit;
    let first = blend(e, start.kept[0], alpha, start.slope, 1.0 - alpha)?;
    let square = e.mul(start.slope, start.slope)?;
    let second = blend(e, start.kept[1], beta, square, 1.0 - beta)?;
    let root = e.unary(UnaryOp::Sqrt, second)?;
    let root = e.plus(root, eps)?;
    // Both averages start at zero, which is corrected after the first step.
    let one = e.like(start.x, 1.0)?;
    let [slow, fast] = [alpha, beta].map(|base| {
        let power = power(e, base, start.number)?;
        e.sub(one, power)
    });
    let corrected = e.unary(UnaryOp::Sqrt, fast?)?;
    let corrected = e.div(corrected, slow?)?;
    let corrected = e.mul(start.rate, corrected)?;
    let later = e.test(CompareOp::Gt, start.number, 0.0)?;
    let rate = e.select(later, corrected, start.rate)?;
    let ratio = e.div(first, root)?;
    let step = e.mul(rate, ratio)?;
    let x = e.sub(start.x, step)?;
    Ok(vec![e.times(x, 1.0 - after)?, first, second])
}

fn momentum(c: &mut Call, start: &Start) -> Fallible<Vec<Node>> {
    let (alpha, beta, mode) = (c.float("alpha", 0.0), c.float("beta", 0.0), c.text("mode", "standard"));
    let e = &mut *c.emit;
    // The first derivative counts in full.
    let later = e.test(CompareOp::Gt, start.number, 0.0)?;
    let (share, whole) = (e.like(start.x, beta)?, e.like(start.x, 1.0)?);
    let share = e.select(later, share, whole)?;
    let (old, new) = (e.times(start.kept[0], alpha)?, e.mul(share, start.slope)?);
    let speed = e.add(old, new)?;
    let step = match mode.as_str() {
        "standard" => speed,
        "nesterov" => blend(e, speed, alpha, start.slope, 1.0)?,
        other => return Err(format!("the mode {other:?} is not supported")),
    };
    let step = e.mul(start.rate, step)?;
    Ok(vec![e.sub(start.x, step)?, speed])
}
