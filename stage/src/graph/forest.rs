//! Decision trees whose leaves are summed up: the attribute of [`Op::TreeEnsemble`](super::Op::TreeEnsemble).

use std::fmt;

/// A float by its bits, so that equal attributes are equal nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bits(u32);

impl Bits {
    /// The float.
    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl From<f32> for Bits {
    fn from(value: f32) -> Bits {
        Bits(value.to_bits())
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.get())
    }
}

/// What a split asks of a row: is the feature at most the limit? Then the row goes left, else right.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Split {
    /// Column of the features.
    pub feature: u32,
    /// The most that goes left.
    pub limit: Bits,
    /// Does NaN go left, too? Else it goes right, as the comparison has it.
    pub nan_left: bool,
}

impl Split {
    /// A split at which NaN goes right.
    pub fn new(feature: u32, limit: f32) -> Split {
        Split { feature, limit: limit.into(), nan_left: false }
    }

    /// Does a row with this feature go left?
    pub fn is_left(&self, feature: f32) -> bool {
        feature <= self.limit.get() || self.nan_left && feature.is_nan()
    }
}

/// A place in a tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TreeNode {
    /// Its left child is the next node, `right` the position of its right child.
    Split {
        /// What is asked.
        split: Split,
        /// Position of the right child.
        right: u32,
    },
    /// What the tree adds for a row that comes here.
    Leaf(Bits),
}

/// A tree, its nodes in preorder.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tree {
    /// The output that it adds to.
    pub output: u32,
    nodes: Vec<TreeNode>,
}

/// A step of a tree that is written in preorder.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step {
    /// A split; what is left of it follows, then what is right.
    Split(Split),
    /// A leaf.
    Leaf(f32),
}

impl Tree {
    /// The tree that the steps write down; `None` if they end too early or too late.
    pub fn new(output: u32, steps: impl IntoIterator<Item = Step>) -> Option<Tree> {
        let mut writer = TreeWriter::default();
        let mut steps = steps.into_iter();
        while !writer.is_complete() {
            writer.push(steps.next()?);
        }
        let nodes = writer.nodes;
        steps.next().is_none().then_some(Tree { output, nodes })
    }

    /// The nodes; the first one is the root.
    pub fn nodes(&self) -> &[TreeNode] {
        &self.nodes
    }

    /// The splits.
    pub fn splits(&self) -> impl Iterator<Item = &Split> {
        self.nodes.iter().filter_map(|node| match node {
            TreeNode::Split { split, .. } => Some(split),
            TreeNode::Leaf(_) => None,
        })
    }

    /// The values of the leaves, from left to right.
    pub fn leaves(&self) -> impl Iterator<Item = f32> {
        self.nodes.iter().filter_map(|node| match node {
            TreeNode::Leaf(value) => Some(value.get()),
            TreeNode::Split { .. } => None,
        })
    }

    /// For each node, how many splits lie above it.
    pub fn levels(&self) -> Vec<u32> {
        let mut levels = vec![0; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            if let TreeNode::Split { right, .. } = node {
                levels[at + 1] = levels[at] + 1;
                levels[*right as usize] = levels[at] + 1;
            }
        }
        levels
    }

    /// The most splits on the way to a leaf.
    pub fn depth(&self) -> u32 {
        self.levels().into_iter().max().unwrap_or(0)
    }

    /// The leaf that a row comes to.
    pub fn value(&self, feature: impl Fn(u32) -> f32) -> f32 {
        let mut at = 0;
        loop {
            match &self.nodes[at] {
                TreeNode::Leaf(value) => return value.get(),
                TreeNode::Split { split, .. } if split.is_left(feature(split.feature)) => at += 1,
                TreeNode::Split { right, .. } => at = *right as usize,
            }
        }
    }
}

/// Writes down a tree step by step.
#[derive(Default)]
pub struct TreeWriter {
    nodes: Vec<TreeNode>,
    /// Splits whose right side has not begun.
    open: Vec<usize>,
    complete: bool,
}

impl TreeWriter {
    /// Is the tree complete?
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The next step; nothing follows a complete tree.
    pub fn push(&mut self, step: Step) {
        match step {
            _ if self.complete => {}
            Step::Split(split) => {
                self.open.push(self.nodes.len());
                self.nodes.push(TreeNode::Split { split, right: 0 });
            }
            Step::Leaf(value) => {
                self.nodes.push(TreeNode::Leaf(value.into()));
                let next = self.nodes.len() as u32;
                match self.open.pop().map(|at| &mut self.nodes[at]) {
                    Some(TreeNode::Split { right, .. }) => *right = next,
                    _ => self.complete = true,
                }
            }
        }
    }

