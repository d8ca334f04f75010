//! Decision trees, some vectors of rows at a time, without branches: the trees are tables, so that the code is small
//! whatever their number.
//!
//! The features that some split asks for are first put side by side, one after the other, in a block on the stack; a split
//! finds its feature there by an offset. Then tree after tree adds its leaf, in one of three [`Form`]s, of which the
//! cheapest by an estimate is taken for all trees:
//!
//! - *bits*: every split of the tree is tested, in any order; one that fails takes the leaves on its left out of a set of
//!   bits, of which the lowest that is left is the leaf (Lucchese et al., "QuickScorer", 2015). For trees of up to 64 leaves.
//! - *choice*: trees filled up to the same few levels; all splits are tested, and leaves chosen from the bottom up.
//! - *walk*: each row goes down on its own, by gathers, as many levels as the tree has. For large trees.
//!
//! Where nothing but a comparison is asked of the sums, they end as soon as it is decided ([`early`], by [`bounds`]).

pub mod bounds;
pub mod early;

use self::early::Early;
use super::eval::{At, Eval};
use super::plan::{Kind, Place};
use super::planner::{Planner, Result};
use super::spec::{BufferId, Size, Spec};
use quearn_stage::graph::{Forest, Node, Op, Tree, TreeNode};
use quearn_stage::low::{CastOp, CmpOp, Prim, Ty, UnOp, V};

/// Vectors of rows that a table is gone through for.
const VECTORS: i64 = 4;

/// Bytes of the block of features, where one vector of rows has no more.
const BLOCK_BYTES: i64 = 128 << 10;

/// Bytes of the block that the stack has room for.
const MOST_BYTES: i64 = 512 << 10;

/// The most levels of trees that are filled up.
const MOST_LEVELS: u32 = 4;

/// How trees are evaluated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Sets of leaves, in integers of so many bits.
    Bits(u32),
    /// Choices from the bottom up, of so many levels.
    Choice(u32),
    /// A walk for each row.
    Walk,
}

impl Form {
    /// The cheapest form, for vectors of so many lanes, and about how many instructions a vector of rows costs in it.
    pub fn choose(forest: &Forest, lanes: u64) -> (Form, u64) {
        let depth = forest.trees.iter().map(Tree::depth).max().unwrap_or(0);
        let most_leaves = forest.trees.iter().map(|tree| tree.leaves().count()).max().unwrap_or(0);
        let splits: u64 = forest.trees.iter().map(|tree| tree.splits().count() as u64).sum();
        let trees = forest.trees.len() as u64;
        let mut forms = vec![(Form::Walk, {
            let steps: u64 = forest.trees.iter().map(|tree| u64::from(tree.depth())).sum();
            steps * (4 * lanes + 6) + trees * lanes
        })];
        for bits in [32, 64].into_iter().filter(|&bits| most_leaves <= bits as usize) {
            let words = u64::from(bits / 32);
            forms.push((Form::Bits(bits), splits * (2 * words + 1) + trees * (6 * words + lanes)));
        }
        if depth <= MOST_LEVELS && !has_nan_left(forest) {
            forms.push((Form::Choice(depth), trees * (4 << depth)));
        }
        forms.into_iter().min_by_key(|(_, cost)| *cost).unwrap_or((Form::Walk, 0))
    }
}

fn has_nan_left(forest: &Forest) -> bool {
    forest.trees.iter().flat_map(Tree::splits).any(|split| split.nan_left)
}

/// The numbers of a forest, and where each kind of them begins, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    words: Vec<u32>,
    /// For each output its base, and the end of its trees.
    outputs: i64,
    /// For each tree what its form needs.
    trees: i64,
    /// Splits, or nodes.
    splits: i64,
    /// Leaves.
    leaves: i64,
}

