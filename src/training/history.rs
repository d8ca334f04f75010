//! What has happened: the loss of each step, the score of each epoch; as tables, and as a picture.

use crate::error::{Error, Result};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::sync::Arc;

/// A step.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stepped {
    /// Its number, from 1.
    pub step: u64,
    /// Loss.
    pub loss: f64,
    /// Learning rate.
    pub rate: f64,
}

/// The score after an epoch.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scored {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Steps so far.
    pub step: u64,
    /// The larger the better.
    pub score: f64,
}

/// All steps and scores.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Steps, in order.
    pub steps: Vec<Stepped>,
    /// Scores, in order.
    pub scores: Vec<Scored>,
}

impl History {
    /// A row for each step: `step`, `loss`, `rate`. A session takes it as a table
    /// ([`Table::from_batches`](crate::data::Table::from_batches)), and programs query it.
    ///
    /// # Errors
    /// Arrow does not take the columns: a bug.
    pub fn steps_batch(&self) -> Result<RecordBatch> {
        let step = Int64Array::from_iter_values(self.steps.iter().map(|s| s.step as i64));
        let loss = Float64Array::from_iter_values(self.steps.iter().map(|s| s.loss));
        let rate = Float64Array::from_iter_values(self.steps.iter().map(|s| s.rate));
        batch([("step", Arc::new(step) as ArrayRef), ("loss", Arc::new(loss)), ("rate", Arc::new(rate))])
    }

    /// A row for each epoch that was scored: `epoch`, `step`, `score`.
    ///
    /// # Errors
    /// As [`History::steps_batch`].
    pub fn scores_batch(&self) -> Result<RecordBatch> {
        let epoch = Int64Array::from_iter_values(self.scores.iter().map(|s| s.epoch as i64));
        let step = Int64Array::from_iter_values(self.scores.iter().map(|s| s.step as i64));
        let score = Float64Array::from_iter_values(self.scores.iter().map(|s| s.score));
        batch([("epoch", Arc::new(epoch) as ArrayRef), ("step", Arc::new(step)), ("score", Arc::new(score))])
    }

    /// Have so many epochs passed since the best score?
    pub(super) fn is_stale(&self, patience: Option<u64>) -> bool {
        let best = self.scores.iter().rev().max_by(|a, b| a.score.total_cmp(&b.score));
        match (patience, best, self.scores.last()) {
            (Some(patience), Some(best), Some(last)) => last.epoch.saturating_sub(best.epoch) >= patience.max(1),
            _ => false,
        }
    }

    /// The losses as a picture (SVG): each step, and the mean of the steps around it.
    pub fn curve(&self) -> String {
        let losses: Vec<f64> = self.steps.iter().map(|s| s.loss).collect();
        let high = losses.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let x = |i: usize| LEFT + WIDTH * i as f64 / (losses.len().max(2) - 1) as f64;
        let y = |loss: f64| TOP + HEIGHT * (1.0 - loss / high);
        let line = |values: &[f64]| -> String {
            values.iter().enumerate().map(|(i, loss)| format!("{:.1},{:.1} ", x(i), y(*loss))).collect()
        };
        let mut svg = String::new();
        let _ = write!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 360" font-family="sans-serif" font-size="12">
<rect width="640" height="360" fill="white"/>
<path d="M{LEFT},{TOP}V{bottom}H{right}" fill="none" stroke="black"/>
<polyline points="{all}" fill="none" stroke="#9ecae1"/>
<polyline points="{smooth}" fill="none" stroke="#08519c" stroke-width="2"/>
<text x="{LEFT}" y="{below}">1</text><text x="{right}" y="{below}" text-anchor="end">step {steps}</text>
<text x="{before}" y="{bottom}" text-anchor="end">0</text><text x="{before}" y="{first}" text-anchor="end">{high:.3}</text>
<text x="{LEFT}" y="14">loss</text>
</svg>
"##,
            bottom = TOP + HEIGHT,
            right = LEFT + WIDTH,
            all = line(&losses).trim_end(),
            smooth = line(&smoothed(&losses)).trim_end(),
            below = TOP + HEIGHT + 18.0,
            before = LEFT - 6.0,
            first = TOP + 10.0,
            steps = losses.len(),
        );
        svg
    }
}

/// The area of the picture that curves are in.
const LEFT: f64 = 56.0;
const TOP: f64 = 20.0;
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;

/// For each value the mean of those around it, a twentieth of all to each side.
fn smoothed(values: &[f64]) -> Vec<f64> {
    let reach = values.len() / 20;
    let around = |i: usize| {
        let part = &values[i.saturating_sub(reach)..(i + reach + 1).min(values.len())];
        part.iter().sum::<f64>() / part.len() as f64
    };
    (0..values.len()).map(around).collect()
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter(columns).map_err(|e| Error::Setting(format!("internal error: metrics: {e}")))
}
