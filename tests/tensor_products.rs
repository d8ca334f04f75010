//! Products of matrices that lie in memory this way and that, of every extent around the edges of tiles and blocks.

mod tensor_harness;

use quearn_stage::graph::*;
use tensor_harness::maker::Maker;
use tensor_harness::{Rng, dims};

/// The extents of a product: rows, inner dimension, columns.
type Extents = [u64; 3];

/// A matrix (or a batch of them), made from one that lies the other way round if it is `turned`; `computed` if it is no input.
fn operand(m: &mut Maker, scalar: Scalar, batch: &[u64], [rows, cols]: [u64; 2], turned: bool, computed: bool) -> Node {
    let last = if turned { [cols, rows] } else { [rows, cols] };
    let shape: Vec<u64> = batch.iter().copied().chain(last).collect();
    let mut x = m.tensor(scalar, &dims(&shape), 0, false);
    if computed {
        x = m.add(Op::Unary(UnaryOp::Tanh), &[x]);
    }
    if turned {
        let n = batch.len();
        x = m.add(Op::Transpose((0..n).chain([n + 1, n]).collect()), &[x]);
    }
    x
}

/// Elementwise operations after a product: its sums may wait where the result goes, but not what is made of them.
fn epilogue(m: &mut Maker, scalar: Scalar, product: Node, shape: &[u64]) -> Node {
    let bias = m.tensor(scalar, &dims(&shape[shape.len() - 1..]), 0, false);
    let other = m.tensor(scalar, &dims(shape), 0, false);
    let sum = m.add(Op::Binary(BinaryOp::Add), &[product, bias]);
    let square = m.add(Op::Binary(BinaryOp::Mul), &[sum, sum]);
    m.add(Op::Binary(BinaryOp::Sub), &[square, other])
}

fn product(seed: u64, scalar: Scalar, batch: &[u64], [rows, depth, cols]: Extents) {
    let mut m = Maker::new(seed);
    let mut chance = |of: u64| m.r.int(1, of) == 1;
    let ([left, right], computed, ends) = ([!chance(4), chance(3)], [chance(3), chance(3)], chance(2));
    // One matrix for all, or as many as there are, of either operand.
    let shared = batch.len() > 1 && chance(3);
    let fewer: Vec<u64> =
        if shared { std::iter::once(1).chain(batch[1..].iter().copied()).collect() } else { batch.to_vec() };
    let a = operand(&mut m, scalar, batch, [rows, depth], left, computed[0]);
    let b = operand(&mut m, scalar, &fewer, [depth, cols], right, computed[1]);
    let shape: Vec<u64> = batch.iter().copied().chain([rows, cols]).collect();
    let mut outputs = vec![m.add(Op::MatMul, &[a, b])];
    if ends {
        outputs[0] = epilogue(&mut m, scalar, outputs[0], &shape);
    }
    if computed[0] {
        // What the operand is made of is wanted, too.
        outputs.push(a);
    }
    let what = format!("{scalar} {batch:?} {rows} x {depth} x {cols}, turned {left} {right}, epilogue {ends}");
    m.check(&what, &outputs, &[]);
}

#[test]
fn random_products() {
    let mut r = Rng::new(11);
    for seed in 0..36 {
        let scalar = [Scalar::F32, Scalar::F64, Scalar::F32, Scalar::F16][seed as usize % 4];
        let batch: Vec<u64> = (0..seed % 3).map(|_| r.int(1, 3)).collect();
        let mut extent = || [r.int(1, 9), r.int(10, 40), r.int(41, 80)][r.int(0, 2) as usize];
        let extents = [extent(), extent(), extent()];
        product(seed, scalar, &batch, extents);
    }
}

#[test]
fn products_of_several_blocks() {
    for (seed, depth) in [255, 256, 384, 385, 513, 770].into_iter().enumerate() {
        for (scalar, [rows, cols]) in [(Scalar::F32, [37, 21]), (Scalar::F64, [5, 60])] {
            product(seed as u64, scalar, if seed == 2 { &[2] } else { &[] }, [rows, depth, cols]);
        }
    }
}

#[test]
fn products_of_more_tiles_than_are_packed_at_a_time() {
    product(1, Scalar::F32, &[], [601, 300, 7]);
    product(2, Scalar::F32, &[], [9, 400, 301]);
}

/// A transposed value that an earlier operation computes for itself, and that a product wants in memory.
#[test]
fn operands_that_were_read_before_they_are_stored() {
    for (seed, [rows, depth, cols]) in [[40, 300, 24], [300, 40, 64], [7, 600, 20]].into_iter().enumerate() {
        for is_left in [true, false] {
            let mut m = Maker::new(700 + seed as u64);
            let lies = if is_left { [depth, rows] } else { [cols, depth] };
            let x = m.tensor(Scalar::F32, &dims(&lies), 0, false);
            let value = m.add(Op::Unary(UnaryOp::Tanh), &[x]);
            let turned = m.add(Op::Transpose(vec![1, 0]), &[value]);
            let sums = m.add(Op::Reduce { op: ReduceOp::Sum, axes: vec![1], keep: false }, &[turned]);
            let shape = if is_left { [depth, cols] } else { [rows, depth] };
            let other = m.tensor(Scalar::F32, &dims(&shape), 0, false);
            let operands = if is_left { [turned, other] } else { [other, turned] };
            let product = m.add(Op::MatMul, &operands);
            let again = m.add(Op::Unary(UnaryOp::Exp), &[turned]);
            let more = m.add(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keep: false }, &[again]);
            m.check(&format!("left {is_left}, {rows} x {depth} x {cols}"), &[sums, product, more], &[]);
        }
    }
}
