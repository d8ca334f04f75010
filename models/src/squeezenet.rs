//! SqueezeNet 1.0 and 1.1: the layers of torchvision's networks under their names, and the program made of them.

use crate::nn::{Module, Values};
use quearn_stage::rep::{Conv2d, Stage, Window};

/// Channels of the image.
pub const CHANNELS: usize = 3;
/// Classes that it tells apart.
pub const CLASSES: usize = 1000;
/// Height and width of the images that it is usually given; others of 25 and more pixels work as well.
pub const IMAGE_SIZE: usize = 224;
/// Position in torchvision's `features` of the first block of the body.
const BODY_START: usize = 2;

/// A part of the network between the first and the last convolution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// Largest of 3 x 3 pixels, stride 2; windows that begin inside the image count.
    Pool,
    /// A 1 x 1 convolution from `inputs` to `squeeze` channels, then a 1 x 1 and a 3 x 3 one to `expand` channels each,
    /// side by side.
    Fire {
        /// Channels in.
        inputs: usize,
        /// Channels in between.
        squeeze: usize,
        /// Half of the channels out.
        expand: usize,
    },
}

const fn fire(inputs: usize, squeeze: usize, expand: usize) -> Block {
    Block::Fire { inputs, squeeze, expand }
}

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct SqueezeNet {
    /// Channels of the first convolution, and height and width of its kernel; its stride is 2.
    pub stem: (usize, usize),
    /// The blocks in order.
    pub body: &'static [Block],
}

/// SqueezeNet 1.0.
pub const SQUEEZENET1_0: SqueezeNet = SqueezeNet {
    stem: (96, 7),
    body: &[
        Block::Pool,
        fire(96, 16, 64),
        fire(128, 16, 64),
        fire(128, 32, 128),
        Block::Pool,
        fire(256, 32, 128),
        fire(256, 48, 192),
        fire(384, 48, 192),
        fire(384, 64, 256),
        Block::Pool,
        fire(512, 64, 256),
    ],
};

/// SqueezeNet 1.1: as good with less work.
pub const SQUEEZENET1_1: SqueezeNet = SqueezeNet {
    stem: (64, 3),
    body: &[
        Block::Pool,
        fire(64, 16, 64),
        fire(128, 16, 64),
        Block::Pool,
        fire(128, 32, 128),
        fire(256, 32, 128),
        Block::Pool,
        fire(256, 48, 192),
        fire(384, 48, 192),
        fire(384, 64, 256),
        fire(512, 64, 256),
    ],
};

/// A convolution: its kernels are [outputs, inputs, kernel, kernel], its biases [outputs].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// Name of the module in torchvision.
    pub name: String,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
}

impl Layer {
    fn new(name: impl Into<String>, inputs: usize, outputs: usize, kernel: usize) -> Layer {
        Layer { name: name.into(), inputs, outputs, kernel }
    }

    /// Name of the kernels.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// Name of the biases.
    pub fn bias(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// Extents of the kernels.
    pub fn shape(&self) -> [usize; 4] {
        [self.outputs, self.inputs, self.kernel, self.kernel]
    }
}

impl SqueezeNet {
    /// The first convolution, with stride 2.
    pub fn stem(&self) -> Layer {
        let (channels, kernel) = self.stem;
        Layer::new("features.0", CHANNELS, channels, kernel)
    }

    /// The convolutions of the block at a position of the body: none of a pool; squeeze, expand 1 x 1 and expand 3 x 3
    /// of a fire block.
    pub fn block_layers(&self, at: usize) -> Vec<Layer> {
        let Block::Fire { inputs, squeeze, expand } = self.body[at] else { return vec![] };
        let layer =
            |part, from, to, kernel| Layer::new(format!("features.{}.{part}", BODY_START + at), from, to, kernel);
        vec![
            layer("squeeze", inputs, squeeze, 1),
            layer("expand1x1", squeeze, expand, 1),
            layer("expand3x3", squeeze, expand, 3),
        ]
    }

    /// The last convolution, 1 x 1, to the classes.
    pub fn classifier(&self) -> Layer {
        Layer::new("classifier.1", 512, CLASSES, 1)
    }

    /// All 26 convolutions in the order in which they run.
    pub fn layers(&self) -> Vec<Layer> {
        let body = (0..self.body.len()).flat_map(|at| self.block_layers(at));
        std::iter::once(self.stem()).chain(body).chain([self.classifier()]).collect()
    }

    /// Logits [n, 1000] of images [n, 3, height, width].
    #[track_caller]
    pub fn logits<'s>(&self, s: &'s Stage, images: Values<'s>) -> Values<'s> {
        let stem = conv(s, images, &self.stem(), Conv2d { stride: [2, 2], ..Conv2d::default() });
        let features = (0..self.body.len()).fold(stem, |x, at| match &self.block_layers(at)[..] {
            [squeeze, expand1x1, expand3x3] => {
                let x = conv(s, x, squeeze, Conv2d::default());
                let narrow = conv(s, x, expand1x1, Conv2d::default());
                let wide = conv(s, x, expand3x3, Conv2d { padding: [1, 1], ..Conv2d::default() });
                narrow.concat([wide], 1)
            }
            _ => x.max_pool2d(Window::square(3).stride(2).ceil()),
        });
        conv(s, features, &self.classifier(), Conv2d::default()).mean([2, 3])
    }
}

/// max(convolution of `x`, 0).
#[track_caller]
fn conv<'s>(s: &'s Stage, x: Values<'s>, layer: &Layer, how: Conv2d) -> Values<'s> {
    let m = Module::root(s).at(&layer.name);
    m.conv2d(x, layer.outputs as u64, [layer.kernel as u64; 2], how).relu()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_parameters_of_torchvision() {
        let parameters = |l: &Layer| l.shape().iter().product::<usize>() + l.outputs;
        let count = |net: SqueezeNet| net.layers().iter().map(parameters).sum::<usize>();
        assert_eq!([count(SQUEEZENET1_0), count(SQUEEZENET1_1)], [1_248_424, 1_235_496]);
        assert_eq!(SQUEEZENET1_1.layers()[1].name, "features.3.squeeze");
        assert_eq!(SQUEEZENET1_1.layers()[24].name, "features.12.expand3x3");
    }

    #[test]
    fn takes_any_batch_and_size() {
        let s = Stage::new();
        let small = SQUEEZENET1_1.logits(&s, s.input("small", ("batch", 3, 25, 64)));
        let usual = SQUEEZENET1_1.logits(&s, s.input("usual", [1, 3, 224, 224]));
        assert_eq!(small.ty().unwrap().to_string(), "[batch, 1000] f32");
        assert_eq!(usual.ty().unwrap().to_string(), "[1, 1000] f32");
        s.finish().unwrap();
    }
}
