//! Columns of stored tables: checked against the catalog, read in the layout they are stored in.

use super::dictionary::DictRef;
use super::env::Env;
use super::registers::LANES;
use super::value::{Range, Repr, Value};
use crate::data::{Catalog, Column, Phys, Stats, Table, Values};
use crate::lower::context::{Cx, Fact, Form};
use crate::lower::error::{LowerError, Result};
use crate::lower::frame::{Bind, Part};
use quearn_stage::graph::{Field, Graph, Node, Op, Scalar};
use quearn_stage::low::{CastOp, Prim, Ty, V};

/// Bytes that memory hands over at once.
const CACHE_LINE: usize = 64;

/// The stored table behind a scan.
pub fn stored_table<'c>(cx: &Cx<'c>, scan: Node) -> Result<&'c Table> {
    let Op::Scan { table, .. } = cx.graph.op(scan) else {
        return Err(LowerError::Internal { node: cx.describe(scan), what: "no scan".into() });
    };
    stored(cx.catalog, table)
}

/// Checks that the stored columns have the types that the scan declares.
pub fn check(cx: &Cx<'_>, scan: Node) -> Result<()> {
    let Op::Scan { fields, .. } = cx.graph.op(scan) else { return Ok(()) };
    check_fields(stored_table(cx, scan)?, fields)
}

/// Checks that a catalog has the tables that a graph scans, with the columns that the scans declare.
pub fn check_all(graph: &Graph, catalog: &Catalog) -> Result<()> {
    let scans = graph.reachable().into_iter().filter_map(|node| match graph.op(node) {
        Op::Scan { table, fields, .. } => Some((table, fields)),
        _ => None,
    });
    for (table, fields) in scans {
        check_fields(stored(catalog, table)?, fields)?;
    }
    Ok(())
}

fn stored<'c>(catalog: &'c Catalog, table: &str) -> Result<&'c Table> {
    let missing = || LowerError::MissingTable { table: table.to_owned(), known: catalog.describe() };
    catalog.table(table).ok_or_else(missing)
}

fn check_fields(table: &Table, fields: &[Field]) -> Result<()> {
    fields.iter().try_for_each(|field| {
        let wrong = |message: String| LowerError::Column {
            table: table.name().to_owned(),
            column: field.name.clone(),
            message,
        };
        let column = table.column(&field.name).map_err(|e| wrong(e.to_string()))?;
        same_type(column, field).map_err(wrong)
    })
}

/// A stored decimal may have any precision that its values leave: only scales must agree.
fn same_type(column: &Column, field: &Field) -> std::result::Result<(), String> {
    let scalars = match (column.elem.scalar, field.elem.scalar) {
        (Scalar::Decimal { scale: s, .. }, Scalar::Decimal { scale: t, precision }) => {
            let limit = 10i128.pow(precision.into());
            let outside = column.stats.max.is_some_and(|m| m >= limit) || column.stats.min.is_some_and(|m| m <= -limit);
            if s == t && outside {
                return Err(format!("expected {}, found values with more digits", field.elem.scalar));
            }
            s == t
        }
        // Integers are stored in any width; the values decide.
        (a, b) if a.is_int() && b.is_int() => {
            let limit = Range::of(b).unwrap_or(Range::I64);
            let fits = |x: Option<i128>| x.is_none_or(|x| limit.contains(Range::point(x)));
            fits(column.stats.min) && fits(column.stats.max)
        }
        (a, b) => a == b,
    };
    if !scalars {
        return Err(format!("expected {}, found {}", field.elem.scalar, column.elem.scalar));
    }
    if column.shape != field.shape {
        return Err(format!("expected {:?} elements a row, found {:?}", field.shape, column.shape));
    }
    if column.stats.nulls > 0 && !field.elem.nullable {
        return Err(format!("declared without NULLs, but {} rows are NULL", column.stats.nulls));
    }
    Ok(())
}

/// Values that an integer-like column can have; the program then relies on it.
pub fn range(cx: &Cx<'_>, table: &Table, column: &Column) -> Option<Range> {
    let logical = Range::of(column.elem.scalar)?;
    let Stats { min: Some(min), max: Some(max), .. } = column.stats else { return Some(logical) };
    let fact = Fact::Range { table: table.name().to_owned(), column: column.name.clone(), min, max };
    cx.rely_on(fact);
    Some(Range::new(min, max))
}

/// Reads a column of the stored table behind `scan` in row `row`.
pub fn load<'b>(cx: &Cx<'_>, env: &Env<'b>, scan: Node, name: &str, row: V<'b>) -> Result<Value<'b>> {
    let table = stored_table(cx, scan)?;
    let column = table.column(name).map_err(|e| LowerError::Column {
        table: table.name().to_owned(),
        column: name.to_owned(),
        message: e.to_string(),
    })?;
    cx.rely_on(Fact::Stored {
        table: table.name().to_owned(),
        column: name.to_owned(),
        form: Form::of(&column.values),
    });
    let value = match &column.values {
        Values::Fixed { phys, .. } => fixed(cx, env, table, column, *phys, row),
        Values::Text(strings) => text(cx, env, table, column, strings.is_wide(), row),
        Values::Coded { phys, .. } => {
            let base = bound(cx, env, table, column, Part::Values);
            let code = machine_load(env, base, *phys, row).sext(Prim::I32);
            let dict = DictRef(cx.dictionary(table.name(), &column.name));
            let range = code_range(cx, table, column);
            Value { repr: Repr::Code { code, dict }, valid: None, range }
        }
    };
    Ok(value.with_valid(validity(cx, env, table, column, row)))
}

