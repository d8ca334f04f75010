//! A binary tree-LSTM: the sense of a sentence from its words, up its parse tree.
//!
//! The trees of a batch go through the network together, level by level: all leaves, then all nodes above leaves, and so
//! on. How many nodes a level has is known when the program is written; which ones they stand on are inputs.

use crate::nn::{Module, Values};
use crate::recurrent::parts;
use crate::{Error, Result, random};
use quearn::Tensors;
use quearn::data::Tensor;
use quearn_stage::rep::{I64, Rep, Stage, Tensor as Marker};

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct TreeLstm {
    /// Words.
    pub vocabulary: u64,
    /// Numbers that stand for a word.
    pub width: u64,
    /// Numbers of a state.
    pub hidden: u64,
    /// Classes that it tells apart.
    pub classes: u64,
}

/// The usual size.
pub const TREELSTM: TreeLstm = TreeLstm { vocabulary: 10000, width: 300, hidden: 150, classes: 5 };
/// A version with few weights, for tests.
pub const TINY: TreeLstm = TreeLstm { vocabulary: 50, width: 12, hidden: 10, classes: 3 };

/// The nodes of a level: for each the places of its children among all nodes of the levels below it.
#[derive(Clone, Copy)]
pub struct Level<'s> {
    /// Left children [n].
    pub left: Rep<'s, Marker<I64>>,
    /// Right children [n].
    pub right: Rep<'s, Marker<I64>>,
}

/// Output and memory of nodes, [n, hidden] each.
#[derive(Clone, Copy)]
struct State<'s> {
    output: Values<'s>,
    memory: Values<'s>,
}

impl TreeLstm {
    /// Logits [trees, classes] of trees with the leaves `words` [n], and roots at the places `roots` [trees].
    #[track_caller]
    pub fn logits<'s>(
        &self,
        s: &'s Stage,
        words: Rep<'s, Marker<I64>>,
        levels: &[Level<'s>],
        roots: Rep<'s, Marker<I64>>,
    ) -> Values<'s> {
        let m = Module::root(s);
        let words = m.at("embedding").embedding(words, self.vocabulary, self.width);
        let [i, o, u] = parts(s, m.at("leaf").linear(words, 3 * self.hidden));
        let leaves = state(i.sigmoid() * u.tanh(), o);
        let all = levels.iter().fold(leaves, |below, level| {
            let [left, right] = [level.left, level.right]
                .map(|child| State { output: below.output.gather(child), memory: below.memory.gather(child) });
            let gates = m.at("node").linear(left.output.concat([right.output], 1), 5 * self.hidden);
            let [i, o, u, fl, fr] = parts(s, gates);
            let kept = fl.sigmoid() * left.memory + fr.sigmoid() * right.memory;
            let nodes = state(i.sigmoid() * u.tanh() + kept, o);
            State { output: below.output.concat([nodes.output], 0), memory: below.memory.concat([nodes.memory], 0) }
        });
        m.at("out").linear(all.output.gather(roots), self.classes)
    }

    /// As [`TreeLstm::logits`], with inputs of these shapes under the names that [`plan`] gives them.
    #[track_caller]
    pub fn planned<'s>(&self, s: &'s Stage, inputs: &Tensors) -> Values<'s> {
        let input = |name: &str| {
            let shape = inputs.get(name).map_or(vec![], |tensor| tensor.shape().to_vec());
            s.input::<I64>(name, shape)
        };
        self.named(s, (0..).take_while(|level| inputs.contains_key(&left(*level))).count(), input)
    }

    /// As [`TreeLstm::logits`], of what `input` gives for the names of a [`plan`] with so many levels above the leaves.
    #[track_caller]
    pub fn named<'s>(&self, s: &'s Stage, levels: usize, input: impl Fn(&str) -> Rep<'s, Marker<I64>>) -> Values<'s> {
        let levels: Vec<_> =
            (0..levels).map(|level| Level { left: input(&left(level)), right: input(&right(level)) }).collect();
        self.logits(s, input(WORDS), &levels, input(ROOTS))
    }
}

