//! A GPT-2-shaped decoder: which word comes next. Over a whole text at once, or word by word with the keys and values of
//! the words before it kept.

use crate::nn::{HIDDEN, Module, Values, attention, extent, gelu_tanh, last};
use quearn_stage::rep::{F32, I64, Rep, Stage, Tensor};

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct Gpt2 {
    /// Layers.
    pub layers: usize,
    /// Width of what is known of a word.
    pub width: u64,
    /// Heads of an attention.
    pub heads: u64,
    /// Words.
    pub vocabulary: u64,
    /// Words of a text, at most.
    pub positions: u64,
}

/// GPT-2 of 124 million parameters.
pub const GPT2_SMALL: Gpt2 = Gpt2 { layers: 12, width: 768, heads: 12, vocabulary: 50257, positions: 1024 };

/// A version with few weights, for tests.
pub const TINY: Gpt2 = Gpt2 { layers: 2, width: 24, heads: 3, vocabulary: 50, positions: 16 };

/// Keeps the layer norm from dividing by 0.
const EPS: f32 = 1e-5;

/// What a layer keeps of the words before: [n, room, width] each.
#[derive(Clone, Copy)]
pub struct Kept<'s> {
    /// Keys.
    pub keys: Values<'s>,
    /// Values.
    pub values: Values<'s>,
}

impl Gpt2 {
    /// Logits [n, length, vocabulary] of the words after each of the words [n, length].
    #[track_caller]
    pub fn logits<'s>(&self, s: &'s Stage, words: Rep<'s, Tensor<I64>>) -> Values<'s> {
        let length = extent(words, 1);
        let positions = s.iota(length);
        // A word sees those up to itself: what is hidden lies above the diagonal.
        let later = positions.gt(positions.reshape([length, 1]));
        let mask = later.cast::<F32>() * HIDDEN;
        let (m, embedded) = self.embedded(s, words, positions);
        let x = (0..self.layers).fold(embedded, |x, i| {
            let m = m.at("h").at(i);
            let normed = m.at("ln_1").layer_norm(x, EPS);
            self.behind(&m, x + m.at("attn").self_attention(normed, self.heads, mask))
        });
        self.unembedded(&m, x)
    }

    /// Logits [n, 1, vocabulary] of the words after `words` [n, 1], which stand at `position`, a scalar; and what is
    /// kept with them at its place.
    #[track_caller]
    pub fn next<'s>(
        &self,
        s: &'s Stage,
        words: Rep<'s, Tensor<I64>>,
        position: Rep<'s, Tensor<I64>>,
        kept: &[Kept<'s>],
    ) -> (Values<'s>, Vec<Kept<'s>>) {
        let room = kept.first().map_or(0, |kept| extent(kept.keys, 1));
        let positions = s.iota(room);
        let mask = positions.gt(position).cast::<F32>() * HIDDEN;
        let here = positions.eq(position).cast::<F32>().reshape([room, 1]);
        let (m, mut x) = self.embedded(s, words, position.reshape([1]));
        let mut now = vec![];
        for (i, kept) in kept.iter().enumerate() {
            let m = m.at("h").at(i);
            let normed = m.at("ln_1").layer_norm(x, EPS);
            let [query, key, value] =
                ["query", "key", "value"].map(|part| m.at("attn").at(part).linear(normed, self.width));
            let added = |old: Values<'s>, new: Values<'s>| old * (1.0 - here) + new * here;
            let kept = Kept { keys: added(kept.keys, key), values: added(kept.values, value) };
            let seen = attention(query, kept.keys, kept.values, self.heads, mask);
            x = self.behind(&m, x + m.at("attn").at("output").linear(seen, self.width));
            now.push(kept);
        }
        (self.unembedded(&m, x), now)
    }

    #[track_caller]
    fn embedded<'s>(
        &self,
        s: &'s Stage,
        words: Rep<'s, Tensor<I64>>,
        positions: Rep<'s, Tensor<I64>>,
    ) -> (Module<'s>, Values<'s>) {
        let m = Module::root(s);
        let x = m.at("wte").embedding(words, self.vocabulary, self.width);
        let at = m.at("wpe").embedding(positions, self.positions, self.width);
        (m, x + at)
    }

    /// What follows the attention of a layer.
    #[track_caller]
    fn behind<'s>(&self, m: &Module<'s>, x: Values<'s>) -> Values<'s> {
        let inner = gelu_tanh(m.at("mlp_fc").linear(m.at("ln_2").layer_norm(x, EPS), 4 * last(x)));
        x + m.at("mlp_proj").linear(inner, last(x))
    }

    /// Logits by how much a word looks like each word of the vocabulary.
    #[track_caller]
    fn unembedded<'s>(&self, m: &Module<'s>, x: Values<'s>) -> Values<'s> {
        let words = m.at("wte").weight("weight", [self.vocabulary, self.width]);
        m.at("ln_f").layer_norm(x, EPS).matmul(words.transpose())
    }
}
