//! Weights kept in 16 bits: the same program but for the rounding of the weights.

use quearn::data::Tensor;
use quearn::prelude::*;
use quearn::rewrite::narrow_weights;
use quearn_stage::graph::{Graph, Scalar};

const K: u64 = 70;
const N: u64 = 45;

/// `x @ w.T + b`, for few rows (whose panels stay narrow) or many.
fn layer(rows: u64) -> Graph {
    let s = Stage::new();
    let x = s.input::<F32>("x", [rows, K]);
    let w = s.weight::<F32>("w", [N, K]);
    let y = x.matmul(w.transpose()) + s.weight::<F32>("b", [N]);
    s.output("y", y);
    s.finish().unwrap()
}

fn numbers(n: u64, seed: u64) -> Vec<f32> {
    let number = |i: u64| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0;
    (0..n).map(number).collect()
}

fn run(graph: &Graph, rows: u64, w: Tensor, threads: usize) -> Vec<f32> {
    let mut session = Session::builder().threads(threads).build().unwrap();
    session.bind("x", Tensor::from_vec(numbers(rows * K, 1), &[rows, K]).unwrap());
    session.bind("w", w);
    session.bind("b", Tensor::from_vec(numbers(N, 3), &[N]).unwrap());
    let outputs = session.run(graph).unwrap();
    outputs.tensor("y").unwrap().as_slice::<f32>().unwrap().to_vec()
}

#[test]
fn products_of_narrow_weights() {
    let w = Tensor::from_vec(numbers(N * K, 2), &[N, K]).unwrap();
    for rows in [1, 3, 8, 9, 40] {
        let graph = layer(rows);
        for to in [Scalar::BF16, Scalar::F16] {
            let narrow = w.narrowed(to).unwrap();
            let wide: Vec<f32> = match to {
                Scalar::BF16 => narrow.as_slice::<half::bf16>().unwrap().iter().map(|x| x.to_f32()).collect(),
                _ => narrow.as_slice::<half::f16>().unwrap().iter().map(|x| x.to_f32()).collect(),
            };
            let expected = run(&graph, rows, Tensor::from_vec(wide, &[N, K]).unwrap(), 1);
            for threads in [1, 2] {
                let found = run(&narrow_weights(&graph, to).unwrap(), rows, narrow.clone(), threads);
                let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-4, "{to}, {rows} rows: off by {off}");
            }
        }
    }
}

#[test]
fn only_floats_of_16_bits() {
    let error = narrow_weights(&layer(1), Scalar::I8).unwrap_err().to_string();
    assert!(error.contains("f16 or bf16, not to i8"), "{error}");
    let w = Tensor::from_vec(numbers(4, 2), &[4]).unwrap();
    assert!(w.narrowed(Scalar::F64).unwrap_err().to_string().contains("f16 or bf16"));
    let bytes = Tensor::from_vec(vec![1u8, 2], &[2]).unwrap();
    assert!(bytes.narrowed(Scalar::BF16).is_err());
}
