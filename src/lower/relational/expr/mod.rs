//! Staged evaluation of scalar expressions on the current row.
//!
//! | file | what it holds |
//! |---|---|
//! | [`arith`] | exact integer and decimal arithmetic, floats |
//! | [`compare`] | comparisons of numbers, text and codes |
//! | [`logic`] | three-valued logic, selection |
//! | [`cast`] | conversions |
//! | [`text`] | equality, order, LIKE and substrings of text |
//! | [`dates`] | calendar arithmetic |
//! | [`column`] | where columns come from |

pub mod arith;
pub mod cast;
pub mod column;
pub mod compare;
pub mod dates;
pub mod logic;
pub mod text;

use super::batch;
use super::dictionary;
use super::env::{Env, Place};
use super::value::{Range, Repr, Value, both_valid, widen};
use crate::lower::context::{Cx, TASK};
use crate::lower::error::{LowerError, Result};
use crate::lower::frame::Bind;
use crate::lower::once::is_scalar_input;
use crate::lower::parameter;
use crate::lower::tensor::{random, storage};
use quearn_stage::graph::fails::any_can_fail;
use quearn_stage::graph::{CompareOp, Elem, Node, Op, Region, Scalar, Ty as GraphTy, UnaryOp};
use quearn_stage::low::{ModuleBuilder, Prim};

/// Element type of a scalar, row expression or tensor.
pub fn elem_of(cx: &Cx<'_>, node: Node) -> Result<Elem> {
    match cx.graph.ty(node) {
        GraphTy::Tensor { elem, .. } => Ok(*elem),
        _ => Err(LowerError::Internal { node: cx.describe(node), what: "a table where a value is expected".into() }),
    }
}

/// The value of `node` on the current row, evaluated once.
pub fn eval<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node) -> Result<Value<'b>> {
    if let Some(value) = env.known(node) {
        return Ok(value);
    }
    let value = match tabulated(cx, env, node)? {
        Some(value) => value,
        None => compute(cx, env, node)?,
    };
    env.remember(node, value);
    Ok(value)
}

/// Can one of these expressions fail on some row of a stored table, as far as types and statistics tell?
pub fn can_fail(cx: &Cx<'_>, scan: Node, expressions: &[Node]) -> Result<bool> {
    if !any_can_fail(cx.graph, expressions) {
        return Ok(false);
    }
    // Ranges of values show that many tests are needless; what is left of them shows when the code is written.
    let scratch = ModuleBuilder::new();
    let mut outcome = Ok(());
    scratch.func("tests", &TASK, |b, p| {
        let env = Env::new(b, p[0], p[1]).bind(scan, Place::Stored(p[2]));
        outcome = expressions.iter().try_for_each(|&expression| eval(cx, &env, expression).map(|_| ()));
    });
    outcome.map(|()| !scratch.build().sites.is_empty())
}

/// The value by a look-up, if the expression depends on one dictionary-coded column only.
fn tabulated<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node) -> Result<Option<Value<'b>>> {
    if matches!(cx.graph.op(node), Op::Column(_) | Op::Const(_)) || elem_of(cx, node)?.scalar == Scalar::String {
        return Ok(None);
    }
    let Some(on) = dictionary::dependence(cx, node, &|leaf| column::stored_behind(cx, env, leaf)) else {
        return Ok(None);
    };
    let code = column::stored(cx, env, on.table, &on.column)?;
    match code.repr {
        Repr::Code { dict, .. } if on.strict || code.valid.is_none() => {
            let table = dictionary::tabulate(cx, node, &on, dict)?;
            Ok(Some(table.get(env, &code)))
        }
        _ => Ok(None),
    }
}

/// The literal text that a comparison has on one side, and its other side.
fn literal_text<'c>(cx: &'c Cx<'_>, comparison: Node) -> Option<(&'c str, Node)> {
    let inputs = cx.graph.inputs(comparison);
    let literal = |node: Node| match cx.graph.op(node) {
        Op::Const(literal) => literal.as_str(),
        _ => None,
    };
    literal(inputs[1]).map(|text| (text, inputs[0])).or_else(|| Some((literal(inputs[0])?, inputs[1])))
}

