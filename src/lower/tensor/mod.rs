//! Tensor operators: staged kernels over tensors in memory, and everything else fused into them.
//!
//! | file | what it holds |
//! |---|---|
//! | [`program`] | whole tensor programs: [`lower_program`], passes over stages, memory |
//! | [`tile`] | tensor operators inside a query pipeline: [`lower_tile`] |
//! | [`planner`], `places`, `products`, `windows`, `folds` | what is materialised, in which layout, by which stages |
//! | [`plan`], [`spec`], [`arena`] | the plan: stages, tensors in memory, memory |
//! | [`stage`] | stages as functions, shared where they agree |
//! | [`eval`], [`scalar`], [`math`] | evaluation at an index: elementwise operations, gathers, casts |
//! | `random` | random bits |
//! | [`nest`] | loops over the elements of a tensor |
//! | [`gemm`], [`kernel`] | convolutions and matrix products |
//! | [`blocked`] | products whose operands are packed block by block |
//! | [`contract`] | products that sum over the rows of a program |
//! | [`attention`] | products, softmax and products in one stage |
//! | [`trees`] | decision trees |
//! | [`foreign`] | functions of other libraries |
//! | [`steps`] | the steps of recurrent networks |
//! | [`winograd`] | 3 x 3 convolutions with fewer multiplications |
//! | [`depthwise`] | convolutions with a filter for each channel |
//! | [`scatter`] | values added at places that are known later |
//! | `filters`, `unpool` | what convolutions and poolings by maxima have for derivatives |
//! | [`pool`], [`reduce`] | pooling, reductions, softmax, position of the maximum |
//! | `updates` | results that go where an input lies |
//! | `joint` | results, such as a weight's next value, that are made with the gradient that they follow from |
//! | [`target`] | the vector unit |
//!
//! Invariant: a stage's function gets everything through its record and writes one buffer, or one for each result; the
//! values it gives do not depend on how its work items are shared among workers.

pub mod arena;
pub mod attention;
pub mod blocked;
pub mod contract;
pub mod depthwise;
pub mod eval;
mod filters;
mod folds;
pub mod foreign;
pub mod gemm;
mod joint;
pub mod kernel;
pub mod math;
pub mod nest;
mod places;
pub mod plan;
pub mod planner;
pub mod pool;
mod products;
pub mod program;
mod random;
pub mod reduce;
pub mod scalar;
pub mod scatter;
pub mod spec;
pub mod stage;
pub mod steps;
pub mod target;
pub mod tile;
pub mod trees;
mod unpool;
mod updates;
mod windows;
pub mod winograd;

pub use contract::Kernel as RowProducts;
pub use program::lower_program;
pub use random::random;
pub use spec::storage;
pub use target::Target;
pub use tile::{TileBytes, View, lower_tile, tile_row_limit};
