//! VGG as torchvision has it: convolutions of 3 x 3 pixels and pools in a row, then three linear layers.

use crate::nn::{Module, Values};
use quearn_stage::rep::{Conv2d, Stage, Window};

/// A step of the body.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A convolution to so many channels.
    Conv(u64),
    /// The largest of 2 x 2 pixels.
    Pool,
}
use Step::{Conv, Pool};

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct Vgg<'a> {
    /// The body.
    pub body: &'a [Step],
    /// Width of the first two linear layers.
    pub hidden: u64,
    /// Classes that it tells apart.
    pub classes: u64,
}

/// VGG-11, for images of 224 x 224 pixels.
pub const VGG11: Vgg = Vgg {
    body: &[
        Conv(64),
        Pool,
        Conv(128),
        Pool,
        Conv(256),
        Conv(256),
        Pool,
        Conv(512),
        Conv(512),
        Pool,
        Conv(512),
        Conv(512),
        Pool,
    ],
    hidden: 4096,
    classes: 1000,
};

/// A version with few channels, for tests.
pub const SMALL: Vgg = Vgg { body: &[Conv(6), Pool, Conv(18), Conv(18), Pool], hidden: 40, classes: 10 };

impl Vgg<'_> {
    /// Logits [n, classes] of images [n, 3, height, width].
    #[track_caller]
    pub fn logits<'s>(&self, s: &'s Stage, image: Values<'s>) -> Values<'s> {
        let m = Module::root(s);
        let (mut x, mut at) = (image, 0);
        for step in self.body {
            match step {
                Conv(outputs) => {
                    let padded = Conv2d { padding: [1, 1], ..Conv2d::default() };
                    x = m.at("features").at(at).conv2d(x, *outputs, [3, 3], padded).relu();
                    // The rectifier is a module of its own.
                    at += 2;
                }
                Pool => {
                    x = x.max_pool2d(Window::square(2));
                    at += 1;
                }
            }
        }
        let m = m.at("classifier");
        let x = m.at(0).linear(x.flatten_from(1), self.hidden).relu();
        m.at(6).linear(m.at(3).linear(x, self.hidden).relu(), self.classes)
    }
}
