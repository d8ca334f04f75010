//! Deep Speech 2: letters from a spectrogram, by convolutions and recurrent layers that run both ways.

use crate::nn::{Module, Values, clipped, extent, last, widened};
use crate::recurrent::gru;
use quearn_stage::rep::{Conv2d, Stage};

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct DeepSpeech2 {
    /// Channels of the convolutions.
    pub channels: u64,
    /// Numbers of a state.
    pub hidden: u64,
    /// Recurrent layers.
    pub layers: usize,
    /// Letters.
    pub letters: u64,
}

/// The usual size.
pub const DEEPSPEECH2: DeepSpeech2 = DeepSpeech2 { channels: 32, hidden: 800, layers: 5, letters: 29 };

impl DeepSpeech2 {
    /// Logarithms of probabilities [steps, n, letters] from spectrograms [n, 1, frequencies, time].
    #[track_caller]
    pub fn log_probs<'s>(&self, s: &'s Stage, spectrogram: Values<'s>) -> Values<'s> {
        let m = Module::root(s);
        let conv = |i: usize, x, kernel, stride, padding| {
            let how = Conv2d { stride, padding, ..Conv2d::default() };
            let x = m.at(format!("conv{i}")).conv2d(x, self.channels, kernel, how);
            clipped(m.at(format!("bn{i}")).batch_norm(x), 20.0)
        };
        let x = conv(1, spectrogram, [41, 11], [2, 2], [20, 5]);
        let x = conv(2, x, [21, 11], [2, 1], [10, 5]);
        let [n, channels, frequencies, steps] = [0, 1, 2, 3].map(|axis| extent(x, axis));
        let mut x = x.permute([3, 0, 1, 2]).reshape([steps, n, channels * frequencies]);
        for i in 0..self.layers {
            let rnn = m.at("rnn").at(i);
            let both = gru(&rnn, false, x, self.hidden) + gru(&rnn, true, x, self.hidden);
            let rows = both.reshape([steps * n, self.hidden]);
            x = m.at("bn").at(i).batch_norm(rows).reshape([steps, n, self.hidden]);
        }
        let logits = m.at("fc").linear(x.reshape([steps * n, last(x)]), self.letters);
        log_softmax(logits).reshape([steps, n, self.letters])
    }
}

/// The logarithm of the softmax of each row.
#[track_caller]
fn log_softmax(x: Values<'_>) -> Values<'_> {
    let x = x - widened(x.max([1]));
    x - widened(x.exp().sum([1]).log())
}
