//! SqueezeNet for pictures of 32 x 32, with and without batch norms.

use crate::nn::{Module, Values};
use quearn_stage::rep::{Conv2d, Stage, Window};

/// Filters of the squeeze and of each expand layer of a fire module.
const FIRES: [[u64; 2]; 8] = [[16, 64], [16, 64], [32, 128], [32, 128], [48, 192], [48, 192], [64, 256], [64, 256]];

/// Logits [n, 10] of pictures [n, 3, 32, 32].
#[track_caller]
pub fn squeezenet_cifar<'s>(s: &'s Stage, image: Values<'s>) -> Values<'s> {
    logits(s, image, false)
}

/// The same with a batch norm behind each convolution but the last.
#[track_caller]
pub fn squeezenet_cifar_bn<'s>(s: &'s Stage, image: Values<'s>) -> Values<'s> {
    logits(s, image, true)
}

#[track_caller]
fn logits<'s>(s: &'s Stage, image: Values<'s>, norms: bool) -> Values<'s> {
    let m = Module::root(s);
    let norm = norms.then(|| m.at("bn1"));
    let x = conv(&m.at("conv1"), norm, image, 96, 3).max_pool2d(Window::square(2));
    let fires = |x, range: std::ops::Range<usize>| {
        range.fold(x, |x, i| fire(&m.at(format!("fire{}", i + 2)), x, FIRES[i], norms))
    };
    let x = fires(x, 0..3).max_pool2d(Window::square(2));
    let x = fires(fires(x, 3..7).max_pool2d(Window::square(2)), 7..8);
    m.at("conv10").conv2d(x, 10, [1, 1], Conv2d::default()).mean([2, 3])
}

#[track_caller]
fn fire<'s>(m: &Module<'s>, x: Values<'s>, [squeeze, expand]: [u64; 2], norms: bool) -> Values<'s> {
    let layer = |name: &str, x, outputs, kernel| match norms {
        true => conv(&m.at(name).at(0), Some(m.at(name).at(1)), x, outputs, kernel),
        false => conv(&m.at(name), None, x, outputs, kernel),
    };
    let x = layer("squeeze", x, squeeze, 1);
    layer("expand1x1", x, expand, 1).concat([layer("expand3x3", x, expand, 3)], 1)
}

/// A convolution that keeps the size, perhaps a batch norm, max(x, 0).
#[track_caller]
fn conv<'s>(m: &Module<'s>, norm: Option<Module<'s>>, x: Values<'s>, outputs: u64, kernel: u64) -> Values<'s> {
    let how = Conv2d { padding: [kernel / 2; 2], ..Conv2d::default() };
    let y = m.conv2d(x, outputs, [kernel; 2], how);
    norm.map_or(y, |norm| norm.batch_norm(y)).relu()
}
