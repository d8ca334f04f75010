//! Connectionist temporal classification: the loss of a sequence of classes whose places in time are not known.

use super::control::Walk;
use super::marker::{Bool, ElementMarker, FloatLike, I64, Tensor};
use super::stage::Rep;
use crate::graph::{Dim, Op, ReduceOp};

/// The logarithm of nothing: finite, so that differences of it are numbers.
const NOTHING: f64 = -1e30;

/// What a CTC loss compares with; a class is a number below that of the classes.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'s> {
    /// The classes of each sequence, `[n, s]`; what is behind its length may be any class.
    pub targets: Rep<'s, Tensor<I64>>,
    /// How many classes each sequence has, `[n]`, at most `s`.
    pub target_lengths: Rep<'s, Tensor<I64>>,
    /// How many time steps each sequence has, `[n]`, at most `t`.
    pub input_lengths: Rep<'s, Tensor<I64>>,
    /// The class that means "nothing new".
    pub blank: i64,
}

impl<'s, T: ElementMarker + FloatLike<Quotient: ElementMarker>> Rep<'s, Tensor<T>> {
    /// CTC loss of `self [t, n, classes]`, logarithms of probabilities as [`Rep::log_softmax`] gives them, against
    /// sequences of classes: for each, minus the logarithm of the probability of all ways in time that spell it, by the
    /// number of its classes; the mean over all sequences, as PyTorch has it. All extents must be known. A class outside is
    /// an error when the program runs. A sequence that cannot be spelled in its time has the loss 1e30 by its length.
    #[track_caller]
    pub fn ctc(self, sequences: Sequences<'s>) -> Rep<'s, Tensor<T>> {
        let shapes = (self.shape(), sequences.targets.shape());
        let known = |shape: &[Dim]| shape.iter().map(Dim::as_const).collect::<Option<Vec<u64>>>();
        match (known(&shapes.0).as_deref(), known(&shapes.1).as_deref()) {
            (Some(&[steps, count, classes]), Some(&[n, labels])) if n == count => {
                Lattice { scores: self, sequences, steps, count, classes, labels }.loss()
            }
            _ if self.node().is_none() || sequences.targets.node().is_none() => self.stage().poisoned(),
            _ => self.stage().fail("ctc", "needs scores [t, n, classes] and targets [n, s] of known extents"),
        }
    }
}

/// The classes of all sequences with blanks between and around them, step by step in time.
struct Lattice<'s, T> {
    scores: Rep<'s, Tensor<T>>,
    sequences: Sequences<'s>,
    steps: u64,
    count: u64,
    classes: u64,
    labels: u64,
}

impl<'s, T: ElementMarker + FloatLike<Quotient: ElementMarker>> Lattice<'s, T> {
    fn places(&self) -> u64 {
        2 * self.labels + 1
    }

