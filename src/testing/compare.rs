//! Are two answers the same?

use crate::data::Table;
use crate::eval::{Datum, EvalTable, EvalTensor};
use arrow::array::RecordBatch;
use std::cmp::Ordering;

/// Checks that two batches have the same columns and rows: in the same order if `ordered`, else as bags. Floats may
/// differ by `float_tol`, absolute for small ones and relative for large ones. Dictionaries are compared by value.
///
/// # Errors
/// What differs.
pub fn same_rows(a: &RecordBatch, b: &RecordBatch, ordered: bool, float_tol: f64) -> Result<(), String> {
    let table = |name: &str, batch: &RecordBatch| -> Result<EvalTable, String> {
        let loaded = Table::from_batches(name, std::slice::from_ref(batch)).map_err(|e| e.to_string())?;
        Ok(EvalTable::from(&loaded))
    };
    same_tables(&table("left", a)?, &table("right", b)?, ordered, float_tol)
}

/// As [`same_rows`].
///
/// # Panics
/// If the batches differ.
#[track_caller]
pub fn assert_same_rows(a: &RecordBatch, b: &RecordBatch, ordered: bool, float_tol: f64) {
    if let Err(difference) = same_rows(a, b, ordered, float_tol) {
        panic!("{difference}");
    }
}

/// As [`same_rows`], for tables of the evaluator. Nullability is not compared, only NULLs are.
///
/// # Errors
/// What differs.
pub fn same_tables(a: &EvalTable, b: &EvalTable, ordered: bool, float_tol: f64) -> Result<(), String> {
    let columns = |t: &EvalTable| -> Vec<String> {
        t.fields().iter().map(|f| format!("{}: {} {:?}", f.name, f.elem.scalar, f.shape)).collect()
    };
    if columns(a) != columns(b) {
        return Err(format!("columns {:?} and {:?}", columns(a), columns(b)));
    }
    if a.rows() != b.rows() {
        return Err(format!("{} rows and {} rows", a.rows(), b.rows()));
    }
    let (left, right) = (rows_of(a, ordered), rows_of(b, ordered));
    let different = left.iter().zip(&right).position(|(x, y)| !same_data(x, y, float_tol));
    different.map_or(Ok(()), |row| Err(format!("row {row}: {:?} and {:?}", left[row], right[row])))
}

/// Checks that two tensors have the same type, shape and elements.
///
/// # Errors
/// What differs.
pub fn same_tensors(a: &EvalTensor, b: &EvalTensor, float_tol: f64) -> Result<(), String> {
    if (a.elem().scalar, a.shape()) != (b.elem().scalar, b.shape()) {
        return Err(format!("{} {:?} and {} {:?}", a.elem(), a.shape(), b.elem(), b.shape()));
    }
    let different = (0..a.len()).find(|&i| !same(&a.get(i), &b.get(i), float_tol));
    different.map_or(Ok(()), |i| Err(format!("element {i}: {:?} and {:?}", a.get(i), b.get(i))))
}

/// All data of each row; sorted if the order does not matter, floats last because they may differ a little.
fn rows_of(table: &EvalTable, ordered: bool) -> Vec<Vec<Datum>> {
    let mut columns: Vec<&EvalTensor> = table.columns().iter().map(|c| &**c).collect();
    columns.sort_by_key(|c| c.elem().scalar.is_float());
    let row = |r: usize| -> Vec<Datum> {
        let inner = |c: &&EvalTensor| c.shape()[1..].iter().product::<usize>();
        columns.iter().flat_map(|c| (r * inner(c)..(r + 1) * inner(c)).map(|i| c.get(i))).collect()
    };
    let mut rows: Vec<Vec<Datum>> = (0..table.rows()).map(row).collect();
    if !ordered {
        rows.sort_by(|x, y| x.iter().zip(y).map(|(a, b)| order(a, b)).fold(Ordering::Equal, Ordering::then));
    }
    rows
}

/// Some order of all data.
fn order(a: &Datum, b: &Datum) -> Ordering {
    match (a, b) {
        (Datum::Float(x), Datum::Float(y)) => x.total_cmp(y),
        (Datum::Int(x), Datum::Int(y)) => x.cmp(y),
        (Datum::Bool(x), Datum::Bool(y)) => x.cmp(y),
        (Datum::Str(x), Datum::Str(y)) => x.cmp(y),
        (Datum::Interval(x), Datum::Interval(y)) => (x.months, x.days, x.micros).cmp(&(y.months, y.days, y.micros)),
        (a, b) => (*b == Datum::Null).cmp(&(*a == Datum::Null)),
    }
}

fn same_data(a: &[Datum], b: &[Datum], float_tol: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, float_tol))
}

fn same(a: &Datum, b: &Datum, float_tol: f64) -> bool {
    match (a, b) {
        (Datum::Float(x), Datum::Float(y)) => {
            x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= float_tol * x.abs().max(y.abs()).max(1.0)
        }
        (a, b) => a == b,
    }
}
