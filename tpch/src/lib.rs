//! TPC-H: the tables, the queries and their expected answers.
//!
//! ```text
//!  generate --> Parquet cache --> catalog --> tables in memory
//!  queries: a number --> a graph, for a session that has the tables
//!  answers: expected results, compared with what a query returned
//!  host, times: what measurements need, here and beside the models
//! ```

pub mod answers;
pub mod catalog;
mod error;
pub mod generate;
pub mod host;
pub mod queries;
pub mod schema;
pub mod times;

pub use error::{Error, Result};
