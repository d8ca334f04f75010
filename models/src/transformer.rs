//! A small encoder that tells texts apart.

use crate::bert::{BERT_SMALL, Bert};
use crate::nn::{Module, Values, last};
use quearn_stage::rep::{I64, Rep, Stage, Tensor};

/// The encoder: 4 layers of 256, for texts of up to 64 words.
const ENCODER: Bert = Bert { positions: 64, ..BERT_SMALL };

/// Logits [n, 10] of texts [n, length]: the mean of all words behind the encoder's layers, classified.
#[track_caller]
pub fn transformer_small<'s>(s: &'s Stage, words: Rep<'s, Tensor<I64>>) -> Values<'s> {
    let m = Module::root(s);
    let x = m.at("word_embeddings").embedding(words, ENCODER.vocabulary, ENCODER.width)
        + m.at("position_embeddings").embedding(s.iota(last(words)), ENCODER.positions, ENCODER.width);
    let x = ENCODER.layers(&m, x, s.constant(0.0f32).as_tensor());
    m.at("classifier").linear(x.mean([1]), 10)
}
