//! `filter(project(t, p = f(trees)), p > c)`: what the filter asks of the trees is asked where they run:
//!
//! ```text
//! filter(project(t, p = f(trees)), p > c) = filter(project(t, p = f(select(trees >= s, trees, NaN))), p > c)
//! filter(project(t, p = trees), p > c)    = filter(project(t, p = select(trees >= s, s, NaN)), p > c)       p is read by nobody else
//! ```
//!
//! `f` is a chain of monotone steps, as of [`invert_link`](super::invert_link()), and `s` the float at which `f(x) > c` turns.
//!
//! Reason: a sum of trees of which only the comparison matters is decided long before the last tree, for most rows; those that
//! the filter drops need no score. Lowering stops such trees early.
//!
//! Preconditions: the filter reads the projection directly, and is the only one who does; the trees are read through `f` only, and
//! have one output; there are so many that stopping can pay. With a link function, rows whose score is within a few units in the
//! last place of `c` may be decided otherwise, as by `invert_link`; without one, nothing changes.

use super::invert_link::{Chain, Test, turn};
use crate::rewrite::Patch;
use crate::rewrite::expression::{conjuncts, projected};
use crate::rewrite::users::Users;
use quearn_stage::graph::{CompareOp, Graph, Literal, Node, Op, Scalar};

/// Fewer trees are not stopped.
const TREES: usize = 16;

/// The filter over a projection whose trees know what it asks.
pub fn stop_trees(graph: &Graph, node: Node) -> Option<Patch> {
    if *graph.op(node) != Op::Filter {
        return None;
    }
    let &[table, predicate] = graph.inputs(node) else { return None };
    let Op::Project { names } = graph.op(table) else { return None };
    conjuncts(graph, predicate).into_iter().find_map(|part| {
        let test = Test::of(graph, part)?;
        let (Op::Column(name), true) = (graph.op(test.x), graph.inputs(test.x) == [table]) else { return None };
        let expression = projected(graph, table, name)?;
        let chain = Chain::below(graph, expression)?;
        if !starts_with_trees(graph, &chain) {
            return None;
        }
        let users = Users::of(graph);
        if !users.only_table(table, node) || !is_read_once(graph, &users, &chain, expression, table) {
            return None;
        }
        if chain.holds(&test, f64::NAN)? {
            return None;
        }
        let rises = test.passes_high() == chain.rises;
        let threshold = turn(Scalar::F32, rises, &|value| chain.holds(&test, value))?;
        let is_read = !users.only(test.x, part) || users.reads_column(node, name);
        let mut patch = Patch::new(graph);
        let mut number = |value: f64| Some(patch.add(Op::Const(Literal::float(Scalar::F32, value)?), &[]));
        let [limit, nan] = [number(threshold)?, number(f64::NAN)?];
        let compare = Op::Compare(if rises { CompareOp::Ge } else { CompareOp::Le });
        let passes = patch.add(compare, &[chain.x, limit]);
        let asked = patch.add(Op::Select, &[passes, if is_read { chain.x } else { limit }, nan]);
        let mut last = asked;
        let mut below = chain.x;
        for &step in &chain.steps {
            let inputs: Vec<Node> =
                graph.inputs(step).iter().map(|&input| if input == below { last } else { input }).collect();
            (last, below) = (patch.add(graph.op(step).clone(), &inputs), step);
        }
        let mut inputs = graph.inputs(table).to_vec();
        inputs[1 + names.iter().position(|own| own == name)?] = last;
        let new = patch.add(graph.op(table).clone(), &inputs);
        Some(patch.replace(table, new))
    })
}

/// Does the chain begin with enough trees of one output?
fn starts_with_trees(graph: &Graph, chain: &Chain<'_>) -> bool {
    let mut x = chain.x;
    while let Op::Reshape(_) = graph.op(x) {
        x = graph.inputs(x)[0];
    }
    matches!(graph.op(x), Op::TreeEnsemble(forest) if forest.base.len() == 1 && forest.trees.len() >= TREES)
}

/// Are the trees read by nobody but through the chain?
fn is_read_once(graph: &Graph, users: &Users<'_>, chain: &Chain<'_>, expression: Node, table: Node) -> bool {
    let mut above = vec![table];
    above.extend(chain.steps.iter().rev());
    let values = chain.steps.iter().rev().chain([&chain.x]);
    if !values.zip(&above).all(|(&value, &user)| users.only(value, user)) {
        return false;
    }
    // The only use of it in the projection.
    if graph.inputs(table)[1..].iter().filter(|&&e| e == expression).count() != 1 {
        return false;
    }
    let mut x = chain.x;
    while let Op::Reshape(_) = graph.op(x) {
        let below = graph.inputs(x)[0];
        if !users.only(below, x) {
            return false;
        }
        x = below;
    }
    true
}