#[track_caller]
fn state<'s>(memory: Values<'s>, gate: Values<'s>) -> State<'s> {
    State { output: gate.sigmoid() * memory.tanh(), memory }
}

/// Name of the words of the leaves.
const WORDS: &str = "words";
/// Name of the places of the roots.
const ROOTS: &str = "roots";

fn left(level: usize) -> String {
    format!("left.{level}")
}

fn right(level: usize) -> String {
    format!("right.{level}")
}

/// Trees in post-order, one behind the other.
#[derive(Clone, Default, Debug)]
pub struct Trees {
    /// Where each tree begins, and where the last ends.
    pub offsets: Vec<i32>,
    /// For each node its left child, counted from the beginning of its tree; negative for a leaf.
    pub left: Vec<i32>,
    /// The same of right children.
    pub right: Vec<i32>,
    /// For each leaf its word.
    pub word: Vec<i32>,
}

/// Most leaves of a seeded tree, and one more.
const SEEDED_LEAVES: i64 = 12;

impl Trees {
    /// The trees in the tensors of a file.
    pub fn read(file: &Tensors) -> Result<Trees> {
        let take = |name: &str| -> Result<Vec<i32>> {
            let found = file.get(name).ok_or_else(|| Error::wrong("trees", format!("there is no tensor {name:?}")))?;
            Ok(found.as_slice::<i32>()?.to_vec())
        };
        Ok(Trees { offsets: take("tree_offsets")?, left: take("left")?, right: take("right")?, word: take("word")? })
    }

    /// `count` trees from the streams `NETWORK.leaves`, `NETWORK.split` and `NETWORK.word`: as many leaves as the first
    /// says, divided at each node by the next value of the second, with the next words of the third.
    pub fn seeded(network: &str, count: usize, vocabulary: u64) -> Trees {
        let mut trees = Trees { offsets: vec![0], ..Trees::default() };
        let mut grower = Grower {
            split: random::Stream::new(&format!("{network}.split")),
            word: random::Stream::new(&format!("{network}.word")),
            splits: 0,
            words: 0,
            vocabulary: vocabulary as i64,
        };
        for leaves in random::ints(&format!("{network}.leaves"), count, 1, SEEDED_LEAVES) {
            let first = trees.left.len();
            grower.grow(&mut trees, first, leaves);
            trees.offsets.push(trees.left.len() as i32);
        }
        trees
    }
}

impl Trees {
    /// How many trees there are.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Trees that lie as they should, in parts of `count`, of which the last may have less.
    pub(crate) fn chunks(&self, count: usize) -> impl Iterator<Item = Trees> {
        let part = move |first: usize| {
            let offsets = &self.offsets[first..=self.len().min(first + count)];
            let nodes = offsets[0] as usize..offsets[offsets.len() - 1] as usize;
            let of = |values: &[i32]| values[nodes.clone()].to_vec();
            Trees {
                offsets: offsets.iter().map(|at| at - offsets[0]).collect(),
                left: of(&self.left),
                right: of(&self.right),
                word: of(&self.word),
            }
        };
        (0..self.len()).step_by(count.max(1)).map(part)
    }
}

/// How far the streams of seeded trees have been read.
struct Grower {
    split: random::Stream,
    word: random::Stream,
    splits: u64,
    words: u64,
    vocabulary: i64,
}

impl Grower {
    /// Adds a tree of so many leaves to the one that begins at `first`; gives its root.
    fn grow(&mut self, trees: &mut Trees, first: usize, leaves: i64) -> i32 {
        let (left, right, word) = if leaves == 1 {
            self.words += 1;
            (-1, -1, self.word.int(self.words - 1, 0, self.vocabulary) as i32)
        } else {
            self.splits += 1;
            let on_the_left = self.split.int(self.splits - 1, 1, leaves);
            let left = self.grow(trees, first, on_the_left);
            (left, self.grow(trees, first, leaves - on_the_left), -1)
        };
        trees.left.push(left);
        trees.right.push(right);
        trees.word.push(word);
        (trees.left.len() - first - 1) as i32
    }
}

