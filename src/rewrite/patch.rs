//! A change of a graph as a value: new nodes, and which old nodes they take the place of.

use quearn_stage::graph::{Dim, Graph, Node, Op};

/// New nodes, numbered on from those of the graph, and replacements.
///
/// A replacement must be made from the inputs (at any depth) of what it replaces, never from its users, and must be
/// equal to it. A table may be replaced by one without the columns that nobody reads. Where a table that makes rows is
/// replaced, the rows of the new one take the place of its row dimension.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Nodes of the graph that the patch is for.
    base: usize,
    nodes: Vec<(Op, Vec<Node>)>,
    replaced: Vec<(Node, Node)>,
}

impl Patch {
    /// No change of `graph`.
    pub fn new(graph: &Graph) -> Patch {
        Patch { base: graph.len(), nodes: vec![], replaced: vec![] }
    }

    /// A new node; inputs, and nodes in its attributes, may be old or new.
    pub fn add(&mut self, op: Op, inputs: &[Node]) -> Node {
        self.nodes.push((op, inputs.to_vec()));
        Node((self.base + self.nodes.len() - 1) as u32)
    }

    /// `old` is to be replaced by `new`.
    pub fn replace(mut self, old: Node, new: Node) -> Patch {
        self.replaced.push((old, new));
        self
    }

    /// Number of nodes that are replaced.
    pub fn len(&self) -> usize {
        self.replaced.len()
    }

    /// Does it change nothing?
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty()
    }

    /// The pairs of old and new nodes.
    pub fn replaced(&self) -> &[(Node, Node)] {
        &self.replaced
    }

    /// Operation and inputs of a node that the patch makes; `None` for an old one.
    pub fn made(&self, node: Node) -> Option<(&Op, &[Node])> {
        let (op, inputs) = self.nodes.get(node.index().checked_sub(self.base)?)?;
        Some((op, inputs))
    }

    /// Takes over the changes of another patch of the same graph.
    pub fn merge(&mut self, other: Patch) {
        let shift = self.nodes.len() as u32;
        let moved = |node: Node| if node.index() < self.base { node } else { Node(node.0 + shift) };
        let nodes = other.nodes.into_iter().map(|(op, inputs)| {
            let op = match op {
                Op::Reshape(dims) => Op::Reshape(dims.iter().map(|dim: &Dim| dim.map_rows(&moved)).collect()),
                Op::Broadcast(dims) => Op::Broadcast(dims.iter().map(|dim: &Dim| dim.map_rows(&moved)).collect()),
                op => op,
            };
            (op, inputs.into_iter().map(moved).collect())
        });
        self.nodes.extend(nodes.collect::<Vec<_>>());
        self.replaced.extend(other.replaced.into_iter().map(|(old, new)| (old, moved(new))));
    }
}
