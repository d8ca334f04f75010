//! Activations within a budget: what the backward pass reads of the forward pass is kept, or computed once more.
//!
//! A value is computed again from values that are kept, right before the backward pass reads it for the first time, and all that
//! read it there share it. It is written with `detach` around the kept values, the same number, which sets it apart from what the
//! forward pass has computed: equal nodes are one node.
//!
//! Two ways are tried: to compute again only what is made of kept values element by element, and to keep only what is live between
//! segments (T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training deep nets with sublinear memory cost", 2016), with segments of
//! several lengths, and over the first part of the network only. Of those that fit the one with the least work is taken.

use super::liveness::{Entry, Made, lives, peak};
use crate::error::{Error, Result};
use quearn_stage::graph::{Dim, Graph, GraphError, Node, Op, Scalar, UnaryOp};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a step keeps of its forward pass for its backward pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Activations {
    /// Bytes that are live at once at most, by an estimate that knows neither layouts nor fusion.
    pub bytes: u64,
    /// The same where all are kept.
    pub all: u64,
    /// Values that are computed again.
    pub again: usize,
}

/// Where the parts of a step end: the forward pass, gradients; updates are behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Parts {
    pub(super) loss: Node,
    /// The last gradient.
    pub(super) gradient: Node,
}

/// A step with at most so many bytes of activations. `weights` are the names of its weights.
pub(super) fn within(
    graph: &Graph,
    parts: Parts,
    weights: &HashSet<&str>,
    budget: u64,
) -> Result<(Graph, Activations)> {
    let step = Step::new(graph, parts, weights);
    let whole = Schedule::of(&step, &step.read.iter().copied().collect()).entries;
    let all = peak(&whole);
    if all <= budget {
        return Ok((written(graph, &whole)?, Activations { bytes: all, all, again: 0 }));
    }
    let mut best: Option<(u64, u64, Vec<Entry>)> = None;
    let mut least = all;
    for kept in step.choices() {
        let entries = Schedule::of(&step, &kept).entries;
        let bytes = peak(&entries);
        least = least.min(bytes);
        let work = entries.iter().filter(|entry| entry.made == Made::Again).map(|entry| work(graph, entry.node)).sum();
        if bytes <= budget && best.as_ref().is_none_or(|(other, most, _)| (work, bytes) < (*other, *most)) {
            best = Some((work, bytes, entries));
        }
    }
    let Some((_, bytes, entries)) = best else {
        let message = format!("the activations of a step take {least} bytes at least, more than the {budget} given");
        return Err(Error::Setting(message));
    };
    let again = entries.iter().filter(|entry| entry.made == Made::Again).count();
    Ok((written(graph, &entries)?, Activations { bytes, all, again }))
}

/// What can become of a node of the forward pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It follows from weights and constants.
    Fixed,
    /// It is given, or made by a walk or a table: it stays.
    Held,
    /// It can be computed again.
    Free,
}

/// A step of training.
struct Step<'g> {
    graph: &'g Graph,
    loss: Node,
    nodes: Vec<Node>,
    kinds: Vec<Kind>,
    /// Values of the forward pass that the backward pass reads, and that need not be kept; in order.
    read: Vec<Node>,
    /// Values that are kept in any case.
    held: HashSet<Node>,
}

