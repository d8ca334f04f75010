//! Attention in one stage: products of queries and keys, softmax, and the mean of the values, a block of queries at a time.
//!
//! The scores of a block stay in the cache, on the worker's stack; the whole matrix of scores is never written (Dao et al.,
//! "FlashAttention", 2022, without its running maximum, which a block that sees all keys at once does not need).

use super::eval::{At, Coord, Env, Eval};
use super::gemm::{Gemm, divide};
use super::kernel::Tile;
use super::nest::{Nest, Vectors};
use super::plan::{Kind, Place};
use super::planner::{Planner, Result};
use super::products::Rows;
use super::reduce::{Along, Lines};
use super::spec::{AxisSpec, BufferId, Size, Spec};
use quearn_stage::graph::{Node, Op, Scalar};
use quearn_stage::low::V;

/// Scores that a block may have, in bytes, on the stack.
const MOST_BYTES: u64 = 256 << 10;
/// Rows whose softmax is taken together.
const TOGETHER: i64 = 4;
/// Bytes that keep rows of scores out of one another's sets in the first-level cache.
const APART: u64 = 64;

/// Attention with its epilogue.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Products of queries and keys, with what follows up to the softmax.
    pub scores: Gemm,
    /// Softmax of each row of scores, in place.
    pub softmax: Lines,
    /// Products of the weights with the values.
    pub mix: Gemm,
    /// The block of scores. Its address is such that the rows' own numbers find their places.
    pub block: BufferId,
    /// Bytes of a row of scores.
    pub row: u64,
}

/// The environment in which the block of scores is on the stack.
struct WithBlock<'a, 'b> {
    inner: &'a dyn Env<'b>,
    block: BufferId,
    at: V<'b>,
}

impl<'b> Env<'b> for WithBlock<'_, 'b> {
    fn buffer(&self, buffer: BufferId) -> V<'b> {
        if buffer == self.block { self.at } else { self.inner.buffer(buffer) }
    }

    fn size(&self, size: &Size) -> V<'b> {
        self.inner.size(size)
    }

    fn number(&self, number: i64) -> V<'b> {
        self.inner.number(number)
    }

    fn turn(&self, backwards: bool) -> V<'b> {
        self.inner.turn(backwards)
    }

    fn run(&self) -> V<'b> {
        self.inner.run()
    }

    fn invariant(&self, buffer: BufferId) -> bool {
        buffer != self.block && self.inner.invariant(buffer)
    }
}

impl Attention {
    fn height(&self) -> u64 {
        self.scores.tile.rows[0]
    }

    fn rows(&self) -> u64 {
        self.scores.rows[0].size.now().unwrap_or(1)
    }

    /// Number of work items, blocks of queries, and about as many floating-point operations as one is worth.
    pub fn work<'b>(&self, one: V<'b>, size: &dyn Fn(&Size) -> V<'b>) -> (V<'b>, u64) {
        let blocks = one * self.rows().div_ceil(self.height()) as i64;
        let depth = |gemm: &Gemm| gemm.k.iter().map(|k| k.extent).product::<u64>();
        let each = self.scores.cols * (2 * depth(&self.scores) + 2 * self.mix.cols + 64);
        (self.scores.outer.iter().fold(blocks, |n, outer| n * size(&outer.size)), each * self.height())
    }

    /// Writes the code for work items `lo..hi`. The last block is moved back over its neighbour.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let (b, height) = (ev.b, self.height() as i64);
        let memory = b.alloca((self.row * self.height()) as u32, 64);
        let blocks = self.rows().div_ceil(self.height()) as i64;
        b.for_(lo, hi, |t| {
            let (outer, block) = divide(t, b.i64(blocks));
            let first = (block * height).min(b.i64(self.rows() as i64 - height));
            let env = WithBlock { inner: ev.env, block: self.block, at: memory.index(first * -(self.row as i64), 1) };
            let ev = Eval { env: &env, known: vec![], ..*ev };
            self.scores.emit_rows(&ev, outer, block);
            let coords = self.scores.coords(&ev, outer);
            let softmax = |row: V<'b>, count: i64| {
                let line = |i: i64| {
                    let mut coords: Vec<Coord<'b>> = coords.clone();
                    let axis = coords.len() - 2;
                    coords[axis] = Coord::from(row).plus(i);
                    At { coords, vec: None, lanes: 1, mask: None }
                };
                self.softmax.softmax_in_vectors(&ev, &(0..count).map(line).collect::<Vec<_>>());
            };
            let rest = height % TOGETHER;
            b.for_carry(first, first + (height - rest), TOGETHER, &[], |row, _| {
                softmax(row, TOGETHER);
                vec![]
            });
            if rest > 0 {
                softmax(first + (height - rest), rest);
            }
            self.mix.emit_rows(&ev, outer, block);
        });
    }
}

