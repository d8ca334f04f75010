//! Convolutions and matrix products against plain loops.

mod tensor_harness;

use quearn_stage::graph::{BinaryOp, Conv2d, Dim, Graph, Node, Op, Scalar, UnaryOp};
use tensor_harness::*;

struct Shape {
    n: u64,
    c: u64,
    h: u64,
    w: u64,
    o: u64,
    kernel: [u64; 2],
    conv: Conv2d,
}

impl Shape {
    fn out(&self) -> [u64; 2] {
        let extent = |i: usize, size: u64| {
            (size + 2 * self.conv.padding[i] - (self.kernel[i] - 1) * self.conv.dilation[i] - 1) / self.conv.stride[i]
                + 1
        };
        [extent(0, self.h), extent(1, self.w)]
    }

    fn reference(&self, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
        let ([oh, ow], [kh, kw], conv) = (self.out(), self.kernel, &self.conv);
        let per_group = self.c / conv.groups;
        let mut out = vec![];
        for n in 0..self.n {
            for o in 0..self.o {
                let group = o / (self.o / conv.groups);
                for y in 0..oh {
                    for z in 0..ow {
                        let mut sum = f64::from(bias[o as usize]);
                        for c in 0..per_group {
                            for i in 0..kh {
                                for j in 0..kw {
                                    let iy = (y * conv.stride[0] + i * conv.dilation[0]).wrapping_sub(conv.padding[0]);
                                    let ix = (z * conv.stride[1] + j * conv.dilation[1]).wrapping_sub(conv.padding[1]);
                                    if iy < self.h && ix < self.w {
                                        let at = ((n * self.c + group * per_group + c) * self.h + iy) * self.w + ix;
                                        let weight = ((o * per_group + c) * kh + i) * kw + j;
                                        sum += f64::from(x[at as usize]) * f64::from(w[weight as usize]);
                                    }
                                }
                            }
                        }
                        out.push(sum as f32);
                    }
                }
            }
        }
        out
    }
}

fn random_shape(r: &mut Rng) -> Shape {
    let groups = [1, 1, 1, 2, 3][r.int(0, 4) as usize];
    let kernel = [r.int(1, 3), r.int(1, 3)];
    let conv = Conv2d {
        stride: [r.int(1, 2), r.int(1, 2)],
        padding: [r.int(0, 2), r.int(0, 2)],
        dilation: [r.int(1, 2), r.int(1, 2)],
        groups,
    };
    Shape {
        n: r.int(1, 3),
        c: groups * r.int(1, 9),
        h: r.int(6, 17),
        w: r.int(6, 19),
        o: groups * r.int(1, 40),
        kernel,
        conv,
    }
}

fn check(seed: u64, shape: &Shape, two_layers: bool) {
    check_within(1e-4, seed, shape, two_layers);
}

fn check_within(tolerance: f32, seed: u64, shape: &Shape, two_layers: bool) {
    let mut r = Rng::new(seed);
    let mut g = Graph::new();
    let x = input(&mut g, "x", Scalar::F32, &dims(&[shape.n, shape.c, shape.h, shape.w]), false);
    let filter = [shape.o, shape.c / shape.conv.groups, shape.kernel[0], shape.kernel[1]];
    let w = input(&mut g, "w", Scalar::F32, &dims(&filter), true);
    let bias = input(&mut g, "bias", Scalar::F32, &dims(&[shape.o]), true);
    let x_in = if two_layers { g.add(Op::Unary(UnaryOp::Relu), &[x]).unwrap() } else { x };
    let y = g.add(Op::Conv2d(shape.conv.clone()), &[x_in, w, bias]).unwrap();
    let y = g.add(Op::Unary(UnaryOp::Relu), &[y]).unwrap();
    g.output("y", y);
    let data = r.singles(shape.n * shape.c * shape.h * shape.w);
    let filters = r.singles(filter.iter().product());
    let biases = r.singles(shape.o);
    let seen: Vec<f32> = if two_layers { data.iter().map(|x| x.max(0.0)).collect() } else { data.clone() };
    let expected: Vec<f32> = shape.reference(&seen, &filters, &biases).iter().map(|v| v.max(0.0)).collect();
    let tensors = [("x", bytes(&data)), ("w", bytes(&filters)), ("bias", bytes(&biases))];
    on_all(&g, &tensors, &[], |backend, out| {
        close(&format!("{backend} seed {seed}"), &numbers::<f32>(&out[0]), &expected, tolerance);
    });
}

