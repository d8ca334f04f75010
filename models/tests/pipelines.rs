//! The pipelines, run by the naive evaluator and compiled by each backend, give what other systems give.

use quearn::data::Tensor;
use quearn::eval::{EvalTable, EvalTensor, EvalValue, Inputs, evaluate};
use quearn::moved::MoveKind;
use quearn::rewrite::RewriteOptions;
use quearn::{BackendKind, Level, Outcome, Session};
use quearn_models::Error;
use quearn_models::pipelines::{Alone, PLAIN, Pipeline, Results};

/// The pipelines in which a tensor program needs all rows of a query at once, so that these are copied.
const AT_A_BORDER: &[&str] = &["P8"];

/// A scale at which there is little to do.
const SCALE: f64 = 0.01;

fn find(name: &str) -> &'static Pipeline {
    Pipeline::find(name).unwrap()
}

/// Compiles and runs a pipeline, and compares its answer.
fn compiled(name: &str, backend: BackendKind, threads: usize) {
    let pipeline = find(name);
    let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
    pipeline.data(SCALE, &|_| ()).unwrap().bind(&mut session);
    let outputs = session.run(&pipeline.graph(SCALE).unwrap()).unwrap();
    pipeline.check(&pipeline.answer(&Results::from(&outputs), SCALE).unwrap(), SCALE).unwrap();
    let moved = outputs.moved();
    assert_eq!(moved.border() > 0, AT_A_BORDER.contains(&name), "{name} with {threads} threads:\n{moved}");
    assert!(moved.bytes(MoveKind::Read) > 0 && moved.bytes(MoveKind::Result) > 0, "{name}:\n{moved}");
}

/// Evaluates a pipeline, and compares its answer.
fn evaluated(name: &str) {
    let pipeline = find(name);
    let data = pipeline.data(SCALE, &|_| ()).unwrap();
    let inputs = data.tables.iter().fold(Inputs::new(), |all, table| all.table(table.name(), EvalTable::from(table)));
    let inputs = data.tensors.iter().fold(inputs, |all, (name, tensor)| all.tensor(name, EvalTensor::from(tensor)));
    let outcome = |value: EvalValue| match value {
        EvalValue::Table(table) => Outcome::Table(table.to_batch().unwrap()),
        value => Outcome::Tensor(Tensor::try_from(&**value.tensor()).unwrap()),
    };
    let results = evaluate(&pipeline.graph(SCALE).unwrap(), &inputs).unwrap();
    let results: Results = results.into_iter().map(|(name, value)| (name, outcome(value))).collect();
    pipeline.check(&pipeline.answer(&results, SCALE).unwrap(), SCALE).unwrap();
}

macro_rules! pipelines {
    ($($test:ident = $name:literal),* $(,)?) => {
        #[cfg(any(feature = "llvm", feature = "llvm19"))]
        mod llvm {
            use super::*;
            $(
                #[test]
                fn $test() {
                    [1, 2].into_iter().for_each(|threads| compiled($name, BackendKind::Llvm, threads));
                }
            )*
        }

        #[test]
        fn every_pipeline_is_tested() {
            let all: Vec<&str> = quearn_models::pipelines::PIPELINES.iter().map(|pipeline| pipeline.name).collect();
            assert_eq!(all, [$($name),*]);
        }
    };
}

pipelines! {
    crime_index = "P1",
    black_scholes = "P2",
    haversine = "P3",
    zip_codes = "P4",
    customer_score = "P5",
    line_items = "P6",
    star_join = "P7",
    k_means = "P8",
    small_pictures = "P9a",
    large_pictures = "P9b",
    boosted_trees = "P10",
    similar_items = "P11",
    ridge = "P12",
}

/// Programs that are plainly written give the same whatever is made of them: with all rewrites, with none, and with two threads.
#[test]
fn plain_programs_give_the_same_without_rewrites() {
    for pipeline in PLAIN {
        let session = |rewrites, stop, threads| {
            let builder = Session::builder().threads(threads).rewrites(rewrites).stop_at_match(stop);
            let mut session = builder.build().unwrap();
            pipeline.data(SCALE, &|_| ()).unwrap().bind(&mut session);
            session
        };
        let answer = |session: &Session| {
            let outputs = session.run(&pipeline.graph(SCALE).unwrap()).unwrap();
            pipeline.answer(&Results::from(&outputs), SCALE).unwrap()
        };
        // Of stored tables only columns are loaded that a rewritten program reads.
        let few = RewriteOptions::none().with("prune_projection").unwrap();
        let plain = answer(&session(few, false, 1));
        for threads in [1, 2] {
            let found = answer(&session(RewriteOptions::default(), true, threads));
            pipeline.compare(&found, &plain).unwrap();
        }
        match pipeline.check(&plain, SCALE) {
            Ok(_) | Err(Error::NoExpectation { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Each of them shows what it is there for.
#[test]
fn plain_programs_are_rewritten() {
    let rules = [
        ("P10-late", "filter_before_model x"),
        ("P10-best", "stop_trees x"),
        ("P10-sparse", "drop_zero_weights x"),
        ("P10-sparse", "gather_one_hot x"),
        ("P6-view", "prune_join x"),
        ("P7-scores", "split_linear_over_join x"),
    ];
    for (name, rule) in rules {
        let mut session = Session::builder().threads(1).build().unwrap();
        find(name).data(SCALE, &|_| ()).unwrap().bind(&mut session);
        let rewritten = session.explain(&find(name).graph(SCALE).unwrap(), Level::Rewritten).unwrap();
        assert!(rewritten.contains(rule), "{name}: no {rule} in\n{rewritten}");
    }
    let mut session = Session::builder().threads(1).build().unwrap();
    find("P6-any").data(SCALE, &|_| ()).unwrap().bind(&mut session);
    let plan = session.explain(&find("P6-any").graph(SCALE).unwrap(), Level::Pipelines).unwrap();
    assert!(plan.contains("none whose key was found"), "{plan}");
}

/// The models of pipelines run on data in place.
#[test]
fn models_run_alone() {
    for name in ["P6", "P9a"] {
        let alone = Alone::find(name).unwrap();
        let mut session = Session::builder().threads(1).build().unwrap();
        alone.pipeline().data(SCALE, &|_| ()).unwrap().bind(&mut session);
        let graph = alone.graph(&mut session, 100).unwrap();
        let outputs = session.run(&graph).unwrap();
        let Some((_, Outcome::Tensor(result))) = outputs.iter().next() else { panic!("a tensor") };
        assert_eq!(result.shape(), [100], "{name}");
    }
}

/// The regression over a star join sums up its tables; no product is over rows of the join.
#[test]
fn the_star_join_is_not_made() {
    let mut session = Session::builder().threads(1).build().unwrap();
    let pipeline = find("P7");
    pipeline.data(SCALE, &|_| ()).unwrap().bind(&mut session);
    let graph = pipeline.graph(SCALE).unwrap();
    let rewritten = session.explain(&graph, Level::Rewritten).unwrap();
    assert!(rewritten.contains("factorise_products x1"), "{rewritten}");
    let pipelines = session.explain(&graph, Level::Pipelines).unwrap();
    assert!(!pipelines.contains("products of 42 and 42 columns"), "{pipelines}");
}

#[test]
fn pipelines_evaluate() {
    ["P1", "P2", "P3", "P4", "P9a", "P10-late"].into_iter().for_each(evaluated);
}

#[test]
fn pipelines_are_interpreted() {
    ["P1", "P9a"].into_iter().for_each(|name| compiled(name, BackendKind::Interp, 2));
}