/// The inputs of the program for trees: leaves come first, then the nodes above them, level by level.
///
/// # Errors
/// The trees are none.
pub fn plan(trees: &Trees) -> Result<Tensors> {
    Planned::of(trees)?.inputs(&extents(trees)?)
}

/// As [`plan`], with levels of these extents, so that one program serves trees of many shapes: what is behind the nodes of a
/// level stands on the first leaf, and no root stands on it.
///
/// # Errors
/// The trees are none, or have more levels, or more nodes in one.
pub fn padded(trees: &Trees, extents: &[usize]) -> Result<Tensors> {
    Planned::of(trees)?.inputs(extents)
}

/// How many nodes each level has, leaves first.
///
/// # Errors
/// The trees are none.
pub fn extents(trees: &Trees) -> Result<Vec<usize>> {
    Ok(Planned::of(trees)?.levels.iter().map(Vec::len).collect())
}

/// The nodes of trees by level.
struct Planned<'t> {
    trees: &'t Trees,
    /// The children of each node; of a leaf they mean nothing.
    children: Vec<[usize; 2]>,
    levels: Vec<Vec<usize>>,
    roots: Vec<usize>,
}

impl Planned<'_> {
    fn of(trees: &Trees) -> Result<Planned<'_>> {
        let count = trees.left.len();
        if trees.right.len() != count || trees.word.len() != count {
            return Err(wrong("left, right and word must have as many elements".into()));
        }
        let mut planned = Planned { trees, children: vec![], levels: vec![vec![]], roots: vec![] };
        let mut heights: Vec<usize> = vec![];
        for tree in trees.offsets.windows(2) {
            let (first, end) = (heights.len(), tree[1]);
            if tree[0] != first as i32 || end <= tree[0] || end as usize > count {
                return Err(wrong(format!("no tree can lie at {tree:?}")));
            }
            for node in first..end as usize {
                let [left, right] = planned.node(first, node)?;
                let height = if trees.left[node] < 0 { 0 } else { 1 + heights[left].max(heights[right]) };
                heights.push(height);
                planned.children.push([left, right]);
                planned.levels.resize(planned.levels.len().max(height + 1), vec![]);
                planned.levels[height].push(node);
            }
            planned.roots.push(end as usize - 1);
        }
        Ok(planned)
    }

    /// The children of a node of the tree that begins at `first`.
    fn node(&self, first: usize, node: usize) -> Result<[usize; 2]> {
        if self.trees.left[node] < 0 {
            return Ok([0; 2]);
        }
        let child = |to: i32| usize::try_from(to).ok().map(|to| first + to).filter(|to| *to < node);
        match (child(self.trees.left[node]), child(self.trees.right[node])) {
            (Some(left), Some(right)) => Ok([left, right]),
            _ => Err(wrong(format!("node {node} does not come after its children"))),
        }
    }

    fn inputs(&self, extents: &[usize]) -> Result<Tensors> {
        let sizes: Vec<usize> = self.levels.iter().map(Vec::len).collect();
        if sizes.len() > extents.len() || sizes.iter().zip(extents).any(|(size, extent)| size > extent) {
            return Err(wrong(format!("levels of {sizes:?} nodes do not fit into {extents:?}")));
        }
        let mut places = vec![0i64; self.children.len()];
        let mut first = 0;
        for (level, extent) in self.levels.iter().zip(extents) {
            level.iter().zip(first..).for_each(|(node, place)| places[*node] = place);
            first += *extent as i64;
        }
        let mut inputs = Tensors::new();
        let mut insert = |name: String, mut values: Vec<i64>, extent: usize| -> Result<()> {
            values.resize(extent, 0);
            inputs.insert(name, Tensor::from_vec(values, &[extent as u64])?);
            Ok(())
        };
        insert(WORDS.to_owned(), self.levels[0].iter().map(|n| self.trees.word[*n].into()).collect(), extents[0])?;
        insert(ROOTS.to_owned(), self.roots.iter().map(|n| places[*n]).collect(), self.roots.len())?;
        for (level, &extent) in extents.iter().enumerate().skip(1) {
            let nodes = self.levels.get(level).map_or(&[][..], Vec::as_slice);
            let of = |which: usize| nodes.iter().map(|n| places[self.children[*n][which]]).collect();
            insert(left(level - 1), of(0), extent)?;
            insert(right(level - 1), of(1), extent)?;
        }
        Ok(inputs)
    }
}

