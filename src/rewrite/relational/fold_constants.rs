//! `op(1, 2) = 3` for elementwise operations of constants; `x and true = x`, `x * 1 = x` and their like.
//!
//! Reason: dates moved by intervals, scales of normalisations and predicates that are decided need no work at run time,
//! and a constant can be compared, pushed and folded further.
//!
//! Preconditions: the type stays the same, NULL-ability and shape included. An operation that fails on its constants
//! stays, so that the program still fails; an operand that can fail is not dropped. `x + 0.0` stays, since it turns -0
//! into 0; `x * 0` stays, since it may be NaN or NULL. Constants are computed by the naive evaluator, whose meaning
//! everything else is checked against.

use crate::eval::{Datum, Inputs, evaluate};
use crate::rewrite::Patch;
use crate::rewrite::expression::is_elementwise;
use quearn_stage::graph::fails::can_fail;
use quearn_stage::graph::{BinaryOp, Elem, Graph, Literal, Node, Op, Scalar, UnaryOp};

/// The node as a constant, or as an operand that it is equal to.
pub fn fold_constants(graph: &Graph, node: Node) -> Option<Patch> {
    if !is_elementwise(graph.op(node)) {
        return None;
    }
    if let Some(literal) = value(graph, node) {
        let mut patch = Patch::new(graph);
        let new = patch.add(Op::Const(literal), &[]);
        return Some(patch.replace(node, new));
    }
    let same = equal_operand(graph, node).filter(|new| graph.ty(*new) == graph.ty(node))?;
    Some(Patch::new(graph).replace(node, same))
}

fn constant(graph: &Graph, node: Node) -> Option<&Literal> {
    match graph.op(node) {
        Op::Const(literal) => Some(literal),
        _ => None,
    }
}

/// The value of an operation of constants, if it has one of its own type.
fn value(graph: &Graph, node: Node) -> Option<Literal> {
    let mut alone = Graph::new();
    let operands =
        graph.inputs(node).iter().map(|&input| alone.add(Op::Const(constant(graph, input)?.clone()), &[]).ok());
    let operands = operands.collect::<Option<Vec<_>>>()?;
    let result = alone.add(graph.op(node).clone(), &operands).ok()?;
    alone.output("value", result);
    let (_, value) = evaluate(&alone, &Inputs::new()).ok()?.pop()?;
    let (elem, _) = graph.ty(node).as_tensor()?;
    literal(&value.tensor().get(0), elem)
}

/// A datum as a literal of exactly that type.
fn literal(datum: &Datum, elem: Elem) -> Option<Literal> {
    let scalar = elem.scalar;
    if elem.nullable != (*datum == Datum::Null) {
        return None;
    }
    match (datum, scalar) {
        (Datum::Null, _) => Some(Literal::null(scalar)),
        (Datum::Bool(b), _) => Some(Literal::bool(*b)),
        (Datum::Int(i), Scalar::Decimal { precision, scale }) => Literal::decimal(*i, precision, scale),
        (Datum::Int(i), Scalar::Date) => Some(Literal::date(i32::try_from(*i).ok()?)),
        (Datum::Int(i), Scalar::Timestamp) => Some(Literal::timestamp(i64::try_from(*i).ok()?)),
        (Datum::Int(i), _) => Literal::int(scalar, *i),
        (Datum::Float(x), _) => Literal::float(scalar, *x),
        (Datum::Interval(by), _) => Some(Literal::interval(by.months, by.days, by.micros)),
        (Datum::Str(text), _) => Some(Literal::string(text.as_ref())),
        (Datum::Fail(_), _) => None,
    }
}

/// An operand (at any depth) with the value of the node, whatever its type.
fn equal_operand(graph: &Graph, node: Node) -> Option<Node> {
    match (graph.op(node), graph.inputs(node)) {
        (Op::Unary(op), &[x]) => undone(graph, *op, x),
        (Op::Binary(op), &[x, y]) => of_two(graph, *op, x, y),
        (Op::Select | Op::If, &[cond, a, b]) => chosen(graph, node, cond, a, b),
        _ => None,
    }
}

/// `not not x` and `- - x`; an integer has no negation if it is the smallest one.
fn undone(graph: &Graph, op: UnaryOp, x: Node) -> Option<Node> {
    let is_float = graph.ty(x).as_tensor()?.0.scalar.is_float();
    let twice = *graph.op(x) == Op::Unary(op) && (op == UnaryOp::Not || op == UnaryOp::Neg && is_float);
    twice.then(|| graph.inputs(x)[0])
}

fn of_two(graph: &Graph, op: BinaryOp, x: Node, y: Node) -> Option<Node> {
    use BinaryOp::*;
    let commutes = matches!(op, Add | Mul | And | Or);
    if is_neutral(graph, op, y) {
        return Some(x);
    }
    if commutes && is_neutral(graph, op, x) {
        return Some(y);
    }
    match op {
        And | Or | Min | Max if x == y => Some(x),
        And | Or => decisive(graph, op, x, y).or_else(|| decisive(graph, op, y, x)),
        Coalesce => (!graph.ty(x).as_tensor()?.0.nullable && !can_fail(graph, y)).then_some(x),
        _ => None,
    }
}

/// `x` if it is the constant that decides AND or OR, and the other operand cannot fail.
fn decisive(graph: &Graph, op: BinaryOp, x: Node, other: Node) -> Option<Node> {
    let decides = *constant(graph, x)? == Literal::bool(op == BinaryOp::Or);
    (decides && !can_fail(graph, other)).then_some(x)
}

/// Is `x op y` equal to `x`, bit by bit, since `y` is a constant that does nothing?
fn is_neutral(graph: &Graph, op: BinaryOp, y: Node) -> bool {
    let Some(literal) = constant(graph, y) else { return false };
    let is_float = |x: f64| literal.as_float().map(f64::to_bits) == Some(x.to_bits());
    let is_int = |i: i128| literal.scalar().is_int() && literal.as_int() == Some(i);
    match op {
        BinaryOp::And => *literal == Literal::bool(true),
        BinaryOp::Or => *literal == Literal::bool(false),
        BinaryOp::Add => is_int(0) || is_float(-0.0),
        BinaryOp::Sub => is_int(0) || is_float(0.0),
        BinaryOp::Mul | BinaryOp::Div => is_int(1) || is_float(1.0),
        _ => false,
    }
}

/// The arm that a constant condition chooses. `Select` evaluates both, so the other one must not be able to fail.
fn chosen(graph: &Graph, node: Node, cond: Node, a: Node, b: Node) -> Option<Node> {
    let (arm, other) = if *constant(graph, cond)? == Literal::bool(true) { (a, b) } else { (b, a) };
    (*graph.op(node) == Op::If || !can_fail(graph, other)).then_some(arm)
}
