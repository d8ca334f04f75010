//! Progress bars on stderr, one for each table; nothing where stderr is no terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Bars by table.
#[derive(Default)]
pub struct Bars {
    all: MultiProgress,
    tables: RefCell<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    /// No bars yet.
    pub fn new() -> Bars {
        Bars::default()
    }

    /// What generating and loading report to.
    pub fn progress(&self) -> impl Fn(&str, u64, u64) {
        |table, done, total| {
            let mut tables = self.tables.borrow_mut();
            let bar = tables.entry(table.to_owned()).or_insert_with(|| self.bar(table));
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn bar(&self, table: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg:9} {bar:30} {human_pos:>11} of {human_len} rows");
        let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.all.add(bar.with_message(table.to_owned()))
    }

    /// Takes the bars away.
    pub fn clear(self) {
        self.tables.into_inner().values().for_each(ProgressBar::finish_and_clear);
    }
}
