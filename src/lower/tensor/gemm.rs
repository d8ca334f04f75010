//! Convolutions and matrix products as one kind of stage: loops around the micro-kernel.
//!
//! A convolution over channels-last images is a matrix product whose A is never formed: a row is an output pixel, and
//! the elements of its window are at constant distances from the window's first element. The rows form two axes
//! (vertical, horizontal; or the rows of a matrix and nothing). A tile at the end of an axis is moved back so that it
//! overlaps its neighbour and writes the same values again: one kernel serves all tiles.

use super::eval::{At, Coord, Eval};
use super::kernel::{Ahead, KAxis, Kernel, Reads, Tile, elements_of_step};
use super::spec::{BufferId, Size, Spec};
use super::target::Target;
use quearn_stage::graph::Node;
use quearn_stage::low::{BinOp, CastOp, Prim, Ty, V};

/// A loop around the kernel, or one axis of its rows.
#[derive(Clone, Debug)]
pub struct Loop {
    /// Extent.
    pub size: Size,
    /// Bytes of A for one step.
    pub a: i64,
    /// Bytes of B for one step.
    pub b: i64,
    /// Which coordinate of the result it counts, and by how much a step.
    pub coord: Option<(usize, u64)>,
}

/// The right operand.
#[derive(Clone, Debug)]
pub enum Right {
    /// Panels of `vectors` vectors of columns, made when the weights were bound; short ones are filled with zeros.
    Packed(BufferId),
    /// Columns adjacent in memory.
    Stored(Spec),
    /// The same with rows at these distances, in bytes, along each axis of the inner dimension.
    Apart(Spec, Vec<i64>),
}

/// A product with its epilogue.
#[derive(Clone, Debug)]
pub struct Gemm {
    /// The product.
    pub node: Node,
    /// What is stored: the product, or an elementwise function of it.
    pub root: Node,
    /// Added to each column.
    pub bias: Option<Node>,
    /// Left operand.
    pub a: Spec,
    /// Bytes from the first element of `a` to that of the first row.
    pub a_offset: i64,
    /// Right operand.
    pub right: Right,
    /// Bytes from one row of B to the next.
    pub b_row: i64,
    /// Bytes from one panel of B to the next.
    pub b_panel: i64,
    /// Loops around everything; only the first may have an extent that is not known now.
    pub outer: Vec<Loop>,
    /// Rows; only the first axis may have an extent that is not known now, and then the second is 1.
    pub rows: [Loop; 2],
    /// Inner dimension, in steps of the kernel.
    pub k: Vec<KAxis>,
    /// Number of columns, for each step of the outer loops.
    pub cols: u64,
    /// Coordinate of the result that counts columns.
    pub col_axis: usize,
    /// Type of the sums.
    pub prim: Prim,
    /// Type of B's elements in memory.
    pub b_elem: Prim,
    /// Register tile.
    pub tile: Tile,
    /// Are a call's work items run through backwards? Stages that use the same weights one after the other take turns, so
    /// that each begins with what the one before has left in the cache.
    pub backwards: bool,
    /// Where the result goes.
    pub out: Spec,
}

/// Up to so many rows the time goes into reading B.
pub(super) const BOUND_BY_B: u64 = 8;

/// Work items that there should be at least, for several workers to share.
const PIECES: u64 = 16;

/// Blocks of a group where it is not known how many there are: several workers should find some even in few rows.
const OPEN_GROUP: u64 = 16;

/// Bytes that are fetched ahead in a panel that is read once: about what comes from memory in its latency.
const NEAR: i64 = 2048;

/// Steps of the inner dimension that are long enough for what the epilogue reads to be fetched meanwhile.
const FETCHED_FROM: i64 = 64;

/// Heights of tiles that there are, of at most `most` rows, where the number of rows is not known now: all low ones, and
/// some of the others.
fn is_height(height: u64, most: u64) -> bool {
    height <= 8 || height == most || height <= 16 && height.is_multiple_of(2) || height.is_multiple_of(4)
}

/// The rows of a block.
#[derive(Clone, Copy)]
struct Rows<'b> {
    /// The first.
    first: V<'b>,
    /// How many.
    left: V<'b>,
    /// Height of its tiles: all of them, or at least half.
    tile: V<'b>,
}

