//! Single operators of the shapes that networks have, to measure kernels by.

use crate::nn::{Module, Values};
use crate::weights::{self, Weights};
use crate::{Result, random};
use quearn::Tensors;
use quearn::data::Tensor;
use quearn_stage::graph::Graph;
use quearn_stage::rep::{Conv2d, Stage};

/// What an operator computes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `[rows, depth]` times a weight `[depth, cols]`.
    Gemm {
        /// Rows of the left operand.
        rows: u64,
        /// Inner dimension.
        depth: u64,
        /// Columns of the weight.
        cols: u64,
    },
    /// A convolution with a bias.
    Conv {
        /// Images.
        batch: u64,
        /// Channels of the image.
        inputs: u64,
        /// Height and width of the image.
        image: [u64; 2],
        /// Filters.
        outputs: u64,
        /// Height and width of a filter.
        kernel: [u64; 2],
        /// Vertical and horizontal stride.
        stride: [u64; 2],
        /// Zeros on each side, vertically and horizontally.
        padding: [u64; 2],
        /// Groups of channels.
        groups: u64,
    },
    /// Scaled dot-product attention of `[batch, heads, steps, width]`.
    Attention {
        /// Texts.
        batch: u64,
        /// Heads.
        heads: u64,
        /// Steps.
        steps: u64,
        /// Numbers of a head.
        width: u64,
    },
    /// Softmax of each row.
    Softmax {
        /// Rows.
        rows: u64,
        /// Columns.
        cols: u64,
    },
    /// Layer norm of each row.
    LayerNorm {
        /// Rows.
        rows: u64,
        /// Columns.
        cols: u64,
    },
}

/// An operator of one shape.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Which network has it, or its shape.
    pub name: String,
    /// What it computes.
    pub kind: Kind,
}

fn gemm([rows, depth, cols]: [u64; 3]) -> Operator {
    Operator { name: format!("{rows}x{depth}x{cols}"), kind: Kind::Gemm { rows, depth, cols } }
}

