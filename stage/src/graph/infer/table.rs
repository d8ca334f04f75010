//! Rules of the table family, and of columns taken out of tables.

use super::{Cx, Result, Ty, compare_as};
use crate::graph::{Aggregate, AggregateOp, Dim, Elem, Field, JoinKind, Op, Scalar, SortKey};

/// The type of an aggregate of values of a type, `None` if it does not take them. `CountRows` takes no argument.
pub fn aggregate_result(op: AggregateOp, argument: Scalar) -> Option<Scalar> {
    let ordered = argument.is_numeric() || matches!(argument, Scalar::Date | Scalar::Timestamp | Scalar::String);
    match op {
        AggregateOp::Sum => sum_result(argument),
        AggregateOp::Min | AggregateOp::Max => ordered.then_some(argument),
        AggregateOp::Avg => argument.is_numeric().then_some(Scalar::F64),
        AggregateOp::Count | AggregateOp::CountRows => Some(Scalar::I64),
        AggregateOp::CountDistinct => (argument != Scalar::Interval).then_some(Scalar::I64),
    }
}

fn sum_result(argument: Scalar) -> Option<Scalar> {
    match argument {
        Scalar::Decimal { scale, .. } => Some(Scalar::decimal(38, scale)),
        Scalar::F16 | Scalar::BF16 => Some(Scalar::F32),
        Scalar::F32 | Scalar::F64 => Some(argument),
        _ => argument.is_int().then_some(Scalar::I64),
    }
}

pub(super) fn infer(cx: &Cx) -> Result<Ty> {
    match cx.op {
        Op::Scan { table, fields } => {
            cx.arity(0)?;
            cx.check(!table.is_empty(), || "the table needs a name".to_owned())?;
            cx.well_formed_fields(fields)?;
            Ok(new_rows(cx, fields.clone()))
        }
        Op::Filter => filter(cx),
        Op::Project { names } => project(cx, names),
        Op::Product => product(cx),
        Op::Union { names } => union(cx, names),
        Op::Join { kind, keys } => join(cx, kind, *keys),
        Op::Aggregate { keys, aggregates } => aggregate(cx, keys, aggregates),
        Op::Sort(keys) => sort(cx, keys),
        Op::Limit { .. } => {
            cx.arity(1)?;
            Ok(new_rows(cx, cx.table(0)?.0.to_vec()))
        }
        Op::Column(name) => column(cx, name),
        Op::RowNumber => row_number(cx),
        _ => cx.error("is not of the table family"),
    }
}

fn new_rows(cx: &Cx, fields: Vec<Field>) -> Ty {
    Ty::Table { fields, rows: Dim::Rows(cx.node) }
}

/// At least `count` operands.
fn at_least(cx: &Cx, count: usize) -> Result<()> {
    cx.check(cx.inputs.len() >= count, || format!("takes {count} or more operands, found {}", cx.inputs.len()))
}

/// A row expression without inner dimensions: its element type.
fn row_value(cx: &Cx, operand: usize, rows: &Dim) -> Result<Elem> {
    let (elem, inner) = row_tensor(cx, operand, rows)?;
    cx.check(inner.is_empty(), || cx.expected(operand, "one value for each row"))?;
    Ok(elem)
}

/// A row expression: its element type and inner dimensions.
fn row_tensor<'a>(cx: &Cx<'a>, operand: usize, rows: &Dim) -> Result<(Elem, &'a [Dim])> {
    let (elem, shape) = cx.tensor(operand)?;
    match shape.split_first() {
        None => Ok((elem, shape)),
        Some((first, inner)) if first == rows => Ok((elem, inner)),
        Some((first, _)) => cx.error(format!(
            "{} must be over the rows of the table, {}, found {}",
            cx.operand(operand),
            cx.dim(rows),
            cx.dim(first)
        )),
    }
}

fn filter(cx: &Cx) -> Result<Ty> {
    cx.arity(2)?;
    let (fields, rows) = cx.table(0)?;
    let pred = row_value(cx, 1, rows)?;
    cx.check(pred.scalar == Scalar::Bool, || cx.expected(1, "a bool"))?;
    Ok(new_rows(cx, fields.to_vec()))
}