impl Gemm {
    fn lanes(&self, ev: &Eval<'_, '_>) -> u16 {
        ev.plan.target.lanes_of(self.prim)
    }

    fn panels(&self, ev_lanes: u16) -> u64 {
        self.cols.div_ceil(self.tile.vectors * u64::from(ev_lanes))
    }

    /// Blocks of rows along the first axis, as a factor known now and the extent that is divided by the tile's height.
    fn row_blocks<'b>(&self, size: V<'b>) -> V<'b> {
        let height = self.tile.rows[0] as i64;
        (size + (height - 1)) / height
    }

    /// Blocks of rows that all panels are run over before the next ones are begun: they stay in the second-level cache.
    fn group(&self, target: Target) -> u64 {
        let cache = target.l2_bytes;
        let blocks = self.rows[0].size.now().map_or(u64::MAX, |n| n.div_ceil(self.tile.rows[0]));
        let weight = self.k.iter().map(|k| k.extent).product::<u64>() * self.cols * self.prim.bytes() as u64;
        let line = |axis: Option<usize>| axis.map_or(0, |axis| self.out.axes[axis].stride.unsigned_abs());
        // Where all of B stays in the cache, what is written is held there too until its lines are whole.
        let written = if weight <= cache / 4 { line(self.rows[0].coord.map(|(axis, _)| axis)) } else { 0 };
        let bytes = ((self.rows[0].a.unsigned_abs() + written) * self.tile.rows[0]).max(1);
        // All at once even if it is a tight fit, so that B is read once; else groups of the same size.
        let whole = blocks <= cache / 5 * 4 / bytes;
        let most = if whole { blocks } else { (cache / 2 / bytes).max(1) };
        if blocks == u64::MAX {
            return most.min(OPEN_GROUP);
        }
        let panels = self.panels(target.lanes_of(self.prim));
        let others = self.outer.iter().map(|l| l.size.now().unwrap_or(1)).product::<u64>() * panels;
        let groups = blocks.div_ceil(most).max(PIECES.div_ceil(others)).min(blocks);
        blocks.div_ceil(groups)
    }

    /// Groups of blocks.
    fn groups<'b>(&self, target: Target, size: V<'b>) -> V<'b> {
        let group = self.group(target) as i64;
        (self.row_blocks(size) + (group - 1)) / group
    }

    /// Number of work items, and the floating-point operations of one.
    pub fn work<'b>(&self, target: Target, size: &dyn Fn(&Size) -> V<'b>) -> (V<'b>, u64) {
        let lanes = target.lanes_of(self.prim);
        let groups = self.groups(target, size(&self.rows[0].size)) * self.panels(lanes) as i64;
        let items = self.outer.iter().fold(groups, |n, l| n * size(&l.size));
        let k: u64 = self.k.iter().map(|k| k.extent).product();
        let width = self.rows[1].size.now().unwrap_or(1);
        (items, 2 * k * self.tile.vectors * u64::from(lanes) * width * self.tile.rows[0] * self.group(target))
    }

    /// Operations of the whole product, if its extents are known now.
    pub fn flops(&self) -> Option<u64> {
        let loops = self.outer.iter().chain(&self.rows).try_fold(1, |n, l| Some(n * l.size.now()?))?;
        Some(2 * loops * self.cols * self.k.iter().map(|k| k.extent).product::<u64>())
    }

    /// Is the time that of reading B? Then each worker gets one part of it, the same part every time.
    pub fn is_bound_by_b(&self) -> bool {
        let rows = self.rows.iter().try_fold(1, |n, row| Some(n * row.size.now()?));
        rows.is_some_and(|n| n <= BOUND_BY_B) && self.outer.iter().all(|l| l.size == Size::Now(1))
    }

    /// Writes the code for work items `lo..hi`: rows of a group first, then panels, then groups, then outer loops.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let b = ev.b;
        let start = self.start(ev);
        let blocks = self.row_blocks(ev.env.size(&self.rows[0].size));
        let groups = self.groups(ev.plan.target, ev.env.size(&self.rows[0].size));
        let panels = self.panels(self.lanes(ev)) as i64;
        let backwards = ev.env.turn(self.backwards).ne(b.i64(0));
        b.for_(lo, hi, |t| {
            let t = backwards.select(lo + hi - t - 1, t);
            let (rest, panel) = divide(t, b.i64(panels));
            let (outer, group) = divide(rest, groups);
            let first = group * self.group(ev.plan.target) as i64;
            let last = (first + self.group(ev.plan.target) as i64).min(blocks);
            self.panel(ev, self.entered(ev, &start, outer), panel, [first, last]);
        });
    }

    /// Writes the code for all panels of one block of rows.
    pub fn emit_rows<'b>(&self, ev: &Eval<'_, 'b>, outer: V<'b>, block: V<'b>) {
        let b = ev.b;
        let at = self.entered(ev, &self.start(ev), outer);
        b.for_(b.i64(0), b.i64(self.panels(self.lanes(ev)) as i64), |panel| {
            self.panel(ev, at.clone(), panel, [block, block + 1]);
        });
    }

    /// Coordinates of the result's first element at a step of the outer loops.
    pub fn coords<'b>(&self, ev: &Eval<'_, 'b>, outer: V<'b>) -> Vec<Coord<'b>> {
        self.entered(ev, &self.start(ev), outer).coords
    }

    /// Where everything begins.
    fn start<'b>(&self, ev: &Eval<'_, 'b>) -> Point<'b> {
        let right = match &self.right {
            Right::Packed(buffer) => ev.env.buffer(*buffer),
            Right::Stored(spec) | Right::Apart(spec, _) => ev.address(spec, &[]),
        };
        let a = ev.address(&self.a, &[]).at(self.a_offset);
        Point { a, b: right, coords: vec![Coord::from(ev.b.i64(0)); self.out.axes.len()] }
    }

    /// Step `outer` of the outer loops.
    fn entered<'b>(&self, ev: &Eval<'_, 'b>, start: &Point<'b>, outer: V<'b>) -> Point<'b> {
        let (b, mut rest, mut at) = (ev.b, outer, start.clone());
        for (i, outer) in self.outer.iter().enumerate().rev() {
            let index = if i == 0 { rest } else { b.i64(0) };
            let index = match (i, outer.size.now()) {
                (1.., Some(n)) => {
                    let (quotient, remainder) = divide(rest, b.i64(n as i64));
                    rest = quotient;
                    remainder
                }
                _ => index,
            };
            at = at.moved(outer, index);
        }
        at
    }

    /// A panel times the blocks of rows from `first` up to `last`.
    fn panel<'b>(&self, ev: &Eval<'_, 'b>, mut at: Point<'b>, panel: V<'b>, [first, last]: [V<'b>; 2]) {
        let column = panel * (self.tile.vectors * u64::from(self.lanes(ev))) as i64;
        at.coords[self.col_axis] = at.coords[self.col_axis].moved(column);
        at.b = at.b.index(panel, self.b_panel);
        let masks = self.masks(ev, column);
        let bias = self.bias_vectors(ev, &at, &masks);
        ev.b.for_(first, last, |block| {
            let (ahead, parts) = self.ahead(ev, &at, block - first);
            let place = Columns { ahead, parts, at: at.clone(), masks: masks.clone(), bias: bias.clone() };
            self.block(ev, &place, block);
        });
    }

    /// One block of rows times one panel.
    fn block<'b>(&self, ev: &Eval<'_, 'b>, place: &Columns<'b>, block: V<'b>) {
        let height = self.tile.rows[0];
        match self.rows[0].size.now() {
            Some(n) => self.line(ev, place, (block * height as i64).min(ev.b.i64((n - height) as i64)), height),
            None => self.unknown_rows(ev, place, block, height),
        }
    }

    /// What is to be fetched while a block of rows is computed, where weights are too large to stay in the cache from one
    /// run to the next: the block's share of the next panel, or what comes next in this one if it is used only once.
    fn ahead<'b>(&self, ev: &Eval<'_, 'b>, at: &Point<'b>, block: V<'b>) -> (Option<V<'b>>, i64) {
        if self.rows[0].size.now().is_none() || !matches!(self.right, Right::Packed(_)) {
            return (None, 1);
        }
        match self.group(ev.plan.target) as i64 {
            1 => (Some(at.b.at(NEAR)), 1),
            parts => (Some(at.b.at(self.b_panel).index(block, self.b_panel / parts)), parts),
        }
    }

    /// A block of a matrix whose height is not known now: the last two share what is left, since a tile of few rows takes
    /// as long as one of some more. There is a tile of most heights; two that overlap serve for the others.
    fn unknown_rows<'b>(&self, ev: &Eval<'_, 'b>, place: &Columns<'b>, block: V<'b>, most: u64) {
        let b = ev.b;
        let n = ev.env.size(&self.rows[0].size);
        let end = self.row_blocks(n) - 1;
        let full = (end - 1).max(b.i64(0)) * most as i64;
        let middle = full + (n - full + 1) / 2;
        let first = (block * most as i64).min(middle);
        let left = block.eq(end).select(n, (first + most as i64).min(middle)) - first;
        let least = match self.rows[0].size {
            Size::EachItem(each) if each > most => most.div_ceil(2),
            _ => 1,
        };
        let (heights, others): (Vec<u64>, Vec<u64>) = (least..=most).rev().partition(|h| is_height(*h, most));
        let half = |h: u64| heights.iter().rev().find(|tile| **tile >= h.div_ceil(2)).map_or(1, |tile| *tile as i64);
        let tile = others.iter().fold(left, |tile, &h| left.eq(b.i64(h as i64)).select(b.i64(half(h)), tile));
        self.either(ev, place, Rows { first, left, tile }, &heights);
    }

    /// The tiles of a block, which are as high as one of `heights`.
    fn either<'b>(&self, ev: &Eval<'_, 'b>, place: &Columns<'b>, rows: Rows<'b>, heights: &[u64]) {
        let [height, others @ ..] = heights else { return };
        let (b, height) = (ev.b, *height as i64);
        let tiles = || {
            let second = rows.left - height;
            let count = second.ne(b.i64(0)).select(b.i64(2), b.i64(1));
            b.for_(b.i64(0), count, |i| self.line(ev, place, rows.first + i * second, height as u64));
            vec![]
        };
        let other = || {
            self.either(ev, place, rows, others);
            vec![]
        };
        b.if_else(rows.tile.eq(b.i64(height)), tiles, other);
    }

    /// The tiles of `height` rows from `y` on, along the second axis of the rows.
    fn line<'b>(&self, ev: &Eval<'_, 'b>, place: &Columns<'b>, y: V<'b>, height: u64) {
        let b = ev.b;
        let width = self.tile.rows[1];
        let n = self.rows[1].size.now().unwrap_or(1);
        let line = place.at.moved(&self.rows[0], y);
        b.for_(b.i64(0), b.i64(n.div_ceil(width) as i64), |tx| {
            let x = (tx * width as i64).min(b.i64((n - width) as i64));
            self.tile(ev, &place.with(line.moved(&self.rows[1], x)), [height, width]);
        });
    }

    fn tile<'b>(&self, ev: &Eval<'_, 'b>, place: &Columns<'b>, rows: [u64; 2]) {
        let [dy, dx] = [self.rows[0].a, self.rows[1].a];
        let offsets = (0..rows[0] as i64).flat_map(|y| (0..rows[1] as i64).map(move |x| y * dy + x * dx));
        let (k, b) = self.inner();
        let kernel = Kernel {
            prim: self.prim,
            right: self.b_elem,
            lanes: self.lanes(ev),
            rows: offsets.collect(),
            vectors: self.tile.vectors as usize,
            k,
            b,
        };
        let stored = !matches!(self.right, Right::Packed(_));
        let right = match &self.right {
            Right::Packed(buffer) => *buffer,
            Right::Stored(spec) | Right::Apart(spec, _) => spec.buffer,
        };
        let steps = self.k.iter().map(|k| k.extent as i64).product::<i64>();
        let (step, far) = (self.b_panel / place.parts / steps + 1, place.parts > 1);
        let ahead = place.ahead.map(|ptr| Ahead { ptr, step, far });
        let reads = Reads {
            ahead,
            masks: if stored { &place.masks } else { &[] },
            a_invariant: ev.env.invariant(self.a.buffer),
            b_invariant: ev.env.invariant(right),
        };
        if steps >= FETCHED_FROM {
            self.fetch_operands(ev, place, rows);
        }
        let sums = kernel.run(ev.b, place.at.a, place.at.b, reads);
        for (row, sums) in sums.chunks(kernel.vectors).enumerate() {
            let (y, x) = (row as u64 / rows[1], row as u64 % rows[1]);
            let coords = place.at.stepped(&self.rows, [y, x]);
            self.store_row(ev, place, &coords, sums);
        }
    }

    /// Fetches what the epilogue of a tile will read, as far as it is one element for each of the result's.
    fn fetch_operands<'b>(&self, ev: &Eval<'_, 'b>, place: &Columns<'b>, rows: [u64; 2]) {
        let lanes = i64::from(self.lanes(ev));
        let made_of = if self.root == self.node { &[] } else { ev.plan.graph.inputs(self.root) };
        let operands = ev.plan.operands_like(self.root, made_of, Some(self.node)).nodes;
        for operand in operands.into_iter().filter_map(|node| ev.plan.home(node)) {
            for (y, x) in (0..rows[0]).flat_map(|y| (0..rows[1]).map(move |x| (y, x))) {
                let coords = place.at.stepped(&self.rows, [y, x]);
                for v in 0..self.tile.vectors as i64 {
                    let mut coords = coords.clone();
                    coords[self.col_axis] = coords[self.col_axis].plus(v * lanes);
                    ev.b.prefetch_far(ev.address(operand, &coords));
                }
            }
        }
    }

    /// The inner dimension, and the bytes of B along each of its axes.
    fn inner(&self) -> (Vec<KAxis>, Vec<i64>) {
        let under = |axis: usize| self.k[axis + 1..].iter().map(|k| k.extent as i64).product::<i64>();
        let steps: Vec<i64> = match &self.right {
            Right::Apart(_, steps) => steps.clone(),
            _ => (0..self.k.len()).map(|axis| under(axis) * self.b_row).collect(),
        };
        merged(&self.k, &steps)
    }

    fn store_row<'b>(&self, ev: &Eval<'_, 'b>, place: &Columns<'b>, coords: &[Coord<'b>], sums: &[V<'b>]) {
        let lanes = self.lanes(ev);
        for (v, &sum) in sums.iter().enumerate() {
            let mut coords = coords.to_vec();
            coords[self.col_axis] = coords[self.col_axis].plus(v as i64 * i64::from(lanes));
            let at = At { coords, vec: Some(self.col_axis), lanes, mask: place.masks[v] };
            let value = place.bias.get(v).map_or(sum, |&bias| sum + bias);
            ev.finish(self.node, value, self.root, &self.out, &at);
        }
    }

    /// For each vector of the panel the lanes that are columns.
    fn masks<'b>(&self, ev: &Eval<'_, 'b>, column: V<'b>) -> Vec<Option<V<'b>>> {
        ev.column_masks(self.lanes(ev), self.tile.vectors, self.cols, column)
    }

    fn bias_vectors<'b>(&self, ev: &Eval<'_, 'b>, at: &Point<'b>, masks: &[Option<V<'b>>]) -> Vec<V<'b>> {
        let Some(bias) = self.bias else { return vec![] };
        let lanes = self.lanes(ev);
        let vector = |(v, mask): (usize, &Option<V<'b>>)| {
            let coords = vec![at.coords[self.col_axis].plus(v as i64 * i64::from(lanes))];
            ev.eval(bias, &At { coords, vec: Some(0), lanes, mask: *mask })
        };
        masks.iter().enumerate().map(vector).collect()
    }
}

