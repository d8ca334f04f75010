//! Dates, timestamps and intervals.

use super::cast::fit;
use super::value::{Datum, Interval};
use quearn_stage::graph::literal::{civil_from_days, days_from_civil};
use quearn_stage::graph::{Scalar, UnaryOp};
use quearn_stage::low::FailKind;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// `Year`, `Month` or `Day` of a date or timestamp.
pub fn part(op: UnaryOp, value: i128, scalar: Scalar) -> Result<Datum, FailKind> {
    let (year, month, day) = civil_from_days(days_of(value, scalar));
    let part = match op {
        UnaryOp::Year => year.into(),
        UnaryOp::Month => month.into(),
        _ => day.into(),
    };
    fit(Some(part), Scalar::I32, FailKind::Overflow)
}

fn days_of(value: i128, scalar: Scalar) -> i64 {
    match scalar {
        Scalar::Timestamp => (value as i64).div_euclid(MICROS_PER_DAY),
        _ => value as i64,
    }
}

/// A date or timestamp moved by an interval (`sign` is 1 or -1): first months, keeping the day of the month or
/// taking the last one there is, then days, then microseconds; a date takes whole days of the last, rounded down.
pub fn shift(value: i128, scalar: Scalar, by: Interval, sign: i64) -> Result<Datum, FailKind> {
    let days = days_of(value, scalar);
    let days = add_months(days, sign * i64::from(by.months)) + sign * i64::from(by.days);
    let micros = i128::from(sign) * i128::from(by.micros);
    let per_day = i128::from(MICROS_PER_DAY);
    let moved = match scalar {
        Scalar::Timestamp => i128::from(days) * per_day + value.rem_euclid(per_day) + micros,
        _ => i128::from(days) + micros.div_euclid(per_day),
    };
    fit(Some(moved), scalar, FailKind::Overflow)
}

fn add_months(days: i64, months: i64) -> i64 {
    let (year, month, day) = civil_from_days(days);
    let count = year * 12 + i64::from(month) - 1 + months;
    let (year, month) = (count.div_euclid(12), count.rem_euclid(12) as u32 + 1);
    let last = (1..=day).rev().find_map(|day| days_from_civil(year, month, day));
    last.expect("every month has a first day")
}
