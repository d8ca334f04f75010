//! Random queries with models: one fused program, the same without rewrites, and two programs with Arrow between them give
//! the same.
//!
//! `PROPERTY_CASES` sets the number of cases, `PROPERTY_SEED` runs one.

use quearn::data::{LoadOptions, Table, Tensor};
use quearn::eval::Inputs;
use quearn::lower::LowerError;
use quearn::prelude::*;
use quearn::rewrite::RewriteOptions;
use quearn::testing::{BETWEEN, Parts, same_rows};

/// Floats may be summed in another order.
const TOLERANCE: f64 = 1e-3;

fn session(backend: BackendKind, rewrites: RewriteOptions, inputs: &Inputs, threads: usize) -> Session {
    let builder = Session::builder().backend(backend).threads(threads).rewrites(rewrites);
    let mut session = builder.build().unwrap();
    for (name, tensor) in &inputs.tensors {
        session.bind(name, Tensor::try_from(tensor).unwrap());
    }
    for (name, table) in &inputs.tables {
        session.add_table(Table::from_batches_with(name, &[table.to_batch().unwrap()], &LoadOptions::COMPACT).unwrap());
    }
    session
}

/// The program in two parts.
fn apart(parts: &Parts, backend: BackendKind, threads: usize) -> Result<Outputs, Error> {
    let mut session = session(backend, RewriteOptions::default(), &parts.whole.inputs, threads);
    let query = session.run(&parts.query)?;
    session.add_table(Table::from_batches(BETWEEN, std::slice::from_ref(query.table(BETWEEN)?))?);
    session.run(&parts.model)
}

/// Is it a failure of the data, or a program that cannot be compiled yet? A part computes columns that the whole does not.
fn is_excused(error: &Error) -> bool {
    matches!(error, Error::Failed { .. } | Error::Lower(LowerError::Unsupported { .. }))
}

fn check(backend: BackendKind, cases: u64) {
    let setting = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match setting("PROPERTY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("PROPERTY_CASES").unwrap_or(cases),
    };
    let (mut compared, all) = (0, seeds.clone().count());
    for seed in seeds {
        let parts = Parts::random(seed, 1 + seed as usize % 9);
        let (inputs, graph, threads) = (&parts.whole.inputs, &parts.whole.graph, 1 + seed as usize % 2);
        let fused = session(backend, RewriteOptions::default(), inputs, threads).run(graph);
        let plain = session(backend, RewriteOptions::none(), inputs, threads).run(graph);
        let apart = apart(&parts, backend, threads);
        let answers = [&fused, &plain, &apart].map(|outcome| match outcome {
            Ok(outputs) => Some(outputs.table("out").unwrap()),
            Err(error) if is_excused(error) => None,
            Err(error) => panic!("seed {seed}: {error}\n{}", parts.whole),
        });
        let [Some(fused), Some(plain), Some(apart)] = answers else { continue };
        let ordered = parts.whole.ordered[0];
        for (name, other) in [("without rewrites", plain), ("in two programs", apart)] {
            let same = same_rows(fused, other, ordered, TOLERANCE);
            same.unwrap_or_else(|difference| panic!("seed {seed}, fused and {name}: {difference}\n{}", parts.whole));
        }
        compared += 1;
    }
    assert!(compared * 10 >= all * 7 || all == 1, "only {compared} of {all} could be compared");
}

#[test]
fn one_program_or_two_on_the_default_backend() {
    check(BackendKind::Auto, 40);
}

#[test]
fn one_program_or_two_on_the_interpreter() {
    check(BackendKind::Interp, 100);
}
