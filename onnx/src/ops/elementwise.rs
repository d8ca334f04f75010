//! Elementwise operators, with NumPy's broadcasting.

use super::Write;
use crate::emit::{Emit, Fallible};
use crate::tensor::{Number, scalar_of};
use crate::value::Call;
use quearn_stage::graph::{BinaryOp, CompareOp, Dim, Node, Scalar, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("Abs", |c| unary(c, UnaryOp::Abs)),
    ("Acos", |c| with(c, acos)),
    ("Acosh", |c| with(c, acosh)),
    ("Add", |c| binary(c, BinaryOp::Add)),
    ("And", |c| binary(c, BinaryOp::And)),
    ("Asin", |c| with(c, asin)),
    ("Asinh", |c| with(c, asinh)),
    ("Atan", |c| unary(c, UnaryOp::Atan)),
    ("Atanh", |c| with(c, atanh)),
    ("Cast", cast),
    ("CastLike", |c| {
        let (x, to) = (c.x(0)?, c.value(1)?.scalar(c.emit).ok_or("its type is not known")?);
        one(c.emit.cast(x, to))
    }),
    ("Ceil", |c| unary(c, UnaryOp::Ceil)),
    ("Celu", celu),
    ("Clip", clip),
    ("Cos", |c| unary(c, UnaryOp::Cos)),
    ("Cosh", |c| with(c, cosh)),
    ("Div", |c| binary(c, BinaryOp::Div)),
    ("Dropout", dropout),
    ("Elu", elu),
    ("Equal", |c| compare(c, CompareOp::Eq)),
    ("Erf", |c| unary(c, UnaryOp::Erf)),
    ("Exp", |c| unary(c, UnaryOp::Exp)),
    ("Floor", |c| unary(c, UnaryOp::Floor)),
    ("Gelu", gelu),
    ("Greater", |c| compare(c, CompareOp::Gt)),
    ("GreaterOrEqual", |c| compare(c, CompareOp::Ge)),
    ("HardSigmoid", |c| {
        let (x, alpha, beta) = (c.x(0)?, c.float("alpha", 0.2), c.float("beta", 0.5));
        one(hard_sigmoid(c.emit, x, alpha, beta))
    }),
    ("HardSwish", |c| {
        let x = c.x(0)?;
        let gate = hard_sigmoid(c.emit, x, 1.0 / 6.0, 0.5)?;
        one(c.emit.mul(x, gate))
    }),
    ("Identity", |c| one(c.x(0))),
    ("IsInf", is_inf),
    ("IsNaN", |c| {
        let x = c.x(0)?;
        one(c.emit.compare(CompareOp::Ne, x, x))
    }),
    ("LeakyRelu", |c| {
        let (x, alpha) = (c.x(0)?, c.float("alpha", 0.01));
        let slope = c.emit.like(x, alpha)?;
        one(leaky(c.emit, x, slope))
    }),
    ("Less", |c| compare(c, CompareOp::Lt)),
    ("LessOrEqual", |c| compare(c, CompareOp::Le)),
    ("Log", |c| unary(c, UnaryOp::Log)),
    ("Max", |c| variadic(c, BinaryOp::Max)),
    ("Mean", mean),
    ("Min", |c| variadic(c, BinaryOp::Min)),
    ("Mish", mish),
    ("Mod", modulo),
    ("Mul", |c| binary(c, BinaryOp::Mul)),
    ("Neg", |c| unary(c, UnaryOp::Neg)),
    ("Not", |c| unary(c, UnaryOp::Not)),
    ("Or", |c| binary(c, BinaryOp::Or)),
    ("PRelu", prelu),
    ("Pow", pow),
    ("Reciprocal", |c| {
        let x = c.x(0)?;
        let unit = c.emit.like(x, 1.0)?;
        one(c.emit.div(unit, x))
    }),
    ("Relu", |c| unary(c, UnaryOp::Relu)),
    ("Round", |c| unary(c, UnaryOp::Round)),
    ("Selu", selu),
    ("Shrink", shrink),
    ("Sigmoid", |c| unary(c, UnaryOp::Sigmoid)),
    ("Sign", |c| with(c, sign)),
    ("Sin", |c| unary(c, UnaryOp::Sin)),
    ("Sinh", |c| with(c, sinh)),
    ("Softplus", |c| with(c, softplus)),
    ("Softsign", |c| {
        let x = c.x(0)?;
        let size = c.emit.unary(UnaryOp::Abs, x)?;
        let below = c.emit.plus(size, 1.0)?;
        one(c.emit.div(x, below))
    }),
    ("Sqrt", |c| unary(c, UnaryOp::Sqrt)),
    ("Sub", |c| binary(c, BinaryOp::Sub)),
    ("Sum", |c| variadic(c, BinaryOp::Add)),
    ("SwiGLU", |c| {
        let (gate, x) = (swish(c)?, c.x(1)?);
        one(c.emit.mul(gate, x))
    }),
    ("Swish", |c| one(swish(c))),
    ("Tan", |c| {
        let x = c.x(0)?;
        let (sin, cos) = (c.emit.unary(UnaryOp::Sin, x)?, c.emit.unary(UnaryOp::Cos, x)?);
        one(c.emit.div(sin, cos))
    }),
    ("Tanh", |c| unary(c, UnaryOp::Tanh)),
    ("ThresholdedRelu", |c| {
        let (x, alpha) = (c.x(0)?, c.float("alpha", 1.0));
        let (above, zero) = (c.emit.test(CompareOp::Gt, x, alpha)?, c.emit.like(x, 0.0)?);
        one(c.emit.select(above, x, zero))
    }),
    ("Where", |c| {
        let [cond, a, b] = operands(c, [0, 1, 2])?;
        one(c.emit.select(cond, a, b))
    }),
    ("Xor", |c| compare(c, CompareOp::Ne)),
];

