//! Products whose left operand lies the other way round in memory, `transpose(x) y`: gradients of weights, mostly.
//!
//! The micro-kernel takes an element of each row of a tile at each step of the inner dimension, which would be read across
//! the lines of `x`. So the inner dimension is cut into blocks, and a block of either operand is packed just before it is
//! used, in the order in which the kernel reads it (Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication", 2008): the left one for some tiles of rows, in the second-level cache, the right one for a panel of
//! columns, in the first-level cache, or the second-level one if the inner dimension is not much longer. Both are on the
//! worker's stack. All blocks of some tiles of rows follow each other, so that the sums of all but the last, which wait in
//! memory, are near. The epilogue sees whole sums only; it may have several results (a weight, and what its optimiser
//! keeps), whose operands are fetched while the sums of the last block are made.

use super::eval::{At, Coord, Eval};
use super::gemm::divide;
use super::kernel::{KAxis, Kernel, Reads, Tile};
use super::places::{APART, Layout};
use super::planner::{Planner, Result};
use super::spec::{Size, Spec, storage};
use super::target::Target;
use quearn_stage::graph::{Node, Op};
use quearn_stage::low::{Prim, Ty, V};

/// Bytes of a column of a panel of the right operand: the panel stays in the first-level cache, and the sums are fetched and
/// put back seldom.
const COLUMN_BYTES: u64 = 1024;
/// The same where it is the whole column: no sums wait, which is worth more than the first-level cache.
const WHOLE_COLUMN_BYTES: u64 = 3072;
/// Bytes of the block of the left operand.
const LEFT_BYTES: u64 = 512 << 10;
/// Lines of the left operand that are fetched while one is packed.
const LINES_AHEAD: i64 = 8;
/// Extents below which a copy is no worse.
const FEW: u64 = 4;

/// A product with its epilogue.
#[derive(Clone, Debug)]
pub struct Blocked {
    /// The product.
    pub node: Node,
    /// What is stored, and where: the product, or elementwise functions of it, inputs before users.
    pub results: Vec<(Node, Spec)>,
    /// Where sums wait: the result's memory, or some of their own.
    pub sums: Spec,
    /// Operands, in memory.
    pub operands: [Node; 2],
    /// Leading dimensions; only the first may have an extent that is not known now.
    pub batch: Vec<Size>,
    /// Number of rows.
    pub rows: u64,
    /// Number of columns.
    pub cols: u64,
    /// Inner dimension.
    pub depth: u64,
    /// Type of the sums.
    pub prim: Prim,
    /// Register tile.
    pub tile: Tile,
}

/// Some tiles or panels.
#[derive(Clone, Copy)]
struct Span<'b> {
    lo: V<'b>,
    hi: V<'b>,
}

/// A block of the inner dimension of one matrix of the batch.
#[derive(Clone, Copy)]
struct Block<'a, 'b> {
    /// Coordinates along the leading dimensions.
    batch: &'a [Coord<'b>],
    /// Its number.
    number: V<'b>,
    /// The first step of the inner dimension.
    first: V<'b>,
    /// How many steps there are.
    count: V<'b>,
    /// Where the left operand is packed.
    left: V<'b>,
    /// Where a panel of the right operand is packed.
    right: V<'b>,
}

impl Blocked {
    fn unit(&self) -> i64 {
        self.prim.bytes() as i64
    }

    fn height(&self) -> u64 {
        self.tile.rows[0]
    }

    /// Tiles of rows, the last of which may be lower.
    fn tiles(&self) -> u64 {
        self.rows.div_ceil(self.height())
    }

    fn width(&self, target: Target) -> u64 {
        self.tile.vectors * u64::from(target.lanes_of(self.prim))
    }

    fn panels(&self, target: Target) -> u64 {
        self.cols.div_ceil(self.width(target))
    }

    /// Blocks of the inner dimension.
    fn blocks(&self) -> u64 {
        blocks(self.depth, self.prim)
    }

    /// Steps of a block.
    fn steps(&self) -> u64 {
        self.depth.div_ceil(self.blocks())
    }

    /// Bytes of a packed tile; vectors may reach over its end.
    fn tile_bytes(&self, target: Target) -> u64 {
        self.steps() * self.height() * self.unit() as u64 + u64::from(target.vector_bytes)
    }

    /// Tiles that are packed at a time, at most.
    fn group(&self, target: Target) -> u64 {
        (LEFT_BYTES / self.tile_bytes(target)).clamp(1, self.tiles())
    }

