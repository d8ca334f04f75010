//! Convolutions and matrix products against plain loops.

mod tensor_harness;

use quearn_stage::graph::{BinaryOp, Conv2d, Dim, Graph, Op, Scalar, UnaryOp};
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

fn random_shape(r: &mut Random) -> Shape {
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
    let mut r = Random(seed);
    let mut g = Graph::new();
    let x = input(&mut g, "x", Scalar::F32, &dims(&[shape.n, shape.c, shape.h, shape.w]), false);
    let filter = [shape.o, shape.c / shape.conv.groups, shape.kernel[0], shape.kernel[1]];
    let w = input(&mut g, "w", Scalar::F32, &dims(&filter), true);
    let bias = input(&mut g, "bias", Scalar::F32, &dims(&[shape.o]), true);
    let x_in = if two_layers { g.add(Op::Unary(UnaryOp::Relu), &[x]).unwrap() } else { x };
    let y = g.add(Op::Conv2d(shape.conv.clone()), &[x_in, w, bias]).unwrap();
    let y = g.add(Op::Unary(UnaryOp::Relu), &[y]).unwrap();
    g.output("y", y);
    let data = r.floats(shape.n * shape.c * shape.h * shape.w);
    let filters = r.floats(filter.iter().product());
    let biases = r.floats(shape.o);
    let seen: Vec<f32> = if two_layers { data.iter().map(|x| x.max(0.0)).collect() } else { data.clone() };
    let expected: Vec<f32> = shape.reference(&seen, &filters, &biases).iter().map(|v| v.max(0.0)).collect();
    let tensors = [("x", bytes(&data)), ("w", bytes(&filters)), ("bias", bytes(&biases))];
    on_all(&g, &tensors, &[], |backend, out| {
        close(&format!("{backend} seed {seed}"), &numbers::<f32>(&out[0]), &expected, 1e-4);
    });
}

#[test]
fn convolutions() {
    for seed in 0..24 {
        let mut r = Random(seed);
        let shape = random_shape(&mut r);
        check(seed + 100, &shape, seed % 2 == 1);
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
        let mut r = Random(seed);
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
        let (av, bv, cv) = (r.floats(m * k), r.floats(k * n), r.floats(n));
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
        let mut r = Random(seed);
        let (batch, heads, m, k, n) = (r.int(1, 3), r.int(1, 3), r.int(1, 20), r.int(1, 20), r.int(1, 40));
        let mut g = Graph::new();
        let a = input(&mut g, "a", Scalar::F32, &dims(&[batch, heads, m, k]), false);
        let b = input(&mut g, "b", Scalar::F32, &dims(&[batch, heads, n, k]), false);
        let bt = g.add(Op::Transpose(vec![0, 1, 3, 2]), &[b]).unwrap();
        let y = g.add(Op::MatMul, &[a, bt]).unwrap();
        g.output("y", y);
        let (av, bv) = (r.floats(batch * heads * m * k), r.floats(batch * heads * n * k));
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
