//! `f(x) > c = x >= t` for a chain `f` of monotone steps, and so for the other orders:
//!
//! ```text
//! sigmoid(x) > 0.5 = x >= 1.2e-7        exp(x * 2 + 1) <= 3 = x <= 0.0493        tanh(-x) < 0 = x > 0
//! filter(project(t, p = f(x)), p > c) = filter(project(t, p = x), p >= t)        where p is compared and nothing else
//! ```
//!
//! Reason: a score is compared more often than it is shown, and the order of scores is known before the link function
//! has made probabilities of them. What is left may be a test of a plain column, which is done by vectors, moves below
//! joins and skips blocks of rows.
//!
//! The threshold is the float at which the naive evaluator's own answer turns, found by bisection over all floats of the
//! type of `x`. So nothing changes but what the rounding of `f` in generated code would have decided otherwise: rows
//! whose `f(x)` is within a few units in the last place of `c`.
//!
//! Preconditions: every step is monotone in `x`, its other operand a constant that is finite; `x` is a float of 32 or 64
//! bits; NaN fails the comparison, as it does with the new one; a logarithm or root may only make NaN on the side that
//! fails. Nobody reads the result of `f` otherwise: where it is there already, comparing it costs nothing.

use crate::eval::{Datum, Inputs, evaluate};
use crate::rewrite::Patch;
use crate::rewrite::expression::{has_column, projected};
use crate::rewrite::users::Users;
use quearn_stage::graph::{BinaryOp, CompareOp, Graph, Literal, Node, Op, Scalar, UnaryOp};
use std::collections::BTreeSet;

/// A comparison, or a projection whose column is compared only, without the steps before the comparison.
pub fn invert_link(graph: &Graph, node: Node) -> Option<Patch> {
    match graph.op(node) {
        Op::Compare(_) => {
            let test = Test::of(graph, node)?;
            let only_compared = |user: &Node| Test::of(graph, *user).is_some_and(|other| other.x == test.x);
            let users = Users::of(graph).all(test.x)?;
            let chain = users.iter().all(only_compared).then(|| Chain::below(graph, test.x))??;
            let mut patch = Patch::new(graph);
            let new = test.inverted(&chain, &mut patch, chain.x)?;
            Some(patch.replace(node, new))
        }
        Op::Project { .. } => projection(graph, node),
        _ => None,
    }
}

/// A comparison with a constant.
pub(super) struct Test {
    node: Node,
    op: CompareOp,
    /// What is compared.
    pub(super) x: Node,
}

impl Test {
    pub(super) fn of(graph: &Graph, node: Node) -> Option<Test> {
        let (Op::Compare(op), &[a, b]) = (graph.op(node), graph.inputs(node)) else { return None };
        let (op, x) = match (graph.op(a), graph.op(b)) {
            (Op::Const(_), Op::Const(_)) => return None,
            (_, Op::Const(_)) => (*op, a),
            (Op::Const(_), _) => (op.flipped(), b),
            _ => return None,
        };
        let ordered = !matches!(op, CompareOp::Eq | CompareOp::Ne);
        ordered.then_some(Test { node, op, x })
    }

    /// Is it true of values that are high enough, or low enough?
    pub(super) fn passes_high(&self) -> bool {
        matches!(self.op, CompareOp::Gt | CompareOp::Ge)
    }

    /// The test of `x`, which stands for the end of the chain, that is true for the same values.
    fn inverted(&self, chain: &Chain, patch: &mut Patch, x: Node) -> Option<Node> {
        let rises = self.passes_high() == chain.rises;
        if chain.steps.is_empty() || chain.undefined.is_some_and(|low| low != rises) {
            return None;
        }
        let holds = |value: f64| chain.holds(self, value);
        if holds(f64::NAN)? {
            return None;
        }
        let threshold = turn(chain.scalar, rises, &holds)?;
        let constant = patch.add(Op::Const(Literal::float(chain.scalar, threshold)?), &[]);
        let op = if rises { CompareOp::Ge } else { CompareOp::Le };
        Some(patch.add(Op::Compare(op), &[x, constant]))
    }
}

