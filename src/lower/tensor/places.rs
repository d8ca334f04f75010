//! Where tensors go while a plan is made: layouts, halos, slices of concatenations, copies.

use super::kernel::elements_of_step;
use super::plan::{Buffer, Kind, Place, Stage, check_elem};
use super::planner::{Planner, Result};
use super::spec::{AxisSpec, BufferId, Size, Spec, intermediate, row_major};
use crate::lower::error::LowerError;
use quearn_stage::graph::{Node, Op};
use quearn_stage::low::Prim;

impl Planner<'_, '_> {
    pub(super) fn new_buffer(&mut self, place: Place, sizes: &[Size], bytes: u64, label: String) -> BufferId {
        let per_item = sizes.first() == Some(&Size::Items);
        self.plan.buffers.push(Buffer { place, bytes, per_item, label });
        BufferId(self.plan.buffers.len() as u32 - 1)
    }

    pub(super) fn label(&self, node: Node) -> String {
        self.plan.describe(node)
    }

    /// A new tensor of the node's shape.
    pub(super) fn allocate(&mut self, node: Node, layout: Layout) -> Result<Spec> {
        let sizes = self.sizes(node)?;
        let elem = intermediate(self.scalar(node));
        let constant = self.constant.contains(&node);
        let place = if constant { Place::Prepared } else { Place::Arena };
        let mut spec = Spec { buffer: BufferId(0), offset: 0, elem, axes: vec![], halo: [0, 0] };
        let unit = spec.elem_bytes();
        spec.axes = layout.axes(&sizes, unit);
        match layout {
            Layout::RowMajor if self.has_left_users(node) => spread_rows(&mut spec, MEETING),
            Layout::Apart => spread_rows(&mut spec, MEETING / 4),
            _ => {}
        }
        let whole = spec.axes.first().map_or(unit, |a| a.stride) as u64;
        let mut bytes = sizes.first().and_then(Size::now).unwrap_or(1) * whole;
        if let Layout::Channels(halo) | Layout::Planes(halo) = layout {
            spec.offset = (0..2).map(|i| halo[i] as i64 * spec.axes[2 + i].stride).sum();
            spec.halo = halo;
            bytes = sizes[0].now().unwrap_or(1) * spec.axes[0].stride as u64;
        }
        // A kernel of bytes takes so many a step, the last of a buffer too.
        let over = if unit == 1 { elements_of_step(Prim::I32) - 1 } else { 0 };
        spec.buffer = self.new_buffer(place, &sizes, bytes.max(1) + over, self.label(node));
        if spec.halo != [0, 0] {
            self.push(node, "halo", vec![], Kind::Halo(spec.clone()));
        }
        Ok(spec)
    }

    /// Is the node the left operand of a product?
    fn has_left_users(&self, node: Node) -> bool {
        let left = |u: &Node| matches!(self.graph().op(*u), Op::MatMul) && self.inputs(*u)[0] == node;
        self.users.get(&node).is_some_and(|users| users.iter().any(left))
    }

    /// Where the result of the stage of `node` goes; `direct` if it may go straight to an output of the program.
    pub(super) fn destination(&mut self, node: Node, direct: bool) -> Result<Spec> {
        check_elem(self.graph(), node)?;
        if let Some(&(concat, first)) = self.slices.get(&node) {
            let Op::Concat { axis } = self.graph().op(concat) else {
                return self.internal(node, "a slice of no concat");
            };
            let whole = self.joined_spec(concat)?;
            return Ok(self.slice(node, &whole, *axis, first));
        }
        if let Some(place) = self.targets.get(&node).filter(|_| !self.images.contains(&node)) {
            return Ok(place.clone());
        }
        match self.output_of(node) {
            Some(index) if direct && !self.constant.contains(&node) => self.output_spec(node, index),
            _ if self.images.contains(&node) => {
                let halo = self.halos.get(&node).copied().unwrap_or_default();
                self.allocate(node, Layout::Channels(halo))
            }
            _ => self.allocate(node, Layout::RowMajor),
        }
    }

    pub(super) fn internal<T>(&self, node: Node, what: &str) -> Result<T> {
        Err(LowerError::Internal { node: self.label(node), what: what.to_owned() })
    }

