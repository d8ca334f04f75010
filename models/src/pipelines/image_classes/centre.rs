//! The last layer of the network, centred on what the layer before it sees on average.
//!
//! A network of random weights names one class for nearly every picture, because the feature vectors have a large mean
//! in common. Taking the share of the mean out of every row `w` of the last layer, `w - (w . mean / mean . mean) mean`,
//! spreads the classes. The mean is computed here in plain Rust, so that the weights do not depend on the engine that
//! they are meant to test.

use super::{DEVIATION, MEAN};
use crate::Result;
use crate::squeezenet::{CHANNELS, Layer, SQUEEZENET1_1};
use crate::weights::Weights;
use quearn::data::Tensor;
use rayon::prelude::*;

/// Channels of the output that are computed at a time.
const LANES: usize = 8;
/// Pixels of the output that are computed at a time.
const PIXELS: usize = 4;

/// Extents and samples of an image, [height, width, channels].
struct Image {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<f32>,
}

impl Image {
    fn filled(value: f32, height: usize, width: usize, channels: usize) -> Image {
        Image { height, width, channels, data: vec![value; height * width * channels] }
    }

    fn pixel(&self, y: usize, x: usize) -> &[f32] {
        &self.data[(y * self.width + x) * self.channels..][..self.channels]
    }

    fn pixel_mut(&mut self, y: usize, x: usize) -> &mut [f32] {
        &mut self.data[(y * self.width + x) * self.channels..][..self.channels]
    }

    /// The image with a border of zeros.
    fn padded(&self, border: usize) -> Image {
        let mut out = Image::filled(0.0, self.height + 2 * border, self.width + 2 * border, self.channels);
        for (y, row) in self.data.chunks_exact(self.width * self.channels).enumerate() {
            let start = ((y + border) * out.width + border) * out.channels;
            out.data[start..start + row.len()].copy_from_slice(row);
        }
        out
    }

    /// Both images' channels side by side.
    fn beside(&self, other: &Image) -> Image {
        let mut out = Image::filled(0.0, self.height, self.width, self.channels + other.channels);
        let pixels = self.data.chunks_exact(self.channels).zip(other.data.chunks_exact(other.channels));
        for (to, (a, b)) in out.data.chunks_exact_mut(self.channels + other.channels).zip(pixels) {
            to[..a.len()].copy_from_slice(a);
            to[a.len()..].copy_from_slice(b);
        }
        out
    }

    /// Largest of 3 x 3 pixels, stride 2; a window may end outside.
    fn pooled(&self) -> Image {
        let mut out = Image::filled(f32::MIN, self.height / 2, self.width / 2, self.channels);
        for y in 0..out.height {
            for x in 0..out.width {
                for (dy, dx) in (0..9).map(|i| (i / 3, i % 3)) {
                    if 2 * y + dy < self.height && 2 * x + dx < self.width {
                        let from = self.pixel(2 * y + dy, 2 * x + dx);
                        out.pixel_mut(y, x).iter_mut().zip(from).for_each(|(a, b)| *a = a.max(*b));
                    }
                }
            }
        }
        out
    }

    /// Mean of every channel.
    fn mean(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels];
        for pixel in self.data.chunks_exact(self.channels) {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let count = (self.height * self.width) as f64;
        sums.into_iter().map(|sum| sum / count).collect()
    }
}

/// A convolution followed by `max(x, 0)`, ready to run.
struct Conv {
    kernel: usize,
    stride: usize,
    border: usize,
    outputs: usize,
    /// [outputs / LANES][row][column][input][LANES].
    panels: Vec<f32>,
    bias: Vec<f32>,
}

impl Conv {
    fn new(weights: &Weights, layer: &Layer, stride: usize, border: usize) -> Result<Conv> {
        let (inputs, taps) = (layer.inputs, layer.kernel * layer.kernel);
        let source = weights[&layer.weight()].as_slice::<f32>()?;
        let mut panels = Vec::with_capacity(source.len());
        for (first, tap, input) in
            (0..layer.outputs).step_by(LANES).flat_map(|o| (0..taps * inputs).map(move |i| (o, i / inputs, i % inputs)))
        {
            panels.extend((first..first + LANES).map(|o| source[(o * inputs + input) * taps + tap]));
        }
        let bias = weights[&layer.bias()].as_slice::<f32>()?.to_vec();
        Ok(Conv { kernel: layer.kernel, stride, border, outputs: layer.outputs, panels, bias })
    }

    fn run(&self, image: &Image) -> Image {
        let padded = image.padded(self.border);
        let extent = |size| (size - self.kernel) / self.stride + 1;
        let mut out = Image::filled(0.0, extent(padded.height), extent(padded.width), self.outputs);
        let starts = self.starts(&padded, &out);
        let panel_len = self.panels.len() / (self.outputs / LANES);
        for (panel, first) in self.panels.chunks_exact(panel_len).zip((0..).step_by(LANES)) {
            for (group, at) in starts.chunks(PIXELS).zip((0..).step_by(PIXELS)) {
                let sums = self.tile(&padded, group, panel);
                for (sum, pixel) in sums.iter().zip(at..at + group.len()) {
                    let to = &mut out.data[pixel * self.outputs + first..][..LANES];
                    for ((to, sum), bias) in to.iter_mut().zip(sum).zip(&self.bias[first..]) {
                        *to = (sum + bias).max(0.0);
                    }
                }
            }
        }
        out
    }