    /// The tree, if it is complete.
    pub fn finish(self, output: u32) -> Option<Tree> {
        self.complete.then_some(Tree { output, nodes: self.nodes })
    }
}

/// Trees over the same features. For each output a row gets its base, and then, in the order of the trees, what each tree
/// of this output adds, in sums of f32.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Forest {
    /// Number of features.
    pub features: u32,
    /// What each output begins with.
    pub base: Vec<Bits>,
    /// The trees.
    pub trees: Vec<Tree>,
}

impl Forest {
    /// A forest without trees.
    pub fn new(features: u32, base: impl IntoIterator<Item = f32>) -> Forest {
        Forest { features, base: base.into_iter().map(Bits::from).collect(), trees: vec![] }
    }

    /// With another tree.
    pub fn with(mut self, tree: Tree) -> Forest {
        self.trees.push(tree);
        self
    }

    /// The features that some split asks for, ascending.
    pub fn used(&self) -> Vec<u32> {
        let mut used: Vec<u32> = self.trees.iter().flat_map(Tree::splits).map(|split| split.feature).collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// What is wrong with it: a feature or an output that there is not, or a number that is none.
    pub fn fault(&self) -> Option<String> {
        if let Some(tree) = self.trees.iter().position(|tree| tree.output as usize >= self.base.len()) {
            let output = self.trees[tree].output;
            return Some(format!("tree {tree} adds to output {output}, of {} outputs", self.base.len()));
        }
        if self.base.iter().any(|base| base.get().is_nan()) {
            return Some("a base is NaN".to_owned());
        }
        self.trees.iter().enumerate().find_map(|(at, tree)| {
            let feature = tree.splits().map(|split| split.feature).find(|&feature| feature >= self.features);
            let unknown = feature.map(|f| format!("tree {at} asks for feature {f}, of {} features", self.features));
            let limits = tree.splits().map(|split| split.limit.get());
            let nan = limits.chain(tree.leaves()).any(f32::is_nan);
            unknown.or_else(|| nan.then(|| format!("a limit or leaf of tree {at} is NaN")))
        })
    }
}

impl fmt::Display for Forest {
    /// The text form: features, base, and each tree as its output and its steps, a split as `x3 <= 0.5`, with `<=?` where
    /// NaN goes left.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "features {} base {:?} trees [", self.features, self.base)?;
        for (i, tree) in self.trees.iter().enumerate() {
            write!(f, "{}{}:", if i > 0 { ", " } else { "" }, tree.output)?;
            for node in &tree.nodes {
                match node {
                    TreeNode::Leaf(value) => write!(f, " {value:?}")?,
                    TreeNode::Split { split, .. } => {
                        let order = if split.nan_left { "<=?" } else { "<=" };
                        write!(f, " x{} {order} {:?}", split.feature, split.limit)?;
                    }
                }
            }
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(feature: u32, limit: f32) -> Step {
        Step::Split(Split::new(feature, limit))
    }

    #[test]
    fn rows_find_their_leaves() {
        let steps = [split(0, 1.0), split(1, 2.0), Step::Leaf(10.0), Step::Leaf(20.0), Step::Leaf(30.0)];
        let tree = Tree::new(0, steps).unwrap();
        let value = |row: [f32; 2]| tree.value(|feature| row[feature as usize]);
        assert_eq!([[1.0, 2.0], [1.0, 2.5], [1.5, 0.0], [f32::NAN, 0.0]].map(value), [10.0, 20.0, 30.0, 30.0]);
        assert_eq!((tree.depth(), tree.levels()), (2, vec![0, 1, 2, 2, 1]));
    }

    #[test]
    fn steps_that_are_no_tree() {
        assert_eq!(Tree::new(0, []), None);
        assert_eq!(Tree::new(0, [split(0, 1.0), Step::Leaf(1.0)]), None);
        assert_eq!(Tree::new(0, [Step::Leaf(1.0), Step::Leaf(1.0)]), None);
    }

    #[test]
    fn faults_are_named() {
        let forest = |tree| Forest::new(2, [0.0]).with(tree);
        let leaf = |output, value| Tree::new(output, [Step::Leaf(value)]).unwrap();
        assert_eq!(forest(leaf(1, 0.0)).fault().unwrap(), "tree 0 adds to output 1, of 1 outputs");
        assert_eq!(forest(leaf(0, f32::NAN)).fault().unwrap(), "a limit or leaf of tree 0 is NaN");
        let tree = Tree::new(0, [split(2, 1.0), Step::Leaf(0.0), Step::Leaf(1.0)]).unwrap();
        assert_eq!(forest(tree).fault().unwrap(), "tree 0 asks for feature 2, of 2 features");
    }
}
