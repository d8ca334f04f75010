//! Texts of any length that begin alike, with zeros inside, as keys of groups and joins, least and greatest, and sorted,
//! against the naive evaluator.

mod session_harness;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;
use quearn::data::{LoadOptions, Table as StoredRows};
use quearn::prelude::{Field, Rep, Scalar, Stage, Table, asc, count, desc, max, min};
use session_harness::evaluated;
use std::sync::Arc;

type Row = (Option<String>, i64, Option<String>);

/// Up to twenty bytes of which many are the same.
fn text() -> impl Strategy<Value = Option<String>> {
    let head = prop::sample::select(vec!["", "a", "ab", "abc", "abcd", "abc\0", "\0", "abcdefgh", "é"]);
    let rest = prop::collection::vec(prop::sample::select(vec!["\0", "a", "z", "ÿ", "abcd"]), 0..3);
    prop::option::weighted(0.9, (head, rest).prop_map(|(head, rest)| head.to_owned() + &rest.concat()))
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((text(), 0..7i64, text()), 1..120)
}

fn table(name: &str, rows: &[Row], is_sorted: bool) -> StoredRows {
    let mut rows = rows.to_vec();
    if is_sorted {
        rows.sort_by_key(|row| row.1);
    }
    let texts = |text: fn(&Row) -> &Option<String>| Arc::new(StringArray::from_iter(rows.iter().map(text))) as ArrayRef;
    let numbers = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))) as ArrayRef;
    let columns = [("k", texts(|row| &row.0), true), ("n", numbers, false), ("v", texts(|row| &row.2), true)];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    StoredRows::from_batches_with(name, &[batch], &LoadOptions::SHARE).unwrap()
}

fn scan<'s>(s: &'s Stage, name: &str) -> Rep<'s, Table> {
    let text = |name: &str| Field::nullable(name, Scalar::String);
    s.scan(name, [text("k"), Field::new("n", Scalar::I64), text("v")])
}

fn renamed(s: &Stage) -> Rep<'_, Table> {
    scan(s, "u").project(|r| [("uk", r.str("k").dyn_()), ("un", r.i64("n").dyn_()), ("uv", r.str("v").dyn_())])
}

type Query = for<'s> fn(&'s Stage) -> Rep<'s, Table>;

const QUERIES: [Query; 7] = [
    |s| scan(s, "t").group_by(["k"]).agg(|r| [min("least", r.str("v")), max("most", r.str("v")), count("rows")]),
    |s| scan(s, "t").group_by(["n"]).agg(|r| [min("least", r.str("v")), max("most", r.str("k")), count("rows")]),
    |s| scan(s, "t").group_by(["k", "n"]).agg(|r| [max("most", r.str("v"))]),
    |s| scan(s, "t").join_inner(renamed(s), [("k", "uk")]).select(["k", "n", "v", "un"]),
    |s| scan(s, "t").join_left(renamed(s), [("n", "un"), ("v", "uv")]).select(["k", "v", "uk"]),
    |s| scan(s, "t").join_anti(renamed(s), [("k", "uv")]).select(["k", "n"]),
    |s| scan(s, "t").sort([desc("v"), asc("k").nulls_first(), asc("n")]).limit(40),
];

fn check(query: Query, tables: &[StoredRows]) -> Result<(), String> {
    let s = Stage::new();
    s.output("out", query(&s));
    let graph = s.finish().unwrap();
    evaluated(&graph, tables).map(|_| ())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn texts_are_compared_by_all_their_bytes(t in rows(), u in rows(), is_sorted: bool) {
        let tables = [table("t", &t, is_sorted), table("u", &u, false)];
        for (i, query) in QUERIES.into_iter().enumerate() {
            if let Err(error) = check(query, &tables) {
                prop_assert!(false, "query {i}: {error}");
            }
        }
    }
}
