//! Facts about tables that a program relies on, and which are checked before it runs.

use super::{Catalog, Dictionary, Phys, Values};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a program relies on. Checked before every run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fact {
    /// A column is stored in a form.
    Stored {
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// Form.
        form: Form,
    },
    /// All values lie in a range.
    Range {
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// Smallest.
        min: i128,
        /// Largest.
        max: i128,
    },
    /// No value is NULL.
    NoNulls {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// A bitmap tells which values are NULL.
    Bitmap {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// Every value is at least the one before it, and none is NULL.
    Sorted {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// No value occurs twice.
    Unique {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// Row `i` has the value `min + i`, and the last one `max`.
    CountsUp {
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// First value.
        min: i128,
        /// Last value.
        max: i128,
    },
    /// Every number from `min` to `max` is a value of one row, and there are no other rows.
    Dense {
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// Least value.
        min: i128,
        /// Greatest value.
        max: i128,
    },
    /// No value is NULL, infinite or NaN.
    Finite {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// The bounds of the values in each block of rows are known.
    Zones {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// The table has at most that many rows.
    MaxRows {
        /// Table.
        table: String,
        /// Rows.
        rows: u64,
    },
}

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Form {
    /// Values of one width.
    Fixed(Phys),
    /// Text, with 64-bit offsets or not.
    Text {
        /// 64-bit offsets?
        wide: bool,
    },
    /// Codes of a dictionary.
    Coded(Phys),
}

impl Form {
    /// The form of stored values.
    pub fn of(values: &Values) -> Form {
        match values {
            Values::Fixed { phys, .. } => Form::Fixed(*phys),
            Values::Text(text) => Form::Text { wide: text.is_wide() },
            Values::Coded { phys, .. } => Form::Coded(*phys),
        }
    }
}

impl Fact {
    /// Does it hold for the tables of a catalog?
    pub fn holds(&self, catalog: &Catalog) -> bool {
        let column = |table: &str, column: &str| catalog.table(table).and_then(|t| t.column(column).ok());
        match self {
            Fact::Stored { table, column: name, form } => {
                column(table, name).is_some_and(|c| Form::of(&c.values) == *form)
            }
            Fact::Range { table, column: name, min, max } => column(table, name).is_some_and(|c| {
                let code = |d: &std::sync::Arc<Dictionary>| (0, d.len().saturating_sub(1) as i128);
                let (low, high) = match &c.values {
                    Values::Coded { dict, .. } => code(dict),
                    // A column without values has no value outside.
                    _ => (c.stats.min.unwrap_or(*min), c.stats.max.unwrap_or(*max)),
                };
                low >= *min && high <= *max
            }),
            Fact::NoNulls { table, column: name } => column(table, name).is_some_and(|c| c.stats.nulls == 0),
            Fact::Bitmap { table, column: name } => column(table, name).is_some_and(|c| c.validity.is_some()),
            Fact::Sorted { table, column: name } => {
                column(table, name).is_some_and(|c| c.stats.sorted && c.stats.nulls == 0)
            }
            Fact::Unique { table, column: name } => column(table, name).is_some_and(|c| c.stats.unique),
            Fact::CountsUp { table, column: name, min, max } => column(table, name)
                .is_some_and(|c| c.counts_up() && c.stats.min == Some(*min) && c.stats.max == Some(*max)),
            Fact::Dense { table, column: name, min, max } => column(table, name)
                .is_some_and(|c| c.is_dense() && c.stats.min == Some(*min) && c.stats.max == Some(*max)),
            Fact::Finite { table, column: name } => {
                column(table, name).is_some_and(|c| c.stats.finite && c.stats.nulls == 0)
            }
            Fact::Zones { table, column: name } => column(table, name).is_some_and(|c| c.zones.is_some()),
            Fact::MaxRows { table, rows } => catalog.table(table).is_some_and(|t| t.rows() as u64 <= *rows),
        }
    }
}

impl fmt::Display for Fact {
    /// In the words of who owns the tables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Stored { table, column, form } => write!(f, "{table}.{column} is stored as {form}"),
            Fact::Range { table, column, min, max } => write!(f, "{table}.{column} lies between {min} and {max}"),
            Fact::NoNulls { table, column } => write!(f, "{table}.{column} has no NULL"),
            Fact::Bitmap { table, column } => write!(f, "{table}.{column} has a bitmap of NULLs"),
            Fact::Sorted { table, column } => write!(f, "{table}.{column} is sorted"),
            Fact::Unique { table, column } => write!(f, "{table}.{column} has no value twice"),
            Fact::CountsUp { table, column, min, max } => write!(f, "{table}.{column} counts up from {min} to {max}"),
            Fact::Dense { table, column, min, max } => {
                write!(f, "{table}.{column} has every number from {min} to {max} once")
            }
            Fact::Finite { table, column } => write!(f, "{table}.{column} has finite numbers only"),
            Fact::Zones { table, column } => write!(f, "{table}.{column} is clustered"),
            Fact::MaxRows { table, rows } => write!(f, "{table} has at most {rows} rows"),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Fixed(phys) => write!(f, "{phys:?}"),
            Form::Text { wide } => write!(f, "text with offsets of {} bits", if *wide { 64 } else { 32 }),
            Form::Coded(phys) => write!(f, "codes ({phys:?}) of a dictionary"),
        }
    }
}
