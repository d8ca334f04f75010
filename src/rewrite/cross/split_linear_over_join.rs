//! A linear layer of columns of a join is a sum of linear layers of its sides. With `w` in rows as `x` and `y` are columns:
//!
//! ```text
//! [x, y] w over join(f, d) = x w_x + z over join(f, project(d, .. z = y w_y))     x of f, y of d
//! ```
//!
//! Reason: the features of a dimension are multiplied once for each of its rows, and not as often as these occur in the
//! join, which then brings as many columns as the layer has outputs in the place of all the features: one for a regression.
//! Morpheus (Chen et al., "Towards linear algebra over normalized data", VLDB 2017) calls it a factorised product.
//!
//! Preconditions: inner joins without residual, on keys that are unique in the dimension (a fact about its table); `w` is
//! a weight; a column that moves depends on the dimension only and cannot fail, since it is now computed for rows that
//! nobody joins. It is done where an estimate says that it is less work. Sums are made in another order, so that results
//! are equal up to rounding.

use super::star::{Side, Star};
use super::weights::chosen_rows;
use crate::rewrite::expression::{is_weight, rows_of};
use crate::rewrite::rows::Transport;
use crate::rewrite::{Known, Patch};
use quearn_stage::graph::fails::any_can_fail;
use quearn_stage::graph::{BinaryOp, Dim, Graph, JoinKind, Node, Op};

/// Products of a layer that take as long as the look-up of a value.
const PRODUCTS_A_STEP: f64 = 8.0;
/// Outputs for which a join may bring columns.
const MOST_OUTPUTS: u64 = 64;

/// The layer as a sum, over a join that brings what dimensions add.
pub fn split_linear_over_join(known: &Known<'_>, node: Node) -> Option<Patch> {
    let layer = Layer::of(known, node)?;
    let moved: Vec<Side> = (1..=layer.star.dimensions.len()).filter(|&side| layer.pays(known, side)).collect();
    if moved.is_empty() {
        return None;
    }
    let mut patch = Patch::new(known.graph);
    let top = layer.star.dimensions[0].join;
    let mut split = Split { layer, moved, graph: known.graph };
    let joined = split.table(&mut patch, top)?;
    let fields = known.graph.ty(top).as_table()?.0;
    let columns = fields.iter().map(|field| patch.add(Op::Column(field.name.clone()), &[joined.node]));
    let inputs: Vec<Node> = std::iter::once(joined.node).chain(columns.collect::<Vec<_>>()).collect();
    let names = fields.iter().map(|field| field.name.clone()).collect();
    let same = patch.add(Op::Project { names }, &inputs);
    let sum = split.sum(&mut patch, &joined);
    Some(patch.replace(top, same).replace(node, sum))
}

/// A product of stacked columns with weights.
struct Layer<'a> {
    star: Star<'a>,
    columns: Vec<Node>,
    /// The side that each column depends on alone.
    sides: Vec<Option<Side>>,
    weights: Node,
    outputs: u64,
}

impl<'a> Layer<'a> {
    fn of(known: &Known<'a>, node: Node) -> Option<Layer<'a>> {
        let graph = known.graph;
        let &[stack, weights] = graph.inputs(node) else { return None };
        let (_, shape) = graph.ty(node).as_tensor()?;
        let [rows, outputs] = shape else { return None };
        let outputs = outputs.as_const().filter(|outputs| *outputs <= MOST_OUTPUTS)?;
        let is_layer = *graph.op(node) == Op::MatMul && *graph.op(stack) == Op::Stack && is_weight(graph, weights);
        let is_matrix = graph.ty(weights).as_tensor().is_some_and(|(_, shape)| shape.len() == 2);
        if !is_layer || !is_matrix {
            return None;
        }
        let star = Star::of(known, rows)?;
        let columns = graph.inputs(stack).to_vec();
        let side = |&column: &Node| {
            let sides = star.sides(column).filter(|sides| sides.len() == 1);
            sides.and_then(|sides| sides.first().copied())
        };
        let sides = columns.iter().map(side).collect();
        Some(Layer { star, columns, sides, weights, outputs })
    }

    fn places(&self, side: Side) -> Vec<usize> {
        (0..self.columns.len()).filter(|&at| self.sides[at] == Some(side)).collect()
    }

    /// Is it less work to multiply a dimension's columns before the join?
    fn pays(&self, known: &Known<'_>, side: Side) -> bool {
        let places = self.places(side);
        let columns: Vec<Node> = places.iter().map(|&at| self.columns[at]).collect();
        if columns.is_empty() || any_can_fail(known.graph, &columns) {
            return false;
        }
        let rows = known.estimate.rows(self.star.dimensions[0].join);
        let own = known.estimate.rows(self.star.table(side));
        let (inputs, outputs) = (columns.len() as f64, self.outputs as f64);
        let layer = inputs + inputs * outputs / PRODUCTS_A_STEP;
        rows * outputs + own * (layer + outputs) < rows * layer
    }
}

/// A table in its new form.
#[derive(Clone)]
struct Joined {
    node: Node,
    rows: Dim,
    /// Names of the columns that dimensions add, for each output of the layer.
    added: Vec<Vec<String>>,
}

struct Split<'a> {
    layer: Layer<'a>,
    /// Sides whose columns are multiplied before the join.
    moved: Vec<Side>,
    graph: &'a Graph,
}

