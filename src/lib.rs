//! Quearn: queries and tensor programs in one staged language, compiled together.

pub mod data;
pub mod eval;
pub mod io;
pub mod lower;
