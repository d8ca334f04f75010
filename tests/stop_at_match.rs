//! Semi-, anti- and mark joins whose right side is what a model picks: rows whose key was found before are not shown to it.

mod session_harness;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use quearn::data::Table as StoredTable;
use quearn::eval::{EvalTable, EvalValue, Inputs, evaluate};
use quearn::prelude::*;
use quearn::testing::same_tables;
use quearn_stage::graph::Graph;
use quearn_stage::rep::Table;
use session_harness::backends;
use std::sync::Arc;

const KEYS: i64 = 400;
const ROWS: i64 = 6000;
/// What `explain` says of a tile that such rows do not come to.
const FOUND: &str = "none whose key was found";

fn noise(i: i64) -> i64 {
    (i * 7919 + 13) % 104_729
}

fn tables() -> Vec<StoredTable> {
    let table = |name: &str, columns: Vec<(&str, ArrayRef)>| {
        StoredTable::from_batches(
            name,
            &[RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| {
                let nullable = c.null_count() > 0;
                (n, c, nullable)
            }))
            .unwrap()],
        )
        .unwrap()
    };
    let ints = |values: &mut dyn Iterator<Item = i64>| Arc::new(Int64Array::from_iter_values(values)) as ArrayRef;
    // Numbers whose sums are exact.
    let floats =
        |by: i64| Arc::new(Float64Array::from_iter_values((0..ROWS).map(|i| (noise(i * by) % 17 - 8) as f64 / 8.0)));
    let some_keys = (0..ROWS).map(|i| (i % 23 != 0).then(|| noise(i) % (KEYS + 50) - 20));
    let rows = vec![
        ("key", ints(&mut (0..ROWS).map(|i| noise(i) % (KEYS + 50) - 20))),
        ("some_key", Arc::new(Int64Array::from_iter(some_keys)) as _),
        ("once", ints(&mut (0..ROWS))),
        ("in_order", ints(&mut (0..ROWS).map(|i| i / 15))),
        ("a", floats(3) as _),
        ("b", floats(5) as _),
    ];
    vec![table("keys", vec![("k", ints(&mut (0..KEYS)))]), table("rows", rows)]
}

/// The rows that a linear model gives more than `least`.
fn picked(s: &Stage, least: f64) -> Rep<'_, Table> {
    let ints = ["key", "once", "in_order"].map(|name| Field::new(name, Scalar::I64)).into_iter();
    let floats = ["a", "b"].map(|name| Field::new(name, Scalar::F64));
    let rows = s.scan("rows", ints.chain([Field::nullable("some_key", Scalar::I64)]).chain(floats));
    let model = rows.map_rows("p", |r| {
        let weights = s.constant(2.0).stack([s.constant(-1.0)]).reshape([2, 1]);
        let p = r.f64("a").stack([r.f64("b")]).matmul(weights);
        p.reshape(p.shape()[..1].to_vec())
    });
    model.filter(|r| r.f64("p").gt(least))
}

fn keys(s: &Stage) -> Rep<'_, Table> {
    s.scan("keys", [Field::new("k", Scalar::I64)])
}

/// Runs a program with and without; does `explain` say that rows do not come?
#[track_caller]
fn check(stops: bool, program: impl for<'s> Fn(&'s Stage) -> Rep<'s, Table>) {
    let s = Stage::new();
    s.output("out", program(&s));
    let graph: Graph = s.finish().unwrap();
    let tables = tables();
    let inputs = tables.iter().fold(Inputs::new(), |inputs, t| inputs.table(t.name(), EvalTable::from(t)));
    let expected = evaluate(&graph, &inputs).unwrap();
    let [(_, EvalValue::Table(expected))] = &expected[..] else { panic!("one table") };
    for (backend, threads) in backends().into_iter().flat_map(|backend| [(backend, 1), (backend, 2)]) {
        for stop in [true, false] {
            let session = Session::builder().backend(backend).threads(threads).stop_at_match(stop);
            let mut session = session.build().unwrap();
            tables.iter().for_each(|t| session.add_table(t.clone()));
            let plan = session.explain(&graph, Level::Pipelines).unwrap();
            assert_eq!(plan.contains(FOUND), stops && stop, "{plan}");
            let outputs = session.run(&graph).unwrap();
            let found = StoredTable::from_batches("out", &[outputs.table("out").unwrap().clone()]).unwrap();
            same_tables(expected, &EvalTable::from(&found), false, 0.0)
                .unwrap_or_else(|e| panic!("{backend:?}, {threads} threads, {stop}: {e}"));
        }
    }
}

#[test]
fn keys_that_occur() {
    for least in [-3.0, 0.0, 2.5, 9.0] {
        check(true, |s| keys(s).join_semi(picked(s, least), [("k", "key")]));
    }
}

#[test]
fn keys_that_do_not() {
    check(true, |s| keys(s).join_anti(picked(s, 2.0), [("k", "key")]));
}

#[test]
fn marks() {
    check(true, |s| keys(s).join_mark(picked(s, 2.0), [("k", "key")], "found"));
}

#[test]
fn keys_with_null() {
    check(true, |s| keys(s).join_semi(picked(s, 2.0), [("k", "some_key")]));
    check(true, |s| keys(s).join_anti(picked(s, 2.0), [("k", "some_key")]));
}

/// Rows of a key that come in one tile are all shown to the model; no harm.
#[test]
fn keys_in_order() {
    check(true, |s| keys(s).join_semi(picked(s, 2.0), [("k", "in_order")]));
}

/// What the model reads can fail, and is computed for all rows.
#[test]
fn features_that_can_fail() {
    fn program(s: &Stage, by: i64) -> Rep<'_, Table> {
        let rows = s.scan("rows", ["key", "once"].map(|name| Field::new(name, Scalar::I64)));
        let model = rows.map_rows("p", |r| {
            let a = (r.i64("once") * by).cast::<F64>();
            let p = a.stack([a]).matmul(s.constant(2.0).stack([s.constant(1.0)]).reshape([2, 1]));
            p.reshape(p.shape()[..1].to_vec())
        });
        keys(s).join_semi(model.filter(|r| r.f64("p").ge(0.0)), [("k", "key")])
    }
    check(true, |s| program(s, 3));
    for backend in backends() {
        let s = Stage::new();
        s.output("out", program(&s, i64::MAX / ROWS * 2));
        let mut session = Session::builder().backend(backend).threads(1).build().unwrap();
        tables().into_iter().for_each(|t| session.add_table(t));
        let error = session.run(&s.finish().unwrap()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("overflow"), "{error}");
    }
}

#[test]
fn what_needs_more_than_a_match_sees_all_rows() {
    // No key twice.
    check(false, |s| keys(s).join_semi(picked(s, 2.0), [("k", "once")]));
    // The rows themselves are wanted.
    check(false, |s| keys(s).join_inner(picked(s, 2.0), [("k", "key")]));
    // The key is computed, in a way that can fail.
    check(false, |s| keys(s).join_semi(picked(s, 2.0).with("j", |r| r.i64("key") * r.i64("once")), [("k", "j")]));
}