impl Table {
    fn new(forest: &Forest, form: Form, places: &Places) -> Table {
        // Trees of one output stand together, in their order.
        let mut order: Vec<&Tree> = forest.trees.iter().collect();
        order.sort_by_key(|tree| tree.output);
        let mut table = Table::default();
        let mut end = 0;
        for (output, base) in forest.base.iter().enumerate() {
            end += order.iter().filter(|tree| tree.output as usize == output).count() as u32;
            table.words.extend([base.get().to_bits(), end]);
        }
        let (mut trees, mut splits, mut leaves) = (vec![], vec![], vec![]);
        for tree in order {
            match form {
                Form::Bits(bits) => bit_tree(tree, bits, places, &mut trees, &mut splits, &mut leaves),
                Form::Choice(levels) => full_tree(tree, levels, places, &mut trees),
                Form::Walk => walk_tree(tree, places, &mut trees, &mut splits),
            }
        }
        table.trees = table.append(&trees);
        table.splits = table.append(&splits);
        table.leaves = table.append(&leaves);
        table
    }

    /// Appends numbers at an even place; gives where, in bytes.
    fn append(&mut self, words: &[u32]) -> i64 {
        self.words.resize(self.words.len().next_multiple_of(2), 0);
        let at = 4 * self.words.len() as i64;
        self.words.extend(words);
        at
    }

    /// The end of the splits of a tree, where trees say that.
    fn end_of_splits(&self, form: Form, tree: usize) -> u32 {
        if matches!(form, Form::Bits(_)) { self.words[self.trees as usize / 4 + 3 * tree + 1] } else { 0 }
    }

    fn packed(&self) -> Vec<u64> {
        let pair = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32;
        self.words.chunks(2).map(pair).collect()
    }
}

/// Where features are in the block, in bytes.
struct Places {
    used: Vec<u32>,
    stride: i64,
}

impl Places {
    fn of(&self, feature: u32) -> u32 {
        let at = self.used.binary_search(&feature).unwrap_or(0);
        (at as i64 * self.stride) as u32
    }
}

/// For a tree the ends of its splits that send NaN right and left, and its first leaf; for a split offset, limit and the
/// leaves that stay where it fails.
fn bit_tree(
    tree: &Tree,
    bits: u32,
    places: &Places,
    trees: &mut Vec<u32>,
    splits: &mut Vec<u32>,
    leaves: &mut Vec<u32>,
) {
    let words = 2 + bits as usize / 32;
    let first = leaves.len() as u32;
    // How many leaves stand before each node.
    let mut before = vec![0u32];
    for node in tree.nodes() {
        before.push(before[before.len() - 1] + u32::from(matches!(node, TreeNode::Leaf(_))));
    }
    for nan_left in [false, true] {
        for (at, node) in tree.nodes().iter().enumerate() {
            let TreeNode::Split { split, right } = node else { continue };
            if split.nan_left != nan_left {
                continue;
            }
            let on_left = |leaf: u32| 1u64.checked_shl(leaf).map_or(0, |bit| bit.wrapping_sub(1));
            let gone = on_left(before[*right as usize]) & !on_left(before[at]);
            splits.extend([places.of(split.feature), split.limit.get().to_bits(), !gone as u32]);
            if bits == 64 {
                splits.push((!gone >> 32) as u32);
            }
        }
        trees.push((splits.len() / words) as u32);
    }
    trees.push(first);
    leaves.extend(tree.leaves().map(f32::to_bits));
}

/// Splits level by level, then leaves; a leaf that comes early stands for all below it.
fn full_tree(tree: &Tree, levels: u32, places: &Places, trees: &mut Vec<u32>) {
    let mut level = vec![0usize];
    for _ in 0..levels {
        let mut next = vec![];
        for at in level {
            match &tree.nodes()[at] {
                TreeNode::Split { split, right } => {
                    trees.extend([places.of(split.feature), split.limit.get().to_bits()]);
                    next.extend([at + 1, *right as usize]);
                }
                TreeNode::Leaf(_) => {
                    trees.extend([0, 0]);
                    next.extend([at, at]);
                }
            }
        }
        level = next;
    }
    trees.extend(level.into_iter().map(|at| match &tree.nodes()[at] {
        TreeNode::Leaf(value) => value.get().to_bits(),
        TreeNode::Split { .. } => 0,
    }));
}

