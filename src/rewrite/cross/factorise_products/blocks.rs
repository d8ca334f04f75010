//! The products over the sides of a join, and the whole product put together of them.

use super::{Plan, Side};
use crate::rewrite::Patch;
use quearn_stage::graph::{Aggregate, AggregateOp, BinaryOp, JoinKind, Node, Op, Scalar};

const ROWS: usize = 0;
const COLUMNS: usize = 1;
/// How many rows a group has.
const COUNT: &str = "n";

/// The sides as tables with names that differ, and the products over them.
pub struct Blocks<'a> {
    plan: Plan<'a>,
    /// Keys and columns of each side.
    tables: Vec<Node>,
}

/// The product that holds those of two sides.
struct Block {
    x: Side,
    y: Side,
    node: Node,
}

fn column(patch: &mut Patch, table: Node, name: String) -> Node {
    patch.add(Op::Column(name), &[table])
}

fn value(at: usize) -> String {
    format!("c{at}")
}

/// What rows of the fact table have as a part of the key of a dimension.
fn partner(dimension: Side, part: usize) -> String {
    format!("k{dimension}_{part}")
}

/// A part of the key of a dimension in its own rows.
fn key(dimension: Side, part: usize) -> String {
    format!("d{dimension}_{part}")
}

impl<'a> Blocks<'a> {
    /// The sides as tables of what is needed of them.
    pub fn new(mut plan: Plan<'a>, patch: &mut Patch) -> Option<Blocks<'a>> {
        let sides = 0..=plan.star.dimensions.len();
        let tables = sides.map(|side| side_table(&mut plan, patch, side)).collect::<Option<_>>()?;
        Some(Blocks { plan, tables })
    }

    /// The product, with rows and columns in their order.
    pub fn result(&self, patch: &mut Patch) -> Node {
        let blocks = self.blocks(patch);
        let sides = |operand| (0..self.tables.len()).filter(move |&side| !self.places(operand, side).is_empty());
        let block = |x: Side, y: Side| blocks.iter().find(|block| block.x == x && block.y == y).map(|block| block.node);
        let rows = sides(0).map(|x| joined(patch, &sides(1).filter_map(|y| block(x, y)).collect::<Vec<_>>(), COLUMNS));
        let rows: Vec<Node> = rows.collect();
        let all = joined(patch, &rows, ROWS);
        let places = |operand| sides(operand).flat_map(|side| self.places(operand, side)).collect::<Vec<_>>();
        let all = ordered(patch, all, ROWS, &places(0));
        ordered(patch, all, COLUMNS, &places(1))
    }

    fn places(&self, operand: usize, side: Side) -> Vec<usize> {
        self.plan.places(operand, side).collect()
    }

    /// A side's columns in an operand.
    fn columns(&self, operand: usize, side: Side) -> Vec<usize> {
        self.plan.places(operand, side).map(|place| self.plan.operands[operand][place]).collect()
    }

    fn blocks(&self, patch: &mut Patch) -> Vec<Block> {
        let mut blocks = vec![];
        if self.plan.is_multiplied(0, 0) {
            let table = self.facts(patch, None);
            let [x, y] = [0, 1].map(|operand| self.columns(operand, 0));
            let [x, y] = [x, y].map(|columns| values(patch, table, &columns));
            let node = product(patch, &x, &y);
            blocks.push(Block { x: 0, y: 0, node });
        }
        for dimension in 1..self.tables.len() {
            if [0, 1].iter().any(|operand| !self.columns(*operand, dimension).is_empty()) {
                self.of_dimension(patch, dimension, &mut blocks);
            }
        }
        blocks
    }

    /// Products over the rows of a dimension: of its columns with its own and with sums of others.
    fn of_dimension(&self, patch: &mut Patch, dimension: Side, blocks: &mut Vec<Block>) {
        let sums = &self.plan.sums[dimension - 1];
        let table = self.by_key(patch, dimension);
        let [x, y] = [0, 1].map(|operand| values(patch, table, &self.columns(operand, dimension)));
        let weighted: Vec<Node> = y.iter().map(|&y| self.weighted(patch, table, y)).collect();
        // The others' columns of an operand, with the counts where they belong, and where each side's begin.
        let mut right = vec![(dimension, weighted)];
        right.extend(sums.iter().map(|&side| (side, self.sums(patch, table, 1, side))));
        let right = right.into_iter().filter(|(_, columns)| !columns.is_empty()).collect::<Vec<_>>();
        let mirrored = self.plan.is_symmetric();
        if !x.is_empty() && !right.is_empty() {
            let all: Vec<Node> = right.iter().flat_map(|(_, columns)| columns.clone()).collect();
            let whole = product(patch, &x, &all);
            for (side, node) in parts(patch, whole, COLUMNS, &right) {
                blocks.push(Block { x: dimension, y: side, node });
                if mirrored && side != dimension {
                    let node = patch.add(Op::Transpose(vec![1, 0]), &[node]);
                    blocks.push(Block { x: side, y: dimension, node });
                }
            }
        }
        if mirrored || y.is_empty() {
            return;
        }
        let left = sums.iter().map(|&side| (side, self.sums(patch, table, 0, side)));
        let left = left.filter(|(_, columns)| !columns.is_empty()).collect::<Vec<_>>();
        if !left.is_empty() {
            let all: Vec<Node> = left.iter().flat_map(|(_, columns)| columns.clone()).collect();
            let whole = product(patch, &all, &y);
            let found = parts(patch, whole, ROWS, &left);
            blocks.extend(found.into_iter().map(|(side, node)| Block { x: side, y: dimension, node }));
        }
    }

    /// A value of a dimension as often as it occurs.
    fn weighted(&self, patch: &mut Patch, table: Node, value: Node) -> Node {
        let count = column(patch, table, COUNT.to_owned());
        let count = patch.add(Op::Cast(self.plan.scalar), &[count]);
        patch.add(Op::Binary(BinaryOp::Mul), &[count, value])
    }

    /// Sums of a side's columns in an operand.
    fn sums(&self, patch: &mut Patch, table: Node, operand: usize, side: Side) -> Vec<Node> {
        let sums = values(patch, table, &self.columns(operand, side));
        match self.plan.scalar {
            Scalar::F64 => sums,
            scalar => sums.into_iter().map(|sum| patch.add(Op::Cast(scalar), &[sum])).collect(),
        }
    }

    /// Rows of the fact table with a partner in each dimension (but for one, if any), and with the columns of the
    /// dimensions whose sums are made by the key of that one.
    fn facts(&self, patch: &mut Patch, by: Option<Side>) -> Node {
        let needed = by.map_or(&[][..], |by| &self.plan.sums[by - 1]);
        (1..self.tables.len()).filter(|side| Some(*side) != by).fold(self.tables[0], |facts, side| {
            let kind = if needed.contains(&side) { JoinKind::Inner } else { JoinKind::Semi };
            self.join(patch, facts, side, kind)
        })
    }

    fn join(&self, patch: &mut Patch, left: Node, side: Side, kind: JoinKind) -> Node {
        let (right, keys) = (self.tables[side], self.parts(side));
        let partners: Vec<Node> = (0..keys).map(|part| column(patch, left, partner(side, part))).collect();
        let own = (0..keys).map(|part| column(patch, right, key(side, part)));
        let inputs: Vec<Node> = [left, right].into_iter().chain(partners).chain(own.collect::<Vec<_>>()).collect();
        patch.add(Op::Join { kind, keys }, &inputs)
    }

    /// Number of columns of a dimension's key.
    fn parts(&self, dimension: Side) -> usize {
        self.plan.star.dimensions[dimension - 1].keys.len()
    }

    /// The rows of a dimension with number and sums of the rows of the fact table that belong to them.
    fn by_key(&self, patch: &mut Patch, dimension: Side) -> Node {
        let facts = self.facts(patch, Some(dimension));
        let keys: Vec<String> = (0..self.parts(dimension)).map(|part| partner(dimension, part)).collect();
        let mut inputs = vec![facts];
        inputs.extend(keys.iter().map(|name| column(patch, facts, name.clone())));
        let mut aggregates = vec![Aggregate { name: COUNT.to_owned(), op: AggregateOp::CountRows }];
        let sums = &self.plan.sums[dimension - 1];
        for at in (0..self.plan.columns.len()).filter(|at| sums.contains(&self.plan.columns[*at].side)) {
            let argument = column(patch, facts, value(at));
            inputs.push(match self.plan.scalar {
                Scalar::F64 => argument,
                _ => patch.add(Op::Cast(Scalar::F64), &[argument]),
            });
            aggregates.push(Aggregate { name: value(at), op: AggregateOp::Sum });
        }
        let groups = patch.add(Op::Aggregate { keys, aggregates }, &inputs);
        self.join(patch, groups, dimension, JoinKind::Inner)
    }
}

/// Keys and columns of a side under names of their own.
fn side_table(plan: &mut Plan<'_>, patch: &mut Patch, side: Side) -> Option<Node> {
    let dimensions = plan.star.dimensions.clone();
    let keys: Vec<(String, Node)> = match side.checked_sub(1) {
        None => {
            let partners = |(at, dimension): (Side, &super::super::star::Dimension)| {
                let names = (0..).map(move |part| partner(at, part));
                names.zip(dimension.partners.clone()).collect::<Vec<_>>()
            };
            (1..).zip(&dimensions).flat_map(partners).collect()
        }
        Some(at) => (0..).map(|part| key(side, part)).zip(dimensions[at].keys.clone()).collect(),
    };
    let columns = plan.columns.iter().enumerate().filter(|(_, column)| column.side == side);
    let columns: Vec<(String, Node)> = columns.map(|(at, column)| (value(at), column.node)).collect();
    let mut names = vec![];
    let mut inputs = vec![plan.star.table(side)];
    for (name, node) in keys {
        names.push(name);
        inputs.push(if side == 0 { plan.star.moved(patch, node)? } else { node });
    }
    for (name, node) in columns {
        names.push(name);
        inputs.push(plan.star.moved(patch, node)?);
    }
    Some(patch.add(Op::Project { names }, &inputs))
}

fn values(patch: &mut Patch, table: Node, columns: &[usize]) -> Vec<Node> {
    columns.iter().map(|&at| column(patch, table, value(at))).collect()
}

fn product(patch: &mut Patch, x: &[Node], y: &[Node]) -> Node {
    let [x, y] = [x, y].map(|columns| patch.add(Op::Stack, columns));
    let x = patch.add(Op::Transpose(vec![1, 0]), &[x]);
    patch.add(Op::MatMul, &[x, y])
}

/// The parts of a product that belong to each side, along an axis.
fn parts(patch: &mut Patch, whole: Node, axis: usize, sides: &[(Side, Vec<Node>)]) -> Vec<(Side, Node)> {
    if let [(side, _)] = sides {
        return vec![(*side, whole)];
    }
    let mut start = 0;
    let part = |(side, columns): &(Side, Vec<Node>)| {
        let count = columns.len() as u64;
        let node = patch.add(Op::Slice { axis, start, step: 1, count }, &[whole]);
        start += count;
        (*side, node)
    };
    sides.iter().map(part).collect()
}

fn joined(patch: &mut Patch, parts: &[Node], axis: usize) -> Node {
    match parts {
        [one] => *one,
        _ => patch.add(Op::Concat { axis }, parts),
    }
}

/// The tensor whose element `places[i]` along an axis is the `i`th of another.
fn ordered(patch: &mut Patch, tensor: Node, axis: usize, places: &[usize]) -> Node {
    let mut order: Vec<u64> = (0..places.len() as u64).collect();
    order.sort_unstable_by_key(|&at| places[at as usize]);
    let mut runs: Vec<(u64, u64)> = vec![];
    for at in order {
        match runs.last_mut() {
            Some((start, count)) if *start + *count == at => *count += 1,
            _ => runs.push((at, 1)),
        }
    }
    if runs.len() == 1 {
        return tensor;
    }
    let slice = |&(start, count): &(u64, u64)| patch.add(Op::Slice { axis, start, step: 1, count }, &[tensor]);
    let slices: Vec<Node> = runs.iter().map(slice).collect();
    patch.add(Op::Concat { axis }, &slices)
}