fn code_range(cx: &Cx<'_>, table: &Table, column: &Column) -> Option<Range> {
    let Values::Coded { dict, .. } = &column.values else { return None };
    let max = dict.len().saturating_sub(1) as i128;
    cx.rely_on(Fact::Range { table: table.name().to_owned(), column: column.name.clone(), min: 0, max });
    Some(Range::new(0, max))
}

fn bound<'b>(cx: &Cx<'_>, env: &Env<'b>, table: &Table, column: &Column, part: Part) -> V<'b> {
    let bind = Bind::Column { table: table.name().to_owned(), column: column.name.clone(), part };
    cx.frame.bind(bind).get(env.b, env.frame)
}

fn prim_of(phys: Phys) -> Prim {
    match phys {
        Phys::Bool => Prim::Bool,
        Phys::I8 | Phys::U8 => Prim::I8,
        Phys::I16 => Prim::I16,
        Phys::I32 => Prim::I32,
        Phys::I64 => Prim::I64,
        Phys::I128 => Prim::I128,
        Phys::F16 => Prim::F16,
        Phys::BF16 => Prim::BF16,
        Phys::F32 => Prim::F32,
        Phys::F64 => Prim::F64,
    }
}

fn machine_load<'b>(env: &Env<'b>, base: V<'b>, phys: Phys, row: V<'b>) -> V<'b> {
    let prim = prim_of(phys);
    // An Arrow buffer of 128-bit values need not be aligned to more than 8 bytes.
    let align = prim.bytes().min(8) as u16;
    let ptr = base.index(row, prim.bytes() as i64);
    let op = quearn_stage::low::Op::Load { ptr: ptr.id, offset: 0, align, invariant: true };
    let v = env.b.emit(op, Ty::scalar(prim));
    match phys {
        Phys::U8 => v.zext(Prim::I32),
        Phys::F16 | Phys::BF16 => v.cast(CastOp::FpExt, Prim::F32),
        _ => v,
    }
}

fn fixed<'b>(cx: &Cx<'_>, env: &Env<'b>, table: &Table, column: &Column, phys: Phys, row: V<'b>) -> Value<'b> {
    let base = bound(cx, env, table, column, Part::Values);
    let v = machine_load(env, base, phys, row);
    match range(cx, table, column) {
        Some(range) => Value::int(v, range),
        None => Value::prim(v),
    }
}

fn text<'b>(cx: &Cx<'_>, env: &Env<'b>, table: &Table, column: &Column, wide: bool, row: V<'b>) -> Value<'b> {
    let offsets = bound(cx, env, table, column, Part::Offsets);
    let bytes = bound(cx, env, table, column, Part::Bytes);
    let ty = if wide { Ty::I64 } else { Ty::I32 };
    let at = offsets.index(row, ty.bytes() as i64);
    let start = env.b.load_invariant(ty, at, 0).sext(Prim::I64);
    let end = env.b.load_invariant(ty, at, ty.bytes() as i64).sext(Prim::I64);
    Value::text(bytes.index(start, 1), end - start)
}

/// The bit of the validity bitmap; absent (and relied on) when the column has no NULL.
fn validity<'b>(cx: &Cx<'_>, env: &Env<'b>, table: &Table, column: &Column, row: V<'b>) -> Option<V<'b>> {
    if column.stats.nulls == 0 {
        cx.rely_on(Fact::NoNulls { table: table.name().to_owned(), column: column.name.clone() });
        return None;
    }
    cx.rely_on(Fact::Bitmap { table: table.name().to_owned(), column: column.name.clone() });
    let bits = bound(cx, env, table, column, Part::Validity);
    let bit = row + bound(cx, env, table, column, Part::ValidityOffset);
    let byte = env.b.load_invariant(Ty::I8, bits.index(bit.lshr(3), 1), 0);
    let shifted = byte.zext(Prim::I64).bin(quearn_stage::low::BinOp::LShr, bit & 7);
    Some(shifted.cast(CastOp::Trunc, Prim::Bool))
}

/// What a lane of a vector of a column's values holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneForm {
    /// An `i32`: an integer, decimal, date or timestamp whose values all fit.
    Int,
    /// A float of that type.
    Float(Prim),
    /// An `i32` code of a dictionary with that many entries.
    Codes(usize),
}