#[test]
fn convolutions() {
    for seed in 0..24 {
        let mut r = Rng::new(seed);
        let shape = random_shape(&mut r);
        check(seed + 100, &shape, seed % 2 == 1);
    }
}

/// The names of the functions that a graph is lowered to.
fn functions(g: &Graph) -> Vec<String> {
    let interp = quearn_backends::interp::Interp;
    let shape = |node: Node| g.ty(node).as_tensor().unwrap().1.iter().map(|d| d.as_const().unwrap()).product::<u64>();
    let nodes = (0..g.len() as u32).map(Node).filter(|n| matches!(g.op(*n), Op::Input { .. }));
    let zeros: Vec<(String, Vec<u8>)> = nodes
        .map(|n| match g.op(n) {
            Op::Input { name, .. } => (name.clone(), vec![0; 4 * shape(n) as usize]),
            _ => unreachable!(),
        })
        .collect();
    let tensors: Vec<(&str, Vec<u8>)> = zeros.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    let program = Program::new(g, &interp, &tensors, &[]);
    program.lowered.module.funcs.iter().map(|f| f.name.clone()).collect()
}

/// A convolution of a weight alone.
fn plain(shape: &Shape) -> Graph {
    let mut g = Graph::new();
    let x = input(&mut g, "x", Scalar::F32, &dims(&[shape.n, shape.c, shape.h, shape.w]), false);
    let filter = [shape.o, shape.c / shape.conv.groups, shape.kernel[0], shape.kernel[1]];
    let w = input(&mut g, "w", Scalar::F32, &dims(&filter), true);
    let y = g.add(Op::Conv2d(shape.conv.clone()), &[x, w]).unwrap();
    g.output("y", y);
    g
}

#[test]
fn a_filter_for_each_channel() {
    for seed in 0..16 {
        let mut r = Rng::new(seed);
        let c = r.int(2, 70);
        let kernel = [r.int(1, 5), r.int(1, 5)];
        let conv = Conv2d {
            stride: [r.int(1, 3), r.int(1, 3)],
            padding: [r.int(0, 2), r.int(0, 2)],
            dilation: [r.int(1, 2), r.int(1, 2)],
            groups: c,
        };
        let shape = Shape { n: r.int(1, 3), c, h: r.int(9, 17), w: r.int(9, 19), o: c, kernel, conv };
        assert!(functions(&plain(&shape)).iter().any(|f| f.starts_with("depthwise")), "seed {seed}");
        check(seed + 200, &shape, seed % 2 == 1);
    }
}

#[test]
fn small_filters_with_fewer_multiplications() {
    // Sizes that tiles do not divide, channels that vectors do not divide, several blocks of tiles.
    let sizes = [(1, 32, 8, 8, 64), (2, 33, 13, 18, 70), (1, 40, 31, 30, 33), (3, 64, 7, 5, 48), (1, 64, 58, 61, 64)];
    for (seed, (n, c, h, w, o)) in sizes.into_iter().enumerate() {
        for padding in [[1, 1], [0, 2]] {
            let conv = Conv2d { padding, ..Conv2d::default() };
            let shape = Shape { n, c, h, w, o, kernel: [3, 3], conv };
            let names = functions(&plain(&shape));
            assert!(names.iter().any(|f| f.starts_with("winograd_image")), "{n} {c} {h} {w} {o}: {names:?}");
            // Sums of some hundred products are about 6; F(4, 3) costs some bits.
            check_within(5e-4, seed as u64 + 300, &shape, seed % 2 == 1);
        }
    }
}

#[test]
fn other_convolutions_are_computed_by_the_definition() {
    let cases = [
        ([3, 3], Conv2d { stride: [2, 2], ..Conv2d::default() }),
        ([3, 3], Conv2d { dilation: [2, 2], ..Conv2d::default() }),
        ([3, 3], Conv2d { groups: 2, ..Conv2d::default() }),
        ([5, 3], Conv2d::default()),
    ];
    for (kernel, conv) in cases {
        let shape = Shape { n: 1, c: 64, h: 20, w: 20, o: 64, kernel, conv };
        assert!(!functions(&plain(&shape)).iter().any(|f| f.starts_with("winograd")), "{kernel:?}");
    }
}

#[test]
fn a_pointwise_convolution_of_many_channels() {
    let conv = Conv2d::default();
    let shape = Shape { n: 2, c: 33, h: 9, w: 7, o: 70, kernel: [1, 1], conv };
    check(7, &shape, true);
}

fn matmul_reference(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut out = vec![];
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum();
            out.push(sum as f32);
        }
    }
    out
}

