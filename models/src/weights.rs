//! Weights by name, as torchvision names them, made from [`crate::random`].

use crate::random;
use crate::squeezenet::{self, Layer};
use std::collections::BTreeMap;

/// Values of a weight tensor in row-major order.
#[derive(Clone, PartialEq, Debug)]
pub struct Weight {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

/// Weights by name.
pub type Weights = BTreeMap<String, Weight>;

/// Gain that keeps the variance of activations through `max(x, 0)` (He et al. 2015), to the digits that the peers use.
const GAIN: f64 = 1.4142135;
/// Deviation of the biases.
const BIAS_GAIN: f64 = 0.05;

/// `name.weight` and `name.bias` of every layer, from the streams that `streams` names for it.
pub fn seeded(layers: &[Layer], streams: impl Fn(usize, &Layer) -> [String; 2]) -> Weights {
    let mut weights = Weights::new();
    for (at, layer) in layers.iter().enumerate() {
        let [kernel, bias] = streams(at, layer);
        let mut insert = |part: &str, stream: &str, shape: &[usize], gain| {
            let values = random::weight(stream, shape, gain);
            weights.insert(format!("{}.{part}", layer.name), Weight { shape: shape.to_vec(), values });
        };
        insert("weight", &kernel, &layer.shape(), GAIN);
        insert("bias", &bias, &[layer.outputs], BIAS_GAIN);
    }
    weights
}

/// The seeded weights of SqueezeNet 1.1: streams `squeezenet1_1.NAME`.
pub fn squeezenet1_1() -> Weights {
    let name = |layer: &Layer, part| format!("squeezenet1_1.{}.{part}", layer.name);
    seeded(&squeezenet::layers(), |_, layer| [name(layer, "weight"), name(layer, "bias")])
}
