//! Plans convolutions by Winograd's algorithm, where they are estimated to be faster than by the definition.

use super::gemm::{Gemm, Loop, Right};
use super::kernel::KAxis;
use super::plan::{Kind, Place};
use super::planner::{Planner, Result};
use super::spec::{AxisSpec, Size, Spec};
use super::winograd::{FilterTransform, Filtering, ImageTransform, ResultTransform, Tiles, Transformed};
use quearn_stage::graph::{Conv2d, Node, Scalar};
use quearn_stage::low::Prim;

/// Bytes that come from the third-level cache in a cycle.
const FAR_BYTES: f64 = 8.0;
/// Bytes that come from the second-level cache in a cycle, or go there.
const NEAR_BYTES: f64 = 24.0;
/// The share of the peak that products reach.
const PRODUCTS: f64 = 0.9;
/// Tiles in a block are a multiple of this, the usual height of a register tile.
const MULTIPLE: u64 = 14;
/// How much faster it is to be by estimate to be worth the loss of some bits.
const WORTH: f64 = 0.85;

/// The shape of a convolution that might be computed by Winograd's algorithm.
struct Shape {
    images: u64,
    channels: u64,
    filters: u64,
    /// Output pixels.
    pixels: [u64; 2],
    /// Bytes of the filters.
    bytes: u64,
    /// Numbers in a vector.
    lanes: u64,
    /// Bytes of the second-level cache.
    cache: u64,
}

impl Shape {
    /// Cycles of `rows` x channels x filters multiply-adds of which `bytes` are weights.
    fn products(&self, rows: u64, times: u64, bytes: u64) -> f64 {
        let vectors = self.filters.div_ceil(self.lanes);
        let compute = (rows * times * self.channels * vectors) as f64 / 2.0 / PRODUCTS;
        let read = if bytes > self.cache / 2 { bytes as f64 / FAR_BYTES } else { 0.0 };
        compute.max(read) + read / 4.0
    }

    fn direct(&self) -> f64 {
        self.products(self.images * self.pixels[0] * self.pixels[1], 9, self.bytes)
    }

    fn tiles(&self, how: Filtering) -> Tiles {
        let grid = self.pixels.map(|n| n.div_ceil(how.edge()));
        let count = self.images * grid[0] * grid[1];
        Tiles { how, images: self.images, grid, prim: Prim::F32, block: [0, self.block(how, count)] }
    }

    /// How many of the tiles are worked on together: as many as stay in the second-level cache between the transforms, but
    /// not so few that the filters are read too often.
    fn block(&self, how: Filtering, count: u64) -> u64 {
        let filters = self.bytes / 9 * how.window().pow(2);
        if filters > 2 * self.cache {
            return count;
        }
        let room = (self.cache - self.cache / 4).saturating_sub(filters).max(self.cache / 2);
        let each = how.window().pow(2) * (self.channels + self.filters) * 4;
        let most = (room / each).max(MULTIPLE);
        // Blocks of about the same size, whole register tiles each.
        count.div_ceil(count.div_ceil(most)).next_multiple_of(MULTIPLE).min(count)
    }

    fn winograd(&self, how: Filtering) -> f64 {
        let (tiles, places) = (self.tiles(how).count(), how.window().pow(2));
        let products = self.products(tiles, places, self.bytes / 9 * places);
        let vectors = |n: u64| n.div_ceil(self.lanes) as f64;
        let transforms = tiles as f64 * places as f64 * (3.5 * vectors(self.channels) + 4.0 * vectors(self.filters));
        let block = self.tiles(how).block[1];
        let moved = (tiles * places * (self.channels + self.filters) * 4) as f64;
        let near = block * places * (self.channels + self.filters) * 4 <= self.cache;
        let rate = if near { NEAR_BYTES } else { FAR_BYTES };
        products + transforms + 2.0 * moved / rate
    }

    fn choice(&self) -> Option<Filtering> {
        let ways = [Filtering::Two, Filtering::Four];
        let best = ways.into_iter().min_by(|a, b| self.winograd(*a).total_cmp(&self.winograd(*b)))?;
        (self.winograd(best) < WORTH * self.direct()).then_some(best)
    }
}

impl Planner<'_, '_> {
    /// The algorithm for a convolution, if it is one of those that save multiplications.
    pub(super) fn filtering(&self, node: Node, conv: &Conv2d, prim: Prim) -> Option<Tiles> {
        let [x, w] = [0, 1].map(|i| self.inputs(node)[i]);
        let target = self.plan.target;
        let simple = [self.extent(w, 2), self.extent(w, 3)] == [3, 3]
            && conv.stride == [1, 1]
            && conv.dilation == [1, 1]
            && conv.groups == 1
            && prim == Prim::F32
            && self.scalar(node) == Scalar::F32
            && self.scalar(w) == Scalar::F32
            && self.constant.contains(&w)
            && self.extent(x, 1) >= u64::from(target.lanes());
        let sizes = self.sizes(node).ok().filter(|_| simple)?;
        let shape = Shape {
            images: sizes[0].now()?,
            channels: self.extent(x, 1),
            filters: self.extent(w, 0),
            pixels: [sizes[2].now()?, sizes[3].now()?],
            bytes: 9 * self.extent(w, 0) * self.extent(w, 1) * 4,
            lanes: target.lanes().into(),
            cache: target.l2_bytes,
        };
        shape.choice().map(|how| shape.tiles(how))
    }