#[test]
fn matrix_products() {
    for seed in 0..16u64 {
        let mut r = Rng::new(seed);
        let (m, k, n) = (r.int(1, 70), r.int(1, 40), r.int(1, 70));
        let weight = seed % 2 == 0;
        let named = seed % 4 < 2;
        let mut g = Graph::new();
        let rows = if named { Dim::Named("batch".into()) } else { Dim::Const(m) };
        let a = input(&mut g, "a", Scalar::F32, &[rows, Dim::Const(k)], false);
        let b = input(&mut g, "b", Scalar::F32, &dims(&[k, n]), weight);
        let bias = input(&mut g, "bias", Scalar::F32, &dims(&[n]), true);
        let y = g.add(Op::MatMul, &[a, b]).unwrap();
        let y = g.add(Op::Binary(BinaryOp::Add), &[y, bias]).unwrap();
        let y = g.add(Op::Unary(UnaryOp::Tanh), &[y]).unwrap();
        g.output("y", y);
        let (av, bv, cv) = (r.singles(m * k), r.singles(k * n), r.singles(n));
        let expected: Vec<f32> = matmul_reference(&av, &bv, m as usize, k as usize, n as usize)
            .iter()
            .enumerate()
            .map(|(i, v)| (v + cv[i % n as usize]).tanh())
            .collect();
        let tensors = [("a", bytes(&av)), ("b", bytes(&bv)), ("bias", bytes(&cv))];
        on_all(&g, &tensors, &[("batch", m as i64)], |backend, out| {
            close(&format!("{backend} {m}x{k}x{n}"), &numbers::<f32>(&out[0]), &expected, 1e-5);
        });
    }
}

#[test]
fn batched_products_of_activations() {
    for seed in 0..6u64 {
        let mut r = Rng::new(seed);
        let (batch, heads, m, k, n) = (r.int(1, 3), r.int(1, 3), r.int(1, 20), r.int(1, 20), r.int(1, 40));
        let mut g = Graph::new();
        let a = input(&mut g, "a", Scalar::F32, &dims(&[batch, heads, m, k]), false);
        let b = input(&mut g, "b", Scalar::F32, &dims(&[batch, heads, n, k]), false);
        let bt = g.add(Op::Transpose(vec![0, 1, 3, 2]), &[b]).unwrap();
        let y = g.add(Op::MatMul, &[a, bt]).unwrap();
        g.output("y", y);
        let (av, bv) = (r.singles(batch * heads * m * k), r.singles(batch * heads * n * k));
        let mut expected = vec![];
        for i in 0..(batch * heads) as usize {
            let (m, k, n) = (m as usize, k as usize, n as usize);
            let b = &bv[i * n * k..(i + 1) * n * k];
            let bt: Vec<f32> = (0..k * n).map(|at| b[(at % n) * k + at / n]).collect();
            expected.extend(matmul_reference(&av[i * m * k..(i + 1) * m * k], &bt, m, k, n));
        }
        on_all(&g, &[("a", bytes(&av)), ("b", bytes(&bv))], &[], |backend, out| {
            close(&format!("{backend} seed {seed}"), &numbers::<f32>(&out[0]), &expected, 1e-5);
        });
    }
}