/// Quotient and remainder of a number that is not negative.
pub fn divide<'b>(t: V<'b>, by: V<'b>) -> (V<'b>, V<'b>) {
    if by.as_int() == Some(1) {
        return (t, t.same(0));
    }
    let quotient = t.bin(BinOp::UDiv, by);
    (quotient, t - quotient * by)
}

/// Axes that follow each other without a gap in A and in B become one.
fn merged(k: &[KAxis], steps: &[i64]) -> (Vec<KAxis>, Vec<i64>) {
    let mut axes: Vec<(KAxis, i64)> = vec![];
    for (&axis, &step) in k.iter().zip(steps).filter(|(k, _)| k.extent > 1) {
        let extent = axis.extent as i64;
        match axes.last_mut() {
            Some((outer, b)) if outer.a == axis.a * extent && *b == step * extent => {
                *outer = KAxis { extent: outer.extent * axis.extent, a: axis.a };
                *b = step;
            }
            _ => axes.push((axis, step)),
        }
    }
    if axes.is_empty() {
        axes.push((KAxis { extent: 1, a: 0 }, 0));
    }
    axes.into_iter().unzip()
}

/// Addresses and coordinates while loops are entered.
#[derive(Clone)]
struct Point<'b> {
    a: V<'b>,
    b: V<'b>,
    coords: Vec<Coord<'b>>,
}

