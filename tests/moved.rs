//! The bytes that a run reports are those that it moved, on both backends and for any number of workers.

mod session_harness;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use quearn::moved::MoveKind;
use quearn::prelude::*;
use quearn::{Level, Outputs};
use session_harness::{backends, table};
use std::sync::Arc;

const ROWS: u64 = 40_000;

fn session(backend: BackendKind, threads: usize) -> Session {
    let mut session = Session::builder().backend(backend).threads(threads).build().unwrap();
    let ints = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let rows = 0..ROWS as i64;
    let x = Arc::new(Float64Array::from_iter_values(rows.clone().map(|i| (i % 1000) as f64))) as ArrayRef;
    session.add_table(table(
        "sales",
        vec![("key", ints(rows.clone().map(|i| i * 7919 % 100).collect())), ("day", ints(rows.collect())), ("x", x)],
    ));
    let names = Arc::new(StringArray::from_iter_values((0..50).map(|i| format!("name {i}")))) as ArrayRef;
    session.add_table(table("keys", vec![("id", ints((0..50).map(|i| i * i).collect())), ("name", names)]));
    session
}

fn sales(s: &Stage) -> Rep<'_, Table> {
    s.scan("sales", [Field::new("key", Scalar::I64), Field::new("day", Scalar::I64), Field::new("x", Scalar::F64)])
}

/// Runs a program on every backend with one worker and with two.
fn runs(write: impl Fn(&Stage), weights: &[(&str, StoredTensor)], check: impl Fn(&Outputs, usize)) {
    for backend in backends() {
        for threads in [1, 2] {
            let s = Stage::new();
            write(&s);
            let mut session = session(backend, threads);
            weights.iter().for_each(|(name, tensor)| session.bind(*name, tensor.clone()));
            let outputs = session.compile(&s.finish().unwrap()).unwrap();
            let first = outputs.run(&session).unwrap();
            let again = outputs.run(&session).unwrap();
            assert_eq!(first.moved().border(), again.moved().border());
            check(&again, threads);
        }
    }
}

fn bytes_at(outputs: &Outputs, kind: MoveKind, place: &str) -> u64 {
    let sites = outputs.moved().sites().filter(|(site, _)| site.kind == kind && site.name.contains(place));
    sites.map(|(_, bytes)| bytes).sum()
}

#[test]
fn scans_read_columns_and_joins_write_build_sides() {
    let write = |s: &Stage| {
        let keys = s.scan("keys", [Field::new("id", Scalar::I64), Field::new("name", Scalar::String)]);
        let joined = sales(s).join_inner(keys, [("key", "id")]);
        s.output("totals", joined.group_by(["name"]).agg(|r| [sum("total", r.f64("x"))]));
    };
    runs(write, &[], |outputs, _| {
        let moved = outputs.moved();
        assert_eq!(bytes_at(outputs, MoveKind::Read, "key, x of \"sales\""), ROWS * 16, "{moved}");
        // 50 rows of an entry's header, a key and a name, whatever the chunk has room for.
        let built = bytes_at(outputs, MoveKind::Written, "build side");
        assert!((50 * 32..100_000).contains(&built), "{moved}");
        assert!(bytes_at(outputs, MoveKind::Written, "rel.aggregate") > 0, "{moved}");
        assert!(bytes_at(outputs, MoveKind::Result, "the result") > 0, "{moved}");
        assert_eq!((moved.border(), moved.bytes(MoveKind::Tile)), (0, 0), "{moved}");
    });
}

/// A model in a query: its rows go through the tile, and nothing is copied.
#[test]
fn a_model_inside_a_query_copies_nothing() {
    let write = |s: &Stage| {
        let few = sales(s).filter(|r| r.i64("day").lt(1000));
        let scored = few.map_rows("y", |_| few.tensor::<F64>(&["x"]).matmul(s.weight("w", [1, 2])).sum([1]));
        s.output("sum", scored.aggregate(|r| [sum("y", r.f64("y"))]));
    };
    let w = StoredTensor::from_vec(vec![1.0f64, 2.0], &[1, 2]).unwrap();
    runs(write, &[("w", w)], |outputs, _| {
        let moved = outputs.moved();
        assert_eq!(moved.border(), 0, "{moved}");
        let tile = moved.bytes(MoveKind::Tile);
        assert!(tile >= 1000 * 8 && tile.is_multiple_of(1000), "1000 rows: {moved}");
        assert_eq!(bytes_at(outputs, MoveKind::Read, "tensor \"w\""), 16, "{moved}");
    });
}

/// A tensor program that needs all rows more than once has them written out: that is a border.
#[test]
fn rows_of_a_tensor_program_are_copied() {
    let write = |s: &Stage| {
        let x = sales(s).filter(|r| r.i64("day").lt(1000)).tensor::<F64>(&["x"]);
        let w = x.mean([0]).broadcast([1000, 1]).sum([0]);
        s.output("y", (x - w.broadcast([1])).relu().sum([0]));
    };
    runs(write, &[], |outputs, _| {
        let moved = outputs.moved();
        // Appended to lists, then brought together; a row has 16 bytes.
        let rows = bytes_at(outputs, MoveKind::Border, "rows of a tensor program");
        assert!((2 * 1000 * 16..2 * 1000 * 16 + 256).contains(&rows), "{moved}");
    });
}

#[test]
fn explain_and_profile_show_the_places() {
    let s = Stage::new();
    let x = sales(&s).tensor::<F64>(&["x"]);
    s.output("y", (x - x.mean([0]).broadcast([1])).relu().sum([0]));
    let graph = s.finish().unwrap();
    let session = session(BackendKind::Interp, 1);
    let text = session.explain(&graph, Level::Pipelines).unwrap();
    assert!(text.contains("copied at the border") && text.contains("border    rows of a tensor program"), "{text}");
    let profile = session.compile(&graph).unwrap().profile(&session).unwrap().to_string();
    assert!(profile.contains("bytes  rows of a tensor program"), "{profile}");
}
