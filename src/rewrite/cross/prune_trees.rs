//! Trees without the branches that no row can take, and features without those that no tree asks for:
//!
//! ```text
//! trees(stack(x, y)) over filter(t, x > 1) = the same with the right side of every split `x <= 1` in its place
//! trees(stack(x, y, z)) = trees(stack(x, z))    where no split asks for y
//! ```
//!
//! Reason: a query asks about a part of the rows that a model was made for. Splits on what the query has fixed always go
//! the same way; what they would have led to is not evaluated, and a column that only stood there is not read.
//!
//! Preconditions: the bound comes from a comparison with a constant (or several, joined by AND and OR) in a filter below,
//! so that NaN is excluded, too. A tree stays where it is among the others, if only as a leaf: the order of the sums, and
//! so every bit of the result, is kept. Whether splits inside a tree repeat what a split above them has decided is looked
//! at as well.

use crate::rewrite::Patch;
use crate::rewrite::expression::projected;
use quearn_stage::graph::{
    BinaryOp, CompareOp, Forest, Graph, Literal, Node, Op, Scalar, Split, Step, Tree, TreeNode, TreeWriter,
};
use std::collections::BTreeMap;

/// Deeper trees are left as they are.
const MOST_LEVELS: u32 = 512;

/// The trees without what no row needs.
pub fn prune_trees(graph: &Graph, node: Node) -> Option<Patch> {
    let Op::TreeEnsemble(forest) = graph.op(node) else { return None };
    let x = graph.inputs(node)[0];
    let columns = (*graph.op(x) == Op::Stack && graph.ty(x).as_tensor()?.1.len() == 2).then(|| graph.inputs(x));
    let range = |feature: u32| columns.map_or(Range::ANY, |columns| Range::of(graph, columns[feature as usize]));
    let known: BTreeMap<u32, Range> = forest.used().into_iter().map(|feature| (feature, range(feature))).collect();
    let trees = forest.trees.iter().map(|tree| pruned(tree, &known)).collect();
    let mut new = Forest { trees, ..Forest::clone(forest) };
    let mut patch = Patch::new(graph);
    let mut input = x;
    if let Some(columns) = columns
        && let Some(kept) = fewer(&new)
    {
        let columns: Vec<Node> = kept.iter().map(|&feature| columns[feature as usize]).collect();
        input = patch.add(Op::Stack, &columns);
        new = renumbered(&new, &kept);
    }
    if new == **forest {
        return None;
    }
    let new = patch.add(Op::TreeEnsemble(new.into()), &[input]);
    Some(patch.replace(node, new))
}

/// The features that stay, one at least, if others do not.
fn fewer(forest: &Forest) -> Option<Vec<u32>> {
    let mut used = forest.used();
    if used.is_empty() {
        used.push(0);
    }
    (used.len() < forest.features as usize).then_some(used)
}

fn renumbered(forest: &Forest, kept: &[u32]) -> Forest {
    let feature = |split: &Split| kept.binary_search(&split.feature).unwrap_or(0) as u32;
    let rewritten = |tree: &Tree| {
        let steps = tree.nodes().iter().map(|node| match node {
            TreeNode::Split { split, .. } => Step::Split(Split { feature: feature(split), ..*split }),
            TreeNode::Leaf(value) => Step::Leaf(value.get()),
        });
        Tree::new(tree.output, steps).unwrap_or_else(|| tree.clone())
    };
    let trees = forest.trees.iter().map(rewritten).collect();
    Forest { features: kept.len() as u32, base: forest.base.clone(), trees }
}

/// The values that an expression can have.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Range {
    low: f64,
    high: f64,
    /// May it be NaN?
    nan: bool,
}

impl Range {
    const ANY: Range = Range { low: f64::NEG_INFINITY, high: f64::INFINITY, nan: true };

    fn and(self, other: Range) -> Range {
        Range { low: self.low.max(other.low), high: self.high.min(other.high), nan: self.nan && other.nan }
    }

    fn or(self, other: Range) -> Range {
        Range { low: self.low.min(other.low), high: self.high.max(other.high), nan: self.nan || other.nan }
    }

    /// The range of a row expression: of a column, or of one converted without loss.
    fn of(graph: &Graph, expression: Node) -> Range {
        match graph.op(expression) {
            Op::Column(name) => Range::of_column(graph, graph.inputs(expression)[0], name),
            Op::Cast(Scalar::F32) => Range::of(graph, graph.inputs(expression)[0]).rounded(),
            _ => Range::ANY,
        }
    }

