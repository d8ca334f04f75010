//! Sums scattered over the rows of a stored table become a left join with a grouping by the row.
//!
//! Law: `scatter_add(data, row, values)` over the rows of a scan `t`, where `row` is the number of a row of `t` for each row of
//! another table `u`, is `data + coalesce(sum, 0)` over the rows of `left_join(t, group u by row { sum of values })`: a number has
//! one group or none, so that no row of `t` is lost or met twice. A result with these rows is sorted by their numbers.
//!
//! There are no loops for the former. What is computed from the sums is over the rows of the join then, as is all that it is
//! computed from; what the sums are made of stays where it is. So this is no change at a node, but a pass of its own.

use super::expression::mentions;
use quearn_stage::graph::{
    Aggregate, AggregateOp, BinaryOp, Dim, Graph, GraphError, JoinKind, Literal, Node, Op, SortKey, Ty,
};
use std::collections::{BTreeMap, HashMap};

/// The graph with its scattered sums as joins, and how many there were, if there are any.
///
/// # Errors
/// A bug: a node breaks a type rule in its new place.
pub(super) fn scatter_rows(graph: &Graph) -> Result<Option<(Graph, usize)>, GraphError> {
    let (mut made, mut count): (Option<Graph>, _) = (None, 0);
    // Each round joins one table. Sums that are made of others over the same rows are left: theirs is no scan any more.
    loop {
        let graph = made.as_ref().unwrap_or(graph);
        let nodes = graph.reachable();
        let Some(scan) = nodes.iter().find_map(|&node| scattered(graph, node).map(|sum| sum.scan)) else { break };
        let sums: Vec<Node> = nodes.into_iter().filter(|&node| is_over(graph, node, scan)).collect();
        let first = independent(graph, &sums);
        count += first.len();
        made = Some(Move::of(graph, scan, &first)?);
    }
    Ok(made.map(|graph| (graph, count)))
}

/// A sum scattered over the rows of a scan.
struct Scattered {
    scan: Node,
    /// The table whose rows are summed up.
    from: Node,
}

fn scattered(graph: &Graph, node: Node) -> Option<Scattered> {
    let (Op::ScatterAdd, &[_, row, values]) = (graph.op(node), graph.inputs(node)) else { return None };
    let scan = numbered(graph, row)?;
    let (_, rows) = graph.ty(scan).as_table()?;
    let (_, shape) = graph.ty(node).as_tensor()?;
    let ([over], [Dim::Rows(from)]) = (shape, graph.ty(values).as_tensor()?.1) else { return None };
    (over == rows).then_some(Scattered { scan, from: *from })
}

fn is_over(graph: &Graph, node: Node, scan: Node) -> bool {
    scattered(graph, node).is_some_and(|sum| sum.scan == scan)
}

/// The scan whose rows a value numbers, handed through operators that copy columns.
fn numbered(graph: &Graph, mut node: Node) -> Option<Node> {
    loop {
        let inputs = graph.inputs(node);
        // Whatever is in the place of NULL is the number of a row, or of none and then a failure that gets lost.
        if let Op::Binary(BinaryOp::Coalesce) = graph.op(node) {
            node = inputs[0];
            continue;
        }
        let Op::Column(name) = graph.op(node) else {
            return matches!(graph.op(node), Op::RowNumber).then(|| inputs[0]);
        };
        let mut table = inputs[0];
        node = loop {
            let inputs = graph.inputs(table);
            table = match graph.op(table) {
                Op::Project { names } => break inputs[1 + names.iter().position(|n| n == name)?],
                Op::Filter | Op::Sort(_) | Op::Limit { .. } => inputs[0],
                Op::Product | Op::Join { .. } => graph.side_of(table, name)?,
                _ => return None,
            };
        };
    }
}

/// The sums that are made of no other of them.
fn independent(graph: &Graph, sums: &[Node]) -> Vec<Node> {
    let made_of = below(graph, sums);
    sums.iter().copied().filter(|sum| !graph.dependencies(*sum).iter().any(|n| made_of[n.index()])).collect()
}

/// Which nodes are made of some, these among them.
fn below(graph: &Graph, some: &[Node]) -> Vec<bool> {
    let mut made_of = vec![false; graph.len()];
    for node in (0..graph.len() as u32).map(Node) {
        made_of[node.index()] = some.contains(&node) || graph.dependencies(node).iter().any(|n| made_of[n.index()]);
    }
    made_of
}