impl<'b> Point<'b> {
    fn moved(&self, along: &Loop, index: V<'b>) -> Point<'b> {
        let mut coords = self.coords.clone();
        if let Some((axis, step)) = along.coord {
            coords[axis] = coords[axis].moved(index * step as i64);
        }
        let stepped = |ptr: V<'b>, stride: i64| if stride == 0 { ptr } else { ptr.index(index, stride) };
        Point { a: stepped(self.a, along.a), b: stepped(self.b, along.b), coords }
    }

    fn stepped(&self, rows: &[Loop; 2], by: [u64; 2]) -> Vec<Coord<'b>> {
        let mut coords = self.coords.clone();
        for (row, by) in rows.iter().zip(by) {
            if let Some((axis, step)) = row.coord {
                coords[axis] = coords[axis].plus((by * step) as i64);
            }
        }
        coords
    }
}

/// A panel's columns: where they are, which lanes exist, and what is added to them.
struct Columns<'b> {
    /// The part of the next panel that is to be fetched meanwhile, one of `parts`.
    ahead: Option<V<'b>>,
    parts: i64,
    at: Point<'b>,
    masks: Vec<Option<V<'b>>>,
    bias: Vec<V<'b>>,
}

impl<'b> Columns<'b> {
    fn with(&self, at: Point<'b>) -> Columns<'b> {
        Columns { at, masks: self.masks.clone(), bias: self.bias.clone(), ..*self }
    }
}

/// The packing of a weight into panels `[group][panel][k…][column]`, filled up with zeros.
#[derive(Clone, Debug)]
pub struct Pack {
    /// The weight.
    pub source: Spec,
    /// Panels.
    pub out: BufferId,
    /// Groups, and bytes from one to the next.
    pub groups: (u64, i64),
    /// Columns of a group, and bytes from one to the next.
    pub cols: (u64, i64),
    /// Inner dimension, outermost first: extents and bytes.
    pub k: Vec<(u64, i64)>,
    /// Vectors of columns in a panel.
    pub vectors: u64,
    /// Type of the sums: for bytes, a lane holds four elements that follow each other along the last axis of `k`.
    pub prim: Prim,
    /// Type of the elements of the panels, or of four of them: that of the sums, or a narrower float that has their values.
    pub elem: Prim,
}

/// Most axes of an inner dimension: two of a window, channels, and the four bytes of a step where none of them fits.
const K_AXES: usize = 4;

impl Pack {
    fn panels(&self, lanes: u16) -> u64 {
        self.cols.0.div_ceil(self.vectors * u64::from(lanes))
    }

