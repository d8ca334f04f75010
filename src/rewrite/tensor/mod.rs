//! Rules about tensors.

mod fold_batch_norm;
mod fuse_elementwise;

pub use fold_batch_norm::fold_batch_norm;
pub use fuse_elementwise::fuse_elementwise;
