//! Table operators: pipelines of fused operators between points where rows are written out.
//!
//! | file | what it holds |
//! |---|---|
//! | [`pipeline`] | sources, the operators that pass rows on, sinks |
//! | [`scan`] | columns of stored tables |
//! | [`select`] | filters over stored tables by vectors |
//! | [`sideways`] | what joins have such a filter test |
//! | [`lookup`] | rows of stored tables that are found by a key |
//! | [`zones`] | tiles of stored tables that a filter skips |
//! | [`join`] | hash and array joins: inner, left, semi, anti, mark |
//! | [`aggregate`] | group-aggregate |
//! | [`sort`] | sort and limit |
//! | [`batch`] | tensor operators on the rows of a pipeline, a tile at a time |
//! | [`products`] | products of columns that sum over rows |
//! | [`registers`] | expressions by vectors |
//! | [`tensors`] | rows and scalars as operands of tensor programs |
//! | [`union`] | the rows of several tables |
//! | [`output`] | results |
//! | [`materialise`] | rows between pipelines |
//! | [`env`] | the current row |
//! | [`expr`] | staged expressions on the current row |
//! | [`value`], [`layout`], [`dictionary`], [`hash`], [`needed`] | what they are made of |

pub mod aggregate;
pub mod batch;
pub mod dictionary;
pub mod env;
pub mod expr;
pub mod hash;
pub mod join;
pub mod layout;
pub mod lookup;
pub mod materialise;
pub mod needed;
pub mod output;
pub mod pipeline;
pub mod products;
pub mod registers;
pub mod scan;
pub mod select;
pub mod sideways;
pub mod sort;
pub mod tensors;
pub mod union;
pub mod value;
pub mod zones;

pub use layout::{RowField, RowLayout, Stored};
