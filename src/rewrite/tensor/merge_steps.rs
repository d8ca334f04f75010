//! Steps that do the same as other steps, of which these keep more, are these: their values are taken from there.
//!
//! Reason: derivatives take the steps of a network once more to keep what is carried before each of them. One walk does
//! for both.
//!
//! Preconditions: the same operands, and bodies that agree in all results of the smaller one. Equal: the walks do the same.

use crate::rewrite::Patch;
use quearn_stage::graph::{Graph, Node, Op, Region, Steps, Ty};
use std::collections::HashMap;

/// All steps that are contained in others.
pub fn merge_steps(graph: &Graph) -> Option<Patch> {
    let nodes = graph.reachable();
    let walks: Vec<(Node, &Steps)> = nodes
        .iter()
        .filter_map(|&node| match graph.op(node) {
            Op::Steps(steps) => Some((node, steps)),
            _ => None,
        })
        .collect();
    let mut patch = Patch::new(graph);
    for &(small, steps) in &walks {
        let found = walks.iter().find(|(large, other)| contains(graph, (*large, other), (small, steps)));
        let Some(&(large, _)) = found else { continue };
        if !matches!(graph.ty(small), Ty::Tuple(_)) {
            let value = patch.add(Op::Item(0), &[large]);
            patch = patch.replace(small, value);
            continue;
        }
        for &node in &nodes {
            if let (Op::Item(i), true) = (graph.op(node), graph.inputs(node) == [small]) {
                let value = patch.add(Op::Item(*i), &[large]);
                patch = patch.replace(node, value);
            }
        }
    }
    (!patch.is_empty()).then_some(patch)
}

/// Does the larger walk do what the smaller one does, and keep more?
fn contains(graph: &Graph, (large, a): (Node, &Steps), (small, b): (Node, &Steps)) -> bool {
    let attributes = |s: &Steps| (s.count, s.carried, s.axis, s.back);
    large != small
        && a.region.results.len() > b.region.results.len()
        && attributes(a) == attributes(b)
        && graph.inputs(large) == graph.inputs(small)
        && agree(graph, &a.region, &b.region)
}

/// Do the results of two regions agree, as far as the second one has any?
fn agree(graph: &Graph, a: &Region, b: &Region) -> bool {
    let mut same: HashMap<(Node, Node), bool> =
        a.params.iter().zip(&b.params).map(|(a, b)| ((*a, *b), graph.ty(*a) == graph.ty(*b))).collect();
    a.results.iter().zip(&b.results).all(|(a, b)| equal(graph, (*a, *b), &mut same))
}

/// Are two nodes equal where parameters of one region stand for those of the other?
fn equal(graph: &Graph, root: (Node, Node), same: &mut HashMap<(Node, Node), bool>) -> bool {
    let mut stack = vec![(root, false)];
    while let Some((pair, ready)) = stack.pop() {
        if same.contains_key(&pair) {
            continue;
        }
        let (a, b) = pair;
        let (left, right) = (graph.inputs(a), graph.inputs(b));
        let alike = a == b || graph.op(a) == graph.op(b) && left.len() == right.len() && !left.is_empty();
        if a == b || !alike || graph.op(a).region().is_some() {
            same.insert(pair, a == b);
        } else if ready {
            let all = left.iter().zip(right).all(|(a, b)| same.get(&(*a, *b)) == Some(&true));
            same.insert(pair, all);
        } else {
            stack.push((pair, true));
            stack.extend(left.iter().zip(right).map(|(a, b)| ((*a, *b), false)));
        }
    }
    same.get(&root) == Some(&true)
}
