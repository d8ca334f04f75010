//! Weights by name, as torchvision names them, made from [`crate::random`] and kept as `.safetensors`.

use crate::squeezenet::{self, Layer};
use crate::{Result, cache, random};
use quearn::data::Tensor;
use quearn::io::{read_safetensors, write_safetensors};
use std::collections::BTreeMap;
use std::path::Path;

/// Weights by name.
pub type Weights = BTreeMap<String, Tensor>;

/// Gain that keeps the variance of activations through `max(x, 0)` (He et al. 2015), to the digits that the peers use.
#[expect(clippy::approx_constant, reason = "more digits would give other bits than the peers have")]
pub(crate) const GAIN: f64 = 1.4142135;
/// Deviation of the biases.
const BIAS_GAIN: f64 = 0.05;

/// `name.weight` and `name.bias` (f32) of every layer, from the two streams that `streams` names for the layer at a
/// position.
pub fn seeded(layers: &[Layer], streams: impl Fn(usize, &Layer) -> [String; 2]) -> Result<Weights> {
    let mut weights = Weights::new();
    for (at, layer) in layers.iter().enumerate() {
        let [kernel, bias] = streams(at, layer);
        weights.insert(layer.weight(), tensor(&kernel, &layer.shape(), GAIN)?);
        weights.insert(layer.bias(), tensor(&bias, &[layer.outputs], BIAS_GAIN)?);
    }
    Ok(weights)
}

fn tensor(stream: &str, shape: &[usize], gain: f64) -> Result<Tensor> {
    let extents: Vec<u64> = shape.iter().map(|&extent| extent as u64).collect();
    Ok(Tensor::from_vec(random::weight(stream, shape, gain), &extents)?)
}

/// The seeded weights of SqueezeNet 1.1, from the cache, where the first call puts them.
pub fn squeezenet1_1() -> Result<Weights> {
    let path = cache::folder().join("squeezenet1_1.safetensors");
    if !path.exists() {
        write(&path, &seeded_squeezenet1_1()?)?;
    }
    read(&path)
}

/// The seeded weights of SqueezeNet 1.1: streams `squeezenet1_1.NAME`.
fn seeded_squeezenet1_1() -> Result<Weights> {
    let stream = |name| format!("squeezenet1_1.{name}");
    seeded(&squeezenet::layers(), |_, layer| [stream(layer.weight()), stream(layer.bias())])
}

/// All tensors of a `.safetensors` file.
pub fn read(path: &Path) -> Result<Weights> {
    Ok(read_safetensors(path)?.0)
}

/// Writes a `.safetensors` file.
pub(crate) fn write(path: &Path, weights: &Weights) -> Result<()> {
    Ok(write_safetensors(path, weights.iter().map(|(name, tensor)| (name.as_str(), tensor)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_survive_a_file() {
        let weights = seeded_squeezenet1_1().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write(&path, &weights).unwrap();
        assert_eq!(read(&path).unwrap(), weights);
        assert_eq!(weights.len(), 52);
        assert_eq!(weights["features.3.squeeze.weight"].shape(), [16, 64, 1, 1]);
    }
}