/// Words of a node of a walk.
const NODE: u32 = 4;
/// Set in the offset of a split that sends NaN left.
const NAN_LEFT: u32 = 1 << 31;

/// For a tree its root and its levels; for a node offset, limit, and the children, for a leaf its value as the limit and
/// itself as its children. Nodes are named by the words before them.
fn walk_tree(tree: &Tree, places: &Places, trees: &mut Vec<u32>, nodes: &mut Vec<u32>) {
    let root = nodes.len() as u32;
    trees.extend([root, tree.depth()]);
    for (at, node) in tree.nodes().iter().enumerate() {
        let place = |at: u32| root + NODE * at;
        let here = place(at as u32);
        nodes.extend(match node {
            TreeNode::Leaf(value) => [0, value.get().to_bits(), here, here],
            TreeNode::Split { split, right } => {
                let flag = if split.nan_left { NAN_LEFT } else { 0 };
                [places.of(split.feature) | flag, split.limit.get().to_bits(), here + NODE, place(*right)]
            }
        });
    }
}

/// A stage of decision trees.
#[derive(Clone, Debug)]
pub struct Trees {
    /// Features, a matrix of rows and features, or the columns of such a matrix.
    features: Features,
    /// Those that are asked for.
    used: Vec<u32>,
    vectors: i64,
    form: Form,
    nan_left: bool,
    outputs: u64,
    /// What the sums of the first output begin with.
    base: f32,
    /// How they stop early, if they do.
    early: Option<Early>,
    /// About how many instructions a vector of rows costs.
    cost: u64,
    layout: Table,
    table: BufferId,
    /// Where the sums go.
    pub out: Spec,
}

#[derive(Clone, Debug)]
enum Features {
    Matrix(Node),
    Columns(Vec<Node>),
}

impl Planner<'_, '_> {
    /// Columns that are put side by side for trees only need no place: the trees take them one by one.
    pub(super) fn find_features(&mut self) {
        let is_trees = |user: &Node| matches!(self.graph().op(*user), Op::TreeEnsemble(_));
        let only_features = |node: &&Node| {
            *self.graph().op(**node) == Op::Stack
                && !self.is_leaf(**node)
                && !self.is_root(**node)
                && self.rank(**node) == 2
                && self.users.get(*node).is_some_and(|users| users.iter().all(is_trees))
        };
        let found: Vec<Node> = self.request.nodes.iter().filter(only_features).copied().collect();
        self.absorbed.extend(found);
    }

    pub(super) fn trees(&mut self, node: Node, forest: &Forest) -> Result<()> {
        let x = self.inputs(node)[0];
        let features = match self.absorbed.contains(&x) {
            true => Features::Columns(self.inputs(x).to_vec()),
            false => Features::Matrix(x),
        };
        let lanes = i64::from(self.plan.target.lanes());
        let used = forest.used();
        let row_bytes = 4 * used.len().max(1) as i64 * lanes;
        let vectors = (BLOCK_BYTES / row_bytes).clamp(1, VECTORS);
        if row_bytes > MOST_BYTES {
            let what = format!("trees that ask for {} features", used.len());
            return Err(self.plan.unsupported(node, what));
        }
        let (form, cost) = Form::choose(forest, lanes as u64);
        let mut early = self.asked(node).and_then(|asked| Early::plan(forest, asked, lanes, vectors));
        let stride = early.as_ref().map_or(4 * vectors * lanes, |early| early.stride(vectors));
        let places = Places { used: used.clone(), stride };
        let mut layout = Table::new(forest, form, &places);
        if let Some(early) = &mut early {
            early.append(forest, form, &mut layout);
        }
        let words = layout.packed();
        let bytes = 8 * words.len() as u64;
        let label = format!("the trees of {}", self.label(node));
        let table = self.new_buffer(Place::Table(words.into()), &[], bytes, label);
        let out = self.destination(node, true)?;
        let trees = Trees {
            features,
            used,
            vectors,
            form,
            nan_left: has_nan_left(forest),
            outputs: forest.base.len() as u64,
            base: forest.base.first().map_or(0.0, |base| base.get()),
            early,
            cost,
            layout,
            table,
            out: out.clone(),
        };
        let name = if trees.early.is_some() { "trees_stopped_early" } else { "trees" };
        self.finish(node, node, out, name, Kind::Trees(Box::new(trees)));
        Ok(())
    }
}

