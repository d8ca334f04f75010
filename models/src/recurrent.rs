//! Recurrent layers as `nn.LSTM` and `nn.GRU` have them.
//!
//! The share of the inputs in the gates is one product for all steps; only that of the state has to wait for the step
//! before. The first step has no state yet, and so no product with it.

use crate::nn::{Module, Values, extent, last};
use quearn_stage::rep::{Carried, F32, Stage, Walk};

/// `x[i]` of a tensor.
#[track_caller]
pub fn step<'s>(s: &'s Stage, x: Values<'s>, i: u64) -> Values<'s> {
    x.gather(s.constant(i as i64).as_tensor())
}

/// The last axis of `x` [n, parts * width] in parts [n, width].
#[track_caller]
pub fn parts<'s, const N: usize>(s: &'s Stage, x: Values<'s>) -> [Values<'s>; N] {
    let count = N as u64;
    let apart = x.reshape([extent(x, 0), count, last(x) / count]).permute([1, 0, 2]);
    std::array::from_fn(|i| step(s, apart, i as u64))
}

/// One direction of one layer.
struct Layer<'s> {
    weights: Module<'s>,
    /// What the names of its weights end in.
    suffix: String,
    /// Numbers of the state.
    hidden: u64,
}

impl<'s> Layer<'s> {
    /// `weight_KIND` and `bias_KIND` of `gates` gates.
    #[track_caller]
    fn linear(&self, kind: &str, x: Values<'s>, gates: u64) -> Values<'s> {
        let name = |what| format!("{what}_{kind}_l{}", self.suffix);
        let weight = self.weights.weight(&name("weight"), [gates * self.hidden, last(x)]);
        x.matmul(weight.transpose()) + self.bias(kind, gates)
    }

    /// `bias_KIND` of `gates` gates.
    #[track_caller]
    fn bias(&self, kind: &str, gates: u64) -> Values<'s> {
        self.weights.weight(&format!("bias_{kind}_l{}", self.suffix), [gates * self.hidden])
    }

    /// The share of the inputs [steps, n, width] in the gates, [steps, n, gates * hidden].
    #[track_caller]
    fn inputs(&self, x: Values<'s>, gates: u64) -> Values<'s> {
        let [steps, n] = [0, 1].map(|axis| extent(x, axis));
        let rows = x.reshape([steps * n, last(x)]);
        self.linear("ih", rows, gates).reshape([steps, n, gates * self.hidden])
    }
}

/// Layer `layer` of an `nn.LSTM` over `x` [steps, n, width]: the state [steps, n, hidden] after each step.
#[track_caller]
pub fn lstm<'s>(m: &Module<'s>, layer: usize, x: Values<'s>, hidden: u64) -> Values<'s> {
    let (s, cell) = (m.stage(), Layer { weights: m.clone(), suffix: layer.to_string(), hidden });
    let step = |input: Values<'s>, state: Option<(Values<'s>, Values<'s>)>| {
        let gates = match state {
            Some((h, _)) => cell.linear("hh", h, 4) + input,
            None => input + cell.bias("hh", 4),
        };
        let [i, f, g, o] = parts(s, gates);
        let new = i.sigmoid() * g.tanh();
        let c = state.map_or(new, |(_, c)| f.sigmoid() * c + new);
        (o.sigmoid() * c.tanh(), c)
    };
    walked(s, cell.inputs(x, 4), false, hidden, step, |state| state.0)
}

/// The direction of an `nn.GRU` of one layer over `x` [steps, n, width]: the state [steps, n, hidden] after each step, in
/// the order of the steps.
#[track_caller]
pub fn gru<'s>(m: &Module<'s>, reverse: bool, x: Values<'s>, hidden: u64) -> Values<'s> {
    let suffix = if reverse { "0_reverse" } else { "0" }.to_owned();
    let (s, cell) = (m.stage(), Layer { weights: m.clone(), suffix, hidden });
    let step = |input: Values<'s>, state: Option<Values<'s>>| {
        let [ri, zi, ni] = parts(s, input);
        let [rh, zh, nh] = match state {
            Some(h) => parts(s, cell.linear("hh", h, 3)),
            // Nothing but the bias while the state is 0.
            None => parts(s, cell.bias("hh", 3).reshape([1, 3 * hidden])),
        };
        let [r, z] = [(ri + rh).sigmoid(), (zi + zh).sigmoid()];
        let n = (ni + r * nh).tanh();
        let kept = state.map(|h| z * h);
        let new = (1.0 - z) * n;
        kept.map_or(new, |kept| kept + new)
    };
    walked(s, cell.inputs(x, 3), reverse, hidden, step, |state| state)
}

/// What `seen` is of the state after each step, [steps, n, hidden]; the inputs of the steps are [steps, n, gates * hidden].
#[track_caller]
fn walked<'s, C: Carried<'s> + Copy>(
    s: &'s Stage,
    inputs: Values<'s>,
    back: bool,
    hidden: u64,
    next: impl Fn(Values<'s>, Option<C>) -> C,
    seen: impl Fn(C) -> Values<'s>,
) -> Values<'s> {
    let [count, n] = [0, 1].map(|axis| extent(inputs, axis));
    if count == 0 {
        return s.iota(0).cast::<F32>().reshape([0, n, hidden]);
    }
    let (first, begin) = if back { (count - 1, 0) } else { (0, 1) };
    let state = next(step(s, inputs, first), None);
    let shown = seen(state).reshape([1, n, hidden]);
    if count == 1 {
        return shown;
    }
    let rest = inputs.slice(0, begin, 1, count - 1);
    let walk = Walk { count: count - 1, axis: 0, back };
    let (_, states) = s.steps(walk, state, rest, |state, input| {
        let state = next(input, Some(state));
        (state, seen(state))
    });
    if back { states.concat([shown], 0) } else { shown.concat([states], 0) }
}