impl<'g> Step<'g> {
    fn new(graph: &'g Graph, parts: Parts, weights: &HashSet<&str>) -> Step<'g> {
        let (nodes, loss) = (in_order(graph, parts), parts.loss);
        let mut step =
            Step { graph, loss, nodes, kinds: vec![Kind::Held; graph.len()], read: vec![], held: HashSet::new() };
        for &node in &step.nodes {
            step.kinds[node.index()] = step.kind(node, weights);
        }
        let mut held: HashSet<Node> = graph.outputs().iter().map(|(_, node)| source(graph, *node)).collect();
        let mut read = BTreeSet::new();
        let inner = inner(graph, &step.nodes);
        for &node in step.nodes.iter().filter(|node| **node > loss) {
            // What walks read they may read together with a walk of the forward pass.
            let is_walk = inner.contains(&node) || matches!(graph.op(node), Op::Steps(_) | Op::Loop(_));
            for input in graph.dependencies(node) {
                let of = source(graph, input);
                let free = input <= loss && step.kinds[of.index()] == Kind::Free;
                match is_walk {
                    true => held.insert(of),
                    false => free && read.insert(of),
                };
            }
        }
        step.read = read.into_iter().filter(|node| !held.contains(node)).collect();
        step.held = held;
        step
    }

    fn kind(&self, node: Node, weights: &HashSet<&str>) -> Kind {
        let op = self.graph.op(node);
        let of = |node: &Node| self.kinds[node.index()];
        let inputs = self.graph.inputs(node);
        match op {
            Op::Const(_) | Op::Iota(_) => Kind::Fixed,
            Op::Input { name, .. } if weights.contains(name.as_str()) => Kind::Fixed,
            Op::Input { .. } | Op::Param { .. } | Op::Steps(_) | Op::Loop(_) | Op::Item(_) | Op::Foreign { .. } => {
                Kind::Held
            }
            Op::Column(_) | Op::RowNumber | Op::Single => Kind::Held,
            _ if bytes(self.graph, node).is_none() => Kind::Held,
            _ if inputs.iter().all(|input| of(input) == Kind::Fixed) => Kind::Fixed,
            _ => Kind::Free,
        }
    }

    /// Sets of values to keep.
    fn choices(&self) -> Vec<HashSet<Node>> {
        let mut choices = vec![self.not_element_by_element()];
        let forward = Forward::of(self);
        for segments in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48] {
            let checkpoints = forward.checkpoints(segments);
            for part in [1.0, 0.75, 0.5, 0.25] {
                let end = (self.read.len() as f64 * part) as usize;
                choices.push(checkpoints.iter().chain(&self.read[end..]).copied().collect());
            }
        }
        choices
    }

    /// All that is read, but what is made of other values that are kept by operators that work element by element.
    fn not_element_by_element(&self) -> HashSet<Node> {
        let read: HashSet<Node> = self.read.iter().copied().collect();
        let mut light: HashSet<Node> = HashSet::new();
        for &node in self.nodes.iter().filter(|node| **node <= self.loss && self.is_free(**node)) {
            let there = |input: &Node| {
                !self.is_free(*input) || light.contains(input) || read.contains(&source(self.graph, *input))
            };
            if !is_heavy(self.graph.op(node)) && self.graph.inputs(node).iter().all(there) {
                light.insert(node);
            }
        }
        read.into_iter().filter(|node| !light.contains(node)).collect()
    }

    fn is_free(&self, node: Node) -> bool {
        self.kinds[node.index()] == Kind::Free
    }
}

/// The forward pass on its own.
struct Forward<'s, 'g> {
    step: &'s Step<'g>,
    /// From where to where values live that could be computed again.
    spans: Vec<(Node, usize, usize)>,
    /// Bytes that are live after each node.
    live: Vec<u64>,
    /// Bytes that the backward pass reads of what has been made so far.
    read: Vec<u64>,
}

impl<'s, 'g> Forward<'s, 'g> {
    fn of(step: &'s Step<'g>) -> Forward<'s, 'g> {
        let entries = Schedule::forward(step).entries;
        let spans = entries.iter().zip(lives(&entries)).enumerate();
        let spans = spans.filter_map(|(at, (entry, last))| Some((entry.node, at, last?)));
        let spans: Vec<_> = spans.filter(|(node, ..)| step.is_free(*node)).collect();
        let size = |node: Node| bytes(step.graph, node).unwrap_or(0);
        let (mut live, mut read) = (vec![0; entries.len()], vec![]);
        for &(node, from, to) in &spans {
            live[from..to].iter_mut().for_each(|bytes| *bytes += size(node));
        }
        let mut sum = 0;
        for entry in &entries {
            sum += if step.read.binary_search(&entry.node).is_ok() { size(entry.node) } else { 0 };
            read.push(sum);
        }
        Forward { step, spans, live, read }
    }

    /// The values that are live between as many segments, which are read in equal parts, about: each is cut off where the least
    /// bytes are live.
    fn checkpoints(&self, segments: u64) -> HashSet<Node> {
        let part = self.read.last().copied().unwrap_or(0) / segments;
        let cut = |i: u64| {
            let near = (0..self.read.len()).filter(|at| self.read[*at].abs_diff(i * part) <= part / 2);
            near.min_by_key(|at| (self.live[*at], self.read[*at].abs_diff(i * part)))
        };
        let cuts: Vec<usize> = (1..segments).filter_map(cut).collect();
        let across = |(_, from, to): &&(Node, usize, usize)| cuts.iter().any(|cut| from <= cut && cut < to);
        self.spans.iter().filter(across).map(|(node, ..)| source(self.step.graph, *node)).collect()
    }
}