/// What one call of the code goes through: the addresses that all trees share.
struct Block<'a, 'e, 'b> {
    ev: &'a Eval<'e, 'b>,
    table: V<'b>,
    /// The features of the rows.
    features: V<'b>,
}

impl Trees {
    fn lanes(ev: &Eval<'_, '_>) -> i64 {
        i64::from(ev.lanes())
    }

    /// Number of work items, which are blocks of rows, and about how many instructions each costs.
    pub fn work<'b>(&self, lanes: i64, size: &dyn Fn(&Size) -> V<'b>) -> (V<'b>, u64) {
        let rows = self.vectors * lanes;
        let cost = self.cost * self.vectors as u64;
        // Blocks that go through the phases together are called together.
        let together = self.early.as_ref().map_or(1, |early| early.blocks as u64);
        ((size(&self.out.axes[0].size) + (rows - 1)) / rows, cost / together)
    }

    /// Writes the code for work items `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        if let Some(early) = &self.early {
            return self.emit_early(ev, early, lo, hi);
        }
        let b = ev.b;
        let lanes = Trees::lanes(ev);
        let rows = self.vectors * lanes;
        let bytes = 4 * rows * self.used.len().max(1) as i64;
        let features = b.alloca(bytes as u32, 64);
        let block = Block { ev, table: ev.env.buffer(self.table), features };
        let n = ev.env.size(&self.out.axes[0].size);
        b.for_(lo, hi, |item| {
            let first = item * rows;
            let rest = (n - first).min(b.i64(rows));
            let whole = rest.eq(b.i64(rows));
            b.if_(whole, || self.rows(&block, first, None));
            b.if_(whole.un(UnOp::Not), || self.rows(&block, first, Some(rest)));
        });
    }

    /// The rows from `first` on, a whole block or the `rest` of them.
    fn rows<'b>(&self, block: &Block<'_, '_, 'b>, first: V<'b>, rest: Option<V<'b>>) {
        let (ev, b) = (block.ev, block.ev.b);
        let lanes = Trees::lanes(ev);
        let places: Vec<(V<'b>, Option<V<'b>>)> =
            (0..self.vectors).map(|v| (first + v * lanes, rest.map(|rest| ev.lanes_below(rest - v * lanes)))).collect();
        for (at, feature) in self.used.iter().enumerate() {
            for (v, (row, mask)) in places.iter().enumerate() {
                let value = self.feature(ev, *feature, *row, *mask);
                b.store(block.features, 4 * lanes * (at as i64 * self.vectors + v as i64), value);
            }
        }
        let sums = |from: [V<'b>; 2], output: V<'b>| self.sums(block, from, output);
        let zero = b.i64(0);
        b.for_carry(zero, b.i64(self.outputs as i64), 1, &[zero, zero], |output, from| {
            let (next, sums) = sums([from[0], from[1]], output);
            for ((row, mask), sum) in places.iter().zip(sums) {
                let coords = vec![(*row).into(), output.into()];
                ev.store(&self.out, &At { coords, vec: Some(0), lanes: ev.lanes(), mask: *mask }, sum);
            }
            next.to_vec()
        });
    }

    fn feature<'b>(&self, ev: &Eval<'_, 'b>, feature: u32, row: V<'b>, mask: Option<V<'b>>) -> V<'b> {
        let at = |coords| At { coords, vec: Some(0), lanes: ev.lanes(), mask };
        match &self.features {
            Features::Matrix(x) => ev.eval(*x, &at(vec![row.into(), ev.b.i64(feature.into()).into()])),
            Features::Columns(columns) => ev.eval(columns[feature as usize], &at(vec![row.into()])),
        }
    }

    /// The sums of one output, and where the next one begins: tree and split.
    fn sums<'b>(&self, block: &Block<'_, '_, 'b>, from: [V<'b>; 2], output: V<'b>) -> ([V<'b>; 2], Vec<V<'b>>) {
        let b = block.ev.b;
        let record = block.table.at(self.layout.outputs).index(output, 8);
        let base = b.load_invariant(Ty::F32, record, 0).splat(block.ev.lanes());
        let end = block.index(record, 4);
        let (split, sums) = self.add(block, from, end, &self.each(|_| base));
        ([end, split], sums)
    }

    /// What the trees from a tree and its first split on add to sums; and the split after them.
    fn add<'b>(&self, block: &Block<'_, '_, 'b>, from: [V<'b>; 2], end: V<'b>, sums: &[V<'b>]) -> (V<'b>, Vec<V<'b>>) {
        let carried: Vec<V<'b>> = std::iter::once(from[1]).chain(sums.iter().copied()).collect();
        let carried = block.ev.b.for_carry(from[0], end, 1, &carried, |tree, carried| {
            let (next, leaves) = match self.form {
                Form::Bits(bits) => self.bits(block, tree, carried[0], bits),
                Form::Choice(levels) => (carried[0], self.choice(block, tree, levels)),
                Form::Walk => (carried[0], self.walk(block, tree)),
            };
            let sums = carried[1..].iter().zip(leaves).map(|(sum, leaf)| *sum + leaf);
            std::iter::once(next).chain(sums).collect()
        });
        (carried[0], carried[1..].to_vec())
    }

    fn each<T>(&self, value: impl FnMut(i64) -> T) -> Vec<T> {
        (0..self.vectors).map(value).collect()
    }

    fn bits<'b>(&self, block: &Block<'_, '_, 'b>, tree: V<'b>, from: V<'b>, bits: u32) -> (V<'b>, Vec<V<'b>>) {
        let (ev, b) = (block.ev, block.ev.b);
        let prim = if bits == 32 { Prim::I32 } else { Prim::I64 };
        let record = block.table.at(self.layout.trees).index(tree, 12);
        let [middle, end, first] = [0, 4, 8].map(|at| block.index(record, at));
        let all = b.int(Ty::vector(prim, ev.lanes()), -1);
        let test = |to: V<'b>, from: V<'b>, sets: &[V<'b>], nan_left: bool| {
            b.for_carry(from, to, 1, sets, |split, sets| {
                let record = block.table.at(self.layout.splits).index(split, 8 + i64::from(bits / 8));
                let (offset, limit) = (block.index(record, 0), block.float(record, 4));
                let stay = b.load_invariant(Ty::scalar(prim), record, 8).splat(ev.lanes());
                let narrowed = sets.iter().enumerate().map(|(v, set)| {
                    let x = block.feature(offset, v as i64);
                    match nan_left {
                        true => x.cmp(CmpOp::Gt, limit).select(*set & stay, *set),
                        false => x.cmp(CmpOp::Le, limit).select(*set, *set & stay),
                    }
                });
                narrowed.collect()
            })
        };
        let mut sets = test(middle, from, &self.each(|_| all), false);
        if self.nan_left {
            sets = test(end, middle, &sets, true);
        }
        let leaves = block.table.at(self.layout.leaves).index(first, 4);
        let leaf = |set: V<'b>| {
            let lowest = set.un(UnOp::Ctz);
            let lowest = if bits == 32 { lowest } else { lowest.cast(CastOp::Trunc, Prim::I32) };
            block.gather(Ty::F32, leaves, lowest)
        };
        (end, sets.into_iter().map(leaf).collect())
    }

    fn choice<'b>(&self, block: &Block<'_, '_, 'b>, tree: V<'b>, levels: u32) -> Vec<V<'b>> {
        let splits = (1i64 << levels) - 1;
        let record = block.table.at(self.layout.trees).index(tree, 8 * splits + 4 * (splits + 1));
        let tests: Vec<(V<'b>, V<'b>)> =
            (0..splits).map(|i| (block.index(record, 8 * i), block.float(record, 8 * i + 4))).collect();
        let leaves: Vec<V<'b>> = (0..=splits).map(|i| block.float(record, 8 * splits + 4 * i)).collect();
        self.each(|v| {
            let mut level = leaves.clone();
            for depth in (0..levels).rev() {
                let first = (1 << depth) - 1;
                let chosen = level.chunks(2).enumerate().map(|(i, pair)| {
                    let (offset, limit) = tests[first + i];
                    block.feature(offset, v).cmp(CmpOp::Le, limit).select(pair[0], pair[1])
                });
                level = chosen.collect();
            }
            level[0]
        })
    }

    fn walk<'b>(&self, block: &Block<'_, '_, 'b>, tree: V<'b>) -> Vec<V<'b>> {
        let (ev, b) = (block.ev, block.ev.b);
        let ints = Ty::vector(Prim::I32, ev.lanes());
        let record = block.table.at(self.layout.trees).index(tree, 8);
        let root = b.load_invariant(Ty::I32, record, 0).splat(ev.lanes());
        let nodes = block.table.at(self.layout.splits);
        let lane = b.iota(ints) * b.int(ints, 4);
        let places = b.for_carry(b.i64(0), block.index(record, 4), 1, &self.each(|_| root), |_, places| {
            let next = places.iter().enumerate().map(|(v, &place)| {
                let mut offset = block.gather(Ty::I32, nodes, place);
                let limit = block.gather(Ty::F32, nodes.at(4), place);
                let flagged = offset.cmp(CmpOp::Lt, b.zero(ints));
                if self.nan_left {
                    offset = offset & b.int(ints, i128::from(!NAN_LEFT as i32));
                }
                let at = block.features.at(4 * Trees::lanes(ev) * v as i64);
                let x = b.gather(Ty::vector(Prim::F32, ev.lanes()), at, offset + lane, 1, block.every_lane(), false);
                let mut left = x.cmp(CmpOp::Le, limit);
                if self.nan_left {
                    left = left | (x.cmp(CmpOp::Ne, x) & flagged);
                }
                let side = left.select(b.zero(ints), b.int(ints, 1));
                block.gather(Ty::I32, nodes.at(8), place + side)
            });
            next.collect()
        });
        places.into_iter().map(|place| block.gather(Ty::F32, nodes.at(4), place)).collect()
    }
}

impl<'b> Block<'_, '_, 'b> {
    /// An index in the table.
    fn index(&self, record: V<'b>, at: i64) -> V<'b> {
        self.ev.b.load_invariant(Ty::I32, record, at).sext(Prim::I64)
    }

    /// A number of the table in every lane.
    fn float(&self, record: V<'b>, at: i64) -> V<'b> {
        self.ev.b.load_invariant(Ty::F32, record, at).splat(self.ev.lanes())
    }

    /// The feature at an offset of the `v`-th vector of rows.
    fn feature(&self, offset: V<'b>, v: i64) -> V<'b> {
        let ty = Ty::vector(Prim::F32, self.ev.lanes());
        self.ev.b.load(ty, self.features.index(offset, 1), 4 * Trees::lanes(self.ev) * v)
    }

    fn every_lane(&self) -> V<'b> {
        self.ev.b.int(Ty::vector(Prim::Bool, self.ev.lanes()), 1)
    }

    /// Words of the table, by a number for each lane.
    fn gather(&self, ty: Ty, base: V<'b>, index: V<'b>) -> V<'b> {
        self.ev.b.gather(Ty::vector(ty.prim, self.ev.lanes()), base, index, 4, self.every_lane(), true)
    }
}