/// Monotone steps from a float to a value.
pub(super) struct Chain<'g> {
    graph: &'g Graph,
    /// Where it begins.
    pub(super) x: Node,
    scalar: Scalar,
    /// The first one first.
    pub(super) steps: Vec<Node>,
    /// Does the value rise with `x`?
    pub(super) rises: bool,
    /// Is a step without a value for low (true) or high `x`?
    undefined: Option<bool>,
}

impl<'g> Chain<'g> {
    /// The longest chain that ends in `node`.
    pub(super) fn below(graph: &'g Graph, node: Node) -> Option<Chain<'g>> {
        let mut steps = vec![];
        let (mut x, mut end) = (node, node);
        let mut taken = 0;
        while let Some((below, _)) = step(graph, x) {
            steps.push(x);
            x = below;
            if float_type(graph, x).is_some() {
                (end, taken) = (x, steps.len());
            }
        }
        steps.truncate(taken);
        steps.reverse();
        let scalar = float_type(graph, end)?;
        let (mut rises, mut undefined) = (true, None);
        for &node in &steps {
            if matches!(graph.op(node), Op::Unary(UnaryOp::Log | UnaryOp::Sqrt)) {
                if undefined.is_some_and(|low| low != rises) {
                    return None;
                }
                undefined = Some(rises);
            }
            rises = rises == step(graph, node)?.1;
        }
        Some(Chain { graph, x: end, scalar, steps, rises, undefined })
    }

    /// Is the test true where `x` has this value? By the naive evaluator.
    pub(super) fn holds(&self, test: &Test, value: f64) -> Option<bool> {
        let mut alone = Graph::new();
        let mut last = alone.add(Op::Const(Literal::float(self.scalar, value)?), &[]).ok()?;
        for &node in self.steps.iter().chain([&test.node]) {
            let operand = |&input: &Node| match self.graph.op(input) {
                op @ Op::Const(_) => alone.add(op.clone(), &[]).ok(),
                _ => Some(last),
            };
            let operands: Vec<Node> = self.graph.inputs(node).iter().map(operand).collect::<Option<_>>()?;
            last = alone.add(self.graph.op(node).clone(), &operands).ok()?;
        }
        alone.output("holds", last);
        match evaluate(&alone, &Inputs::new()).ok()?.pop()?.1.tensor().get(0) {
            Datum::Bool(holds) => Some(holds),
            _ => None,
        }
    }
}

fn float_type(graph: &Graph, node: Node) -> Option<Scalar> {
    let scalar = graph.ty(node).as_tensor()?.0.scalar;
    matches!(scalar, Scalar::F32 | Scalar::F64).then_some(scalar)
}

/// The operand in which a node is monotone, and whether the node rises with it.
fn step(graph: &Graph, node: Node) -> Option<(Node, bool)> {
    let float = |node: Node| float_type(graph, node).is_some();
    float_type(graph, node)?;
    match (graph.op(node), graph.inputs(node)) {
        (Op::Unary(op), &[x]) => {
            use UnaryOp::*;
            let rises = matches!(op, Exp | Log | Sqrt | Tanh | Sigmoid | Relu | Erf | Floor | Ceil | Round | Atan);
            (rises || *op == Neg).then_some((x, rises))
        }
        (Op::Cast(Scalar::F64), &[x]) => float(x).then_some((x, true)),
        (Op::Binary(op), &[a, b]) => {
            let (x, c, first) = match (finite(graph, a), finite(graph, b)) {
                (None, Some(c)) => (a, c, true),
                (Some(c), None) => (b, c, false),
                _ => return None,
            };
            let rises = match op {
                BinaryOp::Add | BinaryOp::Min | BinaryOp::Max => true,
                BinaryOp::Sub => first,
                BinaryOp::Mul if c != 0.0 => c > 0.0,
                BinaryOp::Div if c != 0.0 && first => c > 0.0,
                _ => return None,
            };
            float(x).then_some((x, rises))
        }
        _ => None,
    }
}

/// The value of a constant, if it is a finite float.
fn finite(graph: &Graph, node: Node) -> Option<f64> {
    let Op::Const(literal) = graph.op(node) else { return None };
    literal.as_float().filter(|c| c.is_finite())
}

/// The least (`rises`) or greatest float for which `holds` is true, where it turns once; `None` if it does not turn
/// among finite numbers.
pub(super) fn turn(scalar: Scalar, rises: bool, holds: &dyn Fn(f64) -> Option<bool>) -> Option<f64> {
    let most = if scalar == Scalar::F32 { ordinal(f32::MAX.into(), scalar) } else { ordinal(f64::MAX, scalar) };
    let (mut fails, mut found) = if rises { (-most, most) } else { (most, -most) };
    if holds(number(fails, scalar))? || !holds(number(found, scalar))? {
        return None;
    }
    while fails.abs_diff(found) > 1 {
        let middle = i64::midpoint(fails, found);
        match holds(number(middle, scalar))? {
            true => found = middle,
            false => fails = middle,
        }
    }
    // Both zeros are equal.
    Some(number(found, scalar) + 0.0)
}

/// Floats numbered in their order, both zeros as 0.
fn ordinal(value: f64, scalar: Scalar) -> i64 {
    let magnitude = match scalar {
        Scalar::F32 => i64::from((value.abs() as f32).to_bits()),
        _ => value.abs().to_bits() as i64,
    };
    if value < 0.0 { -magnitude } else { magnitude }
}

fn number(ordinal: i64, scalar: Scalar) -> f64 {
    let bits = ordinal.unsigned_abs();
    let magnitude = match scalar {
        Scalar::F32 => f32::from_bits(bits as u32).into(),
        _ => f64::from_bits(bits),
    };
    if ordinal < 0 { -magnitude } else { magnitude }
}

/// A projection with a column that is compared only: the column without its last steps, the comparisons with others
/// in the place of their constants.
fn projection(graph: &Graph, node: Node) -> Option<Patch> {
    let Op::Project { names } = graph.op(node) else { return None };
    let at = names.iter().position(|name| {
        projected(graph, node, name).is_some_and(|e| step(graph, e).is_some() && Users::of(graph).only(e, node))
    })?;
    let (name, expression) = (&names[at], graph.inputs(node)[1 + at]);
    // Twice the same expression would be two columns.
    let once = graph.inputs(node)[1..].iter().filter(|&&e| e == expression).count() == 1;
    let tests = once.then(|| tests(graph, node, name))??;
    let chain = Chain::below(graph, expression)?;
    let mut patch = Patch::new(graph);
    let mut changed = vec![];
    for test in tests {
        changed.push((test.node, test.inverted(&chain, &mut patch, test.x)?));
    }
    if changed.is_empty() || graph.ty(chain.x) != graph.ty(expression) {
        return None;
    }
    let mut inputs = graph.inputs(node).to_vec();
    inputs[1 + at] = chain.x;
    let new = patch.add(graph.op(node).clone(), &inputs);
    let patch = patch.replace(node, new);
    Some(changed.into_iter().fold(patch, |patch, (old, new)| patch.replace(old, new)))
}

/// All that reads a column, of this table or one that passes it on, if these are comparisons only.
fn tests(graph: &Graph, table: Node, name: &String) -> Option<Vec<Test>> {
    let users = Users::of(graph);
    let (mut found, mut seen, mut stack) = (vec![], BTreeSet::from([table]), vec![table]);
    while let Some(table) = stack.pop() {
        for user in users.all(table)? {
            match graph.op(user) {
                Op::Column(column) if column == name => {
                    let readers = users.all(user)?;
                    found.extend(readers.iter().map(|&reader| Test::of(graph, reader)).collect::<Option<Vec<_>>>()?);
                }
                Op::Project { .. } | Op::Aggregate { .. } | Op::Column(_) => {}
                Op::Join { .. } | Op::Product if graph.side_of(user, name) != Some(table) => {}
                // The other tables have values of their own in that column.
                Op::Union { names } if names.contains(name) => return None,
                _ if has_column(graph, user, name) && seen.insert(user) => stack.push(user),
                _ => {}
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quearn_stage::graph::parse;

    fn threshold(steps: &str, test: &str) -> Option<String> {
        let text = format!(
            "v0: {{x: f32}} = rel.scan \"t\"
            v1: [rows(v0)] f32 = bridge.column v0 \"x\"
            v2: f32 = scalar.const 2.0:f32
            {steps}
            v5: f32 = scalar.const 0.5:f32
            v6: [rows(v0)] bool = {test}
            v7: {{x: f32}} = rel.filter v0, v6
            return \"out\" v7"
        );
        let graph = parse(&text).unwrap();
        let predicate = graph.inputs(graph.outputs()[0].1)[1];
        let patch = invert_link(&graph, predicate)?;
        let (op, inputs) = patch.made(patch.replaced()[0].1)?;
        let (constant, _) = patch.made(inputs[1])?;
        let Op::Const(literal) = constant else { return None };
        Some(format!("{} {:?}", op.name(), literal.as_float()? as f32))
    }

    fn unary(op: &str) -> String {
        format!("v4: [rows(v0)] f32 = scalar.{op} v1")
    }

    /// The naive evaluator itself says where the answer turns.
    #[test]
    fn thresholds() {
        let found = |steps: &str, test| threshold(steps, test).unwrap_or_default();
        insta::assert_snapshot!(found(&unary("sigmoid"), "scalar.gt v4, v5"), @"scalar.ge 1.192093e-7");
        insta::assert_snapshot!(found(&unary("sigmoid"), "scalar.lt v5, v4"), @"scalar.ge 1.192093e-7");
        insta::assert_snapshot!(found(&unary("sigmoid"), "scalar.le v4, v5"), @"scalar.le 1.1920929e-7");
        insta::assert_snapshot!(found(&unary("exp"), "scalar.lt v4, v5"), @"scalar.le -0.69314724");
        insta::assert_snapshot!(found(&unary("log"), "scalar.ge v4, v5"), @"scalar.ge 1.6487213");
        insta::assert_snapshot!(found(&unary("relu"), "scalar.lt v4, v5"), @"scalar.le 0.49999997");
        insta::assert_snapshot!(found(&unary("neg"), "scalar.ge v4, v5"), @"scalar.le -0.5");
        let affine = "v3: [rows(v0)] f32 = scalar.mul v1, v2\nv4: [rows(v0)] f32 = scalar.sub v2, v3";
        insta::assert_snapshot!(found(affine, "scalar.gt v4, v5"), @"scalar.le 0.74999994");
    }

    /// Small numbers have no logarithm, and absolute values turn twice.
    #[test]
    fn what_is_not_one_threshold_stays() {
        assert_eq!(threshold(&unary("log"), "scalar.lt v4, v5"), None);
        assert_eq!(threshold(&unary("abs"), "scalar.gt v4, v5"), None);
        assert_eq!(threshold(&unary("sigmoid"), "scalar.gt v4, v2"), None);
        assert_eq!(threshold(&unary("sigmoid"), "scalar.eq v4, v5"), None);
    }

    /// Exhaustive near the threshold: the same answer on either side of it.
    #[test]
    fn answers_turn_at_the_threshold() {
        for scalar in [Scalar::F32, Scalar::F64] {
            for wanted in [-3.75, -1e-30, 0.0, 1e-3, 7.0] {
                let rising = turn(scalar, true, &|x| Some(x >= wanted)).unwrap();
                let falling = turn(scalar, false, &|x| Some(x <= wanted)).unwrap();
                let after = |n| number(ordinal(rising, scalar) + n, scalar);
                assert!(rising >= wanted && after(-1) < wanted, "{rising} {wanted}");
                assert!(falling <= wanted && number(ordinal(falling, scalar) + 1, scalar) > wanted);
            }
        }
    }
}
