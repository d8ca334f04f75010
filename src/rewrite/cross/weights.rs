//! Weights of layers in parts.

use crate::rewrite::Patch;
use quearn_stage::graph::{Node, Op};

/// Rows of a matrix of weights, in ascending order, as a matrix of their own.
pub fn chosen_rows(patch: &mut Patch, weights: Node, rows: &[usize]) -> Node {
    let mut runs: Vec<(u64, u64)> = vec![];
    for &row in rows {
        match runs.last_mut() {
            Some((start, count)) if *start + *count == row as u64 => *count += 1,
            _ => runs.push((row as u64, 1)),
        }
    }
    let slice = |&(start, count): &(u64, u64)| patch.add(Op::Slice { axis: 0, start, step: 1, count }, &[weights]);
    let slices: Vec<Node> = runs.iter().map(slice).collect();
    match slices[..] {
        [one] => one,
        _ => patch.add(Op::Concat { axis: 0 }, &slices),
    }
}
