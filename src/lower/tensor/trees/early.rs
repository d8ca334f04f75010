//! Trees that stop where nothing but a comparison is asked of their sum: `sum >= t`, or `sum` where that is true.
//!
//! Trees run in phases. After each, bounds of what the others can add ([`Grid`]) decide for each row whether its sum is going to
//! pass. Decided rows are done. The others go, without gaps, to a buffer of the next phase, which is gone through when it holds
//! a block of rows: one slow row does not keep its neighbours. As long as few rows of a block are decided they stay where they
//! are, since moving costs about as much as a tree.
//!
//! A row that fails gets NaN, which passes no comparison; one that passes gets the threshold, or its sum if somebody reads that.

use super::bounds::Grid;
use super::{Block, Eval, Form, Table, Trees};
use crate::lower::tensor::eval::At;
use crate::lower::tensor::planner::Planner;
use quearn_stage::graph::{CompareOp, Forest, Node, Op};
use quearn_stage::low::{Builder, CastOp, CmpOp, Prim, Ty, UnOp, V};

/// The most phases.
const PHASES: usize = 8;
/// Trees of a phase, at least.
const TREES: usize = 6;
/// Lanes of a register of which some can be written without gaps.
const LANES: u16 = 16;
/// Of so many rows of a block, the undecided are moved when there are fewer.
const STAY: [i64; 2] = [4, 3];
/// Bytes of buffers that the stack has room for.
const MOST_BYTES: i64 = 256 << 10;
/// Columns of a buffer beside features: sums, cells, rows.
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
    /// For each phase its first tree, its first split, and the end of its trees.
    steps: i64,
    /// Bounds, by cell and phase.
    bounds: i64,
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

/// Distance of the columns of a buffer, in bytes, for blocks of so many vectors: room for a block, and for what is there before a
/// block is full.
pub fn stride(vectors: i64) -> i64 {
    2 * 4 * vectors * i64::from(LANES)
}

impl Early {
    /// How trees stop that ask for so many features, if that can pay.
    pub fn plan(forest: &Forest, asked: Asked, lanes: i64, vectors: i64) -> Option<Early> {
        let trees = forest.trees.len();
        let phases = (trees / TREES).min(PHASES);
        let bytes = (forest.used().len() as i64 + MORE) * stride(vectors) * phases as i64;
        if phases < 2 || lanes != i64::from(LANES) || forest.base.len() != 1 || bytes > MOST_BYTES {
            return None;
        }
        let done: Vec<usize> = (1..=phases).map(|phase| trees * phase / phases).collect();
        Some(Early { asked, grid: Grid::new(forest, &done)?, phases: phases as i64, steps: 0, bounds: 0 })
    }

    /// Appends phases and bounds to the table of the trees.
    pub fn append(&mut self, forest: &Forest, form: Form, table: &mut Table) {
        let phases = self.phases as usize;
        let first = |phase: usize| forest.trees.len() * phase / phases;
        let steps = (0..phases).flat_map(|phase| {
            let tree = first(phase);
            [tree as u32, if tree == 0 { 0 } else { table.end_of_splits(form, tree - 1) }, first(phase + 1) as u32]
        });
        let steps: Vec<u32> = steps.collect();
        self.steps = table.append(&steps);
        self.bounds = table.append(&self.grid.bounds.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>());
    }
}

/// The buffers of the phases, one after the other; each has columns of features, sums, cells and rows.
struct Buffers<'b> {
    base: V<'b>,
    /// Rows in each.
    counts: V<'b>,
    stride: i64,
    features: i64,
    /// Rows of a block.
    rows: i64,
}

impl<'b> Buffers<'b> {
    fn of(&self, phase: V<'b>) -> V<'b> {
        self.base.index(phase, self.stride * (self.features + MORE))
    }

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
        let (rows, features) = (self.vectors * i64::from(LANES), self.used.len() as i64);
        let stride = stride(self.vectors);
        let base = b.alloca((stride * (features + MORE) * early.phases) as u32, 64);
        let counts = b.alloca(8 * early.phases as u32, 64);
        let buffers = Buffers { base, counts, stride, features, rows };
        let table = ev.env.buffer(self.table);
        (0..early.phases).for_each(|phase| b.store(counts, 8 * phase, b.i64(0)));
        let n = ev.env.size(&self.out.axes[0].size);
        b.for_(lo, hi, |item| {
            let first = item * rows;
            let rest = (n - first).min(b.i64(rows));
            let whole = rest.eq(b.i64(rows));
            b.if_(whole, || self.load(ev, early, &buffers, first, None));
            b.if_(whole.un(UnOp::Not), || self.load(ev, early, &buffers, first, Some(rest)));
            self.phases(ev, early, &buffers, table, [b.i64(0), base, rest]);
        });
        // What is left in the buffers.
        b.for_(b.i64(1), b.i64(early.phases), |phase| {
            let count = b.load(Ty::I64, counts.index(phase, 8), 0);
            b.if_(count.gt(b.i64(0)), || {
                b.store(counts.index(phase, 8), 0, b.i64(0));
                self.phases(ev, early, &buffers, table, [phase, buffers.of(phase), count]);
            });
        });
    }