fn compute<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node) -> Result<Value<'b>> {
    let inputs = cx.graph.inputs(node);
    let input = |i: usize| eval(cx, env, inputs[i]);
    let scalar_of = |i: usize| elem_of(cx, inputs[i]).map(|e| e.scalar);
    let result = elem_of(cx, node)?.scalar;
    let unsupported = |what: &str| LowerError::Unsupported { node: cx.describe(node), what: what.to_owned() };
    match cx.graph.op(node) {
        Op::Const(literal) => cast::constant(cx, env, literal).ok_or_else(|| unsupported("this constant")),
        Op::Column(name) => column::column(cx, env, inputs[0], name),
        Op::Unary(op @ (UnaryOp::Not | UnaryOp::IsNull)) => logic::unary(env, *op, input(0)?),
        Op::Unary(op @ (UnaryOp::Year | UnaryOp::Month | UnaryOp::Day)) => {
            Ok(dates::part(*op, input(0)?, scalar_of(0)?))
        }
        Op::Unary(op) => arith::unary(cx, env, node, *op, input(0)?, result),
        Op::Binary(op) if logic::is_logic(*op) => logic::binary(cx, env, node, *op),
        Op::Binary(op) => {
            let (a, b) = (input(0)?, input(1)?);
            arith::binary(cx, env, node, *op, (a, scalar_of(0)?), (b, scalar_of(1)?), result)
        }
        Op::Compare(op @ (CompareOp::Eq | CompareOp::Ne)) if literal_text(cx, node).is_some() => {
            let (literal, other) = literal_text(cx, node).expect("asked for above");
            let text = text::as_text(cx, env, eval(cx, env, other)?);
            let same = text::is(env.b, text, literal);
            Ok(Value::prim(if *op == CompareOp::Eq { same } else { !same }).with_valid(text.valid))
        }
        Op::Compare(op) if cx.parameters.side(node).is_some() => {
            let side = cx.parameters.side(node).expect("asked for above");
            let column = input(1 - side)?;
            let scalar = scalar_of(1 - side)?;
            let range = column.range.ok_or_else(|| unsupported("a parameter beside this type"))?;
            let literal = parameter::value(cx, env.b, env.frame, node, range);
            let literal = literal.ok_or_else(|| unsupported("a parameter beside this type"))?;
            let (a, b) = if side == 1 { (column, literal) } else { (literal, column) };
            compare::compare(cx, env, *op, (a, scalar), (b, scalar))
        }
        Op::Compare(op) => {
            let (a, b) = (input(0)?, input(1)?);
            compare::compare(cx, env, *op, (a, scalar_of(0)?), (b, scalar_of(1)?))
        }
        Op::Select => logic::select(cx, env, node),
        Op::If => logic::branch(cx, env, node),
        Op::Cast(to) => cast::cast(cx, env, node, input(0)?, scalar_of(0)?, *to),
        Op::Like(pattern) => {
            let text = text::as_text(cx, env, input(0)?);
            let matches = text::like(env.b, pattern, text);
            Ok(Value::prim(matches).with_valid(text.valid))
        }
        Op::Substring { start, len } => Ok(text::substring(env.b, text::as_text(cx, env, input(0)?), *start, *len)),
        Op::Clean(how) => match input(0)? {
            value @ Value { repr: Repr::Code { code, dict }, .. } => {
                let texts = dictionary::cleaned(cx, node, *how, dict)?;
                Ok(texts.get(cx, env, code, dict).with_valid(value.valid))
            }
            text => Ok(text::clean(cx, env, text, *how, &cx.describe(node))),
        },
        Op::Hash => Ok(text::hash(env.b, text::as_text(cx, env, input(0)?))),
        Op::Single => column::single(cx, env, inputs[0]),
        Op::Input { name, .. } if is_scalar_input(cx.graph, node) => {
            given(cx, env, name, result).ok_or_else(|| unsupported("an input of this type"))
        }
        Op::RowNumber => column::row_number(cx, env, node),
        Op::Random(to) => {
            let word = |i: usize| input(i).map(|value| widen(value.scalar(), Prim::I64));
            Ok(batch::of_tensor(result, random([word(0)?, word(1)?, word(2)?], *to)))
        }
        Op::Loop(region) => rounds(cx, env, inputs, region),
        _ => Err(unsupported("this operation on single rows")),
    }
}

/// A scalar that is given to the run.
fn given<'b>(cx: &Cx<'_>, env: &Env<'b>, name: &str, scalar: Scalar) -> Option<Value<'b>> {
    let prim = storage(scalar)?;
    let v = cx.frame.bind(Bind::Scalar { name: name.to_owned(), prim }).get(env.b, env.frame);
    Some(batch::of_tensor(scalar, v))
}

/// `control.loop` over scalars: the carried values live in registers.
fn rounds<'b>(cx: &Cx<'_>, env: &Env<'b>, inputs: &[Node], region: &Region) -> Result<Value<'b>> {
    let b = env.b;
    let trips = widen(eval(cx, env, inputs[0])?.scalar(), Prim::I64);
    if inputs.len() != 2 {
        let node = cx.describe(inputs[0]);
        return Err(LowerError::Unsupported { node, what: "a loop that carries several values through a row".into() });
    }
    // A carried value may take any value of its type, whatever the first one was.
    let elem = elem_of(cx, region.results[0])?;
    let mut first = cast::widest(eval(cx, env, inputs[1])?, elem);
    if elem.nullable && first.valid.is_none() {
        first.valid = Some(b.bool(true));
    }
    let mut outcome = Ok(());
    let last = b.for_carry(b.i64(0), trips, 1, &first.pack(), |i, carried| {
        let inner = env.branch();
        inner.remember(region.params[0], Value::int(i, Range::I64));
        inner.remember(region.params[1], first.unpack(carried));
        match eval(cx, &inner, region.results[0]) {
            Ok(next) => {
                let mut next = cast::widest(next, elem);
                next.valid = both_valid(next.valid, first.valid.map(|_| next.is_valid(b)));
                next.pack()
            }
            Err(error) => {
                outcome = Err(error);
                carried.to_vec()
            }
        }
    });
    outcome?;
    Ok(first.unpack(&last))
}
