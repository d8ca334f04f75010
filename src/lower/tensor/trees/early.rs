//! Trees that stop where nothing but a comparison is asked of their sum: `sum >= t`, or `sum` where that is true.
//!
//! Some blocks of rows go through the trees in phases. After each phase bounds of what the other trees can add ([`Grid`]) decide
//! for each row whether its sum is going to pass. Decided rows are done; the others move together as soon as enough of them are
//! gone, so that one slow row does not keep its neighbours.
//!
//! A row that fails gets NaN, which passes no comparison; one that passes gets the threshold, or its sum if somebody reads that.

use super::bounds::Grid;
use super::{Block, Eval, Form, Table, Trees};
use crate::lower::tensor::eval::At;
use crate::lower::tensor::planner::Planner;
use quearn_stage::graph::{CompareOp, Forest, Node, Op};
use quearn_stage::low::{BinOp, Builder, CastOp, CmpOp, Prim, Ty, UnOp, V};

/// The most phases.
const PHASES: usize = 8;
/// Trees of a phase, at least.
const TREES: usize = 6;
/// Lanes of a register of which some can be written without gaps.
const LANES: i64 = 16;
/// Blocks of rows that go through the phases together, at most and at least.
const BLOCKS: [i64; 2] = [16, 4];
/// Rows stay where they are while more than this part of them is undecided.
const STAY: [i64; 2] = [3, 4];
/// Bytes of the buffer of these rows.
const MOST_BYTES: i64 = 256 << 10;
/// Columns of the buffer beside features: sums, cells, rows.
const MORE: i64 = 3;

/// What is asked of the sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// Do sums of at least the threshold pass, or those of at most?
    at_least: bool,
    threshold: f32,
    /// Is the sum of a row that passes read?
    reads: bool,
}

/// How trees stop.
#[derive(Clone, Debug)]
pub struct Early {
    asked: Asked,
    grid: Grid,
    phases: i64,
    /// Blocks of rows that go through the phases together.
    pub blocks: i64,
    /// For each phase its first tree, its first split, and the end of its trees.
    steps: i64,
    /// Least and greatest sums of the other trees, by phase and cell; those that are asked for.
    bounds: [i64; 2],
}

impl Planner<'_, '_> {
    /// What is asked of the sums of trees, if that is one comparison with a constant.
    pub(super) fn asked(&self, node: Node) -> Option<Asked> {
        let (mut values, mut tests, mut choices) = (vec![node], vec![], vec![]);
        let mut at = 0;
        while let Some(&value) = values.get(at) {
            at += 1;
            if self.is_root(value) || self.output_of(value).is_some() {
                return None;
            }
            for &user in self.users.get(&value)? {
                match self.graph().op(user) {
                    Op::Reshape(_) if !values.contains(&user) => values.push(user),
                    Op::Reshape(_) => {}
                    Op::Compare(_) if !tests.contains(&user) => tests.push(user),
                    Op::Compare(_) => {}
                    Op::Select => choices.push(user),
                    _ => return None,
                }
            }
        }
        let &[test] = &tests[..] else { return None };
        let &[x, constant] = self.inputs(test) else { return None };
        let (Op::Compare(op @ (CompareOp::Ge | CompareOp::Le)), Op::Const(literal)) =
            (self.graph().op(test), self.graph().op(constant))
        else {
            return None;
        };
        let takes_passing = |choice: &Node| {
            let inputs = self.inputs(*choice);
            inputs[0] == test && values.contains(&inputs[1]) && !values.contains(&inputs[2])
        };
        let threshold = literal.as_float().filter(|c| c.is_finite())? as f32;
        let exact = f64::from(threshold) == literal.as_float()?;
        (values.contains(&x) && exact && choices.iter().all(takes_passing)).then_some(Asked {
            at_least: *op == CompareOp::Ge,
            threshold,
            reads: !choices.is_empty(),
        })
    }
}

impl Early {
    /// How trees stop that ask for so many features, if that can pay.
    pub fn plan(forest: &Forest, asked: Asked, lanes: i64, vectors: i64) -> Option<Early> {
        let trees = forest.trees.len();
        let phases = (trees / TREES).min(PHASES);
        let block_bytes = 4 * LANES * vectors * (forest.used().len() as i64 + MORE);
        let blocks = (MOST_BYTES / block_bytes).min(BLOCKS[0]);
        if phases < 2 || lanes != LANES || forest.base.len() != 1 || blocks < BLOCKS[1] {
            return None;
        }
        let done: Vec<usize> = (1..=phases).map(|phase| first_tree(forest, phase, phases)).collect();
        let grid = Grid::new(forest, &done)?;
        Some(Early { asked, grid, phases: phases as i64, blocks, steps: 0, bounds: [0; 2] })
    }