    /// Lanes of a vector of the target.
    pub fn lanes(&self, vector_bytes: u16) -> u16 {
        vector_bytes / self.prim.bytes() as u16
    }

    /// Size of all panels.
    pub fn bytes(&self, vector_bytes: u16) -> u64 {
        let (last, outer) = self.k.split_last().map_or(((1, 0), &[][..]), |(last, outer)| (*last, outer));
        let steps = outer.iter().map(|k| k.0).product::<u64>() * last.0.div_ceil(elements_of_step(self.prim));
        let vector = u64::from(self.lanes(vector_bytes)) * self.elem.bytes() as u64;
        self.work(vector_bytes) * steps * self.vectors * vector
    }

    /// Number of work items: panels.
    pub fn work(&self, vector_bytes: u16) -> u64 {
        self.groups.0 * self.panels(self.lanes(vector_bytes))
    }

    /// Are columns neighbours in memory, and as they are wanted in a panel?
    fn takes_lines(&self) -> bool {
        self.cols.1 == self.source.elem_bytes() && elements_of_step(self.prim) == 1
    }

    /// Writes the code for panels `lo..hi`. All shapes are handed in, so that one function packs all weights that lie the
    /// same way.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let (b, number) = (ev.b, |n: i64| ev.env.number(n));
        let lanes = self.lanes(ev.plan.target.vector_bytes);
        let missing = K_AXES.saturating_sub(self.k.len());
        let k: Vec<(u64, i64)> = std::iter::repeat_n((1, 0), missing).chain(self.k.iter().copied()).collect();
        let panels = number(self.panels(lanes) as i64);
        let cols = number(self.cols.0 as i64);
        let col_step = if self.takes_lines() { b.i64(self.cols.1) } else { number(self.cols.1) };
        let (group_step, vectors) = (number(self.groups.1), number(self.vectors as i64));
        let k: Vec<(V<'b>, V<'b>)> = k.iter().map(|&(n, step)| (number(n as i64), number(step))).collect();
        let [source, out] = [ev.env.buffer(self.source.buffer), ev.env.buffer(self.out)];
        let source = source.index(number(self.source.offset), 1);
        let each = elements_of_step(self.prim) as i64;
        let steps = (k[3].0 + (each - 1)) / each;
        let rows = k[0].0 * k[1].0 * k[2].0 * steps;
        let offsets = b.iota(Ty::vector(Prim::I64, lanes)) * col_step.splat(lanes);
        let vector = i64::from(lanes) * self.elem.bytes() as i64;
        let zero = b.i64(0);
        b.for_(lo, hi, |t| {
            let (group, panel) = divide(t, panels);
            let to = out.index(t * rows * vectors, vector);
            b.for_(zero, vectors, |v| {
                let column = (panel * vectors + v) * i64::from(lanes);
                let left = (cols - column).max(zero).min(b.i64(lanes.into()));
                let mask = ev.first_lanes(lanes, left);
                let from = source.index(group * group_step, 1).index(column * col_step, 1);
                let to = to.index(v, vector);
                // A vector of columns all along the inner dimension.
                b.for_(zero, k[0].0, |k0| {
                    b.for_(zero, k[1].0, |k1| {
                        b.for_(zero, k[2].0, |k2| {
                            let from = from.index(k0 * k[0].1 + k1 * k[1].1 + k2 * k[2].1, 1);
                            let row = ((k0 * k[1].0 + k1) * k[2].0 + k2) * steps;
                            b.for_(zero, steps, |step| {
                                let value = self.step(ev, from, [step, k[3].0, k[3].1], offsets, mask);
                                b.store(to.index((row + step) * vectors, vector), 0, value);
                            });
                        });
                    });
                });
            });
        });
    }

