//! `Aggregate`: rows with equal keys folded into one.

use super::cast::{exact_to_f64, fit, round_float, scale};
use super::relational::{KeyPart, per_row};
use super::scalar::{Outcome, total_order};
use super::value::{Datum, EvalTable, EvalTensor};
use quearn_stage::graph::{Aggregate, AggregateOp, Field, Scalar};
use quearn_stage::low::FailKind;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Groups by the first `keys` operands; the others are the arguments of the aggregates, in order.
pub fn aggregate(
    aggregates: &[Aggregate],
    (keys, arguments): (&[Rc<EvalTensor>], &[Rc<EvalTensor>]),
    rows: usize,
    fields: &[Field],
) -> Result<EvalTable, FailKind> {
    let key_columns = keys.iter().map(|k| per_row(k, rows)).collect::<Result<Vec<_>, _>>()?;
    let groups = group_rows(&key_columns, rows);
    let (key_fields, value_fields) = fields.split_at(keys.len());
    let mut columns = Vec::with_capacity(fields.len());
    for (field, column) in key_fields.iter().zip(&key_columns) {
        let firsts = groups.iter().map(|group| column[group[0]].clone());
        columns.push(EvalTensor::new(field.elem, &[groups.len()], firsts));
    }
    let mut arguments = arguments.iter();
    for (field, aggregate) in value_fields.iter().zip(aggregates) {
        let mut column = EvalTensor::build(field.elem, &[groups.len()]);
        if aggregate.op == AggregateOp::CountRows {
            groups.iter().for_each(|group| column.push(Datum::Int(group.len() as i128)));
        } else {
            let argument = arguments.next().expect("an argument for each aggregate");
            let (from, values) = (argument.elem().scalar, per_row(argument, rows)?);
            for group in &groups {
                let present = group.iter().map(|&row| &values[row]).filter(|d| **d != Datum::Null);
                column.push(fold(aggregate.op, present, from, field.elem.scalar)?);
            }
        }
        columns.push(column);
    }
    Ok(EvalTable::new(fields.to_vec(), columns, groups.len()))
}

/// Row numbers of each group, groups in the order of their first rows. Without keys there is one group, even of no rows.
fn group_rows(keys: &[Vec<Datum>], rows: usize) -> Vec<Vec<usize>> {
    if keys.is_empty() {
        return vec![(0..rows).collect()];
    }
    let mut numbers: HashMap<Vec<KeyPart>, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for row in 0..rows {
        let key = keys.iter().map(|column| KeyPart::of(&column[row])).collect();
        let number = *numbers.entry(key).or_insert(groups.len());
        if number == groups.len() {
            groups.push(vec![]);
        }
        groups[number].push(row);
    }
    groups
}

/// Folds values that are not NULL.
fn fold<'a>(op: AggregateOp, values: impl Iterator<Item = &'a Datum>, from: Scalar, to: Scalar) -> Outcome {
    let values: Vec<&Datum> = values.collect();
    if op == AggregateOp::Count {
        return Ok(Datum::Int(values.len() as i128));
    }
    if op == AggregateOp::CountDistinct {
        let distinct: HashSet<KeyPart> = values.into_iter().map(KeyPart::of).collect();
        return Ok(Datum::Int(distinct.len() as i128));
    }
    if values.is_empty() {
        return Ok(Datum::Null);
    }
    match op {
        AggregateOp::Min => Ok(extreme(&values, Ordering::Less)),
        AggregateOp::Max => Ok(extreme(&values, Ordering::Greater)),
        AggregateOp::Sum if from.is_float() => Ok(Datum::Float(round_float(float_sum(&values), to))),
        AggregateOp::Sum => fit(exact_sum(&values), to, FailKind::Overflow),
        _ if from.is_float() => Ok(Datum::Float(float_sum(&values) / values.len() as f64)),
        _ => {
            let sum = exact_sum(&values).ok_or(FailKind::Overflow)?;
            Ok(Datum::Float(exact_to_f64(sum, scale(from)) / values.len() as f64))
        }
    }
}

/// The first of the smallest or largest values; a NaN only where there is nothing else, as `Min` and `Max` have it.
fn extreme(values: &[&Datum], side: Ordering) -> Datum {
    let nan = |d: &&&Datum| matches!(d, Datum::Float(x) if x.is_nan());
    let numbers = values.iter().filter(|d| !nan(d)).copied();
    let best = numbers.reduce(|best, d| if total_order(d, best) == side { d } else { best });
    best.unwrap_or(values[0]).clone()
}

/// Summed in `f64`, which is nearer to the true sum than any order in a narrower type.
fn float_sum(values: &[&Datum]) -> f64 {
    values.iter().map(|d| if let Datum::Float(x) = d { *x } else { 0.0 }).sum()
}

fn exact_sum(values: &[&Datum]) -> Option<i128> {
    values.iter().try_fold(0i128, |sum, d| match d {
        Datum::Int(i) => sum.checked_add(*i),
        other => unreachable!("{other:?} in a sum"),
    })
}
