//! SqueezeNet 1.1: the layers of torchvision's `squeezenet1_1`, under its names.

/// Channels of the image.
pub const CHANNELS: usize = 3;
/// Classes that it tells apart.
pub const CLASSES: usize = 1000;
/// Height and width of the images that it is usually given; others of 17 and more pixels work as well.
pub const IMAGE_SIZE: usize = 224;
/// Channels after the first convolution.
const STEM: usize = 64;
/// Position in torchvision's `features` of the first of [`BODY`].
const BODY_START: usize = 2;

/// A part of the network between the first and the last convolution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// Largest of 3 x 3 pixels, stride 2; windows that begin inside the image count.
    Pool,
    /// A 1 x 1 convolution to `squeeze` channels, then a 1 x 1 and a 3 x 3 one to `expand` channels each, side by side.
    Fire {
        /// Channels in between.
        squeeze: usize,
        /// Half of the channels that come out.
        expand: usize,
    },
}

/// The blocks in order.
pub const BODY: [Block; 11] = [
    Block::Pool,
    Block::Fire { squeeze: 16, expand: 64 },
    Block::Fire { squeeze: 16, expand: 64 },
    Block::Pool,
    Block::Fire { squeeze: 32, expand: 128 },
    Block::Fire { squeeze: 32, expand: 128 },
    Block::Pool,
    Block::Fire { squeeze: 48, expand: 192 },
    Block::Fire { squeeze: 48, expand: 192 },
    Block::Fire { squeeze: 64, expand: 256 },
    Block::Fire { squeeze: 64, expand: 256 },
];

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

/// The first convolution, 3 x 3 with stride 2.
pub fn stem() -> Layer {
    Layer::new("features.0", CHANNELS, STEM, 3)
}

/// The three convolutions (squeeze, expand 1 x 1, expand 3 x 3) of the fire block at position `at` of [`BODY`].
pub fn fire_layers(at: usize, inputs: usize, squeeze: usize, expand: usize) -> [Layer; 3] {
    let name = |part| format!("features.{}.{part}", BODY_START + at);
    [
        Layer::new(name("squeeze"), inputs, squeeze, 1),
        Layer::new(name("expand1x1"), squeeze, expand, 1),
        Layer::new(name("expand3x3"), squeeze, expand, 3),
    ]
}

/// The last convolution, 1 x 1, from `inputs` channels to the classes.
pub fn classifier(inputs: usize) -> Layer {
    Layer::new("classifier.1", inputs, CLASSES, 1)
}

/// All 26 convolutions in the order in which they run.
pub fn layers() -> Vec<Layer> {
    let mut layers = vec![stem()];
    let mut channels = STEM;
    for (at, block) in BODY.into_iter().enumerate() {
        if let Block::Fire { squeeze, expand } = block {
            layers.extend(fire_layers(at, channels, squeeze, expand));
            channels = 2 * expand;
        }
    }
    layers.push(classifier(channels));
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_parameters_of_torchvision() {
        let parameters = |l: &Layer| l.shape().iter().product::<usize>() + l.outputs;
        assert_eq!(layers().iter().map(parameters).sum::<usize>(), 1_235_496);
        assert_eq!(layers()[1].name, "features.3.squeeze");
        assert_eq!(layers()[24].name, "features.12.expand3x3");
    }
}
