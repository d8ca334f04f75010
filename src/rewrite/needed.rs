//! Which columns of each table somebody reads.

use super::expression::arguments;
use super::patch::Patch;
use quearn_stage::graph::fails::{aggregate_can_fail, can_fail};
use quearn_stage::graph::{Aggregate, Graph, Node, Op, Ty};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Names of the columns that are read, by table.
pub struct Needed<'g> {
    graph: &'g Graph,
    /// Expressions of projections that stay although nobody reads them.
    keep: fn(&Graph, Node) -> bool,
    columns: HashMap<Node, BTreeSet<&'g str>>,
    seen: HashSet<Node>,
    /// Still to be followed.
    work: Vec<Work<'g>>,
}

enum Work<'g> {
    Expression(Node),
    Table(Node),
    Column(Node, &'g str),
}

impl<'g> Needed<'g> {
    /// Follows every column from the outputs of the graph down to the scans.
    pub fn of(graph: &'g Graph, keep: fn(&Graph, Node) -> bool) -> Needed<'g> {
        let mut needed = Needed { graph, keep, columns: HashMap::new(), seen: HashSet::new(), work: vec![] };
        for (_, node) in graph.outputs() {
            needed.all_of(*node);
        }
        loop {
            needed.follow();
            needed.first_columns();
            if needed.work.is_empty() {
                return needed;
            }
        }
    }

    fn follow(&mut self) {
        while let Some(work) = self.work.pop() {
            match work {
                Work::Expression(node) => self.expression(node),
                Work::Table(node) => self.table(node),
                Work::Column(table, name) => self.column(table, name),
            }
        }
    }

    /// Tables of which only the rows count keep a column to tell them by.
    fn first_columns(&mut self) {
        for table in self.tables() {
            if !self.columns.contains_key(&table)
                && let Some((fields, _)) = self.graph.ty(table).as_table()
            {
                self.work.extend(fields.first().map(|field| Work::Column(table, &field.name)));
            }
        }
    }

    /// Every table that is there, in order.
    pub fn tables(&self) -> Vec<Node> {
        let mut tables: Vec<Node> =
            self.seen.iter().copied().filter(|n| self.graph.ty(*n).as_table().is_some()).collect();
        tables.sort();
        tables
    }

    /// Is the column read?
    pub fn contains(&self, table: Node, column: &str) -> bool {
        self.columns.get(&table).is_some_and(|columns| columns.contains(column))
    }

    /// A patch for the tables of which not all columns are read. All kinds at once: what one leaves in place would
    /// still read what another drops.
    pub fn patch(&self) -> Option<Patch> {
        let mut patch = Patch::new(self.graph);
        for table in self.tables() {
            let narrower = narrower_projection(self, &mut patch, table)
                .or_else(|| narrower_scan(self, &mut patch, table))
                .or_else(|| narrower_union(self, &mut patch, table))
                .or_else(|| narrower_aggregate(self, &mut patch, table));
            if let Some(new) = narrower {
                patch = patch.replace(table, new);
            }
        }
        (!patch.is_empty()).then_some(patch)
    }

    fn all_of(&mut self, node: Node) {
        self.work.push(match self.graph.ty(node) {
            Ty::Table { .. } => Work::Table(node),
            _ => Work::Expression(node),
        });
        if let Ty::Table { fields, .. } = self.graph.ty(node) {
            self.work.extend(fields.iter().map(|field| Work::Column(node, &field.name)));
        }
    }

    fn expression(&mut self, node: Node) {
        if !self.seen.insert(node) {
            return;
        }
        match self.graph.op(node) {
            Op::Column(name) => self.work.push(Work::Column(self.graph.inputs(node)[0], name)),
            _ => self.work.extend(self.graph.dependencies(node).into_iter().map(|n| {
                let is_table = self.graph.ty(n).as_table().is_some();
                if is_table { Work::Table(n) } else { Work::Expression(n) }
            })),
        }
    }

    /// What a table reads whichever of its columns are: the tables below, predicates, keys, arguments.
    fn table(&mut self, node: Node) {
        if !self.seen.insert(node) {
            return;
        }
        let inputs = self.graph.inputs(node);
        let (tables, read): (usize, Vec<Node>) = match self.graph.op(node) {
            Op::Scan { .. } => (0, vec![]),
            Op::Join { .. } | Op::Product => (2, inputs[2..].to_vec()),
            Op::Union { .. } => (inputs.len(), vec![]),
            Op::Project { .. } => (1, inputs[1..].iter().copied().filter(|&e| (self.keep)(self.graph, e)).collect()),
            Op::Aggregate { keys, aggregates } => (1, self.strict_operands(node, keys.len(), aggregates)),
            _ => (1, inputs[1..].to_vec()),
        };
        self.work.extend(inputs[..tables].iter().map(|&n| Work::Table(n)));
        self.work.extend(read.into_iter().map(Work::Expression));
        // Their columns have the names of expressions that stay.
        if let Op::Project { names } = self.graph.op(node) {
            let kept = names.iter().zip(&inputs[1..]).filter(|(_, e)| (self.keep)(self.graph, **e));
            self.work.extend(kept.map(|(name, _)| Work::Column(node, name)));
        }
    }

    /// Keys, and arguments of aggregates whose failure counts.
    fn strict_operands(&mut self, node: Node, keys: usize, aggregates: &'g [Aggregate]) -> Vec<Node> {
        let mut read = self.graph.inputs(node)[1..=keys].to_vec();
        for (aggregate, argument) in arguments(self.graph, node, keys, aggregates) {
            if !is_droppable(self.graph, aggregate, argument) {
                self.work.push(Work::Column(node, &aggregate.name));
                read.extend(argument);
            }
        }
        read
    }

    /// A column is read, and so is what it is made from.
    fn column(&mut self, table: Node, name: &'g str) {
        if !self.columns.entry(table).or_default().insert(name) {
            return;
        }
        self.work.push(Work::Table(table));
        let graph = self.graph;
        let inputs = graph.inputs(table);
        match graph.op(table) {
            Op::Filter | Op::Sort(_) | Op::Limit { .. } => self.work.push(Work::Column(inputs[0], name)),
            Op::Project { names } => {
                let at = names.iter().position(|n| n == name);
                self.work.extend(at.map(|at| Work::Expression(inputs[1 + at])));
            }
            Op::Union { .. } => self.work.extend(inputs.iter().map(|&input| Work::Column(input, name))),
            Op::Join { .. } | Op::Product => {
                let side = graph.side_of(table, name);
                self.work.extend(side.map(|side| Work::Column(side, name)));
            }
            Op::Aggregate { keys, aggregates } => {
                let argument = arguments(graph, table, keys.len(), aggregates).find(|(a, _)| a.name == name);
                self.work.extend(argument.and_then(|(_, argument)| argument).map(Work::Expression));
            }
            _ => {}
        }
    }
}

/// Can an aggregate be left out without a failure being lost?
fn is_droppable(graph: &Graph, aggregate: &Aggregate, argument: Option<Node>) -> bool {
    let scalar = argument.and_then(|a| graph.ty(a).as_tensor()).map(|(elem, _)| elem.scalar);
    !aggregate_can_fail(aggregate.op, scalar) && !argument.is_some_and(|a| can_fail(graph, a))
}

/// The scan of the columns that are read.
fn narrower_scan(needed: &Needed, patch: &mut Patch, node: Node) -> Option<Node> {
    let Op::Scan { table, fields } = needed.graph.op(node) else { return None };
    let kept = kept(fields, |field| needed.contains(node, &field.name))?;
    let fields = kept.into_iter().map(|at| fields[at].clone()).collect();
    Some(patch.add(Op::Scan { table: table.clone(), fields }, &[]))
}

/// The union of the columns that are read.
fn narrower_union(needed: &Needed, patch: &mut Patch, node: Node) -> Option<Node> {
    let Op::Union { names } = needed.graph.op(node) else { return None };
    let kept = kept(names, |name| needed.contains(node, name))?;
    let names = kept.into_iter().map(|at| names[at].clone()).collect();
    Some(patch.add(Op::Union { names }, needed.graph.inputs(node)))
}

/// The projection of the columns that are read.
fn narrower_projection(needed: &Needed, patch: &mut Patch, node: Node) -> Option<Node> {
    let Op::Project { names } = needed.graph.op(node) else { return None };
    let kept = kept(names, |name| needed.contains(node, name))?;
    let inputs = needed.graph.inputs(node);
    let expressions: Vec<Node> = std::iter::once(inputs[0]).chain(kept.iter().map(|at| inputs[1 + at])).collect();
    let names = kept.iter().map(|&at| names[at].clone()).collect();
    Some(patch.add(Op::Project { names }, &expressions))
}

/// The grouping with the aggregates that are read or can fail.
fn narrower_aggregate(needed: &Needed, patch: &mut Patch, node: Node) -> Option<Node> {
    let Op::Aggregate { keys, aggregates } = needed.graph.op(node) else { return None };
    let all: Vec<_> = arguments(needed.graph, node, keys.len(), aggregates).collect();
    let is_read = |(aggregate, _): &(&Aggregate, Option<Node>)| needed.contains(node, &aggregate.name);
    let kept: Vec<_> = all.iter().copied().filter(is_read).collect();
    if kept.len() == all.len() {
        return None;
    }
    let mut inputs = needed.graph.inputs(node)[..=keys.len()].to_vec();
    inputs.extend(kept.iter().filter_map(|(_, argument)| *argument));
    let aggregates = kept.iter().map(|(aggregate, _)| (*aggregate).clone()).collect();
    Some(patch.add(Op::Aggregate { keys: keys.clone(), aggregates }, &inputs))
}

/// Positions of the items that stay; `None` if all do.
fn kept<T>(items: &[T], stays: impl Fn(&T) -> bool) -> Option<Vec<usize>> {
    let kept: Vec<usize> = (0..items.len()).filter(|&at| stays(&items[at])).collect();
    (kept.len() < items.len()).then_some(kept)
}
