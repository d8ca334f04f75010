//! The tables in memory, with statistics and the specification's types.

use crate::Result;
use crate::generate::{self, Progress};
use crate::schema::{self, TABLES};
use quearn::data::{Column, Error, Table};
use quearn::io::{ReadOptions, read_parquet};
use quearn_stage::graph::literal::int_range;
use quearn_stage::graph::{Field, Graph, Op, Scalar};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// All tables at a scale factor, in the order of [`TABLES`]; those that are absent are generated first.
pub fn load(scale: f64, progress: Progress) -> Result<Vec<Table>> {
    let all = TABLES.iter().map(|table| (*table, schema::fields(table)));
    load_each(scale, all, progress)
}

/// The tables that programs scan, with only the columns that they scan; tables that are absent are generated first.
pub fn load_scanned<'g>(
    scale: f64,
    graphs: impl IntoIterator<Item = &'g Graph>,
    progress: Progress,
) -> Result<Vec<Table>> {
    let scanned = scanned(graphs);
    let tables = TABLES.iter().filter_map(|table| Some((*table, scanned.get(table)?)));
    let read = |(table, columns): (&'static str, &BTreeSet<&str>)| {
        let mut fields = schema::fields(table);
        // One is read in any case: it tells how many rows there are.
        let first = fields[0].name.clone();
        fields.retain(|f| columns.contains(f.name.as_str()) || (columns.is_empty() && f.name == first));
        (table, fields)
    };
    load_each(scale, tables.map(read), progress)
}

/// Columns by table.
fn scanned<'g>(graphs: impl IntoIterator<Item = &'g Graph>) -> BTreeMap<&'g str, BTreeSet<&'g str>> {
    let mut scanned: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for graph in graphs {
        for node in graph.reachable() {
            if let Op::Scan { table, fields } = graph.op(node) {
                scanned.entry(table).or_default().extend(fields.iter().map(|f| f.name.as_str()));
            }
        }
    }
    scanned
}

fn load_each(
    scale: f64,
    tables: impl Iterator<Item = (&'static str, Vec<Field>)>,
    progress: Progress,
) -> Result<Vec<Table>> {
    let folder = generate::generate(scale, progress)?;
    let mut loaded = vec![];
    for (name, fields) in tables {
        let about = generate::rows(name, scale);
        progress(name, 0, about);
        let table = load_columns(&folder, name, &fields)?;
        progress(name, table.rows() as u64, about.max(table.rows() as u64));
        loaded.push(table);
    }
    Ok(loaded)
}

/// A table from a folder of Parquet files.
pub fn load_table(folder: &Path, table: &str) -> Result<Table> {
    load_columns(folder, table, &schema::fields(table))
}

fn load_columns(folder: &Path, table: &str, fields: &[Field]) -> Result<Table> {
    let columns = Some(fields.iter().map(|f| f.name.clone()).collect());
    let options = ReadOptions { columns, ..ReadOptions::default() };
    let path = folder.join(format!("{table}.parquet"));
    let columns = read_parquet(&path, &options)?.into_columns().into_iter().zip(fields);
    let columns = columns.map(|(column, field)| typed(column, field)).collect::<Result<Vec<_>, _>>();
    let columns = columns.map_err(|source| Error::InFile { path, source: Box::new(source) })?;
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
