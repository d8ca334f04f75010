//! Rules of the control family.

use super::{Cx, Result, Ty, scalar};
use crate::graph::{Dim, Elem, Node, Op, Region, Scalar, Steps};

pub(super) fn infer(cx: &Cx) -> Result<Ty> {
    match cx.op {
        Op::If => {
            cx.arity(3)?;
            let (_, cond) = cx.tensor(0)?;
            cx.check(cond.len() <= 1, || cx.expected(0, "a scalar or one bool for each row"))?;
            scalar::select(cx)
        }
        Op::Loop(region) => repeat(cx, region),
        Op::Steps(steps) => walk(cx, steps),
        Op::Param { ty, .. } => {
            cx.arity(0)?;
            cx.well_formed_ty(ty)?;
            Ok(ty.clone())
        }
        Op::Item(index) => item(cx, *index),
        _ => cx.error("is not of the control family"),
    }
}

fn item(cx: &Cx, index: usize) -> Result<Ty> {
    cx.arity(1)?;
    match cx.ty(0) {
        Ty::Tuple(items) => match items.get(index) {
            Some(ty) => Ok(ty.clone()),
            None => cx.error(format!("no item {index} in a tuple of {}", items.len())),
        },
        _ => cx.error(cx.expected(0, "a tuple")),
    }
}

fn repeat(cx: &Cx, region: &Region) -> Result<Ty> {
    let carried = cx.inputs.len().saturating_sub(1);
    cx.check(carried > 0, || format!("takes (trips, init..), found {} operands", cx.inputs.len()))?;
    cx.check(region.params.len() == carried + 1 && region.results.len() == carried, || {
        let (params, results) = (region.params.len(), region.results.len());
        format!("carries {carried} values, its region has {params} parameters and {results} results")
    })?;
    let (trips, shape) = cx.required(0)?;
    cx.check(trips.is_int() && shape.is_empty(), || cx.expected(0, "an integer scalar"))?;
    let mut types = params(cx, region)?.into_iter();
    let round = types.next();
    cx.check(round == Some(Ty::scalar(Scalar::I64.required())), || "the round must be an i64 scalar".to_owned())?;
    let mut types: Vec<Ty> = types.collect();
    passes_on(cx, 1, region, &types)?;
    Ok(if types.len() == 1 { types.remove(0) } else { Ty::Tuple(types) })
}

/// Values that a region passes on begin as the operands from `first` on say, and keep their types.
fn passes_on(cx: &Cx, first: usize, region: &Region, types: &[Ty]) -> Result<()> {
    for (i, ty) in types.iter().enumerate() {
        let begin = cx.ty(first + i);
        cx.check(fits(begin, ty), || format!("carried value {i} begins as {begin}, expected {ty}"))?;
        let next = cx.graph.ty(region.results[i]);
        cx.check(fits(next, ty), || format!("carried value {i} becomes {next}, expected {ty}"))?;
    }
    Ok(())
}

fn walk(cx: &Cx, steps: &Steps) -> Result<Ty> {
    let Steps { region, count, carried, axis, .. } = steps;
    let (given, results) = (cx.inputs.len(), region.results.len());
    cx.check(region.params.len() == given && *carried <= given.min(results), || {
        let params = region.params.len();
        format!("carries {carried} of {given} operands, its region has {params} parameters and {results} results")
    })?;
    cx.check(results > 0, || "gives nothing".to_owned())?;
    let mut types = params(cx, region)?;
    for (i, param) in types.iter().enumerate().skip(*carried) {
        let (elem, shape) = cx.tensor(i)?;
        let mut slice = shape.to_vec();
        cx.check(shape.get(*axis) == Some(&Dim::Const(*count)), || {
            cx.expected(i, &format!("a tensor of extent {count} along axis {axis}"))
        })?;
        slice.remove(*axis);
        let slice = Ty::Tensor { elem, shape: slice };
        cx.check(fits(&slice, param), || format!("slices of {} are {slice}, expected {param}", cx.operand(i)))?;
    }
    types.truncate(*carried);
    passes_on(cx, 0, region, &types)?;
    for (i, &result) in region.results.iter().enumerate().skip(*carried) {
        match cx.graph.ty(result) {
            Ty::Tensor { elem, shape } if *axis <= shape.len() => {
                let mut shape = shape.clone();
                shape.insert(*axis, Dim::Const(*count));
                types.push(Ty::Tensor { elem: *elem, shape });
            }
            ty => return cx.error(format!("collects result {i}, which is {ty}, along axis {axis}")),
        }
    }
    Ok(if types.len() == 1 { types.remove(0) } else { Ty::Tuple(types) })
}

/// The types of a region's parameters, which are numbered nodes of one region.
fn params(cx: &Cx, region: &Region) -> Result<Vec<Ty>> {
    let known = |node: &Node| node.index() < cx.node.index().min(cx.graph.len());
    cx.check(region.params.iter().chain(&region.results).all(known), || "its region is not made before it".to_owned())?;
    let mut types = Vec::with_capacity(region.params.len());
    let mut id = None;
    for (position, &param) in region.params.iter().enumerate() {
        match cx.graph.op(param) {
            Op::Param { region, index, ty } if *index as usize == position && *id.get_or_insert(*region) == *region => {
                types.push(ty.clone());
            }
            _ => return cx.error(format!("{param} is not parameter {position} of its region")),
        }
    }
    Ok(types)
}

/// Is every value of `found` one of `expected`? A value that is never NULL may go where NULL is allowed.
fn fits(found: &Ty, expected: &Ty) -> bool {
    match (found, expected) {
        (Ty::Tensor { elem: a, shape: s }, Ty::Tensor { elem: b, shape: t }) => {
            s == t && (a == b || *b == Elem { nullable: true, ..*a })
        }
        _ => found == expected,
    }
}
