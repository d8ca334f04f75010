//! The register-tiled micro-kernel under convolutions and matrix products.
//!
//! `rows` x `vectors` accumulators stay in registers while the whole inner dimension is run through. An element of A
//! is broadcast from where it lies (no packing: the rows of the tile are at constant distances from one address);
//! B is read as vectors of neighbouring columns.
//!
//! Products of bytes are summed four at a time into `i32`: a step of the inner dimension is then four bytes of A, which lie
//! next to each other, and a vector of four bytes of each column of B.

use super::target::Target;
use quearn_stage::low::{Builder, CastOp, Prim, Ty, V};

/// How many elements of the inner dimension one step takes, where sums are of type `prim`.
pub fn elements_of_step(prim: Prim) -> u64 {
    if prim == Prim::I32 { 4 } else { 1 }
}

/// The type of A's elements where sums are of type `prim`.
pub fn element(prim: Prim) -> Prim {
    if prim == Prim::I32 { Prim::I8 } else { prim }
}

/// One axis of the inner dimension.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KAxis {
    /// Extent, in steps.
    pub extent: u64,
    /// Bytes of A from one step to the next along it.
    pub a: i64,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// A kernel's constants.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// Type of the sums: `F32`, `F64`, or `I32` for products of bytes.
    pub prim: Prim,
    /// Type of B's elements in memory: that of the sums, or a narrower float that is widened in registers.
    pub right: Prim,
    /// Lanes of a vector.
    pub lanes: u16,
    /// Bytes from the tile's address in A to each of its rows.
    pub rows: Vec<i64>,
    /// Vectors of columns.
    pub vectors: usize,
    /// The inner dimension, outermost axis first.
    pub k: Vec<KAxis>,
    /// Bytes of B from one step to the next along each of its axes.
    pub b: Vec<i64>,
}

impl Kernel {
    /// The sums of products, row by row, `vectors` each.
    pub fn run<'b>(&self, b: &'b Builder, a: V<'b>, panel: V<'b>, reads: Reads<'_, 'b>) -> Vec<V<'b>> {
        let zero = b.zero(Ty::vector(self.prim, self.lanes));
        let init = vec![zero; self.rows.len() * self.vectors];
        let loads = Loads { kernel: self, b, reads };
        loads.axis(0, Cursor { a, panel, ahead: reads.ahead.map(|ahead| ahead.ptr) }, init)
    }

    /// Steps of the inner dimension under one step of axis `axis`.
    fn steps_under(&self, axis: usize) -> i64 {
        self.k[axis + 1..].iter().map(|k| k.extent as i64).product()
    }

    /// Steps of the innermost loop that are written out: enough arithmetic to hide the loop's own instructions, and
    /// no more, because elements that several steps share would then be kept in registers.
    fn unroll(&self) -> u64 {
        let products = (self.rows.len() * self.vectors).max(1) as u64;
        (16 / products).clamp(1, 8)
    }
}

struct Loads<'k, 'b> {
    kernel: &'k Kernel,
    b: &'b Builder,
    reads: Reads<'k, 'b>,
}

/// How the operands may be read.
#[derive(Clone, Copy)]
pub struct Reads<'k, 'b> {
    /// For each vector of columns the lanes that exist in B; none: all do.
    pub masks: &'k [Option<V<'b>>],
    /// What will be read soon.
    pub ahead: Option<Ahead<'b>>,
    /// Does nothing write A while the function runs?
    pub a_invariant: bool,
    /// Does nothing write B while the function runs?
    pub b_invariant: bool,
}

/// What is fetched while a kernel runs.
#[derive(Clone, Copy)]
pub struct Ahead<'b> {
    /// Where it begins.
    pub ptr: V<'b>,
    /// The bytes to go on by for each step of the inner dimension.
    pub step: i64,
    /// Is it for later than this kernel?
    pub far: bool,
}

/// Where the loops are.
#[derive(Clone, Copy)]
struct Cursor<'b> {
    a: V<'b>,
    panel: V<'b>,
    ahead: Option<V<'b>>,
}

