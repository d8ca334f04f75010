//! Products that sum over the rows of a join are sums over its sides. With `f` the rows of a fact table that have a
//! partner in every dimension, `d` a dimension, `n` and `s` the number of the rows of `f` and the sums of their columns for
//! each key of `d`:
//!
//! ```text
//! transpose(x) y over join(f, d, ..) =
//!     transpose(x) y over f                                  x, y columns of f
//!     transpose(x) s(y) over join(group(f, key of d), d)     x of d; y of f, or of another dimension joined with f before
//!     transpose(x) (n y) over join(group(f, key of d), d)    x, y of d
//! ```
//!
//! and what has x and y exchanged, side by side.
//!
//! Reason: a row of a dimension is multiplied once, and not as often as it occurs in the join, which is never made. This is
//! factorised learning (Schleich, Olteanu, Ciucanu, "Learning linear regression models over factorized joins", SIGMOD 2016):
//! a regression, or its gradient, needs nothing of the rows but such products.
//!
//! Preconditions: inner joins without residual, on keys that are unique in the dimension (a fact about its table); every
//! column depends on one side only; no column and no key can fail, since they are now computed for rows that the join
//! would have dropped. It is done where an estimate says that it is less work. Sums are made in another order, those of f32
//! as f64, so that results are equal up to rounding.

mod blocks;

use super::star::{Side, Star};
use crate::rewrite::{Known, Patch};
use blocks::Blocks;
use quearn_stage::graph::fails::any_can_fail;
use quearn_stage::graph::{Graph, Node, Op, Scalar};

/// Products of a block of rows that take as long as one addition to the sums of a group, or the look-up of a value.
const PRODUCTS_A_STEP: f64 = 8.0;

/// The product made of products over the sides of a join.
pub fn factorise_products(known: &Known<'_>, node: Node) -> Option<Patch> {
    let (x, y) = operands(known.graph, node)?;
    let plan = Plan::of(known, x, y)?;
    if plan.work(known) >= plan.work_on_join(known) {
        return None;
    }
    let mut patch = Patch::new(known.graph);
    let result = Blocks::new(plan, &mut patch)?.result(&mut patch);
    Some(patch.replace(node, result))
}

/// `x` and `y` of a product `transpose(x) y`, which stack columns of rows.
fn operands(graph: &Graph, node: Node) -> Option<(Node, Node)> {
    let inputs = graph.inputs(node);
    if *graph.op(node) != Op::MatMul {
        return None;
    }
    let Op::Transpose(axes) = graph.op(inputs[0]) else { return None };
    let (x, y) = (graph.inputs(inputs[0])[0], inputs[1]);
    let is_stack = |node| *graph.op(node) == Op::Stack && graph.ty(node).as_tensor().is_some_and(|(_, s)| s.len() == 2);
    (axes[..] == [1, 0] && is_stack(x) && is_stack(y)).then_some((x, y))
}

/// A column of `x` or `y`.
struct Column {
    node: Node,
    side: Side,
}

/// What is summed up where.
struct Plan<'a> {
    star: Star<'a>,
    scalar: Scalar,
    /// Those of `x` and `y`, each once.
    columns: Vec<Column>,
    /// Which ones stand side by side in the operands.
    operands: [Vec<usize>; 2],
    /// For each dimension, the other sides whose columns are summed up by its key.
    sums: Vec<Vec<Side>>,
}

