//! Runs random cases in a session and judges the answers.

mod kinds;
mod vary;
mod verdict;

use quearn::data::{LoadOptions, Table, Tensor};
use quearn::eval::Inputs;
use quearn::lower::LowerError;
use quearn::prelude::*;
use quearn::rewrite::{RULES, RewriteOptions};
use quearn::testing::Case;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::result::Result;
use vary::varied;
use verdict::{Oracle, judge};

/// How one run is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    backend: BackendKind,
    threads: usize,
    rewrites: (String, RewriteOptions),
    compact: bool,
    /// Compiled for other tables, which are replaced before the run.
    replaced: bool,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = if self.compact { "compact" } else { "shared" };
        let replaced = if self.replaced { ", which replace others" } else { "" };
        let (backend, threads, rewrites) = (self.backend, self.threads, &self.rewrites.0);
        write!(f, "{backend:?}, {threads} threads, rewrites {rewrites}, tables {stored}{replaced}")
    }
}

/// What came of all runs.
#[derive(Default)]
pub struct Tally {
    /// Runs, over all setups.
    pub runs: usize,
    /// Reports of runs that went wrong.
    pub wrong: Vec<String>,
    /// Runs that gave an answer, and runs that failed as they should.
    answers: usize,
    failures: usize,
    /// Runs that ended with "cannot be compiled yet", by what it was.
    unsupported: BTreeMap<String, usize>,
}

impl Tally {
    /// Share of runs whose program cannot be compiled yet.
    pub fn unsupported_share(&self) -> f64 {
        self.unsupported.values().sum::<usize>() as f64 / self.runs.max(1) as f64
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (runs, answers, failures) = (self.runs, self.answers, self.failures);
        let share = 100.0 * self.unsupported_share();
        write!(f, "{runs} runs: {answers} answers, {failures} failures, {share:.2} % not supported")?;
        self.unsupported.iter().try_for_each(|(what, n)| write!(f, "\n  {n:5} {what}"))
    }
}

/// The outcome of one run that is as it should be.
pub enum Verdict {
    /// The right answer.
    Answer,
    /// A failure that the data explain.
    Failure,
    /// The program cannot be compiled yet, and why.
    Unsupported(String),
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs many seeds; sizes go round.
pub fn run_all(backend: BackendKind, make: fn(u64, usize) -> Case, cases: u64) -> Tally {
    let mut tally = Tally::default();
    let first: u64 = setting("PROPERTY_FIRST").unwrap_or(0);
    let seeds = match setting::<u64>("PROPERTY_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + setting("PROPERTY_CASES").unwrap_or(cases),
    };
    for seed in seeds {
        // Mostly small ones, which are easy to read; some that fill more than a chunk of memory.
        let usual = if seed % 20 == 19 { 100 } else { 1 + seed as usize % 9 };
        let size = setting("PROPERTY_SIZE").unwrap_or(usual);
        if std::env::var_os("PROPERTY_TRACE").is_some() {
            eprintln!("seed {seed}, size {size}");
        }
        let case = make(seed, size);
        if setting::<u64>("PROPERTY_SEED").is_some() {
            println!("{case}");
        }
        run_case(&case, backend, &mut tally);
    }
    tally
}

fn run_case(case: &Case, backend: BackendKind, tally: &mut Tally) {
    let oracle = Oracle::of(case);
    for setup in setups(case.seed, backend) {
        tally.runs += 1;
        let outcome = catch_unwind(AssertUnwindSafe(|| run(case, &oracle, &setup)));
        match outcome.unwrap_or_else(|panic| Err(format!("a panic: {}", words_of(&*panic)))) {
            Ok(Verdict::Answer) => tally.answers += 1,
            Ok(Verdict::Failure) => tally.failures += 1,
            Ok(Verdict::Unsupported(what)) => {
                let first = format!("{what} (seed {} and others)", case.seed);
                let known = tally.unsupported.keys().find(|k| k.starts_with(&what)).cloned();
                *tally.unsupported.entry(known.unwrap_or(first)).or_default() += 1;
            }
            Err(what) => {
                let report = format!("{what}\n{setup}\n{case}");
                eprintln!("WRONG {}: {setup}: {}", case.seed, what.lines().next().unwrap_or_default());
                tally.wrong.push(report);
            }
        }
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Four setups a seed: all rewrites, none, all but one, which goes round, and tables that replace others; threads and
/// storage go round, too.
fn setups(seed: u64, backend: BackendKind) -> Vec<Setup> {
    let optional: Vec<_> = RULES.iter().filter(|rule| !rule.required).collect();
    let skipped = optional[seed as usize % optional.len()].name;
    let but_one = RewriteOptions::default().without(skipped).expect("a rule that exists");
    let rewrites = [
        ("all".to_owned(), RewriteOptions::default()),
        ("none".to_owned(), RewriteOptions::none()),
        (format!("all but {skipped}"), but_one),
        ("all".to_owned(), RewriteOptions::default()),
    ];
    let setup = |(i, rewrites): (usize, _)| {
        let turn = seed as usize + i;
        Setup { backend, threads: 1 + turn / 2 % 2, rewrites, compact: turn.is_multiple_of(2), replaced: i == 3 }
    };
    rewrites.into_iter().enumerate().map(setup).collect()
}

fn session(case: &Case, setup: &Setup) -> Session {
    let (_, rewrites) = setup.rewrites.clone();
    let builder = Session::builder().backend(setup.backend).threads(setup.threads).rewrites(rewrites);
    let mut session = builder.build().expect("a session");
    for (name, tensor) in &case.inputs.tensors {
        session.bind(name, Tensor::try_from(tensor).expect("random tensors are numbers"));
    }
    session
}

fn add_tables(session: &mut Session, inputs: &Inputs, compact: bool) {
    let options = if compact { LoadOptions::COMPACT } else { LoadOptions::SHARE };
    for (name, table) in &inputs.tables {
        let batch = table.to_batch().expect("random tables have Arrow types");
        session.add_table(Table::from_batches_with(name, &[batch], &options).expect("a table"));
    }
}

fn outputs(case: &Case, setup: &Setup) -> Result<Outputs, Error> {
    let mut session = session(case, setup);
    if !setup.replaced {
        add_tables(&mut session, &case.inputs, setup.compact);
        return session.run(&case.graph);
    }
    let other = varied(&case.inputs, case.seed);
    add_tables(&mut session, &other, !case.seed.is_multiple_of(3));
    let program = session.compile(&case.graph)?;
    // What the data make of it does not matter, but weights are prepared now.
    let _ = program.run(&session);
    add_tables(&mut session, &case.inputs, setup.compact);
    program.run(&session)
}

fn run(case: &Case, oracle: &Oracle, setup: &Setup) -> Result<Verdict, String> {
    match outputs(case, setup) {
        Err(Error::Lower(LowerError::Unsupported { node, what })) => {
            let node = node.split(['(', ' ', '%']).next().unwrap_or_default();
            Ok(Verdict::Unsupported(format!("{node}: {what}")))
        }
        result => judge(case, oracle, &setup.rewrites.1, result),
    }
}
