//! Makes the [`Plan`]: goes through the nodes in order, decides what is materialised, and appends stages.

use super::gemm::{Gemm, Loop, Pack, Right};
use super::kernel::{self, KAxis};
use super::nest::{Nest, Vectors};
use super::plan::{Buffer, Items, Kind, Place, Plan, Stage, check_elem, is_elementwise, scalar_of, shape_of, sizes_of};
use super::pool::Pool;
use super::reduce::{ArgMax, Reduce, Softmax};
use super::spec::{AxisSpec, BufferId, Size, Spec, compute, intermediate, row_major};
use super::target::Target;
use crate::lower::error::LowerError;
use quearn_stage::graph::{self, Conv2d, Graph, Node, Op, Pool2d, Region, Scalar};
use quearn_stage::low::Prim;
use std::collections::{HashMap, HashSet};

type Result<T> = std::result::Result<T, LowerError>;

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
    request: &'a Request<'a, 'g>,
    pub(super) plan: Plan<'g>,
    users: HashMap<Node, Vec<Node>>,
    /// Nodes inside the region of a loop: they have a value only there.
    bound: HashSet<Node>,
    /// Nodes that depend on weights and constants only.
    constant: HashSet<Node>,
    /// Rank-4 nodes laid out with channels innermost.
    images: HashSet<Node>,
    /// Zeros that consumers want around a node.
    halos: HashMap<Node, [u64; 2]>,
    /// Root of the elementwise epilogue of a heavy node.
    epilogues: HashMap<Node, Node>,
    /// Heavy node of a root.
    heavy_of: HashMap<Node, Node>,
    /// Nodes computed inside an epilogue.
    inside: HashSet<Node>,
    /// The concatenation that a node is written into, and the first index along its axis.
    slices: HashMap<Node, (Node, u64)>,
    joined: HashMap<Node, Spec>,
    copies: HashMap<Node, Spec>,
    packs: HashMap<(Node, u64), BufferId>,
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
    };
    let mut planner = Planner {
        request,
        plan,
        users: HashMap::new(),
        bound: HashSet::new(),
        constant: HashSet::new(),
        images: HashSet::new(),
        halos: HashMap::new(),
        epilogues: HashMap::new(),
        heavy_of: HashMap::new(),
        inside: HashSet::new(),
        slices: HashMap::new(),
        joined: HashMap::new(),
        copies: HashMap::new(),
        packs: HashMap::new(),
    };
    planner.analyse();
    for &node in request.nodes {
        planner.node(node)?;
    }
    planner.outputs()?;
    Ok(planner.plan)
}

/// Operations that read their operands many times or out of order, so that they get a stage of their own.
fn is_heavy(op: &Op) -> bool {
    matches!(
        op,
        Op::MatMul
            | Op::Conv2d(_)
            | Op::Pool2d(_)
            | Op::Softmax { .. }
            | Op::Concat { .. }
            | Op::Reduce { .. }
            | Op::ArgMax { .. }
            | Op::Stack
    )
}

/// Heavy operations whose results pass through registers one element at a time.
fn has_epilogue(op: &Op) -> bool {
    matches!(op, Op::MatMul | Op::Conv2d(_) | Op::Pool2d(_) | Op::Reduce { .. })
}

