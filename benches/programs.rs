//! Parts of the system by themselves: how long a small query takes from its graph to code, and how long it runs.
//! `cargo bench -p quearn`. Whole workloads are measured by `quearn-tpch bench` and `quearn-models bench`.

use criterion::{Criterion, criterion_group, criterion_main};
use quearn::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use quearn::prelude::*;
use std::hint::black_box;
use std::sync::Arc;

const ROWS: i64 = 1 << 20;

fn session() -> Session {
    let key: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|i| i * 7919 % 1000)));
    let value: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|i| i % 257)));
    let text: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|i| ["red", "green", "blue"][i as usize % 3])));
    let batch = RecordBatch::try_from_iter([("key", key), ("value", value), ("colour", text)]).expect("equal lengths");
    let mut session = Session::builder().threads(1).build().expect("one thread needs nothing");
    session.add_table(StoredTable::from_batches("t", &[batch]).expect("plain columns"));
    session
}

fn fields() -> [Field; 3] {
    [Field::new("key", Scalar::I64), Field::new("value", Scalar::I64), Field::new("colour", Scalar::String)]
}

fn filter_sum() -> Graph {
    let s = Stage::new();
    let t = s.scan("t", fields()).filter(|r| r.i64("value").lt(30));
    s.output("sum", t.sum(|r| r.i64("key") * r.i64("value")));
    s.finish().expect("well-typed")
}

fn group_by() -> Graph {
    let s = Stage::new();
    let groups = s.scan("t", fields()).group_by(["key"]).agg(|r| [sum("s", r.i64("value")), count("n")]);
    s.output("groups", groups.sort([desc("s")]).limit(10));
    s.finish().expect("well-typed")
}

fn programs(c: &mut Criterion) {
    let session = session();
    for (name, graph) in [("filter_sum", filter_sum()), ("group_by", group_by())] {
        c.bench_function(&format!("{name}/compile"), |b| b.iter(|| session.compile(black_box(&graph))));
        let program = session.compile(&graph).expect("compiles");
        c.bench_function(&format!("{name}/run of 2^20 rows"), |b| b.iter(|| program.run(black_box(&session))));
    }
}

criterion_group!(benches, programs);
criterion_main!(benches);
