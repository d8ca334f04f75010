//! Transposed convolutions against their definition: an element of the image is spread by the filter.

mod common;

use common::{attribute, floats, graph, model, node, port, run, tensor};
use quearn_onnx::Options;

/// A deterministic stream of numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn floats(&mut self, n: u64) -> Vec<f32> {
        (0..n).map(|_| self.below(17) as f32 / 4.0 - 2.0).collect()
    }
}

/// A random operator over an image of two axes.
#[derive(Debug)]
struct Case {
    batch: u64,
    groups: u64,
    /// Channels of a group, before and after.
    channels: [u64; 2],
    image: [u64; 2],
    kernel: [u64; 2],
    stride: [u64; 2],
    dilation: [u64; 2],
    before: [u64; 2],
    after: [u64; 2],
    extra: [u64; 2],
}

impl Case {
    fn random(r: &mut Random) -> Option<Case> {
        let mut two = |least: u64, n: u64| [least + r.below(n), least + r.below(n)];
        let case = Case {
            channels: two(1, 4),
            image: two(1, 6),
            kernel: two(1, 5),
            stride: two(1, 4),
            dilation: two(1, 3),
            before: two(0, 4),
            after: two(0, 4),
            extra: two(0, 3),
            batch: two(1, 2)[0],
            groups: two(1, 2)[0],
        };
        let fits = (0..2).all(|i| case.extent(i).is_some() && case.extra[i] < case.stride[i].max(case.dilation[i]));
        fits.then_some(case)
    }

    /// Of the result.
    fn extent(&self, i: usize) -> Option<u64> {
        let full = (self.image[i] - 1) * self.stride[i] + (self.kernel[i] - 1) * self.dilation[i] + 1 + self.extra[i];
        full.checked_sub(self.before[i] + self.after[i]).filter(|n| *n > 0)
    }

    fn expected(&self, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
        let [from, to] = self.channels;
        let [height, width] = [0, 1].map(|i| self.extent(i).unwrap());
        let outs = to * self.groups;
        let mut y: Vec<f32> =
            (0..self.batch * outs * height * width).map(|i| bias[(i / (height * width) % outs) as usize]).collect();
        let place = |i: usize, at: u64, k: u64| {
            let place = (at * self.stride[i] + k * self.dilation[i]).checked_sub(self.before[i])?;
            (place < self.extent(i)?).then_some(place)
        };
        let [h, v] = self.image;
        let [kh, kw] = self.kernel;
        for at in 0..self.batch * self.groups * from * h * v {
            let (pixel, channel, n) =
                (at % (h * v), at / (h * v) % (self.groups * from), at / (h * v * self.groups * from));
            for tap in 0..to * kh * kw {
                let (k, o) = (tap % (kh * kw), tap / (kh * kw));
                let (Some(py), Some(px)) = (place(0, pixel / v, k / kw), place(1, pixel % v, k % kw)) else { continue };
                let out = channel / from * to + o;
                let weight = w[(channel * to * kh * kw + tap) as usize];
                y[(((n * outs + out) * height + py) * width + px) as usize] += x[at as usize] * weight;
            }
        }
        y
    }
}

fn check(case: &Case, r: &mut Random) {
    let [from, to] = case.channels;
    let channels = from * case.groups;
    let [h, v] = case.image;
    let [kh, kw] = case.kernel;
    let x = r.floats(case.batch * channels * h * v);
    let w = r.floats(channels * to * kh * kw);
    let bias = r.floats(to * case.groups);
    let signed = |list: &[u64]| list.iter().map(|&n| n as i64).collect::<Vec<i64>>();
    let attributes = vec![
        attribute::ints("strides", &signed(&case.stride)),
        attribute::ints("dilations", &signed(&case.dilation)),
        attribute::ints("pads", &signed(&[case.before, case.after].concat())),
        attribute::ints("output_padding", &signed(&case.extra)),
        attribute::int("group", case.groups as i64),
    ];
    let weights =
        vec![tensor("w", &signed(&[channels, to, kh, kw]), &w), tensor("b", &signed(&[to * case.groups]), &bias)];
    let shape = [case.batch, channels, h, v];
    let text = shape.map(|n| n.to_string());
    let input = port("x", &text.each_ref().map(String::as_str));
    let op = node("ConvTranspose", &["x", "w", "b"], &["y"], attributes);
    let model = model(graph(vec![op], weights, vec![input], &["y"]));
    let mut results = run(&model, &Options::default(), &[("x", floats(&x, &shape))]).unwrap();
    let y = results.remove("y").unwrap();
    assert_eq!(y.shape(), [case.batch, to * case.groups, case.extent(0).unwrap(), case.extent(1).unwrap()], "{case:?}");
    let expected = case.expected(&x, &w, &bias);
    for (i, (found, expected)) in y.as_slice::<f32>().unwrap().iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() < 1e-3, "{case:?}: element {i} is {found}, expected {expected}");
    }
}

#[test]
fn random_attributes() {
    let mut r = Random(1);
    let mut count = 0;
    while count < 60 {
        if let Some(case) = Case::random(&mut r) {
            check(&case, &mut r);
            count += 1;
        }
    }
}

#[test]
fn bad_attributes_are_errors() {
    let failure = |attributes, message: &str| {
        let w = tensor("w", &[1, 1, 2, 2], &[1.0; 4]);
        let op = node("ConvTranspose", &["x", "w"], &["y"], attributes);
        let model = model(graph(vec![op], vec![w], vec![port("x", &["1", "1", "2", "2"])], &["y"]));
        let x = floats(&[1.0; 4], &[1, 1, 2, 2]);
        let error = run(&model, &Options::default(), &[("x", x)]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    failure(vec![attribute::ints("pads", &[2, 2, 2, 2])], "nothing is left of its result");
    failure(vec![attribute::ints("strides", &[64, 64])], "strides of [64, 64], whose product is larger than 1024");
    failure(vec![attribute::ints("output_padding", &[1])], "its attributes must have 2 numbers");
}
