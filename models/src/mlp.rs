//! A perceptron with two hidden layers.

use crate::nn::{Module, Values};
use quearn_stage::rep::Stage;

/// Logits [n, 10] of vectors [n, 128], by way of two layers of 512.
#[track_caller]
pub fn mlp<'s>(s: &'s Stage, x: Values<'s>) -> Values<'s> {
    let m = Module::root(s);
    let x = m.at("fc1").linear(x, 512).relu();
    m.at("fc3").linear(m.at("fc2").linear(x, 512).relu(), 10)
}
