//! LeNet-5 with rectifiers: two convolutions with pools, three linear layers.

use crate::nn::{Module, Values};
use quearn_stage::rep::{Conv2d, Stage, Window};

/// Logits [n, 10] of digits [n, 1, 28, 28].
#[track_caller]
pub fn lenet<'s>(s: &'s Stage, image: Values<'s>) -> Values<'s> {
    let m = Module::root(s);
    let padded = Conv2d { padding: [2, 2], ..Conv2d::default() };
    let x = m.at("conv1").conv2d(image, 6, [5, 5], padded).relu().max_pool2d(Window::square(2));
    let x = m.at("conv2").conv2d(x, 16, [5, 5], Conv2d::default()).relu().max_pool2d(Window::square(2));
    let x = m.at("fc1").linear(x.flatten_from(1), 120).relu();
    m.at("fc3").linear(m.at("fc2").linear(x, 84).relu(), 10)
}
