//! MobileNet-v2 as torchvision has it: blocks that widen, filter each channel on its own, and narrow again.

use crate::nn::{Module, Values, clipped, extent};
use quearn_stage::rep::{Conv2d, Stage};

/// Some blocks in a row.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// How many times as wide a block is inside.
    pub expansion: u64,
    /// Channels out.
    pub outputs: u64,
    /// Number of blocks.
    pub count: usize,
    /// Stride of the first.
    pub stride: u64,
}

const fn blocks(expansion: u64, outputs: u64, count: usize, stride: u64) -> Blocks {
    Blocks { expansion, outputs, count, stride }
}

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct MobileNetV2<'a> {
    /// Channels of the first convolution.
    pub stem: u64,
    /// The blocks in order.
    pub body: &'a [Blocks],
    /// Channels of the last convolution.
    pub last: u64,
    /// Classes that it tells apart.
    pub classes: u64,
}

/// MobileNet-v2 of the usual width.
pub const MOBILENET_V2: MobileNetV2 = MobileNetV2 {
    stem: 32,
    body: &[
        blocks(1, 16, 1, 1),
        blocks(6, 24, 2, 2),
        blocks(6, 32, 3, 2),
        blocks(6, 64, 4, 2),
        blocks(6, 96, 3, 1),
        blocks(6, 160, 3, 2),
        blocks(6, 320, 1, 1),
    ],
    last: 1280,
    classes: 1000,
};

/// A version with few channels, for tests.
pub const SMALL: MobileNetV2 =
    MobileNetV2 { stem: 8, body: &[blocks(1, 8, 1, 1), blocks(6, 8, 2, 2)], last: 20, classes: 10 };

impl MobileNetV2<'_> {
    /// Logits [n, classes] of images [n, 3, height, width].
    #[track_caller]
    pub fn logits<'s>(&self, s: &'s Stage, image: Values<'s>) -> Values<'s> {
        let m = Module::root(s);
        let features = m.at("features");
        let mut x = filtered(&features.at(0), image, self.stem, 3, Conv2d { stride: [2, 2], ..Conv2d::default() });
        let mut at = 1;
        for blocks in self.body {
            for block in 0..blocks.count {
                let stride = if block == 0 { blocks.stride } else { 1 };
                x = inverted_residual(&features.at(at).at("conv"), x, blocks, stride);
                at += 1;
            }
        }
        let x = filtered(&features.at(at), x, self.last, 1, Conv2d::default());
        m.at("classifier").at(1).linear(x.mean([2, 3]), self.classes)
    }
}

/// A convolution that keeps the extents but for its stride, a batch norm, and values cut off at 0 and 6.
#[track_caller]
fn filtered<'s>(m: &Module<'s>, x: Values<'s>, outputs: u64, kernel: u64, how: Conv2d) -> Values<'s> {
    let how = Conv2d { padding: [kernel / 2; 2], ..how };
    clipped(m.at(0).conv2d_norm(&m.at(1), x, outputs, [kernel; 2], how), 6.0)
}

#[track_caller]
fn inverted_residual<'s>(m: &Module<'s>, x: Values<'s>, blocks: &Blocks, stride: u64) -> Values<'s> {
    let (inputs, mut at, mut y) = (extent(x, 1), 0, x);
    let inside = inputs * blocks.expansion;
    if blocks.expansion > 1 {
        y = filtered(&m.at(at), y, inside, 1, Conv2d::default());
        at += 1;
    }
    let each = Conv2d { stride: [stride; 2], groups: inside, ..Conv2d::default() };
    let y = filtered(&m.at(at), y, inside, 3, each);
    let y = m.at(at + 1).conv2d_norm(&m.at(at + 2), y, blocks.outputs, [1, 1], Conv2d::default());
    if stride == 1 && inputs == blocks.outputs { x + y } else { y }
}