    /// Distance of the columns of the buffer, in bytes, not a multiple of a page: a row's features would push one another out of
    /// the first-level cache.
    pub fn stride(&self, vectors: i64) -> i64 {
        4 * LANES * vectors * self.blocks + 64
    }

    /// Appends phases and bounds to the table of the trees.
    pub fn append(&mut self, forest: &Forest, form: Form, table: &mut Table) {
        let phases = self.phases as usize;
        let first = |phase: usize| first_tree(forest, phase, phases);
        let steps = (0..phases).flat_map(|phase| {
            let tree = first(phase);
            [tree as u32, if tree == 0 { 0 } else { table.end_of_splits(form, tree - 1) }, first(phase + 1) as u32]
        });
        let steps: Vec<u32> = steps.collect();
        self.steps = table.append(&steps);
        for end in 0..2 {
            if self.needs(end) {
                let by_phase = (0..phases).flat_map(|phase| self.grid.bounds.iter().skip(phase).step_by(phases));
                let bounds: Vec<u32> = by_phase.map(|bounds| bounds[end].to_bits()).collect();
                self.bounds[end] = table.append(&bounds);
            }
        }
    }

    /// Is the least (0) or the greatest (1) sum of the other trees asked for? Where sums are read, only rows that fail stop.
    fn needs(&self, end: usize) -> bool {
        !self.asked.reads || self.asked.at_least == (end == 1)
    }

    fn cells(&self) -> i64 {
        self.grid.bounds.len() as i64 / self.phases
    }
}

/// The first tree of a phase.
fn first_tree(forest: &Forest, phase: usize, phases: usize) -> usize {
    forest.trees.len() * phase / phases
}

/// The rows that go through the phases: columns of features, sums, cells and rows.
struct Rows<'b> {
    base: V<'b>,
    /// For each register of rows, which ones are open.
    open: V<'b>,
    /// Room for the sums and rows of a block.
    room: V<'b>,
    stride: i64,
    features: i64,
}

impl Rows<'_> {
    fn sums(&self) -> i64 {
        self.stride * self.features
    }

    fn cells(&self) -> i64 {
        self.sums() + self.stride
    }

    fn lines(&self) -> i64 {
        self.cells() + self.stride
    }
}