/// Copies a graph, with what is made of the sums over the rows of the join.
struct Move<'g> {
    graph: &'g Graph,
    scan: Node,
    /// Nodes that are made of the sums.
    above: Vec<bool>,
    result: Graph,
    stays: HashMap<Node, Node>,
    moved: HashMap<Node, Node>,
    /// The join, once its sides are there.
    joined: Option<Node>,
    sums: BTreeMap<Node, String>,
}

/// The name of a column that the scan does not have.
fn fresh(graph: &Graph, scan: Node, name: &str) -> String {
    let fields = graph.ty(scan).as_table().map(|(fields, _)| fields).unwrap_or_default();
    let mut name = name.to_owned();
    while fields.iter().any(|field| field.name.starts_with(&name)) {
        name.push('\'');
    }
    name
}

impl<'g> Move<'g> {
    fn of(graph: &'g Graph, scan: Node, sums: &[Node]) -> Result<Graph, GraphError> {
        let name = fresh(graph, scan, "scattered");
        let sums: BTreeMap<Node, String> =
            sums.iter().enumerate().map(|(i, sum)| (*sum, format!("{name} {i}"))).collect();
        let above = below(graph, &sums.keys().copied().collect::<Vec<_>>());
        let result = Graph::new();
        let mut this =
            Move { graph, scan, above, result, stays: HashMap::new(), moved: HashMap::new(), joined: None, sums };
        for node in graph.reachable() {
            if !this.above[node.index()] {
                this.stay(node)?;
            }
        }
        this.joined = Some(this.join()?);
        for (name, node) in graph.outputs() {
            let node = this.place(*node)?;
            let node = this.in_order(node)?;
            this.result.output(name.clone(), node);
        }
        Ok(this.result)
    }

    /// A copy of a node that no sum is part of.
    fn stay(&mut self, node: Node) -> Result<(), GraphError> {
        let op = self.graph.op(node).moved(|n| self.stays[&n], |dim| self.dim(dim, &self.stays));
        let inputs: Vec<Node> = self.graph.inputs(node).iter().map(|n| self.stays[n]).collect();
        let made = self.result.add(op, &inputs)?;
        self.stays.insert(node, made);
        Ok(())
    }

    fn dim(&self, dim: &Dim, places: &HashMap<Node, Node>) -> Dim {
        let Dim::Rows(maker) = dim else { return dim.clone() };
        let rows = |node: &Node| self.result.ty(*node).as_table().map(|(_, rows)| rows.clone());
        places.get(maker).or_else(|| self.stays.get(maker)).and_then(rows).unwrap_or_else(|| dim.clone())
    }

    /// The scan and the sums by row, joined.
    fn join(&mut self) -> Result<Node, GraphError> {
        let row = fresh(self.graph, self.scan, "row");
        let scan = self.stays[&self.scan];
        let fields = self.graph.ty(self.scan).as_table().map(|(fields, _)| fields).unwrap_or_default();
        let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
        let number = self.result.add(Op::RowNumber, &[scan])?;
        let mut joined = self.project(scan, &names, Some((row.clone(), number)))?;
        for (sum, name) in self.sums.clone() {
            let [_, key, values] = self.graph.inputs(sum)[..] else { continue };
            let Some(Scattered { from, .. }) = scattered(self.graph, sum) else { continue };
            let mine = format!("{name} by");
            let grouped =
                Op::Aggregate { keys: vec![mine.clone()], aggregates: vec![Aggregate { name, op: AggregateOp::Sum }] };
            let groups = self.result.add(grouped, &[from, key, values].map(|n| self.stays[&n]))?;
            let left = self.result.add(Op::Column(row.clone()), &[joined])?;
            let right = self.result.add(Op::Column(mine), &[groups])?;
            joined = self.result.add(Op::Join { kind: JoinKind::Left, keys: 1 }, &[joined, groups, left, right])?;
        }
        self.moved.insert(self.scan, joined);
        Ok(joined)
    }

