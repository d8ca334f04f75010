//! Which columns of each table are needed by what lies above it: nothing else is read or kept.

use quearn_stage::graph::{Graph, Node, Op, Ty as GraphTy};
use std::collections::{BTreeSet, HashMap};

/// Names of the columns that are needed, by table node.
#[derive(Debug, Default)]
pub struct Needed(HashMap<Node, BTreeSet<String>>);

impl Needed {
    /// Follows every column from the outputs of the graph down to the scans.
    pub fn of(graph: &Graph) -> Needed {
        let mut needed = Needed::default();
        for (_, node) in graph.outputs() {
            match graph.ty(*node) {
                GraphTy::Table { fields, .. } => {
                    needed.table(graph, *node);
                    fields.iter().for_each(|f| needed.column(graph, *node, &f.name));
                }
                _ => needed.expression(graph, *node),
            }
        }
        needed
    }

    /// Is the column needed?
    pub fn contains(&self, table: Node, column: &str) -> bool {
        self.0.get(&table).is_some_and(|columns| columns.contains(column))
    }

    /// The columns of a table that are needed.
    pub fn columns(&self, table: Node) -> impl Iterator<Item = &String> {
        self.0.get(&table).into_iter().flatten()
    }

    /// Everything that an expression reads is needed.
    fn expression(&mut self, graph: &Graph, node: Node) {
        let mut stack = vec![node];
        let mut seen = BTreeSet::new();
        while let Some(node) = stack.pop() {
            if !seen.insert(node) {
                continue;
            }
            match graph.op(node) {
                Op::Column(name) => self.column(graph, graph.inputs(node)[0], name),
                _ => stack.extend(graph.dependencies(node)),
            }
        }
    }

    /// A column is needed, and what it is made from.
    fn column(&mut self, graph: &Graph, table: Node, name: &str) {
        self.table(graph, table);
        if !self.0.entry(table).or_default().insert(name.to_owned()) {
            return;
        }
        let inputs = graph.inputs(table);
        match graph.op(table) {
            Op::Filter | Op::Sort(_) | Op::Limit { .. } => self.column(graph, inputs[0], name),
            Op::Project { names } => {
                if let Some(at) = names.iter().position(|n| n == name) {
                    self.expression(graph, inputs[1 + at]);
                }
            }
            Op::Union { .. } => inputs.iter().for_each(|input| self.column(graph, *input, name)),
            Op::Join { .. } | Op::Product => {
                if let Some(side) = graph.side_of(table, name) {
                    self.column(graph, side, name);
                }
            }
            _ => {}
        }
    }

    /// What an operator reads whichever of its columns are needed, even if none is (its rows may be counted):
    /// predicates, keys, arguments.
    fn table(&mut self, graph: &Graph, table: Node) {
        if self.0.contains_key(&table) {
            return;
        }
        self.0.insert(table, BTreeSet::new());
        let inputs = graph.inputs(table);
        let tables = match graph.op(table) {
            Op::Join { .. } | Op::Product => 2,
            Op::Scan { .. } => 0,
            Op::Union { .. } => inputs.len(),
            _ => 1,
        };
        inputs[..tables].iter().for_each(|input| self.table(graph, *input));
        // The expressions of a projection are needed one by one.
        if !matches!(graph.op(table), Op::Project { .. }) {
            inputs[tables..].iter().for_each(|input| self.expression(graph, *input));
        }
    }
}

/// An expression in short words, for messages: operators over column names.
pub fn spell(graph: &Graph, node: Node) -> String {
    let inputs = graph.inputs(node);
    let words = |depth: usize| inputs.iter().map(|&i| spell_at(graph, i, depth)).collect::<Vec<_>>();
    join_words(graph, node, &words(1))
}

fn spell_at(graph: &Graph, node: Node, depth: usize) -> String {
    if depth > 4 {
        return "…".to_owned();
    }
    match graph.op(node) {
        Op::Column(name) => name.clone(),
        Op::Const(literal) => {
            let text = literal.to_string();
            text.rsplit_once(':').map_or(text.clone(), |(value, _)| value.to_owned())
        }
        _ => {
            let words: Vec<String> = graph.inputs(node).iter().map(|&i| spell_at(graph, i, depth + 1)).collect();
            join_words(graph, node, &words)
        }
    }
}

fn join_words(graph: &Graph, node: Node, words: &[String]) -> String {
    use quearn_stage::graph::BinaryOp;
    match (graph.op(node), words) {
        (Op::Binary(op), [a, b]) => {
            let sign = match op {
                BinaryOp::Add => "+",
                BinaryOp::Sub => "-",
                BinaryOp::Mul => "*",
                BinaryOp::Div => "/",
                other => return format!("{}({a}, {b})", other.name()),
            };
            format!("({a} {sign} {b})")
        }
        (Op::Column(name), _) => name.clone(),
        (op, _) => {
            let name = op.name();
            let short = name.rsplit_once('.').map_or(name.as_str(), |(_, n)| n);
            format!("{short}({})", words.join(", "))
        }
    }
}
