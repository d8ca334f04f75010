//! Expected answers, and the comparison of results with them.
//!
//! Rows must come in the order of the query's sort keys; rows with equal keys may come in any order. Numbers may
//! differ by 1e-6 relative, or by the last digit where a quotient or average is rounded to a decimal scale of at least
//! four digits. Trailing blanks do not count.

mod compare;
mod csv;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use quearn::data::{Column, Error, Table};
use quearn_stage::graph::literal::Value;
use std::path::Path;

/// A result differs from the expected answer, or cannot be compared with one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("query {query}: {message}")]
pub struct Mismatch {
    /// Query number.
    pub query: u32,
    /// What was expected and what was found.
    pub message: String,
}

/// A query's answers as CSV, and the columns that its result is ordered by.
struct Expected {
    small: &'static str,
    one: &'static str,
    sort: &'static [&'static str],
}

macro_rules! query {
    ($name:literal, [$($key:literal),*]) => {
        Expected {
            small: include_str!(concat!("../answers/sf0.01/", $name, ".csv")),
            one: include_str!(concat!("../answers/sf1/", $name, ".csv")),
            sort: &[$($key),*],
        }
    };
}

const QUERIES: [Expected; 22] = [
    query!("q01", ["l_returnflag", "l_linestatus"]),
    query!("q02", ["s_acctbal", "n_name", "s_name", "p_partkey"]),
    query!("q03", ["revenue", "o_orderdate"]),
    query!("q04", ["o_orderpriority"]),
    query!("q05", ["revenue"]),
    query!("q06", []),
    query!("q07", ["supp_nation", "cust_nation", "l_year"]),
    query!("q08", ["o_year"]),
    query!("q09", ["nation", "o_year"]),
    query!("q10", ["revenue"]),
    query!("q11", ["value"]),
    query!("q12", ["l_shipmode"]),
    query!("q13", ["custdist", "c_count"]),
    query!("q14", []),
    query!("q15", ["s_suppkey"]),
    query!("q16", ["supplier_cnt", "p_brand", "p_type", "p_size"]),
    query!("q17", []),
    query!("q18", ["o_totalprice", "o_orderdate"]),
    query!("q19", []),
    query!("q20", ["s_name"]),
    query!("q21", ["numwait", "s_name"]),
    query!("q22", ["cntrycode"]),
];

/// Is there an expected answer at this scale factor?
pub fn has_answers(scale: f64) -> bool {
    scale == 0.01 || scale == 1.0
}

/// Compares the result of a query (1 to 22) at scale factor 0.01 or 1 with the expected answer.
pub fn check(query: u32, scale: f64, result: &RecordBatch) -> Result<(), Mismatch> {
    check_batch(query, stored(query, scale)?, result)
}

/// Compares the result of a query with the answer in a file, `q06.csv` for query 6, which lies in the folder itself or
/// in one below it that has the name of the scale factor, such as `sf10`.
pub fn check_file(query: u32, scale: f64, folder: &Path, result: &RecordBatch) -> Result<(), Mismatch> {
    let name = format!("q{query:02}.csv");
    let below = folder.join(format!("sf{scale}")).join(&name);
    let path = if below.exists() { below } else { folder.join(&name) };
    let message = |error| format!("no expected answer: {}: {error}", path.display());
    let text = std::fs::read_to_string(&path).map_err(|error| Mismatch { query, message: message(error) })?;
    check_batch(query, &text, result)
}

fn check_batch(query: u32, expected: &str, result: &RecordBatch) -> Result<(), Mismatch> {
    let decimal = result.schema().fields().iter().map(|f| is_decimal(f.data_type())).collect::<Vec<_>>();
    let rows = texts(result).map_err(|e| Mismatch { query, message: e.to_string() })?;
    check_text(query, expected, &rows, &decimal)
}

/// A result as CSV with a line of column names, as the expected answers are.
pub fn to_csv(result: &RecordBatch) -> Result<String, Error> {
    let names = result.schema().fields().iter().map(|f| f.name().clone()).collect();
    let rows = texts(result)?;
    Ok(std::iter::once(&names).chain(&rows).map(|row| csv::line(row)).collect())
}

/// Rows of text: numbers, dates as `1994-01-01`, NULL as `\N`.
fn texts(result: &RecordBatch) -> Result<Vec<Vec<String>>, Error> {
    let table = Table::from_batches("result", std::slice::from_ref(result))?;
    let row = |r: usize| table.columns().iter().map(|c| cell(c, r)).collect();
    Ok((0..table.rows()).map(row).collect())
}

/// As [`check`], for rows of text: numbers, dates as `1994-01-01`, NULL as `\N`. `decimal` says which columns are
/// decimals.
pub fn check_rows(query: u32, scale: f64, rows: &[Vec<String>], decimal: &[bool]) -> Result<(), Mismatch> {
    check_text(query, stored(query, scale)?, rows, decimal)
}

fn of_query(query: u32) -> Result<&'static Expected, Mismatch> {
    let expected = query.checked_sub(1).and_then(|i| QUERIES.get(i as usize));
    expected.ok_or_else(|| Mismatch { query, message: "there are queries 1 to 22 only".into() })
}

