//! Types and literals.

use super::OWN;
use super::cursor::Cursor;
use crate::graph::{Dim, Elem, Field, Literal, Node, Scalar, Ty, literal::days_from_civil};
use std::collections::HashMap;

/// Tuples in tuples beyond this are no program, only a way to exhaust the stack.
const MAX_NESTING: usize = 32;

pub(super) fn ty(cursor: &mut Cursor, nodes: &HashMap<u32, Node>) -> Result<Ty, String> {
    nested(cursor, nodes, 0)
}

fn nested(cursor: &mut Cursor, nodes: &HashMap<u32, Node>, depth: usize) -> Result<Ty, String> {
    if depth > MAX_NESTING {
        return Err(format!("expected at most {MAX_NESTING} tuples in one another"));
    }
    if cursor.eat("(") {
        return Ok(Ty::Tuple(cursor.rest_of_list(")", |c| nested(c, nodes, depth + 1))?));
    }
    if cursor.eat("{") {
        let fields = cursor.rest_of_list("}", field)?;
        let rows = if cursor.eat_word("over") { dim(cursor, nodes)? } else { Dim::Rows(OWN) };
        return Ok(Ty::Table { fields, rows });
    }
    let shape = if cursor.eat("[") { cursor.rest_of_list("]", |c| dim(c, nodes))? } else { vec![] };
    Ok(Ty::Tensor { elem: elem(cursor)?, shape })
}

fn field(cursor: &mut Cursor) -> Result<Field, String> {
    let name = if cursor.at_string() { cursor.string()? } else { cursor.word()?.to_owned() };
    cursor.expect(":")?;
    let elem = elem(cursor)?;
    let shape = if cursor.eat("[") { cursor.rest_of_list("]", Cursor::number)? } else { vec![] };
    Ok(Field { name, elem, shape })
}

fn elem(cursor: &mut Cursor) -> Result<Elem, String> {
    let scalar = scalar(cursor)?;
    Ok(Elem { scalar, nullable: cursor.eat("?") })
}

pub(super) fn dim(cursor: &mut Cursor, nodes: &HashMap<u32, Node>) -> Result<Dim, String> {
    if let Ok(extent) = cursor.number() {
        return Ok(Dim::Const(extent));
    }
    let name = cursor.word()?;
    if name != "rows" || !cursor.eat("(") {
        return Ok(Dim::Named(name.to_owned()));
    }
    let node = cursor.node(nodes)?;
    cursor.expect(")")?;
    Ok(Dim::Rows(node))
}

pub(super) fn scalar(cursor: &mut Cursor) -> Result<Scalar, String> {
    const SIMPLE: [Scalar; 14] = [
        Scalar::Bool,
        Scalar::I8,
        Scalar::U8,
        Scalar::I16,
        Scalar::I32,
        Scalar::I64,
        Scalar::F16,
        Scalar::BF16,
        Scalar::F32,
        Scalar::F64,
        Scalar::Date,
        Scalar::Timestamp,
        Scalar::Interval,
        Scalar::String,
    ];
    if cursor.eat_word("decimal") {
        cursor.expect("(")?;
        let precision = cursor.number()?;
        cursor.expect(",")?;
        let scale = cursor.number()?;
        cursor.expect(")")?;
        return Ok(Scalar::decimal(precision, scale));
    }
    match SIMPLE.into_iter().find(|s| cursor.eat_word(&s.to_string())) {
        Some(scalar) => Ok(scalar),
        None => cursor.expected("a type such as f64"),
    }
}

/// `value:type`.
pub(super) fn literal(cursor: &mut Cursor) -> Result<Literal, String> {
    if cursor.at_string() {
        let text = cursor.string()?;
        cursor.expect(":")?;
        cursor.expect_word("string")?;
        return Ok(Literal::string(text));
    }
    let text = cursor.until(':');
    cursor.expect(":")?;
    let scalar = scalar(cursor)?;
    if text == "null" {
        return Ok(Literal::null(scalar));
    }
    value(text, scalar).ok_or_else(|| format!("expected a value of the type {scalar}, found `{text}`"))
}

fn value(text: &str, scalar: Scalar) -> Option<Literal> {
    match scalar {
        Scalar::Bool => text.parse().ok().map(Literal::bool),
        Scalar::Decimal { precision, scale } => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let unscaled = format!("{whole}{fraction}").parse().ok()?;
            (fraction.len() == scale as usize).then(|| Literal::decimal(unscaled, precision, scale))?
        }
        Scalar::Date => date(text),
        Scalar::Timestamp => text.parse().ok().map(Literal::timestamp),
        Scalar::Interval => interval(text),
        Scalar::String => None,
        _ if scalar.is_float() => Literal::float(scalar, text.parse().ok()?),
        _ => Literal::int(scalar, text.parse().ok()?),
    }
}

/// A day, in years before 0 too.
fn date(text: &str) -> Option<Literal> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let year = if negative { -i64::from(year) } else { i64::from(year) };
    Some(Literal::date(i32::try_from(days_from_civil(year, month, day)?).ok()?))
}

/// Months, days and microseconds, such as `3m0d0us`.
fn interval(text: &str) -> Option<Literal> {
    let (months, rest) = text.split_once('m')?;
    let (days, rest) = rest.split_once('d')?;
    let micros = rest.strip_suffix("us")?;
    Some(Literal::interval(months.parse().ok()?, days.parse().ok()?, micros.parse().ok()?))
}
