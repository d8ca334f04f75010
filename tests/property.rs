//! Random programs on random data: the session, on both backends, with any rewrites and either way of storing tables,
//! gives what the naive evaluator gives for the original graph, or fails where that fails.
//!
//! `PROPERTY_CASES` sets the number of cases, `PROPERTY_SEED` runs (and prints) one seed only, `PROPERTY_FIRST` is the first of several, `PROPERTY_SIZE` fixes the size, `PROPERTY_TRACE` prints every seed
//! before it runs.

mod property_harness;

use property_harness::{Tally, run_all};
use quearn::prelude::BackendKind;
use quearn::testing::Case;

#[test]
fn queries_on_the_default_backend() {
    check(BackendKind::Auto, Case::query, 100);
}

#[test]
fn queries_on_the_interpreter() {
    check(BackendKind::Interp, Case::query, 500);
}

#[test]
fn networks_on_the_default_backend() {
    check(BackendKind::Auto, Case::network, 80);
}

#[test]
fn networks_on_the_interpreter() {
    check(BackendKind::Interp, Case::network, 300);
}

fn check(backend: BackendKind, make: fn(u64, usize) -> Case, cases: u64) {
    let tally: Tally = run_all(backend, make, cases);
    println!("{tally}");
    assert!(tally.wrong.is_empty(), "{} wrong of {}, the first:\n{}", tally.wrong.len(), tally.runs, tally.wrong[0]);
    assert!(tally.unsupported_share() < MAX_UNSUPPORTED, "too many programs cannot be compiled:\n{tally}");
}

/// Share of runs that may end with "cannot be compiled yet".
const MAX_UNSUPPORTED: f64 = 0.01;
