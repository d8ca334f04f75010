//! Comparing outputs with reference outputs.

use crate::random;
use crate::squeezenet::CHANNELS;
use crate::{Error, Result};
use quearn::data::Tensor;
use serde::Deserialize;

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
    if error <= tolerance {
        return Ok(error);
    }
    Err(Error::wrong("output", format!("expected a relative error of at most {tolerance:e}, found {error:e}")))
}

/// A batch of images and the outputs that PyTorch computes for them with the seeded weights.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Images, f32 [n, 3, height, width].
    pub image: Tensor,
    /// Outputs, f32 [n, 1000].
    pub logits: Tensor,
}

/// A reference as it is stored.
#[derive(Deserialize)]
struct Stored {
    image: [u64; 4],
    logits: Vec<f32>,
}

/// The references of SqueezeNet 1.1: one image of 224 x 224 pixels, and two of 64 x 64 (see `reference/README.md`).
pub fn squeezenet1_1() -> Result<Vec<Reference>> {
    let stored: Vec<Stored> = serde_json::from_str(include_str!("../reference/squeezenet1_1.json"))
        .map_err(|e| Error::wrong("reference/squeezenet1_1.json", e.to_string()))?;
    stored.into_iter().map(reference).collect()
}

fn reference(stored: Stored) -> Result<Reference> {
    let [count, _, _, size] = stored.image;
    let classes = stored.logits.len() as u64 / count;
    Ok(Reference {
        image: images("squeezenet1_1", count as usize, size as usize)?,
        logits: Tensor::from_vec(stored.logits, &[count, classes])?,
    })
}

/// Seeded images for a model, f32 [count, 3, size, size], with mean 0 and variance 1.
pub fn images(model: &str, count: usize, size: usize) -> Result<Tensor> {
    let values = random::gauss(&format!("{model}.image/{size}"), count * CHANNELS * size * size);
    let shape = [count, CHANNELS, size, size].map(|extent| extent as u64);
    Ok(Tensor::from_vec(values.into_iter().map(|v| v as f32).collect(), &shape)?)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let shapes = |r: &Reference| (r.image.shape().to_vec(), r.logits.shape().to_vec());
        let all: Vec<_> = squeezenet1_1().unwrap().iter().map(shapes).collect();
        assert_eq!(all, [(vec![1, 3, 224, 224], vec![1, 1000]), (vec![2, 3, 64, 64], vec![2, 1000])]);
    }
}
