//! The tables in memory, with statistics and the specification's types.

use crate::Result;
use crate::generate::{self, Progress};
use crate::schema::{self, TABLES};
use quearn::data::{Column, Error, Table};
use quearn::io::{ReadOptions, read_parquet};
use quearn_stage::graph::literal::int_range;
use quearn_stage::graph::{Field, Scalar};
use std::path::Path;

/// All tables at a scale factor, in the order of [`TABLES`]; those that are absent are generated first.
pub fn load(scale: f64, progress: Progress) -> Result<Vec<Table>> {
    let folder = generate::generate(scale, progress)?;
    TABLES.iter().map(|table| load_table(&folder, table)).collect()
}

/// A table from a folder of Parquet files.
pub fn load_table(folder: &Path, table: &str) -> Result<Table> {
    let fields = schema::fields(table);
    let columns = Some(fields.iter().map(|f| f.name.clone()).collect());
    let options = ReadOptions { columns, ..ReadOptions::default() };
    let read = read_parquet(folder.join(format!("{table}.parquet")), &options)?;
    let columns = read.into_columns().into_iter().zip(&fields);
    let columns = columns.map(|(column, field)| typed(column, field)).collect::<Result<Vec<_>, _>>()?;
    Ok(Table::new(table, columns)?)
}

/// The column with the specification's type, which all of its values must have. (The files have wider integers, and
/// how a value is stored depends on the values anyway.)
fn typed(column: Column, field: &Field) -> Result<Column, Error> {
    let range = match (column.elem.scalar, field.elem.scalar) {
        (found, expected) if found == expected => (i128::MIN, i128::MAX),
        (found, expected) if found.is_int() && expected.is_int() => int_range(expected).unwrap_or((0, 0)),
        (Scalar::Decimal { scale: a, .. }, Scalar::Decimal { precision, scale: b }) if a == b => {
            let limit = 10i128.pow(precision.into());
            (1 - limit, limit - 1)
        }
        _ => return Err(mistyped(&column, field, String::new())),
    };
    let outside =
        column.stats.min.is_some_and(|min| min < range.0) || column.stats.max.is_some_and(|max| max > range.1);
    if outside || column.stats.nulls > 0 {
        let facts = format!(" with values {:?} to {:?}", column.stats.min, column.stats.max);
        return Err(mistyped(&column, field, format!("{facts} and {} NULLs", column.stats.nulls)));
    }
    Ok(Column { elem: field.elem, ..column })
}

fn mistyped(column: &Column, field: &Field, facts: String) -> Error {
    let found = format!("{}{facts}", column.elem);
    Error::ColumnType { column: column.name.clone(), expected: field.elem.to_string(), found }
}
