//! Table operations: filter, project, product, join, sort and limit.

use super::cast::promote;
use super::scalar::total_order;
use super::tensor;
use super::value::{Datum, EvalTable, EvalTensor};
use quearn_stage::graph::infer::compare_as;
use quearn_stage::graph::{Field, JoinKind, Scalar, SortKey};
use quearn_stage::low::FailKind;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// The value of a row expression in row `row`: scalars are the same in every row.
fn in_row(tensor: &EvalTensor, row: usize) -> Result<Datum, FailKind> {
    let position = if tensor.shape().is_empty() { 0 } else { row };
    match tensor.get(position) {
        Datum::Fail(kind) => Err(kind),
        datum => Ok(datum),
    }
}

/// The values of a row expression for each of `rows` rows.
pub fn per_row(tensor: &EvalTensor, rows: usize) -> Result<Vec<Datum>, FailKind> {
    (0..rows).map(|row| in_row(tensor, row)).collect()
}

/// `Filter`: numbers of the rows for which `pred` is true.
pub fn true_rows(pred: &EvalTensor, rows: usize) -> Result<Vec<usize>, FailKind> {
    let pred = per_row(pred, rows)?;
    Ok((0..rows).filter(|&row| pred[row] == Datum::Bool(true)).collect())
}

/// `Project`: scalars become columns of one value.
pub fn project(fields: &[Field], values: &[Rc<EvalTensor>], rows: usize) -> EvalTable {
    let columns = values.iter().map(|value| match value.shape() {
        [] => Rc::new(value.pick(&[rows], (0..rows).map(|_| Some(0)))),
        _ => value.clone(),
    });
    EvalTable::shared(fields.to_vec(), columns.collect(), rows)
}

/// The columns of both tables for pairs of rows; NULLs where a pair has no right row. `fields` names the columns that
/// are kept: those of `left` first, then some of `right`.
pub fn pair(left: &EvalTable, right: &EvalTable, pairs: &[(usize, Option<usize>)], fields: &[Field]) -> EvalTable {
    let left_rows: Vec<Option<usize>> = pairs.iter().map(|p| Some(p.0)).collect();
    let right_rows: Vec<Option<usize>> = pairs.iter().map(|p| p.1).collect();
    let mut columns: Vec<Rc<EvalTensor>> = left.columns().iter().map(|c| Rc::new(c.pick_rows(&left_rows))).collect();
    for field in &fields[columns.len()..] {
        let column = right.column(&field.name).expect("a column of the right side");
        let picked = column.pick_rows(&right_rows);
        let shape = picked.shape().to_vec();
        columns.push(Rc::new(picked.with_type(field.elem, shape)));
    }
    EvalTable::shared(fields.to_vec(), columns, pairs.len())
}

/// `Product`: every pair of rows.
pub fn product(left: &EvalTable, right: &EvalTable, fields: &[Field]) -> EvalTable {
    let pairs: Vec<_> = (0..left.rows()).flat_map(|l| (0..right.rows()).map(move |r| (l, Some(r)))).collect();
    pair(left, right, &pairs, fields)
}

/// `Union`: the rows of all tables.
pub fn union(tables: &[Rc<EvalTable>], fields: &[Field]) -> EvalTable {
    let rows = tables.iter().map(|table| table.rows()).sum();
    let column = |field: &Field| {
        let parts: Vec<&EvalTensor> =
            tables.iter().map(|table| &**table.column(&field.name).expect("a column of every table")).collect();
        Rc::new(tensor::concat(&parts, 0, field.elem))
    };
    EvalTable::shared(fields.to_vec(), fields.iter().map(column).collect(), rows)
}

/// A key value that can be hashed. NaN is one value and so are both zeros.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KeyPart {
    /// NULL.
    Null,
    /// Bool, integer, decimal, date or timestamp.
    Int(i128),
    /// Bits of a float.
    Float(u64),
    /// Text.
    Str(Arc<str>),
}

impl KeyPart {
    /// The key of a datum that is not an interval.
    pub fn of(datum: &Datum) -> KeyPart {
        match datum {
            Datum::Null => KeyPart::Null,
            Datum::Bool(b) => KeyPart::Int((*b).into()),
            Datum::Int(i) => KeyPart::Int(*i),
            Datum::Float(x) if x.is_nan() => KeyPart::Float(f64::NAN.to_bits()),
            // Adding zero turns -0 into 0.
            Datum::Float(x) => KeyPart::Float((x + 0.0).to_bits()),
            Datum::Str(s) => KeyPart::Str(s.clone()),
            other => unreachable!("{other:?} as a key"),
        }
    }

    /// Equal to nothing, itself included.
    fn never_matches(&self) -> bool {
        *self == KeyPart::Null || *self == KeyPart::Float(f64::NAN.to_bits())
    }
}