/// The answer as CSV.
fn stored(query: u32, scale: f64) -> Result<&'static str, Mismatch> {
    let expected = of_query(query)?;
    let message = format!("there are answers for scale factors 0.01 and 1, not for {scale}");
    match scale {
        0.01 => Ok(expected.small),
        1.0 => Ok(expected.one),
        _ => Err(Mismatch { query, message }),
    }
}

fn check_text(query: u32, expected: &str, rows: &[Vec<String>], decimal: &[bool]) -> Result<(), Mismatch> {
    let fail = |message: String| Mismatch { query, message };
    let sort = of_query(query)?.sort;
    let mut lines = csv::parse(expected).into_iter();
    let names = lines.next().unwrap_or_default();
    let key = |key: &&str| names.iter().position(|name| name.eq_ignore_ascii_case(key));
    let keys: Vec<usize> = sort.iter().filter_map(key).collect();
    if decimal.len() != names.len() {
        return Err(fail(format!("expected {} columns, found {}", names.len(), decimal.len())));
    }
    let lines: Vec<Vec<String>> = lines.collect();
    if let Some(line) = lines.iter().position(|line| line.len() != names.len()) {
        return Err(fail(format!("row {line} of the expected answer has {} cells", lines[line].len())));
    }
    compare::compare(&lines, rows, decimal, &keys).map_err(fail)
}

fn is_decimal(ty: &DataType) -> bool {
    matches!(ty, DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..))
}

fn cell(column: &Column, row: usize) -> String {
    let Some(literal) = column.literal(row) else { return "a tensor".into() };
    match literal.value() {
        Value::Null => "\\N".into(),
        Value::String(text) => text.clone(),
        // A literal prints as value and type.
        _ => literal.to_string().split(':').next().unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(query: u32) -> Vec<Vec<String>> {
        csv::parse(QUERIES[query as usize - 1].small)[1..].to_vec()
    }

    #[test]
    fn expected_answers_pass() {
        for query in 1..=22 {
            let rows = answer(query);
            check_rows(query, 0.01, &rows, &vec![false; rows[0].len()]).unwrap();
        }
    }

    #[test]
    fn changed_answers_fail() {
        for query in 1..=22 {
            let mut rows = answer(query);
            let last = rows[0].len() - 1;
            let middle = rows.len() / 2;
            rows[middle][last] = "123456.5".into();
            check_rows(query, 0.01, &rows, &vec![false; last + 1]).unwrap_err();
            let mut rows = answer(query);
            rows.push(rows[0].clone());
            let error = check_rows(query, 0.01, &rows, &vec![false; last + 1]).unwrap_err();
            assert!(error.message.contains("rows, expected"), "{error}");
        }
    }

    #[test]
    fn order_counts_and_rounding_does_not() {
        let mut rows = answer(1);
        rows.swap(0, 1);
        assert!(check_rows(1, 0.01, &rows, &[false; 10]).unwrap_err().message.contains("sort keys"));
        let mut rows = answer(6);
        rows[0][0] = format!("{}", rows[0][0].parse::<f64>().unwrap() * (1.0 + 1e-8));
        check_rows(6, 0.01, &rows, &[false]).unwrap();
    }

    #[test]
    fn answers_may_lie_in_a_folder() {
        use arrow::array::Float64Array;
        use std::sync::Arc;
        let folder = tempfile::tempdir().unwrap();
        let batch = |value: f64| {
            RecordBatch::try_from_iter([("revenue", Arc::new(Float64Array::from(vec![value])) as _)]).unwrap()
        };
        let check = |value: f64| check_file(6, 10.0, folder.path(), &batch(value)).map_err(|e| e.message);
        assert!(check(1.0).unwrap_err().contains("q06.csv"));
        std::fs::write(folder.path().join("q06.csv"), "revenue\n1.5\n").unwrap();
        assert_eq!(check(1.5), Ok(()));
        std::fs::create_dir(folder.path().join("sf10")).unwrap();
        std::fs::write(folder.path().join("sf10/q06.csv"), "revenue\n2.5\n").unwrap();
        assert_eq!(check(2.5), Ok(()));
        assert!(check(1.5).is_err());
        std::fs::write(folder.path().join("sf10/q06.csv"), "revenue\n2.5,3\n").unwrap();
        assert!(check(2.5).unwrap_err().contains("2 cells"));
    }

    #[test]
    fn batches_are_compared_by_value() {
        use arrow::array::{ArrayRef, Decimal128Array, Float64Array};
        use std::sync::Arc;
        let text = &answer(6)[0][0];
        let value: f64 = text.parse().unwrap();
        let batch = |array: ArrayRef| RecordBatch::try_from_iter([("revenue", array)]).unwrap();
        check(6, 0.01, &batch(Arc::new(Float64Array::from(vec![value])))).unwrap();
        let unscaled = (value * 1e4).round() as i128;
        let exact = Decimal128Array::from(vec![unscaled]).with_precision_and_scale(38, 4).unwrap();
        check(6, 0.01, &batch(Arc::new(exact))).unwrap();
        check(6, 0.01, &batch(Arc::new(Float64Array::from(vec![value + 5.0])))).unwrap_err();
        check(6, 0.01, &batch(Arc::new(Float64Array::from(vec![None])))).unwrap_err();
        check(6, 0.02, &batch(Arc::new(Float64Array::from(vec![value])))).unwrap_err();
        check(23, 1.0, &batch(Arc::new(Float64Array::from(vec![value])))).unwrap_err();
    }
}
