//! Progress bars on stderr, one for each thing that is made; nothing where stderr is no terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use quearn_models::Step;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Bars by what they show.
#[derive(Default)]
pub struct Bars {
    all: MultiProgress,
    bars: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    /// No bars yet.
    pub fn new() -> Bars {
        Bars::default()
    }

    /// Something is at `done` of `total`.
    pub fn show(&self, what: &str, done: u64, total: u64) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(what.to_owned()).or_insert_with(|| self.bar(what));
        bar.set_length(total);
        bar.set_position(done);
    }

    /// What the generators of this crate report to.
    pub fn steps(&self) -> impl Fn(Step) + Sync {
        |step| self.show(step.what, step.done as u64, step.total as u64)
    }

    /// What generating and loading tables reports to.
    pub fn tables(&self) -> impl Fn(&str, u64, u64) {
        |table, done, total| self.show(&format!("table {table}"), done, total)
    }

    fn bar(&self, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg:22} {bar:30} {human_pos:>11} of {human_len}");
        let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.all.add(bar.with_message(what.to_owned()))
    }

    /// Takes the bars away.
    pub fn clear(self) {
        let bars = self.bars.into_inner().unwrap_or_else(PoisonError::into_inner);
        bars.values().for_each(ProgressBar::finish_and_clear);
    }
}
