//! The adjoint of a convolution's filters: a product that sums over all windows of all images.
//!
//! Rows are the elements of a filter, columns its filters, the inner dimension runs over pixels. Both operands are read where
//! they lie, channels innermost: no window is written out. Images come in parts that stay in the second-level cache while all
//! elements of the filters are gone through; each part has sums of its own, which a second stage adds up.

use super::eval::{At, Coord, Eval};
use super::gemm::{Gemm, Loop, Right};
use super::kernel::KAxis;
use super::nest::{Nest, Vectors};
use super::places::Layout;
use super::plan::{Kind, Place};
use super::planner::{Planner, Result};
use super::spec::{AxisSpec, BufferId, Size, Spec, intermediate};
use quearn_stage::graph::{Conv2d, Node};
use quearn_stage::low::{Prim, V};

/// Sums of parts added up, with an epilogue.
#[derive(Clone, Debug)]
pub struct Sum {
    /// The node.
    pub node: Node,
    /// What is stored.
    pub root: Node,
    /// The parts, one after the other, in front of the axes of the node.
    pub parts: Spec,
    /// Where the result goes.
    pub out: Spec,
    /// How the result is visited.
    pub nest: Nest,
}

impl Sum {
    /// Elements that one work item reads, about.
    pub fn elements(&self) -> u64 {
        self.nest.elements() * self.parts.axes[0].size.now().unwrap_or(1)
    }

    /// Writes the code for work items `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let b = ev.b;
        self.nest.emit(ev, lo, hi, &mut |at| {
            let count = ev.env.size(&self.parts.axes[0].size);
            let init = b.zero(ev.ty(self.node, at.lanes));
            let sum = b.for_carry(b.i64(0), count, 1, &[init], |part, sum| {
                let coords = std::iter::once(Coord::from(part)).chain(at.coords.iter().copied()).collect();
                let at = At { coords, vec: at.vec.map(|axis| axis + 1), ..at.clone() };
                vec![sum[0] + ev.load(&self.parts, &at)]
            });
            ev.finish(self.node, sum[0], self.root, &self.out, at);
        });
    }
}

/// Work items that there should be at least, for several workers to share.
const PIECES: u64 = 16;

impl Planner<'_, '_> {
    pub(super) fn conv2d_filters(&mut self, node: Node, root: Node, conv: &Conv2d, kernel: [u64; 2]) -> Result<()> {
        let prim = self.product_prim(node)?;
        let [x, y] = [0, 1].map(|i| self.inputs(node)[i]);
        let x = self.padded(x, conv, prim)?;
        let y = self.vectors_of_channels(y, [0, 0], prim)?;
        let each = self.images_of_part(&x, &y, kernel, conv.groups);
        let parts = self.sums_of_parts(node, &y.axes[0].size, each)?;
        let gemm = self.filter_product(node, conv, [x, y], each, parts.clone(), prim);
        self.push(node, "filters", vec![node], Kind::Gemm(Box::new(gemm)));
        let out = self.destination(root, true)?;
        let nest = Nest::of_folds(&out, &[], Vectors::Along(0), parts.axes[0].size.now().unwrap_or(1));
        let sum = Sum { node, root, parts, out: out.clone(), nest };
        self.finish(node, root, out, "sum", Kind::Sum(Box::new(sum)));
        Ok(())
    }

    /// Images with zeros around them, channels in any order.
    fn padded(&mut self, x: Node, conv: &Conv2d, prim: Prim) -> Result<Spec> {
        let padded = |spec: &&Spec| (0..2).all(|i| spec.halo[i] >= conv.padding[i]);
        if let Some(spec) = self.ready(x, prim).filter(padded) {
            return Ok(spec.clone());
        }
        let few = self.extent(x, 1) < u64::from(self.plan.target.lanes());
        self.copy(x, if few { Layout::Planes(conv.padding) } else { Layout::Channels(conv.padding) })
    }

