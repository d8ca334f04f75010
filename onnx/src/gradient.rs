//! Derivatives: from a result back, what each node adds to those of its inputs.

use crate::emit::{Emit, Fallible};
use crate::import::Import;
use crate::proto::NodeProto;
use crate::scope::Scope;
use crate::tensor::Number;
use crate::value::Value;
use quearn_stage::graph::{BinaryOp, CompareOp, Dim, Node, Op, ReduceOp, UnaryOp};
use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::PI;
use std::rc::Rc;

/// The operator, with its domain.
pub const NAME: &str = "ai.onnx.preview.training.Gradient";

/// The results of `Gradient`: the derivatives of one value of the model by others, all of them named by attributes.
pub(crate) fn run(
    import: &mut Import,
    node: &NodeProto,
    inputs: &[Option<Rc<Value>>],
    scope: &Scope,
) -> Fallible<Vec<Rc<Value>>> {
    let call = import.call(node, inputs);
    let (xs, zs) = (call.texts("xs").unwrap_or_default(), call.texts("zs").unwrap_or_default());
    let find = |name: &str| scope.get(name).cloned().ok_or_else(|| format!("no node before it makes {name:?}"));
    let y = find(&call.text("y", ""))?;
    for (i, name) in xs.iter().chain(&zs).enumerate() {
        if !Rc::ptr_eq(call.value(i)?, &find(name)?) {
            return Err(format!("its input {i} must be {name:?}: derivatives at other places are not supported"));
        }
    }
    let emit = &mut import.emit;
    let y = y.in_graph(emit)?;
    let fixed = inputs.iter().flatten().map(|x| x.in_graph(emit)).collect::<Fallible<Vec<Node>>>()?;
    let made = gradient(emit, y, &fixed)?;
    let named = made.into_iter().take(xs.len()).zip(&node.output);
    Ok(named.map(|(made, name)| Value::node(name, made, None)).collect())
}

/// The derivatives of (the sum of) `y` by each of `xs`, which do not depend on each other.
fn gradient(e: &mut Emit, y: Node, xs: &[Node]) -> Fallible<Vec<Node>> {
    // A node is larger than those that it is made of.
    let (mut order, mut open) = (BTreeSet::new(), vec![y]);
    while let Some(node) = open.pop() {
        if order.insert(node) {
            open.extend(e.graph.inputs(node));
        }
    }
    let mut depends = vec![false; y.index() + 1];
    for &node in &order {
        depends[node.index()] = xs.contains(&node) || e.graph.inputs(node).iter().any(|i| depends[i.index()]);
    }
    let one = e.like(y, 1.0)?;
    let mut adjoints = BTreeMap::from([(y, e.broadcast(one, e.shape(y))?)]);
    for node in order.into_iter().rev().filter(|node| !xs.contains(node)) {
        let Some(&adjoint) = adjoints.get(&node) else { continue };
        let inputs = e.graph.inputs(node).to_vec();
        for (i, &input) in inputs.iter().enumerate().filter(|(_, input)| depends[input.index()]) {
            let Some(part) = part(e, node, i, adjoint)? else { continue };
            let part = summed(e, part, &e.shape(input))?;
            let sum = match adjoints.get(&input) {
                Some(&sum) => e.add(sum, part)?,
                None => part,
            };
            adjoints.insert(input, sum);
        }
    }
    let derivative = |&x: &Node| match adjoints.get(&x) {
        Some(&adjoint) => Ok(adjoint),
        None => {
            let zero = e.like(x, 0.0)?;
            e.broadcast(zero, e.shape(x))
        }
    };
    xs.iter().map(derivative).collect()
}

/// What was repeated on the way there is added up on the way back.
fn summed(e: &mut Emit, x: Node, shape: &[Dim]) -> Fallible<Node> {
    let wide = e.shape(x);
    let skip = wide.len().saturating_sub(shape.len());
    let repeated = |i: &usize| *i < skip || shape[i - skip] == Dim::Const(1) && wide[*i] != Dim::Const(1);
    let axes: Vec<usize> = (0..wide.len()).filter(repeated).collect();
    let sum = if axes.is_empty() { x } else { e.reduce_keep(ReduceOp::Sum, x, &axes)? };
    e.reshape(sum, shape.to_vec())
}

