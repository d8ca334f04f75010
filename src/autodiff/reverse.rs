//! The walk from results back to what gradients are taken by.

use super::Error;
use super::depends::Depends;
use super::emit::Emit;
use super::rules;
use quearn_stage::graph::{BinaryOp, Node, Op};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The derivative of the loss by a node.
#[derive(Clone, Debug)]
pub(super) enum Adjoint {
    /// Of a tensor.
    Tensor(Node),
    /// Of several values, by position.
    Items(BTreeMap<usize, Node>),
}

/// A node whose adjoint is complete.
pub(super) struct Call {
    pub(super) node: Node,
    pub(super) op: Op,
    pub(super) inputs: Vec<Node>,
    pub(super) adjoint: Adjoint,
}

impl Call {
    /// The adjoint of a tensor.
    pub(super) fn tensor(&self) -> Node {
        match self.adjoint {
            Adjoint::Tensor(node) => node,
            // The adjoint of a node is of the kind of its type, and the rules of tensors are asked about tensors only.
            _ => unreachable!("{} is a tensor", self.node),
        }
    }
}

/// A walk under way.
pub(super) struct Reverse<'e, 'g> {
    pub(super) e: &'e mut Emit<'g>,
    depends: Depends,
    adjoints: HashMap<Node, Adjoint>,
    pending: BTreeSet<Node>,
}

/// The adjoints of `wrt`, given those of some results.
pub(super) fn pull_back(e: &mut Emit<'_>, seeds: &[(Node, Node)], wrt: &[Node]) -> Result<Vec<Option<Node>>, Error> {
    walk(e, seeds, wrt, &[])
}

/// The same with `leaves` taken as independent of each other: what one of them is made of is not looked at. Then the
/// adjoints of `taps`, which lie anywhere on the way.
pub(super) fn pull_back_to(
    e: &mut Emit<'_>,
    seeds: &[(Node, Node)],
    leaves: &[Node],
    taps: &[Node],
) -> Result<Vec<Option<Node>>, Error> {
    walk(e, seeds, &[leaves, taps].concat(), leaves)
}

/// The adjoints of `wrt`; the walk goes no further than to `stops`.
fn walk(e: &mut Emit<'_>, seeds: &[(Node, Node)], wrt: &[Node], stops: &[Node]) -> Result<Vec<Option<Node>>, Error> {
    let Some(last) = seeds.iter().map(|(node, _)| *node).max() else { return Ok(vec![None; wrt.len()]) };
    let depends = Depends::on(e.graph, wrt, last);
    let mut reverse = Reverse { e, depends, adjoints: HashMap::new(), pending: BTreeSet::new() };
    for &(node, adjoint) in seeds {
        reverse.give(node, adjoint)?;
    }
    // A node is larger than its inputs, so that all users of the largest one have been seen.
    while let Some(node) = reverse.pending.pop_last() {
        if !stops.contains(&node) {
            reverse.step(node)?;
        }
    }
    Ok(wrt.iter().map(|&node| reverse.found(node)).collect())
}

impl Reverse<'_, '_> {
    fn step(&mut self, node: Node) -> Result<(), Error> {
        let (op, inputs) = (self.e.graph.op(node).clone(), self.e.graph.inputs(node).to_vec());
        if inputs.is_empty() && op.region().is_none() {
            return Ok(());
        }
        // Columns are what gradients are taken by, or have none.
        let passes = !matches!(op, Op::Column(_)) && self.e.graph.dependencies(node).into_iter().any(|n| self.wants(n));
        let Some(adjoint) = self.adjoints.get(&node).cloned().filter(|_| passes) else { return Ok(()) };
        match rules::rule(&op) {
            Some(rule) => rule(self, &Call { node, op, inputs, adjoint }),
            None => Err(Error::no_rule(self.e.graph, node, "it has no rule")),
        }
    }

    /// Does somebody want the adjoint of a tensor or tuple?
    pub(super) fn wants(&self, node: Node) -> bool {
        self.depends.has(node)
    }

    /// Adds to the adjoint of a tensor; `part` broadcasts to it.
    pub(super) fn give(&mut self, to: Node, part: Node) -> Result<(), Error> {
        if !self.wants(to) {
            return Ok(());
        }
        let part = self.settled(part, to)?;
        let sum = match self.adjoints.get(&to) {
            Some(Adjoint::Tensor(sum)) => self.e.add(*sum, part)?,
            _ => part,
        };
        self.adjoints.insert(to, Adjoint::Tensor(sum));
        self.pending.insert(to);
        Ok(())
    }

    /// Adds to the adjoint of one of several values.
    pub(super) fn give_item(&mut self, tuple: Node, index: usize, part: Node) -> Result<(), Error> {
        if !self.wants(tuple) {
            return Ok(());
        }
        let mut items = match self.adjoints.remove(&tuple) {
            Some(Adjoint::Items(items)) => items,
            _ => BTreeMap::new(),
        };
        let sum = match items.get(&index) {
            Some(&sum) => self.e.add(sum, part)?,
            None => part,
        };
        items.insert(index, sum);
        self.adjoints.insert(tuple, Adjoint::Items(items));
        self.pending.insert(tuple);
        Ok(())
    }

    /// Of the type of what it is the adjoint of, and zero where that is NULL.
    fn settled(&mut self, part: Node, to: Node) -> Result<Node, Error> {
        let scalar = self.e.scalar(to);
        let part = self.e.cast(part, scalar)?;
        if !self.e.nullable(part) {
            return Ok(part);
        }
        let zero = self.e.number(scalar, 0.0)?;
        self.e.binary(BinaryOp::Coalesce, part, zero)
    }

    fn found(&self, node: Node) -> Option<Node> {
        match self.adjoints.get(&node)? {
            Adjoint::Tensor(adjoint) => Some(*adjoint),
            _ => None,
        }
    }
}