/// The form of a column in lanes, if it has one and no NULLs.
pub fn lane_form(cx: &Cx<'_>, scan: Node, name: &str) -> Option<LaneForm> {
    let table = stored_table(cx, scan).ok()?;
    let column = table.column(name).ok().filter(|c| c.stats.nulls == 0 && c.shape.is_empty())?;
    match &column.values {
        Values::Fixed { phys: Phys::F32, .. } => Some(LaneForm::Float(Prim::F32)),
        Values::Fixed { phys: Phys::F64, .. } => Some(LaneForm::Float(Prim::F64)),
        Values::Fixed { phys: Phys::I8 | Phys::U8 | Phys::I16 | Phys::I32 | Phys::I64, .. } => {
            let range = range(cx, table, column)?;
            Range::I32.contains(range).then_some(LaneForm::Int)
        }
        Values::Coded { dict, .. } => Some(LaneForm::Codes(dict.len())),
        _ => None,
    }
}

/// Reads a column that has a [`LaneForm`] in the rows from `row` on, in the lanes where `mask` is true.
pub fn load_lanes<'b>(cx: &Cx<'_>, env: &Env<'b>, scan: Node, name: &str, row: V<'b>, mask: V<'b>) -> Result<V<'b>> {
    let (base, phys) = lane_source(cx, env, scan, name, row)?;
    let prim = prim_of(phys);
    let ptr = base.index(row, prim.bytes() as i64);
    Ok(as_lane(env.b.masked_load(Ty::vector(prim, mask.ty().lanes), ptr, mask, true), phys))
}

/// As [`load_lanes`], in the rows `base + positions`, of a column that [can be gathered](can_gather).
pub fn gather_lanes<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    scan: Node,
    name: &str,
    (base, positions): (V<'b>, V<'b>),
    mask: V<'b>,
) -> Result<V<'b>> {
    let (column, phys) = lane_source(cx, env, scan, name, base)?;
    let prim = prim_of(phys);
    let (ty, ptr) = (Ty::vector(prim, mask.ty().lanes), column.index(base, prim.bytes() as i64));
    Ok(as_lane(env.b.gather(ty, ptr, positions, prim.bytes() as u8, mask, true), phys))
}

/// Are the values as wide as the processor gathers them?
pub fn can_gather(cx: &Cx<'_>, scan: Node, name: &str) -> bool {
    let phys = stored_table(cx, scan).ok().and_then(|table| table.column(name).ok()).and_then(lane_phys);
    phys.is_some_and(|phys| matches!(prim_of(phys).bytes(), 4 | 8))
}

fn lane_phys(column: &Column) -> Option<Phys> {
    match &column.values {
        Values::Fixed { phys, .. } | Values::Coded { phys, .. } => Some(*phys),
        Values::Text(_) => None,
    }
}

/// Address and type of the values of a column that has a [`LaneForm`]; `row` is any row of it.
fn lane_source<'b>(cx: &Cx<'_>, env: &Env<'b>, scan: Node, name: &str, row: V<'b>) -> Result<(V<'b>, Phys)> {
    // Records what the program relies on.
    load(cx, env, scan, name, row)?;
    let table = stored_table(cx, scan)?;
    let column = table.column(name).map_err(|e| LowerError::Column {
        table: table.name().to_owned(),
        column: name.to_owned(),
        message: e.to_string(),
    })?;
    let text = || LowerError::Internal { node: cx.describe(scan), what: "text in lanes".into() };
    let phys = lane_phys(column).ok_or_else(text)?;
    Ok((bound(cx, env, table, column, Part::Values), phys))
}

/// The values as lanes hold them.
fn as_lane(v: V<'_>, phys: Phys) -> V<'_> {
    match phys {
        Phys::F32 | Phys::F64 => v,
        Phys::U8 => v.zext(Prim::I32),
        _ => v.sext(Prim::I32),
    }
}

/// Asks for a register of values of a column of fixed width from `row` on; the rows need not exist.
pub fn fetch<'b>(cx: &Cx<'_>, env: &Env<'b>, scan: Node, name: &str, row: V<'b>) -> Result<()> {
    let table = stored_table(cx, scan)?;
    let Ok(column) = table.column(name) else { return Ok(()) };
    if let Values::Fixed { phys, .. } | Values::Coded { phys, .. } = &column.values {
        let base = bound(cx, env, table, column, Part::Values);
        let bytes = prim_of(*phys).bytes() as i64;
        let from = base.index(row, bytes);
        (0..bytes * i64::from(LANES)).step_by(CACHE_LINE).for_each(|at| env.b.prefetch(from.at(at)));
    }
    Ok(())
}

/// As [`load_lanes`], as a value of integers or codes.
pub fn lanes_value<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    scan: Node,
    name: &str,
    row: V<'b>,
    mask: V<'b>,
) -> Result<Value<'b>> {
    let v = load_lanes(cx, env, scan, name, row, mask)?;
    let own = load(cx, env, scan, name, row)?;
    Ok(match own.repr {
        Repr::Code { dict, .. } => Value { repr: Repr::Code { code: v, dict }, ..own },
        _ => Value { repr: Repr::Prim(v), ..own },
    })
}
