//! Random programs: each rule alone, and all together, keep every answer and the promises about failures that
//! `quearn::rewrite` states.

use quearn::data::{Catalog, Table};
use quearn::eval::{Errors, EvalError, EvalValue, evaluate_with};
use quearn::rewrite::{RULES, RewriteOptions, rewrite_for};
use quearn::testing::{Case, same_tables, same_tensors};
use quearn_stage::graph::{Graph, verify};
use std::collections::BTreeMap;

const CASES: u64 = 1500;
const FLOAT_TOLERANCE: f64 = 1e-4;

type Answer = Result<Vec<(String, EvalValue)>, EvalError>;

/// Runs the cases; gives how often each rule fired.
fn check(options: &RewriteOptions, may_lose_failures: bool) -> BTreeMap<&'static str, usize> {
    let mut fired = BTreeMap::new();
    for seed in 0..CASES {
        let case = Case::random(seed, 1 + seed as usize % 8);
        let (graph, report) =
            rewrite_for(&case.graph, &catalog(&case), options).unwrap_or_else(|e| panic!("{e}\n{case}"));
        verify(&graph).unwrap_or_else(|e| panic!("{e}\n{case}"));
        if let Err(difference) = compare(&case, &graph, may_lose_failures) {
            panic!("{difference}\nrules: {report}\n{case}\nrewritten:\n{graph}");
        }
        report.iter().for_each(|(name, count)| *fired.entry(name).or_default() += count);
    }
    fired
}

/// The stored tables of a case.
fn catalog(case: &Case) -> Catalog {
    let mut catalog = Catalog::new();
    for (name, table) in &case.inputs.tables {
        catalog.add(Table::from_batches(name, &[table.to_batch().unwrap()]).unwrap());
    }
    catalog
}

fn compare(case: &Case, rewritten: &Graph, may_lose_failures: bool) -> Result<(), String> {
    let run = |graph: &Graph, errors| -> Answer { evaluate_with(graph, &case.inputs, errors) };
    let before = run(&case.graph, Errors::All);
    if before.is_ok() {
        return same(case, &before, &run(rewritten, Errors::All));
    }
    let (before, after) = (run(&case.graph, Errors::Needed), run(rewritten, Errors::Needed));
    match (&before, &after) {
        // Between the promises: columns that nobody reads have failed.
        (Ok(_), Err(_)) | (Err(_), Err(_)) => Ok(()),
        (Ok(_), Ok(_)) => same(case, &before, &after),
        (Err(_), Ok(_)) if may_lose_failures => Ok(()),
        (Err(error), Ok(_)) => Err(format!("the failure {error} is lost")),
    }
}

fn same(case: &Case, before: &Answer, after: &Answer) -> Result<(), String> {
    let (Ok(before), Ok(after)) = (before, after) else { return Err(format!("{before:?}\nhas become\n{after:?}")) };
    for (((name, a), (_, b)), &ordered) in before.iter().zip(after).zip(&case.ordered) {
        let result = match (a, b) {
            (EvalValue::Table(a), EvalValue::Table(b)) => same_tables(a, b, ordered, FLOAT_TOLERANCE),
            (EvalValue::Tensor(a), EvalValue::Tensor(b)) => same_tensors(a, b, FLOAT_TOLERANCE),
            _ => Err("another kind of value".to_owned()),
        };
        result.map_err(|difference| format!("output {name:?}: {difference}"))?;
    }
    Ok(())
}

/// The rule alone; `filter_before_model` may lose failures of rows that are dropped.
fn alone(name: &str) {
    let options = RewriteOptions::none().with(name).unwrap();
    let fired = check(&options, name == "filter_before_model");
    println!("{name}: {fired:?}");
}

macro_rules! each_rule {
    ($($name:ident)*) => {
        $(#[test] fn $name() { alone(stringify!($name)); })*

        #[test]
        fn no_rule_is_missing_here() {
            let names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

each_rule! {
    count_distinct fold_constants match_prefix fuse_elementwise turn_product quantised_product pool_first
    join_later join_sums reshape_parts merge_steps
    simplify_arithmetic invert_link merge_filters push_filter resolve_mark drop_zero_weights factorise_products split_linear_over_join
    gather_one_hot prune_join filter_before_model merge_projections fold_batch_norm prune_trees stop_trees prune_model_inputs
    prune_projection
}

#[test]
fn all_rules_together() {
    let fired = check(&RewriteOptions::default(), true);
    println!("{fired:?}");
}

#[test]
fn all_rules_that_lose_no_failure() {
    check(&RewriteOptions::default().without("filter_before_model").unwrap(), false);
}

/// A second run has nothing left to do.
#[test]
fn a_rewritten_graph_stays_as_it_is() {
    for seed in 0..CASES {
        let case = Case::random(seed, 1 + seed as usize % 8);
        let (catalog, options) = (catalog(&case), RewriteOptions::default());
        let (once, _) = rewrite_for(&case.graph, &catalog, &options).unwrap();
        let (twice, report) = rewrite_for(&once, &catalog, &options).unwrap();
        assert_eq!((report.iter().count(), once.to_string()), (0, twice.to_string()), "{case}");
    }
}

#[test]
fn an_unknown_rule_is_named() {
    let error = RewriteOptions::default().without("push_filters").unwrap_err().to_string();
    assert!(error.contains("\"push_filters\"") && error.contains("push_filter, "), "{error}");
}

#[test]
fn a_required_rule_stays_on() {
    let error = RewriteOptions::default().without("count_distinct").unwrap_err().to_string();
    assert!(error.contains("count_distinct cannot be switched off"), "{error}");
}