    /// Conversion to f32 keeps the order, so it keeps bounds.
    fn rounded(self) -> Range {
        let exact = |bound: f64| !bound.is_finite() || f64::from(bound as f32) == bound;
        let bound = |value: f64, other: f64| if exact(value) { value } else { other };
        Range { low: bound(self.low, f64::NEG_INFINITY), high: bound(self.high, f64::INFINITY), ..self }
    }

    fn of_column(graph: &Graph, table: Node, name: &str) -> Range {
        let inputs = graph.inputs(table);
        match graph.op(table) {
            Op::Filter => {
                Range::where_true(graph, inputs[1], inputs[0], name).and(Range::of_column(graph, inputs[0], name))
            }
            Op::Sort(_) | Op::Limit { .. } => Range::of_column(graph, inputs[0], name),
            Op::Join { .. } | Op::Product => {
                graph.side_of(table, name).map_or(Range::ANY, |side| Range::of_column(graph, side, name))
            }
            Op::Project { .. } => projected(graph, table, name).map_or(Range::ANY, |e| Range::of(graph, e)),
            _ => Range::ANY,
        }
    }

    /// The range of a column in the rows for which a predicate is true.
    fn where_true(graph: &Graph, predicate: Node, table: Node, name: &str) -> Range {
        let inputs = graph.inputs(predicate);
        match graph.op(predicate) {
            Op::Binary(op @ (BinaryOp::And | BinaryOp::Or)) => {
                let [a, b] = [inputs[0], inputs[1]].map(|part| Range::where_true(graph, part, table, name));
                if *op == BinaryOp::And { a.and(b) } else { a.or(b) }
            }
            Op::Compare(op) => {
                let is_it = |n: Node| *graph.op(n) == Op::Column(name.to_owned()) && graph.inputs(n) == [table];
                let bound = |n: Node| if let Op::Const(literal) = graph.op(n) { number(literal) } else { None };
                match (is_it(inputs[0]), bound(inputs[1]), bound(inputs[0]), is_it(inputs[1])) {
                    (true, Some(c), ..) => Range::compared(*op, c),
                    (.., Some(c), true) => Range::compared(op.flipped(), c),
                    _ => Range::ANY,
                }
            }
            _ => Range::ANY,
        }
    }

    fn compared(op: CompareOp, c: f64) -> Range {
        let (low, high) = match op {
            CompareOp::Eq => (c, c),
            CompareOp::Lt => (f64::NEG_INFINITY, c.next_down()),
            CompareOp::Le => (f64::NEG_INFINITY, c),
            CompareOp::Gt => (c.next_up(), f64::INFINITY),
            CompareOp::Ge => (c, f64::INFINITY),
            CompareOp::Ne => return Range::ANY,
        };
        Range { low, high, nan: false }
    }

    /// Where all of the values go at a split; `None` if they part.
    fn side(self, split: &Split) -> Option<Side> {
        let limit = f64::from(split.limit.get());
        if self.high <= limit && (!self.nan || split.nan_left) {
            return Some(Side::Left);
        }
        (self.low > limit && !(self.nan && split.nan_left)).then_some(Side::Right)
    }

    /// Those of the values that go to one side.
    fn on(self, side: Side, split: &Split) -> Range {
        let limit = f64::from(split.limit.get());
        match side {
            Side::Left => Range { high: self.high.min(limit), nan: self.nan && split.nan_left, ..self },
            Side::Right => Range { low: self.low.max(limit.next_up()), nan: self.nan && !split.nan_left, ..self },
        }
    }
}