/// Name, batch, channels, image, filters, kernel, stride, padding, groups.
type Convolution = (&'static str, u64, u64, [u64; 2], u64, [u64; 2], [u64; 2], [u64; 2], u64);

fn conv((name, batch, inputs, image, outputs, kernel, stride, padding, groups): Convolution) -> Operator {
    let kind = Kind::Conv { batch, inputs, image, outputs, kernel, stride, padding, groups };
    Operator { name: name.to_owned(), kind }
}

const GEMMS: [[u64; 3]; 21] = [
    [256, 256, 256],
    [512, 512, 512],
    [1024, 1024, 1024],
    [2048, 2048, 2048],
    [128, 768, 768],
    [128, 768, 3072],
    [128, 3072, 768],
    [1024, 768, 3072],
    [1024, 3072, 768],
    [128, 768, 50257],
    [1, 768, 3072],
    [1, 4096, 4096],
    [8, 768, 3072],
    [20, 650, 2600],
    [8, 800, 2400],
    [16, 1024, 1024],
    [4096, 128, 512],
    [4096, 512, 512],
    [4096, 512, 10],
    [2048, 64, 2048],
    [64, 2048, 64],
];

const CONVOLUTIONS: [Convolution; 22] = [
    ("sq11 conv1", 1, 3, [224, 224], 64, [3, 3], [2, 2], [0, 0], 1),
    ("sq10 conv1", 1, 3, [224, 224], 96, [7, 7], [2, 2], [0, 0], 1),
    ("sq11 fire2 squeeze", 1, 64, [55, 55], 16, [1, 1], [1, 1], [0, 0], 1),
    ("sq11 fire2 expand1", 1, 16, [55, 55], 64, [1, 1], [1, 1], [0, 0], 1),
    ("sq11 fire2 expand3", 1, 16, [55, 55], 64, [3, 3], [1, 1], [1, 1], 1),
    ("sq11 fire5 expand3", 1, 32, [27, 27], 128, [3, 3], [1, 1], [1, 1], 1),
    ("sq11 fire9 expand3", 1, 64, [13, 13], 256, [3, 3], [1, 1], [1, 1], 1),
    ("sq11 conv10", 1, 512, [13, 13], 1000, [1, 1], [1, 1], [0, 0], 1),
    ("resnet conv1", 1, 3, [224, 224], 64, [7, 7], [2, 2], [3, 3], 1),
    ("resnet 3x3 64", 1, 64, [56, 56], 64, [3, 3], [1, 1], [1, 1], 1),
    ("resnet 3x3 128", 1, 128, [28, 28], 128, [3, 3], [1, 1], [1, 1], 1),
    ("resnet 3x3 256", 1, 256, [14, 14], 256, [3, 3], [1, 1], [1, 1], 1),
    ("resnet 3x3 512", 1, 512, [7, 7], 512, [3, 3], [1, 1], [1, 1], 1),
    ("resnet50 1x1 64-256", 1, 64, [56, 56], 256, [1, 1], [1, 1], [0, 0], 1),
    ("resnet50 1x1 1024-256", 1, 1024, [14, 14], 256, [1, 1], [1, 1], [0, 0], 1),
    ("resnet50 1x1 512-2048", 1, 512, [7, 7], 2048, [1, 1], [1, 1], [0, 0], 1),
    ("resnet 3x3 64 b16", 16, 64, [56, 56], 64, [3, 3], [1, 1], [1, 1], 1),
    ("resnet 3x3 256 b16", 16, 256, [14, 14], 256, [3, 3], [1, 1], [1, 1], 1),
    ("mobilenet dw 3x3 96", 1, 96, [112, 112], 96, [3, 3], [2, 2], [1, 1], 96),
    ("mobilenet dw 3x3 384", 1, 384, [14, 14], 384, [3, 3], [1, 1], [1, 1], 384),
    ("ds2 conv1", 1, 1, [161, 300], 32, [41, 11], [2, 2], [20, 5], 1),
    ("ds2 conv2", 1, 32, [81, 150], 32, [21, 11], [2, 1], [10, 5], 1),
];

/// All operators, in groups.
pub fn all() -> Vec<Operator> {
    let named = |name: String, kind| Operator { name, kind };
    let attention = [[1, 12, 128, 64], [8, 12, 128, 64], [1, 12, 512, 64], [1, 12, 1024, 64], [1, 8, 2048, 64]];
    let attention = attention.map(|[batch, heads, steps, width]| {
        named(format!("{batch}x{heads}x{steps}x{width}"), Kind::Attention { batch, heads, steps, width })
    });
    let softmax = [[1536, 128], [12288, 128], [128, 50257], [4096, 1024]];
    let softmax = softmax.map(|[rows, cols]| named(format!("softmax {rows}x{cols}"), Kind::Softmax { rows, cols }));
    let norm = [[128, 768], [1024, 768], [4096, 1024]];
    let norm = norm.map(|[rows, cols]| named(format!("layer norm {rows}x{cols}"), Kind::LayerNorm { rows, cols }));
    let products = GEMMS.into_iter().map(gemm).chain(CONVOLUTIONS.into_iter().map(conv));
    products.chain(attention).chain(softmax).chain(norm).collect()
}

impl Operator {
    /// The group that it belongs to.
    pub fn group(&self) -> &'static str {
        match self.kind {
            Kind::Gemm { .. } => "gemm",
            Kind::Conv { .. } => "conv",
            Kind::Attention { .. } => "attn",
            Kind::Softmax { .. } | Kind::LayerNorm { .. } => "norm",
        }
    }

    /// Shape of the inputs `x`, and `y`, `z` where there are several.
    fn inputs(&self) -> Vec<(&'static str, Vec<u64>)> {
        match self.kind {
            Kind::Gemm { rows, depth, .. } => vec![("x", vec![rows, depth])],
            Kind::Conv { batch, inputs, image, .. } => vec![("x", vec![batch, inputs, image[0], image[1]])],
            Kind::Attention { batch, heads, steps, width } => {
                ["x", "y", "z"].map(|name| (name, vec![batch, heads, steps, width])).into()
            }
            Kind::Softmax { rows, cols } | Kind::LayerNorm { rows, cols } => vec![("x", vec![rows, cols])],
        }
    }

    /// The program.
    ///
    /// # Errors
    /// What the builder says of shapes that do not fit.
    pub fn graph(&self) -> Result<Graph> {
        let s = Stage::new();
        let inputs: Vec<Values<'_>> = self.inputs().into_iter().map(|(name, shape)| s.input(name, shape)).collect();
        let (m, x) = (Module::root(&s), inputs[0]);
        let out = match self.kind {
            Kind::Gemm { depth, cols, .. } => x.matmul(m.weight("weight", [depth, cols])),
            Kind::Conv { outputs, kernel, stride, padding, groups, .. } => {
                m.conv2d(x, outputs, kernel, Conv2d { stride, padding, groups, ..Conv2d::default() })
            }
            Kind::Attention { width, .. } => {
                let scores = x.matmul(inputs[1].transpose()) * (1.0 / (width as f32).sqrt());
                scores.softmax(3).matmul(inputs[2])
            }
            Kind::Softmax { .. } => x.softmax(1),
            Kind::LayerNorm { .. } => m.layer_norm(x, 1e-5),
        };
        s.output("out", out);
        Ok(s.finish().map_err(quearn::Error::from)?)
    }

    /// Seeded inputs and weights.
    ///
    /// # Errors
    /// What [`weights::for_graph`] says.
    pub fn tensors(&self, graph: &Graph) -> Result<(Tensors, Weights)> {
        let seeded = |(name, shape): (&str, Vec<u64>)| {
            let count = shape.iter().product::<u64>() as usize;
            let values = random::gauss(name, count).into_iter().map(|v| v as f32).collect();
            Ok((name.to_owned(), Tensor::from_vec(values, &shape)?))
        };
        Ok((self.inputs().into_iter().map(seeded).collect::<Result<_>>()?, weights::for_graph("operator", graph)?))
    }

    /// Multiplications and additions of products and convolutions; 0 for what memory bounds.
    pub fn flops(&self) -> u64 {
        match self.kind {
            Kind::Gemm { rows, depth, cols } => 2 * rows * depth * cols,
            Kind::Conv { batch, inputs, image, outputs, kernel, stride, padding, groups } => {
                let out = [0, 1].map(|i| (image[i] + 2 * padding[i] - kernel[i]) / stride[i] + 1);
                2 * batch * outputs * out[0] * out[1] * (inputs / groups) * kernel[0] * kernel[1]
            }
            Kind::Attention { batch, heads, steps, width } => 4 * batch * heads * steps * steps * width,
            Kind::Softmax { .. } | Kind::LayerNorm { .. } => 0,
        }
    }

    /// Bytes that have to be read and written where memory is the bound.
    pub fn bytes(&self) -> u64 {
        match self.kind {
            Kind::Softmax { rows, cols } | Kind::LayerNorm { rows, cols } => 8 * rows * cols,
            _ => 0,
        }
    }
}