/// Keys of both sides of a join, brought to common types; `None` for keys that equal nothing.
type Keys = Vec<Option<Vec<KeyPart>>>;

fn join_keys(columns: &[(Rc<EvalTensor>, Scalar)], rows: usize) -> Result<Keys, FailKind> {
    let key = |row: usize| -> Result<Option<Vec<KeyPart>>, FailKind> {
        let mut parts = Vec::with_capacity(columns.len());
        for (column, common) in columns {
            parts.push(KeyPart::of(&promote(&in_row(column, row)?, column.elem().scalar, *common)?));
        }
        Ok(parts.iter().all(|part| !part.never_matches()).then_some(parts))
    };
    (0..rows).map(key).collect()
}

/// The pairs of rows whose keys are equal, in the order of the left rows, then of the right ones.
pub fn matching_pairs(
    (left_rows, left): (usize, &[Rc<EvalTensor>]),
    (right_rows, right): (usize, &[Rc<EvalTensor>]),
) -> Result<Vec<(usize, Option<usize>)>, FailKind> {
    let common = |i: usize| compare_as(left[i].elem().scalar, right[i].elem().scalar).expect("types that compare");
    let typed = |side: &[Rc<EvalTensor>]| -> Vec<_> {
        side.iter().enumerate().map(|(i, column)| (column.clone(), common(i))).collect()
    };
    let mut found: HashMap<Vec<KeyPart>, Vec<usize>> = HashMap::new();
    for (row, key) in join_keys(&typed(right), right_rows)?.into_iter().enumerate() {
        if let Some(key) = key {
            found.entry(key).or_default().push(row);
        }
    }
    let mut pairs = Vec::new();
    for (row, key) in join_keys(&typed(left), left_rows)?.into_iter().enumerate() {
        let matches = key.and_then(|key| found.get(&key));
        pairs.extend(matches.into_iter().flatten().map(|&r| (row, Some(r))));
    }
    Ok(pairs)
}

/// What a join of that kind makes of the pairs that match.
pub fn join(
    kind: &JoinKind,
    left: &EvalTable,
    right: &EvalTable,
    pairs: Vec<(usize, Option<usize>)>,
    fields: &[Field],
) -> EvalTable {
    let mut matched = vec![false; left.rows()];
    pairs.iter().for_each(|&(l, _)| matched[l] = true);
    let rows_with = |wanted: bool| -> Vec<usize> { (0..left.rows()).filter(|&l| matched[l] == wanted).collect() };
    match kind {
        JoinKind::Inner => pair(left, right, &pairs, fields),
        JoinKind::Left => {
            let mut pairs = pairs;
            pairs.extend(rows_with(false).into_iter().map(|l| (l, None)));
            pairs.sort_by_key(|&(l, _)| l);
            pair(left, right, &pairs, fields)
        }
        JoinKind::Semi => left.pick_rows(&rows_with(true)),
        JoinKind::Anti => left.pick_rows(&rows_with(false)),
        JoinKind::Mark(_) => {
            let marks = matched.into_iter().map(Datum::Bool);
            let mark = EvalTensor::new(Scalar::Bool.required(), &[left.rows()], marks);
            let columns = left.columns().iter().cloned().chain([Rc::new(mark)]).collect();
            EvalTable::shared(fields.to_vec(), columns, left.rows())
        }
    }
}

/// `Sort`: row numbers in order of the keys, ties in the order they come.
pub fn sorted_rows(keys: &[(SortKey, Rc<EvalTensor>)], rows: usize) -> Result<Vec<usize>, FailKind> {
    let columns = keys.iter().map(|(_, column)| per_row(column, rows)).collect::<Result<Vec<_>, _>>()?;
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|&x, &y| {
        let by_key = keys.iter().zip(&columns).map(|((key, _), column)| order_by(*key, &column[x], &column[y]));
        by_key.fold(Ordering::Equal, Ordering::then)
    });
    Ok(order)
}

fn order_by(key: SortKey, a: &Datum, b: &Datum) -> Ordering {
    let null_side = if key.nulls_first { Ordering::Less } else { Ordering::Greater };
    match (a, b) {
        (Datum::Null, Datum::Null) => Ordering::Equal,
        (Datum::Null, _) => null_side,
        (_, Datum::Null) => null_side.reverse(),
        (a, b) if key.descending => total_order(b, a),
        (a, b) => total_order(a, b),
    }
}

/// `Limit`: the numbers of the rows that stay.
pub fn limited_rows(offset: u64, count: u64, rows: usize) -> Vec<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(rows);
    let end = start.saturating_add(usize::try_from(count).unwrap_or(usize::MAX)).min(rows);
    (start..end).collect()
}