fn wrong(message: String) -> Error {
    Error::wrong("trees", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trees(offsets: &[i32], left: &[i32], right: &[i32]) -> Trees {
        let [offsets, left, right] = [offsets, left, right].map(<[i32]>::to_vec);
        Trees { offsets, word: (0..left.len() as i32).collect(), left, right }
    }

    #[test]
    fn levels_stand_on_those_below() {
        // ((0 1) 3) and a leaf.
        let plan = plan(&trees(&[0, 5, 6], &[-1, -1, 0, -1, 2, -1], &[-1, -1, 1, -1, 3, -1])).unwrap();
        let values = |name: &str| plan[name].as_slice::<i64>().unwrap().to_vec();
        assert_eq!(values("words"), [0, 1, 3, 5]);
        assert_eq!([values("left.0"), values("right.0")], [[0], [1]]);
        assert_eq!([values("left.1"), values("right.1")], [[4], [2]]);
        assert_eq!(values("roots"), [5, 3]);
        assert_eq!(plan.len(), 6);
    }

    #[test]
    fn levels_can_have_room() {
        let trees = trees(&[0, 5, 6], &[-1, -1, 0, -1, 2, -1], &[-1, -1, 1, -1, 3, -1]);
        assert_eq!(extents(&trees).unwrap(), [4, 1, 1]);
        let plan = padded(&trees, &[6, 2, 1, 1]).unwrap();
        let values = |name: &str| plan[name].as_slice::<i64>().unwrap().to_vec();
        assert_eq!(values("words"), [0, 1, 3, 5, 0, 0]);
        assert_eq!([values("left.0"), values("right.0")], [[0, 0], [1, 0]]);
        assert_eq!([values("left.1"), values("right.1"), values("left.2")], [[6], [2], [0]]);
        assert_eq!(values("roots"), [8, 3]);
        let small = padded(&trees, &[6, 0, 1]).unwrap_err().to_string();
        assert_eq!(small, "trees: levels of [4, 1, 1] nodes do not fit into [6, 0, 1]");
    }

    #[test]
    fn trees_that_are_none_are_refused() {
        let problem = |trees: &Trees| plan(trees).unwrap_err().to_string();
        let loops = problem(&trees(&[0, 2], &[-1, 1], &[-1, 0]));
        assert_eq!(loops, "trees: node 1 does not come after its children");
        assert_eq!(problem(&trees(&[0, 3], &[-1], &[-1])), "trees: no tree can lie at [0, 3]");
        assert_eq!(problem(&trees(&[0, 1], &[-1], &[])), "trees: left, right and word must have as many elements");
    }

    #[test]
    fn seeded_trees_are_trees() {
        let trees = Trees::seeded("test", 20, 50);
        assert_eq!(trees.len(), 20);
        let parts: Vec<Trees> = trees.chunks(8).collect();
        assert_eq!(parts.iter().map(Trees::len).collect::<Vec<_>>(), [8, 8, 4]);
        assert_eq!(plan(&parts[2]).unwrap()["roots"].shape(), [4]);
        assert_eq!(plan(&trees).unwrap()["roots"].shape(), [20]);
    }
}
