//! Comparing outputs with reference outputs.

use crate::networks::Network;
use crate::{Error, Result};
use quearn::Tensors;
use quearn::data::Tensor;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest error of float32 outputs, as a share of the largest reference output.
pub const TOLERANCE: f64 = 1e-4;

/// How far a tensor is from another; every field is NaN if an element is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Difference {
    /// The largest difference.
    pub max_abs: f64,
    /// The largest difference as a share of the largest magnitude that was wanted.
    pub max_rel: f64,
    /// The quadratic mean of the differences as a share of that of what was wanted.
    pub rms_rel: f64,
}

/// The difference between `got` and `want`, f32 tensors; an error if they are of different shapes.
pub fn difference(got: &Tensor, want: &Tensor) -> Result<Difference> {
    if got.shape() != want.shape() {
        let message = format!("expected shape {:?}, found {:?}", want.shape(), got.shape());
        return Err(Error::wrong("output", message));
    }
    let (mut max_abs, mut squares) = (0.0f64, 0.0);
    let (mut largest, mut all_squares) = (0.0f64, 0.0);
    for (&got, &want) in got.as_slice::<f32>()?.iter().zip(want.as_slice::<f32>()?) {
        let (want, off) = (f64::from(want), (f64::from(got) - f64::from(want)).abs());
        max_abs = if max_abs.is_nan() || max_abs >= off { max_abs } else { off };
        largest = largest.max(want.abs());
        squares += off * off;
        all_squares += want * want;
    }
    Ok(Difference { max_abs, max_rel: max_abs / largest, rms_rel: (squares / all_squares).sqrt() })
}

/// The largest difference between `got` and `want`, f32 tensors of one shape, as a share of the largest magnitude in
/// `want`; an error if it is over `tolerance` or not a number.
pub fn check_tensor(got: &Tensor, want: &Tensor, tolerance: f64) -> Result<f64> {
    let error = difference(got, want)?.max_rel;
    check_error(error, tolerance)?;
    Ok(error)
}

/// An error if a relative error is over `tolerance` or not a number.
pub fn check_error(error: f64, tolerance: f64) -> Result<()> {
    if error <= tolerance {
        return Ok(());
    }
    Err(Error::wrong("output", format!("expected a relative error of at most {tolerance:e}, found {error:e}")))
}

/// What a network is given, and what it should give.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Items in the batch.
    pub batch: u64,
    /// Inputs by name.
    pub inputs: Tensors,
    /// Outputs by name; none if they are not known.
    pub outputs: Tensors,
}

impl Reference {
    /// Seeded inputs of the usual shapes, of which nobody knows what comes out.
    pub fn unknown(network: &Network, batch: u64) -> Result<Reference> {
        Ok(Reference { batch, inputs: network.seeded_inputs(batch, &BTreeMap::new())?, outputs: Tensors::new() })
    }

    /// The largest relative error of the outputs, in f32; `None` if there is nothing to compare with.
    pub fn difference<'a>(&self, output: impl Fn(&str) -> Result<&'a Tensor>) -> Result<Option<Difference>> {
        let mut worst: Option<Difference> = None;
        for (name, want) in &self.outputs {
            let off = difference(output(name)?, want)?;
            if worst.is_none_or(|worst| off.max_rel.is_nan() || off.max_rel > worst.max_rel) {
                worst = Some(off);
            }
        }
        Ok(worst)
    }
}

/// A reference as it is stored: the inputs are seeded, so that their shapes are enough.
#[derive(Deserialize)]
struct Stored {
    network: String,
    batch: u64,
    inputs: BTreeMap<String, Vec<u64>>,
    outputs: BTreeMap<String, StoredTensor>,
}

#[derive(Deserialize)]
struct StoredTensor {
    shape: Vec<u64>,
    values: Vec<f32>,
}

/// The files of references, with their names.
const FILES: [(&str, &str); 2] = [
    ("reference/squeezenet1_1.json", include_str!("../reference/squeezenet1_1.json")),
    ("reference/small.json", include_str!("../reference/small.json")),
];

/// What PyTorch computes with the seeded weights of a network; nothing for most of the large ones. See
/// `reference/README.md`.
pub fn references(network: &Network) -> Result<Vec<Reference>> {
    let mut found = vec![];
    for (file, text) in FILES {
        let stored: Vec<Stored> = serde_json::from_str(text).map_err(|e| Error::wrong(file, e.to_string()))?;
        let ours = stored.into_iter().filter(|stored| stored.network == network.name);
        found.extend(ours.map(|stored| reference(network, stored)).collect::<Result<Vec<_>>>()?);
    }
    Ok(found)
}

fn reference(network: &Network, stored: Stored) -> Result<Reference> {
    let output = |(name, tensor): (String, StoredTensor)| Ok((name, Tensor::from_vec(tensor.values, &tensor.shape)?));
    Ok(Reference {
        inputs: network.seeded_inputs(stored.batch, &stored.inputs)?,
        batch: stored.batch,
        outputs: stored.outputs.into_iter().map(output).collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::SMALL;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_vec(values.to_vec(), &[values.len() as u64]).unwrap()
    }

    #[test]
    fn errors_are_relative_to_the_largest() {
        let want = tensor(&[0.0, -8.0, 1.0]);
        assert_eq!(check_tensor(&tensor(&[0.5, -8.0, 1.0]), &want, 0.1).unwrap(), 0.0625);
        assert!(check_tensor(&tensor(&[0.5, -8.0, 1.0]), &want, 0.01).is_err());
        assert!(check_tensor(&tensor(&[f32::NAN, -8.0, 1.0]), &want, 0.1).is_err());
        let shape = check_tensor(&tensor(&[0.0]), &want, 0.1).unwrap_err();
        assert_eq!(shape.to_string(), "output: expected shape [3], found [1]");
    }

    #[test]
    fn references_are_complete() {
        let squeezenet = Network::find("squeezenet1_1").unwrap();
        let shapes = |r: &Reference| (r.inputs["image"].shape().to_vec(), r.outputs["logits"].shape().to_vec());
        let all: Vec<_> = references(squeezenet).unwrap().iter().map(shapes).collect();
        assert_eq!(all, [(vec![1, 3, 224, 224], vec![1, 1000]), (vec![2, 3, 64, 64], vec![2, 1000])]);
        for network in SMALL {
            let all = references(network).unwrap();
            assert!(!all.is_empty(), "{} has no reference", network.name);
            assert!(all.iter().all(|r| r.outputs.keys().eq(network.outputs)), "{}", network.name);
        }
    }
}
