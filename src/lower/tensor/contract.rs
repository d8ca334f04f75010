//! Products that sum over the rows of a program, `transpose(x) y`: as many rows as there are, and few columns.
//!
//! Rows come in blocks: the block's rows of `x` and `y` are computed into a small buffer, and a [`Kernel`] adds their
//! products to a matrix, a tile of registers at a time. In a tensor program the rows are dealt out in a fixed number of
//! parts, so that sums do not depend on how many workers there are; a second stage sums up the parts.

use super::eval::{At, Coord, Eval};
use super::nest::{Nest, Vectors};
use super::spec::{BufferId, Size, Spec};
use super::target::Target;
use quearn_stage::graph::Node;
use quearn_stage::low::{Builder, Prim, Ty, V};

/// Parts that the rows are dealt out in.
pub const PARTS: i64 = 64;

/// Bytes of the blocks: they stay in the first-level cache.
const BLOCK_BYTES: u64 = 24 << 10;

/// Adds the products of a block of rows to a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// The columns of both operands.
    pub sides: [Side; 2],
    /// Are both operands one?
    pub same: bool,
    /// Rows of a block.
    pub block: u64,
    /// Element type.
    pub prim: Prim,
    /// Lanes of a vector.
    pub lanes: u16,
}

/// The columns of an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    /// How many there are.
    pub extent: u64,
    /// How many of them, or vectors of them, are in a register tile.
    pub tile: u64,
    /// How many there is room for, whole vectors and tiles.
    pub room: u64,
}

/// Chooses the register tile: large, so that what is loaded is used often, and with little beyond the edges.
fn sides(target: Target, prim: Prim, [x, y]: [u64; 2]) -> [Side; 2] {
    let lanes = u64::from(target.lanes_of(prim));
    let (high, wide) = if target.registers >= 32 { (8, 3) } else { (4, 2) };
    // Each tile costs about two loads beside its products.
    let cost = |count: u64, tile: u64| count.div_ceil(tile) * (tile + 2);
    let best = |count: u64, most: u64| (1..=most).rev().min_by_key(|tile| cost(count, *tile)).unwrap_or(1);
    let (rows, vectors) = (best(x, high), best(y.div_ceil(lanes), wide));
    let room = x.next_multiple_of(rows).next_multiple_of(lanes);
    [Side { extent: x, tile: rows, room }, Side { extent: y, tile: vectors, room: y.next_multiple_of(vectors * lanes) }]
}

impl Kernel {
    /// The kernel for operands of these many columns.
    pub fn new(target: Target, prim: Prim, columns: [u64; 2], same: bool) -> Kernel {
        let sides = sides(target, prim, columns);
        let row = sides.iter().map(|side| side.room).sum::<u64>() * prim.bytes() as u64;
        let block = (BLOCK_BYTES / row).clamp(8, 128);
        Kernel { sides, same, block, prim, lanes: target.lanes_of(prim) }
    }

    /// Bytes of an element.
    pub fn unit(&self) -> i64 {
        self.prim.bytes() as i64
    }

    /// Bytes from one row of the matrix to the next.
    pub fn matrix_row(&self) -> i64 {
        self.sides[1].room as i64 * self.unit()
    }

    /// Bytes of the matrix.
    pub fn matrix_bytes(&self) -> i64 {
        self.sides[0].room as i64 * self.matrix_row()
    }

    /// Bytes from one row of an operand's block to the next.
    pub fn row_bytes(&self, side: usize) -> i64 {
        // A block of one operand that is both has room for either's tiles.
        let [x, y] = self.sides.map(|side| side.room);
        let room = if self.same { x.max(y) } else { [x, y][side] };
        room as i64 * self.unit()
    }

    /// Where the blocks of the operands are, behind the matrix.
    pub fn blocks(&self) -> [i64; 2] {
        let x = self.matrix_bytes();
        [x, if self.same { x } else { x + self.row_bytes(0) * self.block as i64 }]
    }

    /// Bytes of a matrix and of the blocks behind it.
    pub fn bytes(&self) -> i64 {
        let end = self.blocks()[1] + self.row_bytes(1) * self.block as i64;
        (end as u64).next_multiple_of(64) as i64
    }

