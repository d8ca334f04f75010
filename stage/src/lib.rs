//! The language of Quearn: what a program *is*, before anything optimises or runs it.
//!
//! ```text
//!  rep    what people write: typed, Copy handles over a stage
//!   |
//!  graph  tables + tensors, hash-consed, typed, printable
//!   |     (rewrites and staged lowering live in the crate `quearn`)
//!  low    structured low-level program: scalars, SIMD vectors, pointers, effects
//! ```

pub mod graph;
pub mod low;
pub mod rep;
