//! SqueezeNet 1.1: the layers of torchvision's `squeezenet1_1` under its names, and the program made of them.

use quearn_stage::rep::{Conv2d, F32, Rep, Stage, Tensor, Window};

/// Channels of the image.
pub const CHANNELS: usize = 3;
/// Classes that it tells apart.
pub const CLASSES: usize = 1000;
/// Height and width of the images that it is usually given; others of 25 and more pixels work as well.
pub const IMAGE_SIZE: usize = 224;
/// Position in torchvision's `features` of the first of [`BODY`].
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

/// The blocks in order.
pub const BODY: [Block; 11] = [
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
    Layer::new("features.0", CHANNELS, 64, 3)
}

/// The convolutions of the block at position `at` of [`BODY`]: none of a pool; squeeze, expand 1 x 1 and expand 3 x 3 of
/// a fire block.
pub fn block_layers(at: usize) -> Vec<Layer> {
    let Block::Fire { inputs, squeeze, expand } = BODY[at] else { return vec![] };
    let layer = |part, from, to, kernel| Layer::new(format!("features.{}.{part}", BODY_START + at), from, to, kernel);
    vec![
        layer("squeeze", inputs, squeeze, 1),
        layer("expand1x1", squeeze, expand, 1),
        layer("expand3x3", squeeze, expand, 3),
    ]
}

/// The last convolution, 1 x 1, to the classes.
pub fn classifier() -> Layer {
    Layer::new("classifier.1", 512, CLASSES, 1)
}

/// All 26 convolutions in the order in which they run.
pub fn layers() -> Vec<Layer> {
    let body = (0..BODY.len()).flat_map(block_layers);
    std::iter::once(stem()).chain(body).chain([classifier()]).collect()
}

/// Operations that an image of `size` x `size` pixels takes: two for each multiply-add of the convolutions.
pub fn flops(size: usize) -> u64 {
    let at = |layers: &[Layer], side: usize| {
        let weights: usize = layers.iter().map(|layer| layer.shape().iter().product::<usize>()).sum();
        (2 * weights * side * side) as u64
    };
    let (mut side, mut sum) = ((size - 1) / 2, 0);
    sum += at(&[stem()], side);
    for (i, block) in BODY.iter().enumerate() {
        match block {
            Block::Pool => side /= 2,
            Block::Fire { .. } => sum += at(&block_layers(i), side),
        }
    }
    sum + at(&[classifier()], side)
}

/// Logits [n, 1000] of images [n, 3, height, width]; the weights have the names of [`layers`].
pub fn squeezenet1_1<'s>(s: &'s Stage, images: Rep<'s, Tensor<F32>>) -> Rep<'s, Tensor<F32>> {
    let stem = conv(s, images, &stem(), Conv2d { stride: [2, 2], ..Conv2d::default() });
    let features = (0..BODY.len()).fold(stem, |x, at| match &block_layers(at)[..] {
        [squeeze, expand1x1, expand3x3] => {
            let x = conv(s, x, squeeze, Conv2d::default());
            let narrow = conv(s, x, expand1x1, Conv2d::default());
            let wide = conv(s, x, expand3x3, Conv2d { padding: [1, 1], ..Conv2d::default() });
            narrow.concat([wide], 1)
        }
        _ => x.max_pool2d(Window::square(3).stride(2).ceil()),
    });
    conv(s, features, &classifier(), Conv2d::default()).mean([2, 3])
}

/// max(convolution of `x`, 0).
fn conv<'s>(s: &'s Stage, x: Rep<'s, Tensor<F32>>, layer: &Layer, how: Conv2d) -> Rep<'s, Tensor<F32>> {
    let weight = s.weight(layer.weight(), layer.shape().map(|extent| extent as u64));
    let bias = s.weight(layer.bias(), [layer.outputs as u64]);
    x.conv2d(weight, Some(bias), how).relu()
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

    #[test]
    fn counts_operations_as_the_peers_do() {
        assert_eq!(flops(IMAGE_SIZE), 698_303_872);
    }

    #[test]
    fn takes_any_batch_and_size() {
        let s = Stage::new();
        let small = squeezenet1_1(&s, s.input("small", ("batch", 3, 25, 64)));
        let usual = squeezenet1_1(&s, s.input("usual", [1, 3, 224, 224]));
        assert_eq!(small.ty().unwrap().to_string(), "[batch, 1000] f32");
        assert_eq!(usual.ty().unwrap().to_string(), "[1, 1000] f32");
        s.finish().unwrap();
    }
}