    /// A result; one with the rows of the scan in their order, since that is all that says which row is whose.
    fn in_order(&mut self, node: Node) -> Result<Node, GraphError> {
        let Some(joined) = self.joined else { return Ok(node) };
        let Some((_, rows)) = self.result.ty(joined).as_table() else { return Ok(node) };
        match self.result.ty(node) {
            Ty::Table { rows: of, .. } if of == rows => self.sorted(joined, node),
            Ty::Tensor { shape, .. } if shape.first() == Some(rows) => {
                let name = "value".to_owned();
                let table = self.result.add(Op::Project { names: vec![name.clone()] }, &[joined, node])?;
                let sorted = self.sorted(joined, table)?;
                self.result.add(Op::Column(name), &[sorted])
            }
            _ => Ok(node),
        }
    }

    /// A table with the rows of the join, sorted by their numbers.
    fn sorted(&mut self, joined: Node, table: Node) -> Result<Node, GraphError> {
        let row = self.result.add(Op::Column(fresh(self.graph, self.scan, "row")), &[joined])?;
        let fields = self.result.ty(table).as_table().map(|(fields, _)| fields.to_vec()).unwrap_or_default();
        let names: Vec<String> = fields.into_iter().map(|field| field.name).collect();
        let mut by = "row".to_owned();
        while names.contains(&by) {
            by.push('\'');
        }
        let numbered = self.project(table, &names, Some((by.clone(), row)))?;
        let row = self.result.add(Op::Column(by), &[numbered])?;
        let sorted =
            self.result.add(Op::Sort(vec![SortKey { descending: false, nulls_first: false }]), &[numbered, row])?;
        self.project(sorted, &names, None)
    }

    /// Columns of a table, and one more.
    fn project(&mut self, table: Node, names: &[String], more: Option<(String, Node)>) -> Result<Node, GraphError> {
        let (mut all, mut operands) = (names.to_vec(), vec![table]);
        for name in names {
            operands.push(self.result.add(Op::Column(name.clone()), &[table])?);
        }
        if let Some((name, column)) = more {
            all.push(name);
            operands.push(column);
        }
        self.result.add(Op::Project { names: all }, &operands)
    }

    /// Is a node over the rows of the scan, or made of something that is?
    fn moves(&self, node: Node) -> bool {
        let rows = self.graph.ty(self.scan).as_table().map(|(_, rows)| rows);
        self.above[node.index()] || rows.is_some_and(|rows| mentions(self.graph.ty(node), rows))
    }

    /// A node where something that is made of the sums reads it.
    fn place(&mut self, root: Node) -> Result<Node, GraphError> {
        let mut stack = vec![(root, false)];
        while let Some((node, ready)) = stack.pop() {
            if self.moved.contains_key(&node) || !self.moves(node) {
                continue;
            }
            if ready {
                let made = self.made(node)?;
                self.moved.insert(node, made);
                continue;
            }
            stack.push((node, true));
            stack.extend(self.before(node).into_iter().map(|n| (n, false)));
        }
        Ok(self.at(root))
    }

    /// What must be there before a node.
    fn before(&self, node: Node) -> Vec<Node> {
        match self.graph.op(node) {
            Op::ScatterAdd if self.sums.contains_key(&node) => vec![self.graph.inputs(node)[0]],
            _ => self.graph.dependencies(node),
        }
    }

    fn at(&self, node: Node) -> Node {
        self.moved.get(&node).copied().unwrap_or_else(|| self.stays[&node])
    }

    /// A node over the rows of the join.
    fn made(&mut self, node: Node) -> Result<Node, GraphError> {
        let inputs = self.graph.inputs(node);
        let Some(joined) = self.joined else { return Ok(node) };
        if let Some(name) = self.sums.get(&node) {
            let sum = self.result.add(Op::Column(name.clone()), &[joined])?;
            let scalar = self.graph.ty(node).as_tensor().map(|(elem, _)| elem.scalar);
            let zero = scalar.and_then(|scalar| Literal::float(scalar, 0.0)).unwrap_or_else(|| Literal::bool(false));
            let zero = self.result.add(Op::Const(zero), &[])?;
            let sum = self.result.add(Op::Binary(BinaryOp::Coalesce), &[sum, zero])?;
            return self.result.add(Op::Binary(BinaryOp::Add), &[self.at(inputs[0]), sum]);
        }
        if matches!(self.graph.op(node), Op::RowNumber) {
            return self.result.add(Op::Column(fresh(self.graph, self.scan, "row")), &[joined]);
        }
        let op = self.graph.op(node).moved(|n| self.at(n), |dim| self.dim(dim, &self.moved));
        let inputs: Vec<Node> = inputs.iter().map(|n| self.at(*n)).collect();
        self.result.add(op, &inputs)
    }
}
