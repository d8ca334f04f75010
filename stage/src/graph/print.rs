//! The text form of a graph: one node a line, inputs before users, then the outputs.
//!
//! ```text
//! v0: {a: i64, b: string?} = rel.scan "t"
//! v1: [rows(v0)] i64 = bridge.column v0 "a"
//! v2: i64 = scalar.const 3:i64
//! v3: [rows(v0)] bool = scalar.lt v1, v2
//! v4: {a: i64, b: string?} = rel.filter v0, v3
//! return "small" v4
//! ```
//!
//! Nodes are numbered anew. A table's type leaves out its row count where the node makes the rows itself. The nodes of
//! a region stand in braces behind the loop that owns it.

use super::verify::{free_regions, region_id};
use super::{Clean, Dim, Graph, JoinKind, Node, Op, Region, Ty};
use std::collections::{BTreeSet, HashSet};
use std::fmt::{self, Display};

impl Display for Graph {
    /// Nodes that the outputs need; `{:#}` shows the others too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = match f.alternate() {
            true => (0..self.len() as u32).map(Node).collect(),
            false => self.reachable(),
        };
        let free = free_regions(self);
        let owned = owned(self, &nodes, &free);
        let mut printer = Printer { graph: self, free, owned, names: vec![None; self.len()], next: 0, f };
        for &node in &nodes {
            if !printer.owned.contains(&node) {
                printer.define(node, 0)?;
            }
        }
        for (name, node) in self.outputs() {
            let node = printer.name(*node);
            writeln!(printer.f, "return {name:?} {node}")?;
        }
        Ok(())
    }
}

/// The nodes that are shown inside a region.
fn owned(graph: &Graph, nodes: &[Node], free: &[BTreeSet<u32>]) -> HashSet<Node> {
    let regions = nodes.iter().filter_map(|&node| graph.op(node).region());
    regions.flat_map(|region| body(graph, region, free)).collect()
}

/// Parameters of a region and the nodes under its results that depend on them, in order.
fn body(graph: &Graph, region: &Region, free: &[BTreeSet<u32>]) -> BTreeSet<Node> {
    let mut nodes: BTreeSet<Node> = region.params.iter().copied().collect();
    let Some(id) = region_id(graph, region) else { return nodes };
    let mut stack = region.results.clone();
    while let Some(node) = stack.pop() {
        if free[node.index()].contains(&id) && nodes.insert(node) {
            stack.extend(graph.dependencies(node));
        }
    }
    nodes
}

struct Printer<'a, 'f> {
    graph: &'a Graph,
    free: Vec<BTreeSet<u32>>,
    owned: HashSet<Node>,
    /// New number of each node that has been shown.
    names: Vec<Option<u32>>,
    next: u32,
    f: &'a mut fmt::Formatter<'f>,
}

impl Printer<'_, '_> {
    fn name(&self, node: Node) -> Node {
        Node(self.names[node.index()].unwrap_or(u32::MAX))
    }

    /// Shows a node, and before it whatever it needs that has not been shown.
    fn define(&mut self, node: Node, depth: usize) -> fmt::Result {
        if self.names[node.index()].is_some() {
            return Ok(());
        }
        if let Some(region) = self.graph.op(node).region() {
            for &input in self.graph.inputs(node) {
                self.define(input, depth)?;
            }
            return self.define_loop(node, region, depth);
        }
        for needed in self.graph.dependencies(node) {
            self.define(needed, depth)?;
        }
        self.head(node, depth)?;
        writeln!(self.f)
    }

    fn define_loop(&mut self, node: Node, region: &Region, depth: usize) -> fmt::Result {
        let inside = body(self.graph, region, &self.free);
        // What the region needs from outside stands before the loop; nodes of regions around it have been shown.
        for &inner in &inside {
            for input in self.graph.dependencies(inner) {
                if !inside.contains(&input) && !self.owned.contains(&input) {
                    self.define(input, depth)?;
                }
            }
        }
        for &result in &region.results {
            if !inside.contains(&result) {
                self.define(result, depth)?;
            }
        }
        self.head(node, depth)?;
        writeln!(self.f, " {{")?;
        let nested = nested_bodies(self.graph, &inside, &self.free);
        for &inner in inside.iter().filter(|inner| !nested.contains(inner)) {
            self.define(inner, depth + 1)?;
        }
        let results: Vec<String> = region.results.iter().map(|r| self.name(*r).to_string()).collect();
        writeln!(self.f, "{:1$}return {2}", "", 2 * depth + 2, results.join(", "))?;
        writeln!(self.f, "{:1$}}}", "", 2 * depth)
    }

    /// Number, type, operation, inputs and attributes.
    fn head(&mut self, node: Node, depth: usize) -> fmt::Result {
        let name = Node(self.next);
        self.next += 1;
        self.names[node.index()] = Some(name.0);
        let data = self.graph.node(node);
        let ty = data.ty.map_rows(&|node| self.name(node));
        write!(self.f, "{:1$}{name}: {2} = {3}", "", 2 * depth, shown(&ty, name), data.op.name())?;
        for (i, input) in data.inputs.iter().enumerate() {
            write!(self.f, "{} {}", if i > 0 { "," } else { "" }, self.name(*input))?;
        }
        let attributes = attributes(&data.op, &|dim| dim.map_rows(&|node| self.name(node)));
        self.f.write_str(&attributes)
    }
}