    fn nothing(&self, shape: [u64; 2]) -> Rep<'s, Tensor<T>> {
        self.scores.number_like(NOTHING).broadcast(shape)
    }

    /// The class at each place, `[n, places]`.
    #[track_caller]
    fn spelled(&self) -> Rep<'s, Tensor<I64>> {
        let stage = self.scores.stage();
        // The look-up is where a class outside is noticed.
        let targets: Rep<'s, Tensor<I64>> = stage.iota(self.classes).gather(self.sequences.targets);
        let blank: Rep<'s, Tensor<I64>> = stage.constant(self.sequences.blank).as_tensor();
        let blanks = blank.broadcast([self.count, self.labels, 1]);
        let pairs = blanks.concat([targets.reshape([self.count, self.labels, 1])], 2);
        let pairs = pairs.reshape([self.count, 2 * self.labels]);
        pairs.concat([blank.broadcast([self.count, 1])], 1)
    }

    /// May a place be reached from the one before the blank before it, `[n, places]`? Not if both have one class.
    #[track_caller]
    fn skips(&self, spelled: Rep<'s, Tensor<I64>>) -> Rep<'s, Tensor<Bool>> {
        let blank: Rep<'s, Tensor<I64>> = self.scores.stage().constant(self.sequences.blank).as_tensor();
        if self.places() < 3 {
            return spelled.ne(spelled);
        }
        let before = blank.broadcast([self.count, 2]).concat([spelled.slice(1, 0, 1, self.places() - 2)], 1);
        spelled.ne(blank) & spelled.ne(before)
    }

    /// The scores of the classes at all places and times, `[n, places, t]`.
    #[track_caller]
    fn spelled_scores(&self, spelled: Rep<'s, Tensor<I64>>) -> Rep<'s, Tensor<T>> {
        let by_class = self.scores.permute([1, 2, 0]).reshape([self.count * self.classes, self.steps]);
        let first = (self.scores.stage().iota(self.count) * self.classes as i64).reshape([self.count, 1]);
        by_class.gather(spelled + first)
    }

    /// Moved by some places, with nothing before.
    #[track_caller]
    fn moved(&self, x: Rep<'s, Tensor<T>>, by: u64) -> Rep<'s, Tensor<T>> {
        if by >= self.places() {
            return self.nothing([self.count, self.places()]);
        }
        self.nothing([self.count, by]).concat([x.slice(1, 0, 1, self.places() - by)], 1)
    }

    #[track_caller]
    fn loss(&self) -> Rep<'s, Tensor<T>> {
        let stage = self.scores.stage();
        let spelled = self.spelled();
        let skips = self.skips(spelled);
        let time = stage.iota(self.steps).reshape([1, 1, self.steps]);
        let alive = time.lt(self.sequences.input_lengths.reshape([self.count, 1, 1]));
        // Before the first step all of the probability is at the first place.
        let place = stage.iota(self.places());
        let begin = place.eq(0).choose(self.scores.number_like(0.0), self.scores.number_like(NOTHING));
        let begin = begin.broadcast([self.count, self.places()]);
        let walk = Walk { count: self.steps, axis: 2, back: false };
        let (last, _) = stage.steps(walk, begin, (self.spelled_scores(spelled), alive), |alpha, (scores, alive)| {
            let next = self.moved(alpha, 1);
            let over = skips.choose(self.moved(alpha, 2), self.scores.number_like(NOTHING));
            let largest = alpha.maximum(next).maximum(over).detach();
            let sum = (alpha - largest).exp() + (next - largest).exp() + (over - largest).exp();
            let moved = sum.log() + largest + scores;
            let alpha = alive.choose(moved, alpha);
            (alpha, alpha)
        });
        self.total(last, place)
    }

    /// A sequence ends at its last class or the blank behind it.
    #[track_caller]
    fn total(&self, last: Rep<'s, Tensor<T>>, place: Rep<'s, Tensor<I64>>) -> Rep<'s, Tensor<T>> {
        let lengths = self.sequences.target_lengths;
        let end = (lengths * 2).reshape([self.count, 1]);
        let is_end = place.eq(end) | place.eq(end - 1);
        let ends = is_end.choose(last, self.scores.number_like(NOTHING));
        let largest = ends.reduce_keeping(ReduceOp::Max, vec![1]).detach();
        let total = (ends - largest).exp().reduce_keeping(ReduceOp::Sum, vec![1]).log() + largest;
        let length = self.sequences.target_lengths.maximum(1).reshape([self.count, 1]);
        let length = converted(length, self.scores);
        let by_length: Rep<'s, Tensor<T>> = (total / length).retag();
        -by_length.mean_of_all()
    }
}

/// Integers as floats of the type of others.
#[track_caller]
fn converted<'s, T>(x: Rep<'s, Tensor<I64>>, like: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
    match like.ty().and_then(|ty| Some(ty.as_tensor()?.0.scalar)) {
        Some(scalar) => x.stage().make(Op::Cast(scalar), &[x.dyn_()]),
        None => x.stage().poisoned(),
    }
}
