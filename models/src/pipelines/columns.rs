//! Generated columns and tables, in the form that files are loaded in.

use crate::{Error, Result};
use arrow::array::{ArrayRef, Float32Array, Float64Array, Int32Array, RecordBatch};
use quearn::data::{LoadOptions, Table};
use quearn_stage::graph::{Field, Scalar};
use std::sync::Arc;

/// Number of rows at a scale.
pub(super) fn rows(full: usize, scale: f64, least: usize) -> usize {
    least.max((full as f64 * scale) as usize)
}

/// Columns to read, of one type.
pub(super) fn fields<N: Into<String>>(scalar: Scalar, names: impl IntoIterator<Item = N>) -> Vec<Field> {
    names.into_iter().map(|name| Field::new(name, scalar)).collect()
}

/// A table of these columns.
pub(super) fn table<N: AsRef<str>>(name: &str, columns: impl IntoIterator<Item = (N, ArrayRef)>) -> Result<Table> {
    let batch = RecordBatch::try_from_iter(columns).map_err(|e| Error::wrong(name, e.to_string()))?;
    Ok(Table::from_batches_with(name, &[batch], &LoadOptions::COMPACT)?)
}

/// A column of f64.
pub(super) fn doubles(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

/// A column of f32.
pub(super) fn floats(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float32Array::from_iter_values(values.into_iter().map(|v| v as f32)))
}

/// A column of i32.
pub(super) fn integers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values.into_iter().map(|v| v as i32)))
}
