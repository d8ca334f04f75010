//! Rules about tables and tensors together.

mod filter_before_model;
mod prune_model_inputs;

pub use filter_before_model::filter_before_model;
pub use prune_model_inputs::prune_model_inputs;