    /// Are the columns dealt out to the workers, not the rows? What is not dealt out is packed by each of them.
    fn by_columns(&self) -> bool {
        self.cols > self.rows
    }

    fn shares(&self, target: Target) -> u64 {
        if self.by_columns() { self.panels(target) } else { self.tiles() }
    }

    /// Number of work items, and the floating-point operations of one.
    pub fn work<'b>(&self, target: Target, one: V<'b>, size: &dyn Fn(&Size) -> V<'b>) -> (V<'b>, u64) {
        let items = self.batch.iter().fold(one * self.shares(target) as i64, |n, extent| n * size(extent));
        (items, 2 * self.rows * self.cols * self.depth / self.shares(target))
    }

    /// Writes the code for work items `lo..hi`: shares of a matrix first, then the batch.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let (b, target) = (ev.b, ev.plan.target);
        let left_bytes = (self.group(target) * self.tile_bytes(target)).next_multiple_of(64);
        let right_bytes = self.steps() * self.width(target) * self.unit() as u64;
        let left = b.alloca((left_bytes + right_bytes) as u32, 64);
        let right = left.at(left_bytes as i64);
        let shares = self.shares(target) as i64;
        let (first, last) = (divide(lo, b.i64(shares)).0, divide(hi + (shares - 1), b.i64(shares)).0);
        b.for_(first, last, |matrix| {
            let begin = matrix * shares;
            let mine = Span { lo: (lo - begin).max(b.i64(0)), hi: (hi - begin).min(b.i64(shares)) };
            self.matrix(ev, &self.batch_coords(ev, matrix), [left, right], mine);
        });
    }

    fn batch_coords<'b>(&self, ev: &Eval<'_, 'b>, matrix: V<'b>) -> Vec<Coord<'b>> {
        let mut rest = matrix;
        let mut coords = vec![];
        for (i, extent) in self.batch.iter().enumerate().rev() {
            let (outer, index) = if i == 0 { (rest, rest) } else { divide(rest, ev.env.size(extent)) };
            coords.insert(0, Coord::from(index));
            rest = outer;
        }
        coords
    }

    /// Some tiles or panels of a matrix: tiles in groups of the same size that there is room for.
    fn matrix<'b>(&self, ev: &Eval<'_, 'b>, batch: &[Coord<'b>], [left, right]: [V<'b>; 2], mine: Span<'b>) {
        let (b, target) = (ev.b, ev.plan.target);
        let all = |n: u64| Span { lo: b.i64(0), hi: b.i64(n as i64) };
        let (tiles, panels) = match self.by_columns() {
            true => (all(self.tiles()), mine),
            false => (mine, all(self.panels(target))),
        };
        let most = self.group(target) as i64;
        let count = tiles.hi - tiles.lo;
        let groups = divide(count + (most - 1), b.i64(most)).0;
        let each = divide(count + groups - 1, groups.max(b.i64(1))).0;
        b.for_(b.i64(0), groups, |group| {
            let lo = tiles.lo + group * each;
            let tiles = Span { lo, hi: (lo + each).min(tiles.hi) };
            b.for_(b.i64(0), b.i64(self.blocks() as i64), |number| {
                let first = number * self.steps() as i64;
                let count = (b.i64(self.depth as i64) - first).min(b.i64(self.steps() as i64));
                self.block(ev, &Block { batch, number, first, count, left, right }, tiles, panels);
            });
        });
    }

    /// One block, for some tiles and panels.
    fn block<'b>(&self, ev: &Eval<'_, 'b>, block: &Block<'_, 'b>, tiles: Span<'b>, panels: Span<'b>) {
        self.pack_left(ev, block, tiles);
        ev.b.for_(panels.lo, panels.hi, |panel| {
            let masks = self.masks(ev, panel);
            self.pack_right(ev, block, panel, &masks);
            self.panel(ev, block, tiles, panel, &masks);
        });
    }

    /// Index of the element of an operand, whose leading dimensions may be fewer or have extent 1.
    fn coords<'b>(
        &self,
        ev: &Eval<'_, 'b>,
        side: usize,
        block: &Block<'_, 'b>,
        last: [Coord<'b>; 2],
    ) -> Vec<Coord<'b>> {
        let shape = ev.plan.shape(self.operands[side]);
        let skipped = self.batch.len() + 2 - shape.len();
        let leading = shape[..shape.len() - 2].iter().zip(&block.batch[skipped..]);
        let index = leading.map(|(dim, coord)| if dim.as_const() == Some(1) { ev.b.i64(0).into() } else { *coord });
        index.chain(last).collect()
    }

    /// Packs a block of the left operand, `[tile][step][row]`: a line of it at a time, while further ones are fetched, which are
    /// too short for the processor to see that it should.
    fn pack_left<'b>(&self, ev: &Eval<'_, 'b>, block: &Block<'_, 'b>, tiles: Span<'b>) {
        let (b, target) = (ev.b, ev.plan.target);
        let (lanes, height) = (target.lanes_of(self.prim), self.height() as i64);
        let vec = Some(ev.plan.shape(self.operands[0]).len() - 2);
        let each = |step: V<'b>, value: &dyn Fn(V<'b>) -> V<'b>| {
            b.for_(tiles.lo, tiles.hi, |tile| {
                let to = block.left.index(tile - tiles.lo, self.tile_bytes(target) as i64);
                let to = to.index(step, height * self.unit());
                for first in (0..height).step_by(lanes.into()) {
                    b.store(to, first * self.unit(), value(tile * height + first));
                }
            });
        };
        // All lanes of a tile exist where tiles and vectors are as long as each other.
        let whole = self.rows.is_multiple_of(self.height()) && self.height().is_multiple_of(lanes.into());
        b.for_(b.i64(0), block.count, |step| {
            each(step, &|row| {
                let left = b.i64(self.rows as i64) - row;
                let mask = (!whole).then(|| ev.first_lanes(lanes, left));
                let coords = |ahead: i64| {
                    let step = Coord::from(block.first + step).plus(ahead);
                    self.coords(ev, 0, block, [row.into(), step])
                };
                if let Some(spec) = ev.plan.home(self.operands[0]) {
                    b.prefetch_far(ev.address(spec, &coords(LINES_AHEAD)));
                }
                ev.eval(self.operands[0], &At { coords: coords(0), vec, lanes, mask })
            });
        });
        let zero = b.zero(Ty::vector(self.prim, lanes));
        b.for_(block.count, b.i64(self.steps() as i64), |step| each(step, &|_| zero));
    }

    /// Packs a panel of a block of the right operand, `[step][column]`.
    fn pack_right<'b>(&self, ev: &Eval<'_, 'b>, block: &Block<'_, 'b>, panel: V<'b>, masks: &[Option<V<'b>>]) {
        let b = ev.b;
        let lanes = ev.plan.target.lanes_of(self.prim);
        let ty = Ty::vector(self.prim, lanes);
        let vec = Some(ev.plan.shape(self.operands[1]).len() - 1);
        let first = panel * self.width(ev.plan.target) as i64;
        let each = |step: V<'b>, value: &dyn Fn(Coord<'b>, Option<V<'b>>) -> V<'b>| {
            let to = block.right.index(step, self.row_bytes(ev.plan.target));
            for (v, mask) in masks.iter().enumerate() {
                let column = Coord::from(first).plus(v as i64 * i64::from(lanes));
                b.store(to, (v * ty.bytes()) as i64, value(column, *mask));
            }
        };
        b.for_(b.i64(0), block.count, |step| {
            each(step, &|column, mask| {
                let coords = self.coords(ev, 1, block, [(block.first + step).into(), column]);
                ev.eval(self.operands[1], &At { coords, vec, lanes, mask })
            });
        });
        b.for_(block.count, b.i64(self.steps() as i64), |step| each(step, &|_, _| b.zero(ty)));
    }

    /// Fetches some lines of what will be packed next: they are far apart in memory.
    fn fetch_right<'b>(&self, ev: &Eval<'_, 'b>, block: &Block<'_, 'b>, steps: Span<'b>, column: V<'b>) {
        let Some(spec) = ev.plan.home(self.operands[1]) else { return };
        let lanes = i64::from(ev.plan.target.lanes_of(self.prim));
        ev.b.for_(steps.lo, steps.hi, |step| {
            for v in 0..self.tile.vectors as i64 {
                let column = Coord::from(column).plus(v * lanes);
                let coords = self.coords(ev, 1, block, [(block.first + step).into(), column]);
                ev.b.prefetch_far(ev.address(spec, &coords));
            }
        });
    }

    fn row_bytes(&self, target: Target) -> i64 {
        self.width(target) as i64 * self.unit()
    }

    /// For each vector of a panel the lanes that are columns.
    fn masks<'b>(&self, ev: &Eval<'_, 'b>, panel: V<'b>) -> Vec<Option<V<'b>>> {
        let target = ev.plan.target;
        let column = panel * self.width(target) as i64;
        ev.column_masks(target.lanes_of(self.prim), self.tile.vectors, self.cols, column)
    }

    /// Packed tiles times a packed panel.
    fn panel<'b>(
        &self,
        ev: &Eval<'_, 'b>,
        block: &Block<'_, 'b>,
        tiles: Span<'b>,
        panel: V<'b>,
        masks: &[Option<V<'b>>],
    ) {
        let b = ev.b;
        let column = panel * self.width(ev.plan.target) as i64;
        let tile = |tile: V<'b>, height: u64| {
            let left = block.left.index(tile - tiles.lo, self.tile_bytes(ev.plan.target) as i64);
            let row = tile * self.height() as i64;
            self.tile(ev, block, left, [row, column], height, masks);
        };
        let (whole, rest) = (b.i64((self.rows / self.height()) as i64), self.rows % self.height());
        let share = divide(b.i64(self.steps() as i64) + (tiles.hi - tiles.lo) - 1, tiles.hi - tiles.lo).0;
        b.for_(tiles.lo, tiles.hi.min(whole), |i| {
            let first = (i - tiles.lo) * share;
            let steps = Span { lo: first, hi: (first + share).min(block.count) };
            self.fetch_right(ev, block, steps, column + self.width(ev.plan.target) as i64);
            tile(i, self.height());
        });
        if rest > 0 {
            b.if_(whole.lt(tiles.hi), || tile(whole, rest));
        }
    }

    fn tile<'b>(
        &self,
        ev: &Eval<'_, 'b>,
        block: &Block<'_, 'b>,
        left: V<'b>,
        [row, column]: [V<'b>; 2],
        height: u64,
        masks: &[Option<V<'b>>],
    ) {
        let (b, lanes, vectors) = (ev.b, ev.plan.target.lanes_of(self.prim), self.tile.vectors as usize);
        let kernel = Kernel {
            prim: self.prim,
            right: self.prim,
            lanes,
            rows: (0..height as i64).map(|row| row * self.unit()).collect(),
            vectors,
            k: vec![KAxis { extent: self.steps(), a: self.height() as i64 * self.unit() }],
            b: vec![self.row_bytes(ev.plan.target)],
        };
        let places: Vec<At<'b>> = (0..height as usize * vectors)
            .map(|i| {
                let (row, v) = (Coord::from(row).plus((i / vectors) as i64), i % vectors);
                let column = Coord::from(column).plus(v as i64 * i64::from(lanes));
                let coords = block.batch.iter().copied().chain([row, column]).collect();
                At { coords, vec: Some(self.batch.len() + 1), lanes, mask: masks[v] }
            })
            .collect();
        self.fetch_operands(ev, block, &places);
        let reads = Reads { ahead: None, masks: &[], a_invariant: false, b_invariant: false };
        let sums = kernel.run(b, left, block.right, reads);
        self.add_block(ev, block, &places, sums);
    }

    /// Fetches what several results are computed from beside the sums: the lines of a tile are far apart in memory.
    fn fetch_operands<'b>(&self, ev: &Eval<'_, 'b>, block: &Block<'_, 'b>, places: &[At<'b>]) {
        let [(root, _), _, ..] = &self.results[..] else { return };
        let read: Vec<Node> = self.results.iter().flat_map(|(node, _)| ev.plan.graph.inputs(*node)).copied().collect();
        let operands = ev.plan.operands_like(*root, &read, Some(self.node)).nodes;
        let made = |node: &Node| self.results.iter().any(|(result, _)| result == node);
        let specs: Vec<&Spec> = operands.iter().filter(|n| !made(n)).filter_map(|n| ev.plan.home(*n)).collect();
        let fetch = || {
            for at in places {
                // The line that a vector ends in: the one that it begins in, if it is another, came with the vector before.
                let last = |spec: &Spec| i64::from(at.lanes) * spec.elem_bytes() - 1;
                specs.iter().for_each(|spec| ev.b.prefetch_far(ev.address(spec, &at.coords).at(last(spec))));
            }
        };
        if self.blocks() == 1 {
            return fetch();
        }
        ev.b.if_(block.number.eq(ev.b.i64(self.blocks() as i64 - 1)), fetch);
    }

    /// May the results lie where their operands do? Each element is computed once, from operands at its own index; sums that wait
    /// must not be in the way.
    pub fn may_update(&self) -> bool {
        self.blocks() == 1 || self.results.iter().all(|(_, out)| out.buffer != self.sums.buffer)
    }

    /// Adds the sums of a block to those of the blocks before, and puts them where they wait, or are wanted in the end.
    fn add_block<'b>(&self, ev: &Eval<'_, 'b>, block: &Block<'_, 'b>, places: &[At<'b>], sums: Vec<V<'b>>) {
        let b = ev.b;
        let finish = |sums: &[V<'b>]| match &self.results[..] {
            [(root, out)] => places.iter().zip(sums).for_each(|(at, sum)| ev.finish(self.node, *sum, *root, out, at)),
            results => places.iter().zip(sums).for_each(|(at, sum)| ev.knowing([(self.node, *sum)]).fill(results, at)),
        };
        if self.blocks() == 1 {
            return finish(&sums);
        }
        let address = |at: &At<'b>| ev.address(&self.sums, &at.coords);
        let added = || {
            let before = |at: &At<'b>, sum: &V<'b>| ev.read(sum.ty(), address(at), at.mask, false);
            places.iter().zip(&sums).map(|(at, sum)| before(at, sum) + *sum).collect()
        };
        let sums = b.if_else(block.number.eq(b.i64(0)), || sums.clone(), added);
        let wait = || {
            places.iter().zip(&sums).for_each(|(at, sum)| ev.write(address(at), at.mask, *sum));
            vec![]
        };
        let done = || {
            finish(&sums);
            vec![]
        };
        b.if_else(block.number.eq(b.i64(self.blocks() as i64 - 1)), done, wait);
    }
}

