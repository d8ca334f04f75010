//! Random numbers of the program that is written, and what is made of them.
//!
//! They come by counting ([`Op::Random`]): equal seeds, streams and counters give equal numbers, on any machine and
//! with any number of threads, in the evaluator and in compiled code.

use super::constant::IntoRep;
use super::marker::{F32, Float, I64, ScalarMarker, Tensor};
use super::stage::{Rep, Stage};
use super::tensor::IntoShape;
use crate::graph::{Dim, Literal, Op};

/// The place that random numbers come from: those of another seed or stream have nothing to do with these.
#[derive(Clone, Copy, Debug)]
pub struct Random<'s> {
    seed: Rep<'s, Tensor<I64>>,
    stream: Rep<'s, Tensor<I64>>,
}

impl Stage {
    /// Random numbers of a seed and a stream, two scalars: a stream is, say, the number of a step times the number of layers,
    /// plus that of the layer.
    #[track_caller]
    pub fn random<'s>(
        &'s self,
        seed: impl IntoRep<'s, Tensor<I64>>,
        stream: impl IntoRep<'s, Tensor<I64>>,
    ) -> Random<'s> {
        Random { seed: seed.into_rep(self), stream: stream.into_rep(self) }
    }

    /// A float known now, as a tensor of rank 0.
    #[track_caller]
    pub fn number<T: Float>(&self, value: f64) -> Rep<'_, Tensor<T>> {
        match Literal::float(T::SCALAR, value) {
            Some(literal) => self.make(Op::Const(literal), &[]),
            None => self.fail("scalar.const", format!("{value} is no {}", T::SCALAR)),
        }
    }
}

impl<'s> Random<'s> {
    /// A number for each counter: as `F32` and `F64` uniform in 0..1 (without 1), as `I64` uniform from 0 to 2^63 - 1;
    /// other types are a mistake.
    #[track_caller]
    pub fn at<T: ScalarMarker>(self, counter: impl IntoRep<'s, Tensor<I64>>) -> Rep<'s, Tensor<T>> {
        let stage = self.seed.stage();
        let counter = counter.into_rep(stage);
        stage.make(Op::Random(T::SCALAR), &[self.seed.dyn_(), self.stream.dyn_(), counter.dyn_()])
    }

    /// A tensor of numbers; all extents must be known.
    #[track_caller]
    pub fn tensor<T: ScalarMarker>(self, shape: impl IntoShape) -> Rep<'s, Tensor<T>> {
        let (stage, shape) = (self.seed.stage(), shape.into_shape());
        match shape.iter().map(Dim::as_const).try_fold(1u64, |product, extent| product.checked_mul(extent?)) {
            Some(count) => self.at(stage.iota(count).reshape(shape)),
            None => stage.fail("scalar.random", "all extents of a random tensor must be known"),
        }
    }

    /// The numbers from 0 up to (and without) `count` in random order, by the swap-or-not shuffle of V. Hoang, B. Morris and
    /// P. Rogaway, "An enciphering scheme based on a card shuffle" (CRYPTO 2012): in each round a random sum pairs the
    /// positions, and a random bit says whether the two of a pair change places. So every element finds its place on its own.
    #[track_caller]
    pub fn permutation(self, count: u64) -> Rep<'s, Tensor<I64>> {
        self.shuffled(count, self.seed.stage().iota(count))
    }

    /// What stands at some places of [`Random::permutation`]; the others are not made. Places outside have no meaning.
    #[track_caller]
    pub fn shuffled(self, count: u64, places: Rep<'s, Tensor<I64>>) -> Rep<'s, Tensor<I64>> {
        let stage = self.seed.stage();
        let rounds = i64::from(6 * (u64::BITS - count.leading_zeros()));
        let Some(n) = i64::try_from(count).ok().filter(|n| n.checked_mul(rounds.max(2)).is_some()) else {
            return stage.fail("scalar.random", format!("a permutation of {count} numbers"));
        };
        stage.loop_(rounds, places, |round, x: Rep<'s, Tensor<I64>>| {
            let round: Rep<'s, Tensor<I64>> = round.into_rep(stage);
            // Counters below 0 are those of the sums.
            let sum = self.at::<I64>(-round - 1) % n;
            let other = sum - x;
            let other = other.lt(0).choose(other + n, other);
            let swaps = self.at::<F32>(round * n + x.maximum(other)).lt(0.5f32);
            swaps.choose(other, x)
        })
    }
}

impl<'s, T: Float> Rep<'s, Tensor<T>> {
    /// Dropout as in training: each element is 0 with probability `rate`, else divided by 1 - `rate`, so that the mean stays.
    /// A rate outside of 0..1 is a mistake; all extents must be known.
    #[track_caller]
    pub fn dropout(self, rate: f64, random: Random<'s>) -> Rep<'s, Tensor<T>> {
        let stage = self.stage();
        if !(0.0..1.0).contains(&rate) {
            return stage.fail("scalar.random", format!("a dropout rate of {rate}; expected one from 0 up to 1"));
        }
        let kept = random.tensor::<T>(self.shape()).ge(stage.number::<T>(rate));
        kept.choose(self * stage.number::<T>(1.0 / (1.0 - rate)), stage.number::<T>(0.0))
    }
}