impl Split<'_> {
    /// A table of the star, from the fact table up, with what its dimensions add.
    fn table(&mut self, patch: &mut Patch, table: Node) -> Option<Joined> {
        if table == self.layer.star.fact {
            return Some(Joined { node: table, rows: rows_of(self.graph, table)?.clone(), added: vec![] });
        }
        let inputs = self.graph.inputs(table);
        let below = self.table(patch, inputs[0])?;
        let mut transport = Transport::to_table(self.graph, inputs[0], below.node, below.rows.clone());
        let mut moved = |patch: &mut Patch, expressions: &[Node]| match &mut transport {
            Some(transport) => transport.expressions(patch, expressions),
            None => None,
        };
        match self.graph.op(table) {
            Op::Project { names } => {
                let mut expressions = moved(patch, &inputs[1..])?;
                let added: Vec<&String> = below.added.iter().flatten().collect();
                expressions.extend(added.iter().map(|name| patch.add(Op::Column((*name).clone()), &[below.node])));
                let names = names.iter().chain(added).cloned().collect();
                let inputs: Vec<Node> = std::iter::once(below.node).chain(expressions).collect();
                let node = patch.add(Op::Project { names }, &inputs);
                Some(Joined { node, ..below })
            }
            _ => {
                let at = self.layer.star.dimensions.iter().position(|dimension| dimension.join == table)?;
                let partners = moved(patch, &self.layer.star.dimensions[at].partners)?;
                self.join(patch, below, at + 1, partners)
            }
        }
    }

    fn join(&mut self, patch: &mut Patch, left: Joined, side: Side, partners: Vec<Node>) -> Option<Joined> {
        let dimension = self.layer.star.dimensions[side - 1].clone();
        let (right, names) = match self.moved.contains(&side) {
            true => self.dimension(patch, side)?,
            false => (dimension.table, vec![]),
        };
        // A key that is a column must be one of the table that is joined: by its name it comes out once.
        let key = |patch: &mut Patch, key: Node| match self.graph.op(key) {
            Op::Column(name) if self.graph.inputs(key)[0] == dimension.table => {
                patch.add(Op::Column(name.clone()), &[right])
            }
            _ => key,
        };
        let keys: Vec<Node> = dimension.keys.iter().map(|&own| key(patch, own)).collect();
        let inputs: Vec<Node> = [left.node, right].into_iter().chain(partners).chain(keys.iter().copied()).collect();
        let node = patch.add(Op::Join { kind: JoinKind::Inner, keys: keys.len() }, &inputs);
        let mut added = left.added;
        if !names.is_empty() {
            added.push(names);
        }
        Some(Joined { node, rows: Dim::Rows(node), added })
    }

    /// A dimension with what its columns give in the layer, and the names of that.
    fn dimension(&mut self, patch: &mut Patch, side: Side) -> Option<(Node, Vec<String>)> {
        let table = self.layer.star.table(side);
        let (fields, rows) = self.graph.ty(table).as_table()?;
        let places = self.layer.places(side);
        let columns = places.iter().map(|&at| self.layer.star.moved(patch, self.layer.columns[at]));
        let columns: Vec<Node> = columns.collect::<Option<_>>()?;
        let all = self.product(patch, &columns, &places);
        let mut names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
        let mut inputs = vec![table];
        inputs.extend(names.iter().map(|name| patch.add(Op::Column(name.clone()), &[table])));
        let added: Vec<String> = (0..self.layer.outputs).map(|at| self.fresh(side, at)).collect();
        for at in 0..self.layer.outputs {
            let one = match self.layer.outputs {
                1 => all,
                _ => patch.add(Op::Slice { axis: 1, start: at, step: 1, count: 1 }, &[all]),
            };
            inputs.push(patch.add(Op::Reshape(vec![rows.clone()]), &[one]));
        }
        names.extend(added.iter().cloned());
        Some((patch.add(Op::Project { names }, &inputs), added))
    }

    /// A name that no column of the star has: that of the layer's node comes from the numbers of nodes.
    fn fresh(&self, side: Side, output: u64) -> String {
        let star = &self.layer.star;
        let tables = std::iter::once(star.fact).chain(star.dimensions.iter().flat_map(|d| [d.table, d.join]));
        let taken: Vec<&str> = tables
            .filter_map(|table| self.graph.ty(table).as_table())
            .flat_map(|(fields, _)| fields.iter().map(|field| field.name.as_str()))
            .collect();
        let name = |number: usize| format!("z{number}_{side}_{output}");
        let free = (0..).map(name).find(|name| !taken.contains(&name.as_str()));
        free.expect("there are more numbers than columns")
    }

    /// Columns times their rows of the weights.
    fn product(&self, patch: &mut Patch, columns: &[Node], places: &[usize]) -> Node {
        let weights = chosen_rows(patch, self.layer.weights, places);
        let stack = patch.add(Op::Stack, columns);
        patch.add(Op::MatMul, &[stack, weights])
    }

    /// The layer of the columns that stay, and what the dimensions add.
    fn sum(&self, patch: &mut Patch, joined: &Joined) -> Node {
        let column = |patch: &mut Patch, name: &String| patch.add(Op::Column(name.clone()), &[joined.node]);
        let mut outputs = vec![];
        for at in 0..self.layer.outputs as usize {
            let parts: Vec<Node> = joined.added.iter().map(|names| column(patch, &names[at])).collect();
            let sum = parts.into_iter().reduce(|sum, part| patch.add(Op::Binary(BinaryOp::Add), &[sum, part]));
            outputs.extend(sum);
        }
        let added = patch.add(Op::Stack, &outputs);
        let stays = |at: &usize| !self.layer.sides[*at].is_some_and(|side| self.moved.contains(&side));
        let places: Vec<usize> = (0..self.layer.columns.len()).filter(stays).collect();
        if places.is_empty() {
            return added;
        }
        let columns: Vec<Node> = places.iter().map(|&at| self.layer.columns[at]).collect();
        let own = self.product(patch, &columns, &places);
        patch.add(Op::Binary(BinaryOp::Add), &[own, added])
    }
}