fn project(cx: &Cx, names: &[String]) -> Result<Ty> {
    cx.arity(names.len() + 1)?;
    cx.unique(names.iter().map(String::as_str))?;
    let (_, rows) = cx.table(0)?;
    let mut fields = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let (elem, inner) = row_tensor(cx, i + 1, rows)?;
        let Some(shape) = inner.iter().map(Dim::as_const).collect() else {
            return cx.error(format!("column {name:?}: {}", cx.expected(i + 1, "of one known shape in every row")));
        };
        fields.push(Field { name: name.clone(), elem, shape });
    }
    Ok(Ty::Table { fields, rows: rows.clone() })
}

fn product(cx: &Cx) -> Result<Ty> {
    cx.arity(2)?;
    let (left, right) = (cx.table(0)?.0, cx.table(1)?.0);
    let fields = side_by_side(cx, left, right.to_vec())?;
    Ok(new_rows(cx, fields))
}

fn union(cx: &Cx, names: &[String]) -> Result<Ty> {
    at_least(cx, 1)?;
    cx.unique(names.iter().map(String::as_str))?;
    let mut fields: Vec<Field> = vec![];
    for name in names {
        let mut all: Option<Field> = None;
        for operand in 0..cx.inputs.len() {
            let (own, _) = cx.table(operand)?;
            let Some(field) = own.iter().find(|field| field.name == *name) else {
                return cx.error(format!("{} has no column {name:?}", cx.operand(operand)));
            };
            let all = all.get_or_insert_with(|| field.clone());
            if (all.elem.scalar, &all.shape) != (field.elem.scalar, &field.shape) {
                let (one, other) = (all.elem.scalar, field.elem.scalar);
                return cx.error(format!("column {name:?} is {one} in the first table, and {other} in another"));
            }
            all.elem.nullable |= field.elem.nullable;
        }
        fields.extend(all);
    }
    Ok(new_rows(cx, fields))
}

fn side_by_side(cx: &Cx, left: &[Field], right: Vec<Field>) -> Result<Vec<Field>> {
    if let Some(shared) = right.iter().find(|r| left.iter().any(|l| l.name == r.name)) {
        return cx.error(format!("both sides have a column {:?}; rename one", shared.name));
    }
    Ok(left.iter().cloned().chain(right).collect())
}

fn join(cx: &Cx, kind: &JoinKind, keys: usize) -> Result<Ty> {
    let fixed = keys.checked_mul(2).and_then(|n| n.checked_add(2)).unwrap_or(usize::MAX);
    cx.check(keys > 0, || "needs a key pair; without one it is a product and a filter".to_owned())?;
    cx.check(cx.inputs.len() == fixed || Some(cx.inputs.len()) == fixed.checked_add(1), || {
        format!("with {keys} key pairs takes {fixed} operands and perhaps a residual, found {}", cx.inputs.len())
    })?;
    let ((left, left_rows), (right, right_rows)) = (cx.table(0)?, cx.table(1)?);
    for i in 0..keys {
        let a = row_value(cx, 2 + i, left_rows)?;
        let b = row_value(cx, 2 + keys + i, right_rows)?;
        cx.check(compare_as(a.scalar, b.scalar).is_some(), || {
            let (l, r) = (cx.operand(2 + i), cx.operand(2 + keys + i));
            format!("key pair {} cannot be compared: {l} is {a}, {r} is {b}", i + 1)
        })?;
    }
    if cx.inputs.len() > fixed {
        residual(cx, fixed)?;
    }
    if let JoinKind::Mark(mark) = kind {
        cx.check(left.iter().all(|f| f.name != *mark), || format!("the left side has a column {mark:?} already"))?;
        return Ok(new_rows(cx, left.iter().cloned().chain([Field::new(mark, Scalar::Bool)]).collect()));
    }
    if kind.is_one_sided() {
        return Ok(new_rows(cx, left.to_vec()));
    }
    let mut kept: Vec<Field> = right.iter().filter(|f| !same_named_key(cx, keys, &f.name)).cloned().collect();
    for field in &mut kept {
        field.elem.nullable |= *kind == JoinKind::Left;
    }
    Ok(new_rows(cx, side_by_side(cx, left, kept)?))
}

/// The residual is a bool over the rows of the product of both sides.
fn residual(cx: &Cx, operand: usize) -> Result<()> {
    let (elem, shape) = cx.tensor(operand)?;
    cx.check(elem.scalar == Scalar::Bool, || cx.expected(operand, "a bool"))?;
    let over_pair = match shape {
        [] => true,
        [Dim::Rows(node)] => *cx.graph.op(*node) == Op::Product && cx.graph.inputs(*node) == &cx.inputs[..2],
        _ => false,
    };
    cx.check(over_pair, || cx.expected(operand, "over the rows of the product of both sides"))
}

