//! Calendar arithmetic on days and microseconds since 1970-01-01 (Hinnant, "chrono-compatible low-level date
//! algorithms").

use super::super::env::Env;
use super::super::value::{Range, Value, both_valid, widen};
use super::arith;
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use quearn_stage::graph::{BinaryOp, Node, Scalar, UnaryOp, literal};
use quearn_stage::low::{BinOp, FailKind, Prim, V};

const MICROS_A_DAY: i64 = 86_400_000_000;

/// Quotient rounded toward minus infinity by a positive constant.
pub fn floor_div(v: V<'_>, by: i64) -> V<'_> {
    let quotient = v / by;
    let negative_rest = (v - quotient * by).lt(v.same(0));
    negative_rest.select(quotient - 1, quotient)
}

/// Year, month (1 to 12) and day (1 to 31) of a day number, in `i32`, which every date fits.
fn civil<'b>(days: V<'b>) -> (V<'b>, V<'b>, V<'b>) {
    let z = days + 719_468;
    let era = floor_div(z, 146_097);
    let day_of_era = z - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (year_of_era * 365 + year_of_era / 4 - year_of_era / 100);
    let shifted = (day_of_year * 5 + 2) / 153;
    let day = day_of_year - (shifted * 153 + 2) / 5 + 1;
    let month = shifted.lt(shifted.same(10)).select(shifted + 3, shifted - 9);
    let year = year_of_era + era * 400 + month.le(month.same(2)).select(month.same(1), month.same(0));
    (year, month, day)
}

/// Day number of a day in the calendar.
fn days_of<'b>(year: V<'b>, month: V<'b>, day: V<'b>) -> V<'b> {
    let y = year - month.le(month.same(2)).select(month.same(1), month.same(0));
    let era = floor_div(y, 400);
    let year_of_era = y - era * 400;
    let shifted = (month + 9) % 12;
    let day_of_year = (shifted * 153 + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// YEAR, MONTH and DAY of a date or timestamp.
pub fn part<'b>(op: UnaryOp, a: Value<'b>, scalar: Scalar) -> Value<'b> {
    let days =
        if scalar == Scalar::Timestamp { floor_div(widen(a.scalar(), Prim::I64), MICROS_A_DAY) } else { a.scalar() };
    let (year, month, day) = civil(widen(days, Prim::I64));
    let year_of = |days: i128| i128::from(literal::civil_from_days(days as i64).0);
    let (v, range) = match op {
        UnaryOp::Year => {
            let known = a.range.filter(|r| scalar == Scalar::Date && Range::I32.contains(*r));
            (year, known.map_or(Range::I32, |r| Range::new(year_of(r.min), year_of(r.max))))
        }
        UnaryOp::Month => (month, Range::new(1, 12)),
        _ => (day, Range::new(1, 31)),
    };
    Value::int(v, range).with_valid(a.valid)
}

struct Interval<'b> {
    months: V<'b>,
    days: V<'b>,
    micros: V<'b>,
}

fn unpack(v: V<'_>) -> Interval<'_> {
    Interval {
        months: v.sext(Prim::I32).sext(Prim::I64),
        days: v.lshr(32).sext(Prim::I32).sext(Prim::I64),
        micros: v.lshr(64).sext(Prim::I64),
    }
}

/// Adds months to a day number; the day of the month is cut to the last one there is.
fn add_months<'b>(days: V<'b>, months: V<'b>) -> V<'b> {
    if months.as_int() == Some(0) {
        return days;
    }
    let (year, month, day) = civil(days);
    let total = year * 12 + (month - 1) + months;
    let year = floor_div(total, 12);
    let month = total - year * 12 + 1;
    let next = days_of(floor_div(total + 1, 12), (total + 1) - floor_div(total + 1, 12) * 12 + 1, day.same(1));
    let last = next - days_of(year, month, day.same(1));
    days_of(year, month, day.min(last))
}

/// Date and timestamp arithmetic.
pub fn binary<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    node: Node,
    op: BinaryOp,
    (a, ta): (Value<'b>, Scalar),
    (b, tb): (Value<'b>, Scalar),
) -> Result<Value<'b>> {
    let valid = both_valid(a.valid, b.valid);
    let what = arith::message(cx, node);
    match (op, ta, tb) {
        (BinaryOp::Min | BinaryOp::Max, _, _) if ta == tb && ta != Scalar::Interval => {
            let (x, y) = arith::align(a, b);
            let v = if op == BinaryOp::Min { x.min(y) } else { x.max(y) };
            let range = a.range.unwrap_or(Range::I64).union(b.range.unwrap_or(Range::I64));
            Ok(Value::int(v, range).with_valid(valid))
        }
        (BinaryOp::Sub, Scalar::Date, Scalar::Date) => {
            let v = widen(a.scalar(), Prim::I64) - widen(b.scalar(), Prim::I64);
            Ok(in_range(env, v, Range::I32, valid, &what))
        }
        (BinaryOp::Add | BinaryOp::Sub, _, Scalar::Interval) => shift(env, op, (a, ta), b, &what),
        (BinaryOp::Add, Scalar::Interval, _) => shift(env, op, (b, tb), a, &what),
        _ => Err(LowerError::Unsupported { node: cx.describe(node), what: format!("{} of {ta} and {tb}", op.name()) }),
    }
}

fn shift<'b>(
    env: &Env<'b>,
    op: BinaryOp,
    (a, ta): (Value<'b>, Scalar),
    by: Value<'b>,
    what: &str,
) -> Result<Value<'b>> {
    let valid = both_valid(a.valid, by.valid);
    let mut interval = unpack(by.scalar());
    if op == BinaryOp::Sub {
        interval = Interval { months: -interval.months, days: -interval.days, micros: -interval.micros };
    }
    let start = widen(a.scalar(), Prim::I64);
    if ta == Scalar::Date {
        let days = add_months(start, interval.months) + interval.days + floor_div(interval.micros, MICROS_A_DAY);
        return Ok(in_range(env, days, Range::I32, valid, what));
    }
    let days = floor_div(start, MICROS_A_DAY);
    let time = start - days * MICROS_A_DAY;
    let moved = (add_months(days, interval.months) + interval.days).sext(Prim::I128) * MICROS_A_DAY;
    let micros = moved.bin(BinOp::Add, (time.sext(Prim::I128)) + interval.micros.sext(Prim::I128));
    Ok(in_range(env, micros, Range::I64, valid, what))
}

fn in_range<'b>(env: &Env<'b>, v: V<'b>, range: Range, valid: Option<V<'b>>, what: &str) -> Value<'b> {
    let ty = v.ty();
    let bad = v.lt(env.b.int(ty, range.min)) | v.gt(env.b.int(ty, range.max));
    env.b.fail_if(valid.map_or(bad, |ok| ok & bad), FailKind::Overflow, what);
    Value::int(v, range).with_valid(valid)
}
