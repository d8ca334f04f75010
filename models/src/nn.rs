//! Layers under the names that torch gives their weights, and what attention and recurrent networks are made of.
//!
//! A layer reads the number of its inputs off its operand, so that a network is written as in PyTorch: which layers
//! there are, and what flows between them.

use quearn::training::{batch_norm, norm::Running};
use quearn_stage::graph::Dim;
use quearn_stage::rep::{Conv2d, ElementMarker, F32, FloatLike, I64, Rep, Stage, Tensor};
use std::fmt::Display;

/// Numbers that flow through a network.
pub type Values<'s> = Rep<'s, Tensor<F32>>;

/// A part of a network, with the place under which its weights are named.
#[derive(Clone)]
pub struct Module<'s> {
    stage: &'s Stage,
    path: String,
}

impl<'s> Module<'s> {
    /// The network itself.
    pub fn root(stage: &'s Stage) -> Module<'s> {
        Module { stage, path: String::new() }
    }

    /// A part of this part, such as `m.at("layer1").at(0)`.
    pub fn at(&self, part: impl Display) -> Module<'s> {
        let path = if self.path.is_empty() { part.to_string() } else { format!("{}.{part}", self.path) };
        Module { stage: self.stage, path }
    }

    /// The program that is written.
    pub fn stage(&self) -> &'s Stage {
        self.stage
    }

    /// A weight of this part.
    #[track_caller]
    pub fn weight<const N: usize>(&self, name: &str, shape: [u64; N]) -> Values<'s> {
        self.stage.weight(self.at(name).path, shape)
    }

    /// `nn.Linear`: the last axis of `x` to `outputs`.
    #[track_caller]
    pub fn linear(&self, x: Values<'s>, outputs: u64) -> Values<'s> {
        let weight = self.weight("weight", [outputs, last(x)]);
        x.matmul(weight.transpose()) + self.weight("bias", [outputs])
    }

    /// `nn.Conv2d` with a bias: `outputs` filters of `kernel` pixels.
    #[track_caller]
    pub fn conv2d(&self, x: Values<'s>, outputs: u64, kernel: [u64; 2], how: Conv2d) -> Values<'s> {
        let bias = self.weight("bias", [outputs]);
        x.conv2d(self.filters(x, outputs, kernel, &how), Some(bias), how)
    }

    /// `nn.Conv2d` without a bias, and the batch norm `norm` behind it.
    #[track_caller]
    pub fn conv2d_norm(
        &self,
        norm: &Module<'s>,
        x: Values<'s>,
        outputs: u64,
        kernel: [u64; 2],
        how: Conv2d,
    ) -> Values<'s> {
        norm.batch_norm(x.conv2d(self.filters(x, outputs, kernel, &how), None, how))
    }

    #[track_caller]
    fn filters(&self, x: Values<'s>, outputs: u64, [height, width]: [u64; 2], how: &Conv2d) -> Values<'s> {
        self.weight("weight", [outputs, extent(x, 1) / how.groups.max(1), height, width])
    }

    /// `nn.BatchNorm1d` or `2d` over axis 1; in a program for training by the batch, else by the running values.
    #[track_caller]
    pub fn batch_norm(&self, x: Values<'s>) -> Values<'s> {
        if self.stage.is_training() {
            let scale_bias = ["weight", "bias"].map(|name| self.weight(name, [extent(x, 1)]));
            let running = |name: &str| self.stage.state::<F32>(self.at(name).path, [extent(x, 1)]);
            let running = Running { mean: running("running_mean"), variance: running("running_var") };
            return batch_norm(x, scale_bias, running, 0.1, 1e-5);
        }
        let [scale, bias, mean, var] =
            ["weight", "bias", "running_mean", "running_var"].map(|name| self.weight(name, [extent(x, 1)]));
        x.batch_norm(scale, bias, mean, var, 1e-5)
    }

    /// `nn.LayerNorm` over the last axis.
    #[track_caller]
    pub fn layer_norm(&self, x: Values<'s>, eps: f32) -> Values<'s> {
        let axis = x.shape().len().saturating_sub(1);
        let centred = x - widened(x.mean([axis]));
        let scale = 1.0 / ((centred * centred).mean([axis]) + eps).sqrt();
        centred * widened(scale) * self.weight("weight", [last(x)]) + self.weight("bias", [last(x)])
    }

    /// `nn.Embedding`: a row of a table of `count` rows for each number.
    #[track_caller]
    pub fn embedding(&self, ids: Rep<'s, Tensor<I64>>, count: u64, width: u64) -> Values<'s> {
        self.weight("weight", [count, width]).gather(ids)
    }

    /// Attention of `heads` heads of `x` [n, length, width] to itself: `query`, `key`, `value` and `output` are linear,
    /// and `mask`, which broadcasts to [n, heads, length, length], is added to the scores.
    #[track_caller]
    pub fn self_attention(&self, x: Values<'s>, heads: u64, mask: Values<'s>) -> Values<'s> {
        let [query, key, value] = ["query", "key", "value"].map(|part| self.at(part).linear(x, last(x)));
        self.at("output").linear(attention(query, key, value, heads, mask), last(x))
    }
}

/// For each query [n, queries, width] the mean of the values [n, keys, width], weighted by the softmax of its products
/// with the keys; in `heads` parts of the width, each on its own.
#[track_caller]
pub fn attention<'s>(
    query: Values<'s>,
    key: Values<'s>,
    value: Values<'s>,
    heads: u64,
    mask: Values<'s>,
) -> Values<'s> {
    let split = |x: Values<'s>| x.reshape((dim(x, 0), dim(x, 1), heads, last(x) / heads)).permute([0, 2, 1, 3]);
    let scale = 1.0 / ((last(query) / heads) as f32).sqrt();
    let scores = split(query).matmul(split(key).transpose()) * scale + mask;
    let mixed = scores.softmax(3).matmul(split(value)).permute([0, 2, 1, 3]);
    mixed.reshape((dim(query, 0), dim(query, 1), last(query)))
}

/// What a mask adds to scores that do not count: e to it is 0.
pub const HIDDEN: f32 = -1e9;

/// x * Φ(x), with the error function.
#[track_caller]
pub fn gelu(x: Values<'_>) -> Values<'_> {
    x * 0.5 * ((x * std::f32::consts::FRAC_1_SQRT_2).erf() + 1.0)
}

/// x * Φ(x), by tanh as GPT-2 has it.
#[track_caller]
pub fn gelu_tanh(x: Values<'_>) -> Values<'_> {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    x * 0.5 * (((x * x * x * 0.044_715 + x) * SQRT_2_OVER_PI).tanh() + 1.0)
}

/// `x` between 0 and `most`.
#[track_caller]
pub fn clipped(x: Values<'_>, most: f32) -> Values<'_> {
    x.relu().minimum(most)
}

/// A dimension of `x`; 0, which fits nothing, if it is not there.
pub fn dim<T: ElementMarker>(x: Rep<'_, Tensor<T>>, axis: usize) -> Dim {
    x.shape().get(axis).cloned().unwrap_or(Dim::Const(0))
}

/// A known extent of `x`; 0, which fits nothing, if it has none.
pub fn extent<T: ElementMarker>(x: Rep<'_, Tensor<T>>, axis: usize) -> u64 {
    x.shape().get(axis).and_then(Dim::as_const).unwrap_or(0)
}

/// The last extent of `x`.
pub fn last<T: ElementMarker>(x: Rep<'_, Tensor<T>>) -> u64 {
    extent(x, x.shape().len().saturating_sub(1))
}

/// `x` with a further axis of extent 1.
#[track_caller]
pub fn widened<'s, T: ElementMarker + FloatLike>(x: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
    let mut shape = x.shape();
    shape.push(Dim::Const(1));
    x.reshape(shape)
}

/// `x` without its last axis, of extent 1.
#[track_caller]
pub fn narrowed<'s, T: ElementMarker + FloatLike>(x: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
    let mut shape = x.shape();
    shape.pop();
    x.reshape(shape)
}