/// A constant whose comparison is one of exact numbers.
fn number(literal: &Literal) -> Option<f64> {
    const EXACT: i128 = 1 << 24;
    match literal.as_float() {
        Some(value) => (!value.is_nan()).then_some(value),
        None if literal.scalar().is_int() => literal.as_int().filter(|i| i.abs() <= EXACT).map(|i| i as f64),
        None => None,
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Side {
    Left,
    Right,
}

fn pruned(tree: &Tree, known: &BTreeMap<u32, Range>) -> Tree {
    if tree.depth() > MOST_LEVELS {
        return tree.clone();
    }
    let mut writer = TreeWriter::default();
    steps(tree, 0, &mut known.clone()).into_iter().for_each(|step| writer.push(step));
    writer.finish(tree.output).unwrap_or_else(|| tree.clone())
}

/// What is left of the tree below a node, where features have these ranges.
fn steps(tree: &Tree, at: usize, known: &mut BTreeMap<u32, Range>) -> Vec<Step> {
    let (split, right) = match &tree.nodes()[at] {
        TreeNode::Leaf(value) => return vec![Step::Leaf(value.get())],
        TreeNode::Split { split, right } => (split, *right as usize),
    };
    let range = known.get(&split.feature).copied().unwrap_or(Range::ANY);
    match range.side(split) {
        Some(Side::Left) => return steps(tree, at + 1, known),
        Some(Side::Right) => return steps(tree, right, known),
        None => {}
    }
    let mut below = |side, at| {
        known.insert(split.feature, range.on(side, split));
        steps(tree, at, known)
    };
    let (left, right) = (below(Side::Left, at + 1), below(Side::Right, right));
    known.insert(split.feature, range);
    match (&left[..], &right[..]) {
        ([Step::Leaf(a)], [Step::Leaf(b)]) if a.to_bits() == b.to_bits() => left,
        _ => std::iter::once(Step::Split(*split)).chain(left).chain(right).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quearn_stage::graph::parse;

    fn after(predicate: &str, trees: &str) -> String {
        let text = format!(
            "v0: {{x: f32, y: f32, z: f32}} = rel.scan \"t\"
            v1: [rows(v0)] f32 = bridge.column v0 \"x\"
            v2: f32 = scalar.const 1.0:f32
            v3: [rows(v0)] bool = {predicate}
            v4: {{x: f32, y: f32, z: f32}} = rel.filter v0, v3
            v5: [rows(v4)] f32 = bridge.column v4 \"x\"
            v6: [rows(v4)] f32 = bridge.column v4 \"y\"
            v7: [rows(v4)] f32 = bridge.column v4 \"z\"
            v8: [rows(v4), 3] f32 = bridge.stack v5, v6, v7
            v9: [rows(v4), 1] f32 = tensor.tree_ensemble v8 features 3 base [0.0] trees [{trees}]
            v10: {{p: f32[1]}} over rows(v4) = rel.project v4, v9 as [\"p\"]
            return \"out\" v10"
        );
        let graph = parse(&text).unwrap();
        let node = graph.inputs(graph.outputs()[0].1)[1];
        let Some(patch) = prune_trees(&graph, node) else { return "as it is".to_owned() };
        let (Op::TreeEnsemble(forest), inputs) = patch.made(patch.replaced()[0].1).unwrap() else { panic!("no trees") };
        let features = patch.made(inputs[0]).map_or_else(|| graph.inputs(inputs[0]), |(_, inputs)| inputs);
        format!("{features:?} {forest}")
    }

    #[test]
    fn branches_that_no_row_takes() {
        let trees = "0: x0 <= 1.0 x1 <= 0.0 1.0 2.0 x2 <= 0.0 3.0 4.0";
        insta::assert_snapshot!(after("scalar.gt v1, v2", trees), @"[v7] features 1 base [0.0] trees [0: x0 <= 0.0 3.0 4.0]");
        insta::assert_snapshot!(after("scalar.le v1, v2", trees), @"[v6] features 1 base [0.0] trees [0: x0 <= 0.0 1.0 2.0]");
        insta::assert_snapshot!(after("scalar.ge v1, v2", trees), @"as it is");
        insta::assert_snapshot!(after("scalar.ne v1, v2", trees), @"as it is");
        insta::assert_snapshot!(after("scalar.lt v2, v1", "0: x0 <= 0.0 1.0 2.0"), @"[v5] features 1 base [0.0] trees [0: 2.0]");
    }

    /// NaN goes right, so that knowing that a row went right says less of it than that it went left.
    #[test]
    fn splits_that_repeat_others() {
        let ne = "scalar.ne v1, v2";
        let repeated = "0: x1 <= 1.0 x1 <= 2.0 x2 <= 0.0 1.0 2.0 3.0 x1 <= 0.5 4.0 x0 <= 0.0 5.0 6.0";
        insta::assert_snapshot!(after(ne, repeated), @"[v5, v6, v7] features 3 base [0.0] trees [0: x1 <= 1.0 x2 <= 0.0 1.0 2.0 x0 <= 0.0 5.0 6.0]");
        let nan_left = "0: x0 <= 1.0 x2 <= 0.0 4.0 5.0 x0 <=? 0.5 1.0 x1 <= 0.0 2.0 3.0";
        insta::assert_snapshot!(after(ne, nan_left), @"as it is");
        insta::assert_snapshot!(after(ne, "0: x0 <= 1.0 2.0 x1 <= 0.0 x2 <= 0.0 3.0 3.0 3.0"), @"[v5] features 1 base [0.0] trees [0: x0 <= 1.0 2.0 3.0]");
    }
}
