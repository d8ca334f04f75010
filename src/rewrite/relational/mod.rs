//! Rules about tables and scalars.

mod count_distinct;
mod fold_constants;
mod match_prefix;
mod merge_filters;
mod merge_projections;
mod prune_join;
mod prune_projection;
mod push_filter;
mod resolve_mark;

pub use count_distinct::count_distinct;
pub use fold_constants::fold_constants;
pub use match_prefix::match_prefix;
pub use merge_filters::merge_filters;
pub use merge_projections::merge_projections;
pub use prune_join::prune_join;
pub use prune_projection::prune_projection;
pub use push_filter::{below_projections, push_filter};
pub use resolve_mark::resolve_mark;