/// The nodes of a step, updates where their gradients are: what a gradient is computed from need not live until all gradients are
/// there. A state is not updated before the last gradient has read it, so that it can be updated in place.
fn in_order(graph: &Graph, Parts { loss, gradient }: Parts) -> Vec<Node> {
    let mut nodes = graph.reachable();
    let mut ready: HashMap<Node, Node> = HashMap::new();
    // By name: what is read, and where last.
    let mut read: HashMap<&str, Node> = HashMap::new();
    for &node in &nodes {
        let inputs = graph.dependencies(node);
        let mut at = inputs.iter().map(|input| ready[input]).max().unwrap_or(loss);
        if node <= gradient {
            at = node;
            for input in &inputs {
                if let Op::Input { name, .. } = graph.op(*input) {
                    read.insert(name, node);
                }
            }
        }
        for (name, _) in graph.outputs().iter().filter(|(_, output)| *output == node && node > gradient) {
            at = at.max(read.get(name.as_str()).copied().unwrap_or(loss));
        }
        ready.insert(node, at);
    }
    nodes.sort_by_key(|node| (ready[node], *node));
    nodes
}

/// Nodes inside the regions of walks.
fn inner(graph: &Graph, nodes: &[Node]) -> HashSet<Node> {
    let mut inner = HashSet::new();
    for &node in nodes {
        let is_param = matches!(graph.op(node), Op::Param { .. });
        let is_walk = matches!(graph.op(node), Op::Steps(_) | Op::Loop(_));
        if is_param || !is_walk && graph.inputs(node).iter().any(|input| inner.contains(input)) {
            inner.insert(node);
        }
    }
    inner
}

/// The value that a view is a view of.
fn source(graph: &Graph, mut node: Node) -> Node {
    while is_view(graph.op(node)) {
        node = graph.inputs(node)[0];
    }
    node
}

fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Transpose(_) | Op::Slice { .. } | Op::Unary(UnaryOp::Detach))
}

/// Is an operator more than a pass over its operands?
fn is_heavy(op: &Op) -> bool {
    let light = matches!(
        op,
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::If | Op::Cast(_) | Op::Broadcast(_)
    );
    !light && !is_view(op) && !matches!(op, Op::BatchNorm { .. } | Op::Random(_))
}

/// Bytes of a tensor of known extents.
fn bytes(graph: &Graph, node: Node) -> Option<u64> {
    let (elem, shape) = graph.ty(node).as_tensor()?;
    let count = shape.iter().map(Dim::as_const).try_fold(1u64, |all, extent| all.checked_mul(extent?))?;
    let size = match elem.scalar {
        Scalar::Bool | Scalar::I8 | Scalar::U8 => 1,
        Scalar::I16 | Scalar::F16 | Scalar::BF16 => 2,
        Scalar::I32 | Scalar::F32 | Scalar::Date => 4,
        _ => 8,
    };
    count.checked_mul(size)
}

/// Operations that it takes to compute a value, about.
fn work(graph: &Graph, node: Node) -> u64 {
    let elements = |node: Node| match graph.ty(node).as_tensor() {
        Some((_, shape)) => shape.iter().map(|dim| dim.as_const().unwrap_or(1)).product::<u64>().max(1),
        None => 1,
    };
    let extent = |node: Node, axis: Option<usize>| {
        let (_, shape) = graph.ty(node).as_tensor()?;
        shape.get(axis.unwrap_or(shape.len().checked_sub(1)?))?.as_const()
    };
    let inputs = graph.inputs(node);
    match graph.op(node) {
        Op::MatMul => 2 * elements(node) * extent(inputs[0], None).unwrap_or(1),
        Op::Conv2d(_) => 2 * elements(node) * (elements(inputs[1]) / extent(inputs[1], Some(0)).unwrap_or(1).max(1)),
        Op::Reduce { .. } | Op::Pool2d(_) | Op::Softmax { .. } => elements(inputs[0]),
        op if is_view(op) => 0,
        _ => elements(node),
    }
}

/// All that a step computes, in order.
struct Schedule<'s, 'g> {
    step: &'s Step<'g>,
    kept: &'s HashSet<Node>,
    entries: Vec<Entry>,
    /// Where a value is computed for the first time, and for the second.
    first: HashMap<Node, usize>,
    again: HashMap<Node, usize>,
    wrapped: HashMap<usize, usize>,
}

impl<'s, 'g> Schedule<'s, 'g> {
    /// Of a step that keeps these values.
    fn of(step: &'s Step<'g>, kept: &'s HashSet<Node>) -> Schedule<'s, 'g> {
        Schedule::up_to(step, kept, Node(u32::MAX))
    }

    /// Of the forward pass.
    fn forward(step: &'s Step<'g>) -> Schedule<'s, 'g> {
        Schedule::up_to(step, &step.held, step.loss)
    }