impl Trees {
    /// Writes the code for work items `lo..hi` of trees that stop early.
    pub(super) fn emit_early<'b>(&self, ev: &Eval<'_, 'b>, early: &Early, lo: V<'b>, hi: V<'b>) {
        let b = ev.b;
        let (block, features) = (self.vectors * LANES, self.used.len() as i64);
        let stride = early.stride(self.vectors);
        let rows = Rows {
            base: b.alloca((stride * (features + MORE)) as u32, 64),
            open: b.alloca((2 * self.vectors * early.blocks) as u32, 64),
            room: b.alloca((8 * block) as u32, 64),
            stride,
            features,
        };
        let table = ev.env.buffer(self.table);
        let n = ev.env.size(&self.out.axes[0].size);
        b.for_carry(lo, hi, early.blocks, &[], |item, _| {
            let first = item * block;
            let count = (hi.min(item + early.blocks) * block).min(n) - first;
            b.for_carry(b.i64(0), count, block, &[], |at, _| {
                let rest = (count - at).min(b.i64(block));
                let whole = rest.eq(b.i64(block));
                b.if_(whole, || self.load(ev, early, &rows, (first, at), None));
                b.if_(whole.un(UnOp::Not), || self.load(ev, early, &rows, (first, at), Some(rest)));
                vec![]
            });
            b.for_carry(b.i64(0), b.i64(early.phases), 1, &[count], |phase, n| {
                vec![self.phase(ev, early, &rows, table, phase, n[0])]
            });
            vec![]
        });
    }

    /// Fills a block of the buffer with the rows from `first + at` on, all of it or the `rest` of them.
    fn load<'b>(
        &self,
        ev: &Eval<'_, 'b>,
        early: &Early,
        rows: &Rows<'b>,
        (first, at): (V<'b>, V<'b>),
        rest: Option<V<'b>>,
    ) {
        let b = ev.b;
        let (ints, floats) = (Ty::vector(Prim::I32, LANES as u16), Ty::vector(Prim::F32, LANES as u16));
        let to = rows.base.index(at, 4);
        for v in 0..self.vectors {
            let (row, mask) = (first + at + v * LANES, rest.map(|rest| ev.lanes_below(rest - v * LANES)));
            let values: Vec<V<'b>> = self.used.iter().map(|&feature| self.feature(ev, feature, row, mask)).collect();
            let mut cell = b.zero(ints);
            for axis in &early.grid.axes {
                let place = self.used.binary_search(&axis.feature).unwrap_or(0);
                cell = cell * b.int(ints, axis.limits.len() as i128 + 1);
                for limit in &axis.limits {
                    let limit = b.float(floats, f64::from(*limit));
                    cell = values[place].cmp(CmpOp::Le, limit).select(cell, cell + b.int(ints, 1));
                }
            }
            for (place, value) in (0..).zip(values) {
                b.store(to, rows.stride * place + 4 * v * LANES, value);
            }
            b.store(to, rows.sums() + 4 * v * LANES, b.float(floats, f64::from(self.base)));
            b.store(to, rows.cells() + 4 * v * LANES, cell);
            let line = row.cast(CastOp::Trunc, Prim::I32).splat(LANES as u16) + b.iota(ints);
            b.store(to, rows.lines() + 4 * v * LANES, line);
            let out = At { coords: vec![row.into(), b.i64(0).into()], vec: Some(0), lanes: LANES as u16, mask };
            ev.store(&self.out, &out, b.float(floats, f64::NAN));
        }
    }

    /// Takes the first `n` rows of the buffer through a phase; how many there are after it.
    fn phase<'b>(
        &self,
        ev: &Eval<'_, 'b>,
        early: &Early,
        rows: &Rows<'b>,
        table: V<'b>,
        phase: V<'b>,
        n: V<'b>,
    ) -> V<'b> {
        let b = ev.b;
        let block = self.vectors * LANES;
        let last = phase.eq(b.i64(early.phases - 1));
        let left = b.for_carry(b.i64(0), n, block, &[b.i64(0)], |at, left| {
            let here = Block { ev, table, features: rows.base.index(at, 4) };
            let sums = self.phase_sums(&here, early, rows, phase);
            let (open, done): (Vec<_>, Vec<_>) = (0..)
                .zip(&sums)
                .map(|(v, &sum)| self.decide(&here, early, rows, (phase, last), (v, n - at - v * LANES), sum))
                .unzip();
            for (v, (sum, open)) in (0..).zip(sums.iter().zip(&open)) {
                b.store(here.features, rows.sums() + 4 * v * LANES, *sum);
                b.store(rows.open.index(at.bin(BinOp::LShr, b.i64(3)), 1), 2 * v, open.bitcast(Ty::I16));
            }
            self.write(&here, early, rows, &sums, &done);
            vec![left[0] + total(b, &open)]
        })[0];
        let stays = (left * STAY[1]).gt(n * STAY[0]) & last.un(UnOp::Not);
        b.if_else(
            stays,
            || vec![n],
            || {
                self.move_together(b, rows, n);
                vec![left]
            },
        )[0]
    }

    /// The sums of the rows of a block after the trees of a phase.
    fn phase_sums<'b>(&self, block: &Block<'_, '_, 'b>, early: &Early, rows: &Rows<'b>, phase: V<'b>) -> Vec<V<'b>> {
        let record = block.table.at(early.steps).index(phase, 12);
        let [tree, split, end] = [0, 4, 8].map(|at| block.index(record, at));
        let floats = Ty::vector(Prim::F32, LANES as u16);
        let sum = |v: i64| block.ev.b.load(floats, block.features, rows.sums() + 4 * v * LANES);
        self.add(block, [tree, split], end, &self.each(sum)).1
    }

    /// Of a register of rows, of which `n` are there: those that are not decided, and those whose result is to be written.
    fn decide<'b>(
        &self,
        block: &Block<'_, '_, 'b>,
        early: &Early,
        rows: &Rows<'b>,
        (phase, last): (V<'b>, V<'b>),
        (v, n): (i64, V<'b>),
        sum: V<'b>,
    ) -> (V<'b>, V<'b>) {
        let b = block.ev.b;
        let inside = block.ev.lanes_below(n);
        let cell = b.load(Ty::vector(Prim::I32, LANES as u16), block.features, rows.cells() + 4 * v * LANES);
        let threshold = b.float(sum.ty(), f64::from(early.asked.threshold));
        let bound = |end: usize| {
            let bounds = block.table.at(early.bounds[end]).index(phase, 4 * early.cells());
            // Behind the rows there may be anything.
            sum + b.gather(sum.ty(), bounds, cell, 4, inside, true)
        };
        let fails = || match early.asked.at_least {
            true => bound(1).cmp(CmpOp::Lt, threshold),
            false => bound(0).cmp(CmpOp::Gt, threshold),
        };
        let passes = || match early.asked.at_least {
            true => bound(0).cmp(CmpOp::Ge, threshold),
            false => bound(1).cmp(CmpOp::Le, threshold),
        };
        let last = last.splat(LANES as u16);
        if early.asked.reads {
            let rest = fails().un(UnOp::Not) & inside;
            return (rest & last.un(UnOp::Not), rest & last);
        }
        let passes = passes();
        ((fails() | passes).un(UnOp::Not) & inside & last.un(UnOp::Not), passes & inside)
    }

    /// Writes the results of rows that are done and pass.
    fn write<'b>(&self, block: &Block<'_, '_, 'b>, early: &Early, rows: &Rows<'b>, sums: &[V<'b>], done: &[V<'b>]) {
        let (ev, b) = (block.ev, block.ev.b);
        let count = total(b, done);
        b.if_(count.gt(b.i64(0)), || {
            let lines = rows.room.at(4 * self.vectors * LANES);
            let mut end = b.i64(0);
            for (v, (sum, done)) in (0..).zip(sums.iter().zip(done)) {
                let value = match early.asked.reads {
                    true => *sum,
                    false => b.float(sum.ty(), f64::from(early.asked.threshold)),
                };
                let line = b.load(Ty::vector(Prim::I32, LANES as u16), block.features, rows.lines() + 4 * v * LANES);
                b.compress_store(rows.room.index(end, 4), *done, value);
                b.compress_store(lines.index(end, 4), *done, line);
                end = end + lanes_of(*done);
            }
            b.for_(b.i64(0), count, |i| {
                let row = b.load(Ty::I32, lines.index(i, 4), 0).sext(Prim::I64);
                let value = b.load(Ty::F32, rows.room.index(i, 4), 0);
                let at = At { coords: vec![row.into(), b.i64(0).into()], vec: None, lanes: 1, mask: None };
                ev.store(&self.out, &at, value);
            });
        });
    }

    /// Moves the open ones of `n` rows to the front of the buffer.
    fn move_together<'b>(&self, b: &'b Builder, rows: &Rows<'b>, n: V<'b>) {
        b.for_carry(b.i64(0), n, self.vectors * LANES, &[b.i64(0)], |at, end| {
            let open = |v: i64| {
                let bits = b.load(Ty::I16, rows.open.index(at.bin(BinOp::LShr, b.i64(3)), 1), 2 * v);
                bits.bitcast(Ty::vector(Prim::Bool, LANES as u16))
            };
            let open = self.each(open);
            b.for_(b.i64(0), b.i64(rows.features + MORE), |column| {
                let column = rows.base.index(column, rows.stride);
                let mut to = end[0];
                for (v, open) in (0..).zip(&open) {
                    let values = b.load(Ty::vector(Prim::I32, LANES as u16), column.index(at, 4), 4 * v * LANES);
                    b.compress_store(column.index(to, 4), *open, values);
                    to = to + lanes_of(*open);
                }
            });
            vec![end[0] + total(b, &open)]
        });
    }
}

/// How many lanes are true.
fn lanes_of(mask: V<'_>) -> V<'_> {
    mask.bitcast(Ty::I16).zext(Prim::I32).un(UnOp::Popcnt).zext(Prim::I64)
}

fn total<'b>(b: &'b Builder, masks: &[V<'b>]) -> V<'b> {
    masks.iter().fold(b.i64(0), |all, mask| all + lanes_of(*mask))
}
