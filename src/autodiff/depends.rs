//! What depends on what the gradients are taken by: tensors as a whole, tables by column.

use quearn_stage::graph::{AggregateOp, Graph, Node, Op, Ty, UnaryOp};
use std::collections::{BTreeSet, HashMap};

/// Nodes, and columns of tables, through which a gradient passes.
pub(super) struct Depends {
    nodes: Vec<bool>,
    columns: HashMap<Node, BTreeSet<String>>,
}

impl Depends {
    /// What depends on one of `wrt`, of the nodes up to `last`.
    pub(super) fn on(graph: &Graph, wrt: &[Node], last: Node) -> Depends {
        let mut depends = Depends { nodes: vec![false; last.index() + 1], columns: HashMap::new() };
        for &node in wrt {
            if let Op::Column(name) = graph.op(node) {
                depends.columns.entry(graph.inputs(node)[0]).or_default().insert(name.clone());
            }
        }
        for node in (0..=last.0).map(Node) {
            match graph.ty(node) {
                Ty::Tensor { elem, .. } => {
                    let differs = wrt.contains(&node) || depends.passes(graph, node);
                    depends.nodes[node.index()] = elem.scalar.is_float() && differs;
                }
                Ty::Tuple(_) => depends.nodes[node.index()] = depends.passes(graph, node),
                Ty::Table { .. } => depends.table(graph, node),
            }
        }
        depends
    }

    /// Does a tensor or tuple depend?
    pub(super) fn has(&self, node: Node) -> bool {
        self.nodes.get(node.index()).copied().unwrap_or(false)
    }

    /// Does a column of a table depend?
    pub(super) fn has_column(&self, table: Node, name: &str) -> bool {
        self.columns.get(&table).is_some_and(|columns| columns.contains(name))
    }

    fn passes(&self, graph: &Graph, node: Node) -> bool {
        match graph.op(node) {
            Op::Column(name) => self.has_column(graph.inputs(node)[0], name),
            Op::Unary(UnaryOp::Detach) => false,
            _ => graph.dependencies(node).into_iter().any(|n| self.has(n)),
        }
    }

    fn table(&mut self, graph: &Graph, node: Node) {
        let found = self.made(graph, node);
        let mine = self.columns.entry(node).or_default();
        mine.extend(found);
    }

    /// The columns of a table that depend since those of its inputs do.
    fn made(&self, graph: &Graph, node: Node) -> BTreeSet<String> {
        let inputs = graph.inputs(node);
        let of = |table: &Node| self.columns.get(table).cloned().unwrap_or_default();
        match graph.op(node) {
            Op::Filter | Op::Sort(_) | Op::Limit { .. } => of(&inputs[0]),
            Op::Project { names } => {
                let made = names.iter().zip(&inputs[1..]).filter(|(_, value)| self.has(**value));
                made.map(|(name, _)| name.clone()).collect()
            }
            Op::Union { names } => {
                let any = |name: &&String| inputs.iter().any(|&table| self.has_column(table, name));
                names.iter().filter(any).cloned().collect()
            }
            Op::Product | Op::Join { .. } => {
                let fields = graph.ty(node).as_table().map(|(fields, _)| fields).unwrap_or_default();
                let from = |name: &str| graph.side_of(node, name).is_some_and(|side| self.has_column(side, name));
                fields.iter().filter(|field| from(&field.name)).map(|field| field.name.clone()).collect()
            }
            Op::Aggregate { keys, aggregates } => {
                let mut arguments = inputs[1 + keys.len()..].iter();
                let mut made = BTreeSet::new();
                for aggregate in aggregates {
                    let Some(argument) = arguments.next_if_argument(aggregate.op) else { continue };
                    let smooth = !matches!(aggregate.op, AggregateOp::Count | AggregateOp::CountDistinct);
                    if smooth && self.has(*argument) {
                        made.insert(aggregate.name.clone());
                    }
                }
                made
            }
            _ => BTreeSet::new(),
        }
    }
}

/// The arguments of aggregates, of which one has none.
trait Arguments<'a> {
    fn next_if_argument(&mut self, op: AggregateOp) -> Option<&'a Node>;
}

impl<'a, I: Iterator<Item = &'a Node>> Arguments<'a> for I {
    fn next_if_argument(&mut self, op: AggregateOp) -> Option<&'a Node> {
        if op == AggregateOp::CountRows { None } else { self.next() }
    }
}