impl<'g> Planner<'_, 'g> {
    fn graph(&self) -> &'g Graph {
        self.request.graph
    }

    fn inputs(&self, node: Node) -> &'g [Node] {
        self.graph().inputs(node)
    }

    fn is_leaf(&self, node: Node) -> bool {
        self.request.leaves.contains_key(&node)
    }

    fn output_of(&self, node: Node) -> Option<usize> {
        self.request.roots.iter().find(|(root, _)| *root == node).and_then(|(_, index)| *index)
    }

    fn is_root(&self, node: Node) -> bool {
        self.request.roots.iter().any(|(root, _)| *root == node)
    }

    fn itemed(&self, node: Node) -> bool {
        self.request.items.1[node.index()]
    }

    fn sizes(&self, node: Node) -> Result<Vec<Size>> {
        sizes_of(self.graph(), node, &self.plan.items, self.itemed(node))
    }

    fn scalar(&self, node: Node) -> Scalar {
        scalar_of(self.graph(), node)
    }

    fn rank(&self, node: Node) -> usize {
        shape_of(self.graph(), node).len()
    }

    fn extent(&self, node: Node, axis: usize) -> u64 {
        shape_of(self.graph(), node).get(axis).and_then(|d| d.as_const()).unwrap_or(1)
    }

    // Analysis.

    fn analyse(&mut self) {
        for &node in self.request.nodes {
            if self.is_leaf(node) {
                continue;
            }
            let op = self.graph().op(node);
            for &input in self.inputs(node) {
                self.users.entry(input).or_default().push(node);
            }
            let inside = self.inputs(node).iter().any(|i| self.bound.contains(i));
            if matches!(op, Op::Param { .. }) || inside && !matches!(op, Op::Item(_)) {
                self.bound.insert(node);
            }
            let constant = match op {
                Op::Input { weight, .. } => *weight,
                Op::Const(_) => true,
                Op::Loop(_) => false,
                _ => !self.inputs(node).is_empty() && self.inputs(node).iter().all(|i| self.constant.contains(i)),
            };
            if constant {
                self.constant.insert(node);
            }
            self.analyse_image(node, op);
        }
        for &node in self.request.nodes {
            if has_epilogue(self.graph().op(node)) && !self.is_leaf(node) && !self.bound.contains(&node) {
                self.grow_epilogue(node);
            }
        }
        for &node in self.request.nodes {
            if let (Op::Concat { axis }, false) = (self.graph().op(node), self.is_leaf(node)) {
                self.slice_operands(node, *axis);
            }
        }
    }

    fn analyse_image(&mut self, node: Node, op: &Op) {
        let image_input = self.inputs(node).iter().any(|i| self.images.contains(i));
        let image = match op {
            Op::Conv2d(_) | Op::Pool2d(_) => true,
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
    fn grow_epilogue(&mut self, heavy: Node) {
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

    fn may_join(&self, heavy: Node, next: Node, group: &[Node]) -> bool {
        let shape = |n| shape_of(self.graph(), n);
        let operands = self.inputs(next);
        is_elementwise(self.graph().op(next))
            && !self.inside.contains(&next)
            && !self.bound.contains(&next)
            && shape(next) == shape(heavy)
            && operands.iter().all(|o| !group.contains(o) || shape(*o) == shape(heavy))
            // A batch norm's parameters are indexed by channel, not by the index of the result.
            && (!matches!(self.graph().op(next), Op::BatchNorm { .. }) || !group.iter().any(|n| operands[1..].contains(n)))
    }

    /// Lets operands of a concatenation that have stages of their own be written in place.
    fn slice_operands(&mut self, concat: Node, axis: usize) {
        let mut first = 0;
        let operands = self.inputs(concat);
        for (i, &operand) in operands.iter().enumerate() {
            let stage = self.heavy_of.contains_key(&operand) || matches!(self.graph().op(operand), Op::Concat { .. });
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

    // Memory.

    fn new_buffer(&mut self, place: Place, sizes: &[Size], bytes: u64, label: String) -> BufferId {
        let per_item = sizes.first() == Some(&Size::Items);
        self.plan.buffers.push(Buffer { place, bytes, per_item, label });
        BufferId(self.plan.buffers.len() as u32 - 1)
    }

    fn label(&self, node: Node) -> String {
        self.plan.describe(node)
    }

    /// A new tensor of the node's shape, with channels innermost if it is an image.
    fn allocate(&mut self, node: Node, image: bool, halo: [u64; 2]) -> Result<Spec> {
        let sizes = self.sizes(node)?;
        let elem = intermediate(self.scalar(node));
        let constant = self.constant.contains(&node);
        let place = if constant { Place::Prepared } else { Place::Arena };
        let mut spec = Spec { buffer: BufferId(0), offset: 0, elem, axes: vec![], halo: [0, 0] };
        let unit = spec.elem_bytes();
        let bytes = if image {
            let [c, h, w] = [1, 2, 3].map(|i: usize| sizes[i].now().unwrap_or(1));
            let (rows, row) = (h + 2 * halo[0], (w + 2 * halo[1]) * c);
            let strides = [unit * (rows * row) as i64, unit, unit * row as i64, unit * c as i64];
            spec.axes = sizes.iter().zip(strides).map(|(s, stride)| AxisSpec { size: s.clone(), stride }).collect();
            spec.offset = halo[0] as i64 * strides[2] + halo[1] as i64 * strides[3];
            spec.halo = halo;
            item_bytes(&sizes, rows * row * unit as u64)
        } else {
            spec.axes = row_major(&sizes, unit);
            sizes.iter().map(|s| s.now().unwrap_or(1)).product::<u64>() * unit as u64
        };
        spec.buffer = self.new_buffer(place, &sizes, bytes.max(1), self.label(node));
        if spec.halo != [0, 0] {
            self.push(node, "halo", vec![], Kind::Halo(spec.clone()));
        }
        Ok(spec)
    }

    /// Where the result of the stage of `node` goes; `direct` if it may go straight to an output of the program.
    fn destination(&mut self, node: Node, direct: bool) -> Result<Spec> {
        check_elem(self.graph(), node)?;
        if let Some(&(concat, first)) = self.slices.get(&node) {
            let Op::Concat { axis } = self.graph().op(concat) else {
                return self.internal(node, "a slice of no concat");
            };
            let whole = self.joined_spec(concat)?;
            return Ok(slice(&whole, *axis, first, self.extent(node, *axis)));
        }
        match self.output_of(node) {
            Some(index) if direct && !self.constant.contains(&node) => self.output_spec(node, index),
            _ => self.allocate(node, self.images.contains(&node), self.halos.get(&node).copied().unwrap_or_default()),
        }
    }

    fn internal<T>(&self, node: Node, what: &str) -> Result<T> {
        Err(LowerError::Internal { node: self.label(node), what: what.to_owned() })
    }

    fn output_spec(&mut self, node: Node, index: usize) -> Result<Spec> {
        let sizes = self.sizes(node)?;
        let mut spec = Spec { buffer: BufferId(0), offset: 0, elem: self.scalar(node), axes: vec![], halo: [0, 0] };
        let unit = spec.elem_bytes();
        spec.axes = row_major(&sizes, unit);
        let bytes = sizes.iter().map(|s| s.now().unwrap_or(1)).product::<u64>() * unit as u64;
        let item_bytes = self.chunk_bytes(node, &spec);
        spec.buffer = self.new_buffer(Place::Output { index, item_bytes }, &sizes, bytes, self.label(node));
        Ok(spec)
    }

    /// Bytes of one item of an input or output.
    fn chunk_bytes(&self, node: Node, spec: &Spec) -> Option<i64> {
        let leads = self.itemed(node) && self.plan.items.dim.is_some();
        leads.then(|| spec.axes.first().map_or(0, |a| a.stride))
    }

    /// The result of a concatenation (or stack), of which operands may be written before its turn comes.
    fn joined_spec(&mut self, concat: Node) -> Result<Spec> {
        if let Some(spec) = self.joined.get(&concat) {
            return Ok(spec.clone());
        }
        let mut halo = self.halos.get(&concat).copied().unwrap_or_default();
        for operand in self.inputs(concat) {
            let inner = self.halos.get(operand).copied().unwrap_or_default();
            halo = [halo[0].max(inner[0]), halo[1].max(inner[1])];
        }
        self.halos.insert(concat, halo);
        let direct = !self.images.contains(&concat);
        let spec = self.destination(concat, direct)?;
        self.joined.insert(concat, spec.clone());
        Ok(spec)
    }

    /// The node in memory; evaluates it there if need be.
    fn stored(&mut self, node: Node) -> Result<Spec> {
        if let Some(spec) = self.plan.home(node) {
            return Ok(spec.clone());
        }
        let out = self.destination(node, true)?;
        self.map(node, node, out.clone());
        self.plan.homes.insert(node, out.clone());
        Ok(out)
    }

    /// Evaluates `root` into (a part of) the memory of `owner`.
    fn map(&mut self, owner: Node, root: Node, out: Spec) {
        let nest = Nest::new(&out, &[], Vectors::Innermost);
        self.push(owner, "map", vec![root], Kind::Map { root, out, nest });
    }

    fn push(&mut self, node: Node, name: &str, nodes: Vec<Node>, kind: Kind) {
        let stage = Stage { name: name.to_owned(), nodes, kind };
        let constant = self.constant.contains(&node);
        if constant { self.plan.prepare.push(stage) } else { self.plan.stages.push(stage) }
    }

    /// The node in memory in row-major order.
    fn stored_row_major(&mut self, node: Node) -> Result<Spec> {
        let sizes = self.sizes(node)?;
        if let Some(spec) = self.plan.home(node) {
            if spec.reshaped(&sizes).is_some_and(|s| s.axes == row_major(&sizes, spec.elem_bytes()) || is_dense(&s)) {
                return Ok(spec.clone());
            }
        } else if !self.images.contains(&node) {
            return self.stored(node);
        }
        self.copy(node, false, [0, 0])
    }

    /// A copy in another layout.
    fn copy(&mut self, node: Node, image: bool, halo: [u64; 2]) -> Result<Spec> {
        if let Some(spec) = self.copies.get(&node) {
            let serves = spec.halo[0] >= halo[0] && spec.halo[1] >= halo[1];
            if serves && image == (spec.unit_axis() == Some(1)) {
                return Ok(spec.clone());
            }
        }
        let spec = self.allocate(node, image, halo)?;
        self.map(node, node, spec.clone());
        self.copies.insert(node, spec.clone());
        Ok(spec)
    }

    // Nodes.

    fn node(&mut self, node: Node) -> Result<()> {
        if let Some(strides) = self.request.leaves.get(&node) {
            return self.leaf(node, strides);
        }
        if let Some(&heavy) = self.heavy_of.get(&node) {
            return self.heavy(heavy, node);
        }
        if self.inside.contains(&node) || self.bound.contains(&node) {
            return Ok(());
        }
        match self.graph().op(node) {
            Op::Const(_) => check_elem(self.graph(), node),
            Op::Input { name, .. } => self.input(node, name),
            Op::Transpose(perm) => {
                if let Some(spec) = self.plan.home(self.inputs(node)[0]) {
                    let spec = spec.permuted(perm);
                    self.plan.homes.insert(node, spec);
                }
                Ok(())
            }
            Op::Reshape(_) => self.reshape(node),
            op if is_heavy(op) => self.heavy(node, node),
            Op::Gather => {
                self.stored(self.inputs(node)[0])?;
                self.light(node)
            }
            op if is_elementwise(op) => self.light(node),
            Op::Loop(region) => self.repeat(node, region),
            Op::Item(_) if matches!(self.graph().op(self.inputs(node)[0]), Op::Loop(_)) => self.light(node),
            op => Err(self.plan.unsupported(node, format!("{} in a tensor program", op.name()))),
        }
    }

    fn leaf(&mut self, node: Node, strides: &[i64]) -> Result<()> {
        check_elem(self.graph(), node)?;
        let sizes = self.sizes(node)?;
        let elem = self.scalar(node);
        let buffer = self.new_buffer(Place::Leaf(node), &[], 0, self.label(node));
        let axes = sizes.into_iter().zip(strides).map(|(size, &stride)| AxisSpec { size, stride }).collect();
        self.plan.homes.insert(node, Spec { buffer, offset: 0, elem, axes, halo: [0, 0] });
        Ok(())
    }

    fn input(&mut self, node: Node, name: &str) -> Result<()> {
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

    fn reshape(&mut self, node: Node) -> Result<()> {
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
    fn light(&mut self, node: Node) -> Result<()> {
        check_elem(self.graph(), node)?;
        let users = self.users.get(&node).map_or(0, Vec::len);
        let weights = self.constant.contains(&node) && !self.is_literal(node);
        if users > 1 || weights {
            self.stored(node)?;
        }
        Ok(())
    }

    /// A loop whose region works element by element: it is run for each element on its own.
    fn repeat(&mut self, node: Node, region: &Region) -> Result<()> {
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
    fn region_nodes(&self, region: &Region) -> Vec<Node> {
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
    fn is_literal(&self, node: Node) -> bool {
        match self.graph().op(node) {
            Op::Const(_) => true,
            op => is_elementwise(op) && self.inputs(node).iter().all(|&i| self.is_literal(i)),
        }
    }

    fn heavy(&mut self, node: Node, root: Node) -> Result<()> {
        check_elem(self.graph(), node)?;
        match self.graph().op(node) {
            Op::Conv2d(conv) => self.conv2d(node, root, conv),
            Op::MatMul => self.matmul(node, root),
            Op::Pool2d(pool) => self.pool2d(node, root, pool),
            Op::Reduce { op, axes, keep } => self.reduce(node, root, *op, axes, *keep),
            Op::Softmax { axis } => self.softmax(node, *axis),
            Op::ArgMax { axis } => self.arg_max(node, *axis),
            Op::Concat { axis } => self.concat(node, *axis),
            Op::Stack => self.stack(node),
            op => Err(self.plan.unsupported(node, op.name())),
        }
    }

    fn epilogue_nodes(&self, node: Node, root: Node) -> Vec<Node> {
        let between = |n: &Node| self.inside.contains(n) && self.depends(*n, node);
        (node.0..=root.0).map(Node).filter(|n| *n == node || between(n)).collect()
    }

    fn depends(&self, node: Node, on: Node) -> bool {
        node == on || node > on && self.inputs(node).iter().any(|&i| self.inside.contains(&i) && self.depends(i, on))
    }

    fn finish(&mut self, node: Node, root: Node, out: Spec, name: &str, kind: Kind) {
        let nodes = self.epilogue_nodes(node, root);
        self.push(node, name, nodes, kind);
        self.plan.homes.insert(root, out);
    }

    fn reduce(
        &mut self,
        node: Node,
        root: Node,
        op: quearn_stage::graph::ReduceOp,
        axes: &[usize],
        keep: bool,
    ) -> Result<()> {
        let x = self.inputs(node)[0];
        let sizes = self.sizes(x)?;
        let rank = sizes.len();
        let unit = match self.plan.home(x) {
            Some(spec) => spec.unit_axis(),
            None if self.images.contains(&x) => Some(1),
            None => rank.checked_sub(1),
        };
        let vector = unit.filter(|u| axes.contains(u) && sizes[*u] != Size::Now(1));
        let mut next = 0;
        let kept = (0..rank).map(|i| {
            let reduced = axes.contains(&i);
            let place = next;
            next += usize::from(!reduced || keep);
            (!reduced).then_some(place)
        });
        let kept: Vec<Option<usize>> = kept.collect();
        let mut axes = axes.to_vec();
        axes.sort_by_key(|&i| (unit == Some(i), i));
        let out = self.destination(root, true)?;
        let nest = Nest::new(&out, &[], vector.is_none().into());
        let reduce = Reduce { node, root, x, op, axes, kept, sizes, vector, out: out.clone(), nest };
        self.finish(node, root, out, "reduce", Kind::Reduce(Box::new(reduce)));
        Ok(())
    }

    fn softmax(&mut self, node: Node, axis: usize) -> Result<()> {
        let x = self.inputs(node)[0];
        let size = self.sizes(x)?[axis].clone();
        let out = self.destination(node, !self.images.contains(&x))?;
        let nest = Nest::new(&out, &[axis], (out.unit_axis() != Some(axis)).into());
        let softmax = Softmax { node, x, axis, size, out: out.clone(), nest };
        self.finish(node, node, out, "softmax", Kind::Softmax(Box::new(softmax)));
        Ok(())
    }

    fn arg_max(&mut self, node: Node, axis: usize) -> Result<()> {
        let x = self.inputs(node)[0];
        let size = self.sizes(x)?[axis].clone();
        let out = self.destination(node, true)?;
        let unit = self.plan.home(x).and_then(Spec::unit_axis);
        let nest = Nest::new(&out, &[], unit.is_some_and(|u| u != axis).into());
        let arg_max = ArgMax { node, x, axis, size, out: out.clone(), nest };
        self.finish(node, node, out, "arg_max", Kind::ArgMax(Box::new(arg_max)));
        Ok(())
    }

    fn concat(&mut self, node: Node, axis: usize) -> Result<()> {
        let whole = self.joined_spec(node)?;
        let mut first = 0;
        for &operand in self.inputs(node) {
            let extent = self.extent(operand, axis);
            if self.slices.get(&operand).is_none_or(|(concat, _)| *concat != node) {
                self.map(node, operand, slice(&whole, axis, first, extent));
            }
            first += extent;
        }
        self.plan.homes.insert(node, whole);
        Ok(())
    }

    fn stack(&mut self, node: Node) -> Result<()> {
        let whole = self.joined_spec(node)?;
        let last = whole.axes.len() - 1;
        for (i, &operand) in self.inputs(node).iter().enumerate() {
            let mut part = slice(&whole, last, i as u64, 1);
            part.axes.pop();
            self.map(node, operand, part);
        }
        self.plan.homes.insert(node, whole);
        Ok(())
    }

    fn pool2d(&mut self, node: Node, root: Node, pool: &Pool2d) -> Result<()> {
        let x = self.inputs(node)[0];
        let image = [self.extent(x, 2), self.extent(x, 3)];
        let out = self.destination(root, false)?;
        let nest = Nest::new(&out, &[], Vectors::Along(1));
        let pool = Pool { node, root, x, pool: pool.clone(), image, out: out.clone(), nest };
        self.finish(node, root, out, "pool", Kind::Pool(Box::new(pool)));
        Ok(())
    }

    /// The machine type of a product.
    fn product_prim(&self, node: Node) -> Result<Prim> {
        match compute(self.scalar(node)) {
            Some(prim @ (Prim::F32 | Prim::F64)) => Ok(prim),
            _ => Err(self.plan.unsupported(node, format!("a product of {}", self.scalar(node)))),
        }
    }

    /// Is the tensor in memory as the kernel's element type?
    fn ready(&self, node: Node, prim: Prim) -> Option<&Spec> {
        self.plan.home(node).filter(|s| super::spec::storage(s.elem) == Some(prim))
    }

    fn conv2d(&mut self, node: Node, root: Node, conv: &Conv2d) -> Result<()> {
        let inputs = self.inputs(node);
        let prim = self.product_prim(node)?;
        let lanes = self.plan.target.vector_bytes / prim.bytes() as u16;
        let a = self.conv_input(inputs[0], conv.padding, prim)?;
        let [out_channels, per_group, kh, kw] = [0, 1, 2, 3].map(|i| self.extent(inputs[1], i));

        let cols = out_channels / conv.groups;
        let out = self.destination(root, false)?;
        let axis = |i: usize| a.axes[i].stride;
        let window = [
            (kh, axis(2) * conv.dilation[0] as i64, 2),
            (kw, axis(3) * conv.dilation[1] as i64, 3),
            (per_group, axis(1), 1),
        ];
        let mut window: Vec<(u64, i64, usize)> = window.into_iter().filter(|w| w.0 > 1).collect();
        window.sort_by_key(|w| std::cmp::Reverse(w.1));
        let k: Vec<KAxis> = window.iter().map(|w| KAxis { extent: w.0, a: w.1 }).collect();
        let rows = [2, 3].map(|i: usize| Loop {
            size: out.axes[i].size.clone(),
            a: axis(i) * conv.stride[i - 2] as i64,
            b: 0,
            coord: Some((i, 1)),
        });
        let rows = self.flatten_rows(node, root, &out, rows);
        let extents = [0, 1].map(|i: usize| rows[i].size.now().unwrap_or(1));
        let depth = per_group * kh * kw;
        let tile = kernel::choose_tile(self.plan.target, lanes, extents, cols, depth);
        let order: Vec<usize> = window.iter().map(|w| w.2).collect();
        let right = self.pack(inputs[1], conv.groups, 0, &order, tile.vectors, prim)?;
        let b_row = (tile.vectors * u64::from(lanes)) as i64 * prim.bytes() as i64;
        let b_panel = b_row * depth as i64;
        let panels = cols.div_ceil(tile.vectors * u64::from(lanes)) as i64;
        let outer = vec![
            Loop { size: out.axes[0].size.clone(), a: axis(0), b: 0, coord: Some((0, 1)) },
            Loop {
                size: Size::Now(conv.groups),
                a: axis(1) * per_group as i64,
                b: b_panel * panels,
                coord: Some((1, cols)),
            },
        ];
        let a_offset = -(conv.padding[0] as i64 * axis(2) + conv.padding[1] as i64 * axis(3));
        let bias = inputs.get(2).copied();
        if let Some(bias) = bias {
            self.stored(bias)?;
        }
        let gemm = Gemm {
            node,
            root,
            bias,
            a,
            a_offset,
            right,
            b_row,
            b_panel,
            outer,
            rows,
            k,
            cols,
            col_axis: 1,
            prim,
            tile,
            out: out.clone(),
        };
        self.finish(node, root, out, "conv", Kind::Gemm(Box::new(gemm)));
        Ok(())
    }

    /// The image with zeros around it in memory.
    fn conv_input(&mut self, x: Node, padding: [u64; 2], prim: Prim) -> Result<Spec> {
        match self.ready(x, prim) {
            Some(spec) if spec.halo[0] >= padding[0] && spec.halo[1] >= padding[1] => Ok(spec.clone()),
            _ => self.copy(x, true, padding),
        }
    }

    /// Makes one axis of pixels where lines follow each other without a gap, in everything that the epilogue touches.
    fn flatten_rows(&self, node: Node, root: Node, out: &Spec, rows: [Loop; 2]) -> [Loop; 2] {
        let (Some(h), Some(w)) = (rows[0].size.now(), rows[1].size.now()) else { return rows };
        let dense = rows[0].a == rows[1].a * w as i64 && out.merges(2, 3);
        let operands = self.epilogue_nodes(node, root).into_iter().skip(1).flat_map(|n| self.inputs(n).to_vec());
        let operands: Vec<Node> = operands.filter(|o| !self.inside.contains(o) || !self.depends(*o, node)).collect();
        let uniform = |n: &Node| match (self.plan.home(*n), self.rank(*n)) {
            (_, 0 | 1) | (None, _) => self.is_uniform(*n),
            (Some(spec), 4) => {
                spec.merges(2, 3) && [2, 3].map(|i: usize| self.extent(*n, i)) == [h, w] || self.is_uniform(*n)
            }
            _ => self.is_uniform(*n),
        };
        if !dense || !operands.iter().all(uniform) {
            return rows;
        }
        let [_, row] = rows;
        let one = Loop { size: Size::Now(1), a: 0, b: 0, coord: None };
        [Loop { size: Size::Now(h * w), ..row }, one]
    }

    /// Has the node the same value at all pixels?
    fn is_uniform(&self, node: Node) -> bool {
        let rank = self.rank(node);
        // A vector of rank 1 is along the width, unless it holds a batch norm's parameters or one element.
        let pixels = shape_of(self.graph(), node).iter().skip(rank.saturating_sub(2));
        let channel_vector = rank == 1
            && self
                .users
                .get(&node)
                .is_some_and(|u| u.iter().all(|u| matches!(self.graph().op(*u), Op::BatchNorm { .. } | Op::Conv2d(_))));
        channel_vector || pixels.into_iter().all(|d| d.as_const() == Some(1))
    }

    /// Packs a weight whose columns are along `col` and whose inner dimension is `k`, outermost first.
    fn pack(&mut self, w: Node, groups: u64, col: usize, k: &[usize], vectors: u64, prim: Prim) -> Result<Right> {
        if !self.constant.contains(&w) {
            return Err(self.plan.unsupported(w, "a filter that is not a weight"));
        }
        let source = self.stored(w)?;
        if let (Some(&packed), 1) = (self.packs.get(&(w, vectors)), groups) {
            return Ok(Right::Packed(packed));
        }
        let cols = self.extent(w, col) / groups;
        let stride = |i: usize| source.axes[i].stride;
        let pack = Pack {
            out: BufferId(self.plan.buffers.len() as u32),
            groups: (groups, stride(col) * cols as i64),
            cols: (cols, stride(col)),
            k: k.iter().map(|&i| (self.extent(w, i), stride(i))).collect(),
            vectors,
            prim,
            source,
        };
        let out = pack.out;
        let bytes = pack.bytes(self.plan.target.vector_bytes);
        self.new_buffer(Place::Prepared, &[], bytes, format!("{} packed", self.label(w)));
        self.push(w, "pack", vec![w], Kind::Pack(Box::new(pack)));
        Ok(Right::Packed(out))
    }

    fn matmul(&mut self, node: Node, root: Node) -> Result<()> {
        let prim = self.product_prim(node)?;
        let lanes = self.plan.target.vector_bytes / prim.bytes() as u16;
        let [x, w] = [0, 1].map(|i| self.inputs(node)[i]);
        let a = match self.ready(x, prim) {
            Some(spec) => spec.clone(),
            None if self.plan.home(x).is_none() => self.stored(x)?,
            None => self.copy(x, false, [0, 0])?,
        };
        let out = self.destination(root, true)?;
        let rank = out.axes.len();
        let (depth, cols) = (self.extent(w, self.rank(w) - 2), self.extent(w, self.rank(w) - 1));
        let row = a.axes.len() - 2;
        let rows = Loop { size: a.axes[row].size.clone(), a: a.axes[row].stride, b: 0, coord: Some((rank - 2, 1)) };
        let packed = self.constant.contains(&w) && self.rank(w) == 2;
        let tall = rows.size.now().unwrap_or(1 << 12);
        let tile = kernel::choose_tile(self.plan.target, lanes, [tall, 1], cols, depth);
        let panel = i64::from(lanes) * tile.vectors as i64 * prim.bytes() as i64;
        let (right, b_row, b_panel) = if packed {
            (self.pack(w, 1, 1, &[0], tile.vectors, prim)?, panel, panel * depth as i64)
        } else {
            let spec = self.columns(w, prim)?;
            let b_row = spec.axes[spec.axes.len() - 2].stride;
            (Right::Stored(spec), b_row, panel)
        };
        let b_spec = match &right {
            Right::Stored(spec) => Some(spec),
            Right::Packed(_) => None,
        };
        let stride = |spec: &Spec, axis: usize| {
            let axis = (axis + spec.axes.len()).checked_sub(rank).map(|i| &spec.axes[i]);
            axis.filter(|a| a.size != Size::Now(1)).map_or(0, |a| a.stride)
        };
        let outer = (0..rank - 2).map(|i| Loop {
            size: out.axes[i].size.clone(),
            a: stride(&a, i),
            b: b_spec.map_or(0, |b| stride(b, i)),
            coord: Some((i, 1)),
        });
        let gemm = Gemm {
            node,
            root,
            bias: None,
            a_offset: 0,
            right: right.clone(),
            b_row,
            b_panel,
            outer: outer.collect(),
            rows: [rows, Loop { size: Size::Now(1), a: 0, b: 0, coord: None }],
            k: vec![KAxis { extent: depth, a: a.axes[row + 1].stride }],
            cols,
            col_axis: rank - 1,
            prim,
            tile,
            out: out.clone(),
            a,
        };
        self.finish(node, root, out, "matmul", Kind::Gemm(Box::new(gemm)));
        Ok(())
    }

    /// A right operand with its columns adjacent.
    fn columns(&mut self, w: Node, prim: Prim) -> Result<Spec> {
        let adjacent = |spec: &Spec| spec.axes.last().is_some_and(|a| a.stride == spec.elem_bytes());
        match self.ready(w, prim) {
            Some(spec) if adjacent(spec) => Ok(spec.clone()),
            None if self.plan.home(w).is_none() && !self.images.contains(&w) => self.stored(w),
            _ => self.copy(w, false, [0, 0]),
        }
    }

    /// Copies results that are not where they are wanted.
    fn outputs(&mut self) -> Result<()> {
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
                let nest = Nest::new(&out, &[], Vectors::Innermost);
                let kind = Kind::Map { root: node, out, nest };
                self.plan.stages.push(Stage { name: "map".into(), nodes: vec![node], kind });
            }
        }
        Ok(())
    }
}

fn item_bytes(sizes: &[Size], bytes: u64) -> u64 {
    sizes.first().and_then(Size::now).unwrap_or(1) * bytes
}

fn is_dense(spec: &Spec) -> bool {
    (1..spec.axes.len()).all(|i| spec.merges(i - 1, i))
}

/// A part of a tensor along an axis.
fn slice(whole: &Spec, axis: usize, first: u64, extent: u64) -> Spec {
    let mut part = whole.clone();
    part.offset += first as i64 * part.axes[axis].stride;
    part.axes[axis].size = Size::Now(extent);
    part
}
