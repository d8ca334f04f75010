//! SqueezeNet 1.1 as one tensor program: against plain loops on random weights, alone and as a batch, on one worker and
//! on two.

mod tensor_harness;

use quearn_stage::graph::{Conv2d, Dim, Graph, Node, Op, Pool2d, PoolKind, ReduceOp, Scalar, UnaryOp};
use tensor_harness::*;

/// Channels in, squeeze, half of the channels out.
const FIRES: [[u64; 3]; 8] = [
    [64, 16, 64],
    [128, 16, 64],
    [128, 32, 128],
    [256, 32, 128],
    [256, 48, 192],
    [384, 48, 192],
    [384, 64, 256],
    [512, 64, 256],
];

struct Net {
    g: Graph,
    weights: Vec<(String, Vec<f32>)>,
    r: Rng,
}

impl Net {
    fn conv(&mut self, x: Node, [i, o, k]: [u64; 3], conv: Conv2d) -> Node {
        let name = format!("w{}", self.weights.len());
        let w = input(&mut self.g, &name, Scalar::F32, &dims(&[o, i, k, k]), true);
        let scale = (2.0 / (i * k * k) as f32).sqrt() * 1.7;
        let values = self.r.singles(o * i * k * k).iter().map(|v| v * scale).collect();
        self.weights.push((name, values));
        let name = format!("w{}", self.weights.len());
        let bias = input(&mut self.g, &name, Scalar::F32, &dims(&[o]), true);
        let values = self.r.singles(o).iter().map(|v| v * 0.1).collect();
        self.weights.push((name, values));
        let y = self.g.add(Op::Conv2d(conv), &[x, w, bias]).unwrap();
        self.g.add(Op::Unary(UnaryOp::Relu), &[y]).unwrap()
    }

    fn pool(&mut self, x: Node) -> Node {
        let pool = Pool2d { kind: PoolKind::Max, kernel: [3, 3], stride: [2, 2], padding: [0, 0], ceil: true };
        self.g.add(Op::Pool2d(pool), &[x]).unwrap()
    }

    fn new(batch: Dim, size: u64) -> Net {
        let mut net = Net { g: Graph::new(), weights: vec![], r: Rng::new(1) };
        let shape = [batch, Dim::Const(3), Dim::Const(size), Dim::Const(size)];
        let image = input(&mut net.g, "image", Scalar::F32, &shape, false);
        let mut x = net.conv(image, [3, 64, 3], Conv2d { stride: [2, 2], ..Conv2d::default() });
        for (i, [inputs, squeeze, expand]) in FIRES.into_iter().enumerate() {
            if [0, 2, 4].contains(&i) {
                x = net.pool(x);
            }
            let s = net.conv(x, [inputs, squeeze, 1], Conv2d::default());
            let a = net.conv(s, [squeeze, expand, 1], Conv2d::default());
            let b = net.conv(s, [squeeze, expand, 3], Conv2d { padding: [1, 1], ..Conv2d::default() });
            x = net.g.add(Op::Concat { axis: 1 }, &[a, b]).unwrap();
        }
        let x = net.conv(x, [512, 1000, 1], Conv2d::default());
        let logits = net.g.add(Op::Reduce { op: ReduceOp::Mean, axes: vec![2, 3], keep: false }, &[x]).unwrap();
        net.g.output("logits", logits);
        net
    }

    fn tensors(&self, images: &[f32]) -> Vec<(&str, Vec<u8>)> {
        let weights = self.weights.iter().map(|(name, values)| (name.as_str(), bytes(values)));
        weights.chain([("image", bytes(images))]).collect()
    }
}

/// An image: channels, height, width, values.
type Image = (usize, usize, usize, Vec<f32>);

fn plain_conv((c, h, w, x): &Image, weight: &[f32], bias: &[f32], k: usize, stride: usize, pad: usize) -> Image {
    let (oh, ow) = ((h + 2 * pad - k) / stride + 1, (w + 2 * pad - k) / stride + 1);
    let mut out = vec![];
    for (o, &b) in bias.iter().enumerate() {
        let mut plane = vec![b; oh * ow];
        for i in 0..*c {
            for at in 0..k * k {
                let (ky, kx, f) = (at / k, at % k, weight[(o * c + i) * k * k + at]);
                for y in (0..oh).filter(|y| (pad..h + pad).contains(&(y * stride + ky))) {
                    for z in (0..ow).filter(|z| (pad..w + pad).contains(&(z * stride + kx))) {
                        plane[y * ow + z] += f * x[(i * h + y * stride + ky - pad) * w + z * stride + kx - pad];
                    }
                }
            }
        }
        out.extend(plane.iter().map(|v| v.max(0.0)));
    }
    (bias.len(), oh, ow, out)
}

