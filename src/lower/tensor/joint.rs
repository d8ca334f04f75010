//! Products from whose result several results of the program follow element by element, and nothing else: the gradient of a
//! weight, from which the weight's next value and those of what its optimiser keeps are made. They are made in the registers
//! of the product, and the gradient is never in memory.
//!
//! Such a product waits until nobody reads the old values any more, so that the new ones may lie where they do, and no longer:
//! what its operands lie in is free then.

use super::plan::{Kind, is_elementwise, shape_of};
use super::planner::{Planner, Result};
use super::spec::Spec;
use crate::lower::Update;
use quearn_stage::graph::{Node, Op};
use std::collections::{BTreeMap, HashMap, HashSet};

impl Planner<'_, '_> {
    /// Finds them, after epilogues of single results.
    pub(super) fn find_joint(&mut self) {
        for &node in self.request.nodes {
            let Some(group) = self.joint_group(node) else { continue };
            let mut results: Vec<Node> = group.iter().copied().filter(|n| self.is_root(*n)).collect();
            results.sort_unstable();
            let (Some(&last), true) = (results.last(), results.len() > 1) else { continue };
            if let Some(old) = self.epilogues.insert(node, last) {
                self.heavy_of.remove(&old);
            }
            self.heavy_of.insert(last, node);
            self.inside.extend(group);
            self.joint.insert(node, results);
        }
    }

    /// The product and all that follows from it, if that is elementwise and ends in results.
    fn joint_group(&self, product: Node) -> Option<Vec<Node>> {
        let root = *self.epilogues.get(&product)?;
        if self.is_root(product) || !self.is_weights_gradient(product) {
            return None;
        }
        let ours = self.epilogue_nodes(product, root);
        let mut group = vec![product];
        let mut at = 0;
        while let Some(node) = group.get(at) {
            for &user in self.users.get(node).map_or(&[][..], Vec::as_slice) {
                if group.contains(&user) {
                    continue;
                }
                if !ours.contains(&user) && !self.may_join(product, user, &group) {
                    return None;
                }
                group.push(user);
            }
            at += 1;
        }
        let is_result = |n: &Node| self.output_of(*n).is_some();
        group.iter().all(|n| is_result(n) || !self.is_root(*n)).then_some(group)
    }

    /// A product of two matrices of known extents, outside of steps, whose left one is written as a transpose.
    fn is_weights_gradient(&self, node: Node) -> bool {
        let turned = |left: Node| matches!(self.graph().op(left), Op::Transpose(perm) if perm[..] == [1, 0]);
        let known = |n: &Node| shape_of(self.graph(), *n).iter().all(|dim| dim.as_const().is_some());
        matches!(self.graph().op(node), Op::MatMul)
            && self.inputs(node).iter().all(|n| self.rank(*n) == 2 && known(n))
            && turned(self.inputs(node)[0])
            && !self.owners.contains_key(&node)
            && !self.constant.contains(&node)
    }

    /// The product with its results; without them, if its operands are not packed block by block.
    pub(super) fn joint_product(&mut self, node: Node, results: Vec<Node>) -> Result<()> {
        let mut outs: Vec<(Node, Spec)> = vec![];
        if self.blocked_extents(node)?.is_some() {
            for &result in &results {
                outs.push((result, self.destination(result, true)?));
            }
        }
        let Some(product) = self.blocked(node, outs.clone())? else {
            let out = self.destination(node, true)?;
            return self.gemm(node, node, out);
        };
        let nodes = results.last().map_or(vec![], |last| self.epilogue_nodes(node, *last));
        self.push(node, "matmul", nodes, Kind::Blocked(Box::new(product)));
        self.plan.homes.extend(outs);
        Ok(())
    }

    /// The nodes outside of steps in the order in which they are planned: as they come, but what follows from products with
    /// several results as soon as it can be made and nobody reads the old values.
    pub(super) fn order(&self) -> Vec<Node> {
        if self.joint.is_empty() {
            return self.request.nodes.iter().copied().filter(|node| !self.owners.contains_key(node)).collect();
        }
        let mut due: BTreeMap<Node, Vec<Node>> = BTreeMap::new();
        let updated: HashMap<Node, Node> = Update::of(self.graph())
            .iter()
            .map(|(update, input)| (self.graph().outputs()[update.output].1, *input))
            .collect();
        for (product, results) in &self.joint {
            let read = results.iter().filter_map(|r| updated.get(r)).filter_map(|input| self.last_reader(*input));
            let at = read.chain(self.last_made(results)).fold(*product, Node::max);
            due.entry(at).or_default().extend(results);
        }
        let (mut order, mut done) = (vec![], HashSet::new());
        for &node in self.request.nodes {
            self.visit(node, &mut order, &mut done);
            due.get(&node).into_iter().flatten().for_each(|result| self.visit(*result, &mut order, &mut done));
        }
        order
    }

    /// Adds a node behind what it is made from.
    fn visit(&self, node: Node, order: &mut Vec<Node>, done: &mut HashSet<Node>) {
        if done.contains(&node) || self.owners.contains_key(&node) {
            return;
        }
        done.insert(node);
        if !self.is_leaf(node) {
            self.graph().dependencies(node).into_iter().for_each(|input| self.visit(input, order, done));
        }
        order.push(node);
    }

    /// The last node outside of steps, and of what joint products make, that reads a value, or what is no more than another view
    /// of it.
    fn last_reader(&self, value: Node) -> Option<Node> {
        let users = self.users.get(&value).into_iter().flatten().copied();
        let reader = |user: Node| match (self.graph().op(user), self.owners.get(&user)) {
            (_, Some(steps)) => Some(*steps),
            (Op::Transpose(_) | Op::Reshape(_) | Op::Slice { .. }, None) => self.last_reader(user),
            (_, None) => Some(user),
        };
        users.filter(|user| !self.inside.contains(user)).filter_map(reader).max()
    }

    /// The last of the nodes that values are made from element by element, of those that take a stage of their own.
    fn last_made(&self, values: &[Node]) -> Option<Node> {
        let (mut seen, mut stack, mut last) = (HashSet::new(), values.to_vec(), None);
        while let Some(node) = stack.pop().filter(|node| !self.is_leaf(*node)) {
            match self.graph().op(node) {
                _ if !seen.insert(node) => {}
                Op::Input { .. } | Op::Const(_) => {}
                op if is_elementwise(op) => stack.extend(self.inputs(node)),
                _ => last = last.max(Some(node)),
            }
        }
        last
    }
}