    pub(super) fn output_spec(&mut self, node: Node, index: usize) -> Result<Spec> {
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
    pub(super) fn chunk_bytes(&self, node: Node, spec: &Spec) -> Option<i64> {
        let leads = self.itemed(node) && self.plan.items.dim.is_some();
        leads.then(|| spec.axes.first().map_or(0, |a| a.stride))
    }

    /// The result of a concatenation (or stack), of which operands may be written before its turn comes.
    pub(super) fn joined_spec(&mut self, concat: Node) -> Result<Spec> {
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
    pub(super) fn stored(&mut self, node: Node) -> Result<Spec> {
        if let Some(spec) = self.plan.home(node) {
            return Ok(spec.clone());
        }
        let out = self.destination(node, true)?;
        self.map(node, node, out.clone());
        self.plan.homes.insert(node, out.clone());
        Ok(out)
    }

    /// Evaluates `root` into (a part of) the memory of `owner`.
    pub(super) fn map(&mut self, owner: Node, root: Node, out: Spec) {
        self.add(owner, Stage::map(root, out));
    }

    pub(super) fn push(&mut self, node: Node, name: &str, nodes: Vec<Node>, kind: Kind) {
        self.add(node, Stage { name: name.to_owned(), nodes, kind });
    }

    /// Adds a stage for a node where it belongs: inside steps that the node is inside of, or outside.
    fn add(&mut self, node: Node, stage: Stage) {
        let walk = self.owners.get(&node);
        match self.open.iter_mut().find(|open| Some(&open.walk) == walk) {
            Some(open) => open.stages.push(stage),
            None if self.constant.contains(&node) => self.plan.prepare.push(stage),
            None => self.plan.stages.push(stage),
        }
    }

    /// The node in memory in row-major order.
    pub(super) fn stored_row_major(&mut self, node: Node) -> Result<Spec> {
        let sizes = self.sizes(node)?;
        if let Some(spec) = self.plan.home(node) {
            if spec.reshaped(&sizes).is_some_and(|s| s.axes == row_major(&sizes, spec.elem_bytes()) || is_dense(&s)) {
                return Ok(spec.clone());
            }
        } else if !self.images.contains(&node) {
            return self.stored(node);
        }
        self.copy(node, Layout::RowMajor)
    }

    /// The part of `whole` from `first` on along an axis, as long as `node` is.
    pub(super) fn slice(&mut self, node: Node, whole: &Spec, axis: usize, first: u64) -> Spec {
        let extent = self.extent(node, axis);
        match axis {
            0 => slice(&self.part(node, whole, first), 0, 0, extent),
            _ => slice(whole, axis, first, extent),
        }
    }

    /// `whole` from index `first` of its first axis on, with an address of its own.
    pub(super) fn part(&mut self, node: Node, whole: &Spec, first: u64) -> Spec {
        let offset = first as i64 * whole.axes[0].stride;
        let bytes = self.plan.buffer(whole.buffer).bytes.saturating_sub(offset as u64);
        let buffer = self.new_buffer(Place::Part { of: whole.buffer, offset }, &[], bytes, self.label(node));
        Spec { buffer, ..whole.clone() }
    }

    /// A copy in another layout.
    pub(super) fn copy(&mut self, node: Node, layout: Layout) -> Result<Spec> {
        if let Some(spec) = self.copies.get(&(node, layout)) {
            return Ok(spec.clone());
        }
        let spec = self.allocate(node, layout)?;
        self.map(node, node, spec.clone());
        self.copies.insert((node, layout), spec.clone());
        Ok(spec)
    }
}

/// The order of the axes in memory; images with zeros around them (vertical, horizontal).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Layout {
    /// As the graph has them.
    RowMajor,
    /// The same with rows that do not meet in the cache, for a right operand that is read down its columns.
    Apart,
    /// Channels innermost.
    Channels([u64; 2]),
    /// One channel after the other.
    Planes([u64; 2]),
}

impl Layout {
    pub(super) fn axes(self, sizes: &[Size], unit: i64) -> Vec<AxisSpec> {
        let (Layout::Channels(halo) | Layout::Planes(halo)) = self else { return row_major(sizes, unit) };
        let [c, h, w] = [1, 2, 3].map(|i: usize| sizes[i].now().unwrap_or(1) as i64);
        let [h, w] = [h + 2 * halo[0] as i64, w + 2 * halo[1] as i64];
        let strides = match self {
            Layout::Planes(_) => [c * h * w, h * w, w, 1],
            _ => [h * w * c, 1, w * c, c],
        };
        sizes.iter().zip(strides).map(|(s, n)| AxisSpec { size: s.clone(), stride: n * unit }).collect()
    }
}

/// Rows at a distance of a multiple of this (bytes) meet in the same few sets of the first-level cache.
pub(super) const MEETING: i64 = 4096;
/// Bytes that are left free after such a row: a cache line.
pub(super) const APART: i64 = 64;

/// Moves the rows of a matrix apart, where a kernel that reads several of them at once would throw them out of the cache.
fn spread_rows(spec: &mut Spec, meeting: i64) {
    let Some(row) = spec.axes.len().checked_sub(2).filter(|&row| spec.axes[row].stride % meeting == 0) else { return };
    for i in (0..=row).rev() {
        let inner = spec.axes.get(i + 1).map(|a| (a.stride, a.size.now().unwrap_or(1) as i64));
        spec.axes[i].stride = match inner {
            Some(_) if i == row => spec.axes[row].stride + APART,
            Some((stride, n)) => stride * n,
            None => spec.axes[i].stride,
        };
    }
}

fn is_dense(spec: &Spec) -> bool {
    (1..spec.axes.len()).all(|i| spec.merges(i - 1, i))
}

/// A part of a tensor along an axis.
pub(super) fn slice(whole: &Spec, axis: usize, first: u64, extent: u64) -> Spec {
    let mut part = whole.clone();
    part.offset += first as i64 * part.axes[axis].stride;
    part.axes[axis].size = Size::Now(extent);
    part
}