    fn up_to(step: &'s Step<'g>, kept: &'s HashSet<Node>, last: Node) -> Schedule<'s, 'g> {
        let (first, again, wrapped) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut schedule = Schedule { step, kept, entries: vec![], first, again, wrapped };
        for &node in step.nodes.iter().filter(|node| **node <= last) {
            let made = if node <= step.loss { Made::Forward } else { Made::Backward };
            let inputs = step.graph.inputs(node).iter().map(|input| match made {
                Made::Backward => schedule.for_backward(*input),
                _ => schedule.first[input],
            });
            let inputs = inputs.collect();
            let at = schedule.push(node, made, inputs);
            schedule.first.insert(node, at);
        }
        schedule
    }

    fn push(&mut self, node: Node, made: Made, inputs: Vec<usize>) -> usize {
        let graph = self.step.graph;
        let op = graph.op(node);
        let counts = made != Made::Backward && self.step.kinds[node.index()] == Kind::Free;
        let bytes = if counts { bytes(graph, node).unwrap_or(0) } else { 0 };
        let view = made == Made::Wrapped || is_view(op);
        let heavy = is_heavy(op) || graph.outputs().iter().any(|(_, output)| *output == node);
        self.entries.push(Entry { node, made, inputs, bytes: if view { 0 } else { bytes }, view, heavy });
        self.entries.len() - 1
    }

    fn is_kept(&self, node: Node) -> bool {
        let of = source(self.step.graph, node);
        self.step.kinds[node.index()] != Kind::Free
            || self.step.kinds[of.index()] != Kind::Free
            || self.kept.contains(&of)
            || self.step.held.contains(&of)
    }

    /// A value as the backward pass reads it.
    fn for_backward(&mut self, node: Node) -> usize {
        if node > self.step.loss || self.is_kept(node) {
            return self.first[&node];
        }
        let (mut needed, mut stack) = (BTreeSet::new(), vec![node]);
        while let Some(node) = stack.pop() {
            if !self.is_kept(node) && !self.again.contains_key(&node) && needed.insert(node) {
                stack.extend(self.step.graph.inputs(node));
            }
        }
        for node in needed {
            let at = self.compute_again(node);
            self.again.insert(node, at);
        }
        self.again[&node]
    }

    fn compute_again(&mut self, node: Node) -> usize {
        let operands = self.step.graph.inputs(node).to_vec();
        let inputs: Vec<usize> = operands.iter().map(|input| self.operand(*input)).collect();
        match operands.iter().zip(&inputs).all(|(operand, at)| self.first[operand] == *at) {
            // Nothing would tell it apart.
            true => self.first[&node],
            false => self.push(node, Made::Again, inputs),
        }
    }

    /// An operand of what is computed again.
    fn operand(&mut self, node: Node) -> usize {
        if !self.is_kept(node) {
            return self.again[&node];
        }
        let first = self.first[&node];
        let is_float = self.step.graph.ty(node).as_tensor().is_some_and(|(elem, _)| elem.scalar.is_float());
        if self.step.kinds[node.index()] == Kind::Fixed || !is_float {
            return first;
        }
        if let Some(&at) = self.wrapped.get(&first) {
            return at;
        }
        let at = self.push(node, Made::Wrapped, vec![first]);
        self.wrapped.insert(first, at);
        at
    }
}

/// The graph of a schedule.
fn written(graph: &Graph, entries: &[Entry]) -> Result<Graph> {
    let wrong = |error: GraphError| Error::Setting(format!("internal error: a value that is computed again: {error}"));
    let mut result = Graph::new();
    let (mut made, mut first): (Vec<Node>, HashMap<Node, Node>) = (vec![], HashMap::new());
    for entry in entries {
        let inputs: Vec<Node> = entry.inputs.iter().map(|at| made[*at]).collect();
        let rows = |node: Node| result.ty(node).as_table().map(|(_, rows)| rows.clone());
        let dim = |dim: &Dim| match dim {
            Dim::Rows(maker) => first.get(maker).and_then(|node| rows(*node)).unwrap_or_else(|| dim.clone()),
            other => other.clone(),
        };
        let op = match entry.made {
            Made::Wrapped => Op::Unary(UnaryOp::Detach),
            _ => graph.op(entry.node).moved(|node| first[&node], dim),
        };
        let node = result.add(op, &inputs).map_err(wrong)?;
        made.push(node);
        if matches!(entry.made, Made::Forward | Made::Backward) {
            first.insert(entry.node, node);
        }
    }
    for (name, node) in graph.outputs() {
        result.output(name.clone(), first[node]);
    }
    Ok(result)
}
