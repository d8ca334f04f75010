//! An expression over the rows of one table as one over the rows of another.
//!
//! `Transport` of `e` from `t` to `u` replaces columns of `t` by what stands for them over `u`, through columns of
//! projections that have the rows of `t`. Law: if row `i` of `u` has in those columns what row `j` of `t` has, then the
//! result has in row `i` what `e` has in row `j`. So every operation on the way must work row by row. What only depends
//! on `t` as a whole (such as a mean over its rows) stays as it is.

use super::expression::{has_column, is_elementwise, mentions, projected};
use super::patch::Patch;
use quearn_stage::graph::{Dim, Graph, Node, Op};
use std::collections::{BTreeSet, HashMap};

/// A node that stands for an expression or column in its new place.
#[derive(Clone, Copy)]
pub struct Moved {
    /// The node.
    pub node: Node,
    /// It is one value for all rows, where there was a value for each. Tables take either.
    pub scalar: bool,
}

/// What stands for a column of the old table.
pub type Leaves<'a> = dyn Fn(&mut Patch, &str) -> Option<Moved> + 'a;

/// Moves expressions from the rows of one table to those of another.
pub struct Transport<'a> {
    graph: &'a Graph,
    from: Node,
    rows: &'a Dim,
    to_rows: Dim,
    leaves: Box<Leaves<'a>>,
    moved: HashMap<Node, Moved>,
}