    /// A vector of columns at a step of the innermost axis, which has so many elements at such distances.
    fn step<'b>(
        &self,
        ev: &Eval<'_, 'b>,
        from: V<'b>,
        [step, count, distance]: [V<'b>; 3],
        offsets: V<'b>,
        mask: V<'b>,
    ) -> V<'b> {
        let b = ev.b;
        let (each, lanes) = (elements_of_step(self.prim) as i64, offsets.ty().lanes);
        let element = |i: i64| {
            let k = step * each + i;
            let mask = if each == 1 { mask } else { mask & k.lt(count).splat(lanes) };
            let at = At { coords: vec![], vec: None, lanes, mask: Some(mask) };
            let from = from.index(k * distance, 1);
            match self.takes_lines() {
                true => ev.load_line(&self.source, from, &at, ev.env.invariant(self.source.buffer)),
                false => ev.load_lanes(&self.source, from, offsets, &at),
            }
        };
        let bytes = |word: V<'b>, i: i64| {
            let byte = element(i) & word.same(255);
            word | byte.bin(BinOp::Shl, byte.same(8 * i))
        };
        let value = match each {
            1 => element(0),
            _ => (0..each).fold(b.zero(Ty::vector(self.prim, lanes)), bytes),
        };
        if self.elem == self.prim { value } else { value.cast(CastOp::FpTrunc, self.elem) }
    }
}