/// Products of queries and keys, a mask, softmax, and products with values, by the definition.
fn attention_reference(q: &[f32], k: &[f32], v: &[f32], mask: &[f32], sizes: [usize; 4]) -> Vec<f32> {
    let [rows, keys, width, out] = sizes;
    let mut result = vec![];
    for i in 0..rows {
        let score = |j: usize| {
            let sum: f64 = (0..width).map(|l| f64::from(q[i * width + l]) * f64::from(k[j * width + l])).sum();
            sum * 0.25 + f64::from(mask[i * keys + j])
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        result.extend((0..out).map(|l| {
            let mixed: f64 = (0..keys).map(|j| powers[j] / sum * f64::from(v[j * out + l])).sum();
            mixed as f32
        }));
    }
    result
}

/// Attention of heads; gives its functions too.
fn attend(seed: u64, [batch, heads, rows, keys, width, out]: [u64; 6], hidden: f32) -> Vec<String> {
    let mut r = Rng::new(seed);
    let mut g = Graph::new();
    let shape = |n: u64, w: u64| dims(&[batch, heads, n, w]);
    let q = input(&mut g, "q", Scalar::F32, &shape(rows, width), false);
    let k = input(&mut g, "k", Scalar::F32, &shape(keys, width), false);
    let v = input(&mut g, "v", Scalar::F32, &shape(keys, out), false);
    let mask = input(&mut g, "mask", Scalar::F32, &dims(&[rows, keys]), false);
    let scale = g.add(Op::Const(quearn_stage::graph::Literal::float(Scalar::F32, 0.25).unwrap()), &[]).unwrap();
    let kt = g.add(Op::Transpose(vec![0, 1, 3, 2]), &[k]).unwrap();
    let scores = g.add(Op::MatMul, &[q, kt]).unwrap();
    let scores = g.add(Op::Binary(BinaryOp::Mul), &[scores, scale]).unwrap();
    let scores = g.add(Op::Binary(BinaryOp::Add), &[scores, mask]).unwrap();
    let weights = g.add(Op::Softmax { axis: 3 }, &[scores]).unwrap();
    let y = g.add(Op::MatMul, &[weights, v]).unwrap();
    let y = g.add(Op::Unary(UnaryOp::Tanh), &[y]).unwrap();
    g.output("y", y);
    let n = batch * heads;
    let (qv, kv, vv) = (r.singles(n * rows * width), r.singles(n * keys * width), r.singles(n * keys * out));
    // What comes later is hidden.
    let later = |at: u64| if at % keys > at / keys { hidden } else { 0.0 };
    let masks: Vec<f32> = (0..rows * keys).map(later).collect();
    let sizes = [rows, keys, width, out].map(|n| n as usize);
    let parts = |values: &[f32], each: usize, i: usize| values[i * each..(i + 1) * each].to_vec();
    let expected: Vec<f32> = (0..n as usize)
        .flat_map(|i| {
            let [rows, keys, width, out] = sizes;
            let (q, k, v) = (parts(&qv, rows * width, i), parts(&kv, keys * width, i), parts(&vv, keys * out, i));
            attention_reference(&q, &k, &v, &masks, sizes)
        })
        .map(f32::tanh)
        .collect();
    let tensors = [("q", bytes(&qv)), ("k", bytes(&kv)), ("v", bytes(&vv)), ("mask", bytes(&masks))];
    on_all(&g, &tensors, &[], |backend, out| {
        close(&format!("{backend} seed {seed}"), &numbers::<f32>(&out[0]), &expected, 1e-5);
    });
    functions(&g)
}

#[test]
fn attention_is_one_stage() {
    let sizes = [[1, 2, 5, 7, 3, 4], [2, 3, 33, 33, 16, 16], [1, 1, 40, 130, 20, 24], [2, 1, 1, 50, 8, 70]];
    for (seed, sizes) in sizes.into_iter().enumerate() {
        for hidden in [-1e9, f32::NEG_INFINITY] {
            let names = attend(seed as u64, sizes, hidden);
            let stage = |name: &str| names.iter().any(|f| f.starts_with(name));
            assert!(stage("attention") && !stage("softmax") && !stage("matmul"), "{names:?}");
        }
    }
}

#[test]
fn scores_that_are_used_twice_are_stored() {
    let mut g = Graph::new();
    let q = input(&mut g, "q", Scalar::F32, &dims(&[1, 2, 6, 4]), false);
    let k = input(&mut g, "k", Scalar::F32, &dims(&[1, 2, 4, 6]), false);
    let scores = g.add(Op::MatMul, &[q, k]).unwrap();
    let weights = g.add(Op::Softmax { axis: 3 }, &[scores]).unwrap();
    let y = g.add(Op::MatMul, &[weights, q]).unwrap();
    g.output("y", y);
    g.output("weights", weights);
    assert!(functions(&g).iter().any(|f| f.starts_with("softmax")));
}

#[test]
fn products_of_more_rows_than_the_cache_holds() {
    let (m, k, n) = (900u64, 1024u64, 40u64);
    let mut r = Rng::new(5);
    let mut g = Graph::new();
    let a = input(&mut g, "a", Scalar::F32, &dims(&[m, k]), false);
    let b = input(&mut g, "b", Scalar::F32, &dims(&[k, n]), true);
    let y = g.add(Op::MatMul, &[a, b]).unwrap();
    g.output("y", y);
    let (av, bv) = (r.singles(m * k), r.singles(k * n));
    let expected = matmul_reference(&av, &bv, m as usize, k as usize, n as usize);
    let backend = quearn_backends::default_backend();
    let mut program = Program::new(&g, &*backend, &[("a", bytes(&av)), ("b", bytes(&bv))], &[]);
    for workers in [1, 2] {
        let out = program.try_run(workers).unwrap();
        close("rows", &numbers::<f32>(&out[0]), &expected, 1e-4);
    }
}