fn one(node: Fallible<Node>) -> Fallible<Vec<Node>> {
    node.map(|node| vec![node])
}

fn unary(c: &mut Call, op: UnaryOp) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    if matches!(op, UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round) && !c.emit.scalar(x).is_float() {
        return Ok(vec![x]);
    }
    one(c.emit.unary(op, x))
}

fn with(c: &mut Call, f: fn(&mut Emit, Node) -> Fallible<Node>) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    one(f(c.emit, x))
}

/// Operands; one of a single known element that stretches along the others becomes a scalar of the program.
fn operands<const N: usize>(c: &mut Call, inputs: [usize; N]) -> Fallible<[Node; N]> {
    let shapes = inputs.map(|i| c.value(i).ok().and_then(|v| v.shape(c.emit)));
    let rank = |i: usize| shapes[i].as_ref().map_or(0, Vec::len);
    let mut nodes = vec![];
    for (place, &i) in inputs.iter().enumerate() {
        let single = shapes[place].as_ref().is_some_and(|s| s.iter().all(|d| *d == Dim::Const(1)));
        let stretched = (0..N).any(|other| other != place && rank(other) >= rank(place) && rank(other) > 0);
        let known = if single && stretched { c.value(i)?.elements() } else { None };
        nodes.push(match known {
            Some(known) if known.given.is_empty() && !shapes_are_single(&shapes) => {
                c.emit.number(known.scalar, &known.items[0])?
            }
            _ => c.x(i)?,
        });
    }
    legacy(c, &mut nodes)?;
    nodes.try_into().map_err(|_| "its operands are not as many as expected".into())
}

fn shapes_are_single<const N: usize>(shapes: &[Option<Vec<Dim>>; N]) -> bool {
    shapes.iter().flatten().all(|s| s.iter().all(|d| *d == Dim::Const(1)))
}

/// Before version 7 the second operand was aligned at an axis.
fn legacy(c: &mut Call, nodes: &mut [Node]) -> Fallible<()> {
    if c.opset >= 7 || c.int("broadcast", 0) == 0 || nodes.len() != 2 {
        return Ok(());
    }
    let (rank, mut shape) = (c.emit.rank(nodes[0]), c.emit.shape(nodes[1]));
    if shape.is_empty() {
        return Ok(());
    }
    let axis = c.int("axis", rank as i64 - shape.len() as i64);
    let axis = c.axis(axis, rank.max(1))?;
    while axis + shape.len() < rank {
        shape.push(Dim::Const(1));
    }
    nodes[1] = c.emit.reshape(nodes[1], shape)?;
    Ok(())
}

fn binary(c: &mut Call, op: BinaryOp) -> Fallible<Vec<Node>> {
    let [a, b] = operands(c, [0, 1])?;
    one(c.emit.binary(op, a, b))
}

fn compare(c: &mut Call, op: CompareOp) -> Fallible<Vec<Node>> {
    let [a, b] = operands(c, [0, 1])?;
    one(c.emit.compare(op, a, b))
}

