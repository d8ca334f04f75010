//! What the trees that are left can add to the sum of a row: bounds for each cell of a grid over a few features.
//!
//! Bounds over all leaves of all trees are wide: no row has the greatest leaf of every tree. Which leaves a row can come to is
//! narrowed down by the features that matter most: their values are put in bins, and for each combination of bins (a cell) the
//! least and the greatest leaf that is possible in it are added up over the trees. A cell takes some comparisons to find, as many
//! as one tree or two.

use quearn_stage::graph::{Forest, Tree, TreeNode};

/// The most cells.
const CELLS: usize = 2048;
/// The most features of a grid.
const AXES: usize = 4;

/// A feature in bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Which one.
    pub feature: u32,
    /// Limits between the bins, ascending: a value is in the bin of as many limits as it is not at most; NaN in the last.
    pub limits: Vec<f32>,
}

impl Axis {
    fn bins(&self) -> usize {
        self.limits.len() + 1
    }

    /// The bins in which values at most `limit` can be, and those in which others can be.
    fn sides(&self, limit: f32) -> [(usize, usize); 2] {
        let bin = self.limits.partition_point(|&between| between < limit);
        let right = bin + usize::from(self.limits.get(bin) == Some(&limit));
        [(0, bin + 1), (right, self.bins())]
    }
}

/// Bounds of what trees add.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Bins of features; a cell is numbered by them, the first one outermost.
    pub axes: Vec<Axis>,
    /// For each cell, and each number of trees that are done, the least and the most that the others add; rounded so that
    /// comparisons in f32 of what this makes of a sum are right.
    pub bounds: Vec<[f32; 2]>,
}

impl Grid {
    /// The grid of a forest of one output, with bounds after each number of `done` trees (ascending, all of them last). `None`
    /// if sums are not finite numbers for certain.
    pub fn new(forest: &Forest, done: &[usize]) -> Option<Grid> {
        let greatest = |tree: &Tree| tree.leaves().map(|leaf| f64::from(leaf.abs())).fold(0.0, f64::max);
        let base = f64::from(forest.base.first()?.get().abs());
        let most = forest.trees.iter().map(greatest).sum::<f64>() + base;
        // Limits and leaves that are no numbers have no place in an order: `max` passes over them.
        let is_ordered =
            |tree: &Tree| !tree.leaves().any(f32::is_nan) && tree.splits().all(|s| !s.limit.get().is_nan());
        if !forest.trees.iter().all(is_ordered) || !most.is_finite() || most > f64::from(f32::MAX) / 4.0 {
            return None;
        }
        // Each addition of f32 is off by half a unit in the last place of the sum at most.
        let margin = (forest.trees.len() + 4) as f64 * f64::from(f32::EPSILON) * most;
        let axes = axes(forest);
        let cells: usize = axes.iter().map(Axis::bins).product();
        let (mut rest, mut bounds) = (vec![[0.0f64; 2]; cells], vec![[0.0f32; 2]; cells * done.len()]);
        for (at, tree) in forest.trees.iter().enumerate().rev() {
            for (all, [low, high]) in rest.iter_mut().zip(leaves_by_cell(tree, &axes, cells)) {
                *all = [all[0] + low, all[1] + high];
            }
            if let Some(check) = done.iter().position(|&done| done == at) {
                for (cell, [low, high]) in rest.iter().enumerate() {
                    let outwards = [((low - margin) as f32).next_down(), ((high + margin) as f32).next_up()];
                    bounds[cell * done.len() + check] = outwards;
                }
            }
        }
        Some(Grid { axes, bounds })
    }
}

/// The features that move sums most, in bins; more bins the more they do.
fn axes(forest: &Forest) -> Vec<Axis> {
    let mut weights = vec![0.0; forest.features as usize];
    forest.trees.iter().for_each(|tree| weigh(tree, &mut weights));
    let splits = || forest.trees.iter().flat_map(Tree::splits);
    // NaN is in the last bin, as if it went right everywhere.
    splits().filter(|split| split.nan_left).for_each(|split| weights[split.feature as usize] = 0.0);
    let mut order: Vec<usize> = (0..weights.len()).filter(|&feature| weights[feature] > 0.0).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    order.truncate(AXES);
    let limits = |feature: usize| {
        let mut limits: Vec<f32> = splits().filter(|s| s.feature as usize == feature).map(|s| s.limit.get()).collect();
        limits.sort_by(f32::total_cmp);
        limits
    };
    let all: Vec<Vec<f32>> = order.iter().map(|&feature| limits(feature)).collect();
    let mut bins = vec![1; order.len()];
    loop {
        let room = |at: usize| {
            let cells: usize = bins.iter().enumerate().map(|(i, bins)| bins + usize::from(i == at)).product();
            cells <= CELLS && bins[at] <= all[at].len()
        };
        let weight = |at: usize| weights[order[at]] / bins[at] as f64;
        let Some(next) = (0..bins.len()).filter(|&at| room(at)).max_by(|&a, &b| weight(a).total_cmp(&weight(b))) else {
            break;
        };
        bins[next] += 1;
    }
    let axis = |((&feature, all), &bins): ((&usize, &Vec<f32>), &usize)| {
        let mut limits: Vec<f32> = (1..bins).map(|bin| all[bin * all.len() / bins]).collect();
        limits.dedup();
        Axis { feature: feature as u32, limits }
    };
    // The one with most bins innermost: its cells are neighbours.
    order.iter().zip(&all).zip(&bins).map(axis).filter(|axis| !axis.limits.is_empty()).rev().collect()
}