/// Is `name` a key column of both sides, in the same pair?
fn same_named_key(cx: &Cx, keys: usize, name: &str) -> bool {
    let is_column = |operand: usize, side: usize| {
        let node = cx.inputs[operand];
        matches!(cx.graph.op(node), Op::Column(column) if column == name)
            && cx.graph.inputs(node) == &cx.inputs[side..=side]
    };
    (0..keys).any(|i| is_column(2 + i, 0) && is_column(2 + keys + i, 1))
}

fn aggregate(cx: &Cx, keys: &[String], aggregates: &[Aggregate]) -> Result<Ty> {
    let arguments = aggregates.iter().filter(|a| a.op != AggregateOp::CountRows).count();
    cx.arity(1 + keys.len() + arguments)?;
    cx.unique(keys.iter().chain(aggregates.iter().map(|a| &a.name)).map(String::as_str))?;
    let (_, rows) = cx.table(0)?;
    let mut fields = Vec::with_capacity(keys.len() + aggregates.len());
    for (i, name) in keys.iter().enumerate() {
        let elem = row_value(cx, i + 1, rows)?;
        cx.check(elem.scalar != Scalar::Interval, || {
            format!("the key {name:?} is an interval, which has no equality")
        })?;
        fields.push(Field { name: name.clone(), elem, shape: vec![] });
    }
    let mut operand = 1 + keys.len();
    for Aggregate { name, op } in aggregates {
        let argument = match op {
            AggregateOp::CountRows => Scalar::I64.required(),
            _ => row_value(cx, operand, rows)?,
        };
        let Some(scalar) = aggregate_result(*op, argument.scalar) else {
            return cx.error(format!("{name:?}: {} does not take {} ({argument})", op.name(), cx.operand(operand)));
        };
        operand += usize::from(*op != AggregateOp::CountRows);
        let counts = matches!(op, AggregateOp::Count | AggregateOp::CountRows | AggregateOp::CountDistinct);
        let nullable = !counts && (argument.nullable || keys.is_empty());
        fields.push(Field { name: name.clone(), elem: Elem { scalar, nullable }, shape: vec![] });
    }
    let rows = if keys.is_empty() { Dim::Const(1) } else { Dim::Rows(cx.node) };
    Ok(Ty::Table { fields, rows })
}

fn sort(cx: &Cx, keys: &[SortKey]) -> Result<Ty> {
    at_least(cx, 2)?;
    cx.arity(keys.len() + 1)?;
    let (fields, rows) = cx.table(0)?;
    for i in 1..=keys.len() {
        let key = row_value(cx, i, rows)?;
        cx.check(key.scalar != Scalar::Interval, || cx.expected(i, "something with an order"))?;
    }
    Ok(new_rows(cx, fields.to_vec()))
}

fn column(cx: &Cx, name: &str) -> Result<Ty> {
    cx.arity(1)?;
    let (fields, rows) = cx.table(0)?;
    let Some(field) = fields.iter().find(|f| f.name == name) else {
        return cx.error(missing_column(name, fields));
    };
    let inner = field.shape.iter().map(|&extent| Dim::Const(extent));
    Ok(Ty::Tensor { elem: field.elem, shape: std::iter::once(rows.clone()).chain(inner).collect() })
}

fn row_number(cx: &Cx) -> Result<Ty> {
    cx.arity(1)?;
    let (_, rows) = cx.table(0)?;
    let stored = matches!(cx.graph.op(cx.inputs[0]), Op::Scan { .. });
    cx.check(stored, || "takes a stored table: the rows of others come in any order".to_owned())?;
    Ok(Ty::Tensor { elem: Scalar::I64.required(), shape: vec![rows.clone()] })
}

/// Names the column that is missing, the closest that is there, and (if they are few) all that are.
fn missing_column(name: &str, fields: &[Field]) -> String {
    let mut message = format!("no column {name:?}");
    let closest = fields.iter().map(|f| (edit_distance(name, &f.name), &f.name)).min();
    if let Some((distance, closest)) = closest
        && distance <= name.len() / 2
    {
        message += &format!("; did you mean {closest:?}?");
    }
    if fields.len() <= 8 {
        let names: Vec<String> = fields.iter().map(|f| format!("{:?}", f.name)).collect();
        message += &format!(" (columns: {})", names.join(", "));
    }
    message
}

/// Fewest insertions, deletions and replacements of characters between two words (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
