//! Mini-batches: rows of tensors, drawn by the program itself in an order that is new in every epoch.

use quearn_stage::rep::{ElementMarker, I64, Rep, SEED, STEP, Stage, Tensor};

/// The stream of random numbers that orders come from, beside the epoch; layers count theirs from 0 up.
const STREAM: i64 = -1;

/// The rows of a step.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'s> {
    index: Rep<'s, Tensor<I64>>,
}

impl<'s> Draw<'s> {
    /// `batch` of `rows` rows: every epoch of [`steps_in_epoch`] steps goes through all rows in random order, but for what is
    /// left when they are dealt out in batches. Which rows a step gets follows from the seed and its number alone.
    #[track_caller]
    pub fn new(s: &'s Stage, rows: u64, batch: u64) -> Draw<'s> {
        let scalar = Vec::<u64>::new;
        let (seed, step) = (s.input::<I64>(SEED, scalar()), s.state::<I64>(STEP, scalar()));
        // At least one, so that batches that are too large meet the check of the index, not a division by zero.
        let steps = steps_in_epoch(rows, batch).max(1) as i64;
        let places = (step % steps) * batch as i64 + s.iota(batch);
        // The epoch tells the streams of orders apart.
        let random = s.random(seed, (step / steps + 1) * STREAM);
        Draw { index: random.shuffled(rows, places) }
    }

    /// The rows of a tensor whose leading dimension has all of them.
    #[track_caller]
    pub fn rows<T: ElementMarker>(&self, all: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
        all.gather(self.index)
    }
}

/// Steps of an epoch.
pub fn steps_in_epoch(rows: u64, batch: u64) -> u64 {
    rows.checked_div(batch).unwrap_or(0)
}