/// Adds to the weight of each feature how far apart the sides of its splits are.
fn weigh(tree: &Tree, weights: &mut [f64]) {
    let nodes = tree.nodes();
    let mut ranges = vec![[0.0f64; 2]; nodes.len()];
    for (at, node) in nodes.iter().enumerate().rev() {
        ranges[at] = match node {
            TreeNode::Leaf(value) => [f64::from(value.get()); 2],
            TreeNode::Split { split, right } => {
                let [left, right] = [ranges[at + 1], ranges[*right as usize]];
                weights[split.feature as usize] += (left[0] + left[1] - right[0] - right[1]).abs();
                [left[0].min(right[0]), left[1].max(right[1])]
            }
        };
    }
}

/// The least and the greatest leaf of the rows of each cell.
fn leaves_by_cell(tree: &Tree, axes: &[Axis], cells: usize) -> Vec<[f64; 2]> {
    let mut found = vec![[f64::INFINITY, f64::NEG_INFINITY]; cells];
    let mut stack = vec![(0, axes.iter().map(|axis| (0, axis.bins())).collect::<Vec<_>>())];
    while let Some((at, bins)) = stack.pop() {
        match &tree.nodes()[at] {
            TreeNode::Leaf(value) => widen(&mut found, axes, &bins, value.get().into()),
            TreeNode::Split { split, right } => {
                let axis = axes.iter().position(|axis| axis.feature == split.feature);
                let sides = axis.map(|axis| axes[axis].sides(split.limit.get()));
                for (side, next) in [at + 1, *right as usize].into_iter().enumerate() {
                    let mut bins = bins.clone();
                    if let (Some(axis), Some(sides)) = (axis, sides) {
                        bins[axis] = (bins[axis].0.max(sides[side].0), bins[axis].1.min(sides[side].1));
                    }
                    if bins.iter().all(|(from, to)| from < to) {
                        stack.push((next, bins));
                    }
                }
            }
        }
    }
    found
}

/// Widens the ranges of the cells in these bins of each axis, so that a value is inside.
fn widen(found: &mut [[f64; 2]], axes: &[Axis], bins: &[(usize, usize)], value: f64) {
    let ([axis, axes @ ..], [(from, to), bins @ ..]) = (axes, bins) else {
        return found.iter_mut().for_each(|[low, high]| (*low, *high) = (low.min(value), high.max(value)));
    };
    let width = found.len() / axis.bins();
    match axes {
        // Neighbours.
        [] => widen(&mut found[from * width..to * width], axes, bins, value),
        _ => (*from..*to).for_each(|bin| widen(&mut found[bin * width..(bin + 1) * width], axes, bins, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quearn_stage::graph::{Split, Step};

    fn split(feature: u32, limit: f32) -> Step {
        Step::Split(Split::new(feature, limit))
    }

    fn forest() -> Forest {
        let first = [split(0, 1.0), Step::Leaf(1.0), split(0, 2.0), Step::Leaf(2.0), Step::Leaf(4.0)];
        let second = [split(1, 0.0), Step::Leaf(-1.0), split(0, 1.5), Step::Leaf(0.0), Step::Leaf(1.0)];
        let trees = [&first[..], &second].map(|steps| Tree::new(0, steps.iter().copied()).unwrap());
        trees.into_iter().fold(Forest::new(2, [0.5]), Forest::with)
    }

    #[test]
    fn cells_narrow_leaves_down() {
        let grid = Grid::new(&forest(), &[1, 2]).unwrap();
        let limits: Vec<_> = grid.axes.iter().map(|axis| (axis.feature, axis.limits.clone())).collect();
        assert_eq!(limits, [(1, vec![0.0]), (0, vec![1.0, 1.5, 2.0])]);
        let after_one: Vec<_> = grid.bounds.chunks(2).map(|cell| cell[0].map(f32::round)).collect();
        assert_eq!(after_one[..4], [[-1.0, -1.0]; 4]);
        assert_eq!(after_one[4..], [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]);
        assert!(grid.bounds.chunks(2).all(|cell| cell[1] == [0.0, 0.0]));
    }

    #[test]
    fn splits_at_limits_and_between_them() {
        let axis = Axis { feature: 0, limits: vec![1.0, 2.0] };
        assert_eq!(axis.sides(1.0), [(0, 1), (1, 3)]);
        assert_eq!(axis.sides(1.5), [(0, 2), (1, 3)]);
        assert_eq!(axis.sides(3.0), [(0, 3), (2, 3)]);
    }

    #[test]
    fn sums_that_may_overflow_have_no_bounds() {
        let tree = |leaf| Tree::new(0, [Step::Leaf(leaf)]).unwrap();
        assert_eq!(Grid::new(&Forest::new(1, [0.0]).with(tree(f32::INFINITY)), &[1]), None);
        assert_eq!(Grid::new(&Forest::new(1, [f32::MAX]), &[0]), None);
    }

    #[test]
    fn what_is_no_number_has_no_bounds() {
        assert_eq!(Grid::new(&Forest::new(1, [0.0]).with(Tree::new(0, [Step::Leaf(f32::NAN)]).unwrap()), &[1]), None);
        let steps = [split(0, f32::NAN), Step::Leaf(1.0), Step::Leaf(2.0)];
        assert_eq!(Grid::new(&Forest::new(1, [0.0]).with(Tree::new(0, steps).unwrap()), &[1]), None);
    }
}