fn variadic(c: &mut Call, op: BinaryOp) -> Fallible<Vec<Node>> {
    let nodes = c.all()?;
    let (&first, rest) = nodes.split_first().ok_or("it has no input")?;
    let mut result = first;
    for &next in rest {
        result = c.emit.binary(op, result, next)?;
    }
    Ok(vec![result])
}

fn mean(c: &mut Call) -> Fallible<Vec<Node>> {
    let sum = variadic(c, BinaryOp::Add)?[0];
    one(c.emit.times(sum, 1.0 / c.inputs.len() as f64))
}

fn cast(c: &mut Call) -> Fallible<Vec<Node>> {
    let to = i32::try_from(c.int("to", 0)).map_err(|_| "its type is no type")?;
    let (x, to) = (c.x(0)?, scalar_of(to)?);
    one(c.emit.cast(x, to))
}

fn dropout(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    if c.has(2) && c.known_number(2)? != 0.0 && !(c.has(1) && c.known_number(1)? == 0.0) {
        return Err("dropout while training is random".into());
    }
    let yes = c.emit.number(Scalar::Bool, &Number::Int(1))?;
    let mask = c.emit.broadcast(yes, c.emit.shape(x))?;
    Ok(vec![x, mask])
}

fn clip(c: &mut Call) -> Fallible<Vec<Node>> {
    let mut x = c.x(0)?;
    for (attribute, input, op) in [("min", 1, BinaryOp::Max), ("max", 2, BinaryOp::Min)] {
        let bound = match c.optional(input)? {
            None if c.has_attribute(attribute) => Some(c.emit.like(x, c.float(attribute, 0.0))?),
            bound => bound,
        };
        if let Some(bound) = bound {
            x = c.emit.binary(op, x, bound)?;
        }
    }
    Ok(vec![x])
}

fn modulo(c: &mut Call) -> Fallible<Vec<Node>> {
    let [a, b] = operands(c, [0, 1])?;
    let rest = c.emit.binary(BinaryOp::Rem, a, b)?;
    if c.int("fmod", 0) != 0 || c.emit.scalar(a) == Scalar::U8 {
        return Ok(vec![rest]);
    }
    // The remainder has the sign of the dividend, ONNX wants that of the divisor.
    let odd = c.emit.test(CompareOp::Ne, rest, 0.0)?;
    let (below, wanted) = (c.emit.test(CompareOp::Lt, rest, 0.0)?, c.emit.test(CompareOp::Lt, b, 0.0)?);
    let differs = c.emit.compare(CompareOp::Ne, below, wanted)?;
    let moved = c.emit.binary(BinaryOp::And, odd, differs)?;
    let other = c.emit.add(rest, b)?;
    one(c.emit.select(moved, other, rest))
}

fn pow(c: &mut Call) -> Fallible<Vec<Node>> {
    let [x, y] = operands(c, [0, 1])?;
    let scalar = c.emit.scalar(x);
    let exponent = c.value(1)?.elements().filter(|k| k.given.is_empty() && k.items.len() == 1);
    let stretched = c.emit.rank(y) <= c.emit.rank(x);
    match exponent.and_then(|k| k.items[0].float()) {
        Some(1.0) if stretched => return Ok(vec![x]),
        Some(2.0) if stretched => return one(c.emit.mul(x, x)),
        Some(3.0) if stretched => {
            let square = c.emit.mul(x, x)?;
            return one(c.emit.mul(square, x));
        }
        Some(0.5) if stretched && scalar.is_float() => return one(c.emit.unary(UnaryOp::Sqrt, x)),
        _ => {}
    }
    let wide = if scalar.is_float() { scalar } else { Scalar::F64 };
    let (x, y) = (c.emit.cast(x, wide)?, c.emit.cast(y, wide)?);
    let power = c.emit.binary(BinaryOp::Pow, x, y)?;
    one(c.emit.cast(power, scalar))
}

fn leaky(e: &mut Emit, x: Node, slope: Node) -> Fallible<Node> {
    let (below, scaled) = (e.test(CompareOp::Lt, x, 0.0)?, e.mul(x, slope)?);
    e.select(below, scaled, x)
}

fn prelu(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, mut slope) = (c.x(0)?, c.x(1)?);
    let (rank, shape) = (c.emit.rank(x), c.emit.shape(slope));
    // Before version 7 the slope was one a channel.
    if c.opset < 7 && shape.len() == 1 && shape[0] != Dim::Const(1) {
        let ones = std::iter::repeat_n(Dim::Const(1), rank.saturating_sub(2));
        slope = c.emit.reshape(slope, shape.into_iter().chain(ones).collect())?;
    }
    one(leaky(c.emit, x, slope))
}

