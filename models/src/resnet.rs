//! ResNet as torchvision has it: stages of blocks, each added to what goes past it.

use crate::nn::{Module, Values, extent};
use quearn_stage::rep::{Conv2d, Stage, Window};

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct ResNet {
    /// Blocks of 1 x 1, 3 x 3 and 1 x 1 pixels, the last four times as wide, instead of two of 3 x 3.
    pub bottleneck: bool,
    /// Blocks in each stage.
    pub depths: [usize; 4],
    /// Channels of the first stage; each later one has twice as many as the one before it.
    pub width: u64,
    /// Classes that it tells apart.
    pub classes: u64,
}

/// ResNet-18.
pub const RESNET18: ResNet = ResNet { bottleneck: false, depths: [2, 2, 2, 2], width: 64, classes: 1000 };
/// ResNet-50.
pub const RESNET50: ResNet = ResNet { bottleneck: true, depths: [3, 4, 6, 3], width: 64, classes: 1000 };

/// How a kernel of 3 x 3 or 1 x 1 pixels moves so that only the stride shrinks the image.
fn strided(stride: u64, padding: u64) -> Conv2d {
    Conv2d { stride: [stride; 2], padding: [padding; 2], ..Conv2d::default() }
}

impl ResNet {
    /// Logits [n, classes] of images [n, 3, height, width].
    #[track_caller]
    pub fn logits<'s>(&self, s: &'s Stage, image: Values<'s>) -> Values<'s> {
        let m = Module::root(s);
        let x = m.at("conv1").conv2d_norm(&m.at("bn1"), image, self.width, [7, 7], strided(2, 3)).relu();
        let mut x = x.max_pool2d(Window::square(3).stride(2).padding(1));
        for (stage, &depth) in self.depths.iter().enumerate() {
            for block in 0..depth {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                x = self.block(&m.at(format!("layer{}", stage + 1)).at(block), x, self.width << stage, stride);
            }
        }
        m.at("fc").linear(x.mean([2, 3]), self.classes)
    }

    #[track_caller]
    fn block<'s>(&self, m: &Module<'s>, x: Values<'s>, width: u64, stride: u64) -> Values<'s> {
        let conv = |i: usize, x, outputs, kernel: u64, stride| {
            let (conv, norm) = (m.at(format!("conv{i}")), m.at(format!("bn{i}")));
            conv.conv2d_norm(&norm, x, outputs, [kernel; 2], strided(stride, kernel / 2))
        };
        let (y, outputs) = if self.bottleneck {
            let y = conv(2, conv(1, x, width, 1, 1).relu(), width, 3, stride).relu();
            (conv(3, y, 4 * width, 1, 1), 4 * width)
        } else {
            (conv(2, conv(1, x, width, 3, stride).relu(), width, 3, 1), width)
        };
        let past = if stride == 1 && extent(x, 1) == outputs {
            x
        } else {
            let m = m.at("downsample");
            m.at(0).conv2d_norm(&m.at(1), x, outputs, [1, 1], strided(stride, 0))
        };
        (y + past).relu()
    }
}
