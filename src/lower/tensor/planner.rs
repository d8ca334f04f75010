//! Makes the [`Plan`]: goes through the nodes in order, decides what is materialised, and appends stages.

use super::attention;
use super::nest::{Nest, Vectors};
use super::places::Layout;
use super::plan::{Items, Kind, Place, Plan, Stage, check_elem, is_elementwise, scalar_of, shape_of, sizes_of};
use super::products::PackKey;
use super::reduce::Along;
use super::spec::{AxisSpec, BufferId, Size, Spec, row_major};
use super::steps::{self, Open};
use super::target::Target;
use super::unpool;
use super::updates;
use crate::lower::error::LowerError;
use quearn_stage::graph::{self, BinaryOp, Graph, Node, Op, Region, Scalar, UnaryOp};
use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) type Result<T> = std::result::Result<T, LowerError>;

/// What a plan is made for.
pub struct Request<'a, 'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// The nodes that the roots need, in order.
    pub nodes: &'a [Node],
    /// Results, with their position among the outputs of the program if they go there.
    pub roots: &'a [(Node, Option<usize>)],
    /// Nodes that the caller gives, with their strides in bytes.
    pub leaves: &'a HashMap<Node, Vec<i64>>,
    /// What the program runs over, and the nodes that have it as leading dimension.
    pub items: (Items, Vec<bool>),
    /// The processor.
    pub target: Target,
}

pub(super) struct Planner<'a, 'g> {
    pub(super) request: &'a Request<'a, 'g>,
    pub(super) plan: Plan<'g>,
    pub(super) users: HashMap<Node, Vec<Node>>,
    /// Nodes inside the region of a loop: they have a value only there.
    pub(super) bound: HashSet<Node>,
    /// The steps that nodes are inside of.
    pub(super) owners: HashMap<Node, Node>,
    /// Steps whose bodies are being planned, outermost first.
    pub(super) open: Vec<Open>,
    /// Where results of steps should go.
    pub(super) targets: HashMap<Node, Spec>,
    /// Nodes that depend on weights and constants only.
    pub(super) constant: HashSet<Node>,
    /// Rank-4 nodes laid out with channels innermost.
    pub(super) images: HashSet<Node>,
    /// Zeros that consumers want around a node.
    pub(super) halos: HashMap<Node, [u64; 2]>,
    /// Root of the elementwise epilogue of a heavy node.
    pub(super) epilogues: HashMap<Node, Node>,
    /// Heavy node of a root.
    pub(super) heavy_of: HashMap<Node, Node>,
    /// Products that are made where several results are computed from them, with these.
    pub(super) joint: BTreeMap<Node, Vec<Node>>,
    /// Nodes computed inside an epilogue.
    pub(super) inside: HashSet<Node>,
    /// The concatenation that a node is written into, and the first index along its axis.
    pub(super) slices: HashMap<Node, (Node, u64)>,
    pub(super) joined: HashMap<Node, Spec>,
    pub(super) copies: HashMap<(Node, Layout), Spec>,
    /// Attention by its last product.
    pub(super) attentions: HashMap<Node, attention::Parts>,
    /// Roots of heavy nodes that are computed in the stage of another.
    pub(super) absorbed: HashSet<Node>,
    /// Packed weights, by weight, groups, axis of the columns, axes of the inner dimension, and vectors of a panel.
    pub(super) packs: HashMap<PackKey, BufferId>,
    /// Did the last stage that used packed weights run through them backwards?
    pub(super) turns: HashMap<BufferId, bool>,
}

/// Makes the plan.
pub fn plan<'g>(request: &Request<'_, 'g>) -> Result<Plan<'g>> {
    let plan = Plan {
        graph: request.graph,
        target: request.target,
        items: request.items.0.clone(),
        homes: HashMap::new(),
        buffers: vec![],
        prepare: vec![],
        stages: vec![],
        changing: HashSet::new(),
    };
    let mut planner = Planner {
        request,
        plan,
        users: HashMap::new(),
        bound: HashSet::new(),
        owners: steps::owners(request.graph, request.nodes),
        open: vec![],
        targets: HashMap::new(),
        constant: HashSet::new(),
        images: HashSet::new(),
        halos: HashMap::new(),
        epilogues: HashMap::new(),
        heavy_of: HashMap::new(),
        joint: BTreeMap::new(),
        inside: HashSet::new(),
        slices: HashMap::new(),
        joined: HashMap::new(),
        copies: HashMap::new(),
        turns: HashMap::new(),
        attentions: HashMap::new(),
        absorbed: HashSet::new(),
        packs: HashMap::new(),
    };
    planner.analyse();
    for node in planner.order() {
        planner.node(node)?;
    }
    planner.outputs()?;
    planner.plan.changing = updates::inputs(&planner.plan);
    Ok(planner.plan)
}

