//! A language model of stacked LSTMs: which word comes next.

use crate::nn::{Module, Values, extent, last};
use crate::recurrent::lstm;
use quearn_stage::rep::{I64, Rep, Stage, Tensor};

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct LstmLm {
    /// Words.
    pub vocabulary: u64,
    /// Numbers that stand for a word, and of a state.
    pub width: u64,
    /// Layers.
    pub layers: usize,
}

/// The medium model of Zaremba et al. (2014).
pub const LSTM_LM: LstmLm = LstmLm { vocabulary: 10000, width: 650, layers: 2 };

impl LstmLm {
    /// Logits [steps, n, vocabulary] of the words after each of the words [steps, n].
    #[track_caller]
    pub fn logits<'s>(&self, s: &'s Stage, words: Rep<'s, Tensor<I64>>) -> Values<'s> {
        let m = Module::root(s);
        let x = m.at("embedding").embedding(words, self.vocabulary, self.width);
        let x = (0..self.layers).fold(x, |x, layer| lstm(&m.at("lstm"), layer, x, self.width));
        let [steps, n] = [0, 1].map(|axis| extent(x, axis));
        let logits = m.at("decoder").linear(x.reshape([steps * n, last(x)]), self.vocabulary);
        logits.reshape([steps, n, self.vocabulary])
    }
}