impl<'a> Plan<'a> {
    fn of(known: &Known<'a>, x: Node, y: Node) -> Option<Plan<'a>> {
        let graph = known.graph;
        let (elem, shape) = graph.ty(x).as_tensor()?;
        let scalar = Some(elem.scalar).filter(|s| matches!(s, Scalar::F32 | Scalar::F64))?;
        let star = Star::of(known, &shape[0])?;
        let (mut columns, mut operands) = (Vec::<Column>::new(), [vec![], vec![]]);
        for (operand, found) in [x, y].into_iter().zip(&mut operands) {
            for &node in graph.inputs(operand) {
                let at = columns.iter().position(|column| column.node == node).unwrap_or(columns.len());
                if at == columns.len() {
                    let sides = star.sides(node)?;
                    let side = sides.first().copied().unwrap_or(0);
                    columns.push(Column { node, side });
                    if sides.len() > 1 {
                        return None;
                    }
                }
                found.push(at);
            }
        }
        let mut plan = Plan { star, scalar, columns, operands, sums: vec![] };
        if plan.is_pointless(known) || plan.can_fail(graph) {
            return None;
        }
        plan.sums = plan.choose_sums(known);
        Some(plan)
    }

    /// Are the rows one for each key already, or does no dimension have a column?
    fn is_pointless(&self, known: &Known<'_>) -> bool {
        let one_for_each = |dimension: &super::star::Dimension| {
            let left = known.graph.inputs(dimension.join)[0];
            known.facts.are_unique(left, &dimension.partners)
        };
        self.columns.iter().all(|column| column.side == 0) || self.star.dimensions.iter().any(one_for_each)
    }

    fn can_fail(&self, graph: &Graph) -> bool {
        let keys = self.star.dimensions.iter().flat_map(|d| d.keys.iter().chain(&d.partners));
        let all: Vec<Node> = self.columns.iter().map(|column| column.node).chain(keys.copied()).collect();
        any_can_fail(graph, &all)
    }

    /// Places of a side's columns in an operand.
    fn places(&self, operand: usize, side: Side) -> impl Iterator<Item = usize> + '_ {
        let is_it = move |place: &usize| self.columns[self.operands[operand][*place]].side == side;
        (0..self.operands[operand].len()).filter(is_it)
    }

    /// Number of a side's columns.
    fn count(&self, side: Side) -> f64 {
        self.columns.iter().filter(|column| column.side == side).count() as f64
    }

    fn is_multiplied(&self, a: Side, b: Side) -> bool {
        let has = |operand, side| self.places(operand, side).next().is_some();
        has(0, a) && has(1, b) || has(0, b) && has(1, a)
    }

    /// Of two dimensions, the columns of one are summed up by the key of the other: which way is less work?
    fn choose_sums(&self, known: &Known<'_>) -> Vec<Vec<Side>> {
        let dimensions = 1..=self.star.dimensions.len();
        let work = |key: Side, summed: Side| {
            let sums = 2.0 * self.rows(known) * self.count(summed);
            sums + self.groups(known, key) * self.count(key) * self.count(summed) / PRODUCTS_A_STEP
        };
        let sums = |key: Side| {
            let others = dimensions.clone().filter(|&other| other != key && self.is_multiplied(key, other));
            let mine = others.filter(|&other| {
                let (mine, theirs) = (work(key, other), work(other, key));
                mine < theirs || mine == theirs && key < other
            });
            std::iter::once(0).filter(|&fact| self.is_multiplied(key, fact)).chain(mine).collect()
        };
        dimensions.clone().map(sums).collect()
    }

    /// Rows of the join.
    fn rows(&self, known: &Known<'_>) -> f64 {
        known.estimate.rows(self.star.dimensions[0].join)
    }

    /// Different keys of a dimension among the rows of the join.
    fn groups(&self, known: &Known<'_>, key: Side) -> f64 {
        known.estimate.rows(self.star.table(key)).min(self.rows(known))
    }

    /// Products of some columns with some columns, in steps.
    fn products(&self, x: f64, y: f64) -> f64 {
        x * y / PRODUCTS_A_STEP
    }

    fn work_on_join(&self, known: &Known<'_>) -> f64 {
        let [x, y] = [0, 1].map(|operand: usize| self.operands[operand].len() as f64);
        let half = if self.is_symmetric() { 0.5 } else { 1.0 };
        self.rows(known) * (self.columns.len() as f64 + half * self.products(x, y))
    }

    fn work(&self, known: &Known<'_>) -> f64 {
        let rows = self.rows(known);
        let of_facts = self.count(0) + self.products(self.count(0), self.count(0));
        let of_dimension = |(key, sums): (Side, &Vec<Side>)| {
            let own = self.count(key);
            if own == 0.0 {
                return 0.0;
            }
            let looked_up: f64 = sums.iter().map(|&side| self.count(side)).sum();
            let all = own + looked_up;
            let by_row = 2.0 + 2.0 * looked_up;
            rows * by_row + self.groups(known, key) * (all + self.products(own, all))
        };
        rows * of_facts + (1..).zip(&self.sums).map(of_dimension).sum::<f64>()
    }

    /// Are both operands the same?
    fn is_symmetric(&self) -> bool {
        self.operands[0] == self.operands[1]
    }
}