    /// Where in the input the window of every output pixel begins.
    fn starts(&self, input: &Image, out: &Image) -> Vec<usize> {
        let start = |y, x| (y * self.stride * input.width + x * self.stride) * input.channels;
        (0..out.height).flat_map(|y| (0..out.width).map(move |x| start(y, x))).collect()
    }

    /// `LANES` channels of at most `PIXELS` pixels.
    fn tile(&self, input: &Image, starts: &[usize], panel: &[f32]) -> [[f32; LANES]; PIXELS] {
        let mut sums = [[0.0; LANES]; PIXELS];
        let taps = (0..self.kernel * self.kernel).map(|i| (i / self.kernel) * input.width + i % self.kernel);
        for (tap, weights) in taps.zip(panel.chunks_exact(input.channels * LANES)) {
            let at = |p: usize| starts[p.min(starts.len() - 1)] + tap * input.channels;
            let rows: [&[f32]; PIXELS] = std::array::from_fn(|p| &input.data[at(p)..][..input.channels]);
            for (c, lanes) in weights.chunks_exact(LANES).enumerate() {
                for (sum, row) in sums.iter_mut().zip(rows) {
                    for (sum, weight) in sum.iter_mut().zip(lanes) {
                        *sum += row[c] * weight;
                    }
                }
            }
        }
        sums
    }
}

/// The network without its last layer.
struct Features {
    stem: Conv,
    /// A pool, where there are no convolutions, or a fire block.
    body: Vec<Vec<Conv>>,
}

impl Features {
    fn new(weights: &Weights) -> Result<Features> {
        let body_conv = |layer: Layer| Conv::new(weights, &layer, 1, layer.kernel / 2);
        let block = |at| SQUEEZENET1_1.block_layers(at).into_iter().map(body_conv).collect();
        let body = (0..SQUEEZENET1_1.body.len()).map(block).collect::<Result<_>>()?;
        Ok(Features { stem: Conv::new(weights, &SQUEEZENET1_1.stem(), 2, 0)?, body })
    }

    fn run(&self, picture: &Image) -> Image {
        self.body.iter().fold(self.stem.run(picture), |x, block| match &block[..] {
            [squeeze, expand1x1, expand3x3] => {
                let x = squeeze.run(&x);
                expand1x1.run(&x).beside(&expand3x3.run(&x))
            }
            _ => x.pooled(),
        })
    }
}

/// The picture as the network wants it: samples in 0..=1, minus [`MEAN`], over [`DEVIATION`] of their channel.
fn normalised(samples: &[u8], size: usize) -> Image {
    let value = |(i, &sample): (usize, &u8)| {
        let c = i % CHANNELS;
        ((f64::from(sample) / 255.0 - f64::from(MEAN[c])) / f64::from(DEVIATION[c])) as f32
    };
    let data = samples.iter().enumerate().map(value).collect();
    Image { height: size, width: size, channels: CHANNELS, data }
}

/// Centres `weights` on the mean feature of the pictures, `samples` [n, size, size, 3]. `done` is told the number of
/// pictures seen since its last call, from any thread.
pub fn centre(weights: &mut Weights, samples: &[u8], size: usize, done: &(impl Fn(usize) + Sync)) -> Result<()> {
    let network = Features::new(weights)?;
    let pictures = samples.par_chunks_exact(size * size * CHANNELS);
    let features: Vec<Vec<f64>> = pictures
        .map(|picture| {
            let feature = network.run(&normalised(picture, size)).mean();
            done(1);
            feature
        })
        .collect();
    let mut mean = vec![0.0; features[0].len()];
    for feature in &features {
        mean.iter_mut().zip(feature).for_each(|(sum, value)| *sum += value / features.len() as f64);
    }
    let last = SQUEEZENET1_1.classifier().weight();
    let mut rows = weights[&last].as_slice::<f32>()?.to_vec();
    remove_share(&mut rows, &mean);
    let shape = weights[&last].shape().to_vec();
    weights.insert(last, Tensor::from_vec(rows, &shape)?);
    Ok(())
}

/// Takes the share of `mean` out of every row.
fn remove_share(rows: &mut [f32], mean: &[f64]) {
    let dot = |row: &[f32]| row.iter().zip(mean).map(|(a, b)| f64::from(*a) * b).sum::<f64>();
    let norm: f64 = mean.iter().map(|m| m * m).sum();
    for row in rows.chunks_exact_mut(mean.len()) {
        let share = dot(row) / norm;
        row.iter_mut().zip(mean).for_each(|(value, m)| *value = (f64::from(*value) - share * m) as f32);
    }
}