fn hard_sigmoid(e: &mut Emit, x: Node, alpha: f64, beta: f64) -> Fallible<Node> {
    let scaled = e.times(x, alpha)?;
    let y = e.plus(scaled, beta)?;
    let (zero, one) = (e.like(x, 0.0)?, e.like(x, 1.0)?);
    let y = e.binary(BinaryOp::Max, y, zero)?;
    e.binary(BinaryOp::Min, y, one)
}

fn exponential_below(e: &mut Emit, x: Node, slope: f64, scale: f64) -> Fallible<Node> {
    let below = e.test(CompareOp::Lt, x, 0.0)?;
    let scaled = if slope == 1.0 { x } else { e.times(x, 1.0 / slope)? };
    let power = e.unary(UnaryOp::Exp, scaled)?;
    let less = e.plus(power, -1.0)?;
    let curve = e.times(less, scale)?;
    e.select(below, curve, x)
}

fn elu(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, alpha) = (c.x(0)?, c.float("alpha", 1.0));
    one(exponential_below(c.emit, x, 1.0, alpha))
}

fn celu(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, alpha) = (c.x(0)?, c.float("alpha", 1.0));
    one(exponential_below(c.emit, x, alpha, alpha))
}

fn selu(c: &mut Call) -> Fallible<Vec<Node>> {
    let (alpha, gamma) = (c.float("alpha", 1.673_263_192_176_818_8), c.float("gamma", 1.050_700_902_938_843));
    let x = c.x(0)?;
    let y = exponential_below(c.emit, x, 1.0, alpha)?;
    one(c.emit.times(y, gamma))
}

fn shrink(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, bias, lambd) = (c.x(0)?, c.float("bias", 0.0), c.float("lambd", 0.5));
    let e = &mut *c.emit;
    // Bounds need not be integers where the elements are.
    let wide = if e.scalar(x).is_float() { x } else { e.cast(x, Scalar::F64)? };
    let (low, high) = (e.test(CompareOp::Lt, wide, -lambd)?, e.test(CompareOp::Gt, wide, lambd)?);
    let (up, down, zero) = (e.plus(wide, bias)?, e.plus(wide, -bias)?, e.like(wide, 0.0)?);
    let inner = e.select(high, down, zero)?;
    let y = e.select(low, up, inner)?;
    one(e.cast(y, e.scalar(x)))
}

fn is_inf(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, up, down) = (c.x(0)?, c.int("detect_positive", 1) != 0, c.int("detect_negative", 1) != 0);
    let (above, below) =
        (c.emit.test(CompareOp::Eq, x, f64::INFINITY)?, c.emit.test(CompareOp::Eq, x, f64::NEG_INFINITY)?);
    one(match (up, down) {
        (true, true) => c.emit.binary(BinaryOp::Or, above, below),
        (true, false) => Ok(above),
        (false, true) => Ok(below),
        (false, false) => c.emit.binary(BinaryOp::And, above, below),
    })
}

fn sign(e: &mut Emit, x: Node) -> Fallible<Node> {
    let zero = e.like(x, 0.0)?;
    let above = e.test(CompareOp::Gt, x, 0.0)?;
    let up = e.like(x, 1.0)?;
    let upper = e.select(above, up, zero)?;
    if e.scalar(x) == Scalar::U8 {
        return Ok(upper);
    }
    let (below, down) = (e.test(CompareOp::Lt, x, 0.0)?, e.like(x, -1.0)?);
    e.select(below, down, upper)
}

/// log(1 + e^x) without overflow.
pub(super) fn softplus(e: &mut Emit, x: Node) -> Fallible<Node> {
    let size = e.unary(UnaryOp::Abs, x)?;
    let away = e.unary(UnaryOp::Neg, size)?;
    let power = e.unary(UnaryOp::Exp, away)?;
    let more = e.plus(power, 1.0)?;
    let (log, top) = (e.unary(UnaryOp::Log, more)?, e.unary(UnaryOp::Relu, x)?);
    e.add(top, log)
}

fn mish(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let soft = softplus(c.emit, x)?;
    let gate = c.emit.unary(UnaryOp::Tanh, soft)?;
    one(c.emit.mul(x, gate))
}

