//! Weights by name, as PyTorch names them, made from [`crate::random`] and kept as `.safetensors`.

use crate::squeezenet::Layer;
use crate::{Result, random};
use quearn::data::Tensor;
use quearn::io::{read_safetensors, write_safetensors};
use quearn_stage::graph::{Graph, Op};
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

/// Seeded weights of all the shapes that a program asks for, from the streams `NETWORK.NAME`.
///
/// Kernels and matrices keep the variance of what goes through them, scales of norms and variances are near 1, and all
/// else is small.
pub fn for_graph(network: &str, graph: &Graph) -> Result<Weights> {
    let mut weights = Weights::new();
    for node in graph.reachable() {
        if let Op::Input { name, ty, weight: true } = graph.op(node) {
            let shape = ty.as_tensor().map_or(&[][..], |(_, shape)| shape);
            let shape: Vec<usize> = shape.iter().filter_map(|dim| Some(dim.as_const()? as usize)).collect();
            weights.insert(name.clone(), by_name(&format!("{network}.{name}"), &shape)?);
        }
    }
    Ok(weights)
}

fn by_name(stream: &str, shape: &[usize]) -> Result<Tensor> {
    let near_one = |spread: f64| {
        let values = random::unif(stream, shape.iter().product());
        let values = values.into_iter().map(|u| (1.0 + (u - 0.5) * spread) as f32).collect();
        let extents: Vec<u64> = shape.iter().map(|&extent| extent as u64).collect();
        Ok(Tensor::from_vec(values, &extents)?)
    };
    match shape.len() {
        1 if stream.ends_with(".weight") => near_one(0.4),
        1 if stream.ends_with(".running_var") => near_one(0.5),
        1 => tensor(stream, shape, BIAS_GAIN),
        _ => tensor(stream, shape, GAIN),
    }
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
    use crate::networks::Network;

    #[test]
    fn weights_survive_a_file() {
        let network = Network::find("squeezenet1_1").unwrap();
        let graph = network.graph(&network.seeded_inputs(1, &BTreeMap::new()).unwrap()).unwrap();
        let weights = for_graph(network.name, &graph).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write(&path, &weights).unwrap();
        assert_eq!(read(&path).unwrap(), weights);
        assert_eq!(weights.len(), 52);
        assert_eq!(weights["features.3.squeeze.weight"].shape(), [16, 64, 1, 1]);
    }
}