impl<'a> Transport<'a> {
    /// From the rows of `from` to `to_rows`; `None` if the rows of `from` cannot be told from other dimensions.
    pub fn new(
        graph: &'a Graph,
        from: Node,
        to_rows: Dim,
        leaves: impl Fn(&mut Patch, &str) -> Option<Moved> + 'a,
    ) -> Option<Transport<'a>> {
        let (_, rows) = graph.ty(from).as_table()?;
        let known = matches!(rows, Dim::Rows(_));
        known.then(|| Transport { graph, from, rows, to_rows, leaves: Box::new(leaves), moved: HashMap::new() })
    }

    /// To a table with columns of the same names.
    pub fn to_table(graph: &'a Graph, from: Node, to: Node, to_rows: Dim) -> Option<Transport<'a>> {
        Transport::new(graph, from, to_rows, move |patch, name| Some(column(patch, to, name)))
    }

    /// To the new rows that the table `to` makes.
    pub fn to_maker(graph: &'a Graph, from: Node, to: Node) -> Option<Transport<'a>> {
        Transport::to_table(graph, from, to, Dim::Rows(to))
    }

    /// The same rows, with columns of the projections above `from` written out.
    pub fn inline(graph: &'a Graph, from: Node) -> Option<Transport<'a>> {
        let (_, rows) = graph.ty(from).as_table()?;
        Transport::to_table(graph, from, from, rows.clone())
    }

    /// The expression over the new rows; `None` if it does not work row by row or a column is missing.
    pub fn expression(&mut self, patch: &mut Patch, expression: Node) -> Option<Node> {
        for node in self.on_the_way(expression)? {
            if !self.moved.contains_key(&node) {
                let moved = self.step(patch, node)?;
                self.moved.insert(node, moved);
            }
        }
        Some(self.get(expression).node)
    }

    /// All of the expressions.
    pub fn expressions(&mut self, patch: &mut Patch, expressions: &[Node]) -> Option<Vec<Node>> {
        expressions.iter().map(|&e| self.expression(patch, e)).collect()
    }

    fn depends(&self, node: Node) -> bool {
        mentions(self.graph.ty(node), self.rows)
    }

    fn get(&self, node: Node) -> Moved {
        let unmoved = || Moved { node, scalar: self.graph.ty(node).as_tensor().is_some_and(|(_, s)| s.is_empty()) };
        self.moved.get(&node).copied().unwrap_or_else(unmoved)
    }

    /// The nodes between an expression and columns of the old table, inputs before users.
    fn on_the_way(&self, expression: Node) -> Option<BTreeSet<Node>> {
        let mut nodes = BTreeSet::new();
        let mut stack = vec![expression];
        while let Some(node) = stack.pop() {
            if !self.depends(node) || !nodes.insert(node) {
                continue;
            }
            match self.graph.op(node) {
                Op::Column(name) => stack.extend(self.written_out(node, name)),
                _ => stack.extend(self.graph.inputs(node)),
            }
        }
        Some(nodes)
    }

    /// The expression of a column of a projection that is not the old table itself.
    fn written_out(&self, node: Node, name: &str) -> Option<Node> {
        let table = self.graph.inputs(node)[0];
        if table == self.from { None } else { projected(self.graph, table, name) }
    }

    fn step(&self, patch: &mut Patch, node: Node) -> Option<Moved> {
        let (op, inputs) = (self.graph.op(node), self.graph.inputs(node));
        if let Op::Column(name) = op {
            return match self.written_out(node, name) {
                Some(expression) => Some(self.get(expression)),
                None => (self.leaves)(patch, self.forwarded(inputs[0], name)?),
            };
        }
        let one_value = |&&n: &&Node| self.depends(n) && self.get(n).scalar;
        let drifted = inputs.iter().filter(one_value).count();
        let row_inputs = inputs.iter().filter(|&&n| self.depends(n)).count();
        if !self.by_row(node) || (drifted > 0 && !is_elementwise(op)) {
            return None;
        }
        let op = match op {
            Op::Reshape(dims) => Op::Reshape(dims.iter().map(|dim| self.dim(dim)).collect()),
            op => op.clone(),
        };
        let inputs: Vec<Node> = inputs.iter().map(|&n| self.get(n).node).collect();
        Some(Moved { node: patch.add(op, &inputs), scalar: drifted == row_inputs })
    }

    fn dim(&self, dim: &Dim) -> Dim {
        if dim == self.rows { self.to_rows.clone() } else { dim.clone() }
    }

    /// The column of the old table that holds a column of `table`, which has the same rows and lies below it.
    fn forwarded(&self, table: Node, name: &'a str) -> Option<&'a str> {
        if table == self.from {
            return Some(name);
        }
        let Op::Project { names } = self.graph.op(self.from) else { return None };
        let is_it =
            |e: &Node| matches!(self.graph.op(*e), Op::Column(c) if c == name) && self.graph.inputs(*e)[0] == table;
        let at = self.graph.inputs(self.from)[1..].iter().position(is_it)?;
        Some(&names[at])
    }

    /// Does row `i` of the node depend on no other row of its operands than `i`?
    fn by_row(&self, node: Node) -> bool {
        let Some((_, shape)) = self.graph.ty(node).as_tensor() else { return false };
        let rows_lead = shape.first() == Some(self.rows) && !shape[1..].contains(self.rows);
        let op = self.graph.op(node);
        rows_lead
            && match op {
                Op::Softmax { axis } | Op::Concat { axis } | Op::ArgMax { axis } | Op::CumSum { axis } => *axis != 0,
                Op::Slice { axis, .. } => *axis != 0,
                Op::Foreign { signature, .. } => {
                    let operands = self.graph.inputs(node).iter().zip(&signature.operands);
                    operands.into_iter().all(|(&input, part)| part.by_row || !self.depends(input))
                }
                Op::Gather => !self.depends(self.graph.inputs(node)[0]),
                Op::MatMul | Op::Conv2d(_) | Op::Pool2d(_) | Op::BatchNorm { .. } | Op::Reduce { .. } => true,
                Op::TreeEnsemble(_) => true,
                Op::Reshape(_) | Op::Transpose(_) | Op::Stack => true,
                op => is_elementwise(op),
            }
    }
}

/// A column of a table as a new node.
pub fn column(patch: &mut Patch, table: Node, name: &str) -> Moved {
    Moved { node: patch.add(Op::Column(name.to_owned()), &[table]), scalar: false }
}

/// A column of a table of the graph, if it has it.
pub fn existing_column(graph: &Graph, patch: &mut Patch, table: Node, name: &str) -> Option<Moved> {
    has_column(graph, table, name).then(|| column(patch, table, name))
}
