//! Optimisers, clipping and schedules against PyTorch.
//!
//! The expected values are those of `torch.optim` 2.15 in float64: a parameter [1, -2, 0.5], a learning rate of 0.1, and in three
//! steps the gradients below, as in
//!
//! ```text
//! p = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
//! o = torch.optim.SGD([p], lr=0.1, momentum=0.9)
//! for g in G: p.grad = torch.tensor(g, dtype=torch.float64); o.step()
//! ```

use super::{close, evaluated, everywhere, named, tensor};
use quearn::prelude::*;
use quearn::training::{Adagrad, Adam, AdamW, Clip, Moment, Optimizer, Parameter, RmsProp, Sgd, optimizer};

const GRADIENTS: [[f64; 3]; 3] = [[0.1, -0.2, 0.3], [0.4, 0.5, -0.6], [-0.7, 0.8, 0.9]];

/// Three steps of an optimiser as one program.
fn three_steps<T: Float>(optimizer: &Optimizer) -> Graph {
    let s = Stage::new();
    let (mut value, gradients) = (s.input::<T>("value", [3]), s.input::<T>("gradients", [3, 3]));
    let mut slots: Vec<Rep<Tensor<T>>> =
        optimizer.slots().iter().map(|slot| s.number::<T>(slot.initial).broadcast([3])).collect();
    let (mut step, rate) = (s.input::<F64>("step", Vec::<u64>::new()), s.number::<F64>(0.1));
    for i in 0..3 {
        let gradient = gradients.slice(0, i, 1, 1).reshape([3]);
        step = step + 1.0;
        let next = optimizer.step(Moment { rate, step, go_on: None }, Parameter { value, gradient, slots: &slots });
        (value, slots) = (next.value, next.slots);
    }
    s.output("value", value);
    s.finish().unwrap()
}

#[track_caller]
fn check(optimizer: impl Into<Optimizer>, expected: [f64; 3]) {
    let optimizer = optimizer.into();
    let given = |values: &[f64], shape: &[u64]| tensor(values, shape);
    let inputs = named([
        ("value", given(&[1.0, -2.0, 0.5], &[3])),
        ("gradients", given(GRADIENTS.as_flattened(), &[3, 3])),
        ("step", super::scalar(0.0f64)),
    ]);
    let graph = three_steps::<F64>(&optimizer);
    close(evaluated(&graph, &inputs)[0].1.as_floats(), &expected, 1e-12);
    close(&everywhere::<f64>(&graph, &inputs, "value"), &expected, 1e-12);

    let narrow = |values: &[f64], shape: &[u64]| {
        let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
        tensor(&values, shape)
    };
    let inputs = named([
        ("value", narrow(&[1.0, -2.0, 0.5], &[3])),
        ("gradients", narrow(GRADIENTS.as_flattened(), &[3, 3])),
        ("step", super::scalar(0.0f64)),
    ]);
    let found: Vec<f64> =
        everywhere::<f32>(&three_steps::<F32>(&optimizer), &inputs, "value").iter().map(|x| f64::from(*x)).collect();
    close(&found, &expected, 2e-6);
}

#[test]
fn sgd() {
    check(Sgd::default(), [1.02, -2.11, 0.44]);
    check(Sgd::momentum(0.9), [0.9669, -2.1208, 0.4427]);
    let all = Sgd { nesterov: true, weight_decay: 0.01, ..Sgd::momentum(0.9) };
    check(all, [0.9824222125509999, -2.202675125102, 0.3845045848005]);
    check(Sgd { dampening: 0.5, ..Sgd::momentum(0.9) }, [0.9699, -2.0333, 0.4307]);
}

#[test]
fn adagrad() {
    check(Adagrad::default(), [0.8891497937839229, -2.0758038046911165, 0.40926434655340715]);
    let all = Adagrad { rate_decay: 0.1, weight_decay: 0.01, initial: 0.5, ..Adagrad::default() };
    check(all, [0.9929513768592921, -2.074934377886763, 0.4592520114916288]);
}

#[test]
fn rms_prop() {
    check(RmsProp::default(), [-0.10760967857713444, -2.7601532169960072, -0.40818126046326964]);
    let all = RmsProp { alpha: 0.9, momentum: 0.5, centered: true, weight_decay: 0.01, ..RmsProp::default() };
    check(all, [0.19571194757041074, -2.1436523167731107, 0.08550079003281319]);
}

#[test]
fn adam() {
    check(Adam::default(), [0.8319309633800612, -2.0163054878797553, 0.4022862477655111]);
    let all = Adam { betas: [0.8, 0.95], weight_decay: 0.01, amsgrad: true, ..Adam::default() };
    check(all, [0.83410599533015, -2.020843039573422, 0.402277369915541]);
}

#[test]
fn adam_w() {
    check(AdamW::default(), [0.8292223000060962, -2.010467164344543, 0.4009510369069159]);
    check(
        AdamW { weight_decay: 0.1, amsgrad: true, ..AdamW::default() },
        [0.80510433964131, -1.958451272528083, 0.3890596441798589],
    );
}

/// `torch.nn.utils.clip_grad_norm_([p, q], 2.0)` on the gradients [3, -4] and [12].
#[test]
fn clipping() {
    let s = Stage::new();
    let (p, q) = (s.input::<F64>("p", [2]), s.input::<F64>("q", [1]));
    let by_norm = Clip::Norm(2.0).apply(&[p, q]);
    s.output("norm", by_norm[0].concat([by_norm[1]], 0));
    s.output("small", Clip::Norm(20.0).apply(&[p, q])[0]);
    s.output("value", Clip::Value(3.5).apply(&[p, q])[0]);
    let graph = s.finish().unwrap();
    let inputs = named([("p", tensor(&[3.0, -4.0], &[2])), ("q", tensor(&[12.0], &[1]))]);
    let expected = [0.46153842603550577, -0.615384568047341, 1.846153704142023];
    close(&everywhere::<f64>(&graph, &inputs, "norm"), &expected, 1e-15);
    close(&everywhere::<f64>(&graph, &inputs, "small"), &[3.0, -4.0], 0.0);
    close(&everywhere::<f64>(&graph, &inputs, "value"), &[3.0, -3.5], 0.0);
    let nan = named([("p", tensor(&[f64::NAN, 1.0], &[2])), ("q", tensor(&[1.0], &[1]))]);
    assert!(everywhere_bits(&graph, &nan, "value")[0].is_nan());
    assert!(everywhere_bits(&graph, &nan, "norm").iter().all(|x| x.is_nan()));
}

/// A result that may be NaN, on one session.
fn everywhere_bits(graph: &Graph, inputs: &quearn::Tensors, name: &str) -> Vec<f64> {
    let session = Session::builder().threads(1).build().unwrap();
    let outputs = session.compile(graph).unwrap().run_with(&session, inputs).unwrap();
    outputs.tensor(name).unwrap().as_slice::<f64>().unwrap().to_vec()
}

#[test]
fn settings_survive_as_text() {
    let all: [Optimizer; 5] = [
        Sgd::momentum(0.9).into(),
        Adagrad::default().into(),
        RmsProp::default().into(),
        Adam::default().into(),
        AdamW::default().into(),
    ];
    for optimizer in all {
        let text = serde_json::to_string(&optimizer).unwrap();
        assert_eq!(serde_json::from_str::<optimizer::Optimizer>(&text).unwrap(), optimizer, "{text}");
    }
}
