//! A graph and a patch become a new graph: the nodes that the outputs need, copied through the type rules.
//!
//! Row dimensions are named by the node that makes the rows, so they are carried over wherever an operation mentions
//! one in its attributes (`Reshape`, `Broadcast`, `Param`).

use super::patch::Patch;
use quearn_stage::graph::{Dim, Graph, GraphError, Node, Op, Ty};
use std::collections::HashMap;

/// The graph after the patch.
///
/// # Errors
/// The patch is wrong: a node breaks a type rule, a replacement has another type, or it depends on what it replaces.
pub fn rebuild(graph: &Graph, patch: &Patch) -> Result<Graph, GraphError> {
    let replaced = patch.replaced().iter().copied().collect();
    let mut rebuild = Rebuild { graph, patch, replaced, result: Graph::new(), done: HashMap::new() };
    // Old nodes first and in their order, so that a graph keeps its order as far as it can.
    for node in rebuild.needed() {
        rebuild.copy(node)?;
    }
    for (name, node) in graph.outputs() {
        rebuild.output(name, *node)?;
    }
    rebuild.check_replacements()?;
    Ok(rebuild.result)
}

struct Rebuild<'a> {
    graph: &'a Graph,
    patch: &'a Patch,
    replaced: HashMap<Node, Node>,
    result: Graph,
    /// New node of each copied one.
    done: HashMap<Node, Node>,
}

impl<'a> Rebuild<'a> {
    /// The node that finally stands for `node`.
    fn stands_for(&self, mut node: Node) -> Node {
        while let Some(&next) = self.replaced.get(&node) {
            node = next;
        }
        node
    }

    fn parts(&self, node: Node) -> (&'a Op, &'a [Node]) {
        let old = || (self.graph.op(node), self.graph.inputs(node));
        self.patch.made(node).unwrap_or_else(old)
    }

    /// What must be copied before a node: inputs, regions, and makers of the rows that it mentions.
    fn before(&self, node: Node) -> Vec<Node> {
        let (op, inputs) = self.parts(node);
        let mut before = inputs.to_vec();
        before.extend(op.region().into_iter().flat_map(|region| region.params.iter().chain(&region.results)));
        match op {
            Op::Reshape(dims) | Op::Broadcast(dims) => before.extend(dims.iter().filter_map(row_maker)),
            Op::Param { ty, .. } => makers_in(ty, &mut before),
            _ => {}
        }
        before.into_iter().map(|n| self.stands_for(n)).collect()
    }

    /// Every node that the outputs need, ascending.
    fn needed(&self) -> Vec<Node> {
        let mut seen = std::collections::BTreeSet::new();
        let mut stack: Vec<Node> = self.graph.outputs().iter().map(|(_, n)| self.stands_for(*n)).collect();
        while let Some(node) = stack.pop() {
            if seen.insert(node) {
                stack.extend(self.before(node));
            }
        }
        seen.into_iter().collect()
    }

    /// Copies a node, after whatever it needs.
    fn copy(&mut self, node: Node) -> Result<(), GraphError> {
        let mut stack = vec![(node, false)];
        while let Some((node, ready)) = stack.pop() {
            if self.done.contains_key(&node) {
                continue;
            }
            if ready {
                self.make(node)?;
                continue;
            }
            stack.push((node, true));
            let missing = self.before(node).into_iter().rev().filter(|n| !self.done.contains_key(n));
            stack.extend(missing.map(|n| (n, false)));
        }
        Ok(())
    }

    fn make(&mut self, node: Node) -> Result<(), GraphError> {
        let (op, inputs) = self.parts(node);
        let new = |n: &Node| self.copied(*n).ok_or_else(|| wrong(op, format!("{n} depends on its own replacement")));
        let inputs = inputs.iter().map(new).collect::<Result<Vec<_>, _>>()?;
        for inner in op.region().into_iter().flat_map(|region| region.params.iter().chain(&region.results)) {
            new(inner)?;
        }
        let op = op.moved(|n| self.copied(n).unwrap_or(n), |dim| self.dim(dim));
        let made = self.result.add(op, &inputs)?;
        self.done.insert(node, made);
        Ok(())
    }

    fn copied(&self, node: Node) -> Option<Node> {
        self.done.get(&self.stands_for(node)).copied()
    }

    /// A dimension of the old graph or the patch in the new graph.
    fn dim(&self, dim: &Dim) -> Dim {
        let rows = row_maker(dim).and_then(|maker| self.result.ty(self.copied(maker)?).as_table());
        rows.map_or_else(|| dim.clone(), |(_, rows)| rows.clone())
    }

    fn ty(&self, ty: &Ty) -> Ty {
        ty.moved(&|dim| self.dim(dim))
    }

    fn output(&mut self, name: &str, old: Node) -> Result<(), GraphError> {
        let op = self.graph.op(old);
        let new = self.copied(old).ok_or_else(|| wrong(op, format!("output {name:?} is not made")))?;
        let (expected, found) = (self.ty(self.graph.ty(old)), self.result.ty(new));
        if expected != *found {
            return Err(wrong(op, format!("output {name:?} has become {found}, expected {expected}")));
        }
        self.result.output(name, new);
        Ok(())
    }

    /// Replacements that are in use have the type of what they replace; tables may have lost columns.
    fn check_replacements(&self) -> Result<(), GraphError> {
        for &(old, new) in self.patch.replaced() {
            let Some(made) = self.copied(new) else { continue };
            let (expected, found) = (self.ty(self.graph.ty(old)), self.result.ty(made));
            let equal = match (&expected, found) {
                (Ty::Table { fields: all, rows: a }, Ty::Table { fields, rows: b }) => {
                    a == b && fields.iter().all(|field| all.contains(field))
                }
                _ => expected == *found,
            };
            if !equal {
                return Err(wrong(self.graph.op(old), format!("{old} has become {found}, expected {expected}")));
            }
        }
        Ok(())
    }
}

fn wrong(op: &Op, message: String) -> GraphError {
    GraphError { op: op.name(), message }
}

fn row_maker(dim: &Dim) -> Option<Node> {
    match dim {
        Dim::Rows(node) => Some(*node),
        _ => None,
    }
}

/// The makers of the rows that a type mentions.
fn makers_in(ty: &Ty, makers: &mut Vec<Node>) {
    match ty {
        Ty::Tensor { shape, .. } => makers.extend(shape.iter().filter_map(row_maker)),
        Ty::Table { rows, .. } => makers.extend(row_maker(rows)),
        Ty::Tuple(items) => items.iter().for_each(|item| makers_in(item, makers)),
    }
}
