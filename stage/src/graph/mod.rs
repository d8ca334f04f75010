//! The graph: a hash-consed DAG of typed nodes in which tables and tensors keep their meaning.
//!
//! | file | what it holds |
//! |---|---|
//! | [`ty`] | types: scalars, dimensions (a table's row count is one), tensors, tables |
//! | [`literal`] | constants |
//! | [`forest`] | decision trees |
//! | [`op`] | the complete vocabulary, with meaning and type rules |
//! | [`infer`] | the type rules as code: the only way to make a node goes through them |
//! | [`philox`] | random bits, as `Op::Random` has them |
//! | [`verify`](mod@verify) | what a well-formed graph is |
//! | [`print`](mod@print), [`parse`](mod@parse) | the text form, both ways |

pub mod fails;
pub mod foreign;
pub mod forest;
pub mod infer;
pub mod literal;
pub mod op;
pub mod parse;
pub mod philox;
pub mod print;
pub mod ty;
pub mod verify;

pub use forest::{Forest, Split, Step, Tree, TreeNode, TreeWriter};
pub use infer::{aggregate_result, binary_result, compare_as, promote};
pub use literal::Literal;
pub use op::*;
pub use parse::{ParseError, parse};
pub use ty::*;
pub use verify::verify;

use foldhash::HashMap;
use std::fmt;

/// A node of a graph. Nodes are numbered so that inputs come before users.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Node(pub u32);

impl Node {
    /// Position in the graph.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Operation, inputs and type of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeData {
    /// Operation.
    pub op: Op,
    /// Inputs, in the order that the operation states.
    pub inputs: Vec<Node>,
    /// Type.
    pub ty: Ty,
}

/// Why a node cannot be made; the message names the column or operand and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {message}")]
pub struct GraphError {
    /// The operation.
    pub op: String,
    /// What is wrong.
    pub message: String,
}

/// A program: nodes and the ones it gives as named results. Equal nodes are one node.
#[derive(Clone, Default, Debug)]
pub struct Graph {
    nodes: Vec<NodeData>,
    unique: HashMap<(Op, Vec<Node>), Node>,
    outputs: Vec<(String, Node)>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// The node of that operation and inputs, made if it is new.
    pub fn add(&mut self, op: Op, inputs: &[Node]) -> Result<Node, GraphError> {
        let key = (op, inputs.to_vec());
        if let Some(&node) = self.unique.get(&key) {
            return Ok(node);
        }
        let node = Node(self.nodes.len() as u32);
        let ty = infer::infer(self, node, &key.0, inputs)?;
        self.nodes.push(NodeData { op: key.0.clone(), inputs: inputs.to_vec(), ty });
        self.unique.insert(key, node);
        Ok(node)
    }

    /// Declares a result of the program.
    pub fn output(&mut self, name: impl Into<String>, node: Node) {
        self.outputs.push((name.into(), node));
    }

    /// Forgets the results of the program; the nodes stay.
    pub fn clear_outputs(&mut self) {
        self.outputs.clear();
    }

    /// The results of the program.
    pub fn outputs(&self) -> &[(String, Node)] {
        &self.outputs
    }

    /// Data of a node.
    pub fn node(&self, node: Node) -> &NodeData {
        &self.nodes[node.index()]
    }

    /// Operation of a node.
    pub fn op(&self, node: Node) -> &Op {
        &self.node(node).op
    }

    /// Inputs of a node.
    pub fn inputs(&self, node: Node) -> &[Node] {
        &self.node(node).inputs
    }

    /// Type of a node.
    pub fn ty(&self, node: Node) -> &Ty {
        &self.node(node).ty
    }

    /// Number of nodes, those that no output needs included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Has the graph no nodes?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A number that no region of the graph has.
    pub fn free_region(&self) -> u32 {
        let region = |data: &NodeData| if let Op::Param { region, .. } = data.op { Some(region + 1) } else { None };
        self.nodes.iter().filter_map(region).max().unwrap_or(0)
    }

    /// The side of a join or product that a column comes from; `None` for a mark, which the join makes.
    pub fn side_of(&self, pair: Node, column: &str) -> Option<Node> {
        if matches!(self.op(pair), Op::Join { kind: JoinKind::Mark(mark), .. } if mark == column) {
            return None;
        }
        self.inputs(pair)[..2].iter().copied().find(|&side| fails::has_column(self, side, column))
    }

    /// The nodes that the outputs need, inputs (and the nodes of regions) before users.
    pub fn reachable(&self) -> Vec<Node> {
        let mut needed = vec![false; self.nodes.len()];
        let mut stack: Vec<Node> = self.outputs.iter().map(|(_, n)| *n).collect();
        while let Some(node) = stack.pop() {
            if std::mem::replace(&mut needed[node.index()], true) {
                continue;
            }
            stack.extend(self.dependencies(node));
        }
        (0..self.nodes.len() as u32).map(Node).filter(|n| needed[n.index()]).collect()
    }

    /// Inputs of a node, the parameters and results of its region, and the tables whose rows its type names on its own
    /// account.
    pub fn dependencies(&self, node: Node) -> Vec<Node> {
        let mut all = self.inputs(node).to_vec();
        let op = self.op(node);
        all.extend(op.region().into_iter().flat_map(|region| region.params.iter().chain(&region.results)));
        if let Op::Param { ty, .. } = op {
            ty.rows(&mut all);
        }
        all
    }
}
