//! Tables: columns of equal length.

use super::{Column, Error, Result, hint, import};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use quearn_stage::graph::Field;
use rayon::prelude::*;
use std::collections::HashSet;

/// How columns are stored when they are loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadOptions {
    /// Store integers, decimals, dates and timestamps in the narrowest type that holds them.
    pub narrow: bool,
    /// Store strings as codes if there are at most this many distinct ones, and at most a quarter as many as rows (or
    /// at most 256); 0 for never.
    pub dictionary_limit: usize,
    /// Store strings that have no codes packed until something reads them, if they have at least this many bytes
    /// together and become smaller by a third or more; `usize::MAX` for never.
    pub pack_from: usize,
}

impl LoadOptions {
    /// Share the memory of the batches wherever possible; the default for [`Table::from_batches`].
    pub const SHARE: LoadOptions = LoadOptions { narrow: false, dictionary_limit: 0, pack_from: usize::MAX };
    /// Store compactly; the default for files, whose decoded values belong to nobody else.
    pub const COMPACT: LoadOptions = LoadOptions { narrow: true, dictionary_limit: 1 << 16, pack_from: 1 << 20 };
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions::COMPACT
    }
}

/// A named table in memory.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
    rows: usize,
    columns: Vec<Column>,
}

impl Table {
    /// A table of columns; an error if they differ in length or two have one name.
    pub fn new(name: impl Into<String>, columns: Vec<Column>) -> Result<Table> {
        let name = name.into();
        let rows = columns.first().map_or(0, |c| c.rows);
        let mut names = HashSet::new();
        for column in &columns {
            if column.rows != rows {
                let message = format!("column `{}`: expected {rows} rows, found {}", column.name, column.rows);
                return Err(Error::Table { table: name, message });
            }
            if !names.insert(column.name.as_str()) {
                return Err(Error::Table { table: name, message: format!("two columns named `{}`", column.name) });
            }
        }
        Ok(Table { name, rows, columns })
    }

    /// The rows of all batches, sharing the memory of a single batch where its layout allows.
    pub fn from_batches(name: impl Into<String>, batches: &[RecordBatch]) -> Result<Table> {
        Table::from_batches_with(name, batches, &LoadOptions::SHARE)
    }

    /// The rows of all batches, stored as `options` say.
    pub fn from_batches_with(name: impl Into<String>, batches: &[RecordBatch], options: &LoadOptions) -> Result<Table> {
        let name = name.into();
        let Some(first) = batches.first() else {
            let message = "expected at least one batch (it may have no rows), found none".into();
            return Err(Error::Table { table: name, message });
        };
        let schema = first.schema();
        check_schemas(&name, &schema, batches)?;
        let arrays = |i: usize| batches.iter().map(|b| b.column(i).clone()).collect::<Vec<ArrayRef>>();
        let fields = schema.fields();
        let columns = (0..fields.len()).into_par_iter().map(|i| import::column(&fields[i], &arrays(i), options));
        let table = Table::new(name, columns.collect::<Result<_>>()?)?;
        Ok(table.with_rows(batches.iter().map(RecordBatch::num_rows).sum()))
    }

    /// The same table with a row count that its columns, if there are none, cannot tell.
    pub(crate) fn with_rows(self, rows: usize) -> Table {
        Table { rows, ..self }
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns, to be put into another table.
    pub fn into_columns(self) -> Vec<Column> {
        self.columns
    }

    /// A column by name.
    pub fn column(&self, name: &str) -> Result<&Column> {
        self.columns.iter().find(|c| c.name == name).ok_or_else(|| Error::NoColumn {
            table: self.name.clone(),
            column: name.into(),
            hint: hint(name, self.columns.iter().map(|c| c.name.as_str())),
        })
    }

    /// Names and types of the columns.
    pub fn fields(&self) -> Vec<Field> {
        self.columns.iter().map(Column::field).collect()
    }

    /// Memory that the columns hold now; packed strings will take more once something reads them.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }
}

fn check_schemas(table: &str, expected: &Schema, batches: &[RecordBatch]) -> Result<()> {
    for (i, batch) in batches.iter().enumerate() {
        let found = batch.schema();
        let same = |(a, b): (&std::sync::Arc<_>, &std::sync::Arc<arrow::datatypes::Field>)| {
            let a: &arrow::datatypes::Field = a;
            a.name() == b.name() && a.data_type() == b.data_type()
        };
        if found.fields().len() != expected.fields().len() || !expected.fields().iter().zip(found.fields()).all(same) {
            let message = format!("batch {i}: expected the columns of batch 0 ({expected}), found {found}");
            return Err(Error::Table { table: table.into(), message });
        }
    }
    Ok(())
}
