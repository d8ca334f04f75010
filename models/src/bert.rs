//! A BERT-shaped encoder: each word of a text in the light of all others.

use crate::nn::{Module, Values, dim, gelu, last};
use quearn_stage::rep::{F32, I64, Rep, Stage, Tensor};

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct Bert {
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

/// BERT base.
pub const BERT_BASE: Bert = Bert { layers: 12, width: 768, heads: 12, vocabulary: 30522, positions: 512 };
/// A third as deep and as wide.
pub const BERT_SMALL: Bert = Bert { layers: 4, width: 256, heads: 4, vocabulary: 8192, positions: 512 };

/// What is added to the scores of words that are no part of their text.
const PADDING: f32 = -10000.0;
/// Keeps the layer norm from dividing by 0.
const EPS: f32 = 1e-12;

/// Texts, each [n, length].
#[derive(Clone, Copy)]
pub struct Texts<'s> {
    /// Numbers of words.
    pub words: Rep<'s, Tensor<I64>>,
    /// 1 for a word, 0 for what is behind the end of a text.
    pub attention: Rep<'s, Tensor<I64>>,
    /// 1 for words of the second part of a text.
    pub segments: Rep<'s, Tensor<I64>>,
}

/// What the encoder makes of texts.
#[derive(Clone, Copy)]
pub struct Encoded<'s> {
    /// Each word [n, length, width].
    pub hidden: Values<'s>,
    /// The text as a whole [n, width].
    pub pooled: Values<'s>,
}

impl Bert {
    /// Encodes texts.
    #[track_caller]
    pub fn encode<'s>(&self, s: &'s Stage, texts: Texts<'s>) -> Encoded<'s> {
        let m = Module::root(s);
        let (count, length) = (dim(texts.words, 0), last(texts.words));
        let mask = (1.0 - texts.attention.cast::<F32>()) * PADDING;
        let mask = mask.reshape((count, 1, 1, length));
        let x = m.at("word_embeddings").embedding(texts.words, self.vocabulary, self.width)
            + m.at("position_embeddings").embedding(s.iota(length), self.positions, self.width)
            + m.at("token_type_embeddings").embedding(texts.segments, 2, self.width);
        let x = m.at("embeddings_norm").layer_norm(x, EPS);
        let hidden = self.layers(&m, x, mask);
        let first = hidden.slice(1, 0, 1, 1).reshape((dim(hidden, 0), self.width));
        Encoded { hidden, pooled: m.at("pooler").linear(first, self.width).tanh() }
    }

    /// The layers `layer.N` of `m`, one after the other.
    #[track_caller]
    pub(crate) fn layers<'s>(&self, m: &Module<'s>, x: Values<'s>, mask: Values<'s>) -> Values<'s> {
        (0..self.layers).fold(x, |x, i| self.layer(&m.at("layer").at(i), x, mask))
    }

    #[track_caller]
    fn layer<'s>(&self, m: &Module<'s>, x: Values<'s>, mask: Values<'s>) -> Values<'s> {
        let x = x + m.at("attention").self_attention(x, self.heads, mask);
        let x = m.at("attention_norm").layer_norm(x, EPS);
        let inner = gelu(m.at("intermediate").linear(x, 4 * last(x)));
        m.at("output_norm").layer_norm(x + m.at("output").linear(inner, last(x)), EPS)
    }
}