/// The nodes of an attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// Product of queries and keys.
    product: Node,
    /// What the softmax is taken of.
    scores: Node,
    /// The softmax.
    softmax: Node,
}

impl Planner<'_, '_> {
    /// Finds attention: a product, elementwise operations, softmax along the rows, a product. It is listed under its last
    /// product; the other nodes get no stages of their own.
    pub(super) fn find_attention(&mut self) {
        for &mix in self.request.nodes {
            if !matches!(self.graph().op(mix), Op::MatMul) || self.is_leaf(mix) || self.bound.contains(&mix) {
                continue;
            }
            let softmax = self.inputs(mix)[0];
            let Op::Softmax { axis } = self.graph().op(softmax) else { continue };
            if *axis + 1 != self.rank(softmax) || self.inputs(mix)[1] == softmax {
                continue;
            }
            let scores = self.inputs(softmax)[0];
            let Some(&product) = self.heavy_of.get(&scores) else { continue };
            let only = |node: Node, user: Node| {
                self.users.get(&node).is_some_and(|users| users.iter().all(|u| *u == user)) && !self.is_root(node)
            };
            let together = |node: Node| self.owners.get(&node) == self.owners.get(&mix);
            let small = |node: Node| {
                let known = self.sizes(node).is_ok_and(|sizes| sizes[1..].iter().all(|s| s.now().is_some()));
                known && self.scalar(node) == Scalar::F32 && self.rank(node) == self.rank(mix) && self.rank(node) > 2
            };
            let sizes = self.extent(scores, self.rank(scores) - 1) * 4 + APART;
            if matches!(self.graph().op(product), Op::MatMul)
                && !self.constant.contains(&mix)
                && [product, softmax].iter().all(|n| together(*n))
                && [product, scores, softmax, mix].iter().all(|n| small(*n))
                && only(softmax, mix)
                && only(scores, softmax)
                && sizes * u64::from(self.plan.target.registers) <= MOST_BYTES
            {
                let parts = Parts { product, scores, softmax };
                self.attentions.insert(mix, parts);
                self.absorbed.extend([scores, softmax]);
            }
        }
    }

    pub(super) fn attention(&mut self, mix: Node, root: Node, parts: Parts) -> Result<()> {
        let Parts { product, scores, softmax } = parts;
        let sizes = self.sizes(scores)?;
        let (rank, keys) = (sizes.len(), self.extent(scores, self.rank(scores) - 1));
        let row = (keys * 4).next_multiple_of(64);
        let row = if row.is_multiple_of(1024) { row + APART } else { row };
        let label = format!("{} of a block", self.label(scores));
        let block = self.new_buffer(Place::Stack, &[], 0, label);
        let stride = |i: usize| match rank - i {
            1 => 4,
            2 => row as i64,
            _ => 0,
        };
        let axes = sizes.into_iter().enumerate().map(|(i, size)| AxisSpec { size, stride: stride(i) }).collect();
        let spec = Spec { buffer: block, offset: 0, elem: Scalar::F32, axes, halo: [0, 0] };

        let scored = self.product(product, scores, spec.clone(), Rows::Apart(None))?;
        let size = spec.axes[rank - 1].size.clone();
        let nest = Nest::new(&spec, &[rank - 1], Vectors::No, 1);
        let (along, axis, out) = (Along::Softmax, rank - 1, spec.clone());
        let normalised = Lines { along, node: softmax, x: scores, axis, size, out, nest };
        self.plan.homes.insert(scores, spec.clone());
        self.plan.homes.insert(softmax, spec);
        let out = self.destination(root, true)?;
        let lanes = u64::from(self.plan.target.lanes());
        let height = scored.tile.rows[0];
        let room = (u64::from(self.plan.target.registers) - 1) / (height + 1);
        let vectors = room.clamp(1, self.extent(mix, rank - 1).div_ceil(lanes));
        let mixed = self.product(mix, root, out.clone(), Rows::Apart(Some(Tile { rows: [height, 1], vectors })))?;
        let attention = Attention { scores: scored, softmax: normalised, mix: mixed, block, row };
        let mut nodes = self.epilogue_nodes(product, scores);
        nodes.push(softmax);
        nodes.extend(self.epilogue_nodes(mix, root));
        self.push(mix, "attention", nodes, Kind::Attention(Box::new(attention)));
        self.plan.homes.insert(root, out);
        Ok(())
    }
}
