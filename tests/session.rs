//! Programs through the session, on both backends, against the naive evaluator.

use arrow::array::{Int64Array, RecordBatch, StringArray};
use quearn::data::Table;
use quearn::prelude::*;
use std::sync::Arc;

fn people() -> RecordBatch {
    let id = Int64Array::from((0..1000).collect::<Vec<i64>>());
    let age = Int64Array::from((0..1000).map(|i| (i * 7) % 90).collect::<Vec<i64>>());
    let city = StringArray::from((0..1000).map(|i| ["Oslo", "Bern", "Rome"][i % 3]).collect::<Vec<_>>());
    RecordBatch::try_from_iter([("id", Arc::new(id) as _), ("age", Arc::new(age) as _), ("city", Arc::new(city) as _)])
        .unwrap()
}

fn sessions() -> Vec<Session> {
    let mut all = vec![];
    for backend in [BackendKind::Interp, BackendKind::Auto] {
        for threads in [1, 2] {
            let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
            session.add_table(Table::from_batches("people", &[people()]).unwrap());
            all.push(session);
        }
    }
    all
}

fn fields() -> Vec<Field> {
    vec![Field::new("id", Scalar::I64), Field::new("age", Scalar::I64), Field::new("city", Scalar::String)]
}

#[test]
fn filter_and_sum() {
    let s = Stage::new();
    let t = s.scan("people", fields()).filter(|r| r.i64("age").lt(30));
    s.output("sum", t.sum(|r| r.i64("id") * r.i64("age")));
    let graph = s.finish().unwrap();
    let want: i64 = (0..1000).filter(|i| (i * 7) % 90 < 30).map(|i| i * ((i * 7) % 90)).sum();
    for session in sessions() {
        let out = session.run(&graph).unwrap();
        let batch = out.table("sum").unwrap();
        let got = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0);
        assert_eq!(got, want, "{} {}", session.backend_name(), session.options().threads);
    }
}

#[test]
fn group_join_sort() {
    let s = Stage::new();
    let people = s.scan("people", fields());
    let old = s.scan("people", fields()).filter(|r| r.i64("age").ge(60)).project(|r| [("k", r.i64("id").dyn_())]);
    let joined = people.join_inner(old, [("id", "k")]);
    let grouped = joined.group_by(["city"]).agg(|r| [count("n"), sum("s", r.i64("age")), avg("a", r.i64("age"))]);
    s.output("out", grouped.sort([desc("n"), asc("city")]).limit(2));
    let graph = s.finish().unwrap();
    for session in sessions() {
        let out = session.run(&graph).unwrap();
        println!("{out}");
        assert_eq!(out.table("out").unwrap().num_rows(), 2);
    }
}