/// Blocks of an inner dimension.
fn blocks(depth: u64, prim: Prim) -> u64 {
    let bytes = depth * prim.bytes() as u64;
    if bytes <= WHOLE_COLUMN_BYTES { 1 } else { bytes.div_ceil(COLUMN_BYTES) }
}

impl Planner<'_, '_> {
    /// The product as one of packed blocks, if it [can be](Self::blocked_extents).
    pub(super) fn blocked(&mut self, node: Node, results: Vec<(Node, Spec)>) -> Result<Option<Blocked>> {
        let (Some([rows, depth, cols]), Some((_, out))) = (self.blocked_extents(node)?, results.first()) else {
            return Ok(None);
        };
        let prim = self.product_prim(node)?;
        // Of several results, each may lie where one of its operands does; sums that wait must fit into the result's memory.
        let waits = blocks(depth, prim) > 1;
        let fits = out.axes[out.axes.len() - 1].stride == out.elem_bytes() && storage(out.elem) == Some(prim);
        let sums = match results.len() {
            1 if waits && !fits => return Ok(None),
            1 => out.clone(),
            _ if waits => self.allocate(node, Layout::RowMajor)?,
            _ => out.clone(),
        };
        let [x, w] = [0, 1].map(|i| self.inputs(node)[i]);
        self.columns(w, prim)?;
        let batch = sums.axes[..sums.axes.len() - 2].iter().map(|axis| axis.size.clone()).collect();
        let tile = self.tile(prim, [rows, 1], cols, depth);
        Ok(Some(Blocked { node, results, sums, operands: [x, w], batch, rows, cols, depth, prim, tile }))
    }

