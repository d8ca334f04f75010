//! A table joined with others on keys of which each has one row at most: a fact table with its dimensions, as found in
//! star schemas; and expressions over the join as expressions over the side whose columns they read.

use crate::rewrite::Known;
use crate::rewrite::Patch;
use crate::rewrite::expression::{is_elementwise, projected};
use quearn_stage::graph::{Dim, Graph, JoinKind, Node, Op};
use std::collections::{BTreeSet, HashMap};

/// A side of a star: 0 for the fact table, then the dimensions from 1 on.
pub type Side = usize;

/// A dimension.
#[derive(Clone, Debug)]
pub struct Dimension {
    /// The join that brings it.
    pub join: Node,
    /// The table.
    pub table: Node,
    /// Its keys.
    pub keys: Vec<Node>,
    /// What equals them: row expressions of what the join has on its left.
    pub partners: Vec<Node>,
}

/// Inner joins on top of each other.
pub struct Star<'a> {
    graph: &'a Graph,
    /// The table that the others are joined with.
    pub fact: Node,
    /// The tables that it is joined with, the last one first.
    pub dimensions: Vec<Dimension>,
    moved: HashMap<Node, Node>,
}

/// Where a column of the join comes from.
enum Origin<'a> {
    /// A column of a side.
    Side(Side, &'a str),
    /// An expression over the join, or over one below it.
    Expression(Node),
}

impl<'a> Star<'a> {
    /// The star that makes these rows.
    pub fn of(known: &Known<'a>, rows: &Dim) -> Option<Star<'a>> {
        let Dim::Rows(top) = rows else { return None };
        let dimensions = dimensions(known, *top);
        // What is joined on a column of another dimension is joined with both of them.
        (1..=dimensions.len()).rev().find_map(|count| {
            let dimensions = dimensions[..count].to_vec();
            let fact = known.graph.inputs(dimensions[count - 1].join)[0];
            let star = Star { graph: known.graph, fact, dimensions, moved: HashMap::new() };
            let mut partners = star.dimensions.iter().flat_map(|dimension| &dimension.partners);
            let of_fact =
                |partner: &Node| star.sides(*partner).is_some_and(|sides| sides.iter().all(|side| *side == 0));
            partners.all(of_fact).then_some(star)
        })
    }

    /// The sides whose columns a row expression reads; `None` if it does more than work on one value at a time.
    pub fn sides(&self, expression: Node) -> Option<BTreeSet<Side>> {
        let (mut sides, mut seen, mut stack) = (BTreeSet::new(), BTreeSet::new(), vec![expression]);
        while let Some(node) = stack.pop() {
            if !seen.insert(node) || self.is_scalar(node) {
                continue;
            }
            match self.graph.op(node) {
                Op::Column(name) => match self.origin(self.graph.inputs(node)[0], name)? {
                    Origin::Side(side, _) => drop(sides.insert(side)),
                    Origin::Expression(node) => stack.push(node),
                },
                op if is_elementwise(op) => stack.extend(self.graph.inputs(node)),
                _ => return None,
            }
        }
        Some(sides)
    }

    /// The expression, which reads columns of one side only, over the rows of that side.
    pub fn moved(&mut self, patch: &mut Patch, expression: Node) -> Option<Node> {
        if self.is_scalar(expression) {
            return Some(expression);
        }
        if let Some(&moved) = self.moved.get(&expression) {
            return Some(moved);
        }
        let inputs = self.graph.inputs(expression);
        let moved = match self.graph.op(expression) {
            Op::Column(name) => match self.origin(inputs[0], name)? {
                Origin::Side(side, name) => patch.add(Op::Column(name.to_owned()), &[self.table(side)]),
                Origin::Expression(node) => self.moved(patch, node)?,
            },
            op => {
                let inputs = inputs.iter().map(|&i| self.moved(patch, i)).collect::<Option<Vec<_>>>()?;
                patch.add(op.clone(), &inputs)
            }
        };
        self.moved.insert(expression, moved);
        Some(moved)
    }

    /// The table of a side.
    pub fn table(&self, side: Side) -> Node {
        side.checked_sub(1).map_or(self.fact, |at| self.dimensions[at].table)
    }

    fn is_scalar(&self, node: Node) -> bool {
        self.graph.ty(node).as_tensor().is_some_and(|(_, shape)| shape.is_empty())
    }

    fn origin(&self, mut table: Node, name: &'a str) -> Option<Origin<'a>> {
        loop {
            if table == self.fact {
                return Some(Origin::Side(0, name));
            }
            if let Some(expression) = projected(self.graph, table, name) {
                return Some(Origin::Expression(expression));
            }
            let at = self.dimensions.iter().position(|dimension| dimension.join == table)?;
            let side = self.graph.side_of(table, name)?;
            if side == self.dimensions[at].table {
                return Some(Origin::Side(at + 1, name));
            }
            table = side;
        }
    }
}

/// The joins from `top` down that add columns to rows or drop them, but make no row two.
fn dimensions(known: &Known<'_>, top: Node) -> Vec<Dimension> {
    let graph = known.graph;
    let (mut found, mut at) = (vec![], top);
    loop {
        let inputs = graph.inputs(at);
        match graph.op(at) {
            Op::Project { .. } if at != top => at = inputs[0],
            Op::Join { kind: JoinKind::Inner, keys } if inputs.len() == 2 + 2 * keys => {
                let (partners, keys) = inputs[2..].split_at(*keys);
                if inputs[0] == inputs[1] || !known.facts.are_unique(inputs[1], keys) {
                    return found;
                }
                let (partners, keys) = (partners.to_vec(), keys.to_vec());
                found.push(Dimension { join: at, table: inputs[1], keys, partners });
                at = inputs[0];
            }
            _ => return found,
        }
    }
}
