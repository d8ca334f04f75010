//! What joins send to the scans below them: tests of rows by vectors, and look-ups that are fetched ahead. Each against the
//! naive evaluator, on tables that are large enough for them. Without AVX-512 there are none, and the answers are the same.

use arrow::array::{Array, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray};
use quearn::data::Table;
use quearn::eval::{EvalTable, EvalValue, Inputs, evaluate};
use quearn::prelude::*;
use quearn::testing::same_tables;
use std::sync::Arc;

const FACTS: i64 = 20_000;
const DIMS: i64 = 30_000;

type Columns = Vec<(&'static str, Arc<dyn Array>)>;

fn ints(values: impl Iterator<Item = i64>) -> Arc<dyn Array> {
    Arc::new(Int64Array::from_iter_values(values))
}

fn noise(i: i64) -> i64 {
    (i * 7919 + 13) % 104_729
}

fn decimals(scale: i8, values: impl Iterator<Item = i64>) -> Arc<dyn Array> {
    let array = Decimal128Array::from_iter_values(values.map(i128::from));
    Arc::new(array.with_precision_and_scale(9, scale).unwrap())
}

fn tables() -> Vec<Table> {
    let some = Int64Array::from_iter((0..FACTS).map(|i| (i % 7 != 0).then(|| noise(i) % 1000)));
    let facts: Columns = vec![
        ("id", ints(0..FACTS)),
        ("near", ints((0..FACTS).map(|i| noise(i) % 1000 - 20))),
        ("far", ints((0..FACTS).map(|i| noise(i) % 3000 * 300))),
        ("dim", ints((0..FACTS).map(|i| noise(i * 3) % DIMS))),
        ("some", Arc::new(some)),
        ("huge", ints((0..FACTS).map(|i| (noise(i) % 1000) << 33))),
        ("wide", ints((0..FACTS).map(|i| (noise(i * 3) % (DIMS + 50)) << 33))),
        ("day", Arc::new(Date32Array::from_iter_values((0..FACTS).map(|i| (noise(i) % 900) as i32)))),
        ("price", decimals(2, (0..FACTS).map(|i| noise(i) % 1000 * 50))),
        ("name", Arc::new(StringArray::from_iter_values((0..FACTS).map(|i| format!("n{}", noise(i) % 997))))),
    ];
    let keys: Columns = vec![
        ("k_near", ints((0..200).map(|i| i * 3 + 5))),
        ("k_far", ints((0..200).map(|i| noise(i) % 3000 * 300))),
        ("k_huge", ints((0..200).map(|i| i << 33))),
        ("k_day", Arc::new(Date32Array::from_iter_values((0..200).map(|i| i * 2 + 100)))),
        ("k_price", decimals(1, (0..200).map(|i| i * 5))),
        ("k_name", Arc::new(StringArray::from_iter_values((0..200).map(|i| format!("n{}", i * 4))))),
        ("k_x", ints((0..200).map(|i| i % 5))),
    ];
    let dims: Columns = vec![
        ("d_key", ints((0..DIMS).map(|i| (i * 7919) % DIMS))),
        ("d_x", ints((0..DIMS).map(noise))),
        ("d_wide", ints((0..DIMS).map(|i| i << 33))),
    ];
    let table = |name: &str, columns: Columns| {
        Table::from_batches(name, &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
    };
    vec![table("facts", facts), table("keys", keys), table("dims", dims)]
}

fn scan<'s>(s: &'s Stage, table: &str) -> Rep<'s, quearn_stage::rep::Table> {
    let int = |name: &str| Field::new(name, Scalar::I64);
    let decimal = |name: &str, scale| Field::new(name, Scalar::Decimal { precision: 9, scale });
    let fields = match table {
        "facts" => vec![
            int("id"),
            int("near"),
            int("far"),
            int("dim"),
            Field::nullable("some", Scalar::I64),
            int("huge"),
            int("wide"),
            Field::new("day", Scalar::Date),
            decimal("price", 2),
            Field::new("name", Scalar::String),
        ],
        "keys" => vec![
            int("k_near"),
            int("k_far"),
            int("k_huge"),
            Field::new("k_day", Scalar::Date),
            decimal("k_price", 1),
            Field::new("k_name", Scalar::String),
            int("k_x"),
        ],
        _ => vec![int("d_key"), int("d_x"), int("d_wide")],
    };
    s.scan(table, fields)
}

