//! Mini-batches: rows of tensors, drawn by the program itself in an order that is new in every epoch.

use quearn_stage::rep::{ElementMarker, I64, Rep, SEED, STEP, Stage, Tensor};

/// The stream of random numbers that orders come from, beside the epoch; layers count theirs from 0 up.
const STREAM: i64 = -1;

/// What becomes of the rows that are left when an epoch is dealt out in batches. A program is compiled for batches of one size,
/// so that none can be smaller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Last {
    /// The last batch is filled up with the first rows of the next epoch, which goes on behind them: every row is drawn equally
    /// often. A row may be in that batch twice. As PyTorch's `drop_last=False`, but for the size of that batch.
    #[default]
    Carry,
    /// They are not drawn in this epoch: PyTorch's `drop_last=True`.
    Drop,
}

impl Last {
    /// Steps in which all rows are drawn, but for those that are dropped; with rows that are carried over the last step draws some
    /// of the next epoch as well.
    pub fn steps(self, rows: u64, batch: u64) -> u64 {
        match self {
            _ if batch == 0 => 0,
            Last::Carry => rows.div_ceil(batch),
            Last::Drop => rows / batch,
        }
    }
}

/// The rows of a step.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'s> {
    index: Rep<'s, Tensor<I64>>,
}

impl<'s> Draw<'s> {
    /// `batch` of `rows` rows, at most all of them: every epoch goes through all rows in random order, and what is left when they
    /// are dealt out in batches is [carried over](Last::Carry). Which rows a step gets follows from the seed and its number
    /// alone.
    #[track_caller]
    pub fn new(s: &'s Stage, rows: u64, batch: u64) -> Draw<'s> {
        Draw::with(s, rows, batch, Last::default())
    }

    /// As [`Draw::new`], with a choice of what becomes of the rows that are left.
    #[track_caller]
    pub fn with(s: &'s Stage, rows: u64, batch: u64, last: Last) -> Draw<'s> {
        if batch > rows {
            // The look-up is where this is noticed.
            return Draw { index: s.iota(batch) };
        }
        let scalar = Vec::<u64>::new;
        let (seed, step) = (s.input::<I64>(SEED, scalar()), s.state::<I64>(STEP, scalar()));
        // The epoch tells the streams of orders apart.
        let order = |epoch: Rep<'s, Tensor<I64>>, places| s.random(seed, (epoch + 1) * STREAM).shuffled(rows, places);
        let index = match last {
            Last::Carry if !rows.is_multiple_of(batch.max(1)) => {
                let (all, first) = (rows as i64, step * batch as i64);
                let epoch = first / all;
                let places = first - epoch * all + s.iota(batch);
                places.lt(all).choose(order(epoch, places), order(epoch + 1, places - all))
            }
            _ => {
                let steps = last.steps(rows, batch).max(1) as i64;
                order(step / steps, (step % steps) * batch as i64 + s.iota(batch))
            }
        };
        Draw { index }
    }

    /// The rows of a tensor whose leading dimension has all of them.
    #[track_caller]
    pub fn rows<T: ElementMarker>(&self, all: Rep<'s, Tensor<T>>) -> Rep<'s, Tensor<T>> {
        all.gather(self.index)
    }
}

/// Steps of an epoch of [`Draw::new`].
pub fn steps_in_epoch(rows: u64, batch: u64) -> u64 {
    Last::default().steps(rows, batch)
}
