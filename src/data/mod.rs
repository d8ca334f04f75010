//! Data: columns, tables and tensors, and the facts known about them.
//!
//! ```text
//!  RecordBatch, Parquet --> import --> Table --> export --> RecordBatch
//!                                       |
//!                     Column = values + validity + statistics + zones
//!                                |
//!          Fixed (ints, decimals, dates, floats, images)   Text (plain or packed)   Coded (sorted dictionary)
//!
//!  safetensors --> Tensor
//! ```
//!
//! Buffers are shared with Arrow: a column of one batch is the batch's own memory unless its layout must change.
//! The logical type of a column ([`Column::elem`]) and how it is stored ([`Phys`]) are two things: a `decimal(15,2)`
//! whose values are small may be stored as unscaled 16-bit integers.

mod build;
mod column;
mod dictionary;
mod error;
mod export;
mod fact;
mod growing;
mod import;
mod nearest;
mod stats;
mod table;
mod tensor;
mod text;
mod zones;

mod catalog;

pub use catalog::{Catalog, Stamp};
pub use column::{Column, Phys, Validity, Values};
pub use dictionary::Dictionary;
pub use error::{Error, Result};
pub use fact::{Fact, Form};
pub use stats::Stats;
pub use table::{LoadOptions, Table};
pub use tensor::{Element, Tensor};
pub use text::{PlainText, Text};
pub use zones::{ZONE_ROWS, Zones};

pub(crate) use build::ColumnBuilder;
pub(crate) use import::coded_strings;
pub(crate) use nearest::hint;
pub(crate) use text::{PackedBlock, TextBlock};
