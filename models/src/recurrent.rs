//! Recurrent layers as `nn.LSTM` and `nn.GRU` have them, written out step by step.
//!
//! The share of the inputs in the gates is one product for all steps; only that of the state has to wait for the step
//! before.

use crate::nn::{Module, Values, extent, last};
use quearn_stage::rep::{F32, Stage};

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
    let inputs = cell.inputs(x, 4);
    let mut state: Option<(Values<'s>, Values<'s>)> = None;
    let mut states = vec![];
    for at in 0..extent(x, 0) {
        let input = step(s, inputs, at);
        let gates = match state {
            Some((h, _)) => cell.linear("hh", h, 4) + input,
            None => input + cell.bias("hh", 4),
        };
        let [i, f, g, o] = parts(s, gates);
        let new = i.sigmoid() * g.tanh();
        let c = state.map_or(new, |(_, c)| f.sigmoid() * c + new);
        let h = o.sigmoid() * c.tanh();
        state = Some((h, c));
        states.push(h);
    }
    joined(s, states, extent(x, 1), hidden)
}

/// The direction of an `nn.GRU` of one layer over `x` [steps, n, width]: the state [steps, n, hidden] after each step, in
/// the order of the steps.
#[track_caller]
pub fn gru<'s>(m: &Module<'s>, reverse: bool, x: Values<'s>, hidden: u64) -> Values<'s> {
    let suffix = if reverse { "0_reverse" } else { "0" }.to_owned();
    let (s, cell) = (m.stage(), Layer { weights: m.clone(), suffix, hidden });
    let inputs = cell.inputs(x, 3);
    let mut states: Vec<Values<'s>> = vec![];
    let count = extent(x, 0);
    for at in 0..count {
        let [ri, zi, ni] = parts(s, step(s, inputs, if reverse { count - 1 - at } else { at }));
        let h = states.last().copied();
        let [rh, zh, nh] = match h {
            Some(h) => parts(s, cell.linear("hh", h, 3)),
            // Nothing but the bias while the state is 0.
            None => parts(s, cell.bias("hh", 3).reshape([1, 3 * hidden])),
        };
        let [r, z] = [(ri + rh).sigmoid(), (zi + zh).sigmoid()];
        let n = (ni + r * nh).tanh();
        let kept = h.map(|h| z * h);
        let new = (1.0 - z) * n;
        states.push(kept.map_or(new, |kept| kept + new));
    }
    if reverse {
        states.reverse();
    }
    joined(s, states, extent(x, 1), hidden)
}

/// States [n, hidden] as [steps, n, hidden].
#[track_caller]
fn joined<'s>(s: &'s Stage, states: Vec<Values<'s>>, n: u64, hidden: u64) -> Values<'s> {
    let mut each = states.into_iter().map(|h| h.reshape([1, n, hidden]));
    match each.next() {
        Some(first) => first.concat(each, 0),
        None => s.iota(0).cast::<F32>().reshape([0, n, hidden]),
    }
}