    /// Fills the first buffer with rows from `first` on, a block or the `rest` of them.
    fn load<'b>(&self, ev: &Eval<'_, 'b>, early: &Early, buffers: &Buffers<'b>, first: V<'b>, rest: Option<V<'b>>) {
        let b = ev.b;
        let ints = Ty::vector(Prim::I32, LANES);
        let base = b.float(Ty::vector(Prim::F32, LANES), f64::from(self.base));
        for v in 0..self.vectors {
            let at = v * i64::from(LANES);
            let (row, mask) = (first + at, rest.map(|rest| ev.lanes_below(rest - at)));
            let values: Vec<V<'b>> = self.used.iter().map(|&feature| self.feature(ev, feature, row, mask)).collect();
            let mut cell = b.zero(ints);
            for axis in &early.grid.axes {
                let place = self.used.binary_search(&axis.feature).unwrap_or(0);
                cell = cell * b.int(ints, axis.limits.len() as i128 + 1);
                for limit in &axis.limits {
                    let limit = b.float(values[place].ty(), f64::from(*limit));
                    cell = values[place].cmp(CmpOp::Le, limit).select(cell, cell + b.int(ints, 1));
                }
            }
            for (place, value) in values.into_iter().enumerate() {
                b.store(buffers.base, buffers.stride * place as i64 + 4 * at, value);
            }
            b.store(buffers.base, buffers.sums() + 4 * at, base);
            b.store(buffers.base, buffers.cells() + 4 * at, cell * b.int(ints, 2 * i128::from(early.phases)));
            let line = row.cast(CastOp::Trunc, Prim::I32).splat(LANES) + b.iota(ints);
            b.store(buffers.base, buffers.lines() + 4 * at, line);
        }
    }

    /// Takes the rows at a place through phases, as long as there is a block of rows for the next one.
    fn phases<'b>(&self, ev: &Eval<'_, 'b>, early: &Early, buffers: &Buffers<'b>, table: V<'b>, start: [V<'b>; 3]) {
        let b = ev.b;
        b.while_(
            &start,
            |carried| carried[2].gt(b.i64(0)),
            |carried| {
                let &[phase, at, n] = carried else { unreachable!("as many as begun with") };
                let block = Block { ev, table, features: at };
                let sums = self.phase_sums(&block, early, buffers, phase);
                let last = phase.eq(b.i64(early.phases - 1));
                let (values, open) = self.decide(&block, early, buffers, phase, n, &sums);
                let open: Vec<V<'b>> = open.into_iter().map(|open| open & last.un(UnOp::Not).splat(LANES)).collect();
                let counts: Vec<V<'b>> = open.iter().map(|&open| count(open)).collect();
                let left = counts.iter().fold(b.i64(0), |all, count| all + *count);
                let stay = (left * STAY[0]).gt(n * STAY[1]);
                b.if_else(
                    stay,
                    || {
                        for (v, sum) in (0..).zip(&sums) {
                            b.store(at, buffers.sums() + 4 * i64::from(LANES) * v, *sum);
                        }
                        vec![phase + 1, at, n]
                    },
                    || {
                        let filled = self.hand_on(buffers, b, phase, at, &sums, (&open, &counts));
                        self.write(ev, buffers, at, n, &values);
                        let full = filled.ge(b.i64(buffers.rows));
                        b.if_else(
                            full,
                            || {
                                let left = filled - buffers.rows;
                                b.store(buffers.counts.index(phase + 1, 8), 0, left);
                                vec![phase + 1, buffers.of(phase + 1).index(left, 4), b.i64(buffers.rows)]
                            },
                            || vec![phase, at, b.i64(0)],
                        )
                    },
                )
            },
        );
    }

    /// The sums of the rows of a block after the trees of a phase.
    fn phase_sums<'b>(
        &self,
        block: &Block<'_, '_, 'b>,
        early: &Early,
        buffers: &Buffers<'b>,
        phase: V<'b>,
    ) -> Vec<V<'b>> {
        let record = block.table.at(early.steps).index(phase, 12);
        let [tree, split, end] = [0, 4, 8].map(|at| block.index(record, at));
        let b = block.ev.b;
        let sum =
            |v: i64| b.load(Ty::vector(Prim::F32, LANES), block.features, buffers.sums() + 4 * i64::from(LANES) * v);
        self.add(block, [tree, split], end, &self.each(sum)).1
    }

    /// What rows get that are decided, and which ones are not; of the `n` rows of a block.
    fn decide<'b>(
        &self,
        block: &Block<'_, '_, 'b>,
        early: &Early,
        buffers: &Buffers<'b>,
        phase: V<'b>,
        n: V<'b>,
        sums: &[V<'b>],
    ) -> (Vec<V<'b>>, Vec<V<'b>>) {
        let b = block.ev.b;
        let bounds = block.table.at(early.bounds).index(phase, 8);
        let decided = (0..).zip(sums).map(|(v, &sum)| {
            let at = i64::from(LANES) * v;
            let cell = b.load(Ty::vector(Prim::I32, LANES), block.features, buffers.cells() + 4 * at);
            // Behind the rows of a block there may be anything.
            let inside = block.ev.lanes_below(n - at);
            let bound = |end: i64| b.gather(sum.ty(), bounds.at(end), cell, 4, inside, true);
            let [low, high] = [0, 4].map(|end| sum + bound(end));
            let threshold = b.float(sum.ty(), f64::from(early.asked.threshold));
            let (fails, passes) = match early.asked.at_least {
                true => (high.cmp(CmpOp::Lt, threshold), low.cmp(CmpOp::Ge, threshold)),
                false => (low.cmp(CmpOp::Gt, threshold), high.cmp(CmpOp::Le, threshold)),
            };
            let nan = b.float(sum.ty(), f64::NAN);
            match early.asked.reads {
                true => (fails.select(nan, sum), fails.un(UnOp::Not) & inside),
                false => (fails.select(nan, threshold), (fails | passes).un(UnOp::Not) & inside),
            }
        });
        decided.unzip()
    }

    /// Appends the open rows of a block to the buffer of the next phase; how many it holds then.
    fn hand_on<'b>(
        &self,
        buffers: &Buffers<'b>,
        b: &'b Builder,
        phase: V<'b>,
        at: V<'b>,
        sums: &[V<'b>],
        (open, counts): (&[V<'b>], &[V<'b>]),
    ) -> V<'b> {
        for (v, sum) in (0..).zip(sums) {
            b.store(at, buffers.sums() + 4 * i64::from(LANES) * v, *sum);
        }
        let any = counts.iter().fold(b.i64(0), |all, count| all + *count).gt(b.i64(0));
        let filled = b.if_else(
            any,
            || {
                let held = buffers.counts.index(phase + 1, 8);
                let before = b.load(Ty::I64, held, 0);
                let to = buffers.of(phase + 1);
                b.for_(b.i64(0), b.i64(buffers.features + MORE), |column| {
                    let (from, to) = (at.index(column, buffers.stride), to.index(column, buffers.stride));
                    let mut end = before;
                    for (v, (open, count)) in (0..).zip(open.iter().zip(counts)) {
                        let values = b.load(Ty::vector(Prim::I32, LANES), from, 4 * i64::from(LANES) * v);
                        b.compress_store(to.index(end, 4), *open, values);
                        end = end + *count;
                    }
                });
                let after = counts.iter().fold(before, |all, count| all + *count);
                b.store(held, 0, after);
                vec![after]
            },
            || vec![b.i64(0)],
        );
        filled[0]
    }

    /// Writes what the rows of a block get; those that are still open get their own later.
    fn write<'b>(&self, ev: &Eval<'_, 'b>, buffers: &Buffers<'b>, at: V<'b>, n: V<'b>, values: &[V<'b>]) {
        let b = ev.b;
        for (v, value) in (0..).zip(values) {
            b.store(at, buffers.sums() + 4 * i64::from(LANES) * v, *value);
        }
        b.for_(b.i64(0), n, |i| {
            let row = b.load(Ty::I32, at.at(buffers.lines()).index(i, 4), 0).sext(Prim::I64);
            let value = b.load(Ty::F32, at.at(buffers.sums()).index(i, 4), 0);
            let at = At { coords: vec![row.into(), b.i64(0).into()], vec: None, lanes: 1, mask: None };
            ev.store(&self.out, &at, value);
        });
    }
}

/// How many lanes are true.
fn count(mask: V<'_>) -> V<'_> {
    mask.bitcast(Ty::I16).zext(Prim::I32).un(UnOp::Popcnt).zext(Prim::I64)
}