    /// How many images a part has: as many as stay in the cache, but not so many that there is nothing to share.
    fn images_of_part(&self, x: &Spec, y: &Spec, kernel: [u64; 2], groups: u64) -> u64 {
        let Some(count) = y.axes[0].size.now().filter(|n| *n > 0) else { return 1 };
        let bytes = |spec: &Spec| {
            let extents = spec.axes[1..].iter().map(|axis| axis.size.now().unwrap_or(1));
            extents.product::<u64>() * spec.elem_bytes() as u64
        };
        let room = self.plan.target.l2_bytes * 3 / 4;
        let others = (kernel[0] * groups).max(1);
        let most = (room / (bytes(x) + bytes(y)).max(1)).min(count * others / PIECES).max(1);
        (1..=most.min(count)).rev().find(|each| count.is_multiple_of(*each)).unwrap_or(1)
    }

    /// Memory for the sums of all parts [parts, o, c, kh, kw], filters innermost.
    fn sums_of_parts(&mut self, node: Node, images: &Size, each: u64) -> Result<Spec> {
        let count = images.now().map_or_else(|| images.clone(), |n| Size::Now(n / each));
        let mut sizes = self.sizes(node)?;
        let elem = intermediate(self.scalar(node));
        let mut parts = Spec { buffer: BufferId(0), offset: 0, elem, axes: vec![], halo: [0, 0] };
        let mut stride = parts.elem_bytes();
        let mut strides = [0; 4];
        for axis in [0, 1, 3, 2] {
            strides[axis] = stride;
            stride *= sizes[axis].now().unwrap_or(1) as i64;
        }
        sizes.insert(0, count);
        let strides = std::iter::once(stride).chain(strides);
        parts.axes = sizes.iter().zip(strides).map(|(size, stride)| AxisSpec { size: size.clone(), stride }).collect();
        let bytes = sizes[0].now().unwrap_or(1) * stride as u64;
        let place = if self.constant.contains(&node) { Place::Prepared } else { Place::Arena };
        parts.buffer = self.new_buffer(place, &sizes, bytes.max(1), format!("parts of {}", self.label(node)));
        Ok(parts)
    }

    fn filter_product(&self, node: Node, conv: &Conv2d, [x, y]: [Spec; 2], each: u64, parts: Spec, prim: Prim) -> Gemm {
        let extents: Vec<u64> = parts.axes.iter().map(|axis| axis.size.now().unwrap_or(1)).collect();
        let (cols, channels) = (extents[1] / conv.groups, extents[2]);
        let [oh, ow] = [2, 3].map(|i: usize| y.axes[i].size.now().unwrap_or(1));
        let step = |i: usize| x.axes[i].stride * conv.stride[i - 2] as i64;
        let tap = |i: usize| x.axes[i].stride * conv.dilation[i - 2] as i64;
        let axes = [(each, x.axes[0].stride, 0), (oh, step(2), 2), (ow, step(3), 3)];
        let k = axes.iter().map(|&(extent, a, _)| KAxis { extent, a }).collect();
        let depth = axes.iter().map(|axis| axis.0).product();
        let rows = |size: u64, a: i64, coord: usize| Loop { size: Size::Now(size), a, b: 0, coord: Some((coord, 1)) };
        let rows = [rows(extents[4], tap(3), 4), rows(channels, x.axes[1].stride, 2)];
        let tile = self.tile(prim, [extents[4], channels], cols, depth);
        let images = each as i64;
        let outer = vec![
            Loop {
                size: parts.axes[0].size.clone(),
                a: x.axes[0].stride * images,
                b: y.axes[0].stride * images,
                coord: Some((0, 1)),
            },
            Loop {
                size: Size::Now(conv.groups),
                a: x.axes[1].stride * channels as i64,
                b: y.axes[1].stride * cols as i64,
                coord: Some((1, cols)),
            },
            Loop { size: Size::Now(extents[3]), a: tap(2), b: 0, coord: Some((3, 1)) },
        ];
        let a_offset = -(0..2).map(|i| conv.padding[i] as i64 * x.axes[2 + i].stride).sum::<i64>();
        let steps = axes.iter().map(|axis| y.axes[axis.2].stride).collect();
        Gemm {
            node,
            root: node,
            bias: None,
            a: x,
            a_offset,
            right: Right::Apart(y, steps),
            b_row: 0,
            b_panel: tile.vectors as i64 * i64::from(self.plan.target.vector_bytes),
            outer,
            rows,
            k,
            cols,
            col_axis: 1,
            prim,
            b_elem: prim,
            tile,
            backwards: false,
            out: parts,
        }
    }
}