    /// A tensor `[n²][tile][channel]` in the arena.
    fn transformed(&mut self, node: Node, tiles: &Tiles, channels: u64) -> Transformed {
        let row = (channels * tiles.prim.bytes() as u64) as i64;
        let lines = (row as u64 * tiles.block[1]).div_ceil(64);
        // An odd number of cache lines, so that the matrices do not meet in a few sets of the first-level cache.
        let plane = 64 * (lines | 1);
        let bytes = plane * tiles.how.window().pow(2);
        let label = format!("{} transformed", self.label(node));
        let buffer = self.new_buffer(Place::Arena, &[], bytes, label);
        Transformed { buffer, plane: plane as i64, row }
    }

    pub(super) fn winograd(&mut self, node: Node, root: Node, conv: &Conv2d, tiles: Tiles) -> Result<()> {
        let [x, w] = [0, 1].map(|i| self.inputs(node)[i]);
        let bias = self.inputs(node).get(2).copied();
        if let Some(bias) = bias {
            self.stored(bias)?;
        }
        let image = self.vectors_of_channels(x, conv.padding, tiles.prim)?;
        let (channels, filters) = (self.extent(x, 1), self.extent(w, 0));
        let out_spec = self.destination(root, false)?;
        let (parts, products) = (self.transformed(node, &tiles, channels), self.transformed(node, &tiles, filters));
        let gemm = self.winograd_products(node, &tiles, [&parts, &products])?;
        let [_, size] = tiles.block;
        // The last block reaches back into the one before it, and does the same there again.
        let blocks = (0..tiles.count()).step_by(size as usize).map(|first| first.min(tiles.count() - size));
        for first in blocks {
            let tiles = Tiles { block: [first, size], ..tiles.clone() };
            let (x, out) = (image.clone(), parts.clone());
            let transform = ImageTransform { tiles: tiles.clone(), x, padding: conv.padding, out };
            self.push(node, "winograd_image", vec![], Kind::ImageTransform(Box::new(transform)));
            self.push(node, "winograd", vec![], Kind::Gemm(Box::new(gemm.clone())));
            let (products, out) = (products.clone(), out_spec.clone());
            let back = ResultTransform { tiles, node, root, bias, products, out };
            self.finish(node, root, out_spec.clone(), "conv", Kind::ResultTransform(Box::new(back)));
        }
        Ok(())
    }

    /// The products between the transforms of a block.
    fn winograd_products(&mut self, node: Node, tiles: &Tiles, [parts, products]: [&Transformed; 2]) -> Result<Gemm> {
        let w = self.inputs(node)[1];
        let (channels, filters, rows) = (self.extent(w, 1), self.extent(w, 0), tiles.block[1]);
        let tile = self.tile(tiles.prim, [rows, 1], filters, channels);
        let (right, plane) = self.transformed_filters(w, tiles, tile.vectors)?;
        let (b_row, b_panel) = self.panel_bytes(tile, channels);
        let places = tiles.how.window().pow(2);
        let part = |of: &Transformed, channels: u64| Spec {
            buffer: of.buffer,
            offset: 0,
            elem: Scalar::F32,
            axes: [(places, of.plane), (rows, of.row), (channels, 4)]
                .map(|(n, stride)| AxisSpec { size: Size::Now(n), stride })
                .into(),
            halo: [0, 0],
        };
        Ok(Gemm {
            backwards: false,
            node,
            root: node,
            bias: None,
            a: part(parts, channels),
            a_offset: 0,
            right,
            b_row,
            b_panel,
            outer: vec![Loop { size: Size::Now(places), a: parts.plane, b: plane, coord: Some((0, 1)) }],
            rows: [
                Loop { size: Size::Now(rows), a: parts.row, b: 0, coord: Some((1, 1)) },
                Loop { size: Size::Now(1), a: 0, b: 0, coord: None },
            ],
            k: vec![KAxis { extent: channels, a: 4 }],
            cols: filters,
            col_axis: 2,
            prim: tiles.prim,
            b_elem: tiles.prim,
            tile,
            out: part(products, filters),
        })
    }

    /// The packed transforms of filters, and the bytes of one of the n² matrices.
    fn transformed_filters(&mut self, w: Node, tiles: &Tiles, vectors: u64) -> Result<(Right, i64)> {
        let mut source = self.stored(w)?;
        if source.runs_back() {
            source = self.copy(w, super::places::Layout::RowMajor)?;
        }
        let vector_bytes = self.plan.target.vector_bytes;
        let label = format!("{} transformed and packed", self.label(w));
        let out = self.new_buffer(Place::Prepared, &[], 0, label);
        let transform = FilterTransform { how: tiles.how, w: source, out, vectors, prim: tiles.prim };
        let plane = transform.plane_bytes(vector_bytes);
        self.plan.buffers[out.0 as usize].bytes = plane * tiles.how.window().pow(2);
        self.push(w, "winograd_filter", vec![w], Kind::FilterTransform(Box::new(transform)));
        Ok((Right::Packed(out), plane as i64))
    }
}