    /// Adds the products of the first `count` rows of the blocks to the matrix.
    pub fn add<'b>(&self, b: &'b Builder, matrix: V<'b>, count: V<'b>) {
        let [side_x, side_y] = self.sides;
        let (high, wide) = (side_x.tile as i64, side_y.tile as i64);
        let (unit, lanes, row) = (self.unit(), self.lanes, self.matrix_row());
        let ty = Ty::vector(self.prim, lanes);
        let vector = ty.bytes() as i64;
        let [x, y] = self.blocks().map(|at| matrix.at(at));
        // Rows of the matrix beyond the last tile are room only.
        let last = b.i64(side_x.extent.next_multiple_of(side_x.tile) as i64);
        b.for_carry(b.i64(0), last, high, &[], |i, _| {
            b.for_carry(b.i64(0), b.i64(row), vector * wide, &[], |j, _| {
                let tile = matrix.index(i, row).index(j, 1);
                let places: Vec<i64> = (0..high).flat_map(|i| (0..wide).map(move |j| i * row + j * vector)).collect();
                let sums: Vec<V<'b>> = places.iter().map(|&at| b.load(ty, tile, at)).collect();
                let (x, y) = (x.index(i, unit), y.index(j, 1));
                let sums = b.for_carry(b.i64(0), count, 1, &sums, |r, sums| {
                    let (x, y) = (x.index(r, self.row_bytes(0)), y.index(r, self.row_bytes(1)));
                    let right: Vec<V<'b>> = (0..wide).map(|j| b.load(ty, y, j * vector)).collect();
                    let left = (0..high).map(|i| b.load(Ty::scalar(self.prim), x, i * unit).splat(lanes));
                    let pairs = left.flat_map(|left| right.iter().map(move |right| (left, *right)));
                    pairs.zip(sums).map(|((left, right), sum)| left.fma(right, *sum)).collect()
                });
                places.iter().zip(&sums).for_each(|(&at, &sum)| b.store(tile, at, sum));
                vec![]
            });
            vec![]
        });
    }

    /// Writes what `of` gives for each vector of the matrix, by its place in bytes.
    pub fn each_vector<'b>(&self, b: &'b Builder, matrix: V<'b>, of: impl FnOnce(V<'b>, Ty) -> V<'b>) {
        let ty = Ty::vector(self.prim, self.lanes);
        b.for_carry(b.i64(0), b.i64(self.matrix_bytes()), ty.bytes() as i64, &[], |at, _| {
            b.store(matrix.index(at, 1), 0, of(at, ty));
            vec![]
        });
    }
}

/// A product over rows with its epilogue, in a tensor program.
#[derive(Clone, Debug)]
pub struct Contract {
    /// The product.
    pub node: Node,
    /// What is stored.
    pub root: Node,
    /// The operands [rows, ..]; the first one is transposed.
    pub operands: [Node; 2],
    /// Number of rows.
    pub rows: Size,
    /// What adds up products.
    pub kernel: Kernel,
    /// The parts, one after the other: a matrix, then blocks.
    pub parts: BufferId,
    /// Where the result goes.
    pub out: Spec,
}

impl Contract {
    /// Writes the code that sums up the parts `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let (b, kernel) = (ev.b, &self.kernel);
        let rows = ev.env.size(&self.rows);
        let each = (rows + (PARTS - 1)) / PARTS;
        b.for_(lo, hi, |part| {
            let matrix = ev.env.buffer(self.parts).index(part, kernel.bytes());
            kernel.each_vector(b, matrix, |_, ty| b.zero(ty));
            let (first, end) = (part * each, rows.min(part * each + each));
            let block = kernel.block as i64;
            b.for_carry(first, end, block, &[], |row, _| {
                let count = (end - row).min(b.i64(block));
                self.pack(ev, 0, row, count, matrix);
                if !kernel.same {
                    self.pack(ev, 1, row, count, matrix);
                }
                kernel.add(b, matrix, count);
                vec![]
            });
        });
    }

    /// Computes `count` rows of an operand into its block.
    fn pack<'b>(&self, ev: &Eval<'_, 'b>, side: usize, first: V<'b>, count: V<'b>, matrix: V<'b>) {
        let (b, kernel) = (ev.b, &self.kernel);
        let block = matrix.at(kernel.blocks()[side]);
        b.for_(b.i64(0), count, |row| {
            let to = block.index(row, kernel.row_bytes(side));
            let columns = b.i64(kernel.sides[side].extent as i64);
            ev.vectors_of(kernel.lanes, b.i64(0), columns, |column, mask| {
                let coords = vec![Coord::from(first + row), Coord::from(column)];
                let at = At { coords, vec: Some(1), lanes: kernel.lanes, mask };
                b.store(to.index(column, kernel.unit()), 0, ev.eval(self.operands[side], &at));
            });
        });
    }

    /// How the result is visited.
    pub fn nest(&self) -> Nest {
        Nest::of_folds(&self.out, &[], Vectors::Along(1), PARTS as u64)
    }

    /// Writes the code that sums the parts up into the result.
    pub fn emit_sum<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        let (b, kernel) = (ev.b, &self.kernel);
        let parts = ev.env.buffer(self.parts);
        self.nest().emit(ev, lo, hi, &mut |at| {
            let [row, column] = [0, 1].map(|axis: usize| at.coords[axis].value());
            let place = parts.index(row, kernel.matrix_row()).index(column, kernel.unit());
            let ty = Ty::vector(kernel.prim, at.lanes);
            let sum = b.for_carry(b.i64(0), b.i64(PARTS), 1, &[b.zero(ty)], |part, sum| {
                vec![sum[0] + ev.read(ty, place.index(part, kernel.bytes()), at.mask, false)]
            });
            ev.finish(self.node, sum[0], self.root, &self.out, at);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit() {
        let target = Target { vector_bytes: 64, registers: 32, l2_bytes: 1 << 20 };
        let [x, y] = sides(target, Prim::F64, [42, 42]);
        assert_eq!((x.tile, x.room, y.tile, y.room), (7, 48, 3, 48));
        let [x, y] = sides(target, Prim::F64, [8, 7]);
        assert_eq!((x.tile, x.room, y.tile, y.room), (8, 8, 1, 8));
        assert_eq!(Kernel::new(target, Prim::F64, [8, 7], false).block, 128);
    }
}
