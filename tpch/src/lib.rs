//! TPC-H: the tables, the queries and their expected answers.
//!
//! ```text
//!  generate --> Parquet cache --> catalog --> tables in memory
//!  answers: expected results, compared with what a query returned
//! ```

pub mod answers;
pub mod catalog;
mod error;
pub mod generate;
pub mod schema;

pub use error::{Error, Result};