impl<'b> Loads<'_, 'b> {
    /// `i` steps further along an axis.
    fn moved(&self, at: Cursor<'b>, i: V<'b>, axis: usize) -> Cursor<'b> {
        let step = self.reads.ahead.map_or(0, |ahead| ahead.step);
        Cursor {
            a: at.a.index(i, self.kernel.k[axis].a),
            panel: at.panel.index(i, self.kernel.b[axis]),
            ahead: at.ahead.map(|ptr| ptr.index(i, self.kernel.steps_under(axis) * step)),
        }
    }

    fn axis(&self, axis: usize, at: Cursor<'b>, acc: Vec<V<'b>>) -> Vec<V<'b>> {
        let Some(k) = self.kernel.k.get(axis) else { return self.step(at.a, at.panel, acc) };
        if axis + 1 == self.kernel.k.len() {
            return self.innermost(*k, axis, at, acc);
        }
        let (lo, hi) = (self.b.i64(0), self.b.i64(k.extent as i64));
        self.b.for_carry(lo, hi, 1, &acc, |i, acc| self.axis(axis + 1, self.moved(at, i, axis), acc.to_vec()))
    }

    fn innermost(&self, k: KAxis, axis: usize, at: Cursor<'b>, acc: Vec<V<'b>>) -> Vec<V<'b>> {
        let b_row = self.kernel.b[axis];
        let unroll = self.kernel.unroll();
        let whole = k.extent / unroll * unroll;
        let (lo, hi) = (self.b.i64(0), self.b.i64(whole as i64));
        let acc = self.b.for_carry(lo, hi, unroll as i64, &acc, |i, acc| {
            let at = self.moved(at, i, axis);
            if let (Some(ptr), Some(Ahead { step, far, .. })) = (at.ahead, self.reads.ahead) {
                let lines = (0..step * unroll as i64).step_by(LINE).map(|line| ptr.at(line));
                lines.for_each(|line| if far { self.b.prefetch_far(line) } else { self.b.prefetch(line) });
            }
            (0..unroll as i64).fold(acc.to_vec(), |acc, u| self.step(at.a.at(u * k.a), at.panel.at(u * b_row), acc))
        });
        let done = |acc, u: i64| self.step(at.a.at(u * k.a), at.panel.at(u * b_row), acc);
        (whole as i64..k.extent as i64).fold(acc, done)
    }

    /// One rank-1 update, or four of bytes.
    fn step(&self, a: V<'b>, panel: V<'b>, acc: Vec<V<'b>>) -> Vec<V<'b>> {
        let Kernel { prim, lanes, vectors, .. } = *self.kernel;
        let ty = Ty::vector(prim, lanes);
        let columns: Vec<V<'b>> = (0..vectors).map(|v| self.column(panel, v, ty)).collect();
        let rows = self.kernel.rows.iter().enumerate();
        let updated = rows.flat_map(|(r, &offset)| {
            let x = self.left(a, offset).splat(lanes);
            let acc = &acc[r * vectors..(r + 1) * vectors];
            let summed = |(c, acc): (&V<'b>, &V<'b>)| if prim == Prim::I32 { acc.dot4(x, *c) } else { x.fma(*c, *acc) };
            columns.iter().zip(acc).map(summed).collect::<Vec<_>>()
        });
        updated.collect()
    }

    /// What a row has for one step.
    fn left(&self, a: V<'b>, offset: i64) -> V<'b> {
        let (prim, lanes) = (element(self.kernel.prim), elements_of_step(self.kernel.prim));
        let read = load(self.b, Ty::vector(prim, lanes as u16), a, offset, self.reads.a_invariant);
        if lanes == 1 { read } else { read.bitcast(Ty::scalar(self.kernel.prim)) }
    }

    fn column(&self, panel: V<'b>, v: usize, ty: Ty) -> V<'b> {
        let stored = ty.with_prim(self.kernel.right);
        let offset = (v * stored.bytes()) as i64;
        let invariant = self.reads.b_invariant;
        let column = match self.reads.masks.get(v) {
            Some(&Some(mask)) => self.b.masked_load(stored, panel.at(offset), mask, invariant),
            _ => load(self.b, stored, panel, offset, invariant),
        };
        if stored == ty { column } else { column.cast(CastOp::FpExt, ty.prim) }
    }
}

fn load<'b>(b: &'b Builder, ty: Ty, ptr: V<'b>, offset: i64, invariant: bool) -> V<'b> {
    if invariant { b.load_invariant(ty, ptr, offset) } else { b.load(ty, ptr, offset) }
}

/// Shape of a register tile: rows as a block of `rows[0]` x `rows[1]`, and vectors of columns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tile {
    /// Extents of the block of rows.
    pub rows: [u64; 2],
    /// Vectors of columns.
    pub vectors: u64,
}

/// The tile that costs the least for an output of `rows` (two axes) by `cols` columns and `k` products each.
pub fn choose_tile(target: Target, lanes: u16, rows: [u64; 2], cols: u64, k: u64) -> Tile {
    let all = cols.div_ceil(lanes.into());
    let mut best = (f64::INFINITY, Tile { rows: [1, 1], vectors: 1 });
    for vectors in 1..=all.min(4) {
        let room = (u64::from(target.registers) - 1 - vectors) / vectors;
        for y in 1..=room.min(rows[0]) {
            for x in 1..=(room / y).min(rows[1]) {
                let tile = Tile { rows: [y, x], vectors };
                let cost = tile_cost(tile, rows, all, k);
                if cost < best.0 {
                    best = (cost, tile);
                }
            }
        }
    }
    best.1
}

/// Estimated cycles: two vector operations and two loads a cycle, four cycles of latency, and some work around
/// each tile.
fn tile_cost(tile: Tile, rows: [u64; 2], vectors: u64, k: u64) -> f64 {
    let Tile { rows: [y, x], vectors: v } = tile;
    let fma = (y * x * v) as f64 / 2.0;
    let load = (y * x + v) as f64 / 2.0;
    let step = fma.max(load).max(4.0) + 0.25;
    let tiles = rows[0].div_ceil(y) * rows[1].div_ceil(x) * vectors.div_ceil(v);
    let around = 20.0 + (y * x * v) as f64;
    tiles as f64 * (k as f64 * step + around)
}