/// What the derivative by a node adds to that by its input `i`; nothing where the node is flat.
fn part(e: &mut Emit, node: Node, i: usize, adjoint: Node) -> Fallible<Option<Node>> {
    let op = e.graph.op(node).clone();
    let inputs = e.graph.inputs(node).to_vec();
    let input = inputs[i];
    Ok(Some(match op {
        Op::Unary(UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round) | Op::Compare(_) | Op::ArgMax { .. } => {
            return Ok(None);
        }
        Op::Unary(op) => {
            let slope = slope(e, op, input, node)?;
            e.mul(adjoint, slope)?
        }
        Op::Binary(op) => binary(e, op, [inputs[0], inputs[1]], i, node, adjoint)?,
        Op::Select if i == 0 => return Ok(None),
        Op::Select => {
            let zero = e.like(adjoint, 0.0)?;
            if i == 1 { e.select(inputs[0], adjoint, zero)? } else { e.select(inputs[0], zero, adjoint)? }
        }
        Op::Cast(_) if !e.scalar(input).is_float() || !e.scalar(node).is_float() => return Ok(None),
        Op::Cast(_) => e.cast(adjoint, e.scalar(input))?,
        // What is added up over repeated leading axes is done for all nodes.
        Op::MatMul if i == 0 => {
            let other = e.swap_last(inputs[1])?;
            e.matmul(adjoint, other)?
        }
        Op::MatMul => {
            let other = e.swap_last(inputs[0])?;
            e.matmul(other, adjoint)?
        }
        Op::Reduce { op: op @ (ReduceOp::Sum | ReduceOp::Mean), axes, .. } => {
            let shape = e.shape(input);
            let kept = shape.iter().enumerate().map(|(i, d)| if axes.contains(&i) { Dim::Const(1) } else { d.clone() });
            let mut back = e.reshape(adjoint, kept.collect())?;
            if op == ReduceOp::Mean {
                let mut count = 1.0;
                for &axis in &axes {
                    count *= e.extent(input, axis)? as f64;
                }
                back = e.times(back, 1.0 / count)?;
            }
            e.broadcast(back, shape)?
        }
        Op::Softmax { axis } => {
            let weighted = e.mul(adjoint, node)?;
            let sum = e.reduce_keep(ReduceOp::Sum, weighted, &[axis])?;
            let away = e.sub(adjoint, sum)?;
            e.mul(away, node)?
        }
        Op::Reshape(_) => e.reshape(adjoint, e.shape(input))?,
        Op::Broadcast(_) => adjoint,
        Op::Transpose(perm) => {
            let mut back = vec![0; perm.len()];
            perm.iter().enumerate().for_each(|(to, &from)| back[from] = to);
            e.transpose(adjoint, back)?
        }
        Op::Concat { axis } => {
            let mut start = 0;
            for &before in &inputs[..i] {
                start += e.extent(before, axis)?;
            }
            e.slice(adjoint, axis, start, 1, e.extent(input, axis)?)?
        }
        Op::Slice { axis, start, step: 1, count } => {
            let (zero, rest) = (e.like(adjoint, 0.0)?, e.extent(input, axis)? - start - count);
            e.pad(adjoint, axis, [start as i64, rest as i64], zero)?
        }
        other => return Err(format!("the derivative of {} is not supported", other.name())),
    }))
}

/// The derivative of a function of one number, at `x`, where its value is `y`.
fn slope(e: &mut Emit, op: UnaryOp, x: Node, y: Node) -> Fallible<Node> {
    let one = e.like(x, 1.0)?;
    Ok(match op {
        UnaryOp::Neg => e.like(x, -1.0)?,
        UnaryOp::Exp => y,
        UnaryOp::Log => e.div(one, x)?,
        UnaryOp::Sqrt => {
            let twice = e.times(y, 2.0)?;
            e.div(one, twice)?
        }
        UnaryOp::Tanh => {
            let square = e.mul(y, y)?;
            e.sub(one, square)?
        }
        UnaryOp::Sigmoid => {
            let rest = e.sub(one, y)?;
            e.mul(y, rest)?
        }
        UnaryOp::Sin => e.unary(UnaryOp::Cos, x)?,
        UnaryOp::Cos => {
            let sin = e.unary(UnaryOp::Sin, x)?;
            e.unary(UnaryOp::Neg, sin)?
        }
        UnaryOp::Atan => {
            let square = e.mul(x, x)?;
            let more = e.add(square, one)?;
            e.div(one, more)?
        }
        UnaryOp::Erf => {
            let square = e.mul(x, x)?;
            let away = e.unary(UnaryOp::Neg, square)?;
            let power = e.unary(UnaryOp::Exp, away)?;
            e.times(power, 2.0 / PI.sqrt())?
        }
        UnaryOp::Relu | UnaryOp::Abs => {
            let (above, below, zero) =
                (e.test(CompareOp::Gt, x, 0.0)?, e.test(CompareOp::Lt, x, 0.0)?, e.like(x, 0.0)?);
            let down = e.like(x, if op == UnaryOp::Abs { -1.0 } else { 0.0 })?;
            let low = e.select(below, down, zero)?;
            e.select(above, one, low)?
        }
        other => return Err(format!("the derivative of {} is not supported", other.name())),
    })
}

fn binary(e: &mut Emit, op: BinaryOp, [a, b]: [Node; 2], i: usize, y: Node, adjoint: Node) -> Fallible<Node> {
    let other = if i == 0 { b } else { a };
    match (op, i) {
        (BinaryOp::Add, _) | (BinaryOp::Sub, 0) => Ok(adjoint),
        (BinaryOp::Sub, _) => e.unary(UnaryOp::Neg, adjoint),
        (BinaryOp::Mul, _) => e.mul(adjoint, other),
        (BinaryOp::Div, 0) => e.div(adjoint, b),
        (BinaryOp::Div, _) => {
            let (share, away) = (e.div(y, b)?, e.unary(UnaryOp::Neg, adjoint)?);
            e.mul(share, away)
        }
        (BinaryOp::Min | BinaryOp::Max, _) => {
            // The first of two equal operands is the one that counts.
            let kept = match (op == BinaryOp::Max, i) {
                (true, 0) => e.compare(CompareOp::Ge, a, b)?,
                (true, _) => e.compare(CompareOp::Gt, b, a)?,
                (false, 0) => e.compare(CompareOp::Le, a, b)?,
                (false, _) => e.compare(CompareOp::Lt, b, a)?,
            };
            let zero = e.like(adjoint, 0.0)?;
            e.select(kept, adjoint, zero)
        }
        (BinaryOp::Pow, 0) => {
            let one = e.number(e.scalar(b), &Number::Float(1.0))?;
            let less = e.sub(b, one)?;
            let power = e.binary(BinaryOp::Pow, a, less)?;
            let slope = e.mul(b, power)?;
            e.mul(adjoint, slope)
        }
        (BinaryOp::Pow, _) => {
            let log = e.unary(UnaryOp::Log, a)?;
            let slope = e.mul(y, log)?;
            e.mul(adjoint, slope)
        }
        (other, _) => Err(format!("the derivative of {} is not supported", other.name())),
    }
}