/// What is smaller by such a factor is read from the cache.
const FEW_OF: u64 = 8;

/// Operations that read their operands many times or out of order, so that they get a stage of their own.
fn is_heavy(op: &Op) -> bool {
    matches!(
        op,
        Op::MatMul
            | Op::Conv2d(_)
            | Op::Conv2dFilters { .. }
            | Op::Pool2d(_)
            | Op::MaxUnpool2d(_)
            | Op::Softmax { .. }
            | Op::Concat { .. }
            | Op::Reduce { .. }
            | Op::ArgMax { .. }
            | Op::TreeEnsemble(_)
            | Op::CumSum { .. }
            | Op::ScatterAdd
            | Op::Stack
            | Op::Foreign { .. }
    )
}

/// Heavy operations whose results pass through registers one element at a time.
fn has_epilogue(graph: &Graph, node: Node) -> bool {
    match graph.op(node) {
        Op::MatMul | Op::Conv2d(_) | Op::Conv2dFilters { .. } | Op::Pool2d(_) | Op::Reduce { .. } => true,
        Op::MaxUnpool2d(pool) => unpool::is_grid(graph, pool, graph.inputs(node)[0]),
        _ => false,
    }
}

impl<'g> Planner<'_, 'g> {
    pub(super) fn graph(&self) -> &'g Graph {
        self.request.graph
    }

    pub(super) fn inputs(&self, node: Node) -> &'g [Node] {
        self.graph().inputs(node)
    }

    pub(super) fn is_leaf(&self, node: Node) -> bool {
        self.request.leaves.contains_key(&node)
    }

    pub(super) fn output_of(&self, node: Node) -> Option<usize> {
        self.request.roots.iter().find(|(root, _)| *root == node).and_then(|(_, index)| *index)
    }

    pub(super) fn is_root(&self, node: Node) -> bool {
        self.request.roots.iter().any(|(root, _)| *root == node)
    }

    pub(super) fn itemed(&self, node: Node) -> bool {
        self.request.items.1[node.index()]
    }

    pub(super) fn sizes(&self, node: Node) -> Result<Vec<Size>> {
        sizes_of(self.graph(), node, &self.plan.items, self.itemed(node))
    }

    pub(super) fn scalar(&self, node: Node) -> Scalar {
        scalar_of(self.graph(), node)
    }

    pub(super) fn rank(&self, node: Node) -> usize {
        shape_of(self.graph(), node).len()
    }

    pub(super) fn extent(&self, node: Node, axis: usize) -> u64 {
        shape_of(self.graph(), node).get(axis).and_then(|d| d.as_const()).unwrap_or(1)
    }

    // Analysis.

    pub(super) fn analyse(&mut self) {
        for &node in self.request.nodes {
            if let Op::Loop(region) = self.graph().op(node) {
                self.bound.extend(&region.params);
            }
        }
        for &node in self.request.nodes {
            if self.is_leaf(node) {
                continue;
            }
            let op = self.graph().op(node);
            for &input in self.inputs(node) {
                self.users.entry(input).or_default().push(node);
            }
            let inside = self.inputs(node).iter().any(|i| self.bound.contains(i));
            if inside && !matches!(op, Op::Item(_)) {
                self.bound.insert(node);
            }
            if let Op::Steps(steps) = op {
                steps.region.results.iter().for_each(|r| self.users.entry(*r).or_default().push(node));
            }
            let constant = match op {
                Op::Input { weight, .. } => *weight,
                Op::Const(_) | Op::Iota(_) => true,
                Op::Loop(_) | Op::Steps(_) => false,
                // How often is not known when weights are bound.
                Op::Broadcast(to) if to.iter().any(|dim| dim.as_const().is_none()) => false,
                _ => !self.inputs(node).is_empty() && self.inputs(node).iter().all(|i| self.constant.contains(i)),
            };
            if constant {
                self.constant.insert(node);
            }
            self.analyse_image(node, op);
        }
        for &node in self.request.nodes {
            if has_epilogue(self.graph(), node) && !self.is_leaf(node) && !self.bound.contains(&node) {
                self.grow_epilogue(node);
            }
        }
        self.find_attention();
        self.find_joint();
        self.find_features();
        for &node in self.request.nodes {
            if let (Op::Concat { axis }, false) = (self.graph().op(node), self.is_leaf(node)) {
                self.slice_operands(node, *axis);
            }
        }
    }

    pub(super) fn analyse_image(&mut self, node: Node, op: &Op) {
        let image_input = self.inputs(node).iter().any(|i| self.images.contains(i));
        let image = match op {
            Op::Conv2d(_) | Op::Pool2d(_) | Op::MaxUnpool2d(_) => true,
            Op::Concat { axis } => *axis == 1 && self.rank(node) == 4 && image_input,
            op => is_elementwise(op) && self.rank(node) == 4 && image_input,
        };
        if image {
            self.images.insert(node);
        }
        if let Op::Conv2d(conv) = op {
            let halo = self.halos.entry(self.inputs(node)[0]).or_default();
            *halo = [halo[0].max(conv.padding[0]), halo[1].max(conv.padding[1])];
        }
    }

    /// Finds the elementwise operations after `heavy` that can be computed while its result is in registers.
    pub(super) fn grow_epilogue(&mut self, heavy: Node) {
        let mut group = vec![heavy];
        let mut best = 1;
        loop {
            let users = group.iter().filter_map(|n| self.users.get(n)).flatten();
            let Some(&next) = users.filter(|u| !group.contains(u)).min() else { break };
            if !self.may_join(heavy, next, &group) {
                break;
            }
            group.push(next);
            let closed = group[..group.len() - 1].iter().all(|&n| {
                !self.is_root(n) && self.users.get(&n).is_none_or(|users| users.iter().all(|u| group.contains(u)))
            });
            if closed {
                best = group.len();
            }
        }
        group.truncate(best);
        let root = group[best - 1];
        self.epilogues.insert(heavy, root);
        self.heavy_of.insert(root, heavy);
        self.inside.extend(group);
    }

    pub(super) fn may_join(&self, heavy: Node, next: Node, group: &[Node]) -> bool {
        let shape = |n| shape_of(self.graph(), n);
        let operands = self.inputs(next);
        is_elementwise(self.graph().op(next))
            && !self.inside.contains(&next)
            && !self.bound.contains(&next)
            && self.owners.get(&next) == self.owners.get(&heavy)
            // What is made when the weights are bound sees no inputs.
            && self.constant.contains(&next) == self.constant.contains(&heavy)
            && shape(next) == shape(heavy)
            && operands.iter().all(|o| !group.contains(o) || shape(*o) == shape(heavy))
            // A batch norm's parameters are indexed by channel, not by the index of the result.
            && (!matches!(self.graph().op(next), Op::BatchNorm { .. }) || !group.iter().any(|n| operands[1..].contains(n)))
    }

    /// Lets operands of a concatenation that have stages of their own be written in place.
    pub(super) fn slice_operands(&mut self, concat: Node, axis: usize) {
        let mut first = 0;
        let operands = self.inputs(concat);
        for (i, &operand) in operands.iter().enumerate() {
            let stage = self.heavy_of.contains_key(&operand)
                || matches!(self.graph().op(operand), Op::Concat { .. })
                || steps::is_collected(self.graph(), operand);
            let once = !operands[..i].contains(&operand) && !operands[i + 1..].contains(&operand);
            let same_layout = self.images.contains(&operand) == self.images.contains(&concat);
            let free = !self.slices.contains_key(&operand) && self.output_of(operand).is_none();
            if stage
                && once
                && free
                && same_layout
                && self.constant.contains(&operand) == self.constant.contains(&concat)
            {
                self.slices.insert(operand, (concat, first));
            }
            first += self.extent(operand, axis);
        }
    }

    // Nodes.

    pub(super) fn node(&mut self, node: Node) -> Result<()> {
        if let Some(strides) = self.request.leaves.get(&node) {
            return self.leaf(node, strides);
        }
        if self.absorbed.contains(&node) {
            return Ok(());
        }
        if let Some(&heavy) = self.heavy_of.get(&node) {
            return self.heavy(heavy, node);
        }
        if self.inside.contains(&node) || self.bound.contains(&node) {
            return Ok(());
        }
        match self.graph().op(node) {
            Op::Const(_) => check_elem(self.graph(), node),
            // In memory before anybody reads it there, if somebody may want it there.
            Op::Iota(_) if self.users.get(&node).map_or(0, Vec::len) > 1 => self.stored(node).map(|_| ()),
            Op::Iota(_) => check_elem(self.graph(), node),
            Op::Input { name, .. } => self.input(node, name),
            Op::Transpose(perm) => {
                let input = self.inputs(node)[0];
                // In memory before anybody reads it there, as above: products want what they turn there.
                if self.users.get(&node).map_or(0, Vec::len) > 1 {
                    self.stored(input)?;
                }
                if let Some(spec) = self.plan.home(input) {
                    let spec = spec.permuted(perm);
                    self.plan.homes.insert(node, spec);
                }
                Ok(())
            }
            // The value itself.
            Op::Unary(UnaryOp::Detach) if self.plan.home(self.inputs(node)[0]).is_some() => {
                check_elem(self.graph(), node)?;
                let spec = self.plan.home(self.inputs(node)[0]).cloned();
                self.plan.homes.extend(spec.map(|spec| (node, spec)));
                Ok(())
            }
            Op::Slice { axis, start, step, count } => self.sliced(node, *axis, *start, *step, *count),
            Op::Reshape(_) => self.reshape(node),
            op if is_heavy(op) => self.heavy(node, node),
            Op::Gather => self.gather(node),
            op if is_elementwise(op) => self.light(node),
            Op::Loop(region) => self.repeat(node, region),
            Op::Steps(steps) => self.steps(node, steps),
            // They are where their steps, or their caller, have put them.
            Op::Item(_) | Op::Param { .. } if self.plan.home(node).is_some() => Ok(()),
            Op::Item(_) if matches!(self.graph().op(self.inputs(node)[0]), Op::Loop(_)) => self.light(node),
            op => Err(self.plan.unsupported(node, format!("{} in a tensor program", op.name()))),
        }
    }

    pub(super) fn leaf(&mut self, node: Node, strides: &[i64]) -> Result<()> {
        check_elem(self.graph(), node)?;
        let sizes = self.sizes(node)?;
        let elem = self.scalar(node);
        let buffer = self.new_buffer(Place::Leaf(node), &[], 0, self.label(node));
        let axes = sizes.into_iter().zip(strides).map(|(size, &stride)| AxisSpec { size, stride }).collect();
        self.plan.homes.insert(node, Spec { buffer, offset: 0, elem, axes, halo: [0, 0] });
        Ok(())
    }

    pub(super) fn input(&mut self, node: Node, name: &str) -> Result<()> {
        check_elem(self.graph(), node)?;
        let sizes = self.sizes(node)?;
        let elem = self.scalar(node);
        let mut spec = Spec { buffer: BufferId(0), offset: 0, elem, axes: vec![], halo: [0, 0] };
        spec.axes = row_major(&sizes, spec.elem_bytes());
        let item_bytes = self.chunk_bytes(node, &spec);
        spec.buffer = self.new_buffer(Place::Input { name: name.to_owned(), item_bytes }, &[], 0, self.label(node));
        self.plan.homes.insert(node, spec);
        Ok(())
    }

    /// A part of what is in memory is memory; steps over what is not would leave lanes apart.
    pub(super) fn sliced(&mut self, node: Node, axis: usize, start: u64, step: i64, count: u64) -> Result<()> {
        let input = self.inputs(node)[0];
        if step != 1 {
            self.stored(input)?;
        }
        let Some(spec) = self.plan.home(input) else { return self.light(node) };
        let part = spec.sliced(axis, start, step, count);
        self.plan.homes.insert(node, part);
        Ok(())
    }

    /// A row whose number is known now is where it is; others are looked up by who needs them.
    pub(super) fn gather(&mut self, node: Node) -> Result<()> {
        let (data, index) = (self.inputs(node)[0], self.inputs(node)[1]);
        let spec = self.stored(data)?;
        let row = match self.graph().op(index) {
            Op::Const(literal) => literal.as_int().and_then(|row| u64::try_from(row).ok()),
            _ => None,
        };
        match (row, spec.axes[0].size.now()) {
            (Some(row), Some(count)) if row < count => {
                let mut part = self.part(node, &spec, row);
                part.axes.remove(0);
                part.halo = [0, 0];
                self.plan.homes.insert(node, part);
                Ok(())
            }
            _ => self.light(node),
        }
    }

    pub(super) fn reshape(&mut self, node: Node) -> Result<()> {
        let input = self.inputs(node)[0];
        let sizes = self.sizes(node)?;
        let direct = self.plan.home(input).and_then(|spec| spec.reshaped(&sizes));
        let spec = match direct {
            Some(spec) => spec,
            None => {
                let spec = self.stored_row_major(input)?;
                match spec.reshaped(&sizes) {
                    Some(spec) => spec,
                    None => return Err(self.plan.unsupported(node, "this reshape of a dimension of unknown size")),
                }
            }
        };
        self.plan.homes.insert(node, spec);
        Ok(())
    }

    /// An elementwise node: left to its consumers unless several of them would compute it again.
    pub(super) fn light(&mut self, node: Node) -> Result<()> {
        check_elem(self.graph(), node)?;
        let users = self.users.get(&node).map_or(0, Vec::len);
        let weights = self.constant.contains(&node) && !self.is_literal(node);
        if users > 1 && !self.is_read_as_fast(node) || weights {
            self.stored(node)?;
        }
        Ok(())
    }

    /// Is the node at most one tensor of its shape in memory, but for one cheap operation with what is small or a number, so that
    /// reading it would save nothing? Whoever else reads it must not store it later: what was planned before would read it there.
    fn is_read_as_fast(&self, node: Node) -> bool {
        let cheap = match self.graph().op(node) {
            Op::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul) => self.scalar(node).is_float(),
            Op::Compare(_) => true,
            _ => false,
        };
        let elements = |n: Node| shape_of(self.graph(), n).iter().try_fold(1u64, |n, dim| Some(n * dim.as_const()?));
        let is_small = |x: Node| matches!((elements(x), elements(node)), (Some(few), Some(all)) if few <= all / FEW_OF);
        let in_memory = |x: &Node| matches!(self.graph().op(*x), Op::Const(_)) || self.plan.home(*x).is_some();
        let large =
            self.inputs(node).iter().filter(|x| !matches!(self.graph().op(**x), Op::Const(_)) && !is_small(**x));
        let users = self.users.get(&node).map_or(&[][..], Vec::as_slice);
        cheap
            && users
                .iter()
                .all(|user| is_elementwise(self.graph().op(*user)) && self.owners.get(user) == self.owners.get(&node))
            && !self.is_root(node)
            && self.inputs(node).iter().all(in_memory)
            && large.count() <= 1
    }

    /// A loop whose region works element by element: it is run for each element on its own.
    pub(super) fn repeat(&mut self, node: Node, region: &Region) -> Result<()> {
        let shape = |n: Node| shape_of(self.graph(), n);
        let Some(&first) = region.results.first() else { return Ok(()) };
        let fits = |n: &Node| {
            let simple = is_elementwise(self.graph().op(*n)) || matches!(self.graph().op(*n), Op::Param { .. });
            simple && (shape(*n).is_empty() || shape(*n) == shape(first))
        };
        let body = self.region_nodes(region);
        if !body.iter().all(fits) || region.results.iter().any(|r| shape(*r) != shape(first)) {
            return Err(self.plan.unsupported(node, "a loop over more than elementwise operations"));
        }
        if matches!(self.graph().ty(node), graph::Ty::Tuple(_)) { Ok(()) } else { self.light(node) }
    }

    /// The nodes that have a value in the region only.
    pub(super) fn region_nodes(&self, region: &Region) -> Vec<Node> {
        let (mut found, mut stack) = (vec![], region.results.clone());
        while let Some(node) = stack.pop() {
            if self.bound.contains(&node) && !found.contains(&node) {
                found.push(node);
                stack.extend(self.inputs(node));
            }
        }
        found
    }

    /// Does the node depend on constants of the program only, so that it is folded while code is written?
    pub(super) fn is_literal(&self, node: Node) -> bool {
        match self.graph().op(node) {
            Op::Const(_) => true,
            op => is_elementwise(op) && self.inputs(node).iter().all(|&i| self.is_literal(i)),
        }
    }

    pub(super) fn heavy(&mut self, node: Node, root: Node) -> Result<()> {
        check_elem(self.graph(), node)?;
        match self.graph().op(node) {
            Op::Conv2d(conv) => self.conv2d(node, root, conv),
            Op::MatMul => match (self.attentions.get(&node).copied(), self.rows_summed(node)) {
                (Some(parts), _) => self.attention(node, root, parts),
                (None, Some(x)) => self.contract(node, root, x),
                (None, None) => self.matmul(node, root),
            },
            Op::Conv2dFilters { conv, kernel } => self.conv2d_filters(node, root, conv, *kernel),
            Op::Pool2d(pool) => self.pool2d(node, root, pool),
            Op::MaxUnpool2d(pool) => self.max_unpool2d(node, root, pool),
            Op::Reduce { op, axes, keep } => self.reduce(node, root, *op, axes, *keep),
            Op::Softmax { axis } => self.lines(node, *axis, Along::Softmax),
            Op::ArgMax { axis } => self.lines(node, *axis, Along::ArgMax),
            Op::CumSum { axis } => self.lines(node, *axis, Along::CumSum),
            Op::TreeEnsemble(forest) => self.trees(node, forest),
            Op::ScatterAdd => self.scatter_add(node),
            Op::Concat { axis } => self.concat(node, *axis),
            Op::Stack => self.stack(node),
            Op::Foreign { name, signature } => self.call(node, name, signature),
            op => Err(self.plan.unsupported(node, op.name())),
        }
    }

    pub(super) fn epilogue_nodes(&self, node: Node, root: Node) -> Vec<Node> {
        let between = |n: &Node| self.inside.contains(n) && self.depends(*n, node);
        (node.0..=root.0).map(Node).filter(|n| *n == node || between(n)).collect()
    }

    /// What an epilogue reads beside the result of its heavy node.
    pub(super) fn epilogue_operands(&self, node: Node, root: Node) -> Vec<Node> {
        let operands = self.epilogue_nodes(node, root).into_iter().skip(1).flat_map(|n| self.inputs(n));
        operands.copied().filter(|o| !self.inside.contains(o) || !self.depends(*o, node)).collect()
    }

    pub(super) fn depends(&self, node: Node, on: Node) -> bool {
        node == on || node > on && self.inputs(node).iter().any(|&i| self.inside.contains(&i) && self.depends(i, on))
    }

    pub(super) fn finish(&mut self, node: Node, root: Node, out: Spec, name: &str, kind: Kind) {
        let nodes = self.epilogue_nodes(node, root);
        self.push(node, name, nodes, kind);
        self.plan.homes.insert(root, out);
    }

    /// Computes or copies results that are not where they are wanted. Those that read the same tensors element by element,
    /// such as a weight and what its optimiser keeps, do so once.
    pub(super) fn outputs(&mut self) -> Result<()> {
        let mut groups: Vec<Vec<(Node, Spec)>> = vec![];
        let mut read: HashMap<Node, usize> = HashMap::new();
        for &(node, index) in self.request.roots {
            let Some(index) = index else {
                self.stored(node)?;
                continue;
            };
            let at_home = self.plan.home(node).is_some_and(
                |spec| matches!(self.plan.buffer(spec.buffer).place, Place::Output { index: i, .. } if i == index),
            );
            if !at_home {
                check_elem(self.graph(), node)?;
                let out = self.output_spec(node, index)?;
                let operands = self.plan.operands_like(node, &[node], None);
                let operands = if operands.others { vec![] } else { operands.nodes };
                let group = operands.iter().find_map(|operand| read.get(operand).copied());
                let group = group.unwrap_or(groups.len());
                for operand in operands {
                    read.entry(operand).or_insert(group);
                }
                groups.resize_with(groups.len().max(group + 1), Vec::new);
                groups[group].push((node, out));
            }
        }
        for mut results in groups {
            results.sort_by_key(|(node, _)| *node);
            let Some((_, out)) = results.first() else { continue };
            let nest = Nest::new(out, &[], Vectors::Innermost, 1);
            self.plan.stages.push(Stage::maps(results, nest));
        }
        Ok(())
    }
}
