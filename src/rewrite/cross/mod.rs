//! Rules about tables and tensors together.

mod filter_before_model;
mod invert_link;
mod prune_model_inputs;
mod prune_trees;

pub use filter_before_model::filter_before_model;
pub use invert_link::invert_link;
pub use prune_model_inputs::prune_model_inputs;
pub use prune_trees::prune_trees;
