//! Who uses a node.

use quearn_stage::graph::fails::has_column;
use quearn_stage::graph::{Graph, Node, Op, Ty};
use std::collections::BTreeSet;

/// The users of every node that the outputs need.
pub struct Users<'g> {
    graph: &'g Graph,
    of: Vec<Vec<Node>>,
    output: Vec<bool>,
}

impl<'g> Users<'g> {
    /// Looks through the whole graph.
    pub fn of(graph: &'g Graph) -> Users<'g> {
        let mut users = Users { graph, of: vec![vec![]; graph.len()], output: vec![false; graph.len()] };
        for node in graph.reachable() {
            for used in graph.dependencies(node) {
                users.of[used.index()].push(node);
            }
        }
        graph.outputs().iter().for_each(|(_, node)| users.output[node.index()] = true);
        users
    }

    /// Is `user` the only node that uses `node`?
    pub fn only(&self, node: Node, user: Node) -> bool {
        !self.output[node.index()] && self.of[node.index()].iter().all(|&n| n == user)
    }

    /// All users of a node; `None` if it is an output.
    pub fn all(&self, node: Node) -> Option<BTreeSet<Node>> {
        (!self.output[node.index()]).then(|| self.of[node.index()].iter().copied().collect())
    }

    /// Is the column read by an expression or an output, of this table or one that passes the column on?
    pub fn reads_column(&self, table: Node, name: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut stack = vec![table];
        while let Some(table) = stack.pop() {
            if self.output[table.index()] {
                return true;
            }
            for &user in &self.of[table.index()] {
                let passed_on = match self.graph.op(user) {
                    Op::Column(column) if column == name => return true,
                    Op::Join { .. } | Op::Product => self.graph.side_of(user, name) == Some(table),
                    Op::Union { names } => names.iter().any(|own| own == name),
                    // They read through columns only.
                    Op::Project { .. } | Op::Aggregate { .. } | Op::Column(_) => false,
                    _ => true,
                };
                if passed_on && has_column(self.graph, user, name) && seen.insert(user) {
                    stack.push(user);
                }
            }
        }
        false
    }

    /// Is the table read, through whatever expressions, by no other table than `user`, and part of no output itself?
    /// Then it need not be made if `user` is made in another way.
    pub fn only_table(&self, table: Node, user: Node) -> bool {
        let mut seen = BTreeSet::new();
        let mut stack = vec![table];
        while let Some(node) = stack.pop() {
            if self.output[node.index()] {
                return false;
            }
            for &next in &self.of[node.index()] {
                let is_table = matches!(self.graph.ty(next), Ty::Table { .. });
                match is_table {
                    true if next != user => return false,
                    true => {}
                    false if seen.insert(next) => stack.push(next),
                    false => {}
                }
            }
        }
        true
    }
}
