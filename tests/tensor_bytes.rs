//! Products of unsigned and signed bytes against plain loops: exact, for every depth and layout.

mod tensor_harness;

use quearn_stage::graph::{Conv2d, Dim, Graph, Node, Op, Scalar};
use tensor_harness::*;

fn image(r: &mut Rng, n: u64) -> Vec<u8> {
    (0..n).map(|_| r.int(0, 255) as u8).collect()
}

fn weights(r: &mut Rng, n: u64) -> Vec<i8> {
    (0..n).map(|_| r.int(0, 255) as u8 as i8).collect()
}

/// A convolution with the images as they come, or computed (so that the planner chooses where they lie).
fn check_conv(seed: u64) {
    let mut r = Rng::new(seed);
    let groups = [1, 1, 2, 3][r.int(0, 3) as usize];
    let (c, o) = (groups * r.int(1, 9), groups * r.int(1, 40));
    let [n, h, w] = [r.int(1, 3), r.int(6, 17), r.int(6, 19)];
    let kernel = [r.int(1, 3), r.int(1, 3)];
    let two = |r: &mut Rng, lo, hi| [r.int(lo, hi), r.int(lo, hi)];
    let conv = Conv2d { stride: two(&mut r, 1, 2), padding: two(&mut r, 0, 2), dilation: two(&mut r, 1, 2), groups };
    let filter = [o, c / groups, kernel[0], kernel[1]];
    let (x, filters) = (image(&mut r, n * c * h * w), weights(&mut r, filter.iter().product()));

    let mut g = Graph::new();
    let mut image = input(&mut g, "x", Scalar::U8, &dims(&[n, c, h, w]), false);
    let weight = input(&mut g, "w", Scalar::I8, &dims(&filter), true);
    if seed % 2 == 1 {
        let wide = g.add(Op::Cast(Scalar::I32), &[image]).unwrap();
        image = g.add(Op::Cast(Scalar::U8), &[wide]).unwrap();
    }
    let y = g.add(Op::Conv2d(conv.clone()), &[image, weight]).unwrap();
    g.output("y", y);

    let extent = |i: usize, size: u64| {
        (size + 2 * conv.padding[i] - (kernel[i] - 1) * conv.dilation[i] - 1) / conv.stride[i] + 1
    };
    let (oh, ow, per_group) = (extent(0, h), extent(1, w), c / groups);
    let mut expected: Vec<i32> = vec![];
    for (n, o_at, y, z) in indices([n, o, oh, ow]) {
        let first = o_at / (o / groups) * per_group;
        let mut sum = 0;
        for (ch, i, j, _) in indices([per_group, kernel[0], kernel[1], 1]) {
            let iy = (y * conv.stride[0] + i * conv.dilation[0]).wrapping_sub(conv.padding[0]);
            let ix = (z * conv.stride[1] + j * conv.dilation[1]).wrapping_sub(conv.padding[1]);
            if iy < h && ix < w {
                let at = ((n * c + first + ch) * h + iy) * w + ix;
                let weight = ((o_at * per_group + ch) * kernel[0] + i) * kernel[1] + j;
                sum += i32::from(x[at as usize]) * i32::from(filters[weight as usize]);
            }
        }
        expected.push(sum);
    }
    let tensors = [("x", x.clone()), ("w", bytes(&filters))];
    on_all(&g, &tensors, &[], |backend, out| assert_eq!(numbers::<i32>(&out[0]), expected, "{backend} seed {seed}"));
}

fn indices([a, b, c, d]: [u64; 4]) -> impl Iterator<Item = (u64, u64, u64, u64)> {
    (0..a * b * c * d).map(move |i| (i / (b * c * d), i / (c * d) % b, i / d % c, i % d))
}

#[test]
fn convolutions_of_bytes() {
    (0..24).for_each(check_conv);
}

fn product(g: &mut Graph, shape: &[Dim], k: u64, n: u64) -> Node {
    let a = input(g, "a", Scalar::U8, shape, false);
    let b = input(g, "b", Scalar::I8, &dims(&[k, n]), true);
    g.add(Op::MatMul, &[a, b]).unwrap()
}

#[test]
fn products_of_bytes() {
    for seed in 0..24 {
        let mut r = Rng::new(seed);
        let [m, k, n] = [r.int(1, 40), r.int(1, 70), r.int(1, 70)];
        let (a, b) = (image(&mut r, m * k), weights(&mut r, k * n));
        let mut g = Graph::new();
        // An open number of rows too.
        let rows = if seed % 2 == 0 { Dim::Const(m) } else { Dim::Named("m".into()) };
        let y = product(&mut g, &[rows, Dim::Const(k)], k, n);
        g.output("y", y);
        let one = |(i, j): (u64, u64)| -> i32 {
            (0..k).map(|l| i32::from(a[(i * k + l) as usize]) * i32::from(b[(l * n + j) as usize])).sum()
        };
        let expected: Vec<i32> = (0..m * n).map(|at| one((at / n, at % n))).collect();
        let tensors = [("a", a.clone()), ("b", bytes(&b))];
        let named = [("m", m as i64)];
        on_all(&g, &tensors, &named, |backend, out| {
            assert_eq!(numbers::<i32>(&out[0]), expected, "{backend} seed {seed}");
        });
    }
}

#[test]
fn the_largest_sums_fit() {
    let k = 65_793;
    let mut g = Graph::new();
    let y = product(&mut g, &dims(&[1, k]), k, 2);
    g.output("y", y);
    let signs: Vec<i8> = (0..k).flat_map(|_| [-128, 127]).collect();
    let tensors = [("a", vec![255; k as usize]), ("b", bytes(&signs))];
    let expected = [-128, 127].map(|w| w * 255 * k as i32);
    on_all(&g, &tensors, &[], |backend, out| assert_eq!(numbers::<i32>(&out[0]), expected, "{backend}"));
}