    /// Rows, inner dimension and columns of a product whose left operand lies the other way round, if all are known now and
    /// copies are worse.
    pub(super) fn blocked_extents(&mut self, node: Node) -> Result<Option<[u64; 3]>> {
        let [x, w] = [0, 1].map(|i| self.inputs(node)[i]);
        if !self.product_prim(node)?.is_float() || !self.is_turned(x)? {
            return Ok(None);
        }
        let shape = |node: Node| self.sizes(node).map(|sizes| sizes[sizes.len() - 2..].to_vec());
        Ok(match (&shape(x)?[..], &shape(w)?[..]) {
            ([Size::Now(rows), Size::Now(depth)], [_, Size::Now(cols)]) => {
                Some([*rows, *depth, *cols]).filter(|extents| extents.iter().all(|n| *n >= FEW))
            }
            _ => None,
        })
    }

    /// Are the rows of a matrix side by side in memory? What a transposed matrix is made of is stored for that.
    fn is_turned(&mut self, x: Node) -> Result<bool> {
        let rank = self.rank(x);
        let swaps = |perm: &[usize]| perm[rank - 2..] == [rank - 1, rank - 2];
        if let (Op::Transpose(perm), None) = (self.graph().op(x), self.plan.home(x))
            && swaps(perm)
        {
            let spec = self.stored(self.inputs(x)[0])?.permuted(perm);
            self.plan.homes.insert(x, spec);
        }
        let Some(spec) = self.plan.home(x) else { return Ok(false) };
        let [rows, depth] = [2, 1].map(|back| spec.axes[rank - back].stride);
        Ok(rows == spec.elem_bytes() && depth >= APART && !spec.runs_back())
    }
}