fn gelu(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, tanh) = (c.x(0)?, c.text("approximate", "none") == "tanh");
    let e = &mut *c.emit;
    let curve = if tanh {
        let square = e.mul(x, x)?;
        let cube = e.mul(square, x)?;
        let bent = e.times(cube, 0.044_715)?;
        let inner = e.add(x, bent)?;
        let scaled = e.times(inner, (2.0 / std::f64::consts::PI).sqrt())?;
        e.unary(UnaryOp::Tanh, scaled)?
    } else {
        let scaled = e.times(x, std::f64::consts::FRAC_1_SQRT_2)?;
        e.unary(UnaryOp::Erf, scaled)?
    };
    let (more, half) = (e.plus(curve, 1.0)?, e.times(x, 0.5)?);
    one(e.mul(half, more))
}

/// (e^x + e^-x) / 2, with the second term subtracted instead if `minus`.
fn half_powers(e: &mut Emit, x: Node, minus: bool) -> Fallible<Node> {
    let away = e.unary(UnaryOp::Neg, x)?;
    let (up, down) = (e.unary(UnaryOp::Exp, x)?, e.unary(UnaryOp::Exp, away)?);
    let sum = if minus { e.sub(up, down)? } else { e.add(up, down)? };
    e.times(sum, 0.5)
}

fn swish(c: &mut Call) -> Fallible<Node> {
    let (x, alpha) = (c.x(0)?, c.float("alpha", 1.0));
    let scaled = c.emit.times(x, alpha)?;
    let gate = c.emit.unary(UnaryOp::Sigmoid, scaled)?;
    c.emit.mul(x, gate)
}

fn cosh(e: &mut Emit, x: Node) -> Fallible<Node> {
    half_powers(e, x, false)
}

/// Near zero the difference of powers loses digits; 2t / (1 - t^2) with t = tanh(x / 2) does not.
fn sinh(e: &mut Emit, x: Node) -> Fallible<Node> {
    let wide = half_powers(e, x, true)?;
    let half = e.times(x, 0.5)?;
    let t = e.unary(UnaryOp::Tanh, half)?;
    let (square, twice, unit) = (e.mul(t, t)?, e.times(t, 2.0)?, e.like(x, 1.0)?);
    let below = e.sub(unit, square)?;
    let near = e.div(twice, below)?;
    let size = e.unary(UnaryOp::Abs, x)?;
    let small = e.test(CompareOp::Lt, size, 1.0)?;
    e.select(small, near, wide)
}

fn asin(e: &mut Emit, x: Node) -> Fallible<Node> {
    let (square, unit) = (e.mul(x, x)?, e.like(x, 1.0)?);
    let rest = e.sub(unit, square)?;
    let root = e.unary(UnaryOp::Sqrt, rest)?;
    let ratio = e.div(x, root)?;
    e.unary(UnaryOp::Atan, ratio)
}

fn acos(e: &mut Emit, x: Node) -> Fallible<Node> {
    let (angle, right) = (asin(e, x)?, e.like(x, std::f64::consts::FRAC_PI_2)?);
    e.sub(right, angle)
}

/// log(|x| + sqrt(x^2 + 1)) with the sign of x.
fn asinh(e: &mut Emit, x: Node) -> Fallible<Node> {
    let (size, square) = (e.unary(UnaryOp::Abs, x)?, e.mul(x, x)?);
    let more = e.plus(square, 1.0)?;
    let root = e.unary(UnaryOp::Sqrt, more)?;
    let sum = e.add(size, root)?;
    let log = e.unary(UnaryOp::Log, sum)?;
    let (away, below) = (e.unary(UnaryOp::Neg, log)?, e.test(CompareOp::Lt, x, 0.0)?);
    e.select(below, away, log)
}

fn acosh(e: &mut Emit, x: Node) -> Fallible<Node> {
    let square = e.mul(x, x)?;
    let less = e.plus(square, -1.0)?;
    let root = e.unary(UnaryOp::Sqrt, less)?;
    let sum = e.add(x, root)?;
    e.unary(UnaryOp::Log, sum)
}

fn atanh(e: &mut Emit, x: Node) -> Fallible<Node> {
    let (more, unit) = (e.plus(x, 1.0)?, e.like(x, 1.0)?);
    let less = e.sub(unit, x)?;
    let ratio = e.div(more, less)?;
    let log = e.unary(UnaryOp::Log, ratio)?;
    e.times(log, 0.5)
}