/// Runs a program by LLVM and by the interpreter; where there is AVX-512, its pipelines show `word`.
#[track_caller]
fn check(word: &str, program: impl for<'s> Fn(&'s Stage) -> Rep<'s, quearn_stage::rep::Table>) {
    let s = Stage::new();
    s.output("out", program(&s));
    let graph = s.finish().unwrap();
    let tables = tables();
    let mut inputs = Inputs::default();
    for table in &tables {
        inputs.tables.insert(table.name().to_owned(), EvalTable::from(table));
    }
    let expected = evaluate(&graph, &inputs).unwrap();
    let [(_, EvalValue::Table(expected))] = &expected[..] else { panic!("one table") };
    for (backend, threads) in [(BackendKind::Interp, 1), (BackendKind::Auto, 2)] {
        let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
        tables.iter().for_each(|t| session.add_table(t.clone()));
        let plan = session.explain(&graph, Level::Pipelines).unwrap();
        if cfg!(target_arch = "x86_64") && has_avx512() {
            assert!(plan.contains(word), "no \"{word}\" in\n{plan}");
        }
        let outputs = session.run(&graph).unwrap();
        let got = EvalTable::from(&Table::from_batches("out", &[outputs.table("out").unwrap().clone()]).unwrap());
        assert!(got.rows() > 0, "a test of nothing");
        same_tables(expected, &got, false, 0.0).unwrap_or_else(|e| panic!("{backend:?}: {e}\n{plan}"));
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

#[test]
fn keys_that_occur() {
    for (own, other) in [("near", "k_near"), ("day", "k_day"), ("far", "k_far"), ("price", "k_price")] {
        let word = if own == "price" { String::new() } else { format!("{own} among keys") };
        check(&word, |s| scan(s, "facts").join_semi(scan(s, "keys"), [(own, other)]).select(["id", own]));
        // A small array of heads answers as fast as a test.
        check("", |s| {
            let filtered = scan(s, "facts").filter(|r| r.i64("id").lt(18_000) & (r.i64("near") + r.i64("id")).gt(500));
            filtered.join_inner(scan(s, "keys"), [(own, other)]).select(["id", own, "k_x"])
        });
    }
}

#[test]
fn keys_that_do_not() {
    check("near not among keys", |s| {
        let most = scan(s, "facts").filter(|r| r.i64("near").gt(600)).select(["near"]);
        let most = most.project(|r| [("n", r.col("near"))]);
        scan(s, "facts").join_anti(most, [("near", "n")]).select(["id"])
    });
    // No test: NULLs, values that fit no lane, text, other units on the other side, a row for each key.
    for (own, other) in [("some", "k_near"), ("huge", "k_huge"), ("name", "k_name")] {
        check("", |s| scan(s, "facts").join_semi(scan(s, "keys"), [(own, other)]).select(["id"]));
        check("", |s| scan(s, "facts").join_anti(scan(s, "keys"), [(own, other)]).select(["id"]));
    }
    check("", |s| scan(s, "facts").join_left(scan(s, "keys"), [("near", "k_near")]).select(["id", "k_x"]));
}

#[test]
fn several_joins_send_their_tests_to_one_scan() {
    check("dim among keys", |s| {
        let near = scan(s, "dims").filter(|r| r.i64("d_key").lt(450)).project(|r| [("n", r.col("d_key"))]);
        let odd = scan(s, "dims").filter(|r| r.i64("d_key").gt(28_000));
        scan(s, "facts").join_semi(near, [("near", "n")]).join_semi(odd, [("dim", "d_key")]).select(["id"])
    });
    // The same table on both sides: the key of the upper join is a column of the lower one's right side.
    check("", |s| {
        let few =
            scan(s, "facts").filter(|r| r.i64("id").lt(300)).project(|r| [("d", r.col("dim")), ("z", r.col("near"))]);
        let pairs = scan(s, "facts").join_inner(few, [("dim", "d")]);
        pairs.join_semi(scan(s, "keys"), [("z", "k_near")]).select(["id", "z"])
    });
    check("", |s| {
        let keys = [("near", "k_near"), ("far", "k_far")];
        scan(s, "facts").join_left(scan(s, "keys"), keys).select(["id", "k_x"])
    });
}

#[test]
fn rows_that_fail_are_seen() {
    let s = Stage::new();
    let failing = scan(&s, "facts").filter(|r| (s.constant(1000i64) / (r.i64("near") - 7)).gt(0));
    s.output("out", failing.join_semi(scan(&s, "keys").filter(|r| r.i64("k_near").gt(50)), [("near", "k_near")]));
    let graph = s.finish().unwrap();
    let mut session = Session::builder().build().unwrap();
    tables().into_iter().for_each(|t| session.add_table(t));
    let error = session.run(&graph).unwrap_err().to_string();
    assert!(error.contains("division by zero"), "{error}");
}

#[test]
fn look_ups_are_fetched_ahead() {
    check("matches of dim fetched ahead", |s| {
        let sized = scan(s, "dims").with("a", |r| r.i64("d_x") + 1).with("b", |r| r.i64("d_x") * 3);
        let some = scan(s, "facts").filter(|r| r.i64("near").gt(100));
        some.join_inner(sized, [("dim", "d_key")]).select(["id", "d_x", "a", "b"])
    });
    // By hash.
    check("matches of wide fetched ahead", |s| {
        let sized = scan(s, "dims").with("a", |r| r.i64("d_x") + 1);
        scan(s, "facts").join_left(sized, [("wide", "d_wide")]).select(["id", "d_x", "a"])
    });
}
