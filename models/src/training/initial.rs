//! Weights to begin training with.

use crate::Result;
use quearn::Tensors;
use quearn::data::Tensor;
use quearn::training::Kept;
use quearn_stage::graph::{Scalar, philox};

/// Seeded weights: matrices and filters uniform, with the variance that `max(x, 0)` keeps (He et al. 2015); scales of norms and
/// running variances, by their names in PyTorch, are 1, all else is 0.
///
/// # Errors
/// None but for sizes that do not fit in memory.
pub fn weights<'k>(kept: impl Iterator<Item = &'k Kept>, seed: i64) -> Result<Tensors> {
    let mut weights = Tensors::new();
    for (stream, kept) in kept.enumerate() {
        let count = kept.shape.iter().product::<u64>();
        let is_scale = kept.name.ends_with(".weight") || kept.name.ends_with(".running_var");
        let values = match kept.shape.len() {
            0 | 1 => vec![if is_scale { 1.0 } else { 0.0 }; count as usize],
            _ => {
                let inputs = kept.shape[1..].iter().product::<u64>().max(1);
                let bound = (6.0 / inputs as f64).sqrt();
                let unit = |i: u64| philox::unit_f64(philox::block(seed, !(stream as i64), i as i64));
                (0..count).map(|i| (2.0 * unit(i) - 1.0) * bound).collect()
            }
        };
        let tensor = match kept.scalar {
            Scalar::F64 => Tensor::from_vec(values, &kept.shape)?,
            _ => Tensor::from_vec(values.into_iter().map(|value| value as f32).collect(), &kept.shape)?,
        };
        weights.insert(kept.name.clone(), tensor);
    }
    Ok(weights)
}