/// The nodes of loops inside a region.
fn nested_bodies(graph: &Graph, inside: &BTreeSet<Node>, free: &[BTreeSet<u32>]) -> HashSet<Node> {
    let mut nested = HashSet::new();
    for &inner in inside {
        if let Some(region) = graph.op(inner).region() {
            nested.extend(body(graph, region, free));
        }
    }
    nested
}

/// A type, without the row count where it is the node's own.
fn shown(ty: &Ty, node: Node) -> String {
    let text = ty.to_string();
    match ty {
        Ty::Table { rows: Dim::Rows(own), .. } if *own == node => {
            text.strip_suffix(&format!(" over rows({node})")).unwrap_or(&text).to_owned()
        }
        _ => text,
    }
}

fn convolution(c: &super::Conv2d) -> String {
    format!(" stride {:?} padding {:?} dilation {:?} groups {}", c.stride, c.padding, c.dilation, c.groups)
}

/// The attributes that the type does not show, each behind a space.
fn attributes(op: &Op, rename: &impl Fn(&Dim) -> Dim) -> String {
    match op {
        Op::Const(literal) => format!(" {literal}"),
        Op::Cast(to) | Op::Random(to) => format!(" to {to}"),
        Op::Like(text) | Op::Column(text) | Op::Scan { table: text, .. } => format!(" {text:?}"),
        Op::Clean(Clean { lower, punctuation, spaces }) => {
            let [lower, punctuation, spaces] = [lower, punctuation, spaces].map(|is_on| u8::from(*is_on));
            format!(" lower {lower} punctuation {punctuation} spaces {spaces}")
        }
        Op::Substring { start, len } => format!(" from {start} len {len}"),
        Op::Project { names } => format!(" as {names:?}"),
        Op::Union { names } => format!(" of {names:?}"),
        Op::Join { kind: JoinKind::Mark(mark), keys } => format!(" keys {keys} as {mark:?}"),
        Op::Join { keys, .. } => format!(" keys {keys}"),
        Op::Aggregate { keys, aggregates } => {
            let each: Vec<String> = aggregates.iter().map(|a| format!("{:?} {}", a.name, a.op.name())).collect();
            format!(" keys {keys:?} compute [{}]", each.join(", "))
        }
        Op::Sort(keys) => {
            let key = |k: &super::SortKey| {
                format!(
                    "{}{}",
                    if k.descending { "desc" } else { "asc" },
                    if k.nulls_first { " nulls_first" } else { "" }
                )
            };
            format!(" by [{}]", keys.iter().map(key).collect::<Vec<_>>().join(", "))
        }
        Op::Limit { offset, count } => format!(" offset {offset} count {count}"),
        Op::Input { name, weight, .. } => format!(" {name:?}{}", if *weight { " weight" } else { "" }),
        Op::Iota(count) => format!(" to {count}"),
        Op::Foreign { name, signature } => format!(" {name:?} of {signature}"),
        Op::Conv2d(c) => convolution(c),
        Op::Conv2dFilters { conv, kernel } => format!(" kernel {kernel:?}{}", convolution(conv)),
        Op::Pool2d(p) | Op::MaxUnpool2d(p) => {
            let ceil = if p.ceil { " ceil" } else { "" };
            format!(" kernel {:?} stride {:?} padding {:?}{ceil}", p.kernel, p.stride, p.padding)
        }
        Op::TreeEnsemble(forest) => format!(" {forest}"),
        Op::BatchNorm { eps } => format!(" eps {:?}", f64::from_bits(*eps)),
        Op::Softmax { axis } | Op::Concat { axis } | Op::ArgMax { axis } | Op::CumSum { axis } => {
            format!(" axis {axis}")
        }
        Op::Reduce { axes, keep, .. } => format!(" axes {axes:?}{}", if *keep { " keep" } else { "" }),
        Op::Slice { axis, start, step, count } => format!(" axis {axis} start {start} step {step} count {count}"),
        Op::Reshape(to) | Op::Broadcast(to) => {
            let dims: Vec<String> = to.iter().map(|dim| rename(dim).to_string()).collect();
            format!(" to [{}]", dims.join(", "))
        }
        Op::Transpose(perm) => format!(" perm {perm:?}"),
        Op::Param { region, index, .. } => format!(" region {region} index {index}"),
        Op::Item(index) => format!(" at {index}"),
        Op::Steps(s) => {
            let back = if s.back { " back" } else { "" };
            format!(" count {} carried {} axis {}{back}", s.count, s.carried, s.axis)
        }
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Filter | Op::Product | Op::MatMul => {
            String::new()
        }
        Op::RowNumber | Op::Gather | Op::ScatterAdd | Op::Stack | Op::Single | Op::If | Op::Loop(_) | Op::Hash => {
            String::new()
        }
    }
}