fn plain_pool((c, h, w, x): &Image) -> Image {
    let extent = |n: usize| (n - 3).div_ceil(2) + 1;
    let (oh, ow) = (extent(*h), extent(*w));
    let mut out = vec![];
    for i in 0..*c {
        for y in 0..oh {
            for z in 0..ow {
                let rows = 2 * y..(2 * y + 3).min(*h);
                let window = rows.flat_map(|r| (2 * z..(2 * z + 3).min(*w)).map(move |q| x[(i * h + r) * w + q]));
                out.push(window.fold(f32::NEG_INFINITY, f32::max));
            }
        }
    }
    (*c, oh, ow, out)
}

fn plain(net: &Net, image: &[f32], size: usize) -> Vec<f32> {
    let mut weights = net.weights.iter().map(|(_, values)| values.as_slice());
    let mut conv = |x: &Image, k: usize, stride: usize| {
        let (w, bias) = (weights.next().unwrap(), weights.next().unwrap());
        plain_conv(x, w, bias, k, stride, if stride == 1 { k / 2 } else { 0 })
    };
    let mut x = conv(&(3, size, size, image.to_vec()), 3, 2);
    for i in 0..FIRES.len() {
        if [0, 2, 4].contains(&i) {
            x = plain_pool(&x);
        }
        let s = conv(&x, 1, 1);
        let (a, b) = (conv(&s, 1, 1), conv(&s, 3, 1));
        x = (a.0 + b.0, a.1, a.2, [a.3, b.3].concat());
    }
    let (_, h, w, x) = conv(&x, 1, 1);
    x.chunks(h * w).map(|plane| plane.iter().sum::<f32>() / (h * w) as f32).collect()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |a, v| a.max(v.abs()))
}

fn check(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let error = found.iter().zip(expected).fold(0.0f32, |a, (f, e)| a.max((f - e).abs())) / largest(expected);
    assert!(error < 1e-5, "{what}: relative error {error:e}");
}

#[test]
fn small_images_on_every_backend() {
    let net = Net::new(Dim::Named("batch".into()), 33);
    let images = Rng::new(2).singles(2 * 3 * 33 * 33);
    let expected = images.chunks(3 * 33 * 33).flat_map(|i| plain(&net, i, 33)).collect::<Vec<_>>();
    on_all(&net.g, &net.tensors(&images), &[("batch", 2)], |backend, out| {
        check(backend, &numbers::<f32>(&out[0]), &expected);
    });
}

#[cfg(feature = "llvm")]
#[test]
fn a_usual_image_on_one_worker_and_on_two() {
    let net = Net::new(Dim::Const(1), 224);
    let image = Rng::new(3).singles(3 * 224 * 224);
    let expected = plain(&net, &image, 224);
    let mut program = Program::new(&net.g, &quearn_backends::llvm::Llvm::new(), &net.tensors(&image), &[]);
    let one = program.try_run(1).unwrap();
    check("one worker", &numbers::<f32>(&one[0]), &expected);
    for _ in 0..5 {
        assert!(program.try_run(2).unwrap() == one, "two workers give other bits");
    }
}

#[cfg(feature = "llvm")]
#[test]
fn many_images_go_to_workers_of_their_own() {
    let net = Net::new(Dim::Named("batch".into()), 35);
    let images = Rng::new(4).singles(9 * 3 * 35 * 35);
    let expected = images.chunks(3 * 35 * 35).flat_map(|i| plain(&net, i, 35)).collect::<Vec<_>>();
    let llvm = quearn_backends::llvm::Llvm::new();
    let mut program = Program::new(&net.g, &llvm, &net.tensors(&images), &[("batch", 9)]);
    let one = program.try_run(1).unwrap();
    check("one worker", &numbers::<f32>(&one[0]), &expected);
    assert!(program.try_run(2).unwrap() == one, "two workers give other bits");
}
