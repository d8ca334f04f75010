//! Rules about tables and tensors together.

mod drop_zero_weights;
mod factorise_products;
mod filter_before_model;
mod gather_one_hot;
mod invert_link;
mod prune_model_inputs;
mod prune_trees;
mod split_linear_over_join;
mod star;
mod stop_trees;
mod weights;

pub use drop_zero_weights::drop_zero_weights;
pub use factorise_products::factorise_products;
pub use filter_before_model::filter_before_model;
pub use gather_one_hot::gather_one_hot;
pub use invert_link::invert_link;
pub use prune_model_inputs::prune_model_inputs;
pub use prune_trees::prune_trees;
pub use split_linear_over_join::split_linear_over_join;
pub use stop_trees::stop_trees;
